//! What a process may do, as the scenes of this chapter set and read it.

use probe::State;
use probe::anyhow::Result;
use probe::libc;
use probe::nix::errno::Errno;
use step06_caps::capabilities::Capability;

/// CAP_SETGID, CAP_SETUID … by their numbers: capabilities(7).
pub const CHOWN: u32 = 0;
pub const KILL: u32 = 5;
pub const SETGID: u32 = 6;
pub const SETUID: u32 = 7;
pub const SETPCAP: u32 = 8;
pub const NET_RAW: u32 = 13;
pub const SYS_ADMIN: u32 = 21;
pub const SYSLOG: u32 = 34;
pub const WAKE_ALARM: u32 = 35;

/// The set of these capabilities.
pub fn set(capabilities: &[u32]) -> u64 {
    capabilities.iter().fold(0, |set, number| set | 1 << number)
}

/// A line of the status that is a set, `CapPrm`.
pub fn mask(state: &State, line: &str) -> u64 {
    u64::from_str_radix(state.status(line), 16).unwrap_or_default()
}

/// Sets the calling process's permitted, effective and inheritable capabilities.
pub fn hold(permitted: u64, effective: u64, inheritable: u64) -> Result<()> {
    let header = [0x2008_0522_u32, 0];
    let half = |shift: u32| [effective, permitted, inheritable].map(|set| (set >> shift) as u32);
    let data = [half(0), half(32)];
    // SAFETY: the kernel reads the header and, for this version, two structs of three u32.
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) };
    Ok(Errno::result(result).map(drop)?)
}

/// The calling process's securebits, without the one that execve takes back: PR_GET_SECUREBITS(2const).
pub fn securebits() -> i32 {
    const KEEP_CAPS: i32 = 1 << 4;
    // SAFETY: takes integers.
    unsafe { libc::prctl(libc::PR_GET_SECUREBITS) & !KEEP_CAPS }
}

/// What a set has too much and too little, by the names of the capabilities.
pub fn differs(seen: u64, wanted: u64) -> String {
    let parts = [
        ("more than asked", seen & !wanted),
        ("missing", wanted & !seen),
    ];
    let parts = parts.iter().filter(|(_, set)| *set != 0);
    let parts: Vec<_> = parts
        .map(|(words, set)| format!("{words}: {}", names(*set)))
        .collect();
    parts.join("; ")
}

/// The names of at most four capabilities of a set, and how many others there are.
fn names(set: u64) -> String {
    const MOST: usize = 4;
    let of_set = Capability::all().filter(|each| set & each.bit() != 0);
    let mut names: Vec<_> = of_set.map(|each| format!("CAP_{}", each.name())).collect();
    let others = names.len().saturating_sub(MOST);
    names.truncate(MOST);
    match others {
        0 => names.join(", "),
        others => format!("{} and {others} others", names.join(", ")),
    }
}

//! The capabilities, by number and by name: capabilities(7).

use std::fmt::{self, Formatter};
use step01_uts::call::Argument;
use strsim::jaro_winkler;

/// One capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability(u32);

/// The capabilities' names, without CAP_, in the order of the numbers: `include/uapi/linux/capability.h`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

// ANCHOR: DEFAULT
/// The capabilities that Docker leaves to a container's root: enough to install packages and to serve a port.
pub const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SYS_CHROOT",
    "MKNOD",
    "AUDIT_WRITE",
    "SETFCAP",
];
// ANCHOR_END: DEFAULT

impl Capability {
    /// All capabilities, by number.
    pub fn all() -> impl Iterator<Item = Capability> {
        (0..NAMES.len() as u32).map(Capability)
    }

    /// The capability called `name`, in any case, with or without CAP_.
    ///
    /// # Errors
    /// No capability has that name; the text names the nearest.
    pub fn named(name: &str) -> Result<Capability, String> {
        let upper = name.to_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let found = Capability::all().find(|each| each.name() == bare);
        found.ok_or_else(|| {
            let near = |each: &Capability| (jaro_winkler(each.name(), bare) * 1e6) as u64;
            let nearest = Capability::all().max_by_key(near);
            let nearest = nearest.map_or("", |each| each.name());
            format!(
                "there is no capability {name}; the nearest is {nearest} (capabilities(7) has all), \
                 and ALL means each of them"
            )
        })
    }

    /// Its number.
    pub fn number(self) -> u32 {
        self.0
    }

    /// Its bit in a set.
    pub fn bit(self) -> u64 {
        1 << self.0
    }

    /// Its name, without CAP_.
    pub fn name(self) -> &'static str {
        NAMES[self.0 as usize]
    }
}

impl Argument for Capability {
    fn show(&self, f: &mut Formatter) -> fmt::Result {
        write!(f, "CAP_{}", self.name())
    }
}

// ANCHOR: CapSets
/// A process's five sets, a bit for each capability. See capabilities(7).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CapSets {
    /// The most that `execve` can ever give.
    pub bounding: u64,
    /// What the process may take up.
    pub permitted: u64,
    /// What the process may do just now.
    pub effective: u64,
    /// What stays across `execve` of a file that has the same in its own inheritable set.
    pub inheritable: u64,
    /// What stays across `execve` of any file, without uid 0.
    pub ambient: u64,
}

impl CapSets {
    /// The sets of a container's process that may have the capabilities `set`. Root has them. Any other user has
    /// only the bounding set: the most that files with capabilities of their own can give.
    pub fn of(set: u64, uid: u32) -> CapSets {
        let held = if uid == 0 { set } else { 0 };
        CapSets {
            bounding: set,
            permitted: held,
            effective: held,
            ..CapSets::default()
        }
    }
}
// ANCHOR_END: CapSets

/// The calling process's permitted set: the most that it can give to a container.
pub fn permitted() -> u64 {
    let header = [0x2008_0522_u32, 0]; // version 3, this process
    let mut data = [[0_u32; 3]; 2]; // effective, permitted, inheritable: the low half and the high
    // SAFETY: the kernel reads the header and, for this version, writes two structs of three u32.
    unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), data.as_mut_ptr()) };
    u64::from(data[0][1]) | u64::from(data[1][1]) << 32
}

/// A capability's name as it is kept: without CAP_ and in capitals, or ALL for every one.
pub fn kept_name(text: &str) -> Result<String, String> {
    if text.eq_ignore_ascii_case("ALL") {
        return Ok("ALL".into());
    }
    Capability::named(text).map(|capability| capability.name().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_any_way_that_people_write_them() {
        for name in ["SYS_ADMIN", "sys_admin", "CAP_SYS_ADMIN", "cap_Sys_Admin"] {
            assert_eq!(Capability::named(name).unwrap().number(), 21);
        }
        assert_eq!(
            Capability::named("CHECKPOINT_RESTORE").unwrap().number(),
            40
        );
        let said = Capability::named("SYS_ADMNI").unwrap_err();
        assert!(said.contains("nearest is SYS_ADMIN"), "{said}");
    }
}

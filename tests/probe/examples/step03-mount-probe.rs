//! The exercises of chapter 3, called one by one.

use probe::anyhow::{Context, Result};
use probe::libc::{self, c_long};
use probe::nix::errno::Errno;
use probe::nix::mount::{MsFlags, mount};
use probe::nix::sched::{CloneFlags, unshare};
use probe::nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use probe::nix::unistd::{chdir, chroot};
use probe::world::{private_mounts, tmpfs};
use probe::{Claim, Findings, Outcome, Subject};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use step01_uts::Refused;
use step03_mount::{interface_flags, set_interface_flags};

fn main() -> Result<()> {
    probe::main(&[
        ("make_private", make_private),
        ("mount_proc", mount_proc),
        ("loopback_up", loopback_up),
    ])
}

/// Errors with the errno of a [`Refused`] in front.
fn told<T>(outcome: Result<T>) -> Result<T> {
    probe::told(outcome, Refused::errno)
}

/// The calls that change mounts, each with what the kernel may say to it.
const MOUNTING: &[(c_long, &str, Errno)] = &[
    (libc::SYS_mount, "mount", Errno::EPERM),
    (libc::SYS_mount_setattr, "mount_setattr", Errno::EPERM),
    (libc::SYS_fsopen, "fsopen", Errno::EPERM),
    (libc::SYS_fsconfig, "fsconfig", Errno::EPERM),
    (libc::SYS_fsmount, "fsmount", Errno::EPERM),
    (libc::SYS_open_tree, "open_tree", Errno::EPERM),
    (libc::SYS_move_mount, "move_mount", Errno::EPERM),
];

/// A mount namespace whose mounts are tied to each other: one in another, one whose name has a blank, and two on one
/// place. Not the host's: these would be its mounts, too.
fn shared_mounts(scratch: &Path) -> Result<()> {
    private_mounts()?;
    tmpfs(&scratch.join("outer"), "outer")?;
    tmpfs(&scratch.join("outer/inner"), "inner")?;
    tmpfs(&scratch.join("a blank"), "blank")?;
    tmpfs(&scratch.join("twice"), "below")?;
    tmpfs(&scratch.join("twice"), "above")?;
    let none = None::<&str>;
    let flags = MsFlags::MS_REC | MsFlags::MS_SHARED;
    mount(none, "/", none, flags, none).context("shared mounts")?;
    // A copy of the copy, so that each has a peer, for as long as somebody holds the first one.
    std::mem::forget(fs::File::open("/proc/self/ns/mnt")?);
    Ok(unshare(CloneFlags::CLONE_NEWNS)?)
}

/// A line of a mount table without what ties it to others.
fn untied(line: &str) -> String {
    let (own, filesystem) = line.split_once(" - ").unwrap_or((line, ""));
    let fields: Vec<&str> = own.split(' ').take(4).collect();
    format!("{} - {filesystem}", fields.join(" "))
}

/// The ties of a line: `shared:1`, `master:2`, `unbindable`.
fn ties(line: &str) -> Vec<&str> {
    let own = line.split(" - ").next().unwrap_or_default();
    own.split(' ').skip(4).collect()
}

fn make_private(findings: &Findings) -> Result<()> {
    let call = |subject: Subject| {
        subject.call_in(
            || shared_mounts(&findings.scratch),
            |()| told(step03_mount::make_private()),
            |_| Ok(()),
        )
    };
    let expected = "make_private comes back with Ok";
    findings.begin(expected);
    let outcome = call(findings.subject())?;
    findings.claim(Claim::new(expected, outcome.in_words(), outcome.is_ok()));
    if !outcome.is_ok() {
        return Ok(());
    }
    let tied: Vec<&String> = outcome
        .after
        .mounts
        .iter()
        .filter(|line| !ties(line).is_empty())
        .collect();
    // Of many, one that every machine has: the check's own, or the root.
    let scratch = findings.scratch.display().to_string();
    let is_known = |line: &&&String| line.contains(&scratch) || line.contains(" / ");
    let known = tied.iter().find(|line| line.contains(&scratch));
    let known = known
        .or_else(|| tied.iter().find(is_known))
        .or(tied.first());
    let show = |line: &String| {
        let target = line.split(' ').nth(2).unwrap_or_default();
        format!("{target} has {}", ties(line).join(" "))
    };
    let has = |kind: &str| {
        tied.iter()
            .any(|line| ties(line).iter().any(|tie| tie.starts_with(kind)))
    };
    let claim = Claim::new(
        "no mount is tied to another namespace's any more",
        format!(
            "/proc/PID/mountinfo: {} mounts are, among them {}",
            tied.len(),
            known.map(|line| show(line)).unwrap_or_default()
        ),
        tied.is_empty(),
    );
    let is_some = tied.len() < outcome.after.mounts.len();
    findings.claim(match () {
        () if has("master") => claim.why(
            "the mounts were made slaves: what the host mounts still comes in. MS_PRIVATE ends it both ways",
        ),
        () if has("unbindable") => claim.why("unbindable is more than private: nobody can bind these mounts any more"),
        () if is_some => claim.why(
            "only some mounts were made private, and others stay tied: MS_REC reaches each mount below, also one that \
             another lies on, and one with a blank in its name",
        ),
        () => claim,
    });
    let plain = |lines: &[String]| lines.iter().map(|line| untied(line)).collect::<Vec<_>>();
    findings.claim(Claim::new(
        "the mounts themselves are what they were",
        "/proc/PID/mountinfo: other mounts, or other options",
        plain(&outcome.before.mounts) == plain(&outcome.after.mounts),
    ));
    findings.caller_stays(&outcome, &["mounts"]);
    if findings.all_hold() {
        where_the_root_is_no_mount(findings)?;
    }
    findings.each_call_fails("make_private", MOUNTING, call, || false, |_| Vec::new())?;
    Ok(())
}

fn where_the_root_is_no_mount(findings: &Findings) -> Result<()> {
    let expected = "where / isn't a mount point, as in a chroot, make_private returns EINVAL";
    findings.begin(expected);
    let outcome = findings.subject().call_in(
        || {
            shared_mounts(&findings.scratch)?;
            let inside = findings.scratch.join("outer/directory");
            fs::create_dir(&inside)?;
            chroot(&inside)?;
            Ok(chdir("/")?)
        },
        |()| told(step03_mount::make_private()),
        |_| Ok(()),
    )?;
    let holds = outcome.error().starts_with("EINVAL");
    let claim = Claim::new(expected, outcome.in_words(), holds);
    findings.claim(match outcome.is_ok() {
        true => claim.why(
            "nothing was made private, and nobody is told: the container's mounts would appear on the host",
        ),
        false => claim,
    });
    Ok(())
}

fn mount_proc(findings: &Findings) -> Result<()> {
    let call = |subject: Subject| {
        subject.call_in(
            private_mounts,
            |()| told(step03_mount::mount_proc()),
            |_| Ok(()),
        )
    };
    let expected = "mount_proc comes back with Ok";
    findings.begin(expected);
    let outcome = call(findings.subject())?;
    findings.claim(Claim::new(expected, outcome.in_words(), outcome.is_ok()));
    if !outcome.is_ok() {
        return Ok(());
    }
    one_procfs_more(findings, &outcome);
    findings.caller_stays(&outcome, &["mounts"]);

    let expected = "without a directory /proc it returns an error (ENOENT)";
    findings.begin(expected);
    let empty = findings.scratch.join("empty");
    fs::create_dir_all(&empty)?;
    let outcome = findings.subject().call_in(
        || {
            private_mounts()?;
            chroot(&empty)?;
            Ok(chdir("/")?)
        },
        |()| told(step03_mount::mount_proc()),
        |_| Ok(()),
    )?;
    let made = empty.join("proc").exists();
    let seen = match made {
        true => format!(
            "{}; it made a directory in the root of somebody",
            outcome.in_words()
        ),
        false => outcome.in_words(),
    };
    let holds = outcome.error().starts_with("ENOENT") && !made;
    let claim = Claim::new(expected, seen, holds);
    findings.claim(match made {
        true => claim.why(
            "the root is somebody's, and stays as it is: who misses the directory is told, and makes it",
        ),
        false => claim,
    });
    findings.each_call_fails("mount_proc", MOUNTING, call, || false, |_| Vec::new())?;
    Ok(())
}

/// Where some mounts are.
fn targets_of(lines: &[&String]) -> String {
    let targets = lines.iter().filter_map(|line| line.split(' ').nth(2));
    match lines.is_empty() {
        true => "nothing".into(),
        false => targets.collect::<Vec<_>>().join(", "),
    }
}

/// The mount table has one line more than before: a procfs with three flags.
fn one_procfs_more(findings: &Findings, outcome: &Outcome) {
    let (before, after) = (&outcome.before.mounts, &outcome.after.mounts);
    let gone: Vec<&String> = before.iter().filter(|line| !after.contains(line)).collect();
    findings.claim(
        Claim::new(
            "what was mounted before is mounted still, below the new one",
            format!("/proc/PID/mountinfo: gone or changed: {}", targets_of(&gone)),
            gone.is_empty(),
        )
        .why("the old /proc was taken away or changed. An ordinary user is given a procfs only while another one is there, \
              fully visible; so the new one is mounted on top"),
    );
    let new: Vec<&String> = after.iter().skip(before.len()).collect();
    let line = new.first().map(|line| line.as_str()).unwrap_or_default();
    let fields: Vec<&str> = line.split(' ').collect();
    let (place, filesystem) = line.split_once(" - ").unwrap_or_default();
    let target = fields.get(2).copied().unwrap_or_default();
    findings.claim(Claim::new(
        "one mount is new, at /proc: a procfs",
        format!("/proc/PID/mountinfo, new: {}", targets_of(&new)),
        new.len() == 1 && target == "/proc" && filesystem.starts_with("proc "),
    ));
    if !findings.all_hold() {
        return;
    }
    let mut options: Vec<&str> = fields
        .get(3)
        .copied()
        .unwrap_or_default()
        .split(',')
        .collect();
    options.sort_unstable();
    let missing: Vec<&str> = ["nosuid", "nodev", "noexec"]
        .into_iter()
        .filter(|flag| !options.contains(flag))
        .collect();
    findings.claim(
        Claim::new(
            "it has nosuid, nodev and noexec",
            format!("/proc/PID/mountinfo: {}", options.join(",")),
            missing.is_empty(),
        )
        .why("flags are missing that NOTHING_TO_RUN has"),
    );
    let extra: Vec<&str> = options
        .into_iter()
        .filter(|option| !["rw", "nosuid", "nodev", "noexec", "relatime"].contains(option))
        .collect();
    let own = filesystem.split(' ').nth(2).unwrap_or_default();
    findings.claim(
        Claim::new(
            "nothing more was asked for: it can be written, and shows every process",
            format!(
                "/proc/PID/mountinfo: {} {own}, {}",
                extra.join(","),
                place.split(' ').skip(4).collect::<Vec<_>>().join(" ")
            ),
            extra.is_empty() && own == "rw",
        )
        .why("it has options that nobody asked for"),
    );
}

/// Any socket of the caller's network namespace.
fn any_socket() -> Result<OwnedFd> {
    Ok(socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?)
}

fn loopback_up(findings: &Findings) -> Result<()> {
    const SET_BEFORE: i32 = libc::IFF_PROMISC;
    let call = |subject: Subject| {
        subject.call_in(
            || {
                unshare(CloneFlags::CLONE_NEWNET)?;
                let socket = any_socket()?;
                let flags = interface_flags(&socket, "lo")?;
                set_interface_flags(&socket, "lo", flags | SET_BEFORE)?;
                Ok(())
            },
            |()| {
                told(step03_mount::loopback_up())?;
                let flags = interface_flags(&any_socket()?, "lo")?;
                // Who calls again finds it up.
                told(step03_mount::loopback_up())?;
                Ok((flags, interface_flags(&any_socket()?, "lo")?))
            },
            |_| Ok(()),
        )
    };
    let expected = "loopback_up comes back with Ok";
    findings.begin(expected);
    let outcome = call(findings.subject())?;
    findings.claim(Claim::new(expected, outcome.in_words(), outcome.is_ok()));
    let Some((flags, again)) = outcome.value::<(i32, i32)>() else {
        return Ok(());
    };
    findings.claim(
        Claim::new(
            "lo that is up stays up",
            format!("SIOCGIFFLAGS: 0x{again:x}, and IFF_UP is 0x1"),
            flags & libc::IFF_UP == 0 || again & libc::IFF_UP != 0,
        )
        .why("the flag was turned over, and not added: | sets a bit, ^ changes it"),
    );
    findings.claim(Claim::new(
        "lo is up",
        format!("SIOCGIFFLAGS: 0x{flags:x}, and IFF_UP is 0x1"),
        flags & libc::IFF_UP != 0,
    ));
    findings.claim(
        Claim::new(
            "the other flags of lo are what they were (the check had set IFF_PROMISC, 0x100)",
            format!("SIOCGIFFLAGS: 0x{flags:x}"),
            flags & SET_BEFORE != 0,
        )
        .why("SIOCSIFFLAGS replaces all flags: get the flags first, and add IFF_UP to them"),
    );
    findings.caller_stays(&outcome, &[]);
    let calls = [
        (libc::SYS_socket, "socket", Errno::EMFILE),
        (libc::SYS_ioctl, "ioctl", Errno::EPERM),
        (libc::SYS_sendto, "sendto", Errno::EPERM),
        (libc::SYS_sendmsg, "sendmsg", Errno::EPERM),
    ];
    // Behind the function's own calls come those by which this probe looks.
    let alone = |subject: Subject| {
        subject.call_in(
            || Ok(unshare(CloneFlags::CLONE_NEWNET)?),
            |()| told(step03_mount::loopback_up()),
            |_| Ok(()),
        )
    };
    let left = |outcome: &Outcome| outcome.changes(&[]);
    findings.each_call_fails("loopback_up", &calls, alone, || false, left)?;
    Ok(())
}

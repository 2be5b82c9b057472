//! The exercises of chapter 4, called one by one; its last has no code.

#[path = "step04/environment.rs"]
mod environment;
#[path = "step04/swap_roots.rs"]
mod swap_roots;

use probe::anyhow::{Context, Result};
use probe::libc::{self, c_long};
use probe::nix::errno::Errno;
use probe::world::{private_mounts, tmpfs};
use probe::{Claim, Findings, Subject};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use step01_uts::Refused;

fn main() -> Result<()> {
    probe::main(&[
        ("bind_self", bind_self),
        ("swap_roots", swap_roots::judge),
        ("environment", environment::judge),
        // It has no code, and no function to call.
        ("repair", |_| Ok(())),
    ])
}

/// Errors with the errno of a [`Refused`] in front.
fn told<T>(outcome: Result<T>) -> Result<T> {
    probe::told(outcome, Refused::errno)
}

/// The calls that change mounts, and where a process is, each with what the kernel may say to it.
const MOVING: &[(c_long, &str, Errno)] = &[
    (libc::SYS_mount, "mount", Errno::EPERM),
    (libc::SYS_open_tree, "open_tree", Errno::EPERM),
    (libc::SYS_move_mount, "move_mount", Errno::EPERM),
    (libc::SYS_mount_setattr, "mount_setattr", Errno::EPERM),
    (libc::SYS_chdir, "chdir", Errno::EACCES),
    (libc::SYS_fchdir, "fchdir", Errno::EACCES),
    (libc::SYS_pivot_root, "pivot_root", Errno::EINVAL),
    (libc::SYS_umount2, "umount2", Errno::EPERM),
    (libc::SYS_chroot, "chroot", Errno::EPERM),
];

/// What tells a directory from all others.
pub fn identity(path: impl AsRef<Path>) -> Result<(u64, u64)> {
    let metadata =
        fs::metadata(path.as_ref()).with_context(|| path.as_ref().display().to_string())?;
    Ok((metadata.dev(), metadata.ino()))
}

fn bind_self(findings: &Findings) -> Result<()> {
    let new_root = findings.scratch.join("new");
    let call = |subject: Subject| {
        subject.call_in(
            || {
                private_mounts()?;
                // The directory is no mount yet; below it are two, and one whose name only begins like its own.
                tmpfs(&findings.scratch.join("new2"), "other")?;
                for name in ["below", "below/deeper"] {
                    fs::create_dir_all(new_root.join(name))?;
                    tmpfs(&new_root.join(name), name)?;
                }
                identity(&new_root)
            },
            |before| {
                told(step04_pivot_root::bind_self(&new_root))?;
                Ok(identity(&new_root)? == before)
            },
            |_| Ok(()),
        )
    };
    let expected = "bind_self comes back with Ok";
    findings.begin(expected);
    let outcome = call(findings.subject())?;
    findings.claim(Claim::new(expected, outcome.in_words(), outcome.is_ok()));
    if !outcome.is_ok() {
        return Ok(());
    }
    let (before, after) = (&outcome.before.mounts, &outcome.after.mounts);
    let target = |line: &String| {
        line.split(' ')
            .nth(2)
            .unwrap_or_default()
            .replace("\\040", " ")
    };
    let new: Vec<&String> = after.iter().skip(before.len()).collect();
    let targets: Vec<String> = new.iter().map(|line| target(line)).collect();
    let at = |name: &str| new_root.join(name).display().to_string();
    let top = new_root.display().to_string();
    let shows_itself = outcome.value() == Some(true);
    findings.claim(Claim::new(
        "the directory is the top of a mount, which shows the directory itself",
        match targets.contains(&top) {
            true => "/proc/PID/mountinfo: it is one, and shows something else",
            false => "/proc/PID/mountinfo: it is none",
        },
        targets.contains(&top) && shows_itself,
    ));
    if !findings.all_hold() {
        return Ok(());
    }
    let along = ["below", "below/deeper"]
        .iter()
        .all(|name| targets.contains(&at(name)));
    findings.claim(
        Claim::new(
            "what is mounted below it came along, two mounts",
            format!("/proc/PID/mountinfo, new: {} mounts", new.len()),
            along,
        )
        .why(
            "a bind mount without MS_REC shows one filesystem: what is mounted in it stays behind",
        ),
    );
    findings.claim(Claim::new(
        "nothing is mounted twice, or elsewhere",
        format!(
            "/proc/PID/mountinfo: {} mounts are new, where three belong",
            new.len()
        ),
        new.len() <= 3 && targets.iter().all(|target| target.starts_with(&top)),
    ));
    let options = |line: &str| {
        let fields: Vec<&str> = line
            .split(" - ")
            .next()
            .unwrap_or_default()
            .split(' ')
            .skip(3)
            .collect();
        fields.join(" ")
    };
    // The directory lies on the mount whose place is the longest beginning of its path.
    let holder = before
        .iter()
        .filter(|line| new_root.starts_with(target(line)))
        .max_by_key(|line| target(line).len());
    let below = before.iter().find(|line| target(line) == at("below"));
    for (original, copy) in [(holder, top.clone()), (below, at("below"))] {
        let copied = new.iter().find(|line| target(line) == copy);
        let [copied, original] =
            [copied.copied(), original].map(|line| line.map(|line| options(line)));
        findings.claim(
            Claim::new(
                "the copies have the options of the originals, and no ties that these haven't",
                format!("/proc/PID/mountinfo: {copied:?}, the original's: {original:?}"),
                copied == original,
            )
            .why("somebody has given the copy other options, which nobody asked for"),
        );
    }
    let kept = before.iter().all(|line| after.contains(line));
    findings.claim(Claim::new(
        "the mounts before are what they were",
        "/proc/PID/mountinfo: one is gone or changed",
        kept,
    ));
    findings.caller_stays(&outcome, &["mounts"]);
    makes_no_root(findings)?;
    findings.each_call_fails("bind_self", MOVING, call, || false, |_| Vec::new())?;
    Ok(())
}

fn makes_no_root(findings: &Findings) -> Result<()> {
    let missing = findings.scratch.join("mistyped");
    let expected = "a directory that isn't there is an error (ENOENT), and isn't made";
    findings.begin(expected);
    let outcome = findings.subject().call_in(
        private_mounts,
        |()| told(step04_pivot_root::bind_self(&missing)),
        |_| Ok(()),
    )?;
    let is_made = missing.exists();
    let seen = match is_made {
        true => format!("{}, and the directory is there", outcome.in_words()),
        false => outcome.in_words(),
    };
    let holds = outcome.error().starts_with("ENOENT") && !is_made;
    let claim = Claim::new(expected, seen, holds);
    findings.claim(match is_made {
        true => claim.why(
            "a name that was mistyped leaves a directory on the host, and the error comes later, about another file",
        ),
        false if outcome.is_ok() => claim.why("the error of mount is thrown away, and nobody is told"),
        false => claim,
    });
    Ok(())
}

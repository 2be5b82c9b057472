//! 4.2: the root mount is another, and the old one has gone.

use super::{MOVING, identity, told};
use probe::anyhow::{Result, bail};
use probe::nix::mount::{MntFlags, MsFlags, mount, umount2};
use probe::nix::sched::{CloneFlags, setns};
use probe::world::{private_mounts, tmpfs};
use probe::{Claim, Findings, Outcome, Subject, note, noted};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use step04_pivot_root::swap_roots;

/// How often `mounts` ran, how many mounts there were then, and whether `/` was the new root: 1 no, 2 yes.
const RUNS: usize = 0;
const MOUNTS: usize = 1;
const IS_NEW: usize = 2;
/// The new root has so many mounts, itself counted.
const OWN: u32 = 2;
/// Whether the process stands in its root afterwards: 1 no, 2 yes.
const STANDS: usize = 3;

/// A new root: a tmpfs with a mount below it.
fn world(new_root: &Path) -> Result<(File, (u64, u64))> {
    private_mounts()?;
    tmpfs(new_root, "new")?;
    tmpfs(&new_root.join("below"), "below")?;
    let none = None::<&str>;
    // As bind_self leaves it.
    mount(
        Some(new_root),
        new_root,
        none,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        none,
    )?;
    // A root that nobody can write into.
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(none, new_root, none, flags, none)?;
    // Afterwards no /proc can be seen.
    Ok((File::open("/proc/self/mountinfo")?, identity(new_root)?))
}

fn count(table: &mut File) -> Result<u32> {
    let mut text = String::new();
    table.seek(SeekFrom::Start(0))?;
    table.read_to_string(&mut text)?;
    Ok(text.lines().count() as u32)
}

fn yes(holds: bool) -> u32 {
    u32::from(holds) + 1
}

pub fn judge(findings: &Findings) -> Result<()> {
    let new_root = findings.scratch.join("new");
    let expected = "swap_roots comes back with Ok, in a root that nobody can write into";
    findings.begin(expected);
    let outcome = call(findings.subject(), &new_root, false)?;
    findings.claim(Claim::new(expected, outcome.in_words(), outcome.is_ok()));
    if !outcome.is_ok() {
        return Ok(());
    }
    mounts_ran_in_between(findings);
    nothing_of_the_old_root_is_left(findings, &outcome);
    nobody_gets_out(findings, &new_root)?;
    findings.caller_stays(&outcome, &["mounts", "directory", "root", "descriptors"]);
    let open = outcome.before.left_open(&outcome.after);
    findings.claim(Claim::new(
        "no directory is left open, by which the way leads back",
        open.join("; "),
        open.is_empty(),
    ));

    let expected = "an error of mounts is returned";
    findings.begin(expected);
    let outcome = call(findings.subject(), &new_root, true)?;
    let holds = outcome.error().contains("nothing was mounted");
    findings.claim(
        Claim::new(expected, outcome.in_words(), holds).why("what mounts() returns is thrown away"),
    );

    let run = |subject: Subject| call(subject, &new_root, false);
    findings.each_call_fails("swap_roots", MOVING, run, || false, |_| Vec::new())?;
    Ok(())
}

/// Calls the function with a `mounts` that notes what it finds, or fails.
fn call(subject: Subject, new_root: &Path, fails: bool) -> Result<Outcome> {
    subject.call_in(
        || world(new_root),
        |(mut table, new)| {
            let mounts = || {
                note(RUNS, noted(RUNS) + 1);
                note(MOUNTS, count(&mut table)?);
                note(IS_NEW, yes(identity("/")? == new));
                if fails {
                    bail!("nothing was mounted");
                }
                Ok(())
            };
            told(swap_roots(new_root, mounts))?;
            note(STANDS, yes(identity(".")? == new));
            Ok(())
        },
        |_| Ok(()),
    )
}

/// What lies over another mount can be unmounted, and whoever enters the namespace anew stands in what is there then.
fn nobody_gets_out(findings: &Findings, new_root: &Path) -> Result<()> {
    let expected = "beneath the new root the old one is no more";
    findings.begin(expected);
    let outcome = findings.subject().call_in(
        || {
            let old = identity("/")?;
            world(new_root)?;
            Ok((old, File::open("/proc/self/ns/mnt")?))
        },
        |(old, namespace)| {
            swap_roots(new_root, || Ok(()))?;
            let _ = umount2("/", MntFlags::MNT_DETACH);
            setns(namespace, CloneFlags::CLONE_NEWNS)?;
            Ok(identity("/")? != old)
        },
        |_| Ok(()),
    )?;
    let holds = outcome.value::<bool>() == Some(true);
    let seen = match outcome.value::<bool>() {
        Some(_) => "after `umount /` the old root is there".into(),
        None => outcome.in_words(),
    };
    let claim = Claim::new(expected, seen, holds);
    findings.claim(match outcome.is_ok() {
        true => claim.why(
            "the old root is mounted still, out of sight: chroot changes where paths of this process begin, and MS_MOVE lays \
             a mount over the old root. pivot_root exchanges the two, and umount2 then takes the old one away",
        ),
        false => claim,
    });
    Ok(())
}

fn mounts_ran_in_between(findings: &Findings) {
    findings.claim(Claim::equal(
        "mounts runs once",
        "how often it ran",
        &noted(RUNS),
        &1,
    ));
    findings.claim(
        Claim::new(
            "when mounts runs, / is the new root already",
            "stat(2) of /: another directory",
            noted(IS_NEW) == 2,
        )
        .why("mounts() ran before the roots were exchanged: what it mounts lies in the old one"),
    );
    let then = noted(MOUNTS);
    findings.claim(
        Claim::new(
            "when mounts runs, the old root is there still",
            format!("/proc/self/mountinfo: {then} mounts then, all of the new root"),
            then > OWN,
        )
        .why("mounts() ran when the old root had gone: an ordinary user is given a procfs only while another one can be seen"),
    );
}

fn nothing_of_the_old_root_is_left(findings: &Findings, outcome: &Outcome) {
    let targets: Vec<&str> = outcome
        .after
        .mounts
        .iter()
        .filter_map(|line| line.split(' ').nth(2))
        .collect();
    findings.claim(Claim::new(
        "the new root and the mount below it are left, and no mount of the old root",
        format!(
            "/proc/PID/mountinfo: {} mounts, among them {}",
            targets.len(),
            targets.last().unwrap_or(&"none")
        ),
        targets == ["/", "/below"],
    ));
    findings.claim(
        Claim::new("the caller stands in its new root", "its working directory is another one", noted(STANDS) == 2)
            .why("the working directory is still one of the old root, which keeps it in use and leads there: chdir comes first"),
    );
}

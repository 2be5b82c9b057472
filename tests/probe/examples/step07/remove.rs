//! 7.4: groups that are removed: empty ones, busy ones, and ones that stay busy.

use crate::groups::Container;
use crate::haste::{BUSY, RELEASED, TRIED, WAITING, hurried};
use crate::stays::{busy_for_ever, busy_for_ever_on_v2};
use probe::anyhow::Result;
use probe::nix::errno::Errno;
use probe::nix::sys::signal::{Signal, kill};
use probe::nix::unistd::{ForkResult, Pid, fork, pause};
use probe::old;
use probe::{Call, Claim, Findings, Outcome, Verdict, Watcher, libc, note, noted};
use std::fs;
use std::io::Write;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use step07_cgroups::Cgroup;
use step07_cgroups::limits::Limits;

/// The calls by which a directory is removed.
const REMOVING: &[(libc::c_long, &str, Errno)] = &[
    (old::SYS_rmdir, "rmdir(2)", Errno::EPERM),
    (libc::SYS_unlinkat, "unlinkat(2)", Errno::EPERM),
];

pub fn remove(findings: &Findings) -> Result<()> {
    findings.play(&[
        on_v2,
        empty,
        gone_already,
        busy_for_a_while,
        with_groups_below,
        each_call,
        busy_for_ever_on_v2,
        busy_for_ever,
        in_order,
    ])
}

/// What is said of who waits where nothing will change.
pub const ENDLESS: &str = "it waits on and on, for more than twelve seconds";

/// What was seen: the error, how many groups aren't forgotten, and for each folder whether it is there.
pub type Seen = (Option<String>, usize, Vec<(String, bool)>);

pub type Kept = ManuallyDrop<Cgroup>;

/// Has the learner's function remove the groups, and looks.
pub fn removed(container: &Container, cgroup: &mut Cgroup, folders: &[PathBuf]) -> Seen {
    let error = cgroup.remove().err().map(|error| format!("{error:#}"));
    let there = folders
        .iter()
        .map(|folder| (container.shown(folder), folder.exists()));
    (error, cgroup.hierarchies().count(), there.collect())
}

/// Removes the groups of `container` once `before` was done to their folders.
fn tried(
    findings: &Findings,
    container: &Container,
    watcher: Watcher,
    before: impl FnOnce(&[PathBuf]) -> Result<()>,
) -> Result<Outcome> {
    let subject = findings.subject().watch(watcher);
    subject.call_in(
        || {
            let cgroup = container.make(&Limits::default())?;
            let folders = container.folders(&cgroup);
            before(&folders)?;
            Ok((cgroup, folders))
        },
        |(mut cgroup, folders): (Kept, _)| Ok(removed(container, &mut cgroup, &folders)),
        |_| Ok(()),
    )
}

/// Whether all went well: no error, nothing there, nothing remembered. And what is to be said of it.
fn all_gone(container: &Container, outcome: &Outcome) -> (bool, String) {
    let Some((error, kept, folders)) = outcome.value::<Seen>() else {
        return match noted(RELEASED) {
            0 => (false, outcome.in_words()),
            _ => (false, ENDLESS.into()),
        };
    };
    let there: Vec<String> = folders
        .into_iter()
        .filter(|(_, is_there)| *is_there)
        .map(|(folder, _)| folder)
        .collect();
    if let Some(error) = error {
        let error = error.replace(container.id(), "ID");
        return (false, format!("it returned the error: {error}"));
    }
    let seen = match (&there[..], kept) {
        ([], 0) => "they have gone".into(),
        ([], kept) => format!("they have gone, and hierarchies() has still {kept} of them"),
        (there, _) => format!("it returned Ok, and there still is {}", there.join(", ")),
    };
    (there.is_empty() && kept == 0, seen)
}

/// Why groups that anybody could remove aren't.
fn why_not_gone(outcome: &Outcome) -> Option<&'static str> {
    let (error, kept, folders) = outcome.value::<Seen>()?;
    let there = folders.iter().filter(|(_, is_there)| *is_there).count();
    match error {
        Some(error) if error.contains("Operation not permitted") => Some(
            "files in a group's folder were to be removed first: they can't be, and rmdir(2) needn't have it",
        ),
        Some(_) => None,
        None if there == 0 && kept > 0 => Some(
            "the groups have gone and aren't forgotten: who calls again, as Drop does, would remove what another made meanwhile",
        ),
        None if there > 0 && kept == 0 => {
            Some("what is still there was forgotten: nobody removes it any more")
        }
        None => None,
    }
}

/// What is otherwise in the caller, but for the files of the groups that have gone: these are closed with them.
pub fn changes(outcome: &Outcome) -> Vec<String> {
    let mut changes = outcome.changes(&["descriptors"]);
    changes.extend(outcome.before.left_open(&outcome.after));
    changes
}

/// A group that nobody is in, on a machine that has version 2 alone.
fn on_v2(findings: &Findings) -> Result<()> {
    match Container::on_v2(findings)? {
        Some(container) => empty_ones(findings, &container),
        None => Ok(()),
    }
}

/// Groups that nobody is in.
fn empty(findings: &Findings) -> Result<()> {
    empty_ones(findings, &Container::here(findings)?)
}

fn empty_ones(findings: &Findings, container: &Container) -> Result<()> {
    let expected = "remove removes all of the groups, and forgets them";
    findings.begin(expected);
    let outcome = tried(findings, container, hurried(), |_| Ok(()))?;
    let (holds, seen) = all_gone(container, &outcome);
    let why = why_not_gone(&outcome).filter(|_| !holds);
    findings.claim(Claim::new(expected, seen, holds).because(why.map(Into::into)));
    if holds {
        findings.claim(Claim::leaves_the_caller("remove", &changes(&outcome)));
    }
    Ok(())
}

/// Groups that nobody is in, one after the other.
fn in_order(findings: &Findings) -> Result<()> {
    findings.begin("the last group goes first, and the first one last");
    let container = Container::here(findings)?;
    let watcher = Watcher::records(&[old::SYS_rmdir, libc::SYS_unlinkat]);
    let outcome = tried(findings, &container, watcher, |_| Ok(()))?;
    findings.claim(last_first(&container, &outcome));
    Ok(())
}

/// A claim about the order in which the groups went.
fn last_first(container: &Container, outcome: &Outcome) -> Claim {
    let (_, _, folders) = outcome.value::<Seen>().unwrap_or_default();
    let is_removal = |call: &&Call| {
        call.number == old::SYS_rmdir || call.arguments[2] as i32 & libc::AT_REMOVEDIR != 0
    };
    let paths = outcome.calls.iter().filter(is_removal).map(|call| {
        let at = usize::from(call.number != old::SYS_rmdir);
        container.shown(Path::new(call.text(at)))
    });
    let known = |path: &String| folders.iter().any(|(folder, _)| folder == path);
    let went: Vec<String> = paths.filter(known).collect();
    let wanted: Vec<String> = folders.iter().rev().map(|(name, _)| name.clone()).collect();
    let first = folders.first().map(|(name, _)| name);
    let holds = went == wanted || went.len() < wanted.len();
    let seen = match holds {
        true => "they went in that order".into(),
        false => format!("they went in this order: {}", went.join(", ")),
    };
    let why = match went.last() == first {
        true => "the order isn't that in which they are kept, from the end",
        false => {
            "what a crash leaves is found by the first group: if that one has gone, nobody finds the others"
        }
    };
    let claim = Claim::new(
        "the last group goes first, and the first one last",
        seen,
        holds,
    );
    claim.because((!holds).then(|| why.into()))
}

/// One of them was removed by somebody else.
fn gone_already(findings: &Findings) -> Result<()> {
    let expected = "a group that has gone already is no error, and hinders no other";
    findings.begin(expected);
    let container = Container::here(findings)?;
    let outcome = tried(findings, &container, hurried(), |folders| {
        Ok(fs::remove_dir(&folders[folders.len() / 2])?)
    })?;
    let (holds, seen) = all_gone(&container, &outcome);
    let why = "ENOENT isn't EBUSY: somebody else has done what was to be done, so there is no error and nothing to wait for";
    let is_it = seen.contains("No such file") || seen == ENDLESS;
    let claim = Claim::new(expected, seen, holds);
    findings.claim(claim.because((is_it && !holds).then(|| why.into())));
    Ok(())
}

/// A container has made groups below its own.
fn with_groups_below(findings: &Findings) -> Result<()> {
    let expected = "a group goes with those that the container made below it";
    findings.begin(expected);
    let container = Container::here(findings)?;
    let outcome = tried(findings, &container, hurried(), |folders| {
        for folder in folders {
            let below = folder.join("below/deeper");
            fs::create_dir_all(below)?;
        }
        Ok(())
    })?;
    let (holds, seen) = all_gone(&container, &outcome);
    let why = "rmdir(2) says EBUSY of a group with groups below it, too, and these go by no waiting: remove_group removes them";
    let is_it = seen.contains("busy") || seen == ENDLESS;
    let claim = Claim::new(expected, seen, holds);
    findings.claim(claim.because((is_it && !holds).then(|| why.into())));
    Ok(())
}

/// Starts a process that does nothing, a child of the caller, and puts it into these groups.
pub fn occupy(folders: &[PathBuf]) -> Result<Pid> {
    // SAFETY: the child of a process with one thread, which only waits.
    let child = match unsafe { fork() }? {
        ForkResult::Parent { child } => child,
        ForkResult::Child => loop {
            pause();
        },
    };
    note(BUSY, child.as_raw() as u32);
    for folder in folders {
        let mut list = fs::File::options()
            .write(true)
            .open(folder.join("cgroup.procs"))?;
        list.write_all(child.to_string().as_bytes())?;
    }
    Ok(child)
}

/// Ends who is in the groups.
pub fn release() {
    note(RELEASED, 1);
    let _ = kill(Pid::from_raw(noted(BUSY) as i32), Signal::SIGKILL);
}

/// Somebody is in the groups, and ends while the function waits for that.
fn busy_for_a_while(findings: &Findings) -> Result<()> {
    let expected = "remove waits for a process that is about to leave the groups";
    findings.begin(expected);
    let container = Container::here(findings)?;
    let mut waits = 0;
    let watched = [&[old::SYS_rmdir, libc::SYS_unlinkat], WAITING].concat();
    let watcher = Watcher::new(&watched, move |call| {
        match WAITING.contains(&call.number) {
            true => waits += 1,
            false => note(TRIED, noted(TRIED) + 1),
        }
        // It ends behind the back of whoever tries again, or of whoever looks again.
        if (noted(TRIED) >= 3 || waits >= 20) && noted(RELEASED) == 0 {
            release();
        }
        Verdict::Go
    });
    let outcome = tried(findings, &container, watcher, |folders| {
        occupy(folders).map(drop)
    })?;
    let (holds, seen) = all_gone(&container, &outcome);
    let gave_up = !holds && noted(RELEASED) == 0 && seen.contains("busy");
    let why = "it gave up at the first EBUSY: a process that has ended is still in its group for a moment, until the \
               kernel has finished with it";
    let claim = Claim::new(expected, seen, holds);
    let why = gave_up
        .then_some(why)
        .or(why_not_gone(&outcome).filter(|_| !holds));
    findings.claim(claim.because(why.map(Into::into)));
    findings.claim(Claim::leaves_the_caller("remove", &changes(&outcome)));
    Ok(())
}

/// Whatever else the kernel says is an error, at once.
fn each_call(findings: &Findings) -> Result<()> {
    Container::on_both(findings, each_call_in)
}

fn each_call_in(findings: &Findings, container: &Container) -> Result<()> {
    findings.each_call_fails(
        "remove",
        REMOVING,
        |subject| {
            subject.call_in(
                || container.make(&Limits::default()),
                |mut cgroup: Kept| cgroup.remove(),
                |_| Ok(()),
            )
        },
        || container.is_there().is_ok_and(|is_there| !is_there),
        changes,
    )?;
    Ok(())
}

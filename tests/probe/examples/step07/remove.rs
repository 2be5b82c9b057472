//! 7.4: groups that are removed: empty ones, busy ones, and ones that stay busy.

use crate::groups::{Container, is_member};
use probe::anyhow::Result;
use probe::nix::errno::Errno;
use probe::nix::sys::signal::{Signal, kill};
use probe::nix::sys::wait::waitpid;
use probe::nix::unistd::{ForkResult, Pid, fork, pause};
use probe::{Call, Claim, Findings, Outcome, Verdict, Watcher, libc, note, noted};
use std::fs;
use std::io::Write;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};
use step07_cgroups::Cgroup;
use step07_cgroups::limits::Limits;

/// The calls by which a directory is removed.
const REMOVING: &[(libc::c_long, &str, Errno)] = &[
    (libc::SYS_rmdir, "rmdir(2)", Errno::EPERM),
    (libc::SYS_unlinkat, "unlinkat(2)", Errno::EPERM),
];

/// The calls by which somebody waits for a time.
const WAITING: &[libc::c_long] = &[
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_select,
    libc::SYS_pselect6,
];

// What is noted: who is in the groups, whether it had to be ended, for how many milliseconds the function wanted to
// wait, how often it tried, whether it has come back.
const BUSY: usize = 0;
const RELEASED: usize = 1;
const WAITED: usize = 2;
const TRIED: usize = 3;
const IS_OVER: usize = 4;

/// The patience that the docs name, and what it can't be taken for.
const PATIENCE: u32 = 10_000;
const TOO_LONG: u32 = 12_000;

pub fn remove(findings: &Findings) -> Result<()> {
    findings.play(&[
        empty,
        on_v2,
        gone_already,
        with_groups_below,
        busy_for_a_while,
        each_call,
        busy_for_ever,
    ])
}

/// What was seen: the error, how many groups aren't forgotten, and for each folder whether it is there.
type Seen = (Option<String>, usize, Vec<(String, bool)>);

type Kept = ManuallyDrop<Cgroup>;

/// Has the learner's function remove the groups, and looks.
fn removed(container: &Container, cgroup: &mut Cgroup, folders: &[PathBuf]) -> Seen {
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
        return (false, outcome.in_words());
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
fn changes(outcome: &Outcome) -> Vec<String> {
    let mut changes = outcome.changes(&["descriptors"]);
    changes.extend(outcome.before.left_open(&outcome.after));
    changes
}

/// Groups that nobody is in.
fn empty(findings: &Findings) -> Result<()> {
    let expected = "remove removes all of the groups, and forgets them";
    findings.begin(expected);
    let container = Container::here(findings)?;
    let watcher = Watcher::records(&[libc::SYS_rmdir, libc::SYS_unlinkat]);
    let outcome = tried(findings, &container, watcher, |_| Ok(()))?;
    let (holds, seen) = all_gone(&container, &outcome);
    let why = why_not_gone(&outcome).filter(|_| !holds);
    findings.claim(Claim::new(expected, seen, holds).because(why.map(Into::into)));
    if holds {
        findings.claim(last_first(&container, &outcome));
        findings.claim(Claim::leaves_the_caller("remove", &changes(&outcome)));
    }
    Ok(())
}

/// A claim about the order in which the groups went.
fn last_first(container: &Container, outcome: &Outcome) -> Claim {
    let (_, _, folders) = outcome.value::<Seen>().unwrap_or_default();
    let is_removal = |call: &&Call| {
        call.number == libc::SYS_rmdir || call.arguments[2] as i32 & libc::AT_REMOVEDIR != 0
    };
    let paths = outcome.calls.iter().filter(is_removal).map(|call| {
        let at = usize::from(call.number != libc::SYS_rmdir);
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

/// The same on a machine that has version 2 alone.
fn on_v2(findings: &Findings) -> Result<()> {
    let expected = "remove removes the group on a machine that has version 2 alone";
    findings.begin(expected);
    let Some(container) = Container::on_v2(findings)? else {
        return Ok(());
    };
    let outcome = tried(findings, &container, hurried(|| ()), |_| Ok(()))?;
    let (holds, seen) = all_gone(&container, &outcome);
    findings.claim(Claim::new(expected, seen, holds));
    Ok(())
}

/// One of them was removed by somebody else.
fn gone_already(findings: &Findings) -> Result<()> {
    let expected = "a group that has gone already is no error, and hinders no other";
    findings.begin(expected);
    let container = Container::here(findings)?;
    let outcome = tried(findings, &container, hurried(|| ()), |folders| {
        Ok(fs::remove_dir(&folders[folders.len() / 2])?)
    })?;
    let (holds, seen) = all_gone(&container, &outcome);
    let why = "ENOENT was taken for an error: somebody else has done what was to be done";
    let is_it = seen.contains("No such file");
    let claim = Claim::new(expected, seen, holds);
    findings.claim(claim.because((is_it && !holds).then(|| why.into())));
    Ok(())
}

/// A container has made groups below its own.
fn with_groups_below(findings: &Findings) -> Result<()> {
    let expected = "a group goes with those that the container made below it";
    findings.begin(expected);
    let container = Container::here(findings)?;
    let outcome = tried(findings, &container, hurried(|| ()), |folders| {
        for folder in folders {
            let below = folder.join("below/deeper");
            fs::create_dir_all(below)?;
        }
        Ok(())
    })?;
    let (holds, seen) = all_gone(&container, &outcome);
    let why = "rmdir(2) says EBUSY of a group with groups below it, too, and these go by no waiting: remove_group removes them";
    let is_it = seen.contains("busy");
    let claim = Claim::new(expected, seen, holds);
    findings.claim(claim.because((is_it && !holds).then(|| why.into())));
    Ok(())
}

/// Starts a process that does nothing, a child of the caller, and puts it into these groups.
fn occupy(folders: &[PathBuf]) -> Result<Pid> {
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
fn release() {
    note(RELEASED, 1);
    let _ = kill(Pid::from_raw(noted(BUSY) as i32), Signal::SIGKILL);
}

/// Somebody is in the groups, and ends while the function waits for that.
fn busy_for_a_while(findings: &Findings) -> Result<()> {
    let expected = "remove waits for a process that is about to leave the groups";
    findings.begin(expected);
    let container = Container::here(findings)?;
    let mut waits = 0;
    let watched = [&[libc::SYS_rmdir, libc::SYS_unlinkat], WAITING].concat();
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

/// For how long a call would wait, where its arguments tell.
fn asked_for(call: &Call) -> Option<Duration> {
    let number = |at: usize| {
        let bytes = call.bytes(at, 16);
        let half = |from: usize| {
            Some(u64::from_ne_bytes(
                bytes.get(from..from + 8)?.try_into().ok()?,
            ))
        };
        Some((half(0)?, half(8)?))
    };
    let nanoseconds = |at| number(at).map(|(s, ns)| Duration::new(s, ns as u32));
    let milliseconds = |at: usize| u64::try_from(call.arguments[at] as i32).ok();
    match call.number {
        libc::SYS_clock_nanosleep if call.arguments[1] == 0 => nanoseconds(2),
        libc::SYS_nanosleep => nanoseconds(0),
        libc::SYS_poll => milliseconds(2).map(Duration::from_millis),
        libc::SYS_epoll_wait | libc::SYS_epoll_pwait => milliseconds(3).map(Duration::from_millis),
        libc::SYS_ppoll if call.arguments[2] != 0 => nanoseconds(2),
        libc::SYS_pselect6 if call.arguments[4] != 0 => nanoseconds(4),
        libc::SYS_select if call.arguments[4] != 0 => {
            number(4).map(|(s, us)| Duration::new(s, us as u32 * 1000))
        }
        _ => None,
    }
}

/// A watcher that lets no time pass: who wants to wait has waited. Who has a clock of its own waits in earnest after a
/// while, and in the end `at_last` has to help.
fn hurried(mut at_last: impl FnMut() + Send + 'static) -> Watcher {
    let (mut waited, mut since) = (Duration::ZERO, None);
    Watcher::new(WAITING, move |call| {
        let since = *since.get_or_insert_with(Instant::now);
        let Some(time) = asked_for(call) else {
            return Verdict::Go;
        };
        waited += time;
        note(WAITED, waited.as_millis() as u32);
        let limit = Duration::from_millis(TOO_LONG.into());
        if waited <= limit {
            return Verdict::Return(0);
        }
        if since.elapsed() > limit && noted(RELEASED) == 0 {
            note(RELEASED, 1);
            at_last();
        }
        Verdict::Go
    })
}

/// What was seen where a group stays busy: the first try, whether who is in there was left alone, and a second try.
type Stayed = (Seen, bool, Option<Seen>);

/// Somebody is in one of the groups, and stays.
fn busy_for_ever(findings: &Findings) -> Result<()> {
    let expected = "a group that is still in use after ten seconds is an error";
    findings.begin(expected);
    let container = Container::here(findings)?;
    let subject = findings.subject().watch(hurried(release));
    let outcome = subject.call_in(
        || {
            let cgroup = container.make(&Limits::default())?;
            let folders = container.folders(&cgroup);
            let at = folders.len() / 2;
            let child = occupy(&folders[at..=at])?;
            let list = container.members(&cgroup)?.swap_remove(at).1;
            Ok((cgroup, folders, child, list))
        },
        |(mut cgroup, folders, child, mut list): (Kept, _, _, _)| {
            let _over = Over;
            let first = removed(&container, &mut cgroup, &folders);
            let is_left_alone = is_member(&mut list, child);
            let _ = kill(child, Signal::SIGKILL);
            let _ = waitpid(child, None);
            let again = first.0.is_some();
            let second = again.then(|| removed(&container, &mut cgroup, &folders));
            Ok::<Stayed, _>((first, is_left_alone, second))
        },
        |_| {
            keep_saying(findings, expected);
            Ok(())
        },
    )?;
    judge_patience(findings, &container, &outcome, expected);
    Ok(())
}

/// Says at its end that the function has come back, also by a panic.
struct Over;

impl Drop for Over {
    fn drop(&mut self) {
        note(IS_OVER, 1);
    }
}

/// Says again and again what is judged, as long as the function waits: that takes ten seconds by the clock, and is no hang.
fn keep_saying(findings: &Findings, expected: &str) {
    let (mut said, begun) = (Instant::now(), Instant::now());
    let longest = Duration::from_millis((2 * TOO_LONG).into());
    while noted(IS_OVER) == 0 && begun.elapsed() < longest {
        sleep(Duration::from_millis(2));
        if said.elapsed() > Duration::from_secs(3) {
            findings.begin(expected);
            said = Instant::now();
        }
    }
}

fn judge_patience(findings: &Findings, container: &Container, outcome: &Outcome, expected: &str) {
    let Some((first, is_left_alone, second)) = outcome.value::<Stayed>() else {
        let claim = Claim::new(expected, outcome.in_words(), false);
        findings.claim(claim.because(outcome.why_no_error()));
        return;
    };
    let (error, kept, folders) = first;
    let waited = noted(WAITED);
    let seconds = f64::from(waited) / 1000.0;
    let (holds, why) = match &error {
        None if noted(RELEASED) != 0 => {
            (false, "it waits for ever: a process in there may never end")
        }
        None if !is_left_alone => (
            false,
            "who is in the group was ended or moved away: the group is to be removed once it is empty, and not emptied",
        ),
        None => (
            false,
            "a group is still there, and nobody is told: the error was thrown away",
        ),
        Some(_) if waited < PATIENCE * 9 / 10 => (
            false,
            "it gives up too early: the kernel may take a while to finish with a process",
        ),
        Some(_) => (true, ""),
    };
    let told = match &error {
        Some(error) => format!("the error: {}", error.replace(container.id(), "ID")),
        None => "Ok".into(),
    };
    let seen = format!("after waiting for {seconds:.1} s it returned {told}");
    findings.claim(Claim::new(expected, seen, holds).because((!holds).then(|| why.into())));
    if holds {
        findings.claim(left_alone(is_left_alone));
        findings.claim(those_that_stay(kept, &folders));
        findings.claim(tried_again(container, second));
        findings.claim(Claim::leaves_the_caller("remove", &changes(outcome)));
    }
}

/// A claim that whoever was in a group still is.
fn left_alone(holds: bool) -> Claim {
    let why = "the group is to be removed once it is empty, and not emptied";
    let seen = match holds {
        true => "it is still in there",
        false => "it isn't in there any more",
    };
    let claim = Claim::new("a process that is in a group is left alone", seen, holds);
    claim.because((!holds).then(|| why.into()))
}

/// A claim about the groups before and after the busy one, which is that in the middle.
fn those_that_stay(kept: usize, folders: &[(String, bool)]) -> Claim {
    let at = folders.len() / 2;
    let there: Vec<&str> = folders
        .iter()
        .filter(|(_, is_there)| *is_there)
        .map(|(folder, _)| &**folder)
        .collect();
    let holds = kept == at + 1
        && folders
            .iter()
            .enumerate()
            .all(|(index, (_, is_there))| *is_there == (index <= at));
    let why = if there.len() < at + 1 {
        "it went on to the groups before the busy one: what a crash leaves is found by the first one, which goes last"
    } else if there.len() > at + 1 {
        "the groups behind the busy one weren't removed"
    } else if kept < at + 1 {
        "a group that is still there was forgotten: nobody removes it any more"
    } else {
        "groups that have gone aren't forgotten"
    };
    let expected = format!(
        "the busy group, {}, and those before it stay and aren't forgotten: {} of {}",
        folders[at].0,
        at + 1,
        folders.len()
    );
    let seen = format!(
        "there still is {}; hierarchies() has {kept}",
        there.join(", ")
    );
    Claim::new(expected, seen, holds).because((!holds).then(|| why.into()))
}

/// A claim about a second try, once nobody is in there.
fn tried_again(container: &Container, second: Option<Seen>) -> Claim {
    let (error, kept, folders) = second.unwrap_or_default();
    let there = folders.iter().filter(|(_, is_there)| *is_there).count();
    let holds = error.is_none() && kept == 0 && there == 0;
    let seen = match error {
        Some(error) => format!(
            "it returned the error: {}",
            error.replace(container.id(), "ID")
        ),
        None => format!("{there} of them are still there, hierarchies() has {kept}"),
    };
    Claim::new(
        "who calls again, once nobody is in there, has them removed",
        seen,
        holds,
    )
}

/// Whatever else the kernel says is an error, at once.
fn each_call(findings: &Findings) -> Result<()> {
    let container = Container::here(findings)?;
    let mounts = crate::groups::mounts_of(&["cgroup", "cgroup2"])?;
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
        || {
            let ours = mounts.iter().map(|top| top.join("ten-steps"));
            !ours
                .into_iter()
                .any(|ours| ours.join(container.id()).exists())
        },
        changes,
    )?;
    Ok(())
}

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
        on_v2,
        empty,
        gone_already,
        with_groups_below,
        busy_for_a_while,
        each_call_on_v2,
        each_call,
        busy_for_ever_on_v2,
        busy_for_ever,
        in_order,
    ])
}

/// What is said of who waits where nothing will change.
const ENDLESS: &str = "it waits on and on, for more than twelve seconds";

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
fn changes(outcome: &Outcome) -> Vec<String> {
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
    let watcher = Watcher::records(&[libc::SYS_rmdir, libc::SYS_unlinkat]);
    let outcome = tried(findings, &container, watcher, |_| Ok(()))?;
    findings.claim(last_first(&container, &outcome));
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

/// A watcher that lets no time pass: who wants to wait has waited, at first. `and_then` is asked about who wants to wait
/// for longer than anybody should: it gets the call and the moment of the first one.
fn without_time(mut and_then: impl FnMut(&Call, Instant) + Send + 'static) -> Watcher {
    let (mut waited, mut since) = (Duration::ZERO, None);
    Watcher::new(WAITING, move |call| {
        let since = *since.get_or_insert_with(Instant::now);
        let Some(time) = asked_for(call) else {
            return Verdict::Go;
        };
        waited += time;
        note(WAITED, waited.as_millis() as u32);
        if waited <= Duration::from_millis(TOO_LONG.into()) {
            return Verdict::Return(0);
        }
        and_then(call, since);
        Verdict::Go
    })
}

/// For scenes in which there is nothing to wait for: who waits for too long is ended.
fn hurried() -> Watcher {
    without_time(|call, _| {
        note(RELEASED, 1);
        let _ = kill(call.pid, Signal::SIGKILL);
    })
}

/// For a group that stays busy: who has a clock of its own then waits in earnest, and in the end the group is free.
fn hurried_at_first() -> Watcher {
    without_time(|_, since| {
        let is_too_long = since.elapsed() > Duration::from_millis(TOO_LONG.into());
        if is_too_long && noted(RELEASED) == 0 {
            release();
        }
    })
}

/// What was seen where a group stays busy: the first try, whether who is in there was left alone, and a second try.
type Stayed = (Seen, bool, Option<Seen>);

/// Somebody is in the group, and stays, on a machine that has version 2 alone.
fn busy_for_ever_on_v2(findings: &Findings) -> Result<()> {
    match Container::on_v2(findings)? {
        Some(container) => stays_busy(findings, &container),
        None => Ok(()),
    }
}

/// Somebody is in one of the groups, and stays.
fn busy_for_ever(findings: &Findings) -> Result<()> {
    stays_busy(findings, &Container::here(findings)?)
}

fn stays_busy(findings: &Findings, container: &Container) -> Result<()> {
    let expected = "a group that is still in use after ten seconds is an error";
    findings.begin(expected);
    let subject = findings.subject().watch(hurried_at_first());
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
            let first = removed(container, &mut cgroup, &folders);
            let is_left_alone = is_member(&mut list, child);
            let _ = kill(child, Signal::SIGKILL);
            let _ = waitpid(child, None);
            let again = first.0.is_some();
            let second = again.then(|| removed(container, &mut cgroup, &folders));
            Ok::<Stayed, _>((first, is_left_alone, second))
        },
        |_| {
            keep_saying(findings, expected);
            Ok(())
        },
    )?;
    judge_patience(findings, container, &outcome, expected);
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
    let seen = match noted(RELEASED) {
        0 => format!("after waiting for {seconds:.1} s it returned {told}"),
        _ => ENDLESS.into(),
    };
    findings.claim(Claim::new(expected, seen, holds).because((!holds).then(|| why.into())));
    if holds {
        findings.claim(left_alone(is_left_alone));
        let stay = those_that_stay(kept, &folders);
        if stay.holds {
            findings.claim(tried_again(container, second));
        }
        findings.claim(stay);
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
    let is_there =
        |range: std::ops::Range<usize>| folders[range].iter().any(|(_, is_there)| *is_there);
    let is_any_gone =
        |range: std::ops::Range<usize>| folders[range].iter().any(|(_, is_there)| !is_there);
    let why = match (is_any_gone(0..at), is_there(at + 1..folders.len())) {
        (true, true) => {
            "it began with the first group: what a crash leaves is found by that one, which goes last"
        }
        (true, false) => {
            "it went on to the groups before the busy one: what a crash leaves is found by the first one, which goes last"
        }
        (false, true) => "the groups behind the busy one weren't removed",
        (false, false) if kept < at + 1 => {
            "a group that is still there was forgotten: nobody removes it any more"
        }
        (false, false) => "groups that have gone aren't forgotten",
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

/// Whatever else the kernel says is an error, at once: on a machine that has version 2 alone.
fn each_call_on_v2(findings: &Findings) -> Result<()> {
    match Container::on_v2(findings)? {
        Some(container) => each_call_in(findings, &container),
        None => Ok(()),
    }
}

/// And here.
fn each_call(findings: &Findings) -> Result<()> {
    each_call_in(findings, &Container::here(findings)?)
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

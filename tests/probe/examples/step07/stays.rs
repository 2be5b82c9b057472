//! 7.4 where somebody is in one of the groups, and stays.

use crate::groups::{Container, is_member};
use crate::haste::{IS_OVER, PATIENCE, RELEASED, TOO_LONG, WAITED, without_time};
use crate::remove::{ENDLESS, Kept, Seen, changes, occupy, release, removed};
use probe::anyhow::Result;
use probe::nix::sys::signal::{Signal, kill};
use probe::nix::sys::wait::waitpid;
use probe::{Claim, Findings, Outcome, Watcher, note, noted};
use std::thread::sleep;
use std::time::{Duration, Instant};
use step07_cgroups::limits::Limits;

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
pub fn busy_for_ever_on_v2(findings: &Findings) -> Result<()> {
    match Container::on_v2(findings)? {
        Some(container) => stays_busy(findings, &container),
        None => Ok(()),
    }
}

/// Somebody is in one of the groups, and stays.
pub fn busy_for_ever(findings: &Findings) -> Result<()> {
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

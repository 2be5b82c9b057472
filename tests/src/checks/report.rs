//! What became of an exercise, and what the learner reads of it.

use crate::course::workbench::Workbench;
use crate::course::{Chapter, Exercise};
use crate::host::NAME;
use crate::host::container::{before_rest, eventually};
use crate::host::evidence::{Photograph, Process};
use crate::host::hang::{MANY, is_about_a_descriptor, is_stuck};
use crate::host::trace::Trace;
use anyhow::{Result, bail};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{getpid, sethostname};
use probe::Claim;
use serde::{Deserialize, Serialize};

/// So many claims that don't hold are told in full.
const MOST_CLAIMS: usize = 3;

/// The first chapter whose program takes a root filesystem.
const FIRST_WITH_A_ROOT: usize = 4;

/// What became of one exercise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// `4.2`
    pub id: String,
    /// The exercise's name.
    pub name: String,
    /// What was looked at.
    pub claims: Vec<Claim>,
    /// Why it doesn't hold, where that is known.
    pub why: Option<String>,
    /// Whether the pretend host is full of processes that don't end, and has to end itself.
    pub is_last: bool,
}

impl Report {
    /// Runs the check of the exercise at `position` of `chapter`. On a pretend host that is beyond
    /// repair afterwards, no other should be run: see [`Report::is_last`].
    pub fn of(chapter: &Chapter, position: usize, bench: &Workbench) -> Result<Report> {
        let exercise = &chapter.exercises[position];
        let before = Photograph::take()?;
        // Who can't be started, or doesn't get ready, is seen to fail at what it is for.
        let failed = |error: anyhow::Error| {
            let expected = "the program gets as far as the check needs it";
            vec![Claim::new(expected, format!("{error:#}"), false)]
        };
        let root = (chapter.number >= FIRST_WITH_A_ROOT)
            .then(|| bench.root())
            .transpose()?;
        let mut claims = match chapter.is_probed {
            true => bench
                .probe(chapter.package, exercise.name, root.as_deref())
                .unwrap_or_else(failed),
            false => Vec::new(),
        };
        // Once a function is seen not to do what it promises, the program that is made of it tells nothing more.
        if claims.iter().all(|claim| claim.holds) {
            claims.extend((exercise.check)(bench).unwrap_or_else(failed));
        }
        if !full()? {
            let changes = put_right(&before)?;
            if !changes.is_empty() && claims.iter().all(|claim| claim.holds) {
                let seen = changes.join("; ");
                claims.push(Claim::new("the host is as it was before", seen, false));
            }
        }
        let mut report = Report {
            id: chapter.id(position),
            name: exercise.name.into(),
            claims,
            why: None,
            is_last: full()?,
        };
        if !report.holds() && !report.is_hole() && !report.is_last {
            let is_told = |claim: &Claim| claim.why.is_some() || is_a_panic(&claim.seen);
            let mut failing = report.claims.iter().filter(|claim| !claim.holds);
            // A descriptor has another end, and what was done to that shows in the calls. Who waits for nothing of the kind
            // has told all there is.
            let is_in_the_calls = |claim: &Claim| is_about_a_descriptor(&claim.seen);
            let is_to_be_traced = !report.is_stuck() || report.claims.iter().any(is_in_the_calls);
            if !failing.any(is_told) && is_to_be_traced {
                report.why = why(exercise, bench).map(String::from);
            }
            put_right(&before)?;
        }
        Ok(report)
    }

    /// The report of an exercise that couldn't be looked at any more.
    pub fn unseen(chapter: &Chapter, position: usize) -> Report {
        let seen = "the pretend host had to end before, full of processes";
        Report {
            id: chapter.id(position),
            name: chapter.exercises[position].name.into(),
            claims: vec![Claim::new("the program ends", seen, false)],
            why: None,
            is_last: true,
        }
    }

    /// Whether all that was claimed holds.
    pub fn holds(&self) -> bool {
        !self.claims.is_empty() && self.claims.iter().all(|claim| claim.holds)
    }

    /// Whether it's in the exercise's function itself that its process waits, or goes in a circle.
    pub fn is_stuck(&self) -> bool {
        let mut failing = self.claims.iter().filter(|claim| !claim.holds);
        failing.any(|claim| is_stuck(&claim.seen, &self.name))
    }

    /// Whether the program came to a hole.
    fn is_hole(&self) -> bool {
        let hole = |claim: &Claim| claim.seen.contains("not yet implemented: exercise");
        self.claims.iter().any(hole)
    }

    /// What a learner reads when it doesn't hold: what was expected and what the kernel says, where
    /// these differ, and below the first of which that is known, why; what to read, and what to try. Nothing when it holds.
    pub fn text(&self, chapter: &Chapter, exercise: &Exercise) -> String {
        let mut text = String::new();
        if self.holds() {
            return text;
        }
        let failing: Vec<&Claim> = self.claims.iter().filter(|claim| !claim.holds).collect();
        // What the first one shows has one cause; of those that follow from it nobody knows.
        let mut each = failing.iter().enumerate();
        let known = each.find_map(|(at, claim)| Some((at, claim.why.as_ref()?)));
        for (at, claim) in failing.iter().enumerate().take(MOST_CLAIMS) {
            text += &part("expected", &claim.expected);
            text += &part("seen", &claim.seen);
            if let Some((_, why)) = known.filter(|(of, _)| *of == at) {
                text += &part("why", why);
            }
        }
        if failing.len() > MOST_CLAIMS {
            let more = failing.len() - MOST_CLAIMS;
            text += &part("", &format!("and {more} more that don't hold"));
        }
        let why = match known {
            Some((at, why)) => Some(why).filter(|_| at >= MOST_CLAIMS),
            None => self.why.as_ref(),
        };
        if let Some(why) = why {
            text += &part("why", why);
        }
        let section = format!("book/src/{}#{}", chapter.page, exercise.section());
        text += &part("read", &format!("{section}; {}", exercise.read));
        text += &part("try", exercise.show);
        text
    }
}

/// The known mistake that shows in the program's system calls.
fn why(exercise: &Exercise, bench: &Workbench) -> Option<&'static str> {
    let trace = |scene: &&[&str]| Trace::of(&bench.program, &bench.words(scene)?);
    let traces: Result<Vec<Trace>> = exercise.scenes.iter().map(trace).collect();
    let traces = traces.ok().filter(|traces| !traces.is_empty())?;
    let mut known = exercise.mistakes.iter();
    known
        .find(|mistake| (mistake.shows)(&traces))
        .map(|mistake| mistake.why)
}

/// Whether what was seen is a panic. That tells its own cause, and of the calls that are missing in a trace nobody knows
/// whether they would have come.
fn is_a_panic(seen: &str) -> bool {
    seen.contains("it panicked")
}

/// Whether the pretend host is full of processes that nobody can count: a fork bomb's.
fn full() -> Result<bool> {
    Ok(Process::all().len() > MANY)
}

/// Undoes what a program did to the pretend host: its name, mounts that leaked, processes that ran
/// away. Returns what there was to undo.
///
/// # Errors
/// There are processes that don't end.
fn put_right(before: &Photograph) -> Result<Vec<String>> {
    let mut now = Photograph::take()?;
    // Whoever is about to end may still be seen.
    before_rest(Process(getpid()), || {
        now = Photograph::take().ok()?;
        now.new_processes(before).is_empty().then_some(())
    });
    let changes = before.changes(&now);
    if changes.is_empty() {
        return Ok(changes);
    }
    // Who stands still makes no more processes; so first all are stopped, then killed.
    for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
        let mut known = usize::MAX;
        loop {
            let left = Photograph::take()?.new_processes(before);
            for process in &left {
                let _ = kill(process.0, signal);
            }
            if left.len() >= known || left.is_empty() {
                break;
            }
            known = left.len();
        }
    }
    let gone = eventually(|| {
        let left = Photograph::take().ok()?.new_processes(before);
        for process in &left {
            let _ = kill(process.0, Signal::SIGKILL);
        }
        left.is_empty().then_some(())
    });
    if gone.is_none() {
        bail!("processes that don't end are left on the pretend host");
    }
    for mount in Photograph::take()?.new_mounts(before) {
        let _ = umount2(&mount.target, MntFlags::MNT_DETACH);
    }
    sethostname(NAME)?;
    Ok(changes)
}

/// A part of a report: its name, and text that is folded behind it.
fn part(name: &str, text: &str) -> String {
    const WIDTH: usize = 88;
    const MOST: usize = 6;
    let mut lines: Vec<String> = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split(' ') {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line += word;
        }
        lines.push(line);
    }
    // Who wants all of it runs the program.
    if lines.len() > MOST {
        lines.truncate(MOST);
        lines.push("…".into());
    }
    let names = std::iter::once(name).chain(std::iter::repeat(""));
    let parts = names.zip(lines);
    parts
        .map(|(name, line)| format!("      {name:<9} {line}\n"))
        .collect()
}

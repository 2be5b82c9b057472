//! A probe: a program of a learner's crate that calls the exercises' functions one by one, in worlds that are made up
//! for it, and says what the kernel saw of each call.
//!
//! A check of the whole program sees what a container is like. A probe sees what the functions promise: what they
//! return, what they leave behind in the process that called them, and what they do when the kernel refuses one of
//! their calls. Each function runs in a process of its own, a [`Subject`]; a [`Watcher`] may decide about its system calls.

mod claim;
mod descriptors;
mod memory;
mod state;
mod subject;
mod watcher;

pub use claim::Claim;
pub use descriptors::{high_number, place};
pub use state::{Descriptor, State};
pub use subject::{Ending, Outcome, Subject, note, noted};
pub use watcher::{Call, Verdict, Watcher};
pub use {anyhow, libc, nix, serde_json};

use anyhow::{Context, Result, bail};
use nix::sys::prctl::set_child_subreaper;
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::io::Write;
use std::path::PathBuf;

/// What a probe prints, a line of JSON each.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// What is about to be judged: if nothing follows, the function hangs.
    Begin(String),
    /// What was found.
    Claim(Claim),
    /// The exercise has been judged to its end.
    End,
}

/// What the probe of one exercise has at hand, and where its findings go.
pub struct Findings {
    exercise: String,
    /// An empty directory of its own, on a filesystem that can be an overlay's upper layer.
    pub scratch: PathBuf,
    /// A root filesystem, for the chapters that have one.
    pub root: Option<PathBuf>,
    /// Whether something didn't hold.
    has_failed: Cell<bool>,
}

/// Judges one exercise.
pub type Probe = fn(&Findings) -> Result<()>;

impl Findings {
    /// Says what is about to be judged. If the function hangs there, the learner reads this.
    pub fn begin(&self, expected: impl Into<String>) {
        say(&Line::Begin(expected.into()));
    }

    /// Hands on a finding.
    pub fn claim(&self, claim: Claim) {
        self.has_failed.set(self.has_failed.get() || !claim.holds);
        say(&Line::Claim(claim));
    }

    /// Whether something didn't hold so far.
    pub fn has_failed(&self) -> bool {
        self.has_failed.get()
    }

    /// Judges scene after scene, up to the first in which something doesn't hold: one fault shows in many of them, and is
    /// read once.
    pub fn up_to_the_first_fault<W: ?Sized>(
        &self,
        world: &W,
        scenes: &[fn(&Findings, &W) -> Result<()>],
    ) -> Result<()> {
        for scene in scenes {
            if self.has_failed.get() {
                break;
            }
            scene(self, world)?;
        }
        Ok(())
    }

    /// Claims that nothing about the caller has changed but what `may_change` names: see [`State::changes`].
    pub fn same_caller(&self, outcome: &Outcome, may_change: &[&str]) {
        let changes = outcome.changes(may_change);
        let expected = "nothing else about the calling process changes";
        let seen = match changes.is_empty() {
            true => "it is as it was".into(),
            false => changes.join("; "),
        };
        self.claim(Claim::new(expected, seen, changes.is_empty()));
    }

    /// A process for a call of the exercise's function.
    pub fn subject(&self) -> Subject<'_> {
        Subject::new(&self.exercise)
    }

    /// Makes the calls that `wanted` names fail, one at a time, with `errno`: as many runs of `run` as there are such calls
    /// in a run that isn't disturbed. After each the function has to return an error, unless `did_it_all_the_same` sees that
    /// what was asked for is there by other means; and `left` says what is left behind that should not be.
    ///
    /// `run` calls the function in the subject that it is given. Returns how many calls there were.
    pub fn each_call_fails(
        &self,
        function: &str,
        wanted: &[(libc::c_long, &str, nix::errno::Errno)],
        run: impl Fn(Subject) -> Result<Outcome>,
        mut did_it_all_the_same: impl FnMut() -> bool,
        mut left: impl FnMut(&Outcome) -> Vec<String>,
    ) -> Result<usize> {
        let numbers: Vec<_> = wanted.iter().map(|(number, ..)| *number).collect();
        let undisturbed = run(self.subject().watch(Watcher::records(&numbers)))?;
        let made: Vec<_> = undisturbed.calls.iter().map(|call| call.number).collect();
        // One fault of a kind is enough to read.
        let mut faulty: Vec<libc::c_long> = Vec::new();
        for (at, number) in made.iter().enumerate() {
            if faulty.contains(number) {
                continue;
            }
            let Some((_, name, errno)) = wanted.iter().find(|(known, ..)| known == number) else {
                continue;
            };
            let turn = made[..at]
                .iter()
                .filter(|earlier| *earlier == number)
                .count();
            let which = match made.iter().filter(|each| *each == number).count() {
                1 => format!("when {name} fails ({errno:?})"),
                _ => format!("when {name} fails ({errno:?}) at call {}", turn + 1),
            };
            self.begin(format!("{which}, {function} returns an error"));
            let outcome = run(self
                .subject()
                .watch(Watcher::refuses(*number, turn, *errno)))?;
            if !outcome.refused {
                // This time it went another way.
                continue;
            }
            let holds = outcome.is_error() || did_it_all_the_same();
            let why = match (holds, outcome.is_ok()) {
                (true, _) => None,
                (_, true) => Some(format!(
                    "the error of {name} is thrown away: what the kernel refused isn't done, and nobody is told"
                )),
                _ => matches!(outcome.ending, Ending::Panicked(_)).then(|| {
                    "a panic is no error: whoever called can neither tell nor do anything about what the kernel refused".into()
                }),
            };
            let expected = format!("{which}, {function} returns an error");
            self.claim(Claim::new(expected, outcome.in_words(), holds).because(why));
            let left = left(&outcome);
            if !holds || !left.is_empty() {
                faulty.push(*number);
            }
            if !left.is_empty() {
                let expected = format!("{which}, {function} leaves nothing behind");
                let why = "on the way that fails, what was made or opened before isn't undone";
                let claim = Claim::new(expected, left.join("; "), false);
                self.claim(claim.because(Some(why.into())));
            }
        }
        Ok(made.len())
    }
}

fn say(line: &Line) {
    let text = serde_json::to_string(line).unwrap_or_default();
    let mut output = std::io::stdout().lock();
    let _ = writeln!(output, "{text}").and_then(|()| output.flush());
}

/// What the main function of a probe does: judges the exercise that the first argument names, in the scratch directory
/// that is the second, with the root filesystem that is the third.
///
/// # Errors
/// Those of the probe itself: its findings are no errors.
pub fn main(probes: &[(&str, Probe)]) -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let exercise = arguments.next().context("which exercise?")?;
    let findings = Findings {
        scratch: arguments.next().context("which directory?")?.into(),
        root: arguments.next().map(PathBuf::from),
        has_failed: Cell::new(false),
        exercise,
    };
    // Whoever loses its parent in here comes to us, and goes.
    set_child_subreaper(true)?;
    let known = probes.iter().find(|(name, _)| *name == findings.exercise);
    let judged = known.map_or(Ok(()), |(_, probe)| probe(&findings));
    subject::end_all_children()?;
    match judged {
        Ok(()) => say(&Line::End),
        Err(error) => bail!("the probe of {}: {error:#}", findings.exercise),
    }
    Ok(())
}

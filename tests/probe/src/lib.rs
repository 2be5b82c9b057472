//! A probe: a program of a learner's crate that calls the exercises' functions one by one, in worlds that are made up
//! for it, and says what the kernel saw of each call.
//!
//! A check of the whole program sees what a container is like. A probe sees what the functions promise: what they
//! return, what they leave behind in the process that called them, and what they do when the kernel refuses one of
//! their calls. Each function runs in a process of its own, a [`Subject`]; a [`Watcher`] may decide about its system calls.

mod claim;
mod descriptors;
mod memory;
pub mod old;
mod scene;
mod state;
mod subject;
mod watcher;
pub mod world;

pub use claim::Claim;
pub use descriptors::{high_number, place};
pub use scene::names;
pub use state::{Descriptor, State, children_of, pending};
pub use subject::{Ending, Outcome, Rest, Subject, at_rest, note, noted, told, until};
pub use watcher::{Call, Verdict, Watcher};
pub use world::private_mounts;
pub use {anyhow, libc, nix, serde, serde_json};

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
    /// Whether all that was claimed until now holds.
    holds: Cell<bool>,
}

/// Judges one exercise.
pub type Probe = fn(&Findings) -> Result<()>;

impl Findings {
    /// Says what is about to be judged. If the function hangs there, the learner reads this.
    pub fn begin(&self, expected: impl Into<String>) {
        say(&Line::Begin(expected.into()));
    }

    /// Hands on a finding.
    ///
    /// What is seen in the scratch directory is called `SCRATCH/…`: its name tells nothing.
    pub fn claim(&self, claim: Claim) {
        self.holds.set(self.holds.get() && claim.holds);
        let scratch = self.scratch.display().to_string();
        let plain = |text: String| text.replace(&scratch, "SCRATCH");
        say(&Line::Claim(Claim {
            expected: plain(claim.expected),
            seen: plain(claim.seen),
            ..claim
        }));
    }

    /// Whether all claims so far hold.
    pub fn all_hold(&self) -> bool {
        self.holds.get()
    }

    /// Plays the scenes in their order, up to the first in which a claim doesn't hold: what is wrong there would show in
    /// those behind it, too, and would be told there with another's reason.
    ///
    /// # Errors
    /// Those of the scenes.
    pub fn play(&self, scenes: &[Probe]) -> Result<()> {
        for scene in scenes {
            if self.all_hold() {
                scene(self)?;
            }
        }
        Ok(())
    }

    /// The same with scenes in one `world`.
    pub fn play_in<W: ?Sized>(
        &self,
        world: &W,
        scenes: &[fn(&Findings, &W) -> Result<()>],
    ) -> Result<()> {
        for scene in scenes {
            if self.all_hold() {
                scene(self, world)?;
            }
        }
        Ok(())
    }

    /// Claims that nothing else about the caller is changed than what `may_change` names: see [`State::changes`].
    pub fn caller_stays(&self, outcome: &Outcome, may_change: &[&str]) {
        self.claim(outcome.keeps_caller(&self.exercise, may_change));
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
        for (at, number) in made.iter().enumerate() {
            let known = wanted.iter().find(|(known, ..)| known == number);
            // After the first that isn't heeded the others say the same.
            let Some((_, name, errno)) = known.filter(|_| self.all_hold()) else {
                continue;
            };
            let same = |calls: &[libc::c_long]| calls.iter().filter(|each| *each == number).count();
            let turn = same(&made[..at]);
            let which = match same(&made) {
                1 => format!("when {name} fails ({errno:?})"),
                _ => format!("when {name} fails ({errno:?}) at call {}", turn + 1),
            };
            self.begin(format!("{which}, {function} returns an error"));
            let watcher = Watcher::refuses(*number, turn, *errno);
            let outcome = run(self.subject().watch(watcher))?;
            // It may have gone another way this time.
            if outcome.refused {
                let all_the_same = !outcome.is_error() && did_it_all_the_same();
                self.judge_a_refusal(&which, function, name, &outcome, all_the_same);
                let left = left(&outcome);
                let expected = format!("{which}, {function} leaves nothing behind");
                let claim = Claim::new(expected, left.join("; "), left.is_empty());
                self.claim(
                    claim.why("on the way that fails, what was made or opened before isn't undone"),
                );
            }
        }
        Ok(made.len())
    }

    /// What a function says after one of its calls, `name`, was refused.
    fn judge_a_refusal(
        &self,
        which: &str,
        function: &str,
        name: &str,
        outcome: &Outcome,
        all_the_same: bool,
    ) {
        let holds = outcome.is_error() || all_the_same;
        let expected = format!("{which}, {function} returns an error");
        let claim = Claim::new(expected, outcome.in_words(), holds);
        let why = match outcome.is_ok() {
            true => Some(format!(
                "the error of {name} is thrown away: what the kernel refused isn't done, and nobody is told"
            )),
            false => outcome.why_no_error(),
        };
        self.claim(claim.because(why.filter(|_| !holds)));
        if let Some(error) = outcome.error().strip_prefix(subject::NOT_TOLD) {
            let expected = format!(
                "{which}, the error of {function} is a Refused, which has the kernel's answer"
            );
            let claim = Claim::new(expected, format!("another error: {error}"), false);
            self.claim(claim.why(
                "the error was made anew, without errno: call! makes a Refused, and ? hands it on",
            ));
        }
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
        holds: Cell::new(true),
        exercise,
    };
    // Whoever loses its parent in here comes to us, and goes.
    set_child_subreaper(true)?;
    let known = probes.iter().find(|(name, _)| *name == findings.exercise);
    let (_, probe) = known.context("nobody judges an exercise of that name")?;
    let judged = probe(&findings);
    subject::end_all_children()?;
    match judged {
        Ok(()) => say(&Line::End),
        Err(error) => bail!("the probe of {}: {error:#}", findings.exercise),
    }
    Ok(())
}

//! What the scenes of many probes have in common: one after the other, the caller afterwards, and refusals.

use crate::{Claim, Ending, Findings, Outcome, Probe};
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Why a panic isn't what the docs call an error.
const PANICS: &str =
    "an error becomes a panic, with which the caller can do nothing: `?` hands the error on";

impl Findings {
    /// Plays `scenes` in their order, up to the first in which a claim fails: what follows from one fault isn't told as if
    /// it were another.
    pub fn scenes(&self, scenes: &[Probe]) -> Result<()> {
        for scene in scenes {
            scene(self)?;
            if self.has_failed() {
                break;
            }
        }
        Ok(())
    }

    /// Whether a claim has failed by now.
    pub fn has_failed(&self) -> bool {
        self.has_failed.get()
    }

    /// Claims that the function returned Ok, and that nothing is `wrong`: what is otherwise than it should be, in words.
    /// `why` says why it is so, if it isn't and there is one reason only. Returns whether it holds.
    pub fn holds(
        &self,
        expected: &str,
        outcome: &Outcome,
        wrong: &[String],
        why: impl FnOnce() -> Option<String>,
    ) -> bool {
        let holds = outcome.is_ok() && wrong.is_empty();
        let seen = match outcome.is_ok() && !holds {
            true => wrong.join("; "),
            false => outcome.in_words(),
        };
        // A panic says itself what it is.
        let has_come_back = !matches!(outcome.ending, Ending::Panicked(_));
        let why = (!holds && has_come_back).then(why).flatten();
        self.claim(Claim::new(expected, seen, holds).because(why));
        holds
    }

    /// Claims that the caller is what it was, except for `may_change`: see [`crate::State::changes`].
    pub fn caller_stays(&self, outcome: &Outcome, may_change: &[&str]) {
        let changes = outcome.changes(may_change);
        let holds = changes.is_empty();
        let why = match holds {
            true => None,
            false => Some(
                "the function does more than its docs say, or doesn't put back what it changed"
                    .into(),
            ),
        };
        let expected = "nothing else is changed in the process that calls it";
        self.claim(Claim::new(expected, changes.join("; "), holds).because(why));
    }

    /// Claims that the function returned an error which tells `errno`. Returns whether it did.
    pub fn refuses(&self, expected: &str, outcome: &Outcome, errno: Errno, why: &str) -> bool {
        let holds = outcome.is_error() && names(outcome.error(), errno);
        let why = match outcome.ending {
            Ending::Returned => Some(why.to_owned()),
            // What unwrap and expect say of it.
            Ending::Panicked(ref text) if text.contains("errno: ") || names(text, errno) => {
                Some(PANICS.to_owned())
            }
            _ => None,
        };
        let expected = format!("{expected}: {errno:?}");
        self.claim(Claim::new(expected, outcome.in_words(), holds).because(why));
        holds
    }
}

/// Whether the text of an error tells `errno`, in one of the ways in which errors do.
pub fn names(error: &str, errno: Errno) -> bool {
    let number = format!("os error {}", errno as i32);
    [&format!("{errno:?}"), errno.desc(), &number]
        .iter()
        .any(|way| error.contains(*way))
}

/// Gives the calling process mounts of its own, which nobody else sees and which go with it.
pub fn own_mounts() -> Result<()> {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS).context("unshare(CLONE_NEWNS)")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(none, "/", none, private, none).context("mounts of the probe's own")
}

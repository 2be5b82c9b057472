//! What the scenes of many probes claim: that all went well, or that it was refused and by which answer.

use crate::{Claim, Ending, Findings, Outcome};
use nix::errno::Errno;

impl Findings {
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

    /// Claims that the function returned an error which tells `errno`. Returns whether it did.
    pub fn refuses(&self, expected: &str, outcome: &Outcome, errno: Errno, why: &str) -> bool {
        let holds = outcome.is_error() && names(outcome.error(), errno);
        let why = match outcome.is_ok() {
            true => Some(why.to_owned()),
            false => outcome.why_no_error().filter(|_| !is_hole(outcome)),
        };
        let expected = format!("{expected}: {errno:?}");
        self.claim(Claim::new(expected, outcome.in_words(), holds).because(why));
        holds
    }
}

/// Whether the function hasn't been written yet.
fn is_hole(outcome: &Outcome) -> bool {
    matches!(&outcome.ending, Ending::Panicked(text) if text.contains("not yet implemented"))
}

/// Whether the text of an error tells `errno`, in one of the ways in which errors do.
pub fn names(error: &str, errno: Errno) -> bool {
    let number = format!("os error {}", errno as i32);
    [&format!("{errno:?}"), errno.desc(), &number]
        .iter()
        .any(|way| error.contains(*way))
}

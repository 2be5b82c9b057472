//! What was found out about a command, and how it is told.

use nix::errno::Errno;
use std::fmt::{self, Display, Formatter};
use step01_uts::Refused;
use step01_uts::program::visible;

/// What would happen to a command.
#[derive(Debug)]
pub struct Explanation {
    /// The command's name as it was given.
    pub command: String,
    /// What keeps the command from starting; `None` when it would start.
    pub fault: Option<Fault>,
    /// What was found on the way, a line each.
    pub evidence: Vec<String>,
}

/// What keeps a command from starting.
#[derive(Debug)]
pub struct Fault {
    /// What comes of the fault.
    pub consequence: Consequence,
    /// The reason, to be read after "No such file or directory: ".
    pub why: String,
    /// What to do about it.
    pub help: String,
    /// Whether there is nothing at all at the path: a search goes on with the next directory.
    pub absent: bool,
}

/// What comes of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consequence {
    /// `execve` refuses.
    Refused(Errno),
    /// `execve` succeeds, and then the loader, or env, gives up with this status.
    Ends(u8),
    /// Nothing can be said: the user may not look closely enough, or there is too much to look at.
    Unknown,
}

impl Fault {
    /// A fault at a path where there is something.
    pub fn new(consequence: Consequence, why: impl Into<String>, help: impl Into<String>) -> Fault {
        Fault {
            consequence,
            why: why.into(),
            help: help.into(),
            absent: false,
        }
    }
}

impl Explanation {
    /// The exit code with which the command would end; 0 stands for a command that starts, 125 for
    /// one of which nothing can be said.
    pub fn exit_code(&self) -> u8 {
        match self.fault.as_ref().map(|fault| fault.consequence) {
            None => 0,
            Some(Consequence::Refused(errno)) => Refused::new("execve()".into(), errno).exit_code(),
            Some(Consequence::Ends(status)) => status,
            Some(Consequence::Unknown) => 125,
        }
    }

    /// `refused` with this explanation, where the explanation is about the same errno.
    pub fn of(&self, refused: Refused) -> Refused {
        match &self.fault {
            Some(fault) if fault.consequence == Consequence::Refused(refused.errno()) => {
                refused.because(self.to_string())
            }
            _ => refused,
        }
    }

    /// The whole text for `--why`.
    pub fn report(&self) -> String {
        let command = visible(&self.command);
        match self.fault.as_ref().map(|fault| fault.consequence) {
            None => format!("{command} would start{self}"),
            Some(Consequence::Refused(errno)) => {
                let call = format!("execve({:?})", self.command);
                self.of(Refused::new(call, errno)).to_string()
            }
            Some(Consequence::Ends(status)) => {
                format!("{command}: would end with status {status}: {self}")
            }
            Some(Consequence::Unknown) => format!("{command}: can't tell: {self}"),
        }
    }
}

/// A line that a terminal may have ([`visible`]), and no longer than anybody reads.
fn line(text: &str) -> String {
    const LONG: usize = 1000;
    match text.char_indices().nth(LONG) {
        Some((at, _)) => visible(&text[..at]) + "…",
        None => visible(text),
    }
}

/// The reason, then the evidence and the help on lines of their own.
impl Display for Explanation {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        if let Some(fault) = &self.fault {
            f.write_str(&line(&fault.why))?;
        }
        for each in &self.evidence {
            write!(f, "\n  {}", line(each))?;
        }
        match &self.fault {
            Some(fault) => write!(f, "\nhelp: {}", line(&fault.help)),
            None => Ok(()),
        }
    }
}

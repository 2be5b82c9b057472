//! What an attack is: where the attacker sits, what is done, and what came of it.

use crate::course::workbench::Workbench;
use crate::host::container::{RunOutcome, run};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::path::Path;

/// An attack on the host, and what its failure means.
pub struct Attack {
    /// What is typed in the container.
    pub command: &'static str,
    /// What it is to bring about.
    pub aim: &'static str,
    /// Makes the attack and says what came of it.
    pub make: fn(&Prison) -> Result<Blow>,
    /// What the chapter's exercises taught.
    pub learnt: &'static [&'static str],
    /// What production runtimes do beyond it.
    pub beyond: &'static str,
    /// The hole that is left, and where it is closed.
    pub next: &'static str,
}

/// Where the attacker sits: in a container of `bench.program`, in a root by `root_flag`; on the
/// bare host when `open`.
pub struct Prison<'a> {
    /// The program, and a place for what the attack makes.
    pub bench: &'a Workbench,
    /// Whether there is no container at all.
    pub open: bool,
    /// How the program is given a root: by `--rootfs`, by `--image`, or not at all.
    pub root_flag: Option<&'static str>,
    /// The program's step; 0 without one.
    pub step: usize,
}

/// What an attack has done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blow {
    /// Whether it worked.
    pub struck: bool,
    /// The file that tells, and what it says.
    pub seen: String,
}

impl Prison<'_> {
    /// Whether the program knows `-t`.
    pub fn has_terminals(&self) -> bool {
        let help = run(&self.bench.program, &["--help"]);
        help.is_ok_and(|help| help.output.contains("--tty"))
    }

    /// Runs a line of shell as the attacker.
    pub fn attempt(&self, line: &str) -> Result<RunOutcome> {
        if self.open {
            return run("sh".as_ref(), &["-c", line]);
        }
        let root = self.bench.root()?;
        run(
            &self.bench.program,
            &self.arguments(&root, &[], &["sh", "-c", line]),
        )
    }

    /// The arguments that run `command` in `root`, with `flags` before it.
    pub fn arguments(&self, root: &Path, flags: &[&str], command: &[&str]) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        if let Some(flag) = self.root_flag {
            arguments.extend([flag.into(), root.into()]);
        }
        arguments.extend(flags.iter().chain(command).map(OsString::from));
        arguments
    }
}

//! What people type to look into containers.

use crate::cp::Cp;
use crate::diff::Diff;
use crate::exec::Exec;
use crate::stats::Stats;
use crate::top::Top;
use anyhow::Result;
use clap::{Args, Command, Subcommand};
use clap_complete::{Shell, generate};
use step01_uts::say;
use step09_detach::commands::reader::end_with_the_reader;

/// The ways to look into a container.
#[derive(Debug, Subcommand)]
#[allow(missing_docs, reason = "each is told where its flags are")]
pub enum Looks {
    Exec(Exec),
    Stats(Stats),
    Top(Top),
    Diff(Diff),
    Cp(Cp),
}

impl Looks {
    /// Runs the subcommand, and returns the exit code.
    pub fn run(self) -> Result<u8> {
        // `exec` and `cp` notice themselves that nobody reads.
        if !matches!(self, Looks::Exec(_) | Looks::Cp(_)) {
            end_with_the_reader();
        }
        match self {
            Looks::Exec(exec) => exec.run(),
            Looks::Stats(stats) => stats.run(),
            Looks::Top(top) => top.run(),
            Looks::Diff(diff) => diff.run(),
            Looks::Cp(cp) => cp.run(),
        }
    }
}

/// Print what a shell needs to complete these commands
#[derive(Debug, Args)]
pub struct Completions {
    /// Which shell
    shell: Shell,
}

impl Completions {
    /// Prints the completions of `program`.
    pub fn run(self, program: &mut Command) -> Result<u8> {
        end_with_the_reader();
        let name = program.get_name().to_owned();
        let mut script = Vec::new();
        generate(self.shell, program, name, &mut script);
        say(script.trim_ascii_end())?;
        Ok(0)
    }
}

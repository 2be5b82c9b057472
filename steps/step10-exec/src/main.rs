//! Step 10: a small Docker.

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::{Shell, generate};
use std::process::ExitCode;
use step01_uts::{program, say};
use step09_detach::commands::{Commands, end_with_the_reader};
use step09_detach::monitor::be_monitor;
use step10_exec::cp::Cp;
use step10_exec::diff::Diff;
use step10_exec::exec::Exec;
use step10_exec::stats::Stats;
use step10_exec::top::Top;

/// Run containers, and look into them
#[derive(Parser)]
#[command(version, subcommand_required = true, arg_required_else_help = true)]
struct Args {
    #[command(subcommand)]
    command: Everything,
}

#[derive(Subcommand)]
enum Everything {
    #[command(flatten)]
    Detach(Commands),
    Exec(Exec),
    Stats(Stats),
    Top(Top),
    Diff(Diff),
    Cp(Cp),
    /// Print what a shell needs to complete these commands
    Completions {
        /// Which shell
        shell: Shell,
    },
}

// ANCHOR: life
fn main() -> ExitCode {
    be_monitor();
    program(|args: Args| {
        if !matches!(
            args.command,
            Everything::Detach(_) | Everything::Exec(_) | Everything::Cp(_)
        ) {
            end_with_the_reader();
        }
        act(args.command)
    })
}
// ANCHOR_END: life

fn act(command: Everything) -> Result<u8> {
    match command {
        Everything::Detach(command) => command.run(),
        Everything::Exec(exec) => exec.run(),
        Everything::Stats(stats) => stats.run(),
        Everything::Top(top) => top.run(),
        Everything::Diff(diff) => diff.run(),
        Everything::Cp(cp) => cp.run(),
        Everything::Completions { shell } => {
            let mut program = Args::command();
            let name = program.get_name().to_owned();
            let mut script = Vec::new();
            generate(shell, &mut program, name, &mut script);
            say(script.trim_ascii_end())?;
            Ok(0)
        }
    }
}

//! Step 10: a small Docker.

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};
use std::process::ExitCode;
use step01_uts::program;
use step09_detach::commands::Commands;
use step09_detach::monitor::be_monitor;
use step10_exec::commands::{Completions, Looks};

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
    #[command(flatten)]
    Look(Looks),
    Completions(Completions),
}

// ANCHOR: life
fn main() -> ExitCode {
    be_monitor();
    program(|args: Args| act(args.command))
}
// ANCHOR_END: life

fn act(command: Everything) -> Result<u8> {
    match command {
        Everything::Detach(command) => command.run(),
        Everything::Look(look) => look.run(),
        Everything::Completions(completions) => completions.run(&mut Args::command()),
    }
}

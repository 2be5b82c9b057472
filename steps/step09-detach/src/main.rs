//! Step 9: containers that outlive their caller.

use clap::Parser;
use std::process::ExitCode;
use step01_uts::program;
use step09_detach::commands::Commands;
use step09_detach::monitor::be_monitor;

/// Run containers that outlive their caller
#[derive(Parser)]
#[command(version, subcommand_required = true, arg_required_else_help = true)]
struct Args {
    #[command(subcommand)]
    command: Commands,
}

// ANCHOR: life
fn main() -> ExitCode {
    be_monitor();
    program(|args: Args| args.command.run())
}
// ANCHOR_END: life

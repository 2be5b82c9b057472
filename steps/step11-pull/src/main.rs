//! Step 11: a small Docker with images.

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};
use std::process::ExitCode;
use step01_uts::program;
use step09_detach::commands::Made;
use step09_detach::monitor::be_monitor;
use step10_exec::commands::{Completions, Looks};
use step11_pull::commands::ImageCommands;

/// Pull images, run containers of them, and look into these
#[derive(Parser)]
#[command(version, subcommand_required = true, arg_required_else_help = true)]
struct Args {
    #[command(subcommand)]
    command: Everything,
}

#[derive(Subcommand)]
enum Everything {
    #[command(flatten)]
    Images(ImageCommands),
    #[command(flatten)]
    Detach(Made),
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
        Everything::Images(command) => command.run(),
        Everything::Detach(command) => command.run(),
        Everything::Look(look) => look.run(),
        Everything::Completions(completions) => completions.run(&mut Args::command()),
    }
}

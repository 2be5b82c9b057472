//! Step 1: runs a command under another hostname.

use clap::Parser;
use std::process::ExitCode;
use step01_uts::{Narration, enter_uts, exec, host_environment, hostname, program};

/// Run a command under a hostname of its own
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The container's hostname
    #[arg(long, value_name = "NAME", default_value = "container", value_parser = hostname)]
    hostname: String,

    /// The command and its arguments: each word arrives as it is, no shell comes between
    #[arg(default_value = "sh", trailing_var_arg = true)]
    command: Vec<String>,

    #[command(flatten)]
    narration: Narration,
}

fn main() -> ExitCode {
    program(|args: Args| {
        args.narration.begin()?;

        enter_uts(&args.hostname)?;
        match exec(&args.command, &host_environment())? {}
    })
}

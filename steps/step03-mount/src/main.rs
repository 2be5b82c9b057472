//! Step 3: runs a command that sees only its own processes and interfaces.

use clap::Parser;
use nix::sched::CloneFlags;
use nix::unistd::sethostname;
use std::process::ExitCode;
use step01_uts::{Narration, call, exec, host_environment, hostname, program};
use step02_pid::{die_with_parent, init, spawn};
use step03_mount::{loopback_up, make_private, mount_proc, mount_sysfs};

/// Run a command that sees only its own processes and network interfaces
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The container's hostname
    #[arg(long, value_name = "NAME", default_value = "container", value_parser = hostname)]
    hostname: String,

    /// Put an init before the command: it forwards signals and reaps orphans
    #[arg(long)]
    init: bool,

    /// The command and its arguments: each word arrives as it is, no shell comes between
    #[arg(default_value = "sh", trailing_var_arg = true)]
    command: Vec<String>,

    #[command(flatten)]
    narration: Narration,
}

// ANCHOR: life
const NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWUTS
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWNS)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWNET);

fn main() -> ExitCode {
    program(|args: Args| {
        args.narration.begin()?;

        let child = spawn(NAMESPACES, || {
            die_with_parent()?;
            call!(sethostname(&args.hostname))?;
            make_private()?;
            mount_proc()?;
            mount_sysfs()?;
            loopback_up()?;
            if args.init {
                init()?;
            }
            exec(&args.command, &host_environment())
        })?;
        child.wait()
    })
}
// ANCHOR_END: life

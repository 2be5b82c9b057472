//! Step 4: runs a command in a root filesystem of its own.

use clap::Parser;
use nix::sched::CloneFlags;
use nix::unistd::sethostname;
use std::process::ExitCode;
use step01_uts::{Narration, call, exec, hostname, program, say};
use step02_pid::{die_with_parent, init, spawn};
use step03_mount::{loopback_up, make_private, mount_proc, mount_sysfs};
use step04_pivot_root::rootfs::Files;
use step04_pivot_root::why::witness::Witness;
use step04_pivot_root::{Env, enter_root, enter_workdir, environment};

/// Run a command in a root filesystem of its own
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The container's hostname
    #[arg(long, value_name = "NAME", default_value = "container", value_parser = hostname)]
    hostname: String,

    /// Put an init before the command: it forwards signals and reaps orphans
    #[arg(long)]
    init: bool,

    /// Say why the command would not start, or that it would; runs nothing and needs no root
    #[arg(long)]
    why: bool,

    /// The command and its arguments: each word arrives as it is, no shell comes between
    #[arg(default_value = "sh", trailing_var_arg = true)]
    command: Vec<String>,

    #[command(flatten)]
    files: Files,

    #[command(flatten)]
    env: Env,

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

        let (command, workdir) = (&args.command, args.env.workdir());
        let environment = environment(&args.hostname, &args.env.env);
        let rootfs = args.files.open()?;
        rootfs.check(&["proc", "sys"])?;
        let witness = Witness::new(Some(&rootfs.path), &command[0], &environment, workdir)?;
        if args.why {
            let explanation = witness.foresee(&rootfs.path)?;
            say(explanation.report())?;
            return Ok(explanation.exit_code());
        }

        let child = spawn(NAMESPACES, || {
            die_with_parent()?;
            call!(sethostname(&args.hostname))?;
            make_private()?;
            enter_root(&rootfs.path, || {
                mount_proc()?;
                mount_sysfs()
            })?;
            loopback_up()?;
            enter_workdir(workdir)?;
            witness.hand_over()?;
            if args.init {
                init()?;
            }
            exec(command, &environment)
        });
        witness.testify(child.and_then(|child| child.wait()))
    })
}
// ANCHOR_END: life

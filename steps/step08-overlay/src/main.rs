//! Step 8: runs a command on layers of its own.

use clap::Parser;
use nix::sched::CloneFlags;
use nix::unistd::sethostname;
use std::process::ExitCode;
use step01_uts::{Narration, call, exec, hostname, program, say};
use step02_pid::{die_with_parent, init, spawn};
use step03_mount::{loopback_up, make_private, mount_proc, mount_sysfs};
use step04_pivot_root::rootfs::Files;
use step04_pivot_root::why::witness::Witness;
use step04_pivot_root::{Env, enter_workdir, environment, swap_roots};
use step05_tty::mounts::mount_all;
use step05_tty::names::NameFiles;
use step05_tty::terminal::{Tty, null};
use step05_tty::{DEV, make_links};
use step06_caps::confine;
use step06_caps::network::Network;
use step06_caps::privileges::Security;
use step06_caps::users::UserName;
use step07_cgroups::Cgroup;
use step07_cgroups::cgroup::group::new_id;
use step07_cgroups::devices::make_devices_and_folders;
use step07_cgroups::resources::Resources;
use step07_cgroups::rlimits::set_rlimits;
use step08_overlay::changes::Home;
use step08_overlay::layers::Storage;

/// Run a command on layers of files, with volumes
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
    tty: Tty,

    #[command(flatten)]
    layers: Storage,

    #[command(flatten)]
    files: Files,

    #[command(flatten)]
    env: Env,

    #[command(flatten)]
    limits: Resources,

    #[command(flatten)]
    network: Network,

    #[command(flatten)]
    user: UserName,

    #[command(flatten)]
    privileges: Security,

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
        let tty = args.tty.or_for(command);
        let given = [tty.environment(), args.env.env.clone()].concat();
        let defaults = environment(&args.hostname, &given);
        let privileges = args.privileges.resolve()?;
        let (limits, devices) = args.limits.resolve(args.privileges.privileged)?;
        let network = args.network;
        let names = NameFiles::of(&args.hostname);
        // ANCHOR: opened
        let volumes = args.layers.volumes()?;
        let id = new_id()?;
        let layers = args
            .layers
            .open(&args.files, Home::Passing(&id), args.why)?;
        // ANCHOR_END: opened
        let witness = Witness::new(layers.on_host(), &command[0], &defaults, workdir)?;
        if args.why {
            let explanation =
                layers.foresee(&args.layers, &volumes, |root| witness.foresee(root))?;
            say(explanation.report())?;
            return Ok(explanation.exit_code());
        }
        let terminal = tty.open()?;
        let cgroup = Cgroup::create(&id, &limits)?;

        let child = spawn(network.namespaces(NAMESPACES), || {
            die_with_parent()?;
            cgroup.enter()?;
            call!(sethostname(&args.hostname))?;
            // ANCHOR: mounted
            make_private()?;
            let root = layers.mount()?;
            swap_roots(&root, || {
                mount_proc()?;
                mount_sysfs()
            })?;
            names.attach()?;
            mount_all(DEV)?;
            make_devices_and_folders(&devices)?;
            make_links()?;
            let null = null()?;
            if network == Network::None {
                loopback_up()?;
            }
            cgroup.mount()?;
            args.layers.attach(&volumes)?;
            // ANCHOR_END: mounted
            privileges.seal(&null)?;
            enter_workdir(workdir)?;
            witness.hand_over()?;
            let user = args.user.find()?;
            let environment = environment(
                &args.hostname,
                &[user.environment(), given.clone()].concat(),
            );
            terminal.attach()?;
            terminal.give_to(user.uid)?;
            set_rlimits(&args.limits.ulimit)?;
            confine(&privileges.process(user))?;
            if args.init {
                init()?;
            }
            exec(command, &environment)
        });
        let outcome = witness.testify(child.and_then(|child| terminal.relay(&child)));
        let outcome = layers.settle(outcome, args.layers.commit.as_ref());
        cgroup.settle(outcome, args.limits.stats)
    })
}
// ANCHOR_END: life

//! The closure of step 8, with a name: all that happens to a container, from its first directory to its last account.

use crate::container::Container;
use crate::container::plan::Plan;
use crate::{send, wait_for_end};
use anyhow::{Error, Result};
use nix::sched::CloneFlags;
use nix::unistd::sethostname;
use std::path::Path;
use step01_uts::{call, exec};
use step02_pid::{Child, die_with_parent, init, spawn};
use step03_mount::{loopback_up, make_private, mount_proc, mount_sysfs};
use step04_pivot_root::why::witness::{Sight, Witness};
use step04_pivot_root::{enter_workdir, environment, swap_roots};
use step05_tty::mounts::mount_all;
use step05_tty::names::NameFiles;
use step05_tty::terminal::{Ends, null};
use step05_tty::{DEV, make_links};
use step06_caps::confine;
use step06_caps::network::Network;
use step07_cgroups::Cgroup;
use step07_cgroups::devices::make_devices_and_folders;
use step07_cgroups::rlimits::set_rlimits;
use step08_overlay::changes::Home;

// ANCHOR: life
const NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWUTS
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWNS)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWNET);

/// How a container's run ended.
#[derive(Debug)]
pub struct Outcome {
    /// The container's exit code.
    pub code: Result<u8>,
    /// Whether the kernel killed one of the container's processes for want of memory.
    pub oom_killed: bool,
    /// What the container used.
    pub usage: String,
}

/// A *companion*: what stays with a container while it runs, such as its monitor.
pub trait Companion {
    /// Stays with the command until it has ended and the last of its output is written. Returns its exit code.
    fn relay(&mut self, child: &Child, ends: Ends) -> Result<u8>;

    /// Asks somebody why the command came to that `outcome`, in the root that the host has at `root`. The *sight* is
    /// what it takes to look: two descriptors that the child hands over to the parent's *witness*. Returns when nobody
    /// looks any more, since the root goes then.
    fn raise(&mut self, outcome: Result<u8, &Error>, host: Option<&Path>, sight: Sight);
}

/// Starts `container` by its `plan`, has its `companion` stay with it until it has ended, and puts in order what the
/// container leaves. A terminal begins with `size`, in rows and columns.
///
/// # Errors
/// The container didn't start. Nothing is left then.
pub fn start(
    container: &Container,
    plan: &Plan,
    size: Option<(u16, u16)>,
    companion: &mut impl Companion,
) -> Result<Outcome> {
    let hostname = plan.hostname(&container.id);
    let (command, workdir) = (plan.command(), plan.env.workdir());
    let given = plan.variables();
    let defaults = environment(hostname, &given);
    let (mut limits, devices) = plan.limits.resolve(plan.privileges.privileged)?;
    limits.freezer = true;
    let network = plan.network;
    let names = NameFiles::of(hostname);
    let volumes = plan.layers.volumes()?;
    let home = Home::Lasting {
        folder: &container.folder,
        volatile: plan.rm,
    };
    let layers = plan.layers.open(&plan.files, home, false)?;
    let witness = Witness::new(layers.on_host(), &command[0], &defaults, workdir)?;
    let terminal = plan.tty.open_apart(size)?;
    let cgroup = Cgroup::create(&container.id, &limits)?;

    let child = spawn(network.namespaces(NAMESPACES), || {
        die_with_parent()?;
        // The child resolves these, because that takes some memory, which the process that stays need not have.
        let privileges = plan.privileges(&container.folder).resolve()?;
        cgroup.enter()?;
        call!(sethostname(hostname))?;
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
        plan.layers.attach(&volumes)?;
        privileges.seal(&null)?;
        enter_workdir(workdir)?;
        witness.hand_over()?;
        let user = plan.user.find()?;
        let environment = environment(hostname, &[user.environment(), given.clone()].concat());
        terminal.attach()?;
        terminal.give_to(user.uid)?;
        set_rlimits(&plan.limits.ulimit)?;
        confine(&privileges.process(user))?;
        if plan.init {
            init()?;
        }
        exec(command, &environment)
    });
    let raise = |companion: &mut dyn Companion, outcome: Result<u8, &Error>| {
        if let Some(sight) = witness.sight(outcome) {
            companion.raise(outcome, layers.on_host(), sight);
        }
    };
    let child = match child {
        Ok(child) => child,
        Err(error) => {
            raise(companion, Err(&error));
            return Err(error);
        }
    };
    // The process that stays needs none of this.
    drop((devices, names, volumes, given));
    let outcome = terminal
        .ends()
        .and_then(|ends| companion.relay(&child, ends));
    if outcome.is_err() {
        // Nobody would stay with the command. As a rule it has ended already, and then this does nothing.
        send(&child.pidfd, libc::SIGKILL)?;
        wait_for_end(&child.pidfd, None)?;
    }
    raise(companion, outcome.as_ref().copied());
    let outcome = layers.settle(outcome, plan.layers.commit.as_ref());
    let usage = cgroup.groups().usage();
    let outcome = cgroup.settle(outcome, false);
    Ok(Outcome {
        oom_killed: usage
            .oom_kills
            .as_ref()
            .is_some_and(|(kills, _)| *kills > 0),
        usage: usage.to_string(),
        code: outcome,
    })
}
// ANCHOR_END: life

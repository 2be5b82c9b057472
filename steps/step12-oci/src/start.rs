//! The life of a container that somebody else keeps: made, and joined. It is let on by [`let_on`](crate::let_on).

use crate::attributes;
use crate::command::{Command, stand_in};
use crate::config::linux::id_maps;
use crate::config::process::{capabilities, raise_hard_limits, rlimits, to_be_given, user};
use crate::config::read::{Config, ProcessSpec};
use crate::door::Door;
use crate::hooks::{Moment, state_of};
use crate::inside::be_root;
use crate::notify::console::{Console, take_console};
use crate::notify::{pidfd, ready};
use crate::pieces::{Pieces, TIME, Wishes};
use crate::state::known::Known;
use crate::state::store::{Container, State, Store, groups_of};
use crate::{KINDS, Status, resources, wait_for_start};
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::unistd::{Pid, close, geteuid};
use std::convert::Infallible;
use std::fs::{self, File};
use std::mem;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;
use step02_pid::gate::{Act, Gate, Namespaces, map_ids, spawn_gated};
use step02_pid::{Child, reap};
use step04_pivot_root::why::witness::Witness;
use step06_caps::Process;
use step07_cgroups::cgroup::group::members_of;
use step07_cgroups::cgroup::places::Groups;
use step07_cgroups::rlimits::set_rlimits;
use step07_cgroups::{Cgroup, Hierarchy};
use step09_detach::{Identity, send, wait_for_end};
use step10_exec::{Prison, join, same_prison};

/// What becomes a namespace of the child's only later: its own cgroup namespace begins where its groups are, and the clocks
/// of its time namespace can be set only from outside of that.
const LATER: CloneFlags = CloneFlags::CLONE_NEWCGROUP.union(TIME);

// ANCHOR: create
/// Makes the container `id` of `config`, whose text is `text`, up to the door behind which its command is. Returns what
/// is known of it, and its process, which is a child of ours.
///
/// # Errors
/// Anything that config.json asks for and that can't be done: the text names the property. Nothing is left then.
pub fn create(
    store: &Store,
    id: &str,
    (config, text): (&Config, &str),
    wishes: &Wishes,
    console: &Console,
) -> Result<(Known, Child)> {
    let pieces = Pieces::of(config, wishes)?;
    let limits = resources::limits(&config.linux.resources)?;
    let rlimits = rlimits(pieces.process)?;
    raise_hard_limits(pieces.process)?;
    let (container, lock) = store.create(id)?;
    let path = groups_of(config, id);
    let made = || -> Result<(State, Groups, Child)> {
        container.keep_config(text)?;
        let door = Door::new(&container.socket(), &container.waits())?;
        let cgroup = match Cgroup::create_at(&path, &limits) {
            // Who has no right to groups limits nothing by them.
            Err(_) if wishes.rootless && limits.others.is_empty() => None,
            made => Some(made.context("linux.cgroupsPath, linux.resources")?),
        };
        let groups = cgroup.as_ref().map(Cgroup::groups).unwrap_or_default();
        let prison = Prison {
            groups: match &cgroup {
                Some(cgroup) => cgroup.entrances()?,
                None => Vec::new(),
            },
            // They come last: whoever waits for `start` needs a descriptor more.
            rlimits: Vec::new(),
        };
        let notify = ready::prepare(&container)?;
        let command = Command::of(pieces.process, wishes.preserve_fds).told(notify.is_some());
        let cwd = &pieces.process.cwd;
        let witness = Witness::new(Some(&pieces.rootfs), &command.args[0], &command.env, cwd)?;
        let born = pieces.spawn(&container, !groups.is_empty(), |gate| {
            // The lock is the open file's, which the child has in common with us.
            close(lock.descriptor())?;
            pieces.begin()?;
            let mut command = command.clone();
            let mut program = String::new();
            same_prison(&prison, || {
                pieces.make_ready(gate, id, &groups, notify.as_ref())?;
                pieces.settle(console)?;
                // A container may do without a procfs, and then nobody looks into it.
                let _ = witness.hand_over();
                program = command.find(pieces.process.user.uid)?;
                command.inherit()?;
                Ok(pieces.confinement())
            })?;
            // Whoever gets hold of the process while it waits has no more than the command will have.
            wait_for_start(&door)?;
            set_rlimits(&rlimits)?;
            pieces.hooks("startContainer", Status::Created, id)?;
            pieces.install_filter()?;
            command.execute(&program)
        });
        let (state, child) = born.map_err(|error| witness.testify_to(error))?;
        // The groups stay: `delete` removes them.
        mem::forget(cgroup);
        Ok((state, groups, child))
    };
    let (state, groups, child) = made().inspect_err(|_| {
        let _ = container.remove();
        pieces
            .host_hooks("poststop", Status::Stopped, id, None)
            .run_all();
    })?;
    drop(lock);
    Ok((Known::new(container, state, groups), child))
}
// ANCHOR_END: create

impl Pieces<'_> {
    /// Starts the child, with what the host does for it at its two gates, and returns it with the state that was written
    /// down.
    fn spawn(
        &self,
        container: &Container,
        has_groups: bool,
        body: impl Fn(&Gate) -> Result<Infallible>,
    ) -> Result<(State, Child)> {
        let linux = &self.config.linux;
        let mut saved = None;
        let mut born = |child: &Child| -> Result<()> {
            let state = self.state(container, has_groups, child.pid)?;
            container.save(&state)?;
            saved = Some(state);
            if self.parted.new.contains(CloneFlags::CLONE_NEWUSER) {
                let (users, groups) = (id_maps(&linux.uid_mappings), id_maps(&linux.gid_mappings));
                map_ids(child, &users, &groups).context("linux.uidMappings, linux.gidMappings")?;
            }
            attributes::set_oom_score(child.pid, self.process.oom_score_adj)
        };
        let mut mounted = |child: &Child| -> Result<()> {
            for moment in ["prestart", "createRuntime"] {
                self.host_hooks(moment, Status::Creating, &container.id, Some(child))
                    .run()?;
            }
            announce(
                child,
                self.wishes.pid_file.as_deref(),
                self.wishes.pidfd_socket.as_deref(),
            )
        };
        let mut acts: [Act; 2] = [&mut born, &mut mounted];
        let wanted = Namespaces {
            new: self.parted.new.difference(LATER),
            joined: &self.parted.joined,
        };
        let child = spawn_gated(&wanted, &mut acts, body)?;
        Ok((saved.context("its first gate was never passed")?, child))
    }

    fn state(&self, container: &Container, has_groups: bool, pid: Pid) -> Result<State> {
        Ok(State {
            oci_version: self.config.oci_version.clone(),
            id: container.id.clone(),
            process: Identity::of(pid)?,
            bundle: self.wishes.bundle.clone(),
            rootfs: self.rootfs.clone(),
            created: humantime::format_rfc3339_nanos(SystemTime::now()).to_string(),
            owner: geteuid().as_raw(),
            groups: has_groups.then(|| groups_of(self.config, &container.id)),
            annotations: self.config.annotations.clone(),
        })
    }
}

/// Tells the engine of a process that has just begun: its ID in a file, a descriptor for it through a socket. The file
/// appears in one piece.
pub fn announce(child: &Child, file: Option<&Path>, socket: Option<&Path>) -> Result<()> {
    if let Some(path) = file {
        let mut aside = path.as_os_str().to_owned();
        aside.push(format!(".{}", child.pid));
        let written =
            fs::write(&aside, child.pid.to_string()).and_then(|()| fs::rename(&aside, path));
        written.with_context(|| {
            let _ = fs::remove_file(&aside);
            format!("--pid-file {}", path.display())
        })?;
    }
    match socket {
        Some(path) => pidfd::send(path, &child.pidfd).context("--pidfd-socket"),
        None => Ok(()),
    }
}

/// What an engine asks of `exec`.
pub struct Joining<'a> {
    /// The process that joins.
    pub process: &'a ProcessSpec,
    /// The groups below the container's own that it goes to, each for some controllers, or for all.
    pub below: &'a [Below],
    /// How many descriptors from 3 on the command gets.
    pub preserve_fds: u32,
    /// The file for its ID.
    pub pid_file: Option<&'a Path>,
    /// The socket for a descriptor for it.
    pub pidfd_socket: Option<&'a Path>,
}

/// A group below the container's own.
#[derive(Debug, Clone)]
pub struct Below {
    /// The controllers that it is for; all, where none is named.
    pub controllers: Vec<String>,
    /// Its path.
    pub path: PathBuf,
}

// ANCHOR: exec
/// Starts another process in a container that runs, and returns when it has become its command.
///
/// # Errors
/// As [`create`].
pub fn exec(known: &Known, joining: &Joining, console: &Console) -> Result<Child> {
    let (config, state) = (known.config()?, known.state()?);
    let process = joining.process;
    let first = state.process.pid;
    let pidfd = state.process.open()?.context("its process is gone")?;
    let prison = Prison {
        groups: entrances(&known.groups, state, joining.below)?,
        rlimits: rlimits(process)?,
    };
    raise_hard_limits(process)?;
    let filter = config
        .linux
        .seccomp
        .as_ref()
        .map(|profile| profile.compile(0));
    let filter = filter.transpose().context("linux.seccomp")?;
    let theirs = namespaces_of(first)?;
    let own_users = theirs.contains(CloneFlags::CLONE_NEWUSER);
    let capabilities = capabilities(&process.capabilities, to_be_given(own_users));
    let command = Command::of(process, joining.preserve_fds);
    let root = PathBuf::from(format!("/proc/{first}/root"));
    let witness = Witness::new(Some(&root), &command.args[0], &command.env, &process.cwd)?;
    // What a process joins with, it has from us: in there it may not have the right to it.
    let before = attributes::own_oom_score(process.oom_score_adj)?;
    let child = join(&pidfd, theirs, || {
        if own_users {
            be_root()?;
        }
        let mut command = command.clone();
        let mut program = String::new();
        same_prison(&prison, || {
            attributes::new_keyring()?;
            take_console(console, process, false)?;
            if attributes::is_labelled(process) {
                attributes::Proc::open()?.set_labels(process)?;
            }
            stand_in(&process.cwd, process.user.umask)?;
            let _ = witness.hand_over();
            program = command.find(process.user.uid)?;
            command.inherit()?;
            Ok(Process {
                user: user(process),
                capabilities,
                no_new_privileges: process.no_new_privileges,
                filter: filter.clone(),
            })
        })?;
        command.execute(&program)
    });
    before.restore()?;
    let child = child.map_err(|error| witness.testify_to(error))?;
    match announce(&child, joining.pid_file, joining.pidfd_socket) {
        Ok(()) => Ok(child),
        Err(error) => {
            // Nobody would know of it.
            send(&child.pidfd, libc::SIGKILL)?;
            wait_for_end(&child.pidfd, None)?;
            reap(Some(child.pid))?;
            Err(error)
        }
    }
}
// ANCHOR_END: exec

/// The namespaces in which the process `pid` isn't where we are.
fn namespaces_of(pid: i32) -> Result<CloneFlags> {
    let mut differing = CloneFlags::empty();
    for (kind, flag) in KINDS {
        let name = match kind {
            "network" => "net",
            "mount" => "mnt",
            kind => kind,
        };
        let of = |whose: &str| match nix::fcntl::readlink(&*format!("/proc/{whose}/ns/{name}")) {
            // A kernel without such namespaces.
            Err(Errno::ENOENT) => Ok(None),
            link => link.map(Some),
        };
        if of("self")? != of(&pid.to_string())? {
            differing |= flag;
        }
    }
    Ok(differing)
}

/// The files by which a process joins the container's control `groups`, or in version 2 those to which its first process
/// has moved; with `below`, groups below them.
fn entrances(groups: &Groups, state: &State, below: &[Below]) -> Result<Vec<(PathBuf, File)>> {
    let Some(path) = &state.groups else {
        return Ok(Vec::new());
    };
    let theirs = fs::read_to_string(format!("/proc/{}/cgroup", state.process.pid))?;
    let unified = theirs.lines().find_map(|line| line.strip_prefix("0::/"));
    let moved_to = unified.and_then(|place| Path::new(place).strip_prefix(path).ok());
    let moved_to = moved_to.and_then(Path::to_str).unwrap_or_default();
    if below.is_empty() {
        return groups.entrances(moved_to);
    }
    for group in below {
        let plain = |part: Component| matches!(part, Component::Normal(_) | Component::RootDir);
        if !group.path.components().all(plain) {
            bail!(
                "--cgroup {}: that is no group below the container's",
                group.path.display()
            );
        }
    }
    let door = |(hierarchy, folder): (&Hierarchy, &Path)| {
        let has = |name: &String| hierarchy.controllers.contains(name);
        let meant =
            |group: &&Below| group.controllers.is_empty() || group.controllers.iter().any(has);
        let group = below.iter().find(meant).map(|group| &*group.path);
        let group = group.unwrap_or(Path::new(moved_to));
        let path = folder.join(group.strip_prefix("/").unwrap_or(group));
        let path = path.join(members_of(hierarchy.version));
        let file = File::options().write(true).open(&path);
        file.map(|file| (path.clone(), file))
            .with_context(|| format!("--cgroup: {}", path.display()))
    };
    groups.all().map(door).collect()
}

impl Pieces<'_> {
    /// The hooks of a moment that run on the host.
    fn host_hooks<'a>(
        &'a self,
        name: &'a str,
        status: Status,
        id: &str,
        child: Option<&'a Child>,
    ) -> Moment<'a> {
        let hooks = &self.config.hooks;
        let pid = child.map_or(0, |child| child.pid.as_raw());
        Moment {
            name,
            hooks: match name {
                "prestart" => &hooks.prestart,
                "createRuntime" => &hooks.create_runtime,
                _ => &hooks.poststop,
            },
            state: state_of(self.config, id, status, pid, &self.wishes.bundle),
            directory: Some(&self.wishes.bundle),
            process: child.map(|child| &child.pidfd),
        }
    }
}

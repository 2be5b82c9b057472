//! # Step 12: the runtime that others run on
//!
//! Docker starts no container itself. It writes down what the container is to be, in a file config.json beside a root
//! filesystem, and has another program make it so: a *runtime*, whose command line and whose file are the same for all
//! engines, by the runtime specification of the Open Container Initiative (OCI). This step is such a runtime, and what it
//! does with the file is what the steps before have taught: namespaces that are made or joined ([`namespaces`]), mounts,
//! limits, privileges.
//!
//! Two things are new. An engine wants to do something of its own when the container is there and its command isn't: give
//! it a network, say. So `create` and `start` are two commands, and between them the container's process waits at a door
//! ([`wait_for_start`]), and no process of ours keeps it company. And since nobody stays with the container, nobody keeps
//! account of it: what it does is found out by evidence, each time that somebody asks ([`status`]).
//!
//! The life of a container is told in [`mod@start`]. What config.json says is read in [`config`], what that comes to on this
//! machine is told in [`resources`] and [`trees`], what is written down of a container is in [`state`], and how engines are
//! answered in [`report`].

pub mod attributes;
pub mod command;
pub mod commands;
pub mod config;
pub mod door;
pub mod hooks;
pub mod inside;
pub mod mounting;
pub mod notify;
pub mod pieces;
pub mod report;
pub mod resources;
pub mod start;
pub mod state;
pub mod trees;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::CloneFlags;
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Display, Formatter};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use step01_uts::call;
use step02_pid::child::{hear, report_to};
use step07_cgroups::cgroup::places::Groups;
use step09_detach::{Identity, is_running};

use config::read::NamespaceSpec;
use door::{Door, Progress, progress_of, wait_until_gone};
use notify::sockets::{accept, connect_to};

// ANCHOR: KINDS
/// The namespaces by their names in config.json, each with its flag for clone(2): namespaces(7).
pub const KINDS: [(&str, CloneFlags); 8] = [
    ("user", CloneFlags::CLONE_NEWUSER),
    ("pid", CloneFlags::CLONE_NEWPID),
    ("network", CloneFlags::CLONE_NEWNET),
    ("mount", CloneFlags::CLONE_NEWNS),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("cgroup", CloneFlags::CLONE_NEWCGROUP),
    ("time", CloneFlags::from_bits_retain(libc::CLONE_NEWTIME)),
];

/// The namespaces of a container. What isn't named is that of the runtime.
#[derive(Debug)]
pub struct Parted {
    /// Those that are made for it.
    pub new: CloneFlags,
    /// Those that it joins, a user namespace first.
    pub joined: Vec<OwnedFd>,
    /// All of both.
    pub all: CloneFlags,
}
// ANCHOR_END: KINDS

impl Parted {
    /// All namespaces are the runtime's.
    pub fn none() -> Parted {
        Parted {
            new: CloneFlags::empty(),
            joined: Vec::new(),
            all: CloneFlags::empty(),
        }
    }
}

// ANCHOR: namespaces
/// The namespaces that config.json names in `wanted`: those without a path are made, those with one are joined.
///
/// A path is somebody's word. It is opened once, and from then on the descriptor counts, so that whatever the path means
/// later does no harm. Whether there is a namespace at all, and of that type, is asked of the kernel: [`kind_of`]. A user
/// namespace is joined before all others, since the right to join them may come from it. See namespaces(7), setns(2).
///
/// # Errors
/// A type that there isn't, or that is named twice; a path at which there is no namespace of its type. The text names the
/// property: `linux.namespaces[2].path`.
pub fn namespaces(wanted: &[NamespaceSpec]) -> Result<Parted> {
    // ANCHOR_END: namespaces
    // ANCHOR: exercise_namespaces
    let mut parted = Parted::none();
    for (place, namespace) in wanted.iter().enumerate() {
        let field = format!("linux.namespaces[{place}]");
        let Some((_, flag)) = KINDS.iter().find(|(name, _)| *name == namespace.kind) else {
            bail!("{field}.type: there is no namespace {:?}", namespace.kind);
        };
        if parted.all.contains(*flag) {
            bail!("{field}.type: {} is named twice", namespace.kind);
        }
        parted.all |= *flag;
        let path = namespace.path.clone().unwrap_or_default();
        if path.as_os_str().is_empty() {
            parted.new |= *flag;
            continue;
        }
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = open(&path, flags, Mode::empty());
        let file = file.with_context(|| format!("{field}.path: {}", path.display()))?;
        if kind_of(&file) != Some(*flag) {
            let (kind, path) = (&namespace.kind, path.display());
            bail!("{field}.path: {path} is no {kind} namespace");
        }
        match *flag {
            CloneFlags::CLONE_NEWUSER => parted.joined.insert(0, file),
            _ => parted.joined.push(file),
        }
    }
    Ok(parted)
    // ANCHOR_END: exercise_namespaces
}

/// The type of the namespace that `file` stands for, as its flag for clone(2): NS_GET_NSTYPE in ioctl_nsfs(2). `None`: it
/// stands for none.
pub fn kind_of(file: &OwnedFd) -> Option<CloneFlags> {
    const NS_GET_NSTYPE: libc::c_ulong = 0xb703;
    // SAFETY: takes no argument.
    let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE as _) };
    Errno::result(kind).ok().map(CloneFlags::from_bits_retain)
}

// ANCHOR: wait_for_start
/// The half of the container's process: waits at the `door` until `start` comes.
///
/// `create` ends as soon as the process is at the door: the [`ErrorPipe`](step02_pid::ErrorPipe) by which the process would
/// report a failure to it is closed then ([`report_to`] has another place for the reports). And `start` wants to know what
/// becomes of the command, so the reports go to `start` from the moment that it is there. That the command runs is told, as
/// ever, by silence and an end.
pub fn wait_for_start(door: &Door) -> Result<()> {
    // ANCHOR_END: wait_for_start
    // ANCHOR: exercise_wait_for_start
    door.tell(Progress::Waits)?;
    let socket = &door.socket;
    report_to(socket)?;
    let start = loop {
        match call!(accept(socket)) {
            Err(refused) if refused.errno() == Errno::EINTR => continue,
            accepted => break accepted?,
        }
    };
    report_to(&start)
    // ANCHOR_END: exercise_wait_for_start
}

/// The half of `start`: lets the process go on that waits at the door `path`, and returns when it has become its command
/// and holds no lock on the file `progress` any more.
///
/// # Errors
/// The error of the process, with its errno.
pub fn let_on(path: &Path, progress: &Path) -> Result<()> {
    hear(&connect_to(path)?.into(), None)?;
    // The kernel closes what `execve` closes one after the other: the end of the news isn't yet the end of the lock.
    wait_until_gone(progress)
}

// ANCHOR: Status
/// What a container does, by the specification's words, and `paused`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is being made.
    Creating,
    /// It waits for `start`.
    Created,
    /// Its command runs.
    Running,
    /// Its processes have been stopped together.
    Paused,
    /// Its process has ended.
    Stopped,
}
// ANCHOR_END: Status

// ANCHOR: status
/// What a container does now, by the kernel's evidence alone: its `process`, as far as there is one yet, how far the
/// process is ([`progress_of`] the file `progress`), and its control `groups`.
///
/// A word that is written down can only say what was true when it was written: whoever was to write the next one may have
/// been killed.
pub fn status(process: Option<&Identity>, progress: &Path, groups: &Groups) -> Result<Status> {
    // ANCHOR_END: status
    // ANCHOR: exercise_status
    let Some(process) = process else {
        return Ok(Status::Creating);
    };
    // The process is looked at last: what the others said of one that has ended meanwhile doesn't count.
    let (progress, frozen) = (progress_of(progress)?, groups.is_frozen().unwrap_or(false));
    Ok(match (is_running(process), frozen, progress) {
        (false, ..) => Status::Stopped,
        (true, true, _) => Status::Paused,
        (true, false, Progress::MadeReady) => Status::Creating,
        (true, false, Progress::Waits) => Status::Created,
        (true, false, Progress::Gone) => Status::Running,
    })
    // ANCHOR_END: exercise_status
}

impl Display for Status {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str(match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        })
    }
}

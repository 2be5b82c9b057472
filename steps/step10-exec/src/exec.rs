//! `exec`: another command in a container that runs.

use crate::{Prison, close_behind, join, namespaces_of, same_prison};
use anyhow::{Context, Result, bail};
use clap::Args;
use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::stat::umask;
use std::fs::{self, File};
use std::path::PathBuf;
use step01_uts::{Narration, Refused, call};
use step02_pid::{Child, ErrorPipe, die_with_parent, fork, leave, signals};
use step04_pivot_root::state::StateDir;
use step04_pivot_root::why::witness::Witness;
use step04_pivot_root::{environment, with_values};
use step05_tty::COMMANDS_UMASK;
use step05_tty::relay::Until;
use step05_tty::terminal::{Channel, Terminal, Tty};
use step06_caps::privileges::Security;
use step06_caps::users::UserName;
use step07_cgroups::cgroup::places::Groups;
use step09_detach::caller::conversation::terminal_size;
use step09_detach::container::Container;
use step09_detach::container::record::Record;
use step09_detach::container::store::Store;
use step09_detach::sealed::be_sealed;
use step09_detach::{Identity, detach, is_running};

/// Run another command in a container that runs
#[derive(Debug, Args)]
pub struct Exec {
    /// Let it run in the background
    #[arg(short, long)]
    detach: bool,

    /// Set an environment variable besides the container's own; a KEY alone takes the value that it has here
    #[arg(short, long = "env", value_name = "KEY[=VALUE]", value_parser = step04_pivot_root::flags::variable)]
    env: Vec<String>,

    /// The directory in the container in which the command starts [default: the container's own]
    #[arg(short, long, value_name = "DIR", value_parser = step04_pivot_root::flags::absolute)]
    workdir: Option<String>,

    /// Leave the command all that this program may do itself
    #[arg(long)]
    privileged: bool,

    /// The container, by its name or its ID
    #[arg(value_name = "CONTAINER")]
    container: String,

    /// The command and its arguments: each word arrives as it is, no shell comes between
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,

    #[command(flatten)]
    tty: Tty,

    #[command(flatten)]
    user: UserName,

    #[command(flatten)]
    state: StateDir,

    #[command(flatten)]
    narration: Narration,
}

impl Exec {
    // ANCHOR: exec
    /// Runs the command, and returns its exit code.
    pub fn run(self) -> Result<u8> {
        self.narration.begin()?;
        let container = Store::open(&self.state)?.find(&self.container)?;
        let record = container.awake()?;
        let ended = || format!("container {} has just ended", record.name);
        let process = record.state.process.as_ref().with_context(ended)?;
        be_sealed()?;
        let entered = self.enter(&container, &record, process);
        entered.map_err(|error| match error.downcast_ref::<Refused>() {
            // The command couldn't be executed, whatever happened to the container since.
            Some(refused) if refused.is("execve") => error,
            Some(refused) if is_too_late(refused) => error.context(ended()),
            _ if is_running(process) => error,
            _ => error.context(ended()),
        })
    }

    fn enter(&self, container: &Container, record: &Record, process: &Identity) -> Result<u8> {
        let plan = &record.plan;
        let pidfd = process.open()?.context("its PID 1 is gone")?;
        let prison = Prison {
            groups: entrances(record, process)?,
            rlimits: plan.limits.ulimit.clone(),
        };
        let privileges = match self.privileged {
            true => Security {
                privileged: true,
                ..Security::default()
            },
            false => plan.privileges(&container.folder),
        };
        let privileges = privileges.resolve()?;
        let user = match self.user.user {
            Some(_) => &self.user,
            None => &plan.user,
        };
        let hostname = record.hostname();
        let given = [
            self.tty.environment(),
            plan.env.env.clone(),
            with_values(self.env.clone()),
        ]
        .concat();
        let defaults = environment(hostname, &given);
        let workdir = self.workdir.as_deref().unwrap_or(plan.env.workdir());
        let root = PathBuf::from(format!("/proc/{}/root", process.pid));
        let witness = Witness::new(Some(&root), &self.command[0], &defaults, workdir)?;
        let namespaces = namespaces_of(process.pid)?;
        let keeper = self.detach.then(Keeper::new).transpose()?;
        if let Some(Keeper::Caller(outcome)) = keeper {
            return outcome.map(|()| 0);
        }
        let terminal = self.terminal()?;

        let child = join(&pidfd, namespaces, || {
            die_with_parent()?;
            close_behind(workdir)?;
            witness.hand_over()?;
            let mut variables = Vec::new();
            same_prison(&prison, || {
                let user = user.find()?;
                variables = [user.environment(), given.clone()].concat();
                umask(COMMANDS_UMASK);
                take_limits_of_the_first();
                terminal.attach()?;
                terminal.give_to(user.uid)?;
                Ok(privileges.process(user))
            })?;
            step01_uts::exec(&self.command, &environment(hostname, &variables))
        });
        match keeper {
            Some(Keeper::Itself(pipe)) => keep(pipe, child, &witness),
            _ => witness
                .testify(child.and_then(|child| terminal.relay_until(&child, Until::AllIsSaid))),
        }
    }
    // ANCHOR_END: exec

    /// Pipes or a terminal of the command's own: the caller's descriptors stay outside of the container.
    fn terminal(&self) -> Result<Terminal> {
        if self.detach {
            return Ok(Terminal::Streams([
                Channel::Nothing,
                Channel::Nothing,
                Channel::Nothing,
            ]));
        }
        self.tty.check()?;
        signals::hold()?;
        let mut terminal = self.tty.open_apart(terminal_size().ok())?;
        if let Terminal::Pty { is_console, .. } = &mut terminal {
            *is_console = false;
        }
        Ok(terminal)
    }
}

/// Gives the calling process, which has joined a container, the limits of its PID 1: getrlimit(2). A limit that is
/// higher than the calling process may have is lowered to the process's own.
fn take_limits_of_the_first() {
    // The kernel has 16 limits: RLIM_NLIMITS.
    for resource in 0..16 {
        // SAFETY: rlimit is two numbers, which the kernel writes and reads.
        unsafe {
            let [mut theirs, mut ours]: [libc::rlimit; 2] = std::mem::zeroed();
            let nothing = std::ptr::null_mut::<libc::rlimit>();
            let limit = |pid: i32, new: *const libc::rlimit, old: *mut libc::rlimit| {
                libc::syscall(libc::SYS_prlimit64, pid, resource, new, old)
            };
            if limit(1, nothing, &raw mut theirs) == 0 && limit(0, nothing, &raw mut ours) == 0 {
                theirs.rlim_max = theirs.rlim_max.min(ours.rlim_max);
                theirs.rlim_cur = theirs.rlim_cur.min(theirs.rlim_max);
                limit(0, &raw const theirs, nothing);
            }
        }
    }
}

/// Whether the kernel refused because the container's PID 1 is gone, or going.
fn is_too_late(refused: &Refused) -> bool {
    match refused.errno() {
        Errno::ESRCH => refused.is("setns"),
        Errno::ENOMEM => refused.is("clone3"),
        _ => false,
    }
}

/// Opens the files by which a process joins the control groups of the container's PID 1. These are the container's
/// groups, or groups that PID 1 has made below them and moved to, as an init system does: in version 2 a group with
/// others below it takes no processes.
///
/// # Errors
/// One of the groups can't be seen from here: a process that joins only the others could use what PID 1 mustn't.
fn entrances(record: &Record, process: &Identity) -> Result<Vec<(PathBuf, File)>> {
    let theirs = fs::read_to_string(format!("/proc/{}/cgroup", process.pid))?;
    let ours = format!("/ten-steps/{}", record.id);
    let below = |line: &str| {
        let (_, below) = line.split_once(&ours)?;
        (below.is_empty() || below.starts_with('/'))
            .then(|| below.trim_start_matches('/').to_owned())
    };
    let wanted = theirs.lines().filter_map(below).count();
    let of_version_2 = theirs.lines().find(|line| line.starts_with("0::"));
    let moved_to = of_version_2.and_then(below).unwrap_or_default();
    let entrances = Groups::of(&record.id)?.entrances(&moved_to)?;
    if entrances.len() < wanted || (wanted == 0 && theirs.contains("/..")) {
        bail!(
            "container {} is in {wanted} control groups, and {} of them can be seen from here\nhelp: type this where \
             /sys/fs/cgroup is mounted as it was for `run`, and in no cgroup namespace of its own",
            record.name,
            entrances.len()
        );
    }
    Ok(entrances)
}

/// The two processes of `-d`: the caller, and a *keeper* that stays as the command's parent. The command ends with
/// its parent, and a command that has ended waits until its parent reaps it. Until then the container can't end
/// either: zap_pid_ns_processes in the kernel waits for every process in there to be reaped.
enum Keeper {
    /// This process is the caller. The value tells whether the command started.
    Caller(Result<()>),
    /// This process is the keeper, and tells the caller by the pipe whether the command started.
    Itself(ErrorPipe),
}

impl Keeper {
    fn new() -> Result<Keeper> {
        let pipe = ErrorPipe::new()?;
        Ok(match call!(fork())? {
            Some(_) => Keeper::Caller(pipe.told()),
            None => {
                // When the caller is killed before the command runs, the keeper gets SIGTERM. With a request, and not
                // SIGKILL, it first ends the process that is joining the container.
                set_pdeathsig(Signal::SIGTERM)?;
                Keeper::Itself(pipe)
            }
        })
    }
}

/// Tells the caller whether the command started, detaches from it, and stays until the command has ended.
fn keep(pipe: ErrorPipe, child: Result<Child>, witness: &Witness) -> ! {
    let stayed = match child {
        Ok(child) => {
            let _ = set_pdeathsig(None);
            pipe.tell(&Ok(()));
            // The child's pidfd is closed, too: for a parent the PID is enough.
            detach(&[]).and_then(|()| child.wait())
        }
        Err(error) => {
            pipe.tell(&Err(witness.testify_to(error)));
            Ok(0)
        }
    };
    leave(stayed.unwrap_or(0))
}

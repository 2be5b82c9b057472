//! # Step 10: looking in from outside
//!
//! A container that runs can be joined: another process enters its namespaces, all in one call, and from
//! then on sees what the processes inside see ([`join`]). But namespaces aren't the container. A process that
//! only enters them has all of root's capabilities, no filter, the host's limits and environment: a door
//! without a lock. What confines PID 1 has to be put on once more ([`same_prison`]), and nothing of the host
//! may be left open behind ([`close_behind`]).
//!
//! [`exec`] is the command that does all three. [`stats`], [`top`], [`diff`] and [`cp`] look in without
//! entering.

pub mod commands;
pub mod copy;
pub mod cp;
pub mod diff;
pub mod exec;
pub mod stats;
pub mod top;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::close;
use std::convert::Infallible;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use step01_uts::call;
use step02_pid::birth::Birth;
use step02_pid::hidden::{forget_environment, hide};
use step02_pid::{Child, ErrorPipe, clone3, reap, signals};
use step04_pivot_root::enter_workdir;
use step06_caps::{Process, confine};
use step07_cgroups::rlimits::{Ulimit, set_rlimits};
use step09_detach::{open_descriptors, wait_for_end};

// ANCHOR: NAMESPACES
/// All namespaces of a container of ours.
pub const NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWUTS
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWNS)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWNET)
    .union(CloneFlags::CLONE_NEWCGROUP);
// ANCHOR_END: NAMESPACES

// ANCHOR: join
/// Starts `body` as a process in those `namespaces` of the process that `pidfd` stands for, and returns when it
/// has become its command. The calling process itself stays where and what it was, but that it holds signals
/// back (`signals::hold`); of its children the command alone is new, and none of the others is reaped.
///
/// With a pidfd `setns` enters several namespaces at once: all of them or none, and always those of this
/// process, never of a later one with its number. The PID namespace is an exception: a process keeps its own
/// for life, and only the children made from now on are born in the other. So a process between goes in,
/// makes that child, which is ours by CLONE_PARENT, and ends. From the moment in which it goes in, the
/// container's processes may look into its memory and into its child's, where the host's environment and
/// arguments are: before, it hides (`hide`) and wipes them (`forget_environment`). See setns(2), clone(2),
/// pid_namespaces(7).
///
/// # Errors
/// Whatever error `body` returned or panic it ended in.
/// [`Refused`](step01_uts::Refused): ESRCH when the process has ended, ENOMEM when it was PID 1 and ended
/// just now: a namespace without a PID 1 takes no process. [`Ended`](step01_uts::program::Ended), when this
/// process was asked to end before the command ran: the container's processes can hold the start up. None of
/// these leaves a child behind.
pub fn join(
    pidfd: &OwnedFd,
    namespaces: CloneFlags,
    body: impl Fn() -> Result<Infallible>,
) -> Result<Child> {
    // ANCHOR_END: join
    // ANCHOR: exercise_join
    let (news, birth) = (ErrorPipe::new()?, Birth::new()?);
    signals::hold()?;
    let Some(between) = call!(clone3(CloneFlags::empty()))? else {
        news.report(|| {
            hide()?;
            forget_environment()?;
            call!(setns(pidfd, namespaces))?;
            match call!(clone3(CloneFlags::CLONE_PARENT))? {
                Some(child) => birth.announce(&child),
                None => body(),
            }
        })
    };
    // The pidfd tells, and not SIGCHLD, which may come from the child, too.
    wait_for_end(&between.pidfd, None)?;
    reap(Some(between.pid))?;
    match birth.child()? {
        Some(child) => {
            let outcome = news.outcome_or_end(&child);
            outcome.map(|()| child)
        }
        None => news
            .outcome()
            .and_then(|()| bail!("it was killed on the way in")),
    }
    // ANCHOR_END: exercise_join
}

// ANCHOR: Prison
/// What holds a container's processes, besides its namespaces.
#[derive(Debug)]
pub struct Prison {
    /// The path and the file of each control group by which a process joins the group. The file was opened on the host.
    pub groups: Vec<(PathBuf, File)>,
    /// What each process may use up.
    pub rlimits: Vec<Ulimit>,
}
// ANCHOR_END: Prison

// ANCHOR: same_prison
/// Confines the calling process, which has joined a container, like the processes that were born there: to
/// the container's control groups, to its limits, and to what a process may do according to the [`Process`]
/// that `make_ready` returns.
///
/// The order is that of a container's own start. Control groups come first, all of them: what `make_ready` does
/// in there is on the container's account, and a device that `make_ready` is led to isn't opened. Limits come
/// after `make_ready`, which takes over those of PID 1 and needs files itself. What the process may do comes
/// last: without CAP_SYS_RESOURCE no limit can be raised any more, and a filter may refuse setrlimit(2). See
/// cgroups(7), and `confine` of step 6.
///
/// # Errors
/// The first step that fails, `make_ready` among them, is the last one, and its error is returned: nothing runs
/// half confined.
pub fn same_prison(prison: &Prison, make_ready: impl FnOnce() -> Result<Process>) -> Result<()> {
    // ANCHOR_END: same_prison
    // ANCHOR: exercise_same_prison
    for (path, mut group) in prison.groups.iter().map(|(path, file)| (path, file)) {
        // "0" stands for the process that writes it.
        let joined = group.write_all(b"0");
        joined.with_context(|| format!("0 to {}", path.display()))?;
    }
    let process = make_ready()?;
    set_rlimits(&prison.rlimits)?;
    confine(&process)
    // ANCHOR_END: exercise_same_prison
}

// ANCHOR: close_behind
/// Closes every directory that is open here, above the three standard descriptors, and makes `workdir` the
/// working directory. All other descriptors stay open, and nothing else changes.
///
/// A descriptor is a door: while one of the host's directories is open, `/proc/self/fd/9` is a way to it, and
/// the container may choose `workdir`. Through such a door containers have broken out of their runtimes more
/// than once. So the doors are closed first, then the working directory changes, and then a check tells
/// whether it is in the container. See proc_pid_fd(5).
///
/// # Errors
/// What is open can't be told; `workdir` can't be entered, or isn't in the container.
pub fn close_behind(workdir: &str) -> Result<()> {
    // ANCHOR_END: close_behind
    // ANCHOR: exercise_close_behind
    for descriptor in open_descriptors()? {
        if descriptor > libc::STDERR_FILENO && is_directory(descriptor)? {
            call!(close(descriptor))?;
        }
    }
    enter_workdir(workdir)
    // ANCHOR_END: exercise_close_behind
}

// ANCHOR: is_directory
/// Whether a directory is open as `descriptor`.
pub fn is_directory(descriptor: RawFd) -> Result<bool> {
    // SAFETY: the descriptor is only borrowed for this call.
    let file = unsafe { BorrowedFd::borrow_raw(descriptor) };
    let kind = SFlag::from_bits_truncate(fstat(file)?.st_mode) & SFlag::S_IFMT;
    Ok(kind == SFlag::S_IFDIR)
}
// ANCHOR_END: is_directory

// ANCHOR: namespaces_of
/// The namespaces to enter to be where the process `pid` is: all of [`NAMESPACES`], and the user namespace if
/// that isn't ours. A process can't enter the user namespace that it is in: user_namespaces(7).
pub fn namespaces_of(pid: i32) -> Result<CloneFlags> {
    let user = |whose: &str| fs::read_link(format!("/proc/{whose}/ns/user"));
    let (ours, theirs) = (user("self")?, user(&pid.to_string())?);
    Ok(match ours == theirs {
        true => NAMESPACES,
        false => NAMESPACES | CloneFlags::CLONE_NEWUSER,
    })
}
// ANCHOR_END: namespaces_of

//! # Step 10: looking in from outside
//!
//! A container that runs can be joined: another process enters its namespaces, all in one call, and from
//! then on sees what those inside see ([`join`]). But namespaces aren't the container. Whoever only enters
//! them has all of root's capabilities, no filter, the host's limits and environment: a door without a lock.
//! What confines PID 1 has to be put on once more ([`same_prison`]), and nothing of the host may be
//! left open behind ([`close_behind`]).
//!
//! [`exec`] is the command that does all three. [`stats`], [`top`], [`diff`] and [`cp`] look in without
//! entering.

pub mod copy;
pub mod cp;
pub mod diff;
pub mod exec;
pub mod stats;
pub mod top;

use anyhow::{Context, Result};
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::close;
use std::convert::Infallible;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use step01_uts::call;
use step02_pid::{Child, spawn};
use step04_pivot_root::enter_workdir;
use step06_caps::{Process, confine};
use step07_cgroups::rlimits::{Ulimit, set_rlimits};
use step09_detach::open_descriptors;

/// All namespaces of a container of ours.
pub const NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWUTS
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWNS)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWNET)
    .union(CloneFlags::CLONE_NEWCGROUP);

// ANCHOR: join
/// Starts `body` as a process in `namespaces` of the process that `pidfd` stands for, and returns when it has
/// become its command. The calling process itself stays where it was.
///
/// With a pidfd `setns` enters several namespaces at once: all of them or none, and always of this process,
/// never of a later one with its number. One of them it doesn't enter: a process has its PID namespace for
/// life, and only the children made from now on are born in the other. See setns(2), pid_namespaces(7).
///
/// # Errors
/// [`Refused`](step01_uts::Refused): ESRCH when the process has ended, ENOMEM when it was PID 1 and ended
/// just now: a namespace without one takes nobody.
pub fn join(
    pidfd: &OwnedFd,
    namespaces: CloneFlags,
    body: impl Fn() -> Result<Infallible>,
) -> Result<Child> {
    // ANCHOR_END: join
    // ANCHOR: exercise_join
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let home = call!(open("/proc/self/ns/mnt", flags, Mode::empty()))?;
    call!(setns(pidfd, namespaces))?;
    let child = spawn(CloneFlags::empty(), || {
        // The way home is ours alone.
        call!(close(home.as_raw_fd()))?;
        body()
    });
    // We go on outside, where /proc knows us.
    call!(setns(&home, CloneFlags::CLONE_NEWNS))?;
    child
    // ANCHOR_END: exercise_join
}

// ANCHOR: Prison
/// What holds a container's processes, besides its namespaces.
#[derive(Debug)]
pub struct Prison {
    /// Of each of its control groups, the path of the file by which one joins, and that file, which was
    /// opened on the host.
    pub groups: Vec<(PathBuf, File)>,
    /// What each process may use up.
    pub rlimits: Vec<Ulimit>,
}
// ANCHOR_END: Prison

// ANCHOR: same_prison
/// Confines the calling process, which has joined a container, as those that were born there: into its
/// control groups, to its limits, and to what the process may do that `make_ready` returns.
///
/// The order is that of a container's own start. Control groups come first: what `make_ready` does in there, it
/// does on the container's account, and a device that it is led to isn't opened. See cgroups(7), and `confine` of
/// step 6.
pub fn same_prison(prison: &Prison, make_ready: impl FnOnce() -> Result<Process>) -> Result<()> {
    // ANCHOR_END: same_prison
    // ANCHOR: exercise_same_prison
    for (path, mut group) in prison.groups.iter().map(|(path, file)| (path, file)) {
        // "0" stands for whoever writes it.
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
/// working directory.
///
/// A descriptor is a door: while one of the host's directories is open, `/proc/self/fd/9` is a way to it,
/// and the container may choose `workdir`. Through such a door containers have broken out of their runtimes
/// more than once. So first the doors are closed, then the step is taken, and then a look tells where one is.
/// See proc_pid_fd(5).
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

/// Whether a directory is open as `descriptor`.
pub fn is_directory(descriptor: RawFd) -> Result<bool> {
    // SAFETY: it is only borrowed for this call.
    let file = unsafe { BorrowedFd::borrow_raw(descriptor) };
    let kind = SFlag::from_bits_truncate(fstat(file)?.st_mode) & SFlag::S_IFMT;
    Ok(kind == SFlag::S_IFDIR)
}

/// The namespaces that are to be entered to be where the process `pid` is: all of [`NAMESPACES`], and the user
/// namespace if that is another. One's own can't be entered: user_namespaces(7).
pub fn namespaces_of(pid: i32) -> Result<CloneFlags> {
    let user = |whose: &str| fs::read_link(format!("/proc/{whose}/ns/user"));
    let (ours, theirs) = (user("self")?, user(&pid.to_string())?);
    Ok(match ours == theirs {
        true => NAMESPACES,
        false => NAMESPACES | CloneFlags::CLONE_NEWUSER,
    })
}

//! # Step 2: a process tree of its own
//!
//! Creating a PID namespace isn't entering it: only a *child* of the creator is born inside, as
//! PID 1. So from here on a container has two halves, and [`spawn`] is where they part: the parent
//! waits outside ([`Child::wait`]), the child becomes the command. Between them runs a pipe that
//! closes itself when the command starts ([`ErrorPipe`]).
//!
//! PID 1 has duties that no other process has; [`init`] fulfils them for a command that doesn't.
//! Which signals the parent passes on is told in [`signals`].

pub mod birth;
pub mod child;
pub mod gate;
pub mod hidden;
pub mod report;
pub mod signals;
pub mod status;

use anyhow::{Result, anyhow};
use hidden::{forget_environment, hide};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::CloneFlags;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitPidFlag;
use nix::unistd::{ForkResult, Pid, pipe2};
use report::Report;
use signals::Signals;
use std::convert::Infallible;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::panic;
use std::sync::OnceLock;
use step01_uts::{CloseRange, call, close_range};

// ANCHOR: spawn
/// Starts `body` as the first process of new namespaces, and returns when it has become its
/// command: PID 1, when CLONE_NEWPID is among them.
///
/// The child is a copy of the calling process, of its memory and of its one thread, so the caller
/// mustn't have other threads. It never comes back into the caller's code: `body` ends in an
/// `execve`, or in a failure that `ErrorPipe::report` brings home. Whether it dies when the caller
/// dies is for `body` to say ([`die_with_parent`]). Signals are held back before there is a child
/// ([`signals::hold`]), so that none is lost. See clone(2), pid_namespaces(7).
///
/// # Errors
/// [`Refused`](step01_uts::Refused) when the kernel makes no such child, and whatever error `body` returned or panic it
/// ended in. Then the child has ended and is reaped.
pub fn spawn(namespaces: CloneFlags, body: impl Fn() -> Result<Infallible>) -> Result<Child> {
    // ANCHOR_END: spawn
    // ANCHOR: exercise_spawn
    let pipe = ErrorPipe::new()?;
    signals::hold()?;
    match call!(clone3(namespaces))? {
        Some(child) => match pipe.outcome() {
            Ok(()) => Ok(child),
            Err(error) => {
                child.wait()?;
                Err(error)
            }
        },
        None => pipe.report(body),
    }
    // ANCHOR_END: exercise_spawn
}

// ANCHOR: Child
/// A process that [`spawn`] started.
pub struct Child {
    /// Its process ID as the parent sees it; the child sees 1.
    pub pid: Pid,
    /// A descriptor that stands for this process and never for a later one with the same number.
    /// See pidfd_open(2).
    pub pidfd: OwnedFd,
}
// ANCHOR_END: Child

// ANCHOR: clone3
/// Copies the calling process into new `namespaces`; with none this is fork(2). The parent gets the
/// child, the child gets `None`. With CLONE_PARENT the new process is a child of our own parent.
/// See clone(2).
pub fn clone3(namespaces: CloneFlags) -> nix::Result<Option<Child>> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: clone_args is plain numbers, for which zero means "not used".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = (namespaces.bits() | libc::CLONE_PIDFD) as u64;
    args.pidfd = &raw mut pidfd as u64;
    if !namespaces.contains(CloneFlags::CLONE_PARENT) {
        args.exit_signal = libc::SIGCHLD as u64;
    }
    // SAFETY: without CLONE_VM the child has its own copy of our memory and goes on here, as after
    // fork. The kernel writes one int to `pidfd`, in the parent's copy.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of_val(&args)) };
    match Errno::result(pid)? {
        0 => Ok(None),
        pid => Ok(Some(Child {
            pid: Pid::from_raw(pid as i32),
            // SAFETY: the kernel has just opened this descriptor for us.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        })),
    }
}
// ANCHOR_END: clone3

impl Child {
    // ANCHOR: wait
    /// Waits until the child has ended and passes signals on to it meanwhile: [`signals`] tells
    /// which. Returns its exit code, as [`reap`] has it.
    pub fn wait(&self) -> Result<u8> {
        let mut signals = Signals::new()?;
        loop {
            let signal = signals.receive()?;
            if signal.number() != Signal::SIGCHLD as i32 {
                signals.forward(&signal, self.pid)?;
                signals.insist(&signal, self.pid)?;
            } else if let Some((_, code)) = reap(Some(self.pid))? {
                return Ok(code);
            }
        }
    }
    // ANCHOR_END: wait
}

// ANCHOR: reap
/// Takes the exit code of a child that has ended: of the child `pid`, or of any with `None`. There
/// is nothing to take while all live. Until somebody takes it an ended process stays, a zombie.
///
/// The code is the child's own when it exited, and 128+N when signal N killed it, as shells have
/// it. See waitpid(2).
///
/// # Errors
/// [`Refused`](step01_uts::Refused): ECHILD when `pid` is no child of the caller's, or was reaped already.
pub fn reap(pid: Option<Pid>) -> Result<Option<(Pid, u8)>> {
    // ANCHOR_END: reap
    // ANCHOR: exercise_reap
    let any = Pid::from_raw(-1);
    let (ended, status) = match call!(waitpid(pid.unwrap_or(any), WaitPidFlag::WNOHANG)) {
        Ok((ended, _)) if ended.as_raw() == 0 => return Ok(None),
        Err(refused) if refused.errno() == Errno::ECHILD && pid.is_none() => return Ok(None),
        outcome => outcome?,
    };
    let code = if libc::WIFSIGNALED(status) {
        128 + libc::WTERMSIG(status)
    } else {
        libc::WEXITSTATUS(status)
    };
    Ok(Some((ended, code as u8)))
    // ANCHOR_END: exercise_reap
}

/// waitpid(2) itself: nix's function has no place for a child that a real-time signal killed.
fn waitpid(pid: Pid, options: WaitPidFlag) -> nix::Result<(Pid, i32)> {
    let mut status = 0;
    // SAFETY: the kernel writes one int to `status`.
    let ended = unsafe { libc::waitpid(pid.as_raw(), &raw mut status, options.bits()) };
    Ok((Pid::from_raw(Errno::result(ended)?), status))
}

// ANCHOR: ErrorPipe
/// How the child says that it failed: a pipe whose two ends are close-on-exec.
///
/// The child holds the writing end. When `execve` succeeds the kernel closes it, and the parent
/// reads end-of-file. Nothing to read *is* the news that all went well.
pub struct ErrorPipe {
    reader: File,
    writer: File,
}
// ANCHOR_END: ErrorPipe

impl ErrorPipe {
    // ANCHOR: new
    /// A pipe for one child; make it before the child.
    pub fn new() -> Result<ErrorPipe> {
        let (reader, writer) = call!(pipe2(OFlag::O_CLOEXEC))?;
        Ok(ErrorPipe {
            reader: reader.into(),
            writer: writer.into(),
        })
    }
    // ANCHOR_END: new

    // ANCHOR: outcome
    /// The parent's half: waits until the child has become its command, or has failed.
    ///
    /// # Errors
    /// The child's own error, with its errno. What can't be read as a report is an error, too: only a pipe that ends
    /// with nothing in it is success.
    pub fn outcome(self) -> Result<()> {
        // ANCHOR_END: outcome
        // ANCHOR: exercise_outcome
        // As long as we hold a writing end ourselves, there is no end-of-file.
        drop(self.writer);
        let mut text = Vec::new();
        (&self.reader).read_to_end(&mut text)?;
        if text.is_empty() {
            return Ok(());
        }
        Err(serde_json::from_slice::<Report>(&text)?.into_error())
        // ANCHOR_END: exercise_outcome
    }

    // ANCHOR: report
    /// The child's half: runs `body`, and leaves only by becoming its command or by `_exit`.
    ///
    /// The child is a copy of the parent. If the child unwound or returned, it would run the rest
    /// of the parent's life a second time, and each `Drop` on the way would take down what is the
    /// parent's. So a panic is reported from the hook, before anything unwinds.
    pub fn report(self, body: impl Fn() -> Result<Infallible>) -> ! {
        drop(self.reader);
        let writer = WRITER.get_or_init(|| self.writer);
        panic::set_hook(Box::new(|panic| {
            Report::from(&anyhow!("{panic}")).send(writer);
            leave(EXIT_FAILURE);
        }));

        let Err(error) = body();
        Report::from(&error).send(writer);
        leave(EXIT_FAILURE)
    }
    // ANCHOR_END: report
}

/// The pipe's writing end, set only in the child, for as long as the child isn't its command.
static WRITER: OnceLock<File> = OnceLock::new();

/// The child's exit status after a failure that it has reported.
const EXIT_FAILURE: u8 = 125;

/// Ends this process and nothing else: no destructor, no exit handler, no buffer of the parent's.
/// See _exit(2).
pub fn leave(code: u8) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code.into()) }
}

/// Asks the kernel for SIGKILL when the parent dies, so that no container outlives its caller. A child
/// says this first of all, in a program that wants it so.
///
/// The kernel forgets this request when the process changes its user, so a process that does asks
/// again (step 6). The request is also forgotten at an `execve` of a set-user-ID or set-group-ID
/// program: such a command needs [`init`] before it, until step 6 does away with such programs
/// (no_new_privs). See PR_SET_PDEATHSIG(2const).
pub fn die_with_parent() -> Result<()> {
    call!(set_pdeathsig(Signal::SIGKILL))?;
    // For a parent that died before this call no signal comes. Then nobody holds the pipe's reading
    // end any more, and poll says so.
    let Some(pipe) = WRITER.get() else {
        return Ok(());
    };
    let mut writer = [PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)];
    poll(&mut writer, PollTimeout::ZERO)?;
    match writer[0].revents() {
        Some(events) if events.contains(PollFlags::POLLERR) => leave(EXIT_FAILURE),
        _ => Ok(()),
    }
}

/// Copies the calling process. The parent gets the child's process ID, the child gets `None`.
///
/// The child is made by clone, not by clone3: a seccomp filter can look into the arguments of clone, and
/// not into the structure that clone3 points to, so Docker's filter refuses clone3 (step 6). See fork(2).
pub fn fork() -> nix::Result<Option<Pid>> {
    // SAFETY: there are no other threads, so no lock of theirs stays locked in the copy.
    Ok(match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Some(child),
        ForkResult::Child => None,
    })
}

// ANCHOR: init
/// Splits off a child that goes on to become the command, while the caller stays behind as a good
/// PID 1: it passes on the signals it gets, takes the exit code of every orphan, and ends with the
/// command's own exit code. The kernel then kills whoever is left in the namespace.
///
/// Returns in the child only. A PID 1 inherits every process whose parent has died, and a signal
/// that it has no handler for doesn't reach it: most commands were written for neither. See
/// pid_namespaces(7).
///
/// PID 1 never calls `execve`, so it closes each descriptor above 2 that it brought along; the child keeps them. (That
/// PID 1 also hides what it knows of the host, by [`hide`] and [`forget_environment`], is no part of the exercise.)
pub fn init() -> Result<()> {
    // ANCHOR_END: init
    // ANCHOR: exercise_init
    // First, before there is a command that could look.
    hide()?;
    let Some(command) = call!(fork())? else {
        return Ok(());
    };
    forget_environment()?;
    // The error pipe is closed too: it has to close when the command starts, and the command is in the
    // child. From here on only the standard descriptors are left, so a `--log FILE` gets no more of PID 1.
    call!(close_range(3, CloseRange::Close))?;
    let mut signals = Signals::new()?;
    loop {
        let signal = signals.receive()?;
        if signal.number() != Signal::SIGCHLD as i32 {
            signals.forward(&signal, command)?;
            continue;
        }
        while let Some((pid, code)) = reap(None)? {
            if pid == command {
                leave(code);
            }
        }
    }
    // ANCHOR_END: exercise_init
}

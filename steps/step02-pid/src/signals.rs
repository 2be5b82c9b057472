//! Signals that somebody sends to us and means for the container.
//!
//! A signal is passed on, unless the terminal sent it: Ctrl-C reaches every process in the
//! terminal's foreground group, and the container is in it, so it would arrive twice. PID 1 is deaf
//! to a signal for which it has no handler; asked to end for the third time in vain, the container
//! is killed, and at once when the terminal has gone and nobody is left to ask.

use crate::status::StatusFile;
use anyhow::Result;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use nix::unistd::Pid;
use std::os::fd::{AsFd, BorrowedFd};
use std::thread::sleep;
use std::time::Duration;
use step01_uts::call;

/// Signals that keep their usual effect on us.
const OURS: [Signal; 13] = [
    // A fault of this program is this program's.
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGTRAP,
    Signal::SIGABRT,
    Signal::SIGSYS,
    // The shell stops and continues its jobs, and we are one.
    Signal::SIGTSTP,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGCONT,
    // About our own descriptors.
    Signal::SIGPIPE,
    Signal::SIGURG,
];

/// Signals that ask a process to end.
const REQUESTS: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT];

/// How often a process has to be asked before it is killed.
const PATIENCE: u8 = 3;

/// Signals that a shell ignores for a job in the background, and nohup(1) for a job that is to stay.
const MAYBE_IGNORED: [Signal; 3] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT];

/// Those that we take for the container, and SIGCHLD, which says that a child has ended.
fn taken() -> SigSet {
    let mut signals = SigSet::all();
    OURS.into_iter().for_each(|signal| signals.remove(signal));
    // Whoever has us ignore a signal means the container too.
    MAYBE_IGNORED
        .into_iter()
        .filter(|&signal| is_ignored(signal))
        .for_each(|signal| signals.remove(signal));
    signals
}

fn is_ignored(signal: Signal) -> bool {
    // SAFETY: an all-zero sigaction is a valid one, and a null new action only asks.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal as i32, std::ptr::null(), &raw mut action);
        action.sa_sigaction == libc::SIG_IGN
    }
}

/// Holds back, from here on, the signals that [`Signals`] takes. Call it before there is a child,
/// and none gets lost. The command starts with an empty mask again (`inherit_nothing` of step 1).
pub fn hold() -> Result<()> {
    // Were SIGCHLD ignored, the kernel would throw a child's exit code away.
    // SAFETY: SIG_DFL installs no handler.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl)? };
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&taken()), None)?;
    Ok(())
}

/// The signals held back, read one after the other. See signalfd(2).
pub struct Signals {
    descriptor: SignalFd,
    requests: [u8; REQUESTS.len()],
}

/// One signal, and who sent it.
pub struct Received(siginfo);

impl Received {
    /// Its number, a real-time signal's included.
    pub fn number(&self) -> i32 {
        self.0.ssi_signo as i32
    }

    /// Whether a terminal sent it, to every process of its foreground group.
    pub fn from_terminal(&self) -> bool {
        self.0.ssi_code == libc::SI_KERNEL
    }
}

impl AsFd for Signals {
    /// Readable when there is a signal to receive: poll(2).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Signals {
    /// Opens the queue of the signals that [`hold`] holds back.
    pub fn new() -> Result<Signals> {
        Ok(Signals {
            descriptor: SignalFd::with_flags(&taken(), SfdFlags::SFD_CLOEXEC)?,
            requests: [0; REQUESTS.len()],
        })
    }

    /// What poll(2) is given in place of an end that nobody wants to hear of now: nothing is asked of it. Of that end
    /// itself it would tell that it has hung up, whatever it is asked.
    pub fn idle(&self) -> PollFd<'_> {
        PollFd::new(self.as_fd(), PollFlags::empty())
    }

    /// Waits for the next signal.
    pub fn receive(&mut self) -> Result<Received> {
        next(&self.descriptor)
    }

    /// Passes `signal` on to the child `pid`, unless that one has it from the terminal already.
    pub fn forward(&self, signal: &Received, pid: Pid) -> Result<()> {
        match signal.from_terminal() {
            true => Ok(()),
            false => self.pass_on(signal.number(), pid),
        }
    }

    /// Passes the signal `number` on to the child `pid`, which is in no foreground group of ours (step 5).
    pub fn pass_on(&self, number: i32, pid: Pid) -> Result<()> {
        send(pid, number)
    }

    /// Tells the child `pid` that its terminal has gone, and kills it when it is deaf to that.
    pub fn hang_up(&self, pid: Pid) -> Result<()> {
        let hang_up = Signal::SIGHUP as i32;
        let signal = match is_deaf(pid, hang_up) {
            true => libc::SIGKILL,
            false => hang_up,
        };
        send(pid, signal)
    }

    /// Kills the child `pid` when it is deaf to `signal`, or stopped, and has been asked to end by it
    /// three times; or once, when the signal is the terminal's hang-up.
    ///
    /// With `init` before it the command isn't PID 1, hears, and is never killed so.
    pub fn insist(&mut self, signal: &Received, pid: Pid) -> Result<()> {
        let hung_up = signal.number() == Signal::SIGHUP as i32 && signal.from_terminal();
        self.ask(signal.number(), hung_up, pid)
    }

    /// As [`Signals::insist`], for a signal of which only the number is known, and whether a terminal has
    /// hung up.
    pub fn ask(&mut self, number: i32, hung_up: bool, pid: Pid) -> Result<()> {
        let request = REQUESTS
            .iter()
            .position(|&request| request as i32 == number);
        if (request.is_none() && !hung_up) || !(is_held_up(pid) || is_deaf(pid, number)) {
            return Ok(());
        }
        if let Some(which) = request {
            self.requests[which] += 1;
        }
        if hung_up || request.is_some_and(|which| self.requests[which] == PATIENCE) {
            call!(kill(pid, libc::SIGKILL))?;
        }
        Ok(())
    }
}

/// The signals that ask this process to end, of those that are held back.
pub struct Requests(SignalFd);

impl Requests {
    /// Opens their queue, and leaves those of all others as they are.
    pub fn new() -> Result<Requests> {
        let taken = taken();
        let asks = REQUESTS.into_iter().chain([Signal::SIGHUP]);
        let signals = asks.filter(|signal| taken.contains(*signal)).collect();
        Ok(Requests(SignalFd::with_flags(
            &signals,
            SfdFlags::SFD_CLOEXEC,
        )?))
    }

    /// Waits for the next one, and returns its number.
    pub fn receive(&self) -> Result<i32> {
        next(&self.0).map(|signal| signal.number())
    }
}

impl AsFd for Requests {
    /// Readable when there is one to receive.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits for the next signal of a queue.
fn next(queue: &SignalFd) -> Result<Received> {
    loop {
        match queue.read_signal() {
            Ok(Some(signal)) => return Ok(Received(signal)),
            Ok(None) | Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Sends the signal `number` to our child `pid`, which may have ended.
pub(crate) fn send(pid: Pid, number: i32) -> Result<()> {
    match call!(kill(pid, number)) {
        Err(refused) if refused.errno() != Errno::ESRCH => Err(refused.into()),
        _ => Ok(()),
    }
}

/// Sends the signal `number` to our child `pid`. Until we reap it nobody else gets that pid.
fn kill(pid: Pid, number: i32) -> nix::Result<()> {
    // SAFETY: takes two integers.
    Errno::result(unsafe { libc::kill(pid.as_raw(), number) }).map(drop)
}

/// Whether somebody has stopped the process, or traces it: then it handles nothing.
fn is_held_up(pid: Pid) -> bool {
    ['T', 't'].contains(&StatusFile::of(pid).state())
}

/// Whether the process neither handles the signal `number` nor holds it back, to read it as our
/// `init` does.
///
/// A shell holds everything back for a moment whenever it starts something, and is deaf all the same: only
/// who goes on doing so is reading.
fn is_deaf(pid: Pid, number: i32) -> bool {
    const LOOKS: u32 = 40;
    // Nor does somebody read who has no processor to do so: on a busy machine that takes its time.
    const MOST_LOOKS: u32 = 2000;
    let mut asleep = 0;
    for _ in 0..MOST_LOOKS {
        let status = StatusFile::of(pid);
        if status.has("SigCgt", number) {
            return false;
        }
        if !status.has("SigBlk", number) {
            return true;
        }
        asleep += u32::from(['S', ' '].contains(&status.state()));
        if asleep == LOOKS {
            break;
        }
        sleep(Duration::from_millis(1));
    }
    false
}

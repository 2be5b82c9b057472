//! Signals that are sent to us and meant for the container.
//!
//! A signal is passed on, unless the terminal sent it. Ctrl-C reaches every process in the
//! terminal's foreground group; the container is in that group, so the signal would arrive twice.
//!
//! PID 1 is *deaf* to a signal for which it has no handler: the kernel doesn't deliver it. A
//! container that was asked to end in vain is killed at the third request, and at once when its
//! terminal has gone, because then nobody is left to ask.

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
use step01_uts::program::Ended;

/// Signals that keep their usual effect on us.
const OURS: [Signal; 13] = [
    // A fault of this program concerns only this program.
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
    // These two are about our own descriptors.
    Signal::SIGPIPE,
    Signal::SIGURG,
];

/// Signals that ask a process to end.
const REQUESTS: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT];

/// How often a process has to be asked before it is killed.
const PATIENCE: u8 = 3;

/// Signals that we may be started to ignore: a shell does so to a background job, nohup(1) to a job that is to stay.
const MAYBE_IGNORED: [Signal; 3] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT];

/// The signals that we take for the container, and SIGCHLD, which says that a child has ended.
fn taken() -> SigSet {
    let mut signals = SigSet::all();
    OURS.into_iter().for_each(|signal| signals.remove(signal));
    // A signal that our caller has us ignore isn't meant for the container either.
    MAYBE_IGNORED
        .into_iter()
        .filter(|&signal| is_ignored(signal))
        .for_each(|signal| signals.remove(signal));
    signals
}

fn is_ignored(signal: Signal) -> bool {
    // SAFETY: an all-zero sigaction is a valid one, and with a null new action the call only reads.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal as i32, std::ptr::null(), &raw mut action);
        action.sa_sigaction == libc::SIG_IGN
    }
}

/// Holds back (blocks), from here on, the signals that [`Signals`] takes. Call it before there is a
/// child, so that no signal gets lost. The command starts with an empty mask again
/// (`inherit_nothing` of step 1).
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
    /// The signal's number, also that of a real-time signal.
    pub fn number(&self) -> i32 {
        self.0.ssi_signo as i32
    }

    /// Whether a terminal sent the signal, to every process of its foreground group.
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

    /// An entry for poll(2) that is never ready, in the place of a descriptor that isn't waited for now. The descriptor
    /// itself won't do: even if no event is asked for, poll reports that the other side has hung up.
    pub fn idle(&self) -> PollFd<'_> {
        PollFd::new(self.as_fd(), PollFlags::empty())
    }

    /// Waits for the next signal.
    pub fn receive(&mut self) -> Result<Received> {
        next(&self.descriptor)
    }

    /// Passes `signal` on to the child `pid`, unless the terminal has sent it to the child already.
    pub fn forward(&self, signal: &Received, pid: Pid) -> Result<()> {
        match signal.from_terminal() {
            true => Ok(()),
            false => self.pass_on(signal.number(), pid),
        }
    }

    /// Passes the signal `number` on to the child `pid`, whoever sent it:
    /// needed for a child that is in no foreground group of ours (step 5).
    pub fn pass_on(&self, number: i32, pid: Pid) -> Result<()> {
        send(pid, number)
    }

    /// Tells the child `pid` by SIGHUP that its terminal has gone, or kills it when it is deaf to SIGHUP.
    pub fn hang_up(&self, pid: Pid) -> Result<()> {
        let hang_up = Signal::SIGHUP as i32;
        let signal = match is_deaf(pid, hang_up) {
            true => libc::SIGKILL,
            false => hang_up,
        };
        send(pid, signal)
    }

    /// Kills the child `pid` when it is deaf to `signal`, or stopped, and this is the third time that `signal` asks it
    /// to end. A hang-up of the terminal kills such a child the first time.
    ///
    /// With `init` as PID 1 no child is killed for being deaf: `init` reads every signal, and the command isn't PID 1.
    pub fn insist(&mut self, signal: &Received, pid: Pid) -> Result<()> {
        let hung_up = signal.number() == Signal::SIGHUP as i32 && signal.from_terminal();
        self.ask(signal.number(), hung_up, pid)
    }

    /// Like [`Signals::insist`], where only the signal's `number` is known, and whether a terminal has hung up.
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

/// The held-back signals that ask this process to end, read one after the other.
pub struct Requests(SignalFd);

impl Requests {
    /// Opens the queue of these signals. All others stay in their own queue.
    pub fn new() -> Result<Requests> {
        let taken = taken();
        let asks = REQUESTS.into_iter().chain([Signal::SIGHUP]);
        let signals = asks.filter(|signal| taken.contains(*signal)).collect();
        Ok(Requests(SignalFd::with_flags(
            &signals,
            SfdFlags::SFD_CLOEXEC,
        )?))
    }

    /// Waits for the next of these signals, and returns its number.
    pub fn receive(&self) -> Result<i32> {
        next(&self.0).map(|signal| signal.number())
    }
}

impl AsFd for Requests {
    /// Readable when there is a signal to receive.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The end of a process that the signal `number` has asked to end before its command ran.
pub fn asked_to_end(number: i32) -> Ended {
    Ended {
        code: 128 + number as u8,
        text: "it was asked to end before the command ran".into(),
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

/// Sends the signal `number` to our child `pid`. No other process gets that pid until we reap the child.
fn kill(pid: Pid, number: i32) -> nix::Result<()> {
    // SAFETY: takes two integers.
    Errno::result(unsafe { libc::kill(pid.as_raw(), number) }).map(drop)
}

/// Whether the process is stopped, by a signal or by a tracer: then it handles nothing.
fn is_held_up(pid: Pid) -> bool {
    ['T', 't'].contains(&StatusFile::of(pid).state())
}

/// Whether the process is deaf to the signal `number`: has no handler for it,
/// and doesn't hold it back either, to read it as our `init` does.
///
/// A shell holds every signal back for a moment whenever it starts something, and is deaf all the same. So only a
/// process that goes on holding the signal back counts as one that reads it.
fn is_deaf(pid: Pid, number: i32) -> bool {
    const LOOKS: u32 = 40;
    // A process that waits for a processor isn't reading yet: on a busy machine the shell's moment takes longer.
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
        // Who has ended by it was not deaf to it.
        if ['Z', 'X'].contains(&status.state()) {
            return false;
        }
        asleep += u32::from(['S', ' '].contains(&status.state()));
        if asleep == LOOKS {
            break;
        }
        sleep(Duration::from_millis(1));
    }
    false
}

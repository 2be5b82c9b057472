//! Carrying bytes between the host's terminal and the container's, and signals to the container,
//! until it has ended.

use anyhow::Result;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::{read, write};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use step02_pid::signals::Signals;
use step02_pid::{Child, reap};

use crate::copy_size;

/// The carrier of bytes and signals between us and a container, while the container runs.
#[derive(Default)]
pub struct Relay {
    /// The pumps that carry the container's output to us.
    pub output: Vec<Pump>,
    /// The pump that carries our input to the container.
    pub input: Option<Pump>,
    /// The container's end of its terminal, when it has one. As long as we hold it open, a program that closes its own
    /// and opens it again later doesn't end the conversation.
    pub slave: Option<OwnedFd>,
    /// A terminal of ours, and the container's, which gets the same size.
    pub size: Option<(OwnedFd, Rc<OwnedFd>)>,
    /// How long the relay goes on when the child has ended.
    pub until: Until,
}

/// How long a relay goes on when the child has ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Until {
    /// Until no process has the other ends open any more. When PID 1 has ended, all processes have.
    #[default]
    AllHaveEnded,
    /// Until all output so far is carried: processes that the child started may go on.
    AllIsSaid,
}

/// Carries bytes from one descriptor to another. A pump holds no more than one buffer: a reader
/// that is slow makes the writer wait, as with a pipe.
pub struct Pump {
    from: Rc<OwnedFd>,
    to: Rc<OwnedFd>,
    buffer: Vec<u8>,
}

/// A quarter of what a pipe holds.
const BUFFER: usize = 16 * 1024;

impl Pump {
    /// Carries from `from` to `to`. The one of the two whose other end the container has must be non-blocking: the
    /// container needn't read, and may take back what it has written.
    pub fn new(from: Rc<OwnedFd>, to: Rc<OwnedFd>) -> Pump {
        let buffer = Vec::new();
        Pump { from, to, buffer }
    }

    /// What the pump waits for.
    fn waits_for(&self) -> PollFd<'_> {
        match self.buffer.is_empty() {
            true => PollFd::new(self.from.as_fd(), PollFlags::POLLIN),
            false => PollFd::new(self.to.as_fd(), PollFlags::POLLOUT),
        }
    }

    /// Reads, or writes a part of what was read, and says how the pump goes on. A turn never waits: when poll(2) says
    /// that a pipe can be written, it takes PIPE_BUF bytes at least.
    fn turn(&mut self) -> Flow {
        if !self.buffer.is_empty() {
            let part = self.buffer.len().min(libc::PIPE_BUF);
            return match write(&self.to, &self.buffer[..part]) {
                Ok(written) => {
                    self.buffer.drain(..written);
                    Flow::On
                }
                Err(Errno::EAGAIN | Errno::EINTR) => Flow::On,
                Err(_) => Flow::Refused,
            };
        }
        self.buffer.resize(BUFFER, 0);
        let got = read(&self.from, &mut self.buffer);
        self.buffer.truncate(got.unwrap_or(0));
        match got {
            Err(Errno::EAGAIN | Errno::EINTR) => Flow::On,
            // A pseudo-terminal whose last slave was closed answers EIO.
            Ok(0) | Err(_) => Flow::Ended,
            Ok(_) => Flow::On,
        }
    }
}

/// How a pump goes on.
#[derive(PartialEq)]
enum Flow {
    On,
    /// Nothing more will come.
    Ended,
    /// The reader takes nothing any more.
    Refused,
}

impl Relay {
    /// Carries until `child` has ended and its last output has arrived. Returns the child's exit code.
    ///
    /// The container is in a session of its own, which no key of our terminal reaches: each signal
    /// that we get is passed on, whoever sent it.
    pub fn run(mut self, child: &Child) -> Result<u8> {
        let mut signals = Signals::new()?;
        let mut ended = None;
        loop {
            if let (Some(code), true) = (ended, self.output.is_empty()) {
                return Ok(code);
            }
            let all_carried = self.output.iter().all(|pump| pump.buffer.is_empty());
            let last_look = ended.is_some() && self.until == Until::AllIsSaid && all_carried;
            let timeout = match last_look {
                true => PollTimeout::ZERO,
                false => PollTimeout::NONE,
            };
            let [signal, input, output @ ..] = &self.wait(&signals, timeout)?[..] else {
                unreachable!("the two of them are always there");
            };
            if let (Some(code), true) = (ended, last_look && !output.contains(&true)) {
                return Ok(code);
            }
            if self.carry(*input, output) == Flow::Refused {
                // The reader of our output has gone: the container shall know, by a hang-up or SIGPIPE.
                let terminal = std::mem::take(&mut self).slave;
                if terminal.is_some() {
                    signals.hang_up(child.pid)?;
                }
            }
            if !signal {
                continue;
            }
            let signal = signals.receive()?;
            if let Some(code) = ended {
                // A signal after the child's end: its sender doesn't want to wait for a slow reader any more.
                return Ok(code);
            }
            if signal.number() == Signal::SIGWINCH as i32 {
                self.resize();
                continue;
            }
            let is_news = signal.number() == Signal::SIGCHLD as i32;
            if let Some((_, code)) = reap(Some(child.pid))? {
                // The child writes nothing more: what is on its way is its last output.
                ended = Some(code);
                self.input = None;
                self.slave = None;
            } else if !is_news && child.has_ended(PollTimeout::ZERO)? {
                // A process in the container traces the child and has its exit code: nobody tells us.
                return Ok(128 + signal.number() as u8);
            } else if !is_news {
                signals.pass_on(signal.number(), child.pid)?;
                signals.insist(&signal, child.pid)?;
            }
        }
    }

    /// Waits until something can be done, and says what: receive a signal, carry the input, carry
    /// each of the outputs.
    fn wait(&self, signals: &Signals, timeout: PollTimeout) -> Result<Vec<bool>> {
        let input = self.input.as_ref();
        let mut polled = vec![
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            input.map_or(signals.idle(), Pump::waits_for),
        ];
        polled.extend(self.output.iter().map(Pump::waits_for));
        match poll(&mut polled, timeout) {
            Err(Errno::EINTR) => return Ok(vec![false; polled.len()]),
            outcome => outcome?,
        };
        Ok(polled.iter().map(|each| each.any() == Some(true)).collect())
    }

    fn carry(&mut self, input: bool, output: &[bool]) -> Flow {
        if input && self.input.as_mut().map(Pump::turn) != Some(Flow::On) {
            // Our end of the container's pipe closes with the pump, and the container reads end-of-file.
            self.input = None;
        }
        let mut ready = output.iter();
        let mut refused = false;
        self.output.retain_mut(|pump| {
            let flow = match ready.next() {
                Some(true) => pump.turn(),
                _ => Flow::On,
            };
            refused |= flow == Flow::Refused;
            flow == Flow::On
        });
        if refused { Flow::Refused } else { Flow::On }
    }

    fn resize(&self) {
        if let Some((ours, theirs)) = &self.size {
            let _ = copy_size(ours, theirs);
        }
    }
}

//! A process that a monitor serves, and the messages that wait for it.

use crate::message::{Ending, Message, send_now, send_with};
use anyhow::Error;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use step02_pid::report::Report;
use step04_pivot_root::lock::Lock;

/// A process that is attached to a container, or waits for its end.
pub(crate) struct Client {
    pub(crate) socket: OwnedFd,
    /// No other client ever has this number. A descriptor's number may be given out again.
    pub(crate) number: u64,
    /// Whether the client wants to see what is said.
    pub(crate) watches: bool,
    /// Whether the command's input ends with this client: it is the caller, which started the container, and stays.
    pub(crate) owns_input: bool,
    /// Messages that the client hasn't taken yet, each with the descriptors that go along.
    pub(crate) backlog: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    /// Whether the container is to go on when this client has gone.
    pub(super) holds_still: bool,
}

impl Client {
    /// The caller, who started the container, is number 0.
    pub(crate) fn new(socket: OwnedFd, number: u64) -> Client {
        let is_caller = number == 0;
        Client {
            socket,
            number,
            watches: is_caller,
            owns_input: is_caller,
            backlog: VecDeque::new(),
            holds_still: false,
        }
    }

    /// The events that the client waits for.
    pub(crate) fn waits_for(&self) -> PollFd<'_> {
        let mut events = PollFlags::POLLIN;
        events.set(PollFlags::POLLOUT, !self.backlog.is_empty());
        PollFd::new(self.socket.as_fd(), events)
    }

    /// Tells the client something, now or when it is ready; `false`: the client has gone.
    pub(crate) fn tell(&mut self, encoded: &[u8]) -> bool {
        self.hand(encoded, Vec::new())
    }

    /// As [`Client::tell`], with descriptors.
    pub(crate) fn hand(&mut self, encoded: &[u8], descriptors: Vec<OwnedFd>) -> bool {
        self.backlog.push_back((encoded.to_vec(), descriptors));
        self.flush()
    }

    /// Shows the client output of the container. The caller that started it in the foreground makes the command wait,
    /// as a pipe does. Any other client that lags behind is shown no more, and is told so instead.
    pub(super) fn show(&mut self, encoded: &[u8]) {
        if !self.owns_input && self.backlog.len() >= MOST_BEHIND {
            self.watches = false;
            self.tell(&Message::LeftBehind.encode());
        } else {
            self.tell(encoded);
        }
    }

    /// Whether the command waits for this client.
    pub(super) fn holds_back(&self) -> bool {
        self.owns_input && !self.backlog.is_empty()
    }

    /// Sends the messages that wait, as far as the client takes them; `false`: the client has gone.
    pub(crate) fn flush(&mut self) -> bool {
        while let Some((message, descriptors)) = self.backlog.front() {
            let sent = match descriptors.is_empty() {
                true => send_now(&self.socket, message),
                false => send_with(&self.socket, message, descriptors),
            };
            match sent {
                Ok(()) => drop(self.backlog.pop_front()),
                Err(Errno::EAGAIN) => return true,
                Err(Errno::EINTR) => continue,
                Err(_) => return false,
            }
        }
        true
    }
}

/// How many messages may wait for a client other than the caller, besides those in the socket.
const MOST_BEHIND: usize = 16;

/// Tells the caller that its container can't be started. The life is let go first: the caller removes the container
/// then.
pub(crate) fn tell_failure(mut to: Client, life: Lock, error: &Error) {
    drop(life);
    to.tell(&failure(error).encode());
}

fn failure(error: &Error) -> Message {
    Message::Ended(Ending {
        outcome: Err(Report::from(error).cut()),
        usage: None,
        left: None,
    })
}

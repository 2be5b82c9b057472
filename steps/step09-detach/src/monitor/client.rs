//! Somebody whom a monitor serves, and what waits for him.

use crate::container::lock::Lock;
use crate::message::{Ending, Message, send_now, send_with};
use anyhow::Error;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use step02_pid::report::Report;

/// Somebody who is attached, or waits.
pub(crate) struct Client {
    pub(crate) socket: OwnedFd,
    /// Nobody else ever has it, as its descriptor's number may.
    pub(crate) number: u64,
    /// Whether it wants to see what is said.
    pub(crate) watches: bool,
    /// Whether the command's input ends with it: it is who started the container, and stays.
    pub(crate) owns_input: bool,
    /// What it hasn't taken yet, each with the descriptors that go along.
    pub(crate) backlog: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    /// Whether the container is to go on when it has gone.
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

    /// What it waits for.
    pub(crate) fn waits_for(&self) -> PollFd<'_> {
        let mut events = PollFlags::POLLIN;
        events.set(PollFlags::POLLOUT, !self.backlog.is_empty());
        PollFd::new(self.socket.as_fd(), events)
    }

    /// Tells it something, now or when it is ready; `false`: it has gone.
    pub(crate) fn tell(&mut self, encoded: &[u8]) -> bool {
        self.hand(encoded, Vec::new())
    }

    /// The same, with descriptors.
    pub(crate) fn hand(&mut self, encoded: &[u8], descriptors: Vec<OwnedFd>) -> bool {
        self.backlog.push_back((encoded.to_vec(), descriptors));
        self.flush()
    }

    /// Shows it what the container has said. Who started it in the foreground makes the command wait, as a pipe does;
    /// anybody else who lags behind is left there, and told so in its place.
    pub(super) fn show(&mut self, encoded: &[u8]) {
        if !self.owns_input && self.backlog.len() >= MOST_BEHIND {
            self.watches = false;
            self.tell(&Message::LeftBehind.encode());
        } else {
            self.tell(encoded);
        }
    }

    /// Whether the command waits for it.
    pub(super) fn holds_back(&self) -> bool {
        self.owns_input && !self.backlog.is_empty()
    }

    /// Sends what waits, as far as it takes it; `false`: it has gone.
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

/// As many messages may wait for somebody who attached, besides those in the socket.
const MOST_BEHIND: usize = 16;

/// Tells who started a container that it can't be, and lets go of its life first: they remove it then.
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

//! What goes to and fro between a command and its clients: the command's output goes into the log and to the clients,
//! and their input and their signals go to the command.

use crate::container::log::OutputStream;
use crate::message::{LONGEST, Message, Rest, receive};
use crate::monitor::client::Client;
use crate::monitor::command::RunningCommand;
use crate::monitor::slim::slim_down;
use crate::monitor::{Monitor, Wish};
use anyhow::Result;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::socket::{SockFlag, accept4};
use nix::unistd::{read, write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;
use step02_pid::reap;
use step05_tty::set_size;
use step07_cgroups::cgroup::places::Groups;

/// What came of one turn.
pub(crate) enum Turn {
    Nothing,
    Something,
    /// A child may have ended.
    MayHaveEnded,
}

/// How long nothing has to happen, in milliseconds, before the monitor prepares for a long time. A command that ends
/// sooner isn't worth that.
const A_MOMENT: u8 = 100;

impl Monitor<'_> {
    /// Stays with the command until it has ended and the last of its output is written. Returns its exit code.
    pub(crate) fn stay_with(&mut self, mut command: RunningCommand) -> Result<u8> {
        let mut patience = PollTimeout::from(A_MOMENT);
        loop {
            match self.turn(&mut command, patience)? {
                Turn::Nothing => {
                    // The command will be here for a while.
                    slim_down();
                    patience = PollTimeout::NONE;
                    continue;
                }
                Turn::Something => continue,
                Turn::MayHaveEnded => {}
            }
            if let Some((_, code)) = reap(command.pid)? {
                (command.pid, command.input, command.slave) = (None, None, None);
                self.last_words(&mut command)?;
                return Ok(code);
            }
        }
    }

    /// Drops what was typed before the command was started again: nobody wants it. An end of the input lasts.
    pub(crate) fn forget_input(&mut self, command: &mut RunningCommand) {
        for (by, _) in std::mem::take(&mut self.typed) {
            self.tell_typist(by);
        }
        if self.input_ends {
            self.end_input(command);
        }
    }

    /// Carries the output that nobody has read yet. The command's processes are all gone, and there is no more to come.
    /// But a process outside may still hold the other end, and even write to it.
    fn last_words(&mut self, command: &mut RunningCommand) -> Result<()> {
        // The most that a pipe holds, /proc/sys/fs/pipe-max-size as it usually is.
        const TURNS: usize = 1024 * 1024 / LONGEST;
        for _ in 0..TURNS {
            let mut nothing_left = true;
            for which in 0..command.output.len() {
                let Some(output) = &command.output[which] else {
                    continue;
                };
                let mut polled = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
                if poll(&mut polled, PollTimeout::ZERO)? > 0 {
                    nothing_left = false;
                    // A client that reads slowly gets this output when all the rest is in order.
                    self.listen(which, command);
                }
            }
            if nothing_left {
                break;
            }
        }
        Ok(())
    }

    /// Waits until something can be done, and does it.
    pub(crate) fn turn(
        &mut self,
        command: &mut RunningCommand,
        timeout: PollTimeout,
    ) -> Result<Turn> {
        let nothing = PollFlags::empty();
        let rest = self.pace.rest();
        let is_behind = rest.is_some() || self.clients.iter().any(Client::holds_back);
        let idle = || self.signals.idle();
        let input = command.input.as_ref().filter(|_| !self.typed.is_empty());
        let mut polled = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.door.as_fd(), PollFlags::POLLIN),
            input.map_or_else(idle, |input| PollFd::new(input.as_fd(), PollFlags::POLLOUT)),
        ];
        for output in &command.output {
            // A caller that reads slowly makes the command wait, as a pipe does.
            let output = output.as_ref().filter(|_| !is_behind);
            polled.push(output.map_or_else(idle, |output| {
                PollFd::new(output.as_fd(), PollFlags::POLLIN)
            }));
        }
        polled.extend(self.clients.iter().map(Client::waits_for));
        let millis = |rest: Duration| PollTimeout::from(rest.as_millis() as u8 + 1);
        match poll(&mut polled, rest.map_or(timeout, millis)) {
            Err(Errno::EINTR) => return Ok(Turn::Something),
            Ok(0) if rest.is_some() => return Ok(Turn::Something),
            Ok(0) => return Ok(Turn::Nothing),
            polled => polled?,
        };
        let ready: Vec<PollFlags> = polled
            .iter()
            .map(|each| each.revents().unwrap_or(nothing))
            .collect();
        drop(polled);
        let [signal, door, input, output, error, clients @ ..] = &ready[..] else {
            unreachable!("five of them are always there");
        };
        self.serve_clients(clients, command);
        if !door.is_empty() {
            self.admit(Some(command));
        }
        if !input.is_empty() {
            self.type_on(command);
        }
        for (which, events) in [output, error].into_iter().enumerate() {
            if !events.is_empty() {
                self.listen(which, command);
            }
        }
        match signal.is_empty() {
            true => Ok(Turn::Something),
            false => self.obey(command),
        }
    }

    /// Handles a signal that was sent to this process. SIGCHLD is for the monitor; any other signal is meant for the
    /// container.
    fn obey(&mut self, command: &RunningCommand) -> Result<Turn> {
        let number = self.signals.receive()?.number();
        if number == Signal::SIGCHLD as i32 {
            return Ok(Turn::MayHaveEnded);
        }
        if number == Signal::SIGTERM as i32 {
            // The machine is going down.
            self.wish = self.wish.max(Wish::EndForNow);
        }
        if let Some(pid) = command.pid {
            self.signals.pass_on(number, pid)?;
        }
        Ok(Turn::Something)
    }

    /// Reads output of the command, writes it to the log, and shows it to clients.
    fn listen(&mut self, which: usize, command: &mut RunningCommand) {
        let Some(output) = &command.output[which] else {
            return;
        };
        let mut buffer = [0; LONGEST];
        match read(output, &mut buffer) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            // A pseudo-terminal whose last slave was closed answers EIO.
            Ok(0) | Err(_) => command.output[which] = None,
            Ok(length) => {
                let stream = [OutputStream::Output, OutputStream::Error][which];
                self.log.write(stream, &buffer[..length]);
                let said = Message::Output(stream, buffer[..length].to_vec()).encode();
                let watching = self.clients.iter_mut().filter(|client| client.watches);
                watching.for_each(|client| client.show(&said));
            }
        }
    }

    /// Writes what was typed, as far as the command takes it, and tells the client that typed it.
    fn type_on(&mut self, command: &mut RunningCommand) {
        let Some((by, bytes)) = self.typed.front_mut() else {
            return;
        };
        let written = match &command.input {
            Some(input) => write(input, bytes),
            None => Ok(bytes.len()),
        };
        match written {
            Ok(length) => drop(bytes.drain(..length)),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            // The command has closed its input: it reads no more, and needs no more.
            Err(_) => {
                bytes.clear();
                command.input = None;
            }
        }
        if bytes.is_empty() {
            let by = *by;
            self.typed.pop_front();
            if self.input_ends {
                self.end_input(command);
            }
            self.tell_typist(by);
        }
    }

    /// Lets in one of the clients that knock; `false`: there is none. A client that comes while `command` runs is told
    /// so. The others have heard that when it was news.
    pub(crate) fn admit(&mut self, command: Option<&RunningCommand>) -> bool {
        let socket = match accept4(self.door.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
            // SAFETY: the kernel has just opened this descriptor for us.
            Ok(socket) => unsafe { OwnedFd::from_raw_fd(socket) },
            // A client that knocks when there are no descriptors left is sent away: otherwise it would wait for ever.
            Err(Errno::EMFILE) if self.spare.take().is_some() => return self.admit(command),
            Err(_) => return false,
        };
        if self.spare.is_none() {
            drop(socket);
            self.spare = self.door.try_clone().ok();
            return true;
        }
        self.served += 1;
        let mut client = Client::new(socket, self.served);
        if command.is_some_and(|command| command.pid.is_some()) {
            client.tell(&Message::Started.encode());
        }
        self.clients.push(client);
        true
    }

    fn serve_clients(&mut self, ready: &[PollFlags], command: &mut RunningCommand) {
        let mut gone = Vec::new();
        for (position, events) in ready.iter().enumerate() {
            let asks = PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR;
            let stays = match events {
                events if events.contains(PollFlags::POLLOUT) => self.clients[position].flush(),
                events if events.intersects(asks) => self.serve(position, command),
                _ => true,
            };
            if !stays {
                gone.push(position);
            }
        }
        for position in gone.into_iter().rev() {
            let client = self.clients.remove(position);
            if client.owns_input {
                self.end_input(command);
            }
            if client.holds_still {
                // The client was killed, or its disk was full. Frozen processes can't help themselves.
                self.have_it_go_on();
            }
            self.looking
                .take_if(|looking| looking.client == client.number);
        }
    }

    /// Does what a client asks for; `false`: the client has gone, or its message makes no sense, and costs it the
    /// connection.
    fn serve(&mut self, position: usize, command: &mut RunningCommand) -> bool {
        let client = &mut self.clients[position];
        let mut buffer = [0; LONGEST + 1];
        let Ok(Some(message)) = receive(&client.socket, &mut buffer) else {
            return false;
        };
        let number = client.number;
        match message {
            Message::Attach => client.watches = true,
            Message::Wait => client.watches = false,
            // The client didn't wait for the answer to what it typed before.
            Message::Input(_) if self.typed.iter().any(|(by, _)| *by == number) => return false,
            Message::Input(bytes) => {
                self.typed.push_back((number, bytes));
                self.type_on(command);
            }
            // Only the caller's end of input is the command's. A client that attaches later may type again.
            Message::EndOfInput if !client.owns_input => {}
            Message::EndOfInput => self.end_input(command),
            Message::Size(rows, columns) => {
                self.size = Some((rows, columns));
                if let (Some(_), Some(master)) = (&command.slave, &command.output[0]) {
                    let _ = set_size(master, (rows, columns));
                }
            }
            Message::Signal(signal) if !(1..=libc::SIGRTMAX()).contains(&signal) => return false,
            Message::Signal(signal) => {
                client.tell(&Message::Heard.encode());
                let ends = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT];
                if ends.iter().any(|end| *end as i32 == signal) {
                    self.wish = self.wish.max(Wish::EndForNow);
                }
                if let Some(pid) = command.pid {
                    let sent = self.signals.pass_on(signal, pid);
                    return sent
                        .and_then(|()| self.signals.ask(signal, false, pid))
                        .is_ok();
                }
            }
            Message::Refused(stream) if client.owns_input => {
                // The command shall know, by a hang-up or SIGPIPE. Output that nobody reads isn't logged either.
                command.output[usize::from(stream == OutputStream::Error)] = None;
                if let (Some(_), Some(pid)) = (command.slave.take(), command.pid) {
                    return self.signals.hang_up(pid).is_ok();
                }
            }
            Message::Refused(_) => client.watches = false,
            Message::Detach => {
                client.owns_input = false;
                return false;
            }
            Message::End(rest) => {
                self.wish = match rest {
                    Rest::UntilBoot => Wish::EndForNow,
                    Rest::ForGood => Wish::EndForGood,
                };
                client.tell(&Message::Taken.encode());
            }
            Message::Looking => {
                // A client that reads its messages has these descriptors for a moment. In the queue of any other they
                // would stay.
                let looking = self
                    .looking
                    .as_mut()
                    .filter(|looking| looking.client == number);
                if let Some(sight) = looking.and_then(|looking| looking.sight.take()) {
                    return client.hand(&Message::Sight.encode(), sight.into_descriptors().into());
                }
            }
            Message::Looked => drop(self.looking.take_if(|looking| looking.client == number)),
            Message::Still | Message::GoesOn => {
                client.holds_still = matches!(message, Message::Still);
                client.tell(&Message::Taken.encode());
            }
            Message::Taken
            | Message::Heard
            | Message::LeftBehind
            | Message::Look(..)
            | Message::Sight
            | Message::Output(..)
            | Message::Started
            | Message::Restarting
            | Message::Ended(_) => return false,
        }
        true
    }

    fn have_it_go_on(&self) {
        let groups = Groups::of(&self.container.id);
        // An error is left to `unpause`, which meets the same one and reports it.
        let _ = groups.and_then(|groups| groups.freeze(false));
    }

    /// Notes that nothing more will be typed, and closes the input when all is written. A terminal has no end to close.
    fn end_input(&mut self, command: &mut RunningCommand) {
        self.input_ends = true;
        if command.slave.is_none() && self.typed.is_empty() {
            command.input = None;
        }
    }

    /// Tells a client that what it typed has been read.
    fn tell_typist(&mut self, number: u64) {
        self.tell(&Message::Taken, |client| client.number == number);
    }

    /// Sends a message to each client that `whom` chooses.
    pub(crate) fn tell(&mut self, message: &Message, whom: impl Fn(&Client) -> bool) {
        let mut those = self
            .clients
            .iter_mut()
            .filter(|client| whom(client))
            .peekable();
        if those.peek().is_none() {
            return;
        }
        let encoded = message.encode();
        // A client that has gone is noticed, with all that follows, when its socket says so.
        for client in those {
            client.tell(&encoded);
        }
    }
}

//! What goes to and fro between the caller's terminal and a container's monitor.

use crate::caller::connection::{Connection, REQUESTS};
use crate::caller::keys::{Keys, Watch};
use crate::container::log::OutputStream;
use crate::message::{Ending, LONGEST, Message, send_now};
use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::{read, write};
use std::io::{IsTerminal, stderr, stdin, stdout};
use std::os::fd::{AsFd, BorrowedFd};
use step02_pid::signals::{self, Signals};
use step05_tty::{raw_mode, size};

/// How a conversation ended.
#[derive(Debug)]
pub enum End {
    /// The container has ended.
    Ended(Ending),
    /// The caller has gone, and the container goes on.
    Detached,
    /// The caller has gone by a signal, and this is its exit code. The container goes on.
    Left(u8),
}

/// How the caller is attached to a container.
#[derive(Debug, Clone)]
pub struct Attachment {
    /// Whether the container gets what is typed.
    pub interactive: bool,
    /// Whether the container has a terminal.
    pub tty: bool,
    /// The keys that detach.
    pub detach_keys: Keys,
    /// Whether signals that ask the caller to end are passed on to the container.
    pub proxy: bool,
    /// Whether the caller wants to know in the end what the container used.
    pub stats: bool,
}

/// Connects the caller's terminal to the container, until one of the two goes.
///
/// # Errors
/// The monitor was killed, and the container with it.
pub fn attach(connection: Connection, attachment: &Attachment) -> Result<End> {
    signals::hold()?;
    let conversation = || Conversation::new(&connection, attachment)?.run();
    match attachment.tty && attachment.interactive && stdin().is_terminal() {
        true => raw_mode(stdin().as_fd(), conversation),
        false => conversation(),
    }
}

/// So many requests to end may be unheard before the caller leaves by itself.
const PATIENCE: u32 = 2;

struct Conversation<'a> {
    connection: &'a Connection,
    signals: Signals,
    /// Whether more may be typed.
    listening: bool,
    /// Whether the monitor is still busy with what was typed last.
    waiting: bool,
    watch: Option<Watch>,
    tty: bool,
    proxy: bool,
    /// Whether the caller was asked to end.
    asked: bool,
    /// How many requests to end the monitor hasn't answered yet.
    unheard: u32,
    /// What the container has said and nobody has read yet.
    pending: Option<(OutputStream, Vec<u8>)>,
    /// Streams that nobody reads any more.
    refused: Vec<OutputStream>,
    ending: Option<Ending>,
}

impl Conversation<'_> {
    fn new<'a>(connection: &'a Connection, to: &Attachment) -> Result<Conversation<'a>> {
        let keys = to.tty && stdin().is_terminal();
        let conversation = Conversation {
            connection,
            signals: Signals::new()?,
            listening: to.interactive,
            waiting: false,
            watch: keys.then(|| Watch::for_keys(&to.detach_keys)),
            tty: to.tty,
            proxy: to.proxy,
            asked: false,
            unheard: 0,
            pending: None,
            refused: Vec::new(),
            ending: None,
        };
        conversation.resize()?;
        Ok(conversation)
    }

    fn run(mut self) -> Result<End> {
        loop {
            if let Some(ending) = self.ending {
                return Ok(End::Ended(ending));
            }
            let [signal, typed, news, outlet] = self.wait()?;
            if signal {
                if let Some(end) = self.obey()? {
                    return Ok(end);
                }
            }
            if outlet {
                self.speak()?;
            }
            if news {
                self.hear()?;
            }
            if typed && self.type_on()? {
                self.tell(&Message::Detach);
                return Ok(End::Detached);
            }
        }
    }

    /// Waits until something can be done, and says what: a signal, something typed, news from the monitor, room for
    /// output that is pending.
    fn wait(&self) -> Result<[bool; 4]> {
        let (input, output, error) = (stdin(), stdout(), stderr());
        let outlet: BorrowedFd = match self.pending {
            Some((OutputStream::Error, _)) => error.as_fd(),
            _ => output.as_fd(),
        };
        let choose = |wanted, descriptor, events| match wanted {
            true => PollFd::new(descriptor, events),
            false => self.signals.idle(),
        };
        let listening = self.listening && !self.waiting;
        let hearing = self.pending.is_none();
        let mut polled = [
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            choose(listening, input.as_fd(), PollFlags::POLLIN),
            choose(hearing, self.connection.socket.as_fd(), PollFlags::POLLIN),
            choose(self.pending.is_some(), outlet, PollFlags::POLLOUT),
        ];
        match poll(&mut polled, PollTimeout::NONE) {
            Err(Errno::EINTR) => return Ok([false; 4]),
            polled => polled?,
        };
        Ok(polled.map(|each| each.any() == Some(true)))
    }

    /// Passes a signal on, or has the caller go: at a request to end that isn't passed on, or when its terminal has
    /// hung up.
    fn obey(&mut self) -> Result<Option<End>> {
        let signal = self.signals.receive()?;
        let number = signal.number();
        let request = REQUESTS.iter().any(|request| *request as i32 == number);
        if request && !self.proxy {
            return Ok(Some(End::Left(128 + number as u8)));
        }
        if let (true, Some((stream, _))) = (request && self.asked, &self.pending) {
            // A second request, and nobody reads: what is still to come on this stream is thrown away.
            self.refused.push(*stream);
            self.pending = None;
        }
        if request && self.unheard >= PATIENCE && self.connection.is_at_rest() {
            // The monitor doesn't even say that it has heard the requests before, and isn't about to.
            return Ok(Some(End::Left(128 + number as u8)));
        }
        self.asked |= request;
        if number == Signal::SIGWINCH as i32 {
            self.resize()?;
        } else if number == Signal::SIGHUP as i32 && signal.from_terminal() {
            self.tell(&Message::Detach);
            return Ok(Some(End::Detached));
        } else if number != Signal::SIGCHLD as i32 {
            self.tell(&Message::Signal(number));
            self.unheard += u32::from(request);
        }
        Ok(None)
    }

    fn resize(&self) -> Result<()> {
        if let (true, Ok((rows, columns))) = (self.tty, terminal_size()) {
            self.tell(&Message::Size(rows, columns));
        }
        Ok(())
    }

    /// Tells the monitor something, without waiting. The socket has room for hundreds of messages: where it is full,
    /// the monitor hears nothing any more. When the monitor has gone, the next reading of the socket says so.
    fn tell(&self, message: &Message) {
        let _ = send_now(&self.connection.socket, &message.encode());
    }

    /// Reads what was typed and passes it on; `true`: the keys that detach were among it.
    fn type_on(&mut self) -> Result<bool> {
        let mut buffer = [0; LONGEST];
        let got = match read(stdin(), &mut buffer) {
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(false),
            got => got.unwrap_or(0),
        };
        if got == 0 {
            self.listening = false;
            self.tell(&Message::EndOfInput);
            return Ok(false);
        }
        let (passed, detach) = match &mut self.watch {
            Some(watch) => watch.sift(&buffer[..got]),
            None => (buffer[..got].to_vec(), false),
        };
        if !passed.is_empty() {
            self.waiting = true;
            self.tell(&Message::Input(passed));
        }
        Ok(detach)
    }

    fn hear(&mut self) -> Result<()> {
        match self.connection.next()? {
            Some(Message::Output(stream, bytes)) if !self.refused.contains(&stream) => {
                self.pending = Some((stream, bytes));
            }
            Some(Message::Taken) => self.waiting = false,
            Some(Message::Heard) => self.unheard = 0,
            Some(Message::LeftBehind) => bail!(
                "this reader is too slow, and was left behind\nhelp: `logs -f` shows all of it, at any speed"
            ),
            Some(Message::Ended(ending)) => self.ending = Some(ending),
            Some(_) => {}
            None if !self.connection.admitted.get() => bail!(
                "the container's monitor lets nobody in: it has as many files open as it may, or was just killed\n\
                 help: somebody who is attached, or waits, has to leave"
            ),
            None => bail!(
                "the container's monitor was killed, and the container with it: how it ended nobody knows"
            ),
        }
        Ok(())
    }

    /// Writes output of the container, as much as can be written at once without waiting.
    fn speak(&mut self) -> Result<()> {
        let Some((stream, bytes)) = &mut self.pending else {
            return Ok(());
        };
        let part = &bytes[..bytes.len().min(libc::PIPE_BUF)];
        let written = match stream {
            OutputStream::Error => write(stderr(), part),
            _ => write(stdout(), part),
        };
        match written {
            Ok(length) => drop(bytes.drain(..length)),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => {
                self.refused.push(*stream);
                let refused = Message::Refused(*stream);
                let _ = send_now(&self.connection.socket, &refused.encode());
                bytes.clear();
            }
        }
        if bytes.is_empty() {
            self.pending = None;
        }
        Ok(())
    }
}

/// Rows and columns of the caller's terminal.
pub fn terminal_size() -> nix::Result<(u16, u16)> {
    size(stdin()).or_else(|_| size(stdout()))
}

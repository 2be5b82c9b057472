//! The caller's side: what goes to and fro between somebody's terminal and a container's monitor.

use crate::Stat;
use crate::container::log::Stream;
use crate::container::store::Container;
use crate::message::{Ending, LONGEST, Message, receive_with, send_all, send_now};
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{Shutdown, getsockopt, shutdown};
use nix::unistd::{getpid, read, write};
use std::cell::{Cell, RefCell};
use std::io::{IsTerminal, stderr, stdin, stdout};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use step01_uts::program::Ended;
use step02_pid::report::Report;
use step02_pid::signals::{self, Signals};
use step04_pivot_root::environment;
use step04_pivot_root::why::witness::{Question, Sight};
use step05_tty::{raw_mode, size};

/// Somebody's connection to a monitor.
pub struct Connection {
    socket: OwnedFd,
    /// Whether the monitor has said anything at all.
    admitted: Cell<bool>,
    /// The container, for who looks into it.
    container: Option<Container>,
    /// What its command came to, of which the monitor asks why; and what we have seen of the reason.
    question: RefCell<Option<(Result<u8, Report>, PathBuf)>>,
    seen: RefCell<Option<Report>>,
}

impl From<OwnedFd> for Connection {
    fn from(socket: OwnedFd) -> Connection {
        Connection {
            socket,
            admitted: Cell::new(false),
            container: None,
            question: RefCell::new(None),
            seen: RefCell::new(None),
        }
    }
}

/// What came of telling a monitor something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It has heard.
    Heard,
    /// It has gone.
    Gone,
    /// It says nothing, and does nothing.
    Silent,
}

/// Between two looks at a monitor that says nothing, in milliseconds.
const LOOK: u16 = 500;

/// So many looks at which it was at rest: it isn't about to answer.
const STILL: u32 = 40;

/// How a conversation ended.
#[derive(Debug)]
pub enum End {
    /// The container has ended.
    Ended(Ending),
    /// The caller has gone, and the container goes on.
    Detached,
    /// The same, by a signal, of which this is the exit code.
    Left(u8),
}

/// Who is attached, and to what.
#[derive(Debug, Clone)]
pub struct Attachment {
    /// Whether what is typed is wanted.
    pub interactive: bool,
    /// Whether the container has a terminal.
    pub tty: bool,
    /// The keys that detach.
    pub detach_keys: Keys,
    /// Whether signals that ask the caller to end are for the container.
    pub proxy: bool,
    /// Whether the caller wants to know in the end what the container used.
    pub stats: bool,
}

/// Bytes that a terminal sends for a sequence of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys(Vec<u8>);

impl Keys {
    /// Reads keys with commas between: `a`, or `ctrl-a`, or `ctrl-` and one of `@[\]^_`.
    pub fn parse(text: &str) -> Result<Keys, String> {
        let key = |text: &str| match (text.as_bytes(), text.strip_prefix("ctrl-")) {
            (&[byte], _) if byte.is_ascii() => Ok(byte),
            (_, Some(key)) => match *key.as_bytes() {
                [byte @ b'a'..=b'z'] => Ok(byte - b'a' + 1),
                [byte @ (b'@' | b'['..=b'_')] => Ok(byte - b'@'),
                _ => Err(format!("there is no key {text}")),
            },
            _ => Err(format!("{text:?} is no key: type a, or ctrl-a")),
        };
        text.split(',').map(key).collect::<Result<_, _>>().map(Keys)
    }
}

/// Finds the keys that detach in what is typed. What may be the beginning of them is held back.
struct Watch {
    keys: Vec<u8>,
    seen: usize,
}

impl Watch {
    /// What of `typed` is for the container; and whether the keys were in it.
    fn sift(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(typed.len());
        for byte in typed {
            if self.keys.get(self.seen) != Some(byte) {
                passed.extend_from_slice(&self.keys[..self.seen]);
                self.seen = 0;
            }
            if self.keys.get(self.seen) == Some(byte) {
                self.seen += 1;
                if self.seen == self.keys.len() {
                    return (passed, true);
                }
            } else {
                passed.push(*byte);
            }
        }
        (passed, false)
    }
}

/// Signals that ask a process to end.
const REQUESTS: [Signal; 4] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGQUIT,
    Signal::SIGHUP,
];

/// A report has a page or two.
const LONGEST_NEWS: usize = 64 * 1024;

impl Connection {
    /// That of whoever has just started a monitor. Waits until the command runs.
    ///
    /// # Errors
    /// It didn't start.
    pub(crate) fn started(socket: OwnedFd, container: &Container) -> Result<Connection> {
        let connection = Connection::from(socket).to(container);
        let news = loop {
            connection.wait_or_give_up()?;
            match connection.next()? {
                Some(Message::Looking | Message::Looked) => {}
                news => break news,
            }
        };
        match news {
            Some(Message::Started) => Ok(connection),
            Some(Message::Ended(ending)) => {
                // Until it is gone, and has let go of the container.
                while connection.next()?.is_some() {}
                match ending.outcome {
                    Err(report) => Err(report.into_error()),
                    Ok(code) => bail!("it ended with {code} before it began"),
                }
            }
            Some(other) => bail!("the monitor begins with {other:?}"),
            None => bail!("the container's monitor was killed before the command ran"),
        }
    }

    /// Waits until there is news. Whoever asks this process to end meanwhile doesn't want the container any more,
    /// and by the end of this connection its monitor knows.
    fn wait_or_give_up(&self) -> Result<()> {
        if !SigSet::thread_get_mask()?.contains(Signal::SIGTERM) {
            // Signals aren't held back: whoever asks ends us, and the socket says so.
            return Ok(());
        }
        let mut signals = Signals::new()?;
        loop {
            let mut polled = [
                PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut polled, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                polled => polled?,
            };
            let [news, signal] = polled.map(|each| each.any() == Some(true));
            if news {
                return Ok(());
            }
            let number = if signal {
                signals.receive()?.number()
            } else {
                0
            };
            if REQUESTS.iter().any(|request| *request as i32 == number) {
                // From here on its monitor can't tell us that it runs, and ends it.
                shutdown(self.socket.as_raw_fd(), Shutdown::Read)?;
                if let Some(Message::Started) = self.next()? {
                    // It has just told us.
                    self.ask(&Message::LetItEnd(true));
                    self.ask(&Message::Signal(Signal::SIGKILL as i32));
                }
                let text = "it was asked to end before the command ran".to_owned();
                let code = 128 + number as u8;
                return Err(Ended { code, text }.into());
            }
        }
    }

    /// That of somebody who comes later, and asks for something first.
    pub fn with(socket: OwnedFd, request: &Message) -> Connection {
        // Whether it has gone meanwhile, the first answer tells.
        let _ = send_all(&socket, request);
        socket.into()
    }

    /// The same connection, for somebody who may look why a command of `container` doesn't start.
    pub(crate) fn to(mut self, container: &Container) -> Connection {
        self.container = Some(container.clone());
        self
    }

    /// What the monitor says next; `None`: it has gone. Of what it asks of us it is enough that we have answered.
    fn next(&self) -> Result<Option<Message>> {
        let Some((message, descriptors)) = receive_with(&self.socket, &mut vec![0; LONGEST_NEWS])?
        else {
            return Ok(None);
        };
        self.admitted.set(true);
        match message {
            Message::Look(outcome, root) => {
                self.question.replace(Some((outcome, root)));
                self.ask(&Message::Looking);
                Ok(Some(Message::Looking))
            }
            Message::Sight => {
                if let Some((outcome, root)) = self.question.take() {
                    let outcome = outcome.map_err(Report::into_error);
                    self.seen.replace(self.look(outcome, &root, descriptors));
                }
                self.ask(&Message::Looked);
                Ok(Some(Message::Looked))
            }
            Message::Ended(mut ending) => {
                let seen = self
                    .seen
                    .take()
                    .filter(|seen| seen.explains(&ending.outcome));
                if let Some(report) = seen {
                    ending.outcome = Err(report);
                }
                Ok(Some(Message::Ended(ending)))
            }
            message => Ok(Some(message)),
        }
    }

    /// Looks why the command came to `outcome`; nothing, where nothing is to be seen.
    fn look(&self, outcome: Result<u8>, root: &Path, by: Vec<OwnedFd>) -> Option<Report> {
        let sight = Sight::of(by.try_into().ok()?);
        let record = self.container.as_ref()?.record().ok()?;
        let args = &record.arguments;
        let given = [args.tty.environment(), args.env.env.clone()].concat();
        let question = Question {
            root,
            command: &args.command[0],
            environment: &environment(record.hostname(), &given),
            workdir: &args.env.workdir,
        };
        question
            .answer(outcome, sight)
            .err()
            .as_ref()
            .map(Report::from)
    }

    /// Tells the monitor something, and waits until it has heard.
    pub fn insist(&self, message: &Message) -> Result<Answer> {
        match send_now(&self.socket, &message.encode()) {
            Ok(()) | Err(Errno::EAGAIN) => {}
            Err(_) => return Ok(Answer::Gone),
        }
        loop {
            if !self.answers()? {
                return Ok(Answer::Silent);
            }
            match self.next()? {
                Some(Message::Taken) => return Ok(Answer::Heard),
                Some(Message::Ended(_)) | None => return Ok(Answer::Gone),
                Some(_) => {}
            }
        }
    }

    /// Waits until the monitor says something; `false`: it neither does, nor does anything else. Then it will never
    /// answer: what wakes it up it has been told.
    pub fn answers(&self) -> Result<bool> {
        let monitor = self.monitor()?;
        let mut before = None;
        let mut still = 0;
        while still < STILL {
            let mut polled = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            match poll(&mut polled, PollTimeout::from(LOOK)) {
                Err(Errno::EINTR) => continue,
                Ok(0) => {}
                polled => return Ok(polled? > 0),
            }
            // One that waits for a processor, or for the disk, isn't at rest, and one that has gone is heard.
            let Ok(now) = Stat::of(monitor) else {
                return Ok(true);
            };
            let at_rest = matches!(now.state, 'S' | 'T' | 't') && before == Some(now.time);
            still = if at_rest { still + 1 } else { 0 };
            before = Some(now.time);
        }
        Ok(false)
    }

    /// Whether the monitor sleeps or was stopped, at this moment.
    fn is_at_rest(&self) -> bool {
        let stat = self.monitor().and_then(Stat::of);
        stat.is_ok_and(|stat| matches!(stat.state, 'S' | 'T' | 't'))
    }

    /// The monitor's process: who listened when this connection was made, SO_PEERCRED in unix(7). Whoever has started it
    /// made both ends, when it wasn't there yet; then its record says.
    pub fn monitor(&self) -> Result<i32> {
        let peer = getsockopt(&self.socket, PeerCredentials)?.pid();
        let Some(container) = self
            .container
            .as_ref()
            .filter(|_| peer == getpid().as_raw())
        else {
            return Ok(peer);
        };
        let monitor = container.record()?.state.monitor;
        Ok(monitor.context("its record names no monitor")?.pid)
    }

    /// Tells the monitor something, which it needn't answer.
    pub fn ask(&self, message: &Message) {
        // Whether it has gone, the next answer tells.
        let _ = send_all(&self.socket, message);
    }

    /// Goes, and the container goes on as if somebody were there.
    pub fn detach(self) {
        let _ = send_all(&self.socket, &Message::Detach);
    }

    /// Waits until something has become of the container: it runs, or it has ended, for a while or for good.
    pub fn wait_for_news(&self) -> Result<()> {
        loop {
            match self.next()? {
                Some(Message::Started | Message::Restarting | Message::Ended(_)) | None => {
                    return Ok(());
                }
                Some(_) => {}
            }
        }
    }

    /// Waits until the container has ended, whose processes are gone already; `false`: its monitor doesn't tell, and
    /// never will.
    pub fn winds_up(&self) -> Result<bool> {
        while self.answers()? {
            match self.next()? {
                Some(Message::Ended(_)) | None => return Ok(true),
                Some(_) => {}
            }
        }
        Ok(false)
    }

    /// Waits until the container has ended; `None`: its monitor didn't live to tell how.
    pub fn wait(&self) -> Result<Option<Ending>> {
        loop {
            match self.next()? {
                Some(Message::Ended(ending)) => return Ok(Some(ending)),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    /// Has the caller's terminal be the container's, until one of them goes.
    ///
    /// # Errors
    /// The monitor was killed, and the container with it.
    pub fn attach(self, attachment: &Attachment) -> Result<End> {
        signals::hold()?;
        let conversation = || Conversation::new(&self, attachment)?.run();
        match attachment.tty && attachment.interactive && stdin().is_terminal() {
            true => raw_mode(stdin().as_fd(), conversation),
            false => conversation(),
        }
    }
}

/// So many requests to end may be unheard before the caller leaves by himself.
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
    /// How many such requests the monitor hasn't answered yet.
    unheard: u32,
    /// What the container has said and nobody has read yet.
    pending: Option<(Stream, Vec<u8>)>,
    /// Streams that nobody reads any more.
    refused: Vec<Stream>,
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
            watch: keys.then(|| Watch {
                keys: to.detach_keys.0.clone(),
                seen: 0,
            }),
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

    /// Waits until something can be done, and says what: a signal, something typed, news from the monitor,
    /// room for what it said before.
    fn wait(&self) -> Result<[bool; 4]> {
        let (input, output, error) = (stdin(), stdout(), stderr());
        let outlet: BorrowedFd = match self.pending {
            Some((Stream::Error, _)) => error.as_fd(),
            _ => output.as_fd(),
        };
        let idle = self.signals.as_fd();
        let choose = |wanted, descriptor, events| match wanted {
            true => PollFd::new(descriptor, events),
            // What has hung up is always ready, whatever is asked of it.
            false => PollFd::new(idle, PollFlags::empty()),
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

    /// Passes a signal on, unless it has the caller go: one that isn't passed on, or the end of its terminal.
    fn obey(&mut self) -> Result<Option<End>> {
        let signal = self.signals.receive()?;
        let number = signal.number();
        let request = REQUESTS.iter().any(|request| *request as i32 == number);
        if request && !self.proxy {
            return Ok(Some(End::Left(128 + number as u8)));
        }
        if let (true, Some((stream, _))) = (request && self.asked, &self.pending) {
            // Asked once more, and nobody reads: what else is said to them is thrown away.
            self.refused.push(*stream);
            self.pending = None;
        }
        if request && self.unheard >= PATIENCE && self.connection.is_at_rest() {
            // The monitor doesn't even say that it has heard of those before, and isn't about to.
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

    /// Tells the monitor something, without waiting. There is room for hundreds of messages: where it is full, the
    /// monitor hears nothing any more. That it has gone, the socket says.
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

    /// Writes what the container has said, as much as can be written at once without waiting.
    fn speak(&mut self) -> Result<()> {
        let Some((stream, bytes)) = &mut self.pending else {
            return Ok(());
        };
        let part = &bytes[..bytes.len().min(libc::PIPE_BUF)];
        let written = match stream {
            Stream::Error => write(stderr(), part),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_by_name() {
        assert_eq!(Keys::parse("ctrl-p,ctrl-q"), Ok(Keys(vec![16, 17])));
        assert_eq!(Keys::parse("a,ctrl-@,ctrl-_"), Ok(Keys(vec![b'a', 0, 31])));
        for wrong in ["", "ctrl-", "ctrl-1", "ab", "ctrl-p,"] {
            assert!(Keys::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn keys_are_found_wherever_they_are_split() {
        let mut watch = Watch {
            keys: vec![16, 17],
            seen: 0,
        };
        assert_eq!(watch.sift(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(watch.sift(b"c"), (b"\x10c".to_vec(), false));
        assert_eq!(watch.sift(b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(watch.sift(b"\x11"), (vec![], true));
    }
}

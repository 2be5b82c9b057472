//! A connection to a container's monitor: requests and answers, and a look at what went wrong.

use crate::Stat;
use crate::container::Container;
use crate::message::{Ending, Message, Rest, receive_with, send_all, send_now};
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{Shutdown, getsockopt, shutdown};
use nix::unistd::getpid;
use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use step02_pid::report::Report;
use step02_pid::signals::{Signals, asked_to_end};
use step04_pivot_root::environment;
use step04_pivot_root::why::witness::{Question, Sight};

/// A command's outcome, and where the host has the files of its root.
type Asked = (Result<u8, Report>, Option<PathBuf>);

/// A client's connection to a monitor.
pub struct Connection {
    pub(super) socket: OwnedFd,
    /// Whether the monitor has said anything at all.
    pub(super) admitted: Cell<bool>,
    /// The container, for a look at why its command didn't start.
    container: Option<Container>,
    /// What the monitor asks why; and the reason that we have seen.
    asked: RefCell<Option<Asked>>,
    seen: RefCell<Option<Report>>,
}

impl From<OwnedFd> for Connection {
    fn from(socket: OwnedFd) -> Connection {
        Connection {
            socket,
            admitted: Cell::new(false),
            container: None,
            asked: RefCell::new(None),
            seen: RefCell::new(None),
        }
    }
}

/// What came of telling a monitor something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The monitor has heard.
    Heard,
    /// The monitor has gone.
    Gone,
    /// The monitor says nothing, and does nothing.
    Silent,
}

/// The time between two looks at a monitor that says nothing, in milliseconds.
const LOOK: u16 = 500;

/// After so many looks at which the monitor was at rest, it isn't about to answer.
const STILL: u32 = 40;

/// Signals that ask a process to end.
pub(super) const REQUESTS: [Signal; 4] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGQUIT,
    Signal::SIGHUP,
];

/// The size of the longest message: a report has a page or two.
const LONGEST_NEWS: usize = 64 * 1024;

impl Connection {
    /// The connection of a caller that has just started a monitor. Waits until the command runs.
    ///
    /// # Errors
    /// The command didn't start.
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
                // Waits until the monitor is gone, and has let go of the container.
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

    /// Waits until there is news. A signal that asks this process to end means that the container isn't wanted any
    /// more. The monitor learns that by the end of this connection.
    fn wait_or_give_up(&self) -> Result<()> {
        if !SigSet::thread_get_mask()?.contains(Signal::SIGTERM) {
            // Signals aren't held back: a request to end ends us, and the socket tells the monitor.
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
                // From here on the monitor can't tell us that the command runs, and ends it.
                shutdown(self.socket.as_raw_fd(), Shutdown::Read)?;
                if let Some(Message::Started) = self.next()? {
                    // The monitor has told us just before.
                    self.ask(&Message::End(Rest::ForGood));
                    self.ask(&Message::Signal(Signal::SIGKILL as i32));
                }
                return Err(asked_to_end(number).into());
            }
        }
    }

    /// The connection of a client that comes later, and asks for something first.
    pub fn with(socket: OwnedFd, request: &Message) -> Connection {
        // An error is left aside: the first answer tells whether the monitor has gone.
        let _ = send_all(&socket, request);
        socket.into()
    }

    /// The same connection, for a client that may look why the command of `container` doesn't start.
    pub(crate) fn to(mut self, container: &Container) -> Connection {
        self.container = Some(container.clone());
        self
    }

    /// The monitor's next message; `None`: the monitor has gone. A question of the monitor's is answered here already.
    pub(super) fn next(&self) -> Result<Option<Message>> {
        let Some((message, descriptors)) = receive_with(&self.socket, &mut vec![0; LONGEST_NEWS])?
        else {
            return Ok(None);
        };
        self.admitted.set(true);
        match message {
            Message::Look(outcome, host) => {
                self.asked.replace(Some((outcome, host)));
                self.ask(&Message::Looking);
                Ok(Some(Message::Looking))
            }
            Message::Sight => {
                if let Some((outcome, host)) = self.asked.take() {
                    let outcome = outcome.map_err(Report::into_error);
                    self.seen
                        .replace(self.look(outcome, host.as_deref(), descriptors));
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

    /// Looks why the command came to `outcome`; `None`: nothing is to be seen.
    fn look(&self, outcome: Result<u8>, host: Option<&Path>, by: Vec<OwnedFd>) -> Option<Report> {
        let sight = Sight::of(by.try_into().ok()?);
        let record = self.container.as_ref()?.record().ok()?;
        let plan = &record.plan;
        let question = Question {
            host,
            command: &plan.command()[0],
            environment: &environment(record.hostname(), &plan.variables()),
            workdir: plan.env.workdir(),
        };
        question
            .answer(outcome, sight)
            .err()
            .as_ref()
            .map(Report::from)
    }

    /// Tells the monitor something, and waits until the monitor has heard.
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

    /// Waits until the monitor says something; `false`: the monitor says nothing, and does nothing else. Then it will
    /// never answer, since the message that wakes it up has been sent.
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
            // A monitor that waits for a processor, or for the disk, isn't at rest. A monitor that has gone is noticed
            // when the socket is read.
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
    pub(super) fn is_at_rest(&self) -> bool {
        let stat = self.monitor().and_then(Stat::of);
        stat.is_ok_and(|stat| matches!(stat.state, 'S' | 'T' | 't'))
    }

    /// The monitor's process: the process that listened when this connection was made, SO_PEERCRED in unix(7). A caller
    /// that has started the monitor made both ends itself, before the monitor was there. Then the container's record
    /// says which process it is.
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

    /// Tells the monitor something that needs no answer.
    pub fn ask(&self, message: &Message) {
        // An error is left aside: the next answer tells whether the monitor has gone.
        let _ = send_all(&self.socket, message);
    }

    /// Leaves the container, which goes on as if somebody were there.
    pub fn detach(self) {
        let _ = send_all(&self.socket, &Message::Detach);
    }

    /// Waits until there is news of the container: it runs, or it has ended, for a while or for good.
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

    /// Waits until the monitor says that the container has ended, whose processes are gone already; `false`: the
    /// monitor doesn't, and never will.
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
}

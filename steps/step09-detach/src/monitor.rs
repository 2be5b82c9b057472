//! The process that stays with a container: it owns the terminal or the pipes, writes the log, serves those
//! who attach, reaps, notes the end, and starts the container again where that is asked for.
//!
//! There is one for each container, so it is small, and it sleeps in one poll(2) until something happens.
//! The container dies with it (`die_with_parent` of step 2), so that none is ever there without one.

use crate::client::Connection;
use crate::detach;
use crate::log::{Log, Stream};
use crate::message::{Ending, LONGEST, Message, ignore, open_door, receive, send_now};
use crate::record::{Phase, Time};
use crate::restart::{BackOff, Restart};
use crate::sealed;
use crate::slim::slim_down;
use crate::start::{Life, start};
use crate::store::{Container, Lock, Store};
use crate::{Identity, record::Record};
use anyhow::{Error, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_name;
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, accept4, socketpair};
use nix::unistd::{Pid, getpid, read, write};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::env;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::panic;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use step01_uts::call;
use step01_uts::narration::{self, Legacy};
use step01_uts::program::exit_code;
use step02_pid::report::Report;
use step02_pid::signals::{self, Signals};
use step02_pid::{Child, fork, leave, reap};
use step04_pivot_root::files::State;
use step05_tty::set_size;
use step05_tty::terminal::Ends;

/// Starts `container` with a monitor of its own, by the right of `life`, and returns when the command runs.
/// Whoever keeps the connection is attached; a terminal begins with `size`, in rows and columns.
///
/// The monitor is this program once more, in a process that has let go of the caller: it begins with none of
/// what the caller has in its memory, and in its environment.
///
/// # Errors
/// It didn't start.
pub fn launch(container: &Container, life: Lock, size: Option<(u16, u16)>) -> Result<Connection> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
    let errand = Errand {
        id: container.id.clone(),
        state: container.store().state.clone(),
        life: life.descriptor(),
        caller: theirs.as_raw_fd(),
        size,
        narration: narration::legacy(),
    };
    if call!(fork())?.is_some() {
        drop((theirs, life));
        return Connection::started(ours);
    }
    let Err(error) = errand.set_out();
    tell_failure(Client::new(theirs, true), &error);
    leave(libc::EXIT_FAILURE as u8)
}

/// What a monitor is to do, as its only argument.
#[derive(Debug, Serialize, Deserialize)]
struct Errand {
    id: String,
    state: PathBuf,
    /// The descriptor of the container's life.
    life: RawFd,
    /// That of the socket to who started it.
    caller: RawFd,
    size: Option<(u16, u16)>,
    narration: Option<Legacy>,
}

/// What a monitor is called, in place of a program's name.
const MONITOR: &CStr = c"ten-steps-monitor";

impl Errand {
    /// Becomes the monitor.
    fn set_out(&self) -> Result<Infallible> {
        let mut keep = vec![self.life, self.caller];
        keep.extend(self.narration.map(|narration| narration.descriptor));
        detach(&keep)?;
        for descriptor in keep {
            // SAFETY: it is open as long as this process is.
            let descriptor = unsafe { BorrowedFd::borrow_raw(descriptor) };
            fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        let words = [MONITOR.to_owned(), CString::new(serde_json::to_vec(self)?)?];
        sealed::execute(&words, &[])
    }
}

/// Is the monitor, when that is what this process was started as. Call it first of all.
pub fn be_monitor() {
    let mut words = env::args_os();
    if words
        .next()
        .is_none_or(|word| word.as_bytes() != MONITOR.to_bytes())
    {
        return;
    }
    // The container dies with this process, and the record tells no lie by that.
    panic::set_hook(Box::new(|_| leave(libc::EXIT_FAILURE as u8)));
    let errand = words.next().unwrap_or_default();
    if let Ok(errand) = serde_json::from_slice(errand.as_bytes()) {
        Monitor::stay(errand);
    }
    leave(libc::EXIT_FAILURE as u8)
}

/// Somebody who is attached, or waits.
struct Client {
    socket: OwnedFd,
    /// Whether it wants to see what is said.
    watches: bool,
    /// Whether the command's input ends with it: it is who started the container, and stays.
    owns_input: bool,
    /// What it hasn't taken yet.
    backlog: VecDeque<Vec<u8>>,
}

impl Client {
    fn new(socket: OwnedFd, is_caller: bool) -> Client {
        Client {
            socket,
            watches: is_caller,
            owns_input: is_caller,
            backlog: VecDeque::new(),
        }
    }

    /// Tells it something, now or when it is ready; `false`: it has gone.
    fn tell(&mut self, encoded: &[u8]) -> bool {
        self.backlog.push_back(encoded.to_vec());
        self.flush()
    }

    fn flush(&mut self) -> bool {
        while let Some(message) = self.backlog.front() {
            match send_now(&self.socket, message) {
                Ok(()) => drop(self.backlog.pop_front()),
                Err(Errno::EAGAIN) => return true,
                Err(Errno::EINTR) => continue,
                Err(_) => return false,
            }
        }
        true
    }
}

struct Monitor<'a> {
    container: &'a Container,
    signals: Signals,
    door: OwnedFd,
    clients: Vec<Client>,
    log: Log,
    /// What was typed and isn't written yet, and by whom.
    typed: VecDeque<(i32, Vec<u8>)>,
    /// Whether nothing more will be typed.
    input_ends: bool,
    /// Whether it isn't to be started again.
    let_it_end: bool,
    /// Whether somebody stopped it by hand.
    stopped: bool,
    restarts: u32,
    policy: Restart,
    /// Rows and columns of its terminal.
    size: Option<(u16, u16)>,
}

/// What came of waiting.
enum Turn {
    Nothing,
    Something,
    /// A child may have ended.
    MayHaveEnded,
}

/// What ends sooner needn't be prepared for a long time. In milliseconds.
const A_MOMENT: u8 = 100;

/// What the command of a container is connected to.
#[derive(Default)]
struct Command {
    pid: Option<Pid>,
    input: Option<OwnedFd>,
    output: [Option<OwnedFd>; 2],
    slave: Option<OwnedFd>,
}

impl Monitor<'_> {
    /// Lives the monitor's life.
    fn stay(errand: Errand) {
        // SAFETY: whoever gave us this errand has left us these descriptors, for us alone.
        let (life, caller) = unsafe {
            if let Some(narration) = errand.narration {
                narration.go_on();
            }
            let caller = OwnedFd::from_raw_fd(errand.caller);
            (Lock::inherited(errand.life), Client::new(caller, true))
        };
        let _ = set_name(MONITOR);
        let found = signals::hold()
            .and_then(|()| Store::open(&State { dir: errand.state }))
            .and_then(|store| store.find(&errand.id));
        let monitor = found.as_ref().map(Monitor::new);
        match monitor {
            Ok(Ok(mut monitor)) => {
                monitor.clients.push(caller);
                monitor.size = errand.size;
                let ending = monitor.live();
                monitor.part(ending, life);
            }
            Ok(Err(error)) => tell_failure(caller, &error),
            Err(error) => tell_failure(caller, error),
        }
        leave(0)
    }

    fn new(container: &Container) -> Result<Monitor<'_>> {
        let arguments = container.record()?.arguments;
        Ok(Monitor {
            policy: arguments.restart,
            size: None,
            container,
            signals: Signals::new()?,
            door: open_door(container)?,
            clients: Vec::new(),
            log: Log::open(&container.log(), arguments.log_max_size)?,
            typed: VecDeque::new(),
            input_ends: false,
            let_it_end: false,
            stopped: false,
            restarts: 0,
        })
    }

    // ANCHOR: live
    /// Has the container live, as often as its policy wants, and returns how it ended.
    fn live(&mut self) -> Ending {
        let mut back_off = BackOff::new();
        loop {
            let begin = Instant::now();
            let (container, size) = (self.container, self.size);
            let life = container.record().and_then(|record| {
                start(container, &record, size, |child, ends| {
                    self.relay(child, ends)
                })
            });
            let again = self.note_end(&life);
            let ending = Ending::of(life);
            if !again || !self.wait_before_restart(back_off.after(begin.elapsed())) {
                return ending;
            }
            self.restarts += 1;
        }
    }
    // ANCHOR_END: live
}

impl Ending {
    /// What is told of a `life`.
    fn of(life: Result<Life>) -> Ending {
        let (outcome, usage) = match life {
            Ok(life) => (life.outcome, Some(life.usage)),
            Err(error) => (Err(error), None),
        };
        Ending {
            outcome: outcome.map_err(|error| Report::from(&error)),
            usage,
        }
    }
}

fn tell_failure(mut to: Client, error: &Error) {
    to.tell(&failure(error).encode());
}

fn failure(error: &Error) -> Message {
    Message::Ended(Ending {
        outcome: Err(Report::from(error)),
        usage: None,
    })
}

impl Monitor<'_> {
    /// Notes that the command runs.
    fn note_start(&self, child: &Child) -> Result<()> {
        let (process, monitor) = (Identity::of(child.pid)?, Identity::of(getpid())?);
        self.container.update(|record| {
            let state = &mut record.state;
            *state = crate::record::State {
                phase: Phase::Running,
                process: Some(process),
                monitor: Some(monitor),
                started: Some(Time::now()),
                restarts: self.restarts,
                ..Default::default()
            };
        })?;
        Ok(())
    }

    /// Notes how it ended, and whether it is to be started again. One that never ran only has its error
    /// noted, which whoever started it hears.
    fn note_end(&self, life: &Result<Life>) -> bool {
        let (outcome, oom_killed) = match life {
            Ok(life) => (life.outcome.as_ref(), life.oom_killed),
            Err(error) => (Err(error), false),
        };
        let never_ran = life.is_err() && self.restarts == 0;
        let code = outcome.map_or_else(exit_code, |code| *code);
        let wanted = self.policy.again(code, self.restarts);
        let again = !never_ran && !self.let_it_end && wanted;
        let finished = Some(Time::now());
        let note = |record: &mut Record| {
            let state = &mut record.state;
            state.error = outcome.err().map(|error| format!("{error:#}"));
            if never_ran {
                return;
            }
            state.phase = match again {
                true => Phase::Restarting,
                false => Phase::Exited,
            };
            state.process = None;
            state.finished = finished;
            state.exit_code = Some(code);
            state.oom_killed = oom_killed;
            state.stopped = self.stopped;
        };
        // The disk may be full of what the container has left in a place that is free by now. If it can't be
        // noted, the kernel still says that it has ended, and nobody how.
        if self.container.update(note).is_err() {
            let _ = self.container.update(note);
        }
        again
    }

    /// Says goodbye: removes the container where that was asked for, lets go of it, and then tells everybody
    /// how it ended, who may start it again at once.
    fn part(mut self, mut ending: Ending, life: Lock) {
        let container = self.container;
        if container.record().is_ok_and(|record| record.arguments.rm) {
            if let (Err(error), Ok(_)) = (container.remove(&life), &ending.outcome) {
                ending.outcome = Err(Report::from(&error));
            }
        }
        let _ = std::fs::remove_file(container.store().run().join(container.socket()));
        drop((self.door, self.log, life));
        let last = Message::Ended(ending).encode();
        self.clients
            .retain_mut(|client| client.tell(&last) && !client.backlog.is_empty());
        // Those who haven't read all of it yet: nobody else waits for them.
        while !self.clients.is_empty() {
            let mut polled: Vec<_> = self
                .clients
                .iter()
                .map(|client| {
                    let mut events = PollFlags::POLLIN;
                    events.set(PollFlags::POLLOUT, !client.backlog.is_empty());
                    PollFd::new(client.socket.as_fd(), events)
                })
                .collect();
            let _ = poll(&mut polled, PollTimeout::NONE);
            self.clients.retain_mut(|client| {
                ignore(&client.socket) && client.flush() && !client.backlog.is_empty()
            });
        }
    }

    /// Stays with the command until it has ended and its last word is written. Returns its exit code.
    fn relay(&mut self, child: &Child, ends: Ends) -> Result<u8> {
        if self.restarts == 0 && self.caller_has_gone() {
            bail!("whoever started it went before it ran");
        }
        self.note_start(child)?;
        self.tell_all(&Message::Started);
        let mut command = Command {
            pid: Some(child.pid),
            input: ends.input,
            output: ends.output,
            slave: ends.slave,
        };
        self.forget_input(&mut command);
        narration::fall_silent()?;
        let mut patience = PollTimeout::from(A_MOMENT);
        loop {
            match self.turn(&mut command, patience)? {
                Turn::Nothing => {
                    // It will be here for a while.
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

    /// Whether who started the container isn't there any more, by an end of its own or somebody else's wish.
    fn caller_has_gone(&self) -> bool {
        let Some(caller) = self.clients.iter().find(|client| client.owns_input) else {
            return true;
        };
        let mut polled = [PollFd::new(caller.socket.as_fd(), PollFlags::empty())];
        poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// What was typed for an earlier life is nobody's, and an end of the input lasts.
    fn forget_input(&mut self, command: &mut Command) {
        let taken = Message::Taken.encode();
        for (by, _) in std::mem::take(&mut self.typed) {
            let typist = |client: &&mut Client| client.socket.as_raw_fd() == by;
            if let Some(client) = self.clients.iter_mut().find(typist) {
                client.tell(&taken);
            }
        }
        if self.input_ends {
            self.end_input(command);
        }
    }

    /// Carries what the command has said and nobody has read yet. Its processes are all gone, and there is no more to
    /// come: but somebody outside may still hold the other end, and even write to it.
    fn last_words(&mut self, command: &mut Command) -> Result<()> {
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
                    // Whoever reads slowly gets it when all the rest is in order.
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
    fn turn(&mut self, command: &mut Command, timeout: PollTimeout) -> Result<Turn> {
        let nothing = PollFlags::empty();
        let is_behind = self.clients.iter().any(|client| !client.backlog.is_empty());
        // Whoever reads slowly makes the command wait, as a pipe does.
        let reading = if is_behind {
            nothing
        } else {
            PollFlags::POLLIN
        };
        let idle = || PollFd::new(self.signals.as_fd(), nothing);
        let input = command.input.as_ref().filter(|_| !self.typed.is_empty());
        let mut polled = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.door.as_fd(), PollFlags::POLLIN),
            input.map_or_else(idle, |input| PollFd::new(input.as_fd(), PollFlags::POLLOUT)),
        ];
        for output in &command.output {
            // An end that has hung up is always ready: it isn't asked while nobody can take what it has.
            let output = output.as_ref().filter(|_| !is_behind);
            polled.push(output.map_or_else(idle, |output| PollFd::new(output.as_fd(), reading)));
        }
        polled.extend(self.clients.iter().map(|client| {
            let mut events = PollFlags::POLLIN;
            events.set(PollFlags::POLLOUT, !client.backlog.is_empty());
            PollFd::new(client.socket.as_fd(), events)
        }));
        match poll(&mut polled, timeout) {
            Err(Errno::EINTR) => return Ok(Turn::Something),
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
        self.serve_clients(clients, command)?;
        if !door.is_empty() {
            self.admit(command);
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

    /// A signal that somebody sent to this process is meant for the container; SIGCHLD is for us.
    fn obey(&mut self, command: &Command) -> Result<Turn> {
        let number = self.signals.receive()?.number();
        if number == Signal::SIGCHLD as i32 {
            return Ok(Turn::MayHaveEnded);
        }
        if number == Signal::SIGTERM as i32 {
            // The machine is going down.
            self.let_it_end = true;
        }
        if let Some(pid) = command.pid {
            self.signals.pass_on(number, pid)?;
        }
        Ok(Turn::Something)
    }

    /// Reads what the command has said, writes it down, and passes it on.
    fn listen(&mut self, which: usize, command: &mut Command) {
        let Some(output) = &command.output[which] else {
            return;
        };
        let mut buffer = [0; LONGEST];
        match read(output, &mut buffer) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            // A pseudo-terminal whose last slave was closed answers EIO.
            Ok(0) | Err(_) => command.output[which] = None,
            Ok(length) => {
                let stream = [Stream::Output, Stream::Error][which];
                self.log.write(stream, &buffer[..length]);
                if self.clients.iter().any(|client| client.watches) {
                    self.tell_watchers(&Message::Output(stream, buffer[..length].to_vec()));
                }
            }
        }
    }

    /// Writes what was typed, as far as the command takes it, and tells who typed it.
    fn type_on(&mut self, command: &mut Command) {
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
            // It has closed its input: it reads no more, and needs no more.
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
            let taken = Message::Taken.encode();
            let typist = |client: &&mut Client| client.socket.as_raw_fd() == by;
            if let Some(client) = self.clients.iter_mut().find(typist) {
                client.tell(&taken);
            }
        }
    }

    fn admit(&mut self, command: &Command) {
        let flags = SockFlag::SOCK_CLOEXEC;
        if let Ok(socket) = accept4(self.door.as_raw_fd(), flags) {
            // SAFETY: the kernel has just opened it for us.
            let socket = unsafe { OwnedFd::from_raw_fd(socket) };
            let mut client = Client::new(socket, false);
            if command.pid.is_some() {
                // The others have heard it when it was news.
                client.tell(&Message::Started.encode());
            }
            self.clients.push(client);
        }
    }

    fn serve_clients(&mut self, ready: &[PollFlags], command: &mut Command) -> Result<()> {
        let mut gone = Vec::new();
        for (position, events) in ready.iter().enumerate() {
            let asks = PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR;
            let stays = match events {
                events if events.contains(PollFlags::POLLOUT) => self.clients[position].flush(),
                events if events.intersects(asks) => self.serve(position, command)?,
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
        }
        Ok(())
    }

    /// Does what a client asks for; `false`: it has gone.
    fn serve(&mut self, position: usize, command: &mut Command) -> Result<bool> {
        let client = &mut self.clients[position];
        let mut buffer = [0; LONGEST + 1];
        let Ok(Some(message)) = receive(&client.socket, &mut buffer) else {
            return Ok(false);
        };
        match message {
            Message::Attach => client.watches = true,
            Message::Wait => client.watches = false,
            Message::Input(bytes) => {
                let by = client.socket.as_raw_fd();
                self.typed.push_back((by, bytes));
                self.type_on(command);
            }
            // Another one who attaches may come again.
            Message::EndOfInput if !client.owns_input => {}
            Message::EndOfInput => self.end_input(command),
            Message::Size(rows, columns) => {
                self.size = Some((rows, columns));
                if let (Some(_), Some(master)) = (&command.slave, &command.output[0]) {
                    let _ = set_size(master, (rows, columns));
                }
            }
            Message::Signal(number) => {
                let ends = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT];
                self.let_it_end |= ends.iter().any(|end| *end as i32 == number);
                if let Some(pid) = command.pid {
                    self.signals.pass_on(number, pid)?;
                    self.signals.ask(number, false, pid)?;
                }
            }
            Message::Refused(stream) if client.owns_input => {
                // The command shall know, by a hang-up or SIGPIPE. What it says to nobody isn't written either.
                command.output[usize::from(stream == Stream::Error)] = None;
                if let (Some(_), Some(pid)) = (command.slave.take(), command.pid) {
                    self.signals.hang_up(pid)?;
                }
            }
            Message::Refused(_) => client.watches = false,
            Message::Detach => {
                client.owns_input = false;
                return Ok(false);
            }
            Message::LetItEnd(stopped) => {
                self.let_it_end = true;
                self.stopped = stopped;
                client.tell(&Message::Taken.encode());
            }
            Message::Taken | Message::Output(..) | Message::Started | Message::Ended(_) => {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Nothing more will be typed. A terminal has no end that could be closed.
    fn end_input(&mut self, command: &mut Command) {
        self.input_ends = true;
        if command.slave.is_none() && self.typed.is_empty() {
            command.input = None;
        }
    }

    fn tell_all(&mut self, message: &Message) {
        let encoded = message.encode();
        for client in &mut self.clients {
            // Who has gone is noticed, with all that follows, when the socket says so.
            client.tell(&encoded);
        }
    }

    fn tell_watchers(&mut self, message: &Message) {
        let encoded = message.encode();
        let tell = |client: &mut Client| !client.watches || client.tell(&encoded);
        // Who has gone is noticed, with all that follows, when the socket says so.
        for client in &mut self.clients {
            tell(client);
        }
    }

    /// Waits before the next start; `false`: there is to be none.
    fn wait_before_restart(&mut self, how_long: Duration) -> bool {
        let until = Instant::now() + how_long;
        let mut command = Command::default();
        while !self.let_it_end {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            let millis = u16::try_from(left.as_millis() + 1).unwrap_or(u16::MAX);
            if self.turn(&mut command, PollTimeout::from(millis)).is_err() {
                break;
            }
        }
        let _ = self.container.update(|record| {
            record.state.phase = Phase::Exited;
            record.state.stopped = self.stopped;
        });
        false
    }
}

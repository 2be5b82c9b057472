//! The process that stays with a container: it owns the terminal or the pipes, writes the log, serves those
//! who attach, reaps, notes the end, and starts the container again where that is asked for.
//!
//! Each container has a monitor of its own, so a monitor is small, and sleeps in one poll(2) until something happens.
//! The container dies with its monitor (`die_with_parent` of step 2), so that none is ever there without one.

pub(crate) mod client;
mod command;
mod exchange;
mod pace;
mod slim;

use crate::Identity;
use crate::container::Container;
use crate::container::log::Log;
use crate::container::record::{Phase, Record, State, Time};
use crate::container::restart::{BackOff, RestartPolicy};
use crate::container::store::Store;
use crate::errand::{Errand, MONITOR};
use crate::message::{Ending, Message, ignore, open_door};
use crate::start::{Companion, Outcome, start};
use anyhow::{Error, Result, bail};
use client::{Client, tell_failure};
use command::RunningCommand;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_name;
use nix::unistd::getpid;
use pace::Pace;
use std::collections::VecDeque;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{env, fs, mem, panic};
use step01_uts::program::{exit_code, explain};
use step01_uts::{Refused, narration};
use step02_pid::report::Report;
use step02_pid::signals::{self, Signals};
use step02_pid::{Child, leave};
use step04_pivot_root::lock::Lock;
use step04_pivot_root::state::StateDir;
use step04_pivot_root::why::witness::Sight;
use step05_tty::terminal::Ends;

/// Runs the monitor, when this process was started as one, and doesn't return then. Call this function first of all.
pub fn be_monitor() {
    let mut words = env::args_os();
    if words
        .next()
        .is_none_or(|word| word.as_bytes() != MONITOR.to_bytes())
    {
        return;
    }
    // A panic ends this process, and the container with it. The record still says that the container runs, but nobody
    // relies on the record alone.
    panic::set_hook(Box::new(|_| leave(libc::EXIT_FAILURE as u8)));
    let errand = words.next().unwrap_or_default();
    if let Ok(errand) = serde_json::from_slice(errand.as_bytes()) {
        Monitor::stay(errand);
    }
    leave(libc::EXIT_FAILURE as u8)
}

/// Why a container is ended that has hardly begun.
const GIVEN_UP: &str = "whoever started it went before it ran";

/// What a monitor knows.
pub(crate) struct Monitor<'a> {
    pub(crate) container: &'a Container,
    pub(crate) signals: Signals,
    pub(crate) door: OwnedFd,
    pub(crate) clients: Vec<Client>,
    /// A descriptor that is kept back, to be used when there is no other left.
    pub(crate) spare: Option<OwnedFd>,
    pub(crate) log: Log,
    /// What was typed and isn't written to the command yet, and the number of the client that typed it.
    pub(crate) typed: VecDeque<(u64, Vec<u8>)>,
    /// How many clients there have been.
    pub(crate) served: u64,
    /// Whether nothing more will be typed.
    pub(crate) input_ends: bool,
    /// What somebody wishes, whatever the policy says.
    pub(crate) wish: Wish,
    /// Whether the container is removed if its command never runs.
    pub(crate) new: bool,
    /// Whether the command has run, since this monitor began.
    pub(crate) has_run: bool,
    pub(crate) restarts: u32,
    pub(crate) policy: RestartPolicy,
    /// Rows and columns of the container's terminal.
    pub(crate) size: Option<(u16, u16)>,
    /// How fast the command may write output.
    pub(crate) pace: Pace,
    /// The client that looks why the command didn't start.
    pub(crate) looking: Option<Looking>,
}

/// What somebody wishes for a container, besides what its policy says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wish {
    /// Nothing: the container is started again as its policy says.
    GoOn,
    /// When the container ends, it isn't started again before the machine is.
    EndForNow,
    /// As `EndForNow`, and the container isn't started with the machine either, unless that is the policy.
    EndForGood,
}

/// A client that was asked to look why the command didn't start.
pub(crate) struct Looking {
    pub(crate) client: u64,
    /// The descriptors that the client looks by, until it has said that it looks.
    pub(crate) sight: Option<Sight>,
}

/// How long the container waits for a client that looks. A look takes a second at most, but a client that is stopped
/// would look for ever.
const LOOKS: Duration = Duration::from_secs(10);

impl Monitor<'_> {
    /// Does what the errand says, from the first start of the container to the end of this process.
    pub(crate) fn stay(errand: Errand) {
        // SAFETY: the process that gave us this errand has left us these descriptors, for us alone.
        let (life, caller) = unsafe {
            if let Some(narration) = errand.narration {
                narration.go_on();
            }
            let caller = OwnedFd::from_raw_fd(errand.caller);
            (Lock::inherited(errand.life), Client::new(caller, 0))
        };
        let _ = set_name(MONITOR);
        let found = signals::hold()
            .and_then(|()| Store::open(&StateDir { dir: errand.state }))
            .and_then(|store| store.find(&errand.id));
        let monitor = found.as_ref().map(Monitor::new);
        match monitor {
            Ok(Ok(mut monitor)) => {
                monitor.clients.push(caller);
                (monitor.size, monitor.new) = (errand.size, errand.new);
                let ending = monitor.live();
                monitor.part(ending, life);
            }
            Ok(Err(error)) => tell_failure(caller, life, &error),
            Err(error) => tell_failure(caller, life, error),
        }
        leave(0)
    }

    fn new(container: &Container) -> Result<Monitor<'_>> {
        let plan = container.record()?.plan;
        let door = open_door(container)?;
        Ok(Monitor {
            policy: plan.restart,
            size: None,
            container,
            signals: Signals::new()?,
            spare: Some(door.try_clone()?),
            door,
            clients: Vec::new(),
            served: 0,
            log: Log::open(&container.log(), plan.log_max_size)?,
            typed: VecDeque::new(),
            input_ends: false,
            wish: Wish::GoOn,
            new: false,
            has_run: false,
            restarts: 0,
            pace: Pace::new(),
            looking: None,
        })
    }

    // ANCHOR: live
    /// Runs the container, as often as its policy wants, and returns how it ended.
    fn live(&mut self) -> Ending {
        let mut back_off = BackOff::new();
        loop {
            let begin = Instant::now();
            let (container, size) = (self.container, self.size);
            let outcome = container
                .record()
                .and_then(|record| start(container, &record.plan, size, self));
            let again = self.note_end(&outcome);
            let ending = Ending::of(outcome);
            if !again || !self.wait_before_restart(back_off.after(begin.elapsed())) {
                return ending;
            }
            self.restarts += 1;
        }
    }
    // ANCHOR_END: live
}

impl Ending {
    /// What clients are told of an outcome.
    fn of(outcome: Result<Outcome>) -> Ending {
        let (code, usage) = match outcome {
            Ok(outcome) => (outcome.code, Some(outcome.usage)),
            Err(error) => (Err(error), None),
        };
        Ending {
            outcome: code.map_err(|error| Report::from(&error).cut()),
            usage,
            left: None,
        }
    }
}

impl Monitor<'_> {
    /// Notes that the command runs. Returns the state that was noted before.
    fn note_start(&self, child: &Child) -> Result<State> {
        let (process, monitor) = (Identity::of(child.pid)?, Identity::of(getpid())?);
        let mut before = State::default();
        self.container.update(|record| {
            let running = State {
                phase: Phase::Running,
                process: Some(process),
                monitor: Some(monitor),
                started: Some(Time::now()),
                restarts: self.restarts,
                ..Default::default()
            };
            before = mem::replace(&mut record.state, running);
        })?;
        Ok(before)
    }

    /// Notes how the container ended, and returns whether it is to be started again. If the command never ran, only the
    /// error is noted, which the caller hears.
    fn note_end(&self, outcome: &Result<Outcome>) -> bool {
        let (outcome, oom_killed) = match outcome {
            Ok(outcome) => (outcome.code.as_ref(), outcome.oom_killed),
            Err(error) => (Err(error), false),
        };
        let code = outcome.map_or_else(exit_code, |code| *code);
        let again = self.begins_again(code);
        let finished = Some(Time::now());
        let note = |record: &mut Record| {
            let state = &mut record.state;
            state.error = outcome.err().map(|error| self.note_of(error));
            if !self.has_run {
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
            state.stopped = self.wish == Wish::EndForGood;
        };
        // The disk may have been full of what the container has left in a place that is free by now: so there is a
        // second attempt. If the end can't be noted, the kernel still says that the container has ended, but nobody
        // knows how.
        if self.container.update(note).is_err() {
            let _ = self.container.update(note);
        }
        again
    }

    /// Whether the container is to be started again, after this exit code.
    fn begins_again(&self, code: u8) -> bool {
        self.has_run && self.wish == Wish::GoOn && self.policy.again(code, self.restarts)
    }

    /// What is noted of an error. Why a command can't be executed isn't known here: only clients look (see `raise`).
    fn note_of(&self, error: &Error) -> String {
        let executes = |refused: &Refused| refused.is("execve") && refused.why.is_none();
        match error.downcast_ref().is_some_and(executes) {
            true => format!("{}: `start -a` says why", explain(error)),
            false => explain(error),
        }
    }

    /// The monitor's last acts: removes the container where that was asked for, lets go of its life, and then tells all
    /// clients how it ended. A client may start the container again at once.
    fn part(mut self, mut ending: Ending, life: Lock) {
        let container = self.container;
        let rm = container.record().is_ok_and(|record| record.plan.rm);
        if rm || (self.new && !self.has_run) {
            if let Err(error) = container.remove(&life) {
                // The command's life is over, and its outcome is what counts.
                ending.left = Some(format!(
                    "{}\nhelp: `prune` removes what is left",
                    explain(&error)
                ));
            }
        }
        let _ = fs::remove_file(container.folders().run.join(container.socket()));
        // Clients that knocked while all was being put in order want to know, too.
        while self.admit(None) {}
        drop((self.door, self.spare, self.log, life));
        let last = Message::Ended(ending).encode();
        self.clients
            .retain_mut(|client| client.tell(&last) && !client.backlog.is_empty());
        // Some clients haven't read all of it yet. Nobody else waits while the monitor stays for them.
        while !self.clients.is_empty() {
            let mut polled: Vec<_> = self.clients.iter().map(Client::waits_for).collect();
            let _ = poll(&mut polled, PollTimeout::NONE);
            self.clients.retain_mut(|client| {
                ignore(&client.socket) && client.flush() && !client.backlog.is_empty()
            });
        }
    }

    /// Tells all clients that the command runs; `false`: the caller isn't there to hear that.
    fn announce(&mut self) -> bool {
        let started = Message::Started.encode();
        let mut heard = self.restarts > 0;
        for client in &mut self.clients {
            heard |= client.tell(&started) && client.owns_input;
        }
        heard
    }

    /// Whether the caller that started the container isn't there any more: it has ended by itself, or somebody has
    /// ended it.
    fn caller_has_gone(&self) -> bool {
        let Some(caller) = self.clients.iter().find(|client| client.owns_input) else {
            return true;
        };
        let mut polled = [PollFd::new(caller.socket.as_fd(), PollFlags::empty())];
        poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// Waits before the next start; `false`: there is to be no next start.
    fn wait_before_restart(&mut self, how_long: Duration) -> bool {
        let until = Instant::now() + how_long;
        self.tell(&Message::Restarting, |_| true);
        let mut command = RunningCommand::default();
        while self.wish == Wish::GoOn {
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
            record.state.stopped = self.wish == Wish::EndForGood;
        });
        false
    }
}

impl Companion for Monitor<'_> {
    fn relay(&mut self, child: &Child, ends: Ends) -> Result<u8> {
        if self.restarts == 0 && self.caller_has_gone() {
            bail!(GIVEN_UP);
        }
        let before = self.note_start(child)?;
        if !self.announce() {
            // The caller went while the start was noted.
            self.container.update(|record| record.state = before)?;
            bail!(GIVEN_UP);
        }
        self.has_run = true;
        let mut command = RunningCommand::of(child, ends);
        self.forget_input(&mut command);
        narration::fall_silent()?;
        self.stay_with(command)
    }

    /// A hostile root may have many links, and each look would take the monitor's time, which nobody limits. So a
    /// client that is attached looks in its place. Without such a client nobody looks.
    fn raise(&mut self, outcome: Result<u8, &Error>, host: Option<&Path>, sight: Sight) {
        let code = outcome.unwrap_or_else(exit_code);
        if self.begins_again(code) {
            return;
        }
        let Some(client) = self.clients.iter_mut().find(|client| client.watches) else {
            return;
        };
        let outcome = outcome.map_err(|error| Report::from(error).cut());
        let question = Message::Look(outcome, host.map(Path::to_owned)).encode();
        self.looking = Some(Looking {
            client: client.number,
            sight: Some(sight),
        });
        client.tell(&question);
        let until = Instant::now() + LOOKS;
        let mut command = RunningCommand::default();
        while self.looking.is_some() && self.wish == Wish::GoOn {
            let left = until.saturating_duration_since(Instant::now());
            let left = u16::try_from(left.as_millis()).unwrap_or(u16::MAX);
            if left == 0 || self.turn(&mut command, PollTimeout::from(left)).is_err() {
                break;
            }
        }
        self.looking = None;
    }
}

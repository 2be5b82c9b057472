//! Commands that have containers end, or wait for it, or clear away what has ended.

use crate::caller::connection::{Answer, Connection};
use crate::commands::pause::thaw;
use crate::commands::run::begin_detached;
use crate::commands::{Names, each, up};
use crate::container::plan::signal;
use crate::container::record::{Phase, Record};
use crate::container::status::Status;
use crate::container::store::{Container, Store};
use crate::message::{Message, knock};
use crate::{Identity, is_running, pidfd_open, send, stop, wait_for_end};
use anyhow::{Context, Result, bail};
use clap::Args;
use nix::unistd::Pid;
use std::io::{Write, stderr, stdin};
use std::thread::sleep;
use std::time::Duration;
use step01_uts::program::{exit_code, explain};
use step01_uts::say;
use step02_pid::status::StatusFile;
use step04_pivot_root::state::StateDir;
use step07_cgroups::cgroup::creation::sweep_all;
use step07_cgroups::cgroup::places::Groups;

/// Ask containers to end, and insist after a while
#[derive(Debug, Args)]
pub struct Stop {
    #[command(flatten)]
    request: Request,

    #[command(flatten)]
    names: Names,
}

/// How a container is asked to end.
#[derive(Debug, Args)]
struct Request {
    /// How long to wait before it is killed, in seconds; -1: for ever
    #[arg(short = 't', long = "timeout", alias = "time", value_name = "SECONDS", default_value = "10",
          allow_negative_numbers = true, value_parser = patience)]
    timeout: Patience,

    /// The signal to ask with [default: that of --stop-signal]
    #[arg(short, long, value_name = "SIGNAL", value_parser = signal)]
    signal: Option<i32>,
}

impl Request {
    fn kills(&self) -> bool {
        self.signal == Some(libc::SIGKILL)
    }

    const KILL: Request = Request {
        timeout: Patience(Some(Duration::ZERO)),
        signal: Some(libc::SIGKILL),
    };
}

/// A time to wait; for ever with none.
#[derive(Debug, Clone, Copy)]
struct Patience(Option<Duration>);

fn patience(text: &str) -> Result<Patience, String> {
    match text.parse::<f64>() {
        Ok(-1.0) => Ok(Patience(None)),
        Ok(seconds) => Duration::try_from_secs_f64(seconds)
            .map(|duration| Patience(Some(duration)))
            .map_err(|error| error.to_string()),
        Err(_) => Err("it takes a number of seconds, or -1 for ever".into()),
    }
}

impl Stop {
    pub(crate) fn run(&self) -> Result<u8> {
        self.names
            .each(|container| end(container, &self.request, true))
    }
}

/// Send containers a signal
#[derive(Debug, Args)]
pub struct Kill {
    /// The signal
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL", value_parser = signal)]
    signal: i32,

    #[command(flatten)]
    names: Names,
}

impl Kill {
    pub(crate) fn run(&self) -> Result<u8> {
        self.names.each(|container| {
            let record = up(container)?;
            if self.signal == libc::SIGKILL {
                return end(container, &Request::KILL, true);
            }
            if self.signal == record.arguments.stop_signal {
                // Whoever asks it to end doesn't want it started again.
                if let Some(socket) = knock(container)? {
                    Connection::with(socket, &Message::Wait).insist(&Message::LetItEnd(true))?;
                }
            }
            let process = record.state.process.as_ref();
            match process.map(|process| process.open()).transpose()?.flatten() {
                Some(pidfd) => send(&pidfd, self.signal),
                None => bail!("{} has just ended", record.name),
            }
        })
    }
}

/// Stop containers and start them again
#[derive(Debug, Args)]
pub struct Restart {
    #[command(flatten)]
    request: Request,

    #[command(flatten)]
    names: Names,
}

impl Restart {
    pub(crate) fn run(&self) -> Result<u8> {
        self.names.each(|container| {
            let record = container.record()?;
            if record.arguments.rm {
                bail!(
                    "container {} is removed when it ends (--rm), and can't be started again\nhelp: `stop` it, and \
                     `run` another",
                    record.name
                );
            }
            // Should we get no further, it is started after a reboot.
            end(container, &self.request, false)?;
            begin_detached(container)
        })
    }
}

/// Remove containers, with their changes and logs
#[derive(Debug, Args)]
pub struct Rm {
    /// Kill them first, if they run
    #[arg(short, long)]
    force: bool,

    #[command(flatten)]
    names: Names,
}

impl Rm {
    pub(crate) fn run(&self) -> Result<u8> {
        self.names.each(|container| remove(container, self.force))
    }
}

fn remove(container: &Container, force: bool) -> Result<()> {
    loop {
        if let Some(life) = container.take_life()? {
            if orphan(container).is_some() && !force {
                bail!(
                    "container {0} is running, and its monitor was killed\nhelp: `stop {0}` first, or `rm -f {0}`",
                    container.record()?.name
                );
            }
            end_orphan(container)?;
            return container.remove(&life);
        }
        if force {
            match end(container, &Request::KILL, true) {
                // It was to be removed when it ended.
                _ if container.is_gone() => return Ok(()),
                ended => ended?,
            }
            continue;
        }
        let record = container.record()?;
        let status = container.status(&record);
        if status.is_up() || status == Status::Restarting {
            bail!(
                "container {0} is {1}\nhelp: `stop {0}` first, or `rm -f {0}`",
                record.name,
                status.word()
            );
        }
        let_things_settle(container)?;
    }
}

/// Wait until containers have ended, and print their exit codes
#[derive(Debug, Args)]
pub struct Wait {
    #[command(flatten)]
    names: Names,
}

impl Wait {
    pub(crate) fn run(&self) -> Result<u8> {
        let Names { state, containers } = &self.names;
        each(state, containers, |_, container| {
            say(wait(container)?.to_string())
        })
    }
}

/// The exit code of a container, when it has ended.
fn wait(container: &Container) -> Result<u8> {
    let record = container.record()?;
    // Its process may have ended, and its monitor be about to note it.
    let lives = matches!(record.state.phase, Phase::Running | Phase::Restarting);
    if lives && record.state.monitor.as_ref().is_some_and(is_running) {
        if let Some(socket) = knock(container)? {
            let connection = Connection::with(socket, &Message::Wait);
            if let Some(ending) = connection.wait()? {
                let code = |report: step02_pid::report::Report| exit_code(&report.into_error());
                return Ok(ending.outcome.unwrap_or_else(code));
            }
        }
        wait_for_monitor(&record)?;
    }
    if let Some(orphan) = orphan(container) {
        if let Some(pidfd) = orphan.open()? {
            wait_for_end(&pidfd, None)?;
        }
    }
    let record = match container.record() {
        // It was about to be removed when it was read, and its end was noted.
        Err(_) if !lives && container.is_gone() => record,
        now => now?,
    };
    let known = match container.status(&record) {
        Status::Created => Some(0),
        _ if record.state.phase != Phase::Running => record.state.exit_code,
        _ => None,
    };
    known.with_context(|| {
        format!(
            "nobody knows how container {} ended: its monitor was killed before it, or the power failed",
            record.name
        )
    })
}

/// Remove all containers that don't run, and what crashes have left
#[derive(Debug, Args)]
pub struct Prune {
    /// Don't ask
    #[arg(short, long)]
    force: bool,

    #[command(flatten)]
    state: StateDir,
}

impl Prune {
    pub(crate) fn run(&self) -> Result<u8> {
        let store = Store::open(&self.state)?;
        if !self.force && !self.is_sure()? {
            return Ok(0);
        }
        let mut code = 0;
        for container in store.containers()? {
            let removed = match container.take_life() {
                Ok(Some(life)) => match runs_on(&container) {
                    Ok(true) => continue,
                    Ok(false) => container.remove(&life),
                    Err(error) => Err(error),
                },
                // It runs, or somebody else has removed it.
                _ => continue,
            };
            match removed {
                Ok(()) => say(&container.id)?,
                Err(error) => {
                    eprintln!("{}", explain(&error));
                    code = exit_code(&error);
                }
            }
        }
        // One that fails doesn't keep the others.
        for swept in [store.sweep().map(drop), sweep_all()] {
            if let Err(error) = swept {
                eprintln!("{}", explain(&error));
                code = exit_code(&error);
            }
        }
        Ok(code)
    }

    fn is_sure(&self) -> Result<bool> {
        let mut asked = stderr();
        write!(
            asked,
            "All containers that don't run will be removed, with their changes. Go on? [y/N] "
        )?;
        let mut answer = String::new();
        stdin().read_line(&mut answer)?;
        Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
    }
}

/// Ends what a container's monitor should have taken along when it was killed, and didn't: a command that has
/// changed its user since, or was frozen; and its control groups. For who has its life.
pub(crate) fn end_orphan(container: &Container) -> Result<()> {
    if let Some(process) = orphan(container) {
        let _going = thaw(container)?;
        stop(&process, libc::SIGKILL, Some(Duration::ZERO))?;
    }
    // Where its monitor has put all in order there are none.
    match Groups::of(&container.id)?.is_empty() {
        true => Ok(()),
        false => sweep_all(),
    }
}

/// Whether a container without a monitor runs all the same. One that the kernel has killed and that is frozen hears of
/// it in version 1 when it goes on: then it ends. For who has its life.
fn runs_on(container: &Container) -> Result<bool> {
    let Some(process) = orphan(container) else {
        return Ok(false);
    };
    let Some(pidfd) = process.open()? else {
        return Ok(false);
    };
    if !is_killed(process.pid) {
        return Ok(is_running(&process));
    }
    let _going = thaw(container)?;
    wait_for_end(&pidfd, None)?;
    Ok(false)
}

/// Whether SIGKILL is on its way to the process `pid`.
fn is_killed(pid: i32) -> bool {
    let status = StatusFile::of(Pid::from_raw(pid));
    ["SigPnd", "ShdPnd"]
        .iter()
        .any(|set| status.has(set, libc::SIGKILL))
}

/// The process of a container without a monitor, if it runs all the same.
pub(crate) fn orphan(container: &Container) -> Option<Identity> {
    // Of a record that can't be read there is nothing to know.
    container.record().ok()?.state.process.filter(is_running)
}

/// How long somebody takes who is about to be through.
const A_MOMENT: Duration = Duration::from_millis(1);

/// Waits until a container that has a monitor, and doesn't run, runs or has none.
pub(crate) fn let_things_settle(container: &Container) -> Result<()> {
    match knock(container)? {
        Some(socket) => Connection::with(socket, &Message::Wait).wait_for_news(),
        // It isn't listening yet, or no longer, or it is a command that is about to be through.
        None => {
            sleep(A_MOMENT);
            Ok(())
        }
    }
}

/// Has a container end that runs, or is about to run again: asks, waits, and insists. Returns when its monitor
/// has gone, too. One that is ended `for_good` isn't started after a reboot either.
fn end(container: &Container, request: &Request, for_good: bool) -> Result<()> {
    loop {
        let record = match container.record() {
            Err(_) if request.kills() && knock(container)?.is_some() => {
                return kill_unread(container);
            }
            record => record?,
        };
        let status = container.status(&record);
        let runs = status.is_up() || status == Status::Restarting;
        if !runs && container.take_life()?.is_some() {
            return Ok(());
        }
        let socket = knock(container)?;
        let connection = socket.map(|socket| Connection::with(socket, &Message::Wait));
        if let Some(connection) = &connection {
            // Otherwise its monitor would start it again.
            if connection.insist(&Message::LetItEnd(for_good))? == Answer::Silent {
                return kill_both(container, connection);
            }
        }
        if !runs {
            // It was about to start or to end, and has heard. Now it is the one or the other.
            if connection.is_none() {
                sleep(A_MOMENT);
            }
            continue;
        }
        // It may have begun another life until it heard.
        let record = match container.record() {
            Err(_) if container.is_gone() => return Ok(()),
            record => record?,
        };
        let _going = match thaw(container) {
            Err(_) if container.is_gone() => return Ok(()),
            thawed => thawed?,
        };
        if let Some(process) = &record.state.process {
            let signal = request.signal.unwrap_or(record.arguments.stop_signal);
            stop(process, signal, request.timeout.0)?;
        }
        // Not for its life, which somebody else may have by now, who starts it.
        return match connection {
            Some(connection) if connection.winds_up()? => Ok(()),
            Some(connection) => kill_both(container, &connection),
            None => wait_for_monitor(&record),
        };
    }
}

/// Has the kernel end a monitor that doesn't answer, and its container with it: one is never there without the other.
fn kill_both(container: &Container, connection: &Connection) -> Result<()> {
    // It is still there: nobody else has its end of the connection.
    if let Ok(pidfd) = pidfd_open(connection.monitor()?) {
        send(&pidfd, libc::SIGKILL)?;
        wait_for_end(&pidfd, None)?;
    }
    match container.take_life() {
        Ok(Some(_life)) => end_orphan(container),
        // Somebody else has it by now, or has removed it.
        _ => Ok(()),
    }
}

/// Has the monitor of a container kill it, whose record nobody can read.
fn kill_unread(container: &Container) -> Result<()> {
    let _going = thaw(container)?;
    let Some(socket) = knock(container)? else {
        return Ok(());
    };
    let connection = Connection::with(socket, &Message::Wait);
    if connection.insist(&Message::LetItEnd(true))? == Answer::Silent {
        return kill_both(container, &connection);
    }
    connection.ask(&Message::Signal(libc::SIGKILL));
    match connection.winds_up()? {
        true => Ok(()),
        false => kill_both(container, &connection),
    }
}

/// Waits until the monitor that `record` tells of has ended.
fn wait_for_monitor(record: &Record) -> Result<()> {
    let monitor = record.state.monitor.as_ref();
    if let Some(pidfd) = monitor.map(Identity::open).transpose()?.flatten() {
        wait_for_end(&pidfd, None)?;
    }
    Ok(())
}

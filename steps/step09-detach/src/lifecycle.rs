//! What becomes of a container from outside: how it is begun, waited for, ended and removed, whatever its monitor does
//! meanwhile.

use crate::caller::connection::{Answer, Connection};
use crate::caller::launch::launch;
use crate::container::Container;
use crate::container::lock::Lock;
use crate::container::record::{Phase, Record};
use crate::container::status::Status;
use crate::message::{Message, knock};
use crate::{Identity, is_running, pidfd_open, send, stop, wait_for_end};
use anyhow::{Context, Result, bail};
use nix::unistd::Pid;
use std::thread::sleep;
use std::time::Duration;
use step01_uts::program::exit_code;
use step02_pid::status::StatusFile;
use step07_cgroups::cgroup::creation::sweep_all;
use step07_cgroups::cgroup::places::Groups;

/// How a container is asked to end.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// The signal to ask with; without one, its own.
    pub signal: Option<i32>,
    /// How long to wait before it is killed; for ever, without.
    pub patience: Option<Duration>,
    /// Whether it isn't to be started after a reboot either.
    pub for_good: bool,
}

impl Request {
    /// To be killed at once, and for good.
    pub const KILL: Request = Request {
        signal: Some(libc::SIGKILL),
        patience: Some(Duration::ZERO),
        for_good: true,
    };

    fn kills(&self) -> bool {
        self.signal == Some(libc::SIGKILL)
    }

    /// What its monitor is told.
    fn message(&self) -> Message {
        match self.for_good {
            true => Message::EndForGood,
            false => Message::EndForNow,
        }
    }
}

/// Starts `container`, unless it runs already, and leaves it to itself.
pub fn begin_detached(container: &Container) -> Result<()> {
    begin(container, None).map(|connection| connection.map_or((), Connection::detach))
}

/// Starts `container` and returns the connection to its monitor; `None`: it runs already.
pub fn begin(container: &Container, size: Option<(u16, u16)>) -> Result<Option<Connection>> {
    loop {
        if let Some(life) = container.take_life()? {
            end_orphan(container)?;
            return launch(container, life, size, false).map(Some);
        }
        let record = container.record()?;
        let status = container.status(&record);
        if status.is_up() {
            return container.awake().map(|_| None);
        }
        if status == Status::Restarting {
            return Ok(None);
        }
        // Somebody is about to start, to end or to remove it.
        let_things_settle(container)?;
    }
}
/// Removes a container; one that runs only by `force`.
///
/// # Errors
/// It runs, or is about to.
pub fn remove(container: &Container, force: bool) -> Result<()> {
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
            match end(container, &Request::KILL) {
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

/// The exit code of a container, when it has ended.
pub fn wait(container: &Container) -> Result<u8> {
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

/// Ends what a container's monitor should have taken along when it was killed, and didn't: a command that has
/// changed its user since, or was frozen; and its control groups. For who has its life.
pub fn end_orphan(container: &Container) -> Result<()> {
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
pub fn runs_on(container: &Container) -> Result<bool> {
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
pub fn orphan(container: &Container) -> Option<Identity> {
    // Of a record that can't be read there is nothing to know.
    container.record().ok()?.state.process.filter(is_running)
}

/// How long somebody takes who is about to be through.
const A_MOMENT: Duration = Duration::from_millis(1);

/// Waits until a container that has a monitor, and doesn't run, runs or has none.
pub fn let_things_settle(container: &Container) -> Result<()> {
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
/// has gone, too.
pub fn end(container: &Container, request: &Request) -> Result<()> {
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
            if connection.insist(&request.message())? == Answer::Silent {
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
            stop(process, signal, request.patience)?;
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
    if connection.insist(&Message::EndForGood)? == Answer::Silent {
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
/// Has the processes of a container go on, if it is paused: who is frozen hears nothing, in version 1 not even
/// SIGKILL. Nobody pauses it again as long as the lock is held.
pub fn thaw(container: &Container) -> Result<Lock> {
    let going = container.keep_going()?;
    let groups = Groups::of(&container.id)?;
    if groups.is_frozen().unwrap_or(false) {
        groups.freeze(false)?;
    }
    Ok(going)
}

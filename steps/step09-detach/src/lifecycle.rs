//! What other processes do with a container: start it, wait for it, end it and remove it, whatever its monitor does
//! meanwhile.

use crate::caller::connection::{Answer, Connection};
use crate::caller::launch::launch;
use crate::container::Container;
use crate::container::record::{Newer, Phase, Record};
use crate::container::status::Status;
use crate::message::{Message, Rest, knock};
use crate::{Identity, is_running, pidfd_open, send, stop, wait_for_end};
use anyhow::{Context, Result, bail};
use nix::unistd::Pid;
use std::thread::sleep;
use std::time::Duration;
use step01_uts::program::exit_code;
use step02_pid::status::StatusFile;
use step04_pivot_root::lock::Lock;
use step07_cgroups::cgroup::creation::sweep_all;
use step07_cgroups::cgroup::places::Groups;

/// How a container is asked to end.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// The signal to ask with; `None`: the container's own stop signal.
    pub signal: Option<i32>,
    /// How long to wait before the container is killed; `None`: for ever.
    pub patience: Option<Duration>,
    /// How long the container stays ended.
    pub rest: Rest,
}

impl Request {
    /// To be killed at once, and for good.
    pub const KILL: Request = Request {
        signal: Some(libc::SIGKILL),
        patience: Some(Duration::ZERO),
        rest: Rest::ForGood,
    };

    fn kills(&self) -> bool {
        self.signal == Some(libc::SIGKILL)
    }
}

/// Starts `container`, unless it runs already, and detaches from it.
pub fn begin_detached(container: &Container) -> Result<()> {
    begin(container, None).map(|connection| connection.map_or((), Connection::detach))
}

/// Starts `container` and returns the connection to its monitor; `None`: the container runs already.
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
        // Another process is about to start, to end or to remove the container.
        let_things_settle(container)?;
    }
}

/// Removes a container. With `force`, a container that runs is killed first.
///
/// # Errors
/// Without `force`: the container runs, or is about to; or a newer program has made it ([`Newer`]).
pub fn remove(container: &Container, force: bool) -> Result<()> {
    loop {
        if let Some(life) = container.take_life()? {
            let unread = container.record().err();
            if let Some(newer) = unread.filter(|error| !force && error.is::<Newer>()) {
                return Err(newer);
            }
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
                // The container was to be removed when it ended.
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

/// Waits until a container has ended, and returns its exit code.
pub fn wait(container: &Container) -> Result<u8> {
    let record = container.record()?;
    // The container's process may have ended, and its monitor may be about to note that.
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
        // The record had the container's end when it was read first, and the container has been removed since.
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

/// Ends what a container's monitor should have taken along when it was killed, and didn't: a command that has changed
/// its user since, or was frozen; and the container's control groups. The calling process has to hold the container's
/// life.
pub fn end_orphan(container: &Container) -> Result<()> {
    if let Some(process) = orphan(container) {
        let _going = thaw(container)?;
        stop(&process, libc::SIGKILL, Some(Duration::ZERO))?;
    }
    // Where the monitor has put all in order there are no groups.
    match Groups::of(&container.id)?.is_empty() {
        true => Ok(()),
        false => sweep_all(),
    }
}

/// Whether a container without a monitor runs all the same. In version 1 of control groups, a frozen process gets
/// SIGKILL only when it goes on. So a container that was killed while it was frozen goes on here, and ends. The calling
/// process has to hold the container's life.
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

/// Whether SIGKILL is pending for the process `pid`.
fn is_killed(pid: i32) -> bool {
    let status = StatusFile::of(Pid::from_raw(pid));
    ["SigPnd", "ShdPnd"]
        .iter()
        .any(|set| status.has(set, libc::SIGKILL))
}

/// A container's *orphan*: its process, if this still runs although the container has no monitor.
pub fn orphan(container: &Container) -> Option<Identity> {
    // A record that can't be read tells nothing.
    container.record().ok()?.state.process.filter(is_running)
}

/// How long to sleep while another process is about to be through with a container.
const A_MOMENT: Duration = Duration::from_millis(1);

/// Waits while a container has a monitor, and doesn't run: until it runs, or has no monitor.
pub fn let_things_settle(container: &Container) -> Result<()> {
    match knock(container)? {
        Some(socket) => Connection::with(socket, &Message::Wait).wait_for_news(),
        // The monitor isn't listening yet, or no longer; or a command has the life, and is about to be through.
        None => {
            sleep(A_MOMENT);
            Ok(())
        }
    }
}

/// Ends a container that runs, or is about to run again: asks, waits, and insists. Returns when its monitor has gone,
/// too.
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
            // The monitor would start the container again if it weren't told.
            if connection.insist(&Message::End(request.rest))? == Answer::Silent {
                return kill_both(container, connection);
            }
        }
        if !runs {
            // The container was about to start or to end when its monitor heard. The next turn sees which of the two
            // happened.
            if connection.is_none() {
                sleep(A_MOMENT);
            }
            continue;
        }
        // Before its monitor heard, the container may have been started once more: the record is read again.
        let record = match container.record() {
            Err(_) if container.is_gone() => return Ok(()),
            record => record?,
        };
        let _going = match thaw(container) {
            Err(_) if container.is_gone() => return Ok(()),
            thawed => thawed?,
        };
        if let Some(process) = &record.state.process {
            let signal = request.signal.unwrap_or(record.plan.stop_signal());
            stop(process, signal, request.patience)?;
        }
        // Waiting for the life instead would be wrong: by now a process that starts the container may have it.
        return match connection {
            Some(connection) if connection.winds_up()? => Ok(()),
            Some(connection) => kill_both(container, &connection),
            None => wait_for_monitor(&record),
        };
    }
}

/// Has the kernel end a monitor that doesn't answer, and the container with it: neither is to be there without the
/// other.
fn kill_both(container: &Container, connection: &Connection) -> Result<()> {
    // The monitor is still there: no other process has its end of the connection.
    if let Ok(pidfd) = pidfd_open(connection.monitor()?) {
        send(&pidfd, libc::SIGKILL)?;
        wait_for_end(&pidfd, None)?;
    }
    match container.take_life() {
        Ok(Some(_life)) => end_orphan(container),
        // Another process has the life by now, or has removed the container.
        _ => Ok(()),
    }
}

/// Has the monitor kill a container whose record can't be read.
fn kill_unread(container: &Container) -> Result<()> {
    let _going = thaw(container)?;
    let Some(socket) = knock(container)? else {
        return Ok(());
    };
    let connection = Connection::with(socket, &Message::Wait);
    if connection.insist(&Message::End(Rest::ForGood))? == Answer::Silent {
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

/// Has the processes of a container go on, if it is paused: frozen processes get no signal, in version 1 of control
/// groups not even SIGKILL. Nobody pauses the container again as long as the returned lock is held.
pub fn thaw(container: &Container) -> Result<Lock> {
    let going = container.keep_going()?;
    let groups = Groups::of(&container.id)?;
    if groups.is_frozen().unwrap_or(false) {
        groups.freeze(false)?;
    }
    Ok(going)
}

//! What the kernel says of a container, whatever its record says.

use crate::container::Container;
use crate::container::record::{Phase, Record, Time};
use crate::is_running;
use anyhow::{Result, bail};
use serde::Serialize;
use std::time::Duration;
use step07_cgroups::cgroup::places::Groups;

/// What a container is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The container was never started.
    Created,
    /// The container's PID 1 is there.
    Running,
    /// The container's PID 1 is there, and frozen with all its other processes.
    Paused,
    /// The container has ended, and its monitor waits to start it again.
    Restarting,
    /// The container has ended. When its monitor didn't live to see that, nobody knows the exit code.
    Exited,
}

impl Status {
    /// Docker's word for this status.
    pub fn word(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Restarting => "restarting",
            Status::Exited => "exited",
        }
    }

    /// Whether a container of this status has processes.
    pub fn is_up(self) -> bool {
        matches!(self, Status::Running | Status::Paused)
    }
}

impl Container {
    /// What the container of `record` is doing.
    ///
    /// A record can say that a container runs when it doesn't any more: its monitor was killed before it could note the
    /// end, or the power failed. A record never says that a container doesn't run when it does: the container dies with
    /// its monitor, and a monitor notes the start before anybody is told of it.
    pub fn status(&self, record: &Record) -> Status {
        let state = &record.state;
        match state.phase {
            Phase::Created => Status::Created,
            Phase::Exited => Status::Exited,
            Phase::Restarting if state.monitor.as_ref().is_some_and(is_running) => {
                Status::Restarting
            }
            Phase::Running if state.process.as_ref().is_some_and(is_running) => {
                match is_paused(&record.id) {
                    true => Status::Paused,
                    false => Status::Running,
                }
            }
            Phase::Restarting | Phase::Running => Status::Exited,
        }
    }

    /// The container's record, if the container has processes.
    pub fn up(&self) -> Result<Record> {
        let record = self.record()?;
        match self.status(&record).is_up() {
            true => Ok(record),
            false => bail!(
                "container {0} isn't running\nhelp: `start {0}` starts it",
                record.name
            ),
        }
    }

    /// The container's record, if the container has processes that aren't frozen.
    pub fn awake(&self) -> Result<Record> {
        let record = self.up()?;
        match self.status(&record) {
            Status::Paused => bail!("container {0} is paused\nhelp: `unpause {0}`", record.name),
            _ => Ok(record),
        }
    }
}

fn is_paused(id: &str) -> bool {
    Groups::of(id).is_ok_and(|groups| groups.is_frozen().unwrap_or(false))
}

/// What `ps` says: `Up 5 minutes`, `Exited (0) 2 hours ago`.
pub fn sentence(record: &Record, status: Status) -> String {
    let ago = |time: Option<Time>| time.map_or("".into(), |time| format!(" {} ago", rough(time)));
    let since = |time: Option<Time>| time.map_or("".into(), |time| format!(" {}", rough(time)));
    let state = &record.state;
    match status {
        Status::Created => "Created".into(),
        Status::Running => format!("Up{}", since(state.started)),
        Status::Paused => format!("Up{} (Paused)", since(state.started)),
        Status::Restarting => format!(
            "Restarting ({}){}",
            state.exit_code.unwrap_or(0),
            ago(state.finished)
        ),
        Status::Exited => match (state.phase, state.exit_code) {
            (Phase::Exited | Phase::Restarting, Some(code)) => {
                format!("Exited ({code}){}", ago(state.finished))
            }
            // The monitor is about to note how the container ended.
            _ if state.monitor.as_ref().is_some_and(is_running) => "Exiting".into(),
            _ => "Exited (unknown)".into(),
        },
    }
}

/// How long ago `time` was, as people say it: `5 minutes`.
pub fn rough(time: Time) -> String {
    rough_duration(time.elapsed())
}

/// A duration as Docker says it.
fn rough_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours) = (seconds / 60, (seconds as f64 / 3600.0).round() as u64);
    match (seconds, hours) {
        (0, _) => "Less than a second".into(),
        (1, _) => "1 second".into(),
        (2..60, _) => format!("{seconds} seconds"),
        (60..120, _) => "About a minute".into(),
        (120..3600, _) => format!("{minutes} minutes"),
        (_, ..=1) => "About an hour".into(),
        (_, 2..48) => format!("{hours} hours"),
        (_, 48..336) => format!("{} days", hours / 24),
        (_, 336..1440) => format!("{} weeks", hours / 24 / 7),
        (_, 1440..17520) => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_docker_says_them() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (150, "2 minutes"),
            (3600, "About an hour"),
            (7300, "2 hours"),
            (3 * 86400, "3 days"),
            (30 * 86400, "4 weeks"),
            (800 * 86400, "2 years"),
        ] {
            assert_eq!(rough_duration(Duration::from_secs(seconds)), text);
        }
    }
}

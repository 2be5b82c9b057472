//! What is known of a container: `config.json` in its folder.

use crate::Identity;
use crate::container::name;
use crate::container::plan::ContainerArgs;
use anyhow::{Error, Result, bail};
use humantime::{format_rfc3339_nanos, parse_rfc3339};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::time::{Duration, SystemTime};

/// A container, as `config.json` has it. The record alone doesn't say whether the container runs: see
/// [`status`](crate::container::status).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// 64 hexadecimal digits, never given twice.
    pub id: String,
    /// What people call it; no other container has the same name.
    pub name: String,
    /// When it was made.
    pub created: Time,
    /// What was asked for. Paths are absolute, and variables have their values.
    pub arguments: ContainerArgs,
    /// What has become of the container.
    pub state: State,
}

/// What has become of a container.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct State {
    /// How far the container had got when this was written.
    pub phase: Phase,
    /// PID 1 of the container, while it runs.
    pub process: Option<Identity>,
    /// The process that waits for the container to end.
    pub monitor: Option<Identity>,
    /// When it was started last.
    pub started: Option<Time>,
    /// When it ended last.
    pub finished: Option<Time>,
    /// The exit code; 128+N for signal N.
    pub exit_code: Option<u8>,
    /// Whether the kernel killed one of its processes for want of memory.
    pub oom_killed: bool,
    /// Why it didn't start, or what there is to say about its end.
    pub error: Option<String>,
    /// How often the policy has started it again, since somebody started it.
    pub restarts: u32,
    /// Whether somebody stopped the container, and doesn't want it back after a reboot.
    pub stopped: bool,
}

/// How far a container has got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The container was never started.
    #[default]
    Created,
    /// The container has a process.
    Running,
    /// The container has ended, and its monitor is about to start it again.
    Restarting,
    /// The container has ended.
    Exited,
}

/// A moment; in the record as text, `2026-11-22T21:48:50.123456789Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub SystemTime);

impl Time {
    /// The present moment.
    pub fn now() -> Time {
        Time(SystemTime::now())
    }

    /// How long ago this moment was.
    pub fn elapsed(self) -> Duration {
        self.0.elapsed().unwrap_or_default()
    }

    /// As text: RFC 3339.
    pub fn text(self) -> String {
        format_rfc3339_nanos(self.0).to_string()
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_rfc3339_nanos(self.0))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_rfc3339(&text).map(Time).map_err(de::Error::custom)
    }
}

impl Record {
    /// Reads the record of the container `id`.
    ///
    /// # Errors
    /// The text makes no sense: a disk, or a hand, has changed it. What a record says is counted on everywhere.
    pub fn read(text: &[u8], id: &str) -> Result<Record> {
        let record: Record = serde_json::from_slice(text)?;
        if record.id != id {
            bail!("it is the record of {:?}", record.id);
        }
        if record.arguments.command.is_empty() {
            bail!("it has no command");
        }
        name::valid(&record.name).map_err(Error::msg)?;
        Ok(record)
    }

    /// The digits of the ID that people are shown.
    pub fn short_id(&self) -> &str {
        &self.id[..SHORT]
    }

    /// The container's hostname: the first digits of its ID, unless somebody has chosen another.
    pub fn hostname(&self) -> &str {
        let chosen = self.arguments.hostname.as_deref();
        chosen.unwrap_or(self.short_id())
    }
}

/// How many digits of an ID people are shown.
pub const SHORT: usize = 12;

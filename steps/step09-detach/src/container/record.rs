//! What is known of a container: `config.json` in its folder.

use crate::Identity;
use crate::container::name;
use crate::container::plan::ContainerArgs;
use anyhow::{Error, Result, bail};
use humantime::{format_rfc3339_nanos, parse_rfc3339};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::time::{Duration, SystemTime};

/// A container, as `config.json` has it. Whether it runs is not for the record to say alone: see
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
    /// What has become of it.
    pub state: State,
}

/// What has become of a container.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct State {
    /// How far its life had got when this was written.
    pub phase: Phase,
    /// PID 1 of the container, while it runs.
    pub process: Option<Identity>,
    /// Who waits for it to end.
    pub monitor: Option<Identity>,
    /// When it was started last.
    pub started: Option<Time>,
    /// When it ended last.
    pub finished: Option<Time>,
    /// What it ended with; 128+N for signal N.
    pub exit_code: Option<u8>,
    /// Whether the kernel killed one of its processes for want of memory.
    pub oom_killed: bool,
    /// Why it didn't start, or what there is to say about its end.
    pub error: Option<String>,
    /// How often the policy has started it again, since somebody started it.
    pub restarts: u32,
    /// Whether somebody stopped it, who doesn't want it back after a reboot.
    pub stopped: bool,
}

/// How far a container's life has got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It was never started.
    #[default]
    Created,
    /// It has a process.
    Running,
    /// It has ended, and its monitor is about to start it again.
    Restarting,
    /// It has ended.
    Exited,
}

/// A moment; in the record as text, `2026-11-22T21:48:50.123456789Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub SystemTime);

impl Time {
    /// Now.
    pub fn now() -> Time {
        Time(SystemTime::now())
    }

    /// How long ago that was.
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
    /// It makes no sense: a disk, or a hand, has changed it. What it says is counted on everywhere.
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

    /// As much of the ID as people are shown.
    pub fn short_id(&self) -> &str {
        &self.id[..SHORT]
    }

    /// What it calls its host: the ID, unless somebody has chosen.
    pub fn hostname(&self) -> &str {
        let chosen = self.arguments.hostname.as_deref();
        chosen.unwrap_or(self.short_id())
    }
}

/// As many digits of an ID as people are shown.
pub const SHORT: usize = 12;

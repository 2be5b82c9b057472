//! What is known of a container: `config.json` in its folder.

use crate::Identity;
use crate::container::name;
use crate::container::plan::{Plan, SHORT, VERSION};
use anyhow::{Context, Error, Result, bail};
use humantime::{format_rfc3339_nanos, parse_rfc3339};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;
use std::fmt::{self, Display, Formatter};
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
    pub plan: Plan,
    /// What has become of the container.
    #[serde(default)]
    pub state: State,
    /// Whether an older program wrote this, whose monitor can't read what is written today.
    #[serde(skip)]
    pub of_older_program: bool,
}

/// What has become of a container.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
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
    /// [`Newer`]; or the text makes no sense: a disk, or a hand, has changed it. What a record says is counted on
    /// everywhere, so no word of it may be one that means nothing: it may have said what the container mustn't do.
    pub fn read(text: &[u8], id: &str) -> Result<Record> {
        let (value, of_older_program) = upgraded(serde_json::from_slice(text)?)?;
        let mut record = Record::deserialize(&value)?;
        understood(&value, &serde_json::to_value(&record)?)?;
        if record.id != id {
            bail!("it is the record of {:?}", record.id);
        }
        if record.plan.command().is_empty() {
            bail!("it has no command");
        }
        name::valid(&record.name).map_err(Error::msg)?;
        record.of_older_program = of_older_program;
        Ok(record)
    }

    /// The digits of the ID that people are shown.
    pub fn short_id(&self) -> &str {
        &self.id[..SHORT]
    }

    /// The container's hostname: the first digits of its ID, unless somebody has chosen another.
    pub fn hostname(&self) -> &str {
        self.plan.hostname(&self.id)
    }
}

/// A record that a newer program has written, in a form that this one doesn't know.
#[derive(Debug)]
pub struct Newer(u64);

impl Display for Newer {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let version = self.0;
        write!(
            f,
            "it is of version {version}, and this program knows up to {VERSION}\nhelp: take the program that wrote it"
        )
    }
}

impl std::error::Error for Newer {}

/// A record in the form of today, whatever form it was written in; and whether that was an older one.
fn upgraded(mut record: Value) -> Result<(Value, bool)> {
    let Some(fields) = record.as_object_mut() else {
        bail!("it is no object");
    };
    // Before the first version the plan was called otherwise, and the network was an object in it.
    let Some(mut plan) = fields.remove("arguments") else {
        return match record.pointer("/plan/version").map(Value::as_u64) {
            Some(Some(version)) if version > VERSION.into() => Err(Newer(version).into()),
            None | Some(Some(1..)) => Ok((record, false)),
            Some(_) => bail!("its version is none"),
        };
    };
    if let Some(plan) = plan.as_object_mut() {
        if let Some(mut network) = plan.remove("network") {
            let fields = network.as_object_mut().filter(|fields| fields.len() == 1);
            let Some(network) = fields.and_then(|fields| fields.remove("network")) else {
                bail!("its network is none");
            };
            plan.insert("network".into(), network);
        }
        if plan.insert("version".into(), VERSION.into()).is_some() {
            bail!("it has a version, and is of before there were any");
        }
    }
    match fields.insert("plan".into(), plan) {
        None => Ok((record, true)),
        Some(_) => bail!("it has two plans"),
    }
}

/// Fails when `text` has a word that isn't in `record`, which was read from it.
fn understood(text: &Value, record: &Value) -> Result<()> {
    match (text, record) {
        (Value::Object(words), Value::Object(known)) => {
            for (word, value) in words {
                let known = known
                    .get(word)
                    .with_context(|| format!("it says {word:?}, which means nothing"))?;
                understood(value, known)?;
            }
            Ok(())
        }
        (Value::Array(items), Value::Array(known)) => {
            let mut pairs = items.iter().zip(known);
            pairs.try_for_each(|(item, known)| understood(item, known))
        }
        (_, Value::Object(_)) => bail!("it has {text} for an object"),
        _ => Ok(()),
    }
}

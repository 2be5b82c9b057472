//! `stats`: what containers use.

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use std::collections::HashMap;
use std::fs;
use std::io::{IsTerminal, stdout};
use std::thread::sleep;
use std::time::{Duration, Instant};
use step01_uts::say;
use step04_pivot_root::state::StateDir;
use step07_cgroups::cgroup::places::Groups;
use step07_cgroups::cgroup::usage::{Current, size};
use step09_detach::commands::ps::{ListFormat, table};
use step09_detach::container::record::Record;
use step09_detach::container::store::Store;

/// Show what containers use: processor, memory, network, processes
#[derive(Debug, Args)]
pub struct Stats {
    /// Once, and not for ever
    #[arg(long)]
    no_stream: bool,

    /// A table, or a JSON object a line
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: ListFormat,

    /// The containers, by their names or their IDs; all that run, without any
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,

    #[command(flatten)]
    state: StateDir,
}

/// The time between two looks, in which the use of the processor is measured.
const INTERVAL: Duration = Duration::from_secs(1);

/// A line of the table. The JSON keys are Docker's names.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Line {
    #[serde(rename = "ID")]
    id: String,
    name: String,
    #[serde(rename = "CPUPerc")]
    cpu: String,
    mem_usage: String,
    #[serde(rename = "MemPerc")]
    memory: String,
    #[serde(rename = "NetIO")]
    net: String,
    #[serde(rename = "PIDs")]
    pids: String,
}

impl Stats {
    /// Shows what containers use, once or again and again: until the user ends it, or none of the named containers
    /// runs any more.
    pub fn run(&self) -> Result<u8> {
        let store = Store::open(&self.state)?;
        let mut wanted = Vec::new();
        for name in &self.containers {
            wanted.push(store.find(name)?.up()?.id);
        }
        let clears = !self.no_stream && self.format == ListFormat::Table && stdout().is_terminal();
        let mut before = measure(&running(&store, &wanted)?);
        loop {
            sleep(INTERVAL);
            let records = running(&store, &wanted)?;
            let after = measure(&records);
            let lines = records.iter().filter_map(|record| {
                let now = after.get(&record.id)?;
                Some(line(record, before.get(&record.id).unwrap_or(now), now))
            });
            let text = self.show(lines)?;
            let clear = if clears { "\x1b[H\x1b[J" } else { "" };
            if !text.is_empty() {
                say(format!("{clear}{text}"))?;
            }
            if self.no_stream {
                return Ok(0);
            }
            if records.is_empty() && !self.containers.is_empty() {
                return Ok(0);
            }
            before = after;
        }
    }

    fn show(&self, lines: impl Iterator<Item = Line>) -> Result<String> {
        if self.format == ListFormat::Json {
            let lines: Result<Vec<String>, _> =
                lines.map(|line| serde_json::to_string(&line)).collect();
            return Ok(lines?.join("\n"));
        }
        let heading = [
            "CONTAINER ID",
            "NAME",
            "CPU %",
            "MEM USAGE / LIMIT",
            "MEM %",
            "NET I/O",
            "PIDS",
        ];
        let cells = |line: Line| {
            [
                line.id,
                line.name,
                line.cpu,
                line.mem_usage,
                line.memory,
                line.net,
                line.pids,
            ]
        };
        Ok(table(heading, lines.map(cells)))
    }
}

/// The records of the containers that run: only those among the `wanted` IDs, if there are any.
fn running(store: &Store, wanted: &[String]) -> Result<Vec<Record>> {
    let records = store.records()?.records.into_iter();
    let is_wanted = |id: &String| wanted.is_empty() || wanted.contains(id);
    Ok(records
        .filter(|(container, record)| container.status(record).is_up() && is_wanted(&record.id))
        .map(|(_, record)| record)
        .collect())
}

/// A look at a container.
struct Look {
    when: Instant,
    current: Current,
    /// Bytes received and sent.
    net: (u64, u64),
}

fn measure(records: &[Record]) -> HashMap<String, Look> {
    let look = |record: &Record| {
        let groups = Groups::of(&record.id).ok()?;
        let pid = record.state.process.as_ref()?.pid;
        let look = Look {
            when: Instant::now(),
            current: groups.current(),
            net: network(pid),
        };
        Some((record.id.clone(), look))
    };
    records.iter().filter_map(look).collect()
}

/// The bytes that the interfaces of a process's network have received and sent, except the loopback.
fn network(pid: i32) -> (u64, u64) {
    let text = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    let counts = text.lines().filter_map(|line| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers.split_whitespace().flat_map(str::parse).collect();
        (name.trim() != "lo").then_some((*numbers.first()?, *numbers.get(8)?))
    });
    counts.fold((0, 0), |(r, s), (received, sent)| (r + received, s + sent))
}

fn line(record: &Record, before: &Look, now: &Look) -> Line {
    let elapsed = now.when.duration_since(before.when).as_secs_f64();
    let used = now.current.cpu_time.saturating_sub(before.current.cpu_time);
    let cpu = match elapsed > 0.0 {
        true => used.as_secs_f64() / elapsed * 100.0,
        false => 0.0,
    };
    let memory = now.current.memory;
    let limit = now.current.memory_limit.unwrap_or_else(all_memory).max(1);
    Line {
        id: record.short_id().into(),
        name: record.name.clone(),
        cpu: format!("{cpu:.2}%"),
        mem_usage: format!("{} / {}", size(memory), size(limit)),
        memory: format!("{:.2}%", memory as f64 / limit as f64 * 100.0),
        net: format!("{} / {}", size(now.net.0), size(now.net.1)),
        pids: now.current.pids.to_string(),
    }
}

/// The machine's memory in bytes: proc_meminfo(5).
fn all_memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes = total.and_then(|total| total.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

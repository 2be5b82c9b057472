//! `events`: what a container uses, now and again, and when its memory ran out.

use crate::Status;
use crate::commands::global::Global;
use crate::report::Trouble;
use crate::state::known::Known;
use anyhow::{Result, bail};
use clap::Args;
use serde_json::{Map, Value, json};
use std::fs;
use std::time::Duration;
use step01_uts::say;
use step07_cgroups::Version;
use step09_detach::wait_for_end;

/// Print what a container uses, as JSON, a line at a time
#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Once, and then end
    #[arg(long)]
    stats: bool,

    /// The time between two lines, such as 5s
    #[arg(long, value_name = "TIME", default_value = "5s", hide_default_value = true, value_parser = humantime::parse_duration)]
    interval: Duration,

    /// The container's ID
    id: String,
}

impl Events {
    pub(crate) fn run(&self, global: &Global) -> Result<u8> {
        if self.interval.is_zero() {
            bail!("--interval: it has to be more than 0");
        }
        let known = global.find(&self.id)?;
        if known.status()? == Status::Stopped {
            return Err(Trouble::NotRunning.into());
        }
        let Some(process) = known.state()?.process.open()? else {
            return Err(Trouble::NotRunning.into());
        };
        let line = |kind: &str, data: Value| {
            say(json!({"type": kind, "id": self.id, "data": data}).to_string())
        };
        let kills = || known.groups.usage().oom_kills.map_or(0, |(kills, _)| kills);
        let mut seen = kills();
        loop {
            line("stats", stats(&known))?;
            let has_ended = self.stats || wait_for_end(&process, Some(self.interval))?;
            if kills() > seen {
                seen = kills();
                say(json!({"type": "oom", "id": self.id}).to_string())?;
            }
            if has_ended {
                return Ok(0);
            }
        }
    }
}

/// The accounts of the container's groups, by runc's names.
fn stats(known: &Known) -> Value {
    let version = |controller: &str| known.groups.folder(controller).map(|(_, version)| version);
    let text = |controller: &str, file: &str| {
        let (folder, _) = known.groups.folder(controller)?;
        fs::read_to_string(folder.join(file)).ok()
    };
    let number = |controller: &str, file: &str| -> u64 {
        let text = text(controller, file).unwrap_or_default();
        // Version 2 says max, and version 1 a number as large as its counters go.
        text.trim()
            .parse()
            .unwrap_or(if text.trim() == "max" { u64::MAX } else { 0 })
    };
    let table = |controller: &str, file: &str| -> Map<String, Value> {
        let text = text(controller, file).unwrap_or_default();
        let pair = |line: &str| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), json!(value.trim().parse::<u64>().ok()?)))
        };
        text.lines().filter_map(pair).collect()
    };
    let get =
        |table: &Map<String, Value>, key: &str| table.get(key).and_then(Value::as_u64).unwrap_or(0);

    let time = table("cpu", "cpu.stat");
    let cpu = match version("cpu") {
        Some(Version::V2) => json!({
            "usage": {
                "total": get(&time, "usage_usec") * 1000,
                "kernel": get(&time, "system_usec") * 1000,
                "user": get(&time, "user_usec") * 1000,
            },
            "throttling": {
                "periods": get(&time, "nr_periods"),
                "throttledPeriods": get(&time, "nr_throttled"),
                "throttledTime": get(&time, "throttled_usec") * 1000,
            },
        }),
        _ => {
            let each = text("cpuacct", "cpuacct.usage_percpu").unwrap_or_default();
            let each: Vec<u64> = each.split_whitespace().flat_map(str::parse).collect();
            json!({
                "usage": {
                    "total": number("cpuacct", "cpuacct.usage"),
                    "percpu": each,
                    "kernel": number("cpuacct", "cpuacct.usage_sys"),
                    "user": number("cpuacct", "cpuacct.usage_user"),
                },
                "throttling": {
                    "periods": get(&time, "nr_periods"),
                    "throttledPeriods": get(&time, "nr_throttled"),
                    "throttledTime": get(&time, "throttled_time"),
                },
            })
        }
    };
    let raw = table("memory", "memory.stat");
    let memory = match version("memory") {
        Some(Version::V2) => json!({
            "cache": get(&raw, "file"),
            "usage": {
                "usage": number("memory", "memory.current"),
                "max": number("memory", "memory.peak"),
                "limit": number("memory", "memory.max"),
                "failcnt": get(&table("memory", "memory.events"), "max"),
            },
            "swap": {
                "usage": number("memory", "memory.swap.current"),
                "limit": number("memory", "memory.swap.max"),
            },
            "raw": raw,
        }),
        _ => {
            let usage = |begin: &str| {
                json!({
                    "usage": number("memory", &format!("{begin}.usage_in_bytes")),
                    "max": number("memory", &format!("{begin}.max_usage_in_bytes")),
                    "limit": number("memory", &format!("{begin}.limit_in_bytes")),
                    "failcnt": number("memory", &format!("{begin}.failcnt")),
                })
            };
            json!({
                "cache": get(&raw, "cache"),
                "usage": usage("memory"),
                "swap": usage("memory.memsw"),
                "kernel": usage("memory.kmem"),
                "kernelTCP": usage("memory.kmem.tcp"),
                "raw": raw,
            })
        }
    };
    json!({
        "cpu": cpu,
        "memory": memory,
        "pids": {"current": number("pids", "pids.current"), "limit": match number("pids", "pids.max") {
            // No limit.
            u64::MAX => 0,
            limit => limit,
        }},
        "blkio": {"ioServiceBytesRecursive": disks(text("blkio", "blkio.throttle.io_service_bytes_recursive").or_else(|| text("blkio", "blkio.throttle.io_service_bytes")))},
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": null,
    })
}

/// Bytes by disk and kind: lines such as `8:0 Read 4096`.
fn disks(text: Option<String>) -> Vec<Value> {
    let entry = |line: &str| {
        let mut words = line.split_whitespace();
        let (major, minor) = words.next()?.split_once(':')?;
        let (op, value) = (words.next()?, words.next()?);
        Some(json!({
            "major": major.parse::<u64>().ok()?,
            "minor": minor.parse::<u64>().ok()?,
            "op": op,
            "value": value.parse::<u64>().ok()?,
        }))
    };
    text.unwrap_or_default().lines().filter_map(entry).collect()
}

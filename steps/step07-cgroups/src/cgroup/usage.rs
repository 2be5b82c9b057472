//! What a container has used, by its control groups' own accounts.

use crate::cgroup::places::Groups;
use crate::{Cgroup, Version};
use anyhow::Result;
use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use step01_uts::program::Ended;

/// What the processes of a control group have used together.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    /// The most memory at any moment, in bytes.
    pub memory_peak: Option<u64>,
    /// Processor time, of all processors together.
    pub cpu_time: Option<Duration>,
    /// The number of periods with runnable processes, in how many of these periods the quota was used
    /// up, and how long the processes waited then.
    pub throttled: Option<(u64, u64, Duration)>,
    /// The most processes and threads at any moment.
    pub pids_peak: Option<u64>,
    /// How many processes the kernel has killed because memory was used up, and the file that says
    /// so.
    pub oom_kills: Option<(u64, PathBuf)>,
}

impl Groups {
    /// Reads the groups' accounts.
    pub fn usage(&self) -> Usage {
        let text = |controller, v1: &str, v2: &str| {
            let (folder, version) = self.folder(controller)?;
            let file = folder.join(if version == Version::V1 { v1 } else { v2 });
            let text = fs::read_to_string(&file).ok()?;
            Some((file, text, version))
        };
        let number = |controller, v1, v2| {
            let (_, text, _) = text(controller, v1, v2)?;
            text.trim().parse::<u64>().ok()
        };
        Usage {
            memory_peak: number("memory", "memory.max_usage_in_bytes", "memory.peak"),
            cpu_time: text("cpuacct", "cpuacct.usage", "cpu.stat").and_then(
                |(_, text, version)| match version {
                    Version::V1 => text.trim().parse().ok().map(Duration::from_nanos),
                    Version::V2 => value(&text, "usage_usec").map(Duration::from_micros),
                },
            ),
            throttled: text("cpu", "cpu.stat", "cpu.stat").and_then(|(_, text, version)| {
                let waited = match version {
                    Version::V1 => Duration::from_nanos(value(&text, "throttled_time")?),
                    Version::V2 => Duration::from_micros(value(&text, "throttled_usec")?),
                };
                let (periods, throttled) =
                    (value(&text, "nr_periods")?, value(&text, "nr_throttled")?);
                Some((periods, throttled, waited))
            }),
            pids_peak: number("pids", "pids.peak", "pids.peak"),
            oom_kills: text("memory", "memory.oom_control", "memory.events")
                .and_then(|(file, text, _)| Some((value(&text, "oom_kill")?, file))),
        }
    }
}

/// What the processes of a control group use together at this moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Current {
    /// Memory in bytes, without what the kernel would give up at once: files that nobody has used for a while.
    pub memory: u64,
    /// The most memory that the container may use.
    pub memory_limit: Option<u64>,
    /// Processor time since the beginning, of all processors together.
    pub cpu_time: Duration,
    /// Processes and threads.
    pub pids: u64,
}

impl Groups {
    /// Reads what the groups use now.
    pub fn current(&self) -> Current {
        let text = |controller, v1: &str, v2: &str| {
            let (folder, version) = self.folder(controller)?;
            let file = if version == Version::V1 { v1 } else { v2 };
            fs::read_to_string(folder.join(file)).ok()
        };
        let number =
            |controller, v1, v2| -> Option<u64> { text(controller, v1, v2)?.trim().parse().ok() };
        let stat = text("memory", "memory.stat", "memory.stat").unwrap_or_default();
        let inactive = value(&stat, "total_inactive_file").or(value(&stat, "inactive_file"));
        let used = number("memory", "memory.usage_in_bytes", "memory.current");
        Current {
            memory: used.unwrap_or(0).saturating_sub(inactive.unwrap_or(0)),
            // For "no limit", version 1 has a number as large as its counters go.
            memory_limit: number("memory", "memory.limit_in_bytes", "memory.max")
                .filter(|limit| *limit < i64::MAX as u64 / 2),
            cpu_time: self.usage().cpu_time.unwrap_or_default(),
            pids: number("pids", "pids.current", "pids.current").unwrap_or(0),
        }
    }
}

impl Cgroup {
    /// Ends the account: removes the groups, prints the usage when `stats` asks for it, and adds to the
    /// command's `outcome` that memory ran out, if it did.
    pub fn settle(mut self, outcome: Result<u8>, stats: bool) -> Result<u8> {
        let (usage, limit) = (self.groups().usage(), self.limits().memory);
        if let Err(error) = self.remove() {
            // The command has ended, and its outcome is what counts.
            eprintln!(
                "{error:#}\nhelp: the next run removes what is left, when nobody is in it any more"
            );
        }
        if stats {
            eprintln!("{usage}");
        }
        match (outcome, usage.out_of_memory(limit)) {
            (Ok(code), Some(text)) => Err(Ended { code, text }.into()),
            (outcome, _) => outcome,
        }
    }
}

/// The number behind `key` on a line of its own.
fn value(text: &str, key: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    line?.trim().parse().ok()
}

impl Usage {
    /// The message when memory ran out, whatever the command ended with.
    pub fn out_of_memory(&self, limit: Option<u64>) -> Option<String> {
        let (kills, file) = self.oom_kills.as_ref().filter(|(kills, _)| *kills > 0)?;
        let processes = if *kills == 1 {
            "a process"
        } else {
            "processes"
        };
        let limit = limit.map_or("the machine's".into(), size);
        let peak = self.memory_peak.map_or("unknown".into(), size);
        Some(format!(
            "memory ran out, and the kernel killed {processes} of the container: limit {limit}, peak {peak} \
             ({}: oom_kill {kills})\nhelp: give it more with --memory",
            file.display()
        ))
    }
}

/// Four lines, for `--stats`.
impl Display for Usage {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let unknown = || "this kernel doesn't tell".to_owned();
        let seconds = |time: Duration| format!("{:.3} s", time.as_secs_f64());
        writeln!(
            f,
            "memory peak: {}",
            self.memory_peak.map_or_else(unknown, size)
        )?;
        writeln!(
            f,
            "CPU time: {}",
            self.cpu_time.map_or_else(unknown, seconds)
        )?;
        let throttled = self.throttled.map(|(periods, throttled, waited)| {
            format!(
                "{throttled} of {periods} periods, {} together",
                seconds(waited)
            )
        });
        writeln!(f, "throttled: {}", throttled.unwrap_or_else(unknown))?;
        let peak = self.pids_peak.map(|peak| peak.to_string());
        write!(f, "pids peak: {}", peak.unwrap_or_else(unknown))
    }
}

/// Bytes as people read them: `100.0 MiB`.
pub fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let power = (bytes.max(1).ilog2() / 10).min(4);
    match power {
        0 => format!("{bytes} B"),
        _ => format!(
            "{:.1} {}",
            bytes as f64 / 1024_f64.powi(power as i32),
            units[power as usize]
        ),
    }
}

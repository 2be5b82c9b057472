//! The flags for limits: sizes, shares, sets of processors.

use crate::devices::{DEFAULT_RULES, Devices, all_of_the_host};
use crate::limits::{Limits, PERIOD, Swap};
use crate::rlimits::Ulimit;
use anyhow::{Context, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::fs;
use std::str::FromStr;
use step05_tty::{DEVICES, Device};

/// What the container may use up.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[command(next_help_heading = "Limits")]
pub struct LimitArgs {
    /// The most memory it may use, in bytes or with b, k, m or g behind
    #[arg(short, long, value_name = "SIZE", allow_negative_numbers = true, value_parser = size)]
    pub memory: Option<u64>,

    /// Its memory and swap together; -1: no limit on swap [default: twice the memory]
    #[arg(long, value_name = "SIZE", value_parser = size_or_unlimited, allow_negative_numbers = true)]
    pub memory_swap: Option<Swap>,

    /// How many processors' time it may use at most, such as 0.5; 0: no limit
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, value_parser = Cpus::from_str)]
    pub cpus: Option<Cpus>,

    /// Its weight beside other groups when processors are scarce: 2 to 262144, and 1024 is usual
    #[arg(long, value_name = "WEIGHT", allow_negative_numbers = true, value_parser = shares)]
    pub cpu_shares: Option<u64>,

    /// The processors it may run on, such as 0-2,4
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,

    /// The most processes and threads it may have; 0 or -1: no limit
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, value_parser = pids)]
    pub pids_limit: Option<i64>,

    /// A limit of each process by itself, such as nofile=1024:2048: setrlimit(2)
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = Ulimit::from_str)]
    pub ulimit: Vec<Ulimit>,

    /// A device of the host: PATH, PATH:PATH-INSIDE or PATH:PATH-INSIDE:rwm
    #[arg(long, value_name = "DEVICE", value_parser = Devices::parse)]
    pub device: Vec<Devices>,

    /// Print at the end what the container used: memory, processor time, processes
    #[arg(long)]
    pub stats: bool,
}

/// Processor time, in millionths of one processor's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpus(u64);

impl LimitArgs {
    /// Checks the flags against each other and against this machine. Returns the limits, and the devices
    /// that the container's /dev has. A `privileged` container has all of the host's, and may use them.
    ///
    /// # Errors
    /// A limit that nothing could run in, or more than there is; a device that isn't there.
    pub fn resolve(&self, privileged: bool) -> Result<(Limits, Vec<Device<'static>>)> {
        let mut rules = DEFAULT_RULES.to_vec();
        let mut devices = if privileged {
            all_of_the_host()?
        } else {
            Vec::new()
        };
        for asked in &self.device {
            for (device, rule) in asked.resolve()? {
                devices.retain(|other| other.path != device.path);
                devices.push(device);
                rules.push(rule);
            }
        }
        let usual = DEVICES
            .iter()
            .filter(|usual| devices.iter().all(|device| device.path != usual.path));
        let devices = usual.cloned().chain(devices.iter().cloned()).collect();

        let online = online()?;
        let limits = Limits {
            memory: self.memory.filter(|bytes| *bytes > 0),
            memory_swap: self.swap()?,
            cpu_quota: self.quota(online.len())?,
            cpu_shares: self.cpu_shares.filter(|shares| *shares != 0),
            cpuset_cpus: self.processors(&online)?,
            pids: self
                .pids_limit
                .filter(|most| *most > 0)
                .map(|most| most as u64),
            devices: (!privileged).then_some(rules),
            freezer: false,
        };
        Ok((limits, devices))
    }

    fn swap(&self) -> Result<Option<(Swap, bool)>> {
        let memory = self.memory.filter(|bytes| *bytes > 0);
        let swap = self.memory_swap.filter(|swap| *swap != Swap::Bytes(0));
        match (memory, swap) {
            (None, None) => Ok(None),
            (None, Some(_)) => {
                bail!("--memory-swap is memory and swap together, so it needs --memory too")
            }
            (Some(memory), None) => Ok(Some((Swap::Bytes(memory.saturating_mul(2)), false))),
            (Some(memory), Some(Swap::Bytes(both))) if both < memory => bail!(
                "--memory-swap {both}: it is memory and swap together, so it can't be less than --memory \
                 {memory}"
            ),
            (Some(_), Some(swap)) => Ok(Some((swap, true))),
        }
    }

    fn quota(&self, processors: usize) -> Result<Option<u64>> {
        let Some(Cpus(millionths)) = self.cpus.filter(|cpus| cpus.0 > 0) else {
            return Ok(None);
        };
        let asked = millionths as f64 / 1e6;
        if millionths > processors as u64 * 1_000_000 {
            bail!(
                "--cpus {asked}: this machine has {processors} processors\nhelp: 0.01 to {processors}.00, or 0 for no limit"
            );
        }
        Ok(Some(millionths * PERIOD / 1_000_000))
    }

    fn processors(&self, online: &[usize]) -> Result<Option<String>> {
        let Some(list) = &self.cpuset_cpus else {
            return Ok(None);
        };
        let shown: Vec<_> = online.iter().map(usize::to_string).collect();
        let shown = shown.join(",");
        let asked = processors(list).with_context(|| format!("--cpuset-cpus {list}"))?;
        match asked.iter().find(|number| !online.contains(number)) {
            Some(number) => bail!(
                "--cpuset-cpus {list}: this machine has no processor {number}\nhelp: it has {shown}"
            ),
            None => Ok(Some(list.clone())),
        }
    }
}

/// The processors that are online: /sys/devices/system/cpu/online.
fn online() -> Result<Vec<usize>> {
    let file = "/sys/devices/system/cpu/online";
    processors(fs::read_to_string(file).context(file)?.trim())
}

/// A list such as `0-2,4`: cpuset(7).
fn processors(list: &str) -> Result<Vec<usize>> {
    let mut all = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (first.parse::<usize>(), last.parse::<usize>()) {
            (Ok(first), Ok(last)) if first <= last && last < 65536 => all.extend(first..=last),
            _ => bail!("a list of processors looks like 0-2,4"),
        }
    }
    Ok(all)
}

/// The least memory that Docker takes: with less, not even a runtime can do its work.
const LEAST_MEMORY: u64 = 6 * 1024 * 1024;

fn size(text: &str) -> Result<u64, String> {
    match bytes(text)? {
        // No limit, as with Docker.
        0 => Ok(0),
        1..LEAST_MEMORY => Err("nothing can run in that: it has to be 6m at least".into()),
        bytes => Ok(bytes),
    }
}

fn size_or_unlimited(text: &str) -> Result<Swap, String> {
    match text {
        "-1" => Ok(Swap::Unlimited),
        _ => Ok(Swap::Bytes(bytes(text)?)),
    }
}

/// `512`, `64k`, `1.5g`, `100MiB`: bytes, and powers of 1024.
pub fn bytes(text: &str) -> Result<u64, String> {
    let wrong =
        || "a size is a number, with b, k, m, g or t behind if it isn't bytes: 64m".to_owned();
    let lower = text.to_lowercase();
    let end = lower
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    let unit = unit
        .strip_suffix("ib")
        .or(unit.strip_suffix('b'))
        .unwrap_or(unit);
    let power = ["", "k", "m", "g", "t"]
        .iter()
        .position(|known| *known == unit)
        .ok_or_else(wrong)?;
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let bytes = number * 1024_f64.powi(power as i32);
    // Page counters of the kernel end at 2^63.
    match bytes < i64::MAX as f64 {
        true => Ok(bytes as u64),
        false => Err("that is more than there can be".into()),
    }
}

impl FromStr for Cpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Cpus, String> {
        let plain = text.chars().all(|c| c.is_ascii_digit() || c == '.');
        match text.parse::<f64>() {
            Ok(number) if plain && number == 0.0 => Ok(Cpus(0)),
            Ok(number) if plain && (0.01..1e6).contains(&number) => {
                Ok(Cpus((number * 1e6).round() as u64))
            }
            _ => {
                Err("it has to be a number of processors, 0.01 at least, or 0 for no limit".into())
            }
        }
    }
}

fn shares(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(shares @ (0 | 2..=262_144)) => Ok(shares),
        _ => Err("it has to be 2 to 262144, or 0 for what is usual".into()),
    }
}

fn pids(text: &str) -> Result<i64, String> {
    match text.parse() {
        Ok(most @ -1..=4_194_304) => Ok(most),
        _ => Err("it has to be 1 to 4194304, or -1 for no limit".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(bytes("512"), Ok(512));
        assert_eq!(bytes("64k"), Ok(65536));
        assert_eq!(bytes("1.5G"), Ok(1536 << 20));
        assert_eq!(bytes("100MiB"), Ok(100 << 20));
        assert_eq!(bytes("100mb"), Ok(100 << 20));
        for wrong in ["", "m", "1x", "-1", "1e3", "1..2m", "99999999t"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
        assert!(size("1").unwrap_err().contains("6m"));
    }

    #[test]
    fn processors_are_read_as_the_kernel_writes_them() {
        assert_eq!(processors("0-2,4").unwrap(), [0, 1, 2, 4]);
        for wrong in ["", "a", "2-1", "0-", "0-99999999999", "-1"] {
            assert!(processors(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let with = |change: fn(&mut LimitArgs)| {
            let mut args = LimitArgs::default();
            change(&mut args);
            args
        };
        let swap = with(|args| args.memory_swap = Some(Swap::Unlimited));
        assert!(swap.swap().unwrap_err().to_string().contains("--memory"));
        let less = with(|args| {
            args.memory = Some(8 << 20);
            args.memory_swap = Some(Swap::Bytes(7 << 20));
        });
        assert!(less.swap().is_err());
        let much = with(|args| args.cpus = Some(Cpus(2_500_000)));
        assert!(
            much.quota(2)
                .unwrap_err()
                .to_string()
                .contains("2 processors")
        );
        assert_eq!(much.quota(3).unwrap(), Some(250_000));
        assert_eq!(
            with(|args| args.cpus = Some(Cpus(0))).quota(1).unwrap(),
            None
        );
        let far = with(|args| args.cpuset_cpus = Some("99".into()));
        assert!(
            far.processors(&[0, 1])
                .unwrap_err()
                .to_string()
                .contains("it has 0,1")
        );
        for wrong in ["-1", "0.001", "x", "nan", "inf", "1e1"] {
            assert!(Cpus::from_str(wrong).is_err(), "{wrong}");
        }
    }
}

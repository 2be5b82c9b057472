//! The flags for limits: sizes, shares, sets of processors.

use crate::devices::Devices;
use crate::limits::{SHARES, Swap};
use crate::resources::{Cpus, Resources};
use crate::rlimits::Ulimit;
use clap::Args;
use std::str::FromStr;
use step01_uts::flags;

#[derive(Args)]
#[command(next_help_heading = "Limits")]
struct ResourceFlags {
    /// The most memory it may use, in bytes or with b, k, m or g behind
    #[arg(short, long, value_name = "SIZE", allow_negative_numbers = true, value_parser = size)]
    memory: Option<u64>,

    /// Its memory and swap together; -1: no limit on swap [default: twice the memory]
    #[arg(long, value_name = "SIZE", value_parser = size_or_unlimited, allow_negative_numbers = true)]
    memory_swap: Option<Swap>,

    /// How many processors' time it may use at most, such as 0.5; 0: no limit
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, value_parser = Cpus::from_str)]
    cpus: Option<Cpus>,

    /// Its weight beside other groups when processors are scarce: 2 to 262144, and 1024 is usual
    #[arg(long, value_name = "WEIGHT", allow_negative_numbers = true, value_parser = shares)]
    cpu_shares: Option<u64>,

    /// The processors it may run on, such as 0-2,4
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,

    /// The most processes and threads it may have; 0 or -1: no limit
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, value_parser = pids)]
    pids_limit: Option<i64>,

    /// A limit of each process by itself, such as nofile=1024:2048: setrlimit(2)
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = Ulimit::from_str)]
    ulimit: Vec<Ulimit>,

    /// A device of the host: PATH, PATH:PATH-INSIDE or PATH:PATH-INSIDE:rwm
    #[arg(long, value_name = "DEVICE", value_parser = Devices::parse)]
    device: Vec<Devices>,

    /// Print at the end what the container used: memory, processor time, processes
    #[arg(long)]
    stats: bool,
}

flags!(Resources, ResourceFlags);

impl From<ResourceFlags> for Resources {
    fn from(flags: ResourceFlags) -> Resources {
        Resources {
            memory: flags.memory,
            memory_swap: flags.memory_swap,
            cpus: flags.cpus,
            cpu_shares: flags.cpu_shares,
            cpuset_cpus: flags.cpuset_cpus,
            pids_limit: flags.pids_limit,
            ulimit: flags.ulimit,
            device: flags.device,
            stats: flags.stats,
        }
    }
}

/// The least that Docker takes: below it not even a runtime gets through.
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
        Ok(shares) if shares == 0 || SHARES.contains(&shares) => Ok(shares),
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
}

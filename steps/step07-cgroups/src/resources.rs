//! What a container may use up, as somebody asks for it, and what comes of that on this machine.

use crate::devices::{DEFAULT_RULES, Devices, all_of_the_host};
use crate::limits::{Limits, PERIOD, SHARES, Swap};
use crate::rlimits::Ulimit;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::fs;
use step05_tty::{DEVICES, Device};

/// What a container may use up; without a bound where nothing is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Bytes of memory; 0: no limit.
    pub memory: Option<u64>,
    /// Bytes of memory and swap together; twice the memory, where nothing is given.
    pub memory_swap: Option<Swap>,
    /// Processors' worth of time; 0: no limit.
    pub cpus: Option<Cpus>,
    /// The weight beside other groups when processors are scarce: 2 to 262144, or 0 for what is usual.
    pub cpu_shares: Option<u64>,
    /// The processors to run on, such as `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// Processes and threads; 0 or -1: no limit.
    pub pids_limit: Option<i64>,
    /// Limits of each process by itself: setrlimit(2).
    pub ulimit: Vec<Ulimit>,
    /// Devices of the host.
    pub device: Vec<Devices>,
    /// Whether what the container used is told at the end.
    pub stats: bool,
}

/// Processor time, in millionths of one processor's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpus(pub u64);

impl Resources {
    /// Checks what is asked for against this machine. Returns the limits, and the devices that the container's /dev
    /// has. A `privileged` container has all of the host's, and may use them.
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
            cpu_shares: self.shares()?,
            cpuset_cpus: self.processors(&online)?,
            pids: self
                .pids_limit
                .filter(|most| *most > 0)
                .map(|most| most as u64),
            devices: (!privileged).then_some(rules),
            freezer: false,
            everywhere: false,
            others: Vec::new(),
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

    fn shares(&self) -> Result<Option<u64>> {
        match self.cpu_shares.filter(|shares| *shares != 0) {
            Some(shares) if !SHARES.contains(&shares) => {
                bail!("--cpu-shares {shares}: it has to be 2 to 262144")
            }
            shares => Ok(shares),
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

/// The processors that run: /sys/devices/system/cpu/online.
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::str::FromStr;

    #[test]
    fn processors_are_read_as_the_kernel_writes_them() {
        assert_eq!(processors("0-2,4").unwrap(), [0, 1, 2, 4]);
        for wrong in ["", "a", "2-1", "0-", "0-99999999999", "-1"] {
            assert!(processors(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let with = |change: fn(&mut Resources)| {
            let mut args = Resources::default();
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

//! What the two versions call their files, and what is written into each.

use crate::cgroup::hierarchy::Version;
use crate::devices::DeviceRule;
use crate::limits::{Limits, PERIOD, Setting, Swap};

/// What `limits` mean for the files of a group, in the order in which they are to be written.
pub fn settings(limits: &Limits, version: Version) -> Vec<Setting<'_>> {
    let text = |number: Option<u64>| number.map(|number| number.to_string());
    let (swap, swap_asked_for) = limits.memory_swap.unzip();
    let memory_and_swap = swap.map(|swap| match swap {
        Swap::Bytes(both) => both.to_string(),
        Swap::Unlimited => "-1".into(),
    });
    // Version 2 counts swap alone, where the flag counts both.
    let swap_alone = swap.zip(limits.memory).map(|(swap, memory)| match swap {
        Swap::Bytes(both) => both.saturating_sub(memory).to_string(),
        Swap::Unlimited => "max".into(),
    });
    let (quota, shares) = (limits.cpu_quota, limits.cpu_shares);
    let (cpus, pids) = (&limits.cpuset_cpus, text(limits.pids));
    let period = quota.map(|_| PERIOD.to_string());
    let max = quota.map(|quota| format!("{quota} {PERIOD}"));
    // A flag, its controller, and for each version a file and what is written there.
    #[rustfmt::skip]
    let table = [
        ("--memory", "memory", ("memory.limit_in_bytes", text(limits.memory)), ("memory.max", text(limits.memory))),
        // Written after the limit on memory: memory and swap together can't be less.
        ("--memory-swap", "memory", ("memory.memsw.limit_in_bytes", memory_and_swap), ("memory.swap.max", swap_alone)),
        ("--cpus", "cpu", ("cpu.cfs_period_us", period), ("cpu.max", max)),
        ("--cpus", "cpu", ("cpu.cfs_quota_us", text(quota)), ("cpu.max", None)),
        ("--cpu-shares", "cpu", ("cpu.shares", text(shares)), ("cpu.weight", text(shares.map(weight)))),
        ("--cpuset-cpus", "cpuset", ("cpuset.cpus", cpus.clone()), ("cpuset.cpus", cpus.clone())),
        ("--pids-limit", "pids", ("pids.max", pids.clone()), ("pids.max", pids)),
    ];
    let limited = table.into_iter().filter_map(|(flag, controller, v1, v2)| {
        let (file, value) = if version == Version::V1 { v1 } else { v2 };
        Some(Setting {
            flag,
            controller,
            file,
            value: value?,
            required: flag != "--memory-swap" || swap_asked_for == Some(true),
        })
    });
    let rules = limits.devices.iter().filter(|_| version == Version::V1);
    let others = limits.others.iter().map(|other| Setting {
        flag: &other.file,
        controller: &other.controller,
        file: &other.file,
        value: other.value.clone(),
        required: true,
    });
    limited
        .chain(rules.flat_map(|rules| devices(rules)))
        .chain(others)
        .collect()
}

/// The rules for devices, in version 1. A new group may do all that the group above it may. So the settings first
/// deny all devices, and then allow each.
fn devices(rules: &[DeviceRule]) -> impl Iterator<Item = Setting<'_>> {
    let setting = |file, value| Setting {
        flag: "--device",
        controller: "devices",
        file,
        value,
        required: true,
    };
    let each = rules.iter().map(move |rule| {
        let file = if rule.allow {
            "devices.allow"
        } else {
            "devices.deny"
        };
        setting(file, rule.to_string())
    });
    std::iter::once(setting("devices.deny", "a".into())).chain(each)
}

/// Shares of 2 to 262144 as a weight of 1 to 10000, such that 1024, what everybody has in version 1, becomes 100, what
/// everybody has in version 2. So runc has it since 1.3.2, and crun.
pub fn weight(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    10_f64.powf(exponent).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights() {
        let weights = [0, 2, 1024, 2048, 262_144, 1 << 30].map(weight);
        assert_eq!(weights, [1, 1, 100, 174, 10_000, 10_000]);
    }
}

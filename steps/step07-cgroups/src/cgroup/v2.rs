//! The files of cgroups version 2.

use crate::devices::DeviceRule;
use crate::devices::program::attach;
use crate::limits::{Limits, PERIOD, Setting, Swap};
use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use std::fs::{self, File};
use std::path::Path;

/// What `limits` mean for a group's files.
pub fn settings(limits: &Limits) -> Vec<Setting> {
    let setting = |flag, controller, file, value: String| Setting {
        flag,
        controller,
        file,
        value,
        required: true,
    };
    let mut settings = Vec::new();
    if let Some(bytes) = limits.memory {
        settings.push(setting(
            "--memory",
            "memory",
            "memory.max",
            bytes.to_string(),
        ));
    }
    if let (Some(memory), Some((swap, required))) = (limits.memory, limits.memory_swap) {
        // Swap alone, where the flag counts both.
        let value = match swap {
            Swap::Bytes(both) => (both - memory).to_string(),
            Swap::Unlimited => "max".into(),
        };
        settings.push(Setting {
            required,
            ..setting("--memory-swap", "memory", "memory.swap.max", value)
        });
    }
    if let Some(quota) = limits.cpu_quota {
        settings.push(setting(
            "--cpus",
            "cpu",
            "cpu.max",
            format!("{quota} {PERIOD}"),
        ));
    }
    if let Some(shares) = limits.cpu_shares {
        settings.push(setting(
            "--cpu-shares",
            "cpu",
            "cpu.weight",
            weight(shares).to_string(),
        ));
    }
    if let Some(list) = &limits.cpuset_cpus {
        settings.push(setting(
            "--cpuset-cpus",
            "cpuset",
            "cpuset.cpus",
            list.clone(),
        ));
    }
    if let Some(most) = limits.pids {
        settings.push(setting(
            "--pids-limit",
            "pids",
            "pids.max",
            most.to_string(),
        ));
    }
    settings
}

/// Shares of 2 to 262144 as a weight of 1 to 10000, as the OCI runtimes convert them.
fn weight(shares: u64) -> u64 {
    1 + (shares - 2) * 9999 / 262_142
}

/// Whether the hierarchy at `top` has `controller`: one that is mounted as version 1, or that the
/// kernel was built without, it hasn't. Processor time alone is accounted for in every group.
pub fn has(top: &Path, controller: &str) -> bool {
    let available = fs::read_to_string(top.join("cgroup.controllers")).unwrap_or_default();
    let available: Vec<_> = available.split_whitespace().collect();
    match controller {
        "cpuacct" => available.contains(&"cpu"),
        other => available.contains(&other),
    }
}

/// Has the groups below `folder` controlled by `controllers`.
///
/// This is written also where it was written before, and the file isn't asked whether it was: it says so
/// from the moment on in which another program's write begins, and the groups below get their files
/// during that. A write waits for the one before.
///
/// # Errors
/// EBUSY: a group that has processes of its own can't hand a controller on, unless it is the
/// topmost of all ("no internal processes" in cgroups(7)).
pub fn enable(folder: &Path, controllers: &[&str]) -> Result<()> {
    let file = folder.join("cgroup.subtree_control");
    let all: Vec<_> = controllers
        .iter()
        .filter(|name| !["devices", "cpuacct", "freezer"].contains(name))
        .map(|name| format!("+{name}"))
        .collect();
    let shown = file.display();
    fs::write(&file, all.join(" ")).map_err(|error| match error.raw_os_error() {
        Some(errno) if errno == Errno::EBUSY as i32 => anyhow!(
            "{shown}: {error}: this group has processes of its own, and so can't hand controllers on\n\
             help: move them to a group below: mkdir {0}/init; for pid in $(cat {0}/cgroup.procs); do echo \
             $pid >{0}/init/cgroup.procs; done",
            folder.display()
        ),
        _ => anyhow!("{shown}: {}: {error}", all.join(" ")),
    })
}

/// Has a program decide which devices the processes of `folder` may use.
pub fn restrict_devices(folder: &Path, rules: &Option<Vec<DeviceRule>>) -> Result<()> {
    match rules {
        Some(rules) => attach(&File::open(folder)?, rules).context("the rules for devices"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights() {
        assert_eq!((weight(2), weight(1024), weight(262_144)), (1, 39, 10000));
    }
}

//! The files of cgroups version 1.

use crate::limits::{Limits, PERIOD, Setting, Swap};

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
            "memory.limit_in_bytes",
            bytes.to_string(),
        ));
    }
    // After the other: together they can't be less.
    if let Some((swap, required)) = limits.memory_swap {
        let value = match swap {
            Swap::Bytes(bytes) => bytes.to_string(),
            Swap::Unlimited => "-1".into(),
        };
        settings.push(Setting {
            required,
            ..setting(
                "--memory-swap",
                "memory",
                "memory.memsw.limit_in_bytes",
                value,
            )
        });
    }
    if let Some(quota) = limits.cpu_quota {
        settings.push(setting(
            "--cpus",
            "cpu",
            "cpu.cfs_period_us",
            PERIOD.to_string(),
        ));
        settings.push(setting(
            "--cpus",
            "cpu",
            "cpu.cfs_quota_us",
            quota.to_string(),
        ));
    }
    if let Some(shares) = limits.cpu_shares {
        settings.push(setting(
            "--cpu-shares",
            "cpu",
            "cpu.shares",
            shares.to_string(),
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
    if let Some(rules) = &limits.devices {
        // A new group may do all that the one above it may. First none, then each.
        let flag = "--device";
        settings.push(setting(flag, "devices", "devices.deny", "a".into()));
        for rule in rules {
            settings.push(setting(flag, "devices", "devices.allow", rule.to_string()));
        }
    }
    settings
}

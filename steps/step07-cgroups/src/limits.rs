//! The limits of one container, and what is written for them into the files of a control group.

use crate::devices::DeviceRule;
use serde::{Deserialize, Serialize};

/// The limits of one container's control groups; `None` limits nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of memory and swap together, and whether `--memory-swap` asked for them.
    pub memory_swap: Option<(Swap, bool)>,
    /// Microseconds of processor time in each [`PERIOD`].
    pub cpu_quota: Option<u64>,
    /// A weight, 2 to 262144.
    pub cpu_shares: Option<u64>,
    /// A list of processors, `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// The devices that the container may use, and no others; `None`: all.
    pub devices: Option<Vec<DeviceRule>>,
    /// Whether the container's processes are to be stopped and continued together, where the machine has a freezer.
    pub freezer: bool,
    /// Whether there is a group in every hierarchy that version 1 has here, also where nothing is limited: for the accounts.
    pub everywhere: bool,
    /// Whatever else is to be written, after all of the above and in this order.
    pub others: Vec<Other>,
}

/// A value for any file of any controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Other {
    /// The controller that the file belongs to.
    pub controller: String,
    /// The file's name, as the version has it that the machine has.
    pub file: String,
    /// The text that is written.
    pub value: String,
}

// ANCHOR: Setting
/// One value for one file of a control group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting<'a> {
    /// The flag that the value is for.
    pub flag: &'a str,
    /// The controller that the file belongs to.
    pub controller: &'a str,
    /// The file's name.
    pub file: &'a str,
    /// The text that is written.
    pub value: String,
    /// Whether it is an error when there is no such file.
    pub required: bool,
}
// ANCHOR_END: Setting

/// The weights that there are for a group's processor time.
pub const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

/// The time in which a quota is given out anew: 100 ms, in microseconds.
pub const PERIOD: u64 = 100_000;

/// A limit of memory and swap together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Swap {
    /// A number of bytes.
    Bytes(u64),
    /// As much as there is.
    Unlimited,
}

impl Limits {
    /// The flag that makes no sense without `controller`.
    pub fn flag_for(&self, controller: &str) -> Option<&str> {
        match controller {
            "memory" if self.memory.is_some() => Some("--memory"),
            "cpu" if self.cpu_quota.is_some() => Some("--cpus"),
            "cpu" if self.cpu_shares.is_some() => Some("--cpu-shares"),
            "cpuset" if self.cpuset_cpus.is_some() => Some("--cpuset-cpus"),
            "pids" if self.pids.is_some() => Some("--pids-limit"),
            "devices" if self.devices.is_some() => {
                Some("the rules for devices (without them: --privileged)")
            }
            _ => {
                let other = self
                    .others
                    .iter()
                    .find(|other| other.controller == controller);
                other.map(|other| other.file.as_str())
            }
        }
    }
}

//! What version 2 wants besides limits: a controller is handed down from group to group, and a program decides about
//! devices.

use crate::devices::DeviceRule;
use crate::devices::program::attach;
use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use std::fs::{self, File};
use std::path::Path;

/// Whether the hierarchy at `top` has `controller`. A controller that is mounted as version 1, or that the
/// kernel was built without, is missing. Version 2 accounts for processor time in every group, without `cpuacct`.
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
/// The controllers are written even if the file names them already. The file names a controller as soon as
/// another program's write begins, but the groups below get their files only during that write. A second
/// write waits for the first.
///
/// # Errors
/// EBUSY: a group that has processes of its own can't hand a controller on, unless it is the
/// topmost of all ("no internal processes" in cgroups(7)).
pub fn enable(folder: &Path, controllers: &[String]) -> Result<()> {
    let file = folder.join("cgroup.subtree_control");
    let all: Vec<_> = controllers
        .iter()
        .filter(|name| !["devices", "cpuacct", "freezer"].contains(&name.as_str()))
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

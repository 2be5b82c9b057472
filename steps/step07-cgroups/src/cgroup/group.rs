//! One control group: how its folder is made, joined and removed, also by two programs at once and
//! after a crash.

use crate::cgroup::hierarchy::{Hierarchy, Version};
use crate::claim::{Owners, claim};
use anyhow::{Context, Error, Result, anyhow};
use nix::errno::Errno;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;
use step04_pivot_root::lock::Lock;

/// The group that all groups of ours are below.
pub(super) const OURS: &str = "ten-steps";

/// A control group: its folder, and a file in it that was opened before there was a container.
pub(crate) struct Group {
    pub(crate) hierarchy: Hierarchy,
    pub(crate) folder: PathBuf,
    /// The file of [`members_of`]. As long as the file is locked, a program uses the group.
    pub(crate) members: Lock,
}

impl Group {
    /// Makes the folder at `path` below the hierarchy's topmost group, with those above it, and claims it.
    pub(super) fn create(hierarchy: Hierarchy, path: &Path, owners: Owners) -> Result<Group> {
        let folder = hierarchy.top.join(path);
        let file = folder.join(members_of(hierarchy.version));
        let make = || {
            fs::create_dir_all(folder.parent().unwrap_or(&folder))?;
            match fs::create_dir(&folder) {
                // A program that removed its group, the last one, has just removed ours above with it. `claim` tries
                // again.
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                made => made,
            }
        };
        let open = || File::options().write(true).open(&file);
        let members = claim(&file, make, open, owners);
        Ok(Group {
            members: match members {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(error.into()),
                members => members.map_err(|error| cannot_make(&folder, &error))?,
            },
            hierarchy,
            folder,
        })
    }
}

/// The file to which a process writes to join. In version 1 that is `tasks`, the file for single threads: the
/// process has only one. The kernel then needn't stop all forks of the machine, which takes some
/// milliseconds. Version 2 has no `tasks`.
pub fn members_of(version: Version) -> &'static str {
    match version {
        Version::V1 => "tasks",
        Version::V2 => "cgroup.procs",
    }
}

/// Removes the group of ours above `folder`, if `folder` was the last one in it. A group of others stays.
pub(super) fn remove_above(folder: &Path) {
    let above = folder.parent();
    if let Some(ours) = above.filter(|above| above.file_name() == Some(OURS.as_ref())) {
        // The group above is busy as long as others are in it.
        let _ = fs::remove_dir(ours);
    }
}

fn cannot_make(folder: &Path, error: &io::Error) -> Error {
    anyhow!(
        "mkdir {}: {error}\nhelp: control groups take a root that may write there: `sudo`, or \
         `docker run --privileged` around this",
        folder.display()
    )
}

/// Removes the groups that a container made below `folder`, if it was allowed to.
pub(super) fn remove_below(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path());
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// The processes in a group and in the groups below it; none, when there is no such group.
pub fn processes(folder: &Path) -> Vec<i32> {
    let members = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    let mut processes: Vec<i32> = members.lines().filter_map(|pid| pid.parse().ok()).collect();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            processes.extend(self::processes(&entry.path()));
        }
    }
    processes
}

/// A new ID for a container: 64 random hexadecimal digits, which no other container gets.
pub fn new_id() -> Result<String> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Removes a group, and waits for processes that are about to leave it. The group above goes with the last group
/// in it.
pub fn remove_group(folder: &Path) -> Result<()> {
    const PATIENCE: u32 = 10_000;
    for turn in 0.. {
        match fs::remove_dir(folder) {
            // A busy group may have groups below it instead of processes.
            Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) && turn == 0 => {
                remove_below(folder);
            }
            Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) && turn < PATIENCE => {
                sleep(Duration::from_millis(1));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => break,
            Err(error) => return Err(error).with_context(|| format!("rmdir {}", folder.display())),
            Ok(()) => break,
        }
    }
    remove_above(folder);
    Ok(())
}

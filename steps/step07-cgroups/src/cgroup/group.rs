//! One control group: how its folder is made, joined and removed, also by two programs at once and
//! after a crash.

use crate::cgroup::hierarchy::{Hierarchy, Version};
use crate::claim::claim;
use anyhow::{Context, Error, Result, anyhow};
use nix::errno::Errno;
use nix::fcntl::Flock;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

/// All groups of ours are below this one.
pub(super) const OURS: &str = "ten-steps";

/// A folder, and a file in it that was opened before there was a container.
pub(crate) struct Group {
    pub(crate) hierarchy: Hierarchy,
    pub(crate) folder: PathBuf,
    /// The file of [`members_of`]. As long as it is locked, somebody uses the group.
    pub(crate) members: Flock<File>,
}

impl Group {
    /// Makes the folder of the container `id`, and claims it.
    pub(super) fn create(hierarchy: Hierarchy, id: &str) -> Result<Group> {
        let ours = hierarchy.top.join(OURS);
        let folder = ours.join(id);
        let file = folder.join(members_of(hierarchy.version));
        let make = || {
            make_group(&ours)?;
            match fs::create_dir(&folder) {
                // Whoever removed another one, the last, has just taken ours along.
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                made => made,
            }
        };
        let members = claim(&file, make, || File::options().write(true).open(&file));
        Ok(Group {
            members: members.map_err(|error| cannot_make(&folder, &error))?,
            hierarchy,
            folder,
        })
    }
}

/// The file to which a process writes to join. It has one thread, and `tasks` is for threads: then the
/// kernel needn't stop all forks of the machine, which takes it some milliseconds. Version 2 has no such
/// file.
pub fn members_of(version: Version) -> &'static str {
    match version {
        Version::V1 => "tasks",
        Version::V2 => "cgroup.procs",
    }
}

fn make_group(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Removes the group above `folder`, if that was the last one in it.
pub(super) fn remove_above(folder: &Path) {
    if let Some(ours) = folder.parent() {
        // It is busy as long as there are others.
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

/// Removes the groups that somebody made below `folder`: a container that was allowed to.
pub(super) fn remove_below(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path());
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// A new name for a container: 64 hexadecimal digits that nobody else draws.
pub fn new_id() -> Result<String> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Removes an empty group, and waits for the end of those who are about to leave it. The last one takes the one
/// above along.
pub fn remove_group(folder: &Path) -> Result<()> {
    const PATIENCE: u32 = 10_000;
    for turn in 0.. {
        match fs::remove_dir(folder) {
            // Or has groups below it.
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

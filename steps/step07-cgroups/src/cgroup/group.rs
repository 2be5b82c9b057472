//! One control group: how its folder is made, joined and removed, also by two programs at once and
//! after a crash.

use crate::cgroup::hierarchy::{Hierarchy, Version};
use crate::claim::{Owners, claim};
use anyhow::{Context, Error, Result, anyhow};
use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fstat, stat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;
use step04_pivot_root::lock::Lock;
use step04_pivot_root::root::directory_at;

/// The group that all groups of ours are below.
pub(super) const OURS: &str = "ten-steps";

// ANCHOR: Group
/// A control group: its folder, and a file in it that was opened before there was a container.
pub(crate) struct Group {
    pub(crate) hierarchy: Hierarchy,
    pub(crate) folder: PathBuf,
    /// The file of [`members_of`]. As long as the file is locked, a program uses the group.
    pub(crate) members: Lock,
}
// ANCHOR_END: Group

impl Group {
    /// Makes the folder at `path` below the hierarchy's topmost group, with those above it, and claims it.
    pub(super) fn create(hierarchy: Hierarchy, path: &Path, owners: Owners) -> Result<Group> {
        let folder = hierarchy.top.join(path);
        let file = folder.join(members_of(hierarchy.version));
        let make = || match fs::create_dir(&folder) {
            // Those above are still to be made; or a program that removed its group, the last one, has just removed ours
            // above with it. `claim` tries again.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(folder.parent().unwrap_or(&folder))
            }
            made => made,
        };
        let open = || File::options().read(true).write(true).open(&file);
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

    /// Whether a process is in the group, or in one below it.
    pub(super) fn is_inhabited(&self) -> bool {
        // Most often nobody is, and the file that is open anyway tells.
        let is_alone = stat(&self.folder).is_ok_and(|folder| folder.st_nlink == ALONE);
        let nobody = (&*self.members).read(&mut [0]).is_ok_and(|read| read == 0);
        if is_alone && nobody {
            return false;
        }
        !processes(&self.folder).is_empty()
    }
}

/// The links of a group's folder that has no group below it: its name, and its own `.`. Each group below has a link `..`
/// to it.
const ALONE: libc::nlink_t = 2;

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
    if let Ok(group) = directory_at(folder) {
        remove_in(&group, DEEPEST);
    }
}

/// How deep the groups are gone through. A container may make more of them than this process has descriptors and stack for.
const DEEPEST: usize = 500;

fn remove_in(group: &OwnedFd, left: usize) {
    if left == 0 {
        return;
    }
    for name in groups_in(group) {
        if let Ok(below) = openat(group, &*name, HELD, Mode::empty()) {
            remove_in(&below, left - 1);
            let _ = unlinkat(group, &*name, UnlinkatFlags::RemoveDir);
        }
    }
}

/// The processes in a group and in the groups below it; none, when there is no such group.
pub fn processes(folder: &Path) -> Vec<i32> {
    let mut processes = Vec::new();
    each_group(folder, &mut |group| {
        let members = read_in(group, "cgroup.procs").unwrap_or_default();
        processes.extend(members.lines().flat_map(str::parse::<i32>));
    });
    processes
}

/// Looks at the group `folder`, and at each below it, by a descriptor: a container may have made groups whose paths are
/// longer than any path may be.
pub fn each_group(folder: &Path, look: &mut dyn FnMut(&OwnedFd)) {
    if let Ok(group) = directory_at(folder) {
        each_below(&group, DEEPEST, look);
    }
}

fn each_below(group: &OwnedFd, left: usize, look: &mut dyn FnMut(&OwnedFd)) {
    look(group);
    if left == 0 {
        return;
    }
    for name in groups_in(group) {
        if let Ok(below) = openat(group, &*name, HELD, Mode::empty()) {
            each_below(&below, left - 1, look);
        }
    }
}

const HELD: OFlag = OFlag::O_PATH
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// The names of the groups right below one.
fn groups_in(group: &OwnedFd) -> Vec<CString> {
    if fstat(group).is_ok_and(|folder| folder.st_nlink == ALONE) {
        return Vec::new();
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let directory = openat(group, ".", flags, Mode::empty()).and_then(Dir::from_fd);
    let Ok(mut directory) = directory else {
        return Vec::new();
    };
    let entries = directory.iter().flatten();
    let folders = entries.filter(|entry| entry.file_type() == Some(Type::Directory));
    let names = folders.map(|entry| entry.file_name().to_owned());
    names
        .filter(|name| ![c".", c".."].contains(&&**name))
        .collect()
}

/// The text of a file in a group.
fn read_in(group: &OwnedFd, name: &str) -> io::Result<String> {
    let file = openat(
        group,
        name,
        OFlag::O_RDONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    io::read_to_string(File::from(file))
}

/// Writes a file in a group.
pub fn write_in(group: &OwnedFd, name: &str, value: &str) -> io::Result<()> {
    let file = openat(
        group,
        name,
        OFlag::O_WRONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    File::from(file).write_all(value.as_bytes())
}

/// A new ID for a container: 64 random hexadecimal digits, which no other container gets.
pub fn new_id() -> Result<String> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

// ANCHOR: remove_group
/// Removes a group, and waits for processes that are about to leave it. The group above goes with the last group
/// in it.
pub fn remove_group(folder: &Path) -> Result<()> {
    // ANCHOR_END: remove_group
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

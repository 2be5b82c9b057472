//! # Step 7: limits
//!
//! Namespaces say what a container sees. What a container may use up is another matter: memory,
//! processor time, processes. A process's own limits (setrlimit(2), [`rlimits`]) aren't enough: each
//! child gets the same again. A control group is a set of processes that share one limit, and children
//! are born into it.
//!
//! A control group is a folder: `mkdir` makes it, a file in it holds each limit, writing a pid to
//! another moves a process in, and `rmdir` removes it. Which folder it is depends on the machine: in
//! cgroups version 1 each controller has a hierarchy of its own, in version 2 all controllers share one,
//! and a hybrid machine has some controllers here and some there. [`find`] looks the folder up. How folders
//! are made for all limits of a container, and what the two versions call their files, is told in
//! [`cgroup`], and which devices a container may open in [`devices`]. See cgroups(7).

pub mod cgroup;
pub mod claim;
pub mod devices;
pub mod flags;
pub mod limits;
pub mod resources;
pub mod rlimits;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Component, Path, PathBuf};
use step01_uts::call;

use cgroup::group::{Group, members_of, remove_group};
use limits::{Limits, Setting};

pub use cgroup::hierarchy::{Hierarchy, Version};

// ANCHOR: find
// ANCHOR: find_task
/// Finds the folder of the hierarchy that has `controller`, and its version, by the texts of
/// /proc/self/mountinfo and /proc/self/cgroup; nothing when no mounted hierarchy can have it. The folder is
/// where the hierarchy is mounted, the topmost group that can be seen, and not the caller's own group.
// ANCHOR_END: find_task
///
/// /proc/self/cgroup has a line `4:memory:/docker/0123` for a controller of version 1, and
/// `0::/user.slice` for version 2, which has every controller that no other line names. A line's last
/// field is the caller's own group. A mount needn't show all of its hierarchy: the mount's root field
/// names the topmost group that it shows. So the right mount is one whose root is the caller's group, or a
/// group above it; of several such mounts any will do. A mount of version 1 has the type cgroup, and its
/// controllers among the options at the end of the line. A space in the root field or in the mount point is
/// written `\040` ([`unescaped`]). See cgroups(7), proc_pid_mountinfo(5).
// ANCHOR: find_signature
pub fn find(controller: &str, mountinfo: &str, own: &str) -> Option<(PathBuf, Version)> {
    // ANCHOR_END: find_signature
    // ANCHOR_END: find
    // ANCHOR: exercise_find
    let (version, group) = own_group(controller, own)?;
    let mounts = mountinfo.lines().filter_map(|line| {
        let (place, filesystem) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, target) = (unescaped(place.next()?), place.next()?);
        let mut filesystem = filesystem.split(' ');
        let (kind, options) = (filesystem.next()?, filesystem.nth(1)?);
        let is_it = match version {
            Version::V1 => kind == "cgroup" && options.split(',').any(|each| each == controller),
            Version::V2 => kind == "cgroup2",
        };
        let is_above = root
            .components()
            .skip(1)
            .all(|part| part == Component::ParentDir);
        let shows_us = is_above || Path::new(&group).starts_with(&root);
        (is_it && shows_us).then(|| (root.as_os_str().len(), unescaped(target)))
    });
    // Any would do. The one with the shortest root shows much of the hierarchy.
    let (_, top) = mounts.min_by_key(|(root, _)| *root)?;
    Some((top, version))
    // ANCHOR_END: exercise_find
}

// ANCHOR: own_group
/// The version of the hierarchy that has `controller`, and the caller's group in it.
fn own_group(controller: &str, own: &str) -> Option<(Version, String)> {
    let mut unified = None;
    for line in own.lines() {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, group) = (fields.next()?, fields.next()?, fields.next()?);
        if controllers.is_empty() {
            unified = Some((Version::V2, group.to_owned()));
        } else if controllers.split(',').any(|each| each == controller) {
            return Some((Version::V1, group.to_owned()));
        }
    }
    unified
}
// ANCHOR_END: own_group

// ANCHOR: unescaped
/// A path of mountinfo, where a space is written `\040`.
pub fn unescaped(text: &str) -> PathBuf {
    // ANCHOR_END: unescaped
    let space = text.replace("\\040", " ").replace("\\011", "\t");
    space.replace("\\012", "\n").replace("\\134", "\\").into()
}

// ANCHOR: limit
/// Writes each of `settings` to its file in the control group `folder`, in their order, and each value by one write:
/// several may go to one file. A file that isn't there can't be made; a setting without its file is passed over, if it
/// isn't `required`, and the others are written all the same.
///
/// # Errors
/// A `required` setting's file isn't there, or the kernel doesn't take a value, required or not. The text names the
/// flag, the controller, the file and the value, and what the kernel said.
pub fn limit(folder: &Path, settings: &[Setting]) -> Result<()> {
    // ANCHOR_END: limit
    // ANCHOR: exercise_limit
    for setting in settings {
        let file = folder.join(setting.file);
        let written = File::options().write(true).open(&file);
        let written = written.and_then(|mut file| file.write_all(setting.value.as_bytes()));
        match written {
            Err(error) if error.kind() == ErrorKind::NotFound && !setting.required => {}
            written => written.with_context(|| {
                let (controller, value) = (setting.controller, &setting.value);
                let file = file.display();
                format!(
                    "{}: the {controller} controller: {value:?} to {file}",
                    setting.flag
                )
            })?,
        }
    }
    Ok(())
    // ANCHOR_END: exercise_limit
}

// ANCHOR: Cgroup
/// The control groups of one container: one folder in each hierarchy that limits it or keeps its accounts.
pub struct Cgroup {
    pub(crate) groups: Vec<Group>,
    /// The limits that the groups were made with.
    pub(crate) limits: Limits,
}
// ANCHOR_END: Cgroup

impl Cgroup {
    // ANCHOR: enter
    /// Moves the calling process into all of the groups, with all processes that it will ever start, and makes the
    /// groups the topmost ones that the process sees.
    ///
    /// "0" stands for the process that writes it, in any PID namespace. A new cgroup namespace takes the
    /// caller's groups for its roots, so the namespace comes second. See cgroup_namespaces(7).
    ///
    /// The files are those of [`members_of`], opened before there was a container: here their paths may lead
    /// nowhere any more.
    ///
    /// # Errors
    /// A group can't be joined, or the namespace can't be made: a container outside of its limits isn't started.
    pub fn enter(&self) -> Result<()> {
        // ANCHOR_END: enter
        // ANCHOR: exercise_enter
        for group in &self.groups {
            let joined = (&*group.members).write_all(b"0");
            joined.with_context(|| {
                format!(
                    "0 to {}",
                    group
                        .folder
                        .join(members_of(group.hierarchy.version))
                        .display()
                )
            })?;
        }
        call!(unshare(CloneFlags::CLONE_NEWCGROUP))?;
        Ok(())
        // ANCHOR_END: exercise_enter
    }

    // ANCHOR: remove
    /// Removes the groups, once no process is in them any more, and forgets each that has gone: afterwards there are no
    /// [`Cgroup::hierarchies`]. A group goes with those that the container made below it, and one that has gone already
    /// is no error. See rmdir(2).
    ///
    /// The files in a group's folder can't be removed and needn't be: they are no real files. A process that
    /// has ended stays in its group until the kernel has finished with the process; [`remove_group`] waits for that.
    ///
    /// The last group goes first. Groups that a crash leaves are found by the first one, so that one goes only when
    /// all others have gone.
    ///
    /// # Errors
    /// A group is still in use after ten seconds, or the kernel refuses to remove it. That one and those before it stay,
    /// with whoever is in them, and aren't forgotten: who calls again tries them again.
    pub fn remove(&mut self) -> Result<()> {
        // ANCHOR_END: remove
        // ANCHOR: exercise_remove
        // `sweep` finds the other groups by the first one. So the first goes last, and only if all others have gone.
        while let Some(group) = self.groups.last() {
            remove_group(&group.folder)?;
            self.groups.pop();
        }
        Ok(())
        // ANCHOR_END: exercise_remove
    }

    /// The limits that the groups were made with.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The hierarchies in which the container has a group.
    pub fn hierarchies(&self) -> impl Iterator<Item = &Hierarchy> {
        self.groups.iter().map(|group| &group.hierarchy)
    }
}

impl Drop for Cgroup {
    /// Removes the groups on any way out; after [`Cgroup::remove`] nothing is left to do. A container's
    /// process that is a copy of this one never gets here.
    fn drop(&mut self) {
        let _ = self.remove();
    }
}

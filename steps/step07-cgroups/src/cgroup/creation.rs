//! How a container's control groups are made and configured, and how groups that a crash has left are removed.

use crate::cgroup::group::{Group, OURS, members_of, remove_above, remove_below};
use crate::cgroup::hierarchy::{Hierarchy, Version};
use crate::cgroup::places::{every_place, hierarchies};
use crate::cgroup::settings::settings;
use crate::cgroup::v2;
use crate::claim::{Owners, abandoned};
use crate::devices::can_be_written;
use crate::limits::{Limits, Setting};
use crate::{Cgroup, limit};
use anyhow::{Context, Error, Result, anyhow, bail};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Component, Path};

impl Cgroup {
    /// Makes the groups of the container `id`, with its limits and still without processes, and removes
    /// groups that a crash has left.
    ///
    /// # Errors
    /// A controller that a limit needs isn't there, or the kernel doesn't accept a value: the text
    /// names the controller and the file. Nothing is left behind then.
    pub fn create(id: &str, limits: &Limits) -> Result<Cgroup> {
        let hierarchies = hierarchies(limits)?;
        if let Some(first) = hierarchies.first() {
            sweep(first)?;
        }
        Cgroup::create_in(hierarchies, &Path::new(OURS).join(id), limits)
    }

    /// Makes the groups at `path`, which is relative, below the topmost group of each hierarchy. The path is somebody
    /// else's choice: groups above it that aren't there are made, and stay, also after a failure; and nobody sweeps there.
    ///
    /// # Errors
    /// The errors of [`Cgroup::create`]; there is such a group, and processes are in it; or the path leads to where the
    /// other containers are.
    pub fn create_at(path: &Path, limits: &Limits) -> Result<Cgroup> {
        let plain = path
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        if !plain || path.as_os_str().is_empty() {
            bail!(
                "{}: the path of a control group is relative, and has no .. in it",
                path.display()
            );
        }
        if path.iter().any(|name| name == OURS) {
            bail!(
                "{}: groups below {OURS} go by the IDs of containers\nhelp: choose another path",
                path.display()
            );
        }
        let hierarchies = hierarchies(limits)?;
        let taken = |folder: &Path| {
            anyhow!(
                "{}: there is such a control group, with processes in it, or somebody makes it just now\n\
                 help: choose another path",
                folder.display()
            )
        };
        let mut cgroup = Cgroup {
            groups: Vec::new(),
            limits: limits.clone(),
        };
        // First all locks, and then a look: whoever has a lock has seen nobody in there, or will.
        for hierarchy in hierarchies {
            let folder = hierarchy.top.join(path);
            match Group::create(hierarchy, path, Owners::One) {
                Ok(group) => cgroup.groups.push(group),
                Err(error) if is_taken(&error) => return Err(taken(&folder)),
                Err(error) => return Err(error),
            }
        }
        // Its limits would be changed under somebody else's processes, and it would be removed in the end.
        if let Some(there) = cgroup.groups.iter().find(|group| group.is_inhabited()) {
            let error = taken(&there.folder);
            // Nothing of it is ours.
            cgroup.groups.clear();
            return Err(error);
        }
        cgroup.configure()?;
        Ok(cgroup)
    }

    fn create_in(hierarchies: Vec<Hierarchy>, path: &Path, limits: &Limits) -> Result<Cgroup> {
        let mut cgroup = Cgroup {
            groups: Vec::new(),
            limits: limits.clone(),
        };
        for hierarchy in hierarchies {
            // What is there has to be removed, whether it could be configured or not.
            let group = Group::create(hierarchy, path, Owners::Several)?;
            cgroup.groups.push(group);
        }
        cgroup.configure()?;
        Ok(cgroup)
    }

    fn configure(&self) -> Result<()> {
        let others = &self.limits.others;
        if let Some(other) = others.iter().find(|other| other.file.contains('/')) {
            bail!("{:?} is no file of a control group's own", other.file);
        }
        self.groups
            .iter()
            .try_for_each(|group| group.configure(&self.limits))
    }
}

/// Whether a group couldn't be made because somebody else has it.
fn is_taken(error: &Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|error| error.kind() == ErrorKind::WouldBlock)
}

impl Group {
    /// Writes the part of `limits` that this hierarchy controls.
    fn configure(&self, limits: &Limits) -> Result<()> {
        let Hierarchy {
            top, controllers, ..
        } = &self.hierarchy;
        if self.hierarchy.version == Version::V2 {
            let above = self.folder.ancestors().skip(1);
            let above: Vec<&Path> = above.take_while(|above| above.starts_with(top)).collect();
            for folder in above.into_iter().rev() {
                v2::enable(folder, controllers)?;
            }
        }
        let here = |setting: &Setting| controllers.iter().any(|name| name == setting.controller);
        let settings = settings(limits, self.hierarchy.version);
        let settings: Vec<_> = settings.into_iter().filter(here).collect();
        if controllers.iter().any(|name| name == "cpuset") {
            self.allow_memory_nodes()?;
        }
        if let (Version::V1, Some(rules)) = (self.hierarchy.version, &limits.devices) {
            can_be_written(rules)?;
        }
        limit(&self.folder, &settings)?;
        match self.hierarchy.version {
            Version::V1 => Ok(()),
            Version::V2 => v2::restrict_devices(&self.folder, &limits.devices),
        }
    }

    /// Copies processors and memory nodes from the group above, which gets its own first. In version 1
    /// no process can join a group of the cpuset controller that has no memory nodes.
    fn allow_memory_nodes(&self) -> Result<()> {
        if self.hierarchy.version == Version::V2 {
            return Ok(());
        }
        let below = self.folder.strip_prefix(&self.hierarchy.top)?;
        let is_ours = below.starts_with(OURS);
        let mut from = self.hierarchy.top.clone();
        for name in below {
            let to = from.join(name);
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let copy = || match fs::read_to_string(to.join(file))?.trim() {
                    // A group above that is somebody else's keeps what it has.
                    text if !is_ours && !text.is_empty() => Ok(()),
                    _ => fs::write(to.join(file), fs::read(from.join(file))?),
                };
                copy().with_context(|| to.join(file).display().to_string())?;
            }
            from = to;
        }
        Ok(())
    }
}

/// Removes our groups that no program has locked: a program that was killed couldn't remove its own.
pub fn sweep_all() -> Result<()> {
    let hierarchies = hierarchies(&Limits::default())?;
    if let Some(first) = hierarchies.first() {
        sweep(first)?;
    }
    for hierarchy in hierarchies {
        let _ = fs::remove_dir(hierarchy.top.join(OURS));
    }
    Ok(())
}

/// Removes the groups that no program has locked. The lock that counts is that of the group in the hierarchy `first`,
/// which is made first and removed last.
fn sweep(first: &Hierarchy) -> Result<()> {
    let ours = first.top.join(OURS);
    for entry in fs::read_dir(ours).into_iter().flatten().flatten() {
        let lock = abandoned(&entry.path().join(members_of(first.version)));
        if lock.is_none() {
            continue;
        }
        let mut tops: Vec<_> = every_place()?.into_iter().map(|(top, ..)| top).collect();
        // The hierarchy `first` now comes last.
        tops.retain(|top| *top != first.top);
        tops.push(first.top.clone());
        for top in tops {
            // A process that is still in the group ends by itself. The next sweep then removes the group.
            let folder = top.join(OURS).join(entry.file_name());
            remove_below(&folder);
            if fs::remove_dir(&folder).is_err() && folder.exists() {
                break;
            }
            remove_above(&folder);
        }
    }
    Ok(())
}

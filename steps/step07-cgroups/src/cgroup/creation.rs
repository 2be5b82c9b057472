//! How a container's control groups are made and configured, and how those are removed that a crash has left.

use crate::cgroup::group::{Group, OURS, members_of, remove_above, remove_below};
use crate::cgroup::hierarchy::{Hierarchy, Version};
use crate::cgroup::places::{hierarchies, places};
use crate::cgroup::settings::settings;
use crate::cgroup::v2;
use crate::claim::abandoned;
use crate::limits::{Limits, Setting};
use crate::{Cgroup, limit};
use anyhow::{Context, Result};
use std::fs;

impl Cgroup {
    /// Makes the groups of the container `id`, with its limits, in which nobody is yet; and removes
    /// those that a crash has left.
    ///
    /// # Errors
    /// A controller that a limit needs isn't there, or the kernel takes a value for none: the text
    /// names the controller and the file. Nothing is left behind then.
    pub fn create(id: &str, limits: &Limits) -> Result<Cgroup> {
        let hierarchies = hierarchies(limits)?;
        if let Some(first) = hierarchies.first() {
            sweep(first)?;
        }
        let mut cgroup = Cgroup {
            groups: Vec::new(),
            limits: limits.clone(),
        };
        for hierarchy in hierarchies {
            let group = Group::create(hierarchy, id)?;
            let made = group.configure(limits);
            // It is there, and so it is to be removed, whether it could be configured or not.
            cgroup.groups.push(group);
            made?;
        }
        Ok(cgroup)
    }
}

impl Group {
    /// Writes what of `limits` is this hierarchy's.
    fn configure(&self, limits: &Limits) -> Result<()> {
        let Hierarchy {
            top, controllers, ..
        } = &self.hierarchy;
        if self.hierarchy.version == Version::V2 {
            v2::enable(top, controllers)?;
            v2::enable(&top.join(OURS), controllers)?;
        }
        let here = |setting: &Setting| self.hierarchy.controllers.contains(&setting.controller);
        let settings = settings(limits, self.hierarchy.version);
        let settings: Vec<_> = settings.into_iter().filter(here).collect();
        if settings
            .iter()
            .any(|setting| setting.controller == "cpuset")
        {
            self.allow_memory_nodes()?;
        }
        limit(&self.folder, &settings)?;
        match self.hierarchy.version {
            Version::V1 => Ok(()),
            Version::V2 => v2::restrict_devices(&self.folder, &limits.devices),
        }
    }

    /// In version 1 nobody can join a group with a set of processors as long as it has no memory
    /// nodes: it takes those of the group above, which has its own first.
    fn allow_memory_nodes(&self) -> Result<()> {
        if self.hierarchy.version == Version::V2 {
            return Ok(());
        }
        let ours = self.hierarchy.top.join(OURS);
        for (from, to) in [(&self.hierarchy.top, &ours), (&ours, &self.folder)] {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let copied =
                    fs::read(from.join(file)).and_then(|text| fs::write(to.join(file), text));
                copied.with_context(|| to.join(file).display().to_string())?;
            }
        }
        Ok(())
    }
}

/// Removes the groups of ours that nobody has locked: those of programs that were killed before they could.
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

/// Removes the groups that nobody has locked. What tells is the group in the hierarchy `first`, which is made first
/// and removed last.
fn sweep(first: &Hierarchy) -> Result<()> {
    let ours = first.top.join(OURS);
    for entry in fs::read_dir(ours).into_iter().flatten().flatten() {
        let lock = abandoned(&entry.path().join(members_of(first.version)));
        if lock.is_none() {
            continue;
        }
        let mut tops: Vec<_> = places()?.into_iter().map(|(top, ..)| top).collect();
        // The first one again, now as the last.
        tops.retain(|top| *top != first.top);
        tops.push(first.top.clone());
        for top in tops {
            // Who is still in there ends by itself, and then it is the next one's.
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

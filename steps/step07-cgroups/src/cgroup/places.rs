//! Where control groups are: the hierarchies of this machine, and in them the groups of a container.

use crate::cgroup::group::{Group, OURS, members_of, remove_group};
use crate::cgroup::hierarchy::{Hierarchy, Version};
use crate::cgroup::v2;
use crate::limits::Limits;
use crate::{Cgroup, find};
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// The controllers that limit a container and keep its accounts. A controller that isn't there is an error
/// only when a limit asks for it.
const CONTROLLERS: [&str; 7] = [
    "memory", "cpu", "cpuacct", "pids", "devices", "cpuset", "freezer",
];

/// The places of all controllers that a group of ours may be in a hierarchy of: those above, and whatever else version 1
/// has here.
pub(super) fn every_place() -> Result<Vec<(PathBuf, Version, String)>> {
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let mut all: Vec<String> = CONTROLLERS.map(Into::into).into();
    all.extend(others_of_version_1(&own));
    places(all, &own)
}

/// What version 1 has here besides [`CONTROLLERS`], by /proc/self/cgroup: a hierarchy may have a name and no controller.
fn others_of_version_1(own: &str) -> impl Iterator<Item = String> {
    let fields = own.lines().filter_map(|line| line.split(':').nth(1));
    let mounted = fields.flat_map(|names| names.split(','));
    let others = mounted.filter(|name| !(name.is_empty() || CONTROLLERS.contains(name)));
    others.map(Into::into)
}

/// Those of `controllers` that this machine has, each with the version of its hierarchy.
pub fn versions(controllers: &[&str]) -> Result<Vec<(String, Version)>> {
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let found = places(controllers.iter().map(|&name| name.into()).collect(), &own)?;
    let versions = found.into_iter().map(|(_, version, name)| (name, version));
    Ok(versions.collect())
}

/// Where each controller is on this machine: the hierarchy's topmost folder and its version. The calling process is in the
/// groups `own`, its /proc/self/cgroup.
fn places(controllers: Vec<String>, own: &str) -> Result<Vec<(PathBuf, Version, String)>> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo")?;
    // A machine may have a thousand mounts, and each controller is looked for by itself.
    let of_groups = mountinfo.lines().filter(|line| line.contains(" - cgroup"));
    let mountinfo = of_groups.collect::<Vec<_>>().join("\n");
    let place = |controller: String| {
        let (top, version) = find(&controller, &mountinfo, own)?;
        // In version 2 these are no controllers: a program decides about devices, and every group has a freezer.
        let always = ["devices", "freezer"].contains(&controller.as_str());
        let here = version == Version::V1 || always || v2::has(&top, &controller);
        here.then_some((top, version, controller))
    };
    Ok(controllers.into_iter().filter_map(place).collect())
}

/// The hierarchies of this machine that a container with `limits` has a group in.
pub(super) fn hierarchies(limits: &Limits) -> Result<Vec<Hierarchy>> {
    let mut controllers: Vec<String> = CONTROLLERS.map(Into::into).into();
    for other in &limits.others {
        if !controllers.contains(&other.controller) {
            controllers.push(other.controller.clone());
        }
    }
    let own = fs::read_to_string("/proc/self/cgroup")?;
    if limits.everywhere {
        let others = others_of_version_1(&own).filter(|other| !controllers.contains(other));
        controllers.extend(others.collect::<Vec<_>>());
    }
    let places = places(controllers.clone(), &own)?;
    let mut hierarchies: Vec<Hierarchy> = Vec::new();
    for controller in controllers {
        let asked_for_by = limits.flag_for(&controller);
        let seldom = match controller.as_str() {
            "cpuset" => true,
            "freezer" => !limits.freezer,
            _ => false,
        };
        if seldom && asked_for_by.is_none() && !limits.everywhere {
            continue;
        }
        let found = places.iter().find(|(_, _, name)| *name == controller);
        match (found, asked_for_by) {
            (Some((top, version, _)), _) => {
                match hierarchies.iter_mut().find(|known| known.top == *top) {
                    Some(known) => known.controllers.push(controller),
                    None => hierarchies.push(Hierarchy {
                        top: top.clone(),
                        version: *version,
                        controllers: vec![controller],
                    }),
                }
            }
            (None, Some(flag)) => bail!(
                "{flag}: this machine has no {controller} controller mounted\nhelp: in a container, \
                 start that one with `docker run --privileged`; on a machine, mount cgroup2 on \
                 /sys/fs/cgroup, or boot with cgroup_enable={controller}"
            ),
            (None, None) => {}
        }
    }
    Ok(hierarchies)
}

/// The groups of one container, in all hierarchies: for looking, and for joining later.
#[derive(Debug, Clone, Default)]
pub struct Groups(pub(super) Vec<(Hierarchy, PathBuf)>);

impl Groups {
    /// The groups that the container `id` has now.
    pub fn of(id: &str) -> Result<Groups> {
        Groups::at(&Path::new(OURS).join(id))
    }

    /// The groups that there are now at `path` below the topmost group of each hierarchy.
    pub fn at(path: &Path) -> Result<Groups> {
        let mut groups: Vec<(Hierarchy, PathBuf)> = Vec::new();
        for (top, version, controller) in every_place()? {
            let folder = top.join(path);
            match groups.iter_mut().find(|(known, _)| known.top == top) {
                Some((known, _)) => known.controllers.push(controller),
                None if folder.exists() => groups.push((
                    Hierarchy {
                        top,
                        version,
                        controllers: vec![controller],
                    },
                    folder,
                )),
                None => {}
            }
        }
        Ok(Groups(groups))
    }

    /// The folders of all groups, with the hierarchy of each.
    pub fn all(&self) -> impl Iterator<Item = (&Hierarchy, &Path)> {
        self.0
            .iter()
            .map(|(hierarchy, folder)| (hierarchy, &**folder))
    }

    /// Removes the groups, once no process is in them any more.
    ///
    /// # Errors
    /// A group is still in use after ten seconds.
    pub fn remove(&self) -> Result<()> {
        self.0
            .iter()
            .rev()
            .try_for_each(|(_, folder)| remove_group(folder))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The folder that has `controller`, and the version of its files.
    pub fn folder(&self, controller: &str) -> Option<(&Path, Version)> {
        let has = |(hierarchy, _): &&(Hierarchy, _)| {
            hierarchy.controllers.iter().any(|name| name == controller)
        };
        let (hierarchy, folder) = self.0.iter().find(has)?;
        Some((folder, hierarchy.version))
    }

    /// Opens the *entrances* of the groups: the file of [`members_of`] in each, by which a process joins. In version 2 the
    /// entrance is that of the group `below`, to which the container's processes have moved.
    pub fn entrances(&self, below: &str) -> Result<Vec<(PathBuf, File)>> {
        let open = |(hierarchy, folder): &(Hierarchy, PathBuf)| {
            let path = match hierarchy.version {
                Version::V1 => folder.join(members_of(Version::V1)),
                Version::V2 => folder.join(below).join(members_of(Version::V2)),
            };
            let file = File::options().write(true).open(&path);
            let file = file.with_context(|| path.display().to_string())?;
            Ok((path, file))
        };
        self.0.iter().map(open).collect()
    }
}

impl Cgroup {
    /// The groups' places, for a caller that only looks.
    pub fn groups(&self) -> Groups {
        let place = |group: &Group| (group.hierarchy.clone(), group.folder.clone());
        Groups(self.groups.iter().map(place).collect())
    }

    /// The entrances of the groups, which are open already: [`Groups::entrances`].
    pub fn entrances(&self) -> Result<Vec<(PathBuf, File)>> {
        let open = |group: &Group| {
            let path = group.folder.join(members_of(group.hierarchy.version));
            Ok((path, group.members.try_clone()?))
        };
        self.groups.iter().map(open).collect()
    }
}

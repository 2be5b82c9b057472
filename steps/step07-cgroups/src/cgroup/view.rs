//! What the container sees of its control groups: /sys/fs/cgroup, for reading.
//!
//! A program reads there how much memory it has. In a cgroup namespace of its own, the topmost group
//! that the program sees is the container's, and the host's other groups aren't visible.

use crate::{Cgroup, Hierarchy, Version};
use anyhow::Result;
use nix::mount::{MsFlags, mount};
use std::fs;
use std::path::Path;
use step01_uts::call;
use step06_caps::remount_read_only;

const FLAGS: MsFlags = MsFlags::MS_NOSUID
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOEXEC);

const PLACE: &str = "/sys/fs/cgroup";

impl Cgroup {
    /// Mounts the groups' hierarchies on /sys/fs/cgroup, read-only, as on the host: a single one there
    /// itself, or several in a directory each. Call this in the container, after [`Cgroup::enter`].
    pub fn mount(&self) -> Result<()> {
        if !Path::new(PLACE).exists() {
            return Ok(());
        }
        let hierarchies: Vec<&Hierarchy> = self.hierarchies().collect();
        if let [unified] = hierarchies[..] {
            if unified.version == Version::V2 {
                return mount_hierarchy(unified, PLACE);
            }
        }
        let tmpfs = Some("tmpfs");
        call!(mount(tmpfs, PLACE, tmpfs, FLAGS, Some("mode=755,size=64k")))?;
        for hierarchy in hierarchies {
            let name = hierarchy.top.file_name().unwrap_or_default();
            let place = format!("{PLACE}/{}", name.to_string_lossy());
            fs::create_dir(&place)?;
            mount_hierarchy(hierarchy, &place)?;
        }
        remount_read_only(PLACE)
    }
}

fn mount_hierarchy(hierarchy: &Hierarchy, place: &str) -> Result<()> {
    let (kind, controllers) = match hierarchy.version {
        Version::V1 => (Some("cgroup"), Some(hierarchy.controllers.join(","))),
        Version::V2 => (Some("cgroup2"), None),
    };
    call!(mount(kind, place, kind, FLAGS, controllers.as_deref()))?;
    remount_read_only(place)
}

//! One control group: how its folder is made, joined and removed, also by two programs at once and
//! after a crash.

use crate::limits::{Limits, Setting};
use crate::{Hierarchy, Version, limit, v1, v2};
use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

/// All groups of ours are below this one.
pub(crate) const OURS: &str = "ten-steps";

/// A folder, and a file in it that was opened before there was a container.
pub(crate) struct Group {
    pub(crate) hierarchy: Hierarchy,
    pub(crate) folder: PathBuf,
    /// The file of [`members_of`]. As long as it is locked, somebody uses the group.
    pub(crate) members: Flock<File>,
}

impl Group {
    pub(crate) fn create(hierarchy: Hierarchy, id: &str) -> Result<Group> {
        let ours = hierarchy.top.join(OURS);
        let folder = ours.join(id);
        loop {
            make_group(&ours)?;
            if hierarchy.version == Version::V2 {
                v2::enable(&hierarchy.top, &hierarchy.controllers)?;
                v2::enable(&ours, &hierarchy.controllers)?;
            }
            make_group(&folder)?;
            let file = folder.join(members_of(hierarchy.version));
            let members = match File::options().write(true).open(&file) {
                // Somebody took it for the leavings of a crash, since it wasn't locked yet.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                opened => opened.with_context(|| file.display().to_string())?,
            };
            let locked = Flock::lock(members, FlockArg::LockShared);
            let members = locked.map_err(|(_, errno)| errno)?;
            if folder.exists() {
                return Ok(Group {
                    hierarchy,
                    folder,
                    members,
                });
            }
        }
    }

    /// Writes what of `limits` is this hierarchy's.
    pub(crate) fn configure(&self, limits: &Limits) -> Result<()> {
        let settings = match self.hierarchy.version {
            Version::V1 => v1::settings(limits),
            Version::V2 => v2::settings(limits),
        };
        let here = |setting: &Setting| self.hierarchy.controllers.contains(&setting.controller);
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

/// The file to which a process writes to join. It has one thread, and `tasks` is for threads: then the
/// kernel needn't stop all forks of the machine, which takes it some milliseconds. Version 2 has no such
/// file.
pub fn members_of(version: Version) -> &'static str {
    match version {
        Version::V1 => "tasks",
        Version::V2 => "cgroup.procs",
    }
}

fn make_group(folder: &Path) -> Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(anyhow!(
            "mkdir {}: {error}\nhelp: control groups take a root that may write there: `sudo`, or \
             `docker run --privileged` around this",
            folder.display()
        )),
        Ok(()) => Ok(()),
    }
}

/// Removes the groups that nobody has locked: those of programs that were killed before they could.
pub(crate) fn sweep(ours: &Path, hierarchies: &[Hierarchy]) {
    for entry in fs::read_dir(ours).into_iter().flatten().flatten() {
        let file = members_of(hierarchies[0].version);
        let Ok(file) = File::open(entry.path().join(file)) else {
            continue;
        };
        if Flock::lock(file, FlockArg::LockExclusiveNonblock).is_err() {
            continue;
        }
        for hierarchy in hierarchies.iter().rev() {
            // Who is still in there ends by itself, and then it is the next one's.
            let _ = fs::remove_dir(hierarchy.top.join(OURS).join(entry.file_name()));
        }
    }
}

/// A new name for a container: 64 hexadecimal digits that nobody else draws.
pub fn new_id() -> Result<String> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Removes an empty group, and waits for the end of those who are about to leave it.
pub fn remove_group(folder: &Path) -> Result<()> {
    const PATIENCE: u32 = 2000;
    for turn in 0.. {
        match fs::remove_dir(folder) {
            Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) && turn < PATIENCE => {
                sleep(Duration::from_millis(1));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => break,
            outcome => return outcome.with_context(|| format!("rmdir {}", folder.display())),
        }
    }
    Ok(())
}

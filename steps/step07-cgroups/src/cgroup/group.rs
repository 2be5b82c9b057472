//! One control group: how its folder is made, joined and removed, also by two programs at once and
//! after a crash.

use crate::cgroup::{v1, v2};
use crate::claim::{abandoned, claim};
use crate::limits::{Limits, Setting};
use crate::{Hierarchy, Version, hierarchies, limit, places};
use anyhow::{Context, Error, Result, anyhow};
use nix::errno::Errno;
use nix::fcntl::Flock;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
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

    /// Writes what of `limits` is this hierarchy's.
    pub(crate) fn configure(&self, limits: &Limits) -> Result<()> {
        let Hierarchy {
            top, controllers, ..
        } = &self.hierarchy;
        if self.hierarchy.version == Version::V2 {
            v2::enable(top, controllers)?;
            v2::enable(&top.join(OURS), controllers)?;
        }
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

/// The groups of one container, wherever they are: for looking, and for joining later.
#[derive(Debug, Clone)]
pub struct Groups(pub(crate) Vec<(Hierarchy, PathBuf)>);

impl Groups {
    pub(crate) fn at(places: Vec<(Hierarchy, PathBuf)>) -> Groups {
        Groups(places)
    }

    /// Those that the container `id` has now.
    pub fn of(id: &str) -> Result<Groups> {
        let mut groups: Vec<(Hierarchy, PathBuf)> = Vec::new();
        for (top, version, controller) in places()? {
            let folder = top.join(OURS).join(id);
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

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The folder that has `controller`, and the version of its files.
    pub fn folder(&self, controller: &str) -> Option<(&Path, Version)> {
        let has = |(hierarchy, _): &&(Hierarchy, _)| hierarchy.controllers.contains(&controller);
        let (hierarchy, folder) = self.0.iter().find(has)?;
        Some((folder, hierarchy.version))
    }

    /// Opens of each group the file of [`members_of`], for who joins; in version 2 that of the group `below` it, whose
    /// processes have moved there.
    pub fn doors(&self, below: &str) -> Result<Vec<(PathBuf, File)>> {
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
fn remove_above(folder: &Path) {
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

/// Removes the groups that nobody has locked. What tells is the group in the hierarchy `first`, which is made first and removed last.
pub(crate) fn sweep(first: &Hierarchy) -> Result<()> {
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

/// Removes the groups that somebody made below `folder`: a container that was allowed to.
fn remove_below(folder: &Path) {
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

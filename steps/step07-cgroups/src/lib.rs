//! # Step 7: limits
//!
//! Namespaces say what a container sees. What it may use up is another matter: memory, processor
//! time, processes. A process's own limits (setrlimit(2), [`rlimits`]) don't do: each child gets the
//! same again. A control group is a set of processes that share one limit, and children are born
//! into it.
//!
//! A control group is a folder: `mkdir` makes it, a file in it holds each limit, writing a pid to
//! another moves a process in, and `rmdir` removes it. Which folder, depends: each controller has
//! a hierarchy of its own in cgroups version 1, all have one together in version 2, and on a hybrid
//! machine some are here and some there. [`find`] looks it up. What the two versions call their
//! files is told in [`v1`] and [`v2`], and which devices a container may open in [`devices`]. See
//! cgroups(7).

pub mod device_program;
pub mod devices;
pub mod limits;
pub mod rlimits;
pub mod usage;
pub mod v1;
pub mod v2;
pub mod view;

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sched::{CloneFlags, unshare};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;
use step01_uts::call;

use limits::{Limits, Setting};

// ANCHOR: Hierarchy
/// A tree of control groups, as it is mounted here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// The folder of its topmost group that can be seen from here.
    pub top: PathBuf,
    /// Which files its groups have.
    pub version: Version,
    /// What was asked for and is controlled in it.
    pub controllers: Vec<&'static str>,
}

/// The version of cgroups that a hierarchy is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A hierarchy for each controller, or for a few.
    V1,
    /// One for all.
    V2,
}
// ANCHOR_END: Hierarchy

// ANCHOR: find
/// Finds the folder of the hierarchy that has `controller`, and its version, by the texts of
/// /proc/self/mountinfo and /proc/self/cgroup; nothing when no mounted hierarchy can have it.
///
/// /proc/self/cgroup has a line `4:memory:/docker/0123` for a controller of version 1, and
/// `0::/user.slice` for version 2, where every controller is that no other line names. Its last
/// field is the caller's own group. A mount of a hierarchy needn't show all of it: its root field
/// says from which group on, so the right mount is one whose root the caller's group is below.
/// See cgroups(7), proc_pid_mountinfo(5).
pub fn find(controller: &str, mountinfo: &str, own: &str) -> Option<(PathBuf, Version)> {
    // ANCHOR_END: find
    // ANCHOR: exercise_find
    let (version, group) = own_group(controller, own)?;
    let mounts = mountinfo.lines().filter_map(|line| {
        let (place, filesystem) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, target) = (place.next()?, place.next()?);
        let mut filesystem = filesystem.split(' ');
        let (kind, options) = (filesystem.next()?, filesystem.nth(1)?);
        let is_it = match version {
            Version::V1 => kind == "cgroup" && options.split(',').any(|each| each == controller),
            Version::V2 => kind == "cgroup2",
        };
        let shows_us = Path::new(&group).starts_with(root) || root.starts_with("/..");
        (is_it && shows_us).then(|| (root.len(), unescaped(target)))
    });
    // The one that shows the most.
    let (_, top) = mounts.min_by_key(|(root, _)| *root)?;
    Some((top, version))
    // ANCHOR_END: exercise_find
}

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

/// A path of mountinfo, where a space is written `\040`.
fn unescaped(text: &str) -> PathBuf {
    let space = text.replace("\\040", " ").replace("\\011", "\t");
    space.replace("\\012", "\n").replace("\\134", "\\").into()
}

// ANCHOR: Cgroup
/// The control groups of one container: one folder in each hierarchy that has something to say.
pub struct Cgroup {
    groups: Vec<Group>,
    /// What `usage` compares with.
    limits: Limits,
}

/// A folder, and a file in it that was opened before there was a container.
struct Group {
    hierarchy: Hierarchy,
    folder: PathBuf,
    /// The file of [`members_of`]. As long as it is locked, somebody uses the group.
    members: Flock<File>,
}
// ANCHOR_END: Cgroup

/// All groups of ours are below this one.
const OURS: &str = "ten-steps";

/// What a container is accounted for and limited in. A controller that isn't there is missed only
/// when a limit asks for it.
const CONTROLLERS: [&str; 6] = ["memory", "cpu", "cpuacct", "pids", "devices", "cpuset"];

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
            sweep(&first.top.join(OURS), &hierarchies);
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

    // ANCHOR: enter
    /// Moves the calling process in, with all that it will ever start, and makes the groups the
    /// topmost ones that it sees.
    ///
    /// "0" stands for whoever writes it, in whatever PID namespace. A new cgroup namespace takes
    /// the caller's groups for its roots, so that comes second. See cgroup_namespaces(7).
    ///
    /// The files are those of [`members_of`], opened before there was a container.
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
    /// Removes the groups, once nobody is in them any more. See rmdir(2).
    ///
    /// A group's files can't be removed and needn't be: they are no files. A process that has
    /// ended is still in its group until the kernel is through with it.
    ///
    /// # Errors
    /// One of them is still in use after two seconds.
    pub fn remove(&mut self) -> Result<()> {
        // ANCHOR_END: remove
        // ANCHOR: exercise_remove
        // The first of them is what `sweep` finds the others by, so it goes last.
        while let Some(group) = self.groups.pop() {
            remove_group(&group.folder)?;
        }
        Ok(())
        // ANCHOR_END: exercise_remove
    }

    /// The folder that has `controller`, and the version of its files.
    pub fn folder(&self, controller: &str) -> Option<(&Path, Version)> {
        let has = |group: &&Group| group.hierarchy.controllers.contains(&controller);
        let group = self.groups.iter().find(has)?;
        Some((&group.folder, group.hierarchy.version))
    }

    /// The limits that it was made with.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The hierarchies that it has a group in.
    pub fn hierarchies(&self) -> impl Iterator<Item = &Hierarchy> {
        self.groups.iter().map(|group| &group.hierarchy)
    }
}

impl Drop for Cgroup {
    /// On whatever way out; after [`Cgroup::remove`] nothing is left to do. A container's process that
    /// is a copy of this one never gets here.
    fn drop(&mut self) {
        let _ = self.remove();
    }
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

// ANCHOR: limit
/// Writes each of `settings` to its file in the control group `folder`.
///
/// # Errors
/// The text names the flag, the controller, the file and the value, and what the kernel said.
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

/// The hierarchies of this machine that a container with `limits` has a group in.
fn hierarchies(limits: &Limits) -> Result<Vec<Hierarchy>> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo")?;
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let mut hierarchies: Vec<Hierarchy> = Vec::new();
    for controller in CONTROLLERS {
        let asked_for_by = limits.flag_for(controller);
        if controller == "cpuset" && asked_for_by.is_none() {
            continue;
        }
        let found = find(controller, &mountinfo, &own);
        let found = found.filter(|(top, version)| match version {
            Version::V1 => true,
            // Devices are no controller there: a program decides.
            Version::V2 => controller == "devices" || v2::has(top, controller),
        });
        match (found, asked_for_by) {
            (Some((top, version)), _) => {
                match hierarchies.iter_mut().find(|known| known.top == top) {
                    Some(known) => known.controllers.push(controller),
                    None => hierarchies.push(Hierarchy {
                        top,
                        version,
                        controllers: vec![controller],
                    }),
                }
            }
            (None, Some(flag)) => bail!(
                "{flag}: this machine has no {controller} controller mounted\nhelp: in a container, start \
                 that one with `docker run --privileged`; on a machine, mount cgroup2 on /sys/fs/cgroup, or \
                 boot with cgroup_enable={controller}"
            ),
            (None, None) => {}
        }
    }
    Ok(hierarchies)
}

impl Group {
    fn create(hierarchy: Hierarchy, id: &str) -> Result<Group> {
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
    fn configure(&self, limits: &Limits) -> Result<()> {
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
fn sweep(ours: &Path, hierarchies: &[Hierarchy]) {
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
    use std::io::Read;
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

//! Control groups of a container that nobody starts, on this machine as it is, or with version 2 alone.

use probe::anyhow::{Context, Result};
use probe::nix::mount::{MntFlags, MsFlags, mount, umount2};
use probe::nix::unistd::{Pid, getpid};
use probe::{Findings, private_mounts};
use std::fs::{self, File};
use std::io::{Read, Seek};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use step07_cgroups::Cgroup;
use step07_cgroups::cgroup::group::new_id;
use step07_cgroups::limits::Limits;

/// The groups of a container to come, which are removed when this goes, whatever became of them.
pub struct Container {
    id: String,
    /// Whether its machine has version 2 alone.
    is_v2: bool,
    /// Where version 2 is mounted for it.
    top: PathBuf,
    /// What its /proc/self/cgroup and its /proc/self/mountinfo say.
    own: PathBuf,
    table: PathBuf,
}

impl Container {
    /// One on this machine as it is.
    pub fn here(findings: &Findings) -> Result<Container> {
        Ok(Container {
            id: new_id()?,
            is_v2: false,
            top: findings.scratch.join("top"),
            own: findings.scratch.join("own"),
            table: findings.scratch.join("table"),
        })
    }

    /// Judges by one on a machine that has version 2 alone, where that can be made up, and by one on this machine.
    pub fn on_both(
        findings: &Findings,
        judge: fn(&Findings, &Container) -> Result<()>,
    ) -> Result<()> {
        if let Some(container) = Container::on_v2(findings)? {
            judge(findings, &container)?;
        }
        match findings.all_hold() {
            true => judge(findings, &Container::here(findings)?),
            false => Ok(()),
        }
    }

    /// One on a machine that has version 2 alone; none where the kernel hasn't got it.
    pub fn on_v2(findings: &Findings) -> Result<Option<Container>> {
        let known = fs::read_to_string("/proc/filesystems")?;
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let line = own.lines().find(|line| line.starts_with("0::"));
        let (true, Some(line)) = (known.contains("\tcgroup2\n"), line) else {
            return Ok(None);
        };
        let mut container = Container::here(findings)?;
        container.is_v2 = true;
        let top = container.top.display();
        let table = format!("30 20 0:25 / {top} rw - cgroup2 cgroup2 rw\n");
        fs::write(&container.own, format!("{line}\n"))?;
        fs::write(&container.table, table)?;
        if !container.top.exists() {
            fs::create_dir(&container.top)?;
            private_mounts()?;
            let (source, none) = (Some("cgroup2"), None::<&str>);
            mount(source, &container.top, source, MsFlags::empty(), none).context("cgroup2")?;
        }
        Ok(Some(container))
    }

    /// Makes the groups, in a process that has mounts of its own from then on. They aren't removed with what is returned:
    /// the learner's function may have to do that.
    pub fn make(&self, limits: &Limits) -> Result<ManuallyDrop<Cgroup>> {
        private_mounts()?;
        if !self.is_v2 {
            return Ok(ManuallyDrop::new(Cgroup::create(&self.id, limits)?));
        }
        let none = None::<&str>;
        let texts = ["cgroup", "mountinfo"].map(|name| format!("/proc/{}/{name}", getpid()));
        for (text, told) in texts.iter().zip([&self.own, &self.table]) {
            mount(Some(told), &**text, none, MsFlags::MS_BIND, none)
                .with_context(|| text.clone())?;
        }
        let cgroup = Cgroup::create(&self.id, limits);
        for text in &texts {
            umount2(&**text, MntFlags::MNT_DETACH)?;
        }
        Ok(ManuallyDrop::new(cgroup?))
    }

    /// The folders of the groups, in the order in which they are kept.
    pub fn folders(&self, cgroup: &Cgroup) -> Vec<PathBuf> {
        let tops = cgroup.hierarchies().map(|hierarchy| &hierarchy.top);
        tops.map(|top| top.join("ten-steps").join(&self.id))
            .collect()
    }

    /// The same, each open at the list of its members: by then the paths may lead nowhere.
    pub fn members(&self, cgroup: &Cgroup) -> Result<Vec<(String, File)>> {
        let each = self.folders(cgroup).into_iter().map(|folder| {
            let list = folder.join("cgroup.procs");
            let file = File::open(&list).with_context(|| list.display().to_string())?;
            Ok((self.shown(&list), file))
        });
        each.collect()
    }

    /// A path without the name that nobody else's container has.
    pub fn shown(&self, path: &Path) -> String {
        path.display().to_string().replace(&self.id, "ID")
    }

    /// Whether one of the groups is there, in whatever hierarchy.
    pub fn is_there(&self) -> Result<bool> {
        let mut tops = mounts_of(&["cgroup", "cgroup2"])?.into_iter();
        Ok(tops.any(|top| top.join("ten-steps").join(&self.id).exists()))
    }

    /// The name of the groups.
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        for top in mounts_of(&["cgroup", "cgroup2"]).unwrap_or_default() {
            let ours = top.join("ten-steps");
            remove(&ours.join(&self.id));
            let _ = fs::remove_dir(ours);
        }
    }
}

/// Removes a group and those below it, as far as they are empty.
fn remove(group: &Path) {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.path().is_dir()) {
        remove(&entry.path());
    }
    let _ = fs::remove_dir(group);
}

/// Whether the process `pid` is in the list of a group's members.
pub fn is_member(list: &mut File, pid: Pid) -> bool {
    let mut text = String::new();
    let read = list.rewind().and_then(|()| list.read_to_string(&mut text));
    let pid = pid.to_string();
    read.is_ok() && text.lines().any(|line| line == pid)
}

/// Where filesystems of these types are mounted.
pub fn mounts_of(types: &[&str]) -> Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let each = table.lines().filter_map(|line| {
        let (place, filesystem) = line.split_once(" - ")?;
        let kind = filesystem.split(' ').next()?;
        let target = place.split(' ').nth(4)?;
        types.contains(&kind).then(|| target.into())
    });
    Ok(each.collect())
}

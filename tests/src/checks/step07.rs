//! Chapter 7: limits.

use crate::course::Exercise;
use crate::course::workbench::{READY, Workbench, in_its_own};
use crate::host::container::{Container, eventually, run};
use crate::host::evidence::Process;
use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use probe::Claim;
use std::fs::{self, File};
use std::path::PathBuf;
use std::thread::{JoinHandle, spawn};
use step07_cgroups::Version;
use step07_cgroups::cgroup::group::members_of;
use step07_cgroups::find as hierarchy_of;

/// The exercises of chapter 7.
pub const EXERCISES: &[Exercise] = &[
    Exercise {
        name: "find",
        heart: "mountinfo × /proc/self/cgroup",
        check: find,
        scenes: &[&["--rootfs", "{root}", "-m", "64m", "true"]],
        mistakes: &[],
        read: "cgroups(7), proc(5) on /proc/PID/cgroup and /proc/PID/mountinfo",
        show: "cat /proc/self/cgroup; grep cgroup /proc/self/mountinfo",
        hints: [
            "Which line of /proc/self/cgroup has the controller? If none has it by name, whose is it \
             then? Which lines of mountinfo are of that hierarchy, and which of those mounts show the \
             group that you are in?",
            "own_group(controller, own)? says version and group. Take each line of mountinfo apart at \
             \" - \": before it the fourth field is the root and the fifth the place, behind it stand \
             type, source and options. Keep those of type cgroup with the controller among the options \
             (split at commas), or of type cgroup2 for version 2; of these the ones whose root the \
             group begins with (as a Path), or whose root begins with \"/..\"; and of these the one \
             with the shortest root. Return unescaped(place) and the version.",
        ],
    },
    Exercise {
        name: "limit",
        heart: "a limit is a write",
        check: limit,
        scenes: &[&[
            "--rootfs",
            "{root}",
            "-m",
            "64m",
            "--cpus",
            "0.5",
            "--pids-limit",
            "20",
            "true",
        ]],
        mistakes: &[],
        read: "cgroups(7), the kernel's documentation of cgroup-v1 and cgroup-v2",
        show: "cargo progress run 7 -- -m 64m grep -rs . /sys/fs/cgroup --include=memory.max \
               --include=memory.limit_in_bytes",
        hints: [
            "A file of a control group takes a value by one write. What does the kernel say of a value \
             that can't be, and who hears it? What does it say of a file that isn't there, and is that \
             an error?",
            "For each setting: open folder.join(setting.file) by File::options().write(true), so that \
             nothing is created, and write_all(setting.value.as_bytes()). An error of kind NotFound is \
             fine unless setting.required; every other error gets a context with flag, controller, \
             value and file, and goes back with `?`.",
        ],
    },
    Exercise {
        name: "enter",
        heart: "inherited at fork",
        check: enter,
        scenes: &[&["--rootfs", "{root}", "true"]],
        mistakes: &[],
        read: "cgroups(7), cgroup_namespaces(7)",
        show: "cargo progress run 7 -- cat /proc/self/cgroup",
        hints: [
            "The child enters by itself, before it starts anybody. The kernel reads a pid in the \
             writer's own PID namespace: which number means the writer anywhere? And what becomes the \
             top of a new cgroup namespace?",
            "For each of self.groups: (&*group.members).write_all(b\"0\"), with a context that names \
             the group's folder. When all are joined, call!(unshare(CloneFlags::CLONE_NEWCGROUP))?, and \
             Ok(()) at the end.",
        ],
    },
    Exercise {
        name: "remove",
        heart: "rmdir, once empty",
        check: remove,
        scenes: &[
            &["--rootfs", "{root}", "true"],
            &["--rootfs", "{root}", "no-such-program"],
        ],
        mistakes: &[],
        read: "rmdir(2) under EBUSY, cgroups(7)",
        show: "cargo progress run 7 -- true; find /sys/fs/cgroup -name ten-steps",
        hints: [
            "remove_dir_all would unlink the files first, and the kernel refuses that. What is left to \
             do for an empty group? And when may you forget that you have it?",
            "As long as self.groups.last() is some group: remove_group(&group.folder)?, and after that \
             self.groups.pop(). Ok(()) when none is left.",
        ],
    },
];

fn start(bench: &Workbench, flags: &[&str]) -> Result<Container> {
    Container::start(
        &bench.program,
        &bench.in_root(&[&["-i"], flags].concat(), &READY)?,
    )
}

/// The folder of the control group that `process` is in for `controller`, and its version.
pub fn group(process: Process, controller: &str) -> Result<(PathBuf, Version)> {
    let own = fs::read_to_string(process.file("cgroup"))?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let mine = fs::read_to_string("/proc/self/cgroup")?;
    let (top, version) =
        hierarchy_of(controller, &mounts, &mine).context("no such controller here")?;
    let line = own.lines().find(|line| {
        let controllers = line.split(':').nth(1).unwrap_or_default();
        match version {
            Version::V1 => controllers.split(',').any(|each| each == controller),
            Version::V2 => controllers.is_empty(),
        }
    });
    let path = line.and_then(|line| line.splitn(3, ':').nth(2));
    let path = path.context("/proc/PID/cgroup has no such line")?;
    Ok((top.join(path.trim_start_matches('/')), version))
}

/// Of the controllers that a container is accounted for by, those that this machine has.
fn controllers() -> Vec<&'static str> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let here = |controller: &&str| hierarchy_of(controller, &mounts, &own).is_some();
    ["memory", "cpu", "pids"].into_iter().filter(here).collect()
}

/// 7.1: for every controller the container is in a group of its own, below ten-steps.
pub fn find(bench: &Workbench) -> Result<Vec<Claim>> {
    let container = start(bench, &[])?;
    let mut claims = Vec::new();
    for controller in controllers() {
        let (folder, _) = group(container.first_process(), controller)?;
        let inside = is_below_ours(&folder);
        claims.push(Claim::new(
            format!("for {controller} the container is in a group of its own, /ten-steps/ID"),
            format!("/proc/PID/cgroup: {}", last_names(&folder)),
            inside && folder.is_dir(),
        ));
    }
    Ok(claims)
}

/// Whether a folder is that of a container's group.
fn is_below_ours(folder: &std::path::Path) -> bool {
    let parent = folder.parent();
    parent.is_some_and(|parent| parent.ends_with("ten-steps"))
}

/// A path without the container's name, which differs each time.
fn last_names(folder: &std::path::Path) -> String {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let above = folder.parent().unwrap_or(folder).display();
    match name.len() {
        64 => format!("{above}/ID"),
        _ => folder.display().to_string(),
    }
}

/// 7.2: the values stand in the files.
pub fn limit(bench: &Workbench) -> Result<Vec<Claim>> {
    let container = start(bench, &["-m", "64m", "--cpus", "0.5", "--pids-limit", "20"])?;
    let first = container.first_process();
    let mut claims = Vec::new();
    for (flag, controller, v1, v2) in [
        (
            "-m 64m",
            "memory",
            ("memory.limit_in_bytes", "67108864"),
            ("memory.max", "67108864"),
        ),
        (
            "--cpus 0.5",
            "cpu",
            ("cpu.cfs_quota_us", "50000"),
            ("cpu.max", "50000 100000"),
        ),
        (
            "--pids-limit 20",
            "pids",
            ("pids.max", "20"),
            ("pids.max", "20"),
        ),
    ] {
        let (folder, version) = group(first, controller)?;
        let (file, wanted) = if version == Version::V1 { v1 } else { v2 };
        let seen = fs::read_to_string(folder.join(file))?;
        claims.push(Claim::equal(flag, file, &seen.trim(), &wanted));
    }
    let extremes = ["--pids-limit", "4194304", "--cpu-shares", "2"];
    let ran = run(&bench.program, &bench.in_root(&extremes, &["true"])?)?;
    claims.push(Claim::new(
        "the smallest number of shares and the largest of processes are taken",
        ran.in_words(),
        ran.code == 0,
    ));
    Ok(claims)
}

/// 7.3: the command is inside, and so is all that it starts; of the host's groups it sees none.
pub fn enter(bench: &Workbench) -> Result<Vec<Claim>> {
    let arguments = bench.in_root(
        &["-i"],
        &["sh", "-c", "cat /proc/self/cgroup; echo; read end"],
    )?;
    let container = Container::start(&bench.program, &arguments)?;
    let first = container.first_process();
    let (folder, version) = group(first, "pids")?;
    let members = fs::read_to_string(folder.join("cgroup.procs"))?;
    let pid = first.0.to_string();
    let is_member = members.lines().any(|member| member == pid);
    let is_its_own = is_below_ours(&folder);
    let mut claims = vec![
        Claim::new(
            "PID 1 is a member of the container's group, /ten-steps/ID",
            match (is_member, is_its_own) {
                (true, true) => "cgroup.procs: it is".into(),
                (true, false) => format!("it is a member of {} instead", last_names(&folder)),
                (false, _) => format!("{}/cgroup.procs: it isn't", last_names(&folder)),
            },
            is_member && is_its_own,
        ),
        in_its_own(&container, "cgroup")?,
    ];
    let said = container.finish()?.output;
    // What the first child of PID 1 saw of itself.
    let line = said.lines().find(|line| match version {
        Version::V1 => line.contains(":pids:"),
        Version::V2 => line.starts_with("0::"),
    });
    claims.push(Claim::new(
        "its first child is in the topmost group that it sees",
        format!("/proc/self/cgroup in there: {}", line.unwrap_or("nothing")),
        line.is_some_and(|line| line.ends_with(":/")),
    ));
    Ok(claims)
}

/// Whoever makes a group sweeps away those that somebody left behind, which nobody has locked. What is left behind here
/// is locked from the moment at which it is.
fn keep((folder, version): &(PathBuf, Version)) -> Result<JoinHandle<Option<Flock<File>>>> {
    let members = File::open(folder.join(members_of(*version)))?;
    Ok(spawn(|| Flock::lock(members, FlockArg::LockShared).ok()))
}

/// 7.4: nothing of the group is left, whatever the command ended with.
pub fn remove(bench: &Workbench) -> Result<Vec<Claim>> {
    let mut claims = Vec::new();
    for (how, command) in [
        ("ended", ["sh", "-c", "echo ready; read end"]),
        (
            "failed, with processes left behind",
            [
                "sh",
                "-c",
                "echo ready; read end; sleep 1000 & sleep 1000 & exit 3",
            ],
        ),
    ] {
        let container = Container::start(&bench.program, &bench.in_root(&["-i"], &command)?)?;
        let first = container.first_process();
        let folders: Result<Vec<_>> = controllers()
            .into_iter()
            .map(|name| group(first, name))
            .collect();
        let folders = folders?;
        let kept: Result<Vec<_>> = folders.iter().map(keep).collect();
        let kept = kept?;
        container.finish()?;
        eventually(|| kept.iter().all(JoinHandle::is_finished).then_some(()));
        for (folder, _) in folders {
            let seen = match (is_below_ours(&folder), folder.exists()) {
                (false, _) => format!("it was in {}, no group of its own", last_names(&folder)),
                (true, true) => format!("{} is there", last_names(&folder)),
                (true, false) => format!("{} isn't there", last_names(&folder)),
            };
            claims.push(Claim::new(
                format!("when the command has {how}, its group is gone"),
                seen,
                is_below_ours(&folder) && !folder.exists(),
            ));
        }
    }
    Ok(claims)
}

//! What the kernel says of a process, read from outside.

use anyhow::{Context, Result};
use nix::unistd::Pid;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// An open descriptor: proc_pid_fd(5), proc_pid_fdinfo(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// What it leads to: a path, or `pipe:[4711]`.
    pub target: PathBuf,
    /// Its flags, as open(2) has them: O_RDWR, O_CLOEXEC …
    pub flags: i32,
}

impl Descriptor {
    /// Whether it is closed by execve.
    pub fn is_closed_on_exec(&self) -> bool {
        self.flags & libc::O_CLOEXEC != 0
    }
}

/// What a process has, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// Its descriptors by their numbers.
    pub descriptors: BTreeMap<i32, Descriptor>,
    /// The lines of its status by their names: `Umask`, `SigBlk`, `Uid`, `CapEff` … See proc_pid_status(5).
    pub status: BTreeMap<String, String>,
    /// Its namespaces by their names: `mnt` → `mnt:[4026531841]`.
    pub namespaces: BTreeMap<String, String>,
    /// Its children, zombies among them: the number, and the letter of the state.
    pub children: BTreeMap<i32, String>,
    /// Its mounts, a line of mountinfo each, without the numbers that tell nothing.
    pub mounts: Vec<String>,
    /// Its working directory and its root.
    pub directories: [PathBuf; 2],
    /// The fields of its stat behind the name: state, parent, group, session, terminal …
    pub stat: Vec<String>,
}

impl State {
    /// What the process `pid` has now.
    pub fn of(pid: Pid) -> Result<State> {
        let folder = PathBuf::from(format!("/proc/{pid}"));
        let text = |name: &str| -> Result<String> {
            let file = folder.join(name);
            let bytes = fs::read(&file).with_context(|| file.display().to_string())?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let stat = text("stat")?;
        let (_, fields) = stat.rsplit_once(") ").context("a stat without a name")?;
        let status = text("status")?;
        let lines = status.lines().filter_map(|line| line.split_once(':'));
        let link = |name: &str| fs::read_link(folder.join(name)).unwrap_or_default();
        Ok(State {
            descriptors: descriptors(&folder),
            status: lines
                .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
                .collect(),
            namespaces: [
                "cgroup",
                "ipc",
                "mnt",
                "net",
                "pid",
                "pid_for_children",
                "user",
                "uts",
            ]
            .map(|name| {
                let target = link(&format!("ns/{name}"));
                (name.to_owned(), target.display().to_string())
            })
            .into(),
            children: children_of(pid),
            mounts: text("mountinfo")
                .map(|table| mounts(&table))
                .unwrap_or_default(),
            directories: [link("cwd"), link("root")],
            stat: fields.split_whitespace().map(String::from).collect(),
        })
    }

    /// A line of its status, the empty text where there is none.
    pub fn status(&self, name: &str) -> &str {
        self.status.get(name).map_or("", String::as_str)
    }

    /// What is different in `after`, in words. `may_change` names what is meant to: `descriptors`, `children`, `mounts`,
    /// `directory`, `root`, `session`, a namespace (`ns/mnt`) or a line of the status.
    pub fn changes(&self, after: &State, may_change: &[&str]) -> Vec<String> {
        let mut changes = Vec::new();
        let is_watched = |name: &str| !may_change.contains(&name);
        if is_watched("descriptors") {
            changes.extend(self.left_open(after));
            for (number, lost) in &self.descriptors {
                if !after.descriptors.contains_key(number) {
                    let target = lost.target.display();
                    changes.push(format!(
                        "descriptor {number}, {target}, of the caller was closed"
                    ));
                }
            }
        }
        if is_watched("children") {
            changes.extend(self.left_children(after));
        }
        if is_watched("mounts") {
            let (was, is): (BTreeSet<_>, BTreeSet<_>) =
                (self.mounts.iter().collect(), after.mounts.iter().collect());
            changes.extend(
                is.difference(&was)
                    .map(|new| format!("a mount is new: {new}")),
            );
            changes.extend(
                was.difference(&is)
                    .map(|old| format!("a mount is gone: {old}")),
            );
        }
        for (at, name, words) in [
            (0, "directory", "the caller's working directory"),
            (1, "root", "the caller's root directory"),
        ] {
            let (was, is) = (&self.directories[at], &after.directories[at]);
            if is_watched(name) && was != is {
                let [was, is] = [was, is].map(|path| without_pid(&path.display().to_string()));
                changes.push(format!("{words} was {was}, and is {is}"));
            }
        }
        for (name, was) in &self.namespaces {
            let is = after.namespaces.get(name);
            if is_watched(&format!("ns/{name}")) && is != Some(was) {
                changes.push(format!("the caller is in another {name} namespace"));
            }
        }
        // Group and session: the third and the fourth field of proc_pid_stat(5), the fifth and sixth of all.
        if is_watched("session") && self.stat.get(2..5) != after.stat.get(2..5) {
            changes.push("the caller has another process group, session or terminal".into());
        }
        const KEPT: &[(&str, &str)] = &[
            ("Umask", "umask"),
            ("SigBlk", "blocked signals"),
            ("SigIgn", "ignored signals"),
            ("SigCgt", "caught signals"),
            ("Uid", "user IDs"),
            ("Gid", "group IDs"),
            ("Groups", "supplementary groups"),
            ("CapInh", "inheritable capabilities"),
            ("CapPrm", "permitted capabilities"),
            ("CapEff", "effective capabilities"),
            ("CapBnd", "bounding set"),
            ("CapAmb", "ambient capabilities"),
            ("NoNewPrivs", "no_new_privs"),
        ];
        for (name, words) in KEPT {
            let (was, is) = (self.status(name), after.status(name));
            // The signals that the C library takes for its threads are nobody's choice.
            let is_the_same = match name.starts_with("Sig") {
                true => without_internal_signals(was) == without_internal_signals(is),
                false => was == is,
            };
            if is_watched(name) && !is_the_same {
                changes.push(format!(
                    "the caller's {words}: before {was}, after {is} ({name})"
                ));
            }
        }
        changes
    }

    /// The descriptors that are open in `after` and weren't.
    pub fn left_open(&self, after: &State) -> Vec<String> {
        // In another mount namespace the same file has another path.
        let is_elsewhere = self.namespaces.get("mnt") != after.namespaces.get("mnt");
        let new = after.descriptors.iter().filter(|(number, descriptor)| {
            // A number may have been given anew.
            self.descriptors
                .get(number)
                .is_none_or(|was| was.target != descriptor.target && !is_elsewhere)
        });
        new.map(|(number, descriptor)| {
            let target = descriptor.target.display().to_string();
            let what = match self.descriptors.contains_key(number) {
                true => "leads elsewhere now",
                false => "is left open",
            };
            format!("descriptor {number} {what}: {}", without_digits(&target))
        })
        .collect()
    }

    /// The children that are in `after` and weren't there.
    pub fn left_children(&self, after: &State) -> Vec<String> {
        let new = after
            .children
            .iter()
            .filter(|(pid, _)| !self.children.contains_key(pid));
        // Whether it has ended by now is chance.
        new.map(|_| "a child is left behind, whose exit code nobody has taken".into())
            .collect()
    }
}

/// `/proc/4711/fd` as `/proc/self/fd`: the number tells nothing.
fn without_pid(path: &str) -> String {
    let below = path
        .strip_prefix("/proc/")
        .and_then(|path| path.split_once('/'));
    match below {
        Some((pid, below)) if pid.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("/proc/self/{below}")
        }
        _ => path.to_owned(),
    }
}

/// A set of signals without the two that the C library takes for itself, 32 and 33: nptl(7).
fn without_internal_signals(set: &str) -> Option<u64> {
    let set = u64::from_str_radix(set, 16).ok()?;
    Some(set & !(0b11 << 31))
}

/// `pipe:[4711]` without the number, which tells nothing.
fn without_digits(target: &str) -> String {
    match target.trim_end_matches(']').rsplit_once(":[") {
        Some((kind, number)) if number.parse::<u64>().is_ok() => kind.to_owned(),
        _ => target.to_owned(),
    }
}

fn descriptors(folder: &Path) -> BTreeMap<i32, Descriptor> {
    let entries = fs::read_dir(folder.join("fd")).into_iter().flatten();
    let each = entries.flatten().filter_map(|entry| {
        let number: i32 = entry.file_name().to_str()?.parse().ok()?;
        let info = fs::read_to_string(folder.join(format!("fdinfo/{number}"))).ok()?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
        Some((
            number,
            Descriptor {
                target: fs::read_link(entry.path()).ok()?,
                flags: i32::from_str_radix(flags.trim(), 8).ok()?,
            },
        ))
    });
    each.collect()
}

/// The children of the process `pid` and the letters of their states.
pub fn children_of(pid: Pid) -> BTreeMap<i32, String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    let lists = tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let mut children = BTreeMap::new();
    for child in lists.flat_map(|list| {
        let pids: Vec<i32> = list
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .collect();
        pids
    }) {
        let stat = fs::read(format!("/proc/{child}/stat")).unwrap_or_default();
        let stat = String::from_utf8_lossy(&stat).into_owned();
        let state = stat
            .rsplit_once(") ")
            .map_or("", |(_, fields)| &fields[..1]);
        children.insert(child, state.to_owned());
    }
    children
}

/// The signals that the process `pid` has been sent and hasn't taken, a bit each: SigPnd and ShdPnd of
/// proc_pid_status(5).
pub fn pending(pid: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let lines = status.lines().filter_map(|line| line.split_once(':'));
    let sets = lines.filter(|(name, _)| ["SigPnd", "ShdPnd"].contains(name));
    sets.filter_map(|(_, set)| u64::from_str_radix(set.trim(), 16).ok())
        .fold(0, |all, set| all | set)
}

/// The lines of mountinfo without the IDs of the mounts and of their parents.
fn mounts(table: &str) -> Vec<String> {
    let lines = table.lines();
    lines
        .filter_map(|line| Some(line.splitn(3, ' ').nth(2)?.to_owned()))
        .collect()
}

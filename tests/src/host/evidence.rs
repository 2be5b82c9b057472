//! What the kernel says of a process and of a host.

use anyhow::{Context, Result};
use nix::unistd::Pid;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

static PROC: OnceLock<PathBuf> = OnceLock::new();

/// Reads from the procfs at `path` from now on. A container that leaks its mounts covers /proc.
pub fn read_proc_at(path: PathBuf) {
    let _ = PROC.set(path);
}

/// The procfs that evidence is read from.
fn proc() -> &'static Path {
    PROC.get().map_or(Path::new("/proc"), PathBuf::as_path)
}

/// This process's own mounts: the host's, for a check.
pub fn hosts_mounts() -> Result<Vec<Mount>> {
    Mount::table(&proc().join("self/mountinfo"))
}

/// The name in this process's own UTS namespace: the host's, for a check.
pub fn hosts_name() -> Result<String> {
    let name = fs::read_to_string(proc().join("sys/kernel/hostname"))?;
    Ok(name.trim().into())
}

/// A line of mountinfo: proc_pid_mountinfo(5).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mount {
    /// The directory of the filesystem that is mounted.
    pub root: PathBuf,
    /// Where it is mounted.
    pub target: PathBuf,
    /// The mount's own options.
    pub options: String,
    /// Propagation: `shared:1`, `master:2`; nothing for a private mount.
    pub tags: Vec<String>,
    /// The type of the filesystem.
    pub filesystem: String,
    /// What is mounted.
    pub source: String,
    /// The filesystem's options.
    pub super_options: String,
}

impl Mount {
    /// The mounts that `file`, some mountinfo, lists.
    pub fn table(file: &Path) -> Result<Vec<Mount>> {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        Ok(text.lines().filter_map(Mount::parse).collect())
    }

    fn parse(line: &str) -> Option<Mount> {
        let (own, filesystem) = line.split_once(" - ")?;
        let own: Vec<_> = own.split(' ').collect();
        let mut filesystem = filesystem.splitn(3, ' ');
        Some(Mount {
            root: unescape(own.get(3)?).into(),
            target: unescape(own.get(4)?).into(),
            options: (*own.get(5)?).into(),
            tags: own[6..].iter().map(|tag| (*tag).into()).collect(),
            filesystem: filesystem.next()?.into(),
            source: unescape(filesystem.next()?),
            super_options: filesystem.next()?.into(),
        })
    }
}

impl Display for Mount {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let (target, source) = (self.target.display(), &self.source);
        write!(f, "{target} ({} {source}", self.filesystem)?;
        write!(f, ", {}, {}", self.root.display(), self.options)?;
        self.tags.iter().try_for_each(|tag| write!(f, " {tag}"))?;
        write!(f, ", {})", self.super_options)
    }
}

/// mountinfo has a blank, a tab, a newline and a backslash as three octal digits.
fn unescape(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.into(), |text: String, (code, meaning)| {
            text.replace(code, meaning)
        })
}

/// A process, as /proc shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process(pub Pid);

impl Process {
    /// The file `name` of the process's folder.
    pub fn file(&self, name: &str) -> PathBuf {
        proc().join(format!("{}/{name}", self.0))
    }

    /// A namespace that it is in, as `uts:[4026531838]`. See namespaces(7).
    pub fn namespace(&self, name: &str) -> Result<String> {
        let link = self.file(&format!("ns/{name}"));
        let target = fs::read_link(&link).with_context(|| link.display().to_string())?;
        Ok(target.to_string_lossy().into_owned())
    }

    /// The value of a line of its status: proc_pid_status(5).
    pub fn status(&self, key: &str) -> Result<String> {
        let file = self.file("status");
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        Ok(value
            .context(format!("no {key} in {}", file.display()))?
            .trim()
            .into())
    }

    /// Its pid in each PID namespace that it is in, the outermost first.
    pub fn pids(&self) -> Result<Vec<i32>> {
        let pids = self.status("NSpid")?;
        Ok(pids
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .collect())
    }

    /// Whether it has ended, is about to, or was killed and doesn't know it yet.
    pub fn is_ending(&self) -> bool {
        const PF_EXITING: u64 = 4;
        const SIGKILL: u64 = 1 << 8;
        let Ok(state) = self.status("State") else {
            return true;
        };
        let pending = |key| u64::from_str_radix(&self.status(key).unwrap_or_default(), 16);
        let killed = |key| pending(key).is_ok_and(|mask| mask & SIGKILL != 0);
        // The flags are the seventh field behind the name, which ends at the last bracket.
        let stat = fs::read_to_string(self.file("stat")).unwrap_or_default();
        let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
        let flags = fields
            .split(' ')
            .nth(6)
            .and_then(|flags| flags.parse::<u64>().ok());
        state.starts_with(['Z', 'X'])
            || killed("SigPnd")
            || killed("ShdPnd")
            || flags.is_none_or(|flags| flags & PF_EXITING != 0)
    }

    /// The program that it runs: proc_pid_exe(5).
    pub fn executable(&self) -> Result<PathBuf> {
        let link = self.file("exe");
        fs::read_link(&link).with_context(|| link.display().to_string())
    }

    /// The strings in its file `cmdline` or `environ`.
    pub fn strings(&self, name: &str) -> Result<Vec<String>> {
        let file = self.file(name);
        let bytes = fs::read(&file).with_context(|| file.display().to_string())?;
        let mut strings: Vec<_> = bytes
            .split(|&byte| byte == 0)
            .map(|string| String::from_utf8_lossy(string).into_owned())
            .collect();
        // Each ends in a NUL; behind the last there is nothing.
        strings.pop();
        Ok(strings)
    }

    /// Its mounts.
    pub fn mounts(&self) -> Result<Vec<Mount>> {
        Mount::table(&self.file("mountinfo"))
    }

    /// Its children.
    pub fn children(&self) -> Vec<Process> {
        let parent = self.0.to_string();
        let is_child = |process: &Process| process.status("PPid").is_ok_and(|pid| pid == parent);
        Process::all().into_iter().filter(is_child).collect()
    }

    /// The process, its children, theirs, and so on.
    pub fn tree(&self) -> Vec<Process> {
        let parent = |process: &Process| process.status("PPid").ok()?.parse().ok();
        let all = Process::all().into_iter();
        let mut strangers: Vec<(Process, i32)> = all
            .filter_map(|process| Some((process, parent(&process)?)))
            .collect();
        let mut tree = vec![*self];
        let mut next = 0;
        while next < tree.len() {
            let of = tree[next].0.as_raw();
            let (children, others) = strangers.into_iter().partition(|(_, parent)| *parent == of);
            let children: Vec<(Process, i32)> = children;
            tree.extend(children.into_iter().map(|(child, _)| child));
            strangers = others;
            next += 1;
        }
        tree
    }

    /// All processes that this /proc shows.
    pub fn all() -> Vec<Process> {
        let entries = fs::read_dir(proc()).into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.map(|pid| Process(Pid::from_raw(pid))).collect()
    }
}

/// What must be the same before and after.
#[derive(Debug, PartialEq, Eq)]
pub struct Photograph {
    hostname: String,
    mounts: Vec<Mount>,
    interfaces: BTreeSet<String>,
    cgroups: BTreeSet<String>,
    processes: BTreeMap<i32, String>,
}

impl Photograph {
    /// Takes a photograph of the host that this process is on.
    pub fn take() -> Result<Photograph> {
        let names = |directory: &str| -> BTreeSet<String> {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            entries
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect()
        };
        let mut mounts = hosts_mounts()?;
        mounts.sort();
        Ok(Photograph {
            hostname: hosts_name()?,
            mounts,
            interfaces: names("/sys/class/net"),
            cgroups: fs::read_to_string(proc().join("self/cgroup"))?
                .lines()
                .map(String::from)
                .collect(),
            processes: Process::all()
                .iter()
                .map(|process| {
                    let name = process.status("Name").unwrap_or_default();
                    (process.0.as_raw(), name)
                })
                .collect(),
        })
    }

    /// The processes that aren't in `before`.
    pub fn new_processes(&self, before: &Photograph) -> Vec<Process> {
        let new = self.processes.keys();
        let new = new.filter(|pid| !before.processes.contains_key(pid));
        new.map(|&pid| Process(Pid::from_raw(pid))).collect()
    }

    /// The mounts that aren't in `before`.
    pub fn new_mounts(&self, before: &Photograph) -> Vec<&Mount> {
        let new = |mount: &&Mount| !before.mounts.contains(mount);
        self.mounts.iter().filter(new).collect()
    }

    /// What is different in `after`, a line each.
    pub fn changes(&self, after: &Photograph) -> Vec<String> {
        let mut changes = Vec::new();
        if self.hostname != after.hostname {
            changes.push(format!(
                "its name was {}, and is {}",
                self.hostname, after.hostname
            ));
        }
        let mounts = |photograph: &Photograph| -> BTreeSet<String> {
            photograph.mounts.iter().map(Mount::to_string).collect()
        };
        let processes = |photograph: &Photograph| -> BTreeSet<String> {
            // A process may change its name; it is the same one.
            let name = |pid| self.processes.get(pid).or(photograph.processes.get(pid));
            let pids = photograph.processes.keys();
            pids.map(|pid| format!("{pid} ({})", name(pid).map_or("", String::as_str)))
                .collect()
        };
        for (what, before, after) in [
            ("mount", mounts(self), mounts(after)),
            (
                "interface",
                self.interfaces.clone(),
                after.interfaces.clone(),
            ),
            ("cgroup", self.cgroups.clone(), after.cgroups.clone()),
            ("process", processes(self), processes(after)),
        ] {
            changes.extend(
                after
                    .difference(&before)
                    .map(|new| format!("{what} {new} is new")),
            );
            changes.extend(
                before
                    .difference(&after)
                    .map(|old| format!("{what} {old} is gone")),
            );
        }
        changes
    }
}

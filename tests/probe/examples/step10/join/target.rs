//! A process in namespaces of its own, which others join, and the command that joins it.

use probe::anyhow::{Context, Result};
use probe::libc;
use probe::nix::sched::CloneFlags;
use probe::nix::unistd::{Pid, execve, getpid};
use probe::note;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::CStr;
use std::fs;
use std::os::fd::OwnedFd;
use step02_pid::clone3;

/// The kinds of namespaces, as /proc/PID/ns has them, and the flag of each.
pub const KINDS: [(&str, CloneFlags); 6] = [
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("pid", CloneFlags::CLONE_NEWPID),
    ("mnt", CloneFlags::CLONE_NEWNS),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("net", CloneFlags::CLONE_NEWNET),
    ("cgroup", CloneFlags::CLONE_NEWCGROUP),
];

/// PID 1 of namespaces. It is a child of the probe's, and ends when a subject has ended.
pub struct Target {
    pub pid: Pid,
    pub pidfd: OwnedFd,
}

impl Target {
    pub fn new() -> Result<Target> {
        let all = KINDS
            .iter()
            .fold(CloneFlags::empty(), |all, (_, flag)| all | *flag);
        match clone3(all).context("a process in namespaces of its own")? {
            Some(child) => Ok(Target {
                pid: child.pid,
                pidfd: child.pidfd,
            }),
            None => loop {
                probe::nix::unistd::pause();
            },
        }
    }

    pub fn namespaces(&self) -> BTreeMap<String, String> {
        namespaces_of(&self.pid.to_string())
    }

    /// Ends it, and leaves nothing of it.
    pub fn end(pid: Pid) {
        let _ = probe::nix::sys::signal::kill(pid, probe::nix::sys::signal::Signal::SIGKILL);
        let _ = probe::nix::sys::wait::waitpid(pid, None);
    }
}

/// The namespaces of a process by their kinds.
pub fn namespaces_of(process: &str) -> BTreeMap<String, String> {
    let link = |kind: &str| {
        let target = fs::read_link(format!("/proc/{process}/ns/{kind}")).unwrap_or_default();
        target.display().to_string()
    };
    KINDS.map(|(kind, _)| (kind.to_owned(), link(kind))).into()
}

/// What the body leaves: how often it ran, whether it is hidden, what it still has of the caller's environment.
pub const RAN: usize = 0;
pub const DUMPABLE: usize = 1;
pub const ENVIRONMENT: usize = 2;
/// What the caller leaves: its number, and whether join has come back.
pub const CALLER: usize = 3;
pub const CAME_BACK: usize = 4;
/// The errno, or the exit code, that an error has.
pub const CODE: usize = 5;

/// The body of a command that sleeps.
pub fn sleeper() -> Result<Infallible> {
    looks_around();
    let nothing: [&CStr; 0] = [];
    execve(c"/bin/sleep", &[c"sleep", c"1000"], &nothing).context("execve(/bin/sleep)")
}

/// Notes what it is like in the child.
pub fn looks_around() {
    note(RAN, probe::noted(RAN) + 1);
    // SAFETY: takes integers.
    let dumpable = unsafe { libc::prctl(libc::PR_GET_DUMPABLE) };
    note(DUMPABLE, dumpable as u32);
    note(ENVIRONMENT, known_of_the_environment("self"));
}

/// How many bytes of its environment a process still has in its memory.
pub fn known_of_the_environment(process: &str) -> u32 {
    let bytes = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
    bytes.iter().filter(|byte| **byte != 0).count() as u32
}

/// What a process is called with.
pub fn arguments(process: &str) -> String {
    let bytes = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).replace('\0', " ");
    text.trim().to_owned()
}

/// What is seen of the command when join has come back.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Command {
    pub namespaces: BTreeMap<String, String>,
    pub own: BTreeMap<String, String>,
    /// How many PID namespaces it is in, and the caller.
    pub levels: [usize; 2],
    pub parent_is_caller: bool,
    pub name: String,
    pub environment_of_caller: u32,
    pub arguments_of_caller: String,
}

impl Command {
    /// The process `pid`, looked at by the caller of join.
    pub fn of(pid: Pid) -> Command {
        let pid = pid.to_string();
        let levels = |process: &str| line(process, "NSpid").split_whitespace().count();
        Command {
            namespaces: namespaces_of(&pid),
            own: namespaces_of("self"),
            levels: [levels(&pid), levels("self")],
            parent_is_caller: line(&pid, "PPid") == getpid().to_string(),
            name: line(&pid, "Name"),
            environment_of_caller: known_of_the_environment("self"),
            arguments_of_caller: arguments("self"),
        }
    }
}

/// A line of a process's status.
pub fn line(process: &str, key: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    value.unwrap_or_default().trim().to_owned()
}

/// Whether there is such a process, and it hasn't ended.
pub fn is_there(process: Pid) -> bool {
    let state = line(&process.to_string(), "State");
    !state.is_empty() && !state.starts_with('Z')
}

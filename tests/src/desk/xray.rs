//! A container laid beside the host: what it shares with it, and what it may do.

use crate::host::evidence::{Mount, Process};
use crate::host::{as_root, this_program};
use anyhow::{Context, Result, bail};
use nix::unistd::{Pid, geteuid};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::os::unix::process::CommandExt;

/// The kinds of namespaces, as /proc/PID/ns names them: namespaces(7).
pub const NAMESPACES: [&str; 8] = ["user", "uts", "pid", "mnt", "ipc", "net", "cgroup", "time"];

/// The capabilities by number: capabilities(7), linux/capability.h.
pub const CAPABILITIES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// The five sets of a process, as its status names them.
const SETS: [(&str, &str); 5] = [
    ("CapInh", "inheritable"),
    ("CapPrm", "permitted"),
    ("CapEff", "effective"),
    ("CapBnd", "bounding"),
    ("CapAmb", "ambient"),
];

/// Files of a cgroup that limit something, on v1 and v2.
const LIMITS: [&str; 8] = [
    "memory.max",
    "memory.limit_in_bytes",
    "cpu.max",
    "cpu.cfs_quota_us",
    "cpuset.cpus",
    "cpuset.cpus.effective",
    "pids.max",
    "pids.current",
];

/// Prints the picture of the process `pid` and returns 0.
///
/// # Errors
/// There is no such process, or nobody may look.
pub fn xray(pid: i32) -> Result<u8> {
    if pid <= 0 {
        bail!("{pid} is no pid\nhelp: `ps ax` lists them; take one of the container's");
    }
    if !geteuid().is_root() {
        let error = as_root(&this_program()?)
            .args(["xray", &pid.to_string()])
            .exec();
        return Err(error).context("progress xray, as root");
    }
    let process = Process(Pid::from_raw(pid));
    if !process.file("status").exists() {
        bail!("there is no process {pid}\nhelp: `ps ax` lists them; take one of the container's");
    }
    // We are in no container of ours, so we are the host; PID 1 isn't everywhere for us to look into.
    print!("{}", picture(&process, &Process(Pid::this()))?);
    Ok(0)
}

/// The picture of `process` beside `host`, some process that is in no container.
///
/// # Errors
/// The process has gone, or its files may not be read.
pub fn picture(process: &Process, host: &Process) -> Result<String> {
    let mut text = String::new();
    let pids: Vec<_> = process.pids()?.iter().map(i32::to_string).collect();
    let words = process.strings("cmdline")?;
    writeln!(text, "process    {} ({})", process.0, words.join(" "))?;
    writeln!(
        text,
        "pids       {}  (outermost namespace first)",
        pids.join(" > ")
    )?;
    namespaces(&mut text, process, host)?;
    users(&mut text, process)?;
    mounts(&mut text, process, host)?;
    cgroups(&mut text, process)?;
    privileges(&mut text, process, host)?;
    descriptors(&mut text, process)?;
    Ok(text)
}

/// Each namespace with its inode number, and who shares it.
fn namespaces(text: &mut String, process: &Process, host: &Process) -> Result<()> {
    let all = Process::all();
    writeln!(
        text,
        "\nnamespaces (own or the host's, inode number, who is in it)"
    )?;
    for kind in NAMESPACES {
        let Ok(own) = process.namespace(kind) else {
            continue;
        };
        let number = own.split(['[', ']']).nth(1).unwrap_or(&own);
        let with = all
            .iter()
            .filter(|other| other.namespace(kind).is_ok_and(|its| its == own));
        let with: Vec<_> = with.map(|other| other.0.to_string()).collect();
        let shared = match host.namespace(kind)? == own {
            true => "host's",
            false => "own",
        };
        let who = match with.len() {
            0..=8 => format!("pids {}", with.join(" ")),
            many => format!("{many} processes"),
        };
        writeln!(text, "  {kind:<7} {shared:<7} {number:<11} {who}")?;
    }
    Ok(())
}

fn users(text: &mut String, process: &Process) -> Result<()> {
    writeln!(text, "\nusers")?;
    for (name, key) in [("uids", "Uid"), ("gids", "Gid"), ("groups", "Groups")] {
        let value = process
            .status(key)?
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        writeln!(text, "  {name:<7} {value}")?;
    }
    let map = fs::read_to_string(process.file("uid_map"))?;
    for line in map.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        if let [inside, outside, count] = words[..] {
            writeln!(
                text,
                "  uid map {inside} inside is {outside} outside, for {count}"
            )?;
        }
    }
    Ok(())
}

fn mounts(text: &mut String, process: &Process, host: &Process) -> Result<()> {
    let root = fs::read_link(process.file("root")).context("its root directory")?;
    let (own, hosts) = (process.mounts()?, host.mounts()?);
    let top = own
        .iter()
        .rfind(|mount| mount.target == std::path::Path::new("/"));
    writeln!(text, "\nroot       {}", root.display())?;
    if let Some(top) = top {
        let (of, kind) = (top.root.display(), &top.filesystem);
        writeln!(text, "  is       {of} of {} ({kind})", top.source)?;
    }
    writeln!(
        text,
        "mounts     {} here, {} on the host",
        own.len(),
        hosts.len()
    )?;
    for mount in &own {
        writeln!(text, "  {}", line_of(mount))?;
    }
    Ok(())
}

fn line_of(mount: &Mount) -> String {
    let tags = match mount.tags.is_empty() {
        true => "private".into(),
        false => mount.tags.join(" "),
    };
    let target = mount.target.display().to_string();
    format!(
        "{target:<24} {:<10} {} ({tags})",
        mount.filesystem, mount.options
    )
}

/// Its cgroup in each hierarchy, with what is limited there, and its rlimits where they limit.
fn cgroups(text: &mut String, process: &Process) -> Result<()> {
    writeln!(text, "\ncgroups")?;
    let mounted = crate::host::evidence::hosts_mounts()?;
    for line in fs::read_to_string(process.file("cgroup"))?.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let name = match controllers {
            "" => "v2",
            controllers => controllers,
        };
        writeln!(text, "  {name:<20} {path}")?;
        let holds = |mount: &&Mount| match controllers {
            "" => mount.filesystem == "cgroup2",
            _ => {
                let first = controllers.split(',').next().unwrap_or("");
                mount.filesystem == "cgroup" && mount.super_options.split(',').any(|o| o == first)
            }
        };
        if let Some(mount) = mounted.iter().find(holds) {
            let folder = mount.target.join(path.trim_start_matches('/'));
            for limit in LIMITS {
                if let Ok(value) = fs::read_to_string(folder.join(limit)) {
                    writeln!(text, "    {limit} = {}", value.trim())?;
                }
            }
        }
    }
    writeln!(text, "rlimits that limit (soft)")?;
    for line in fs::read_to_string(process.file("limits"))?.lines().skip(1) {
        let (name, values) = line.split_at_checked(26).unwrap_or((line, ""));
        let soft = values.split_whitespace().next().unwrap_or("");
        if soft != "unlimited" {
            writeln!(text, "  {:<24} {soft}", name.trim())?;
        }
    }
    Ok(())
}

fn privileges(text: &mut String, process: &Process, host: &Process) -> Result<()> {
    writeln!(text, "\ncapabilities")?;
    for (key, name) in SETS {
        let (own, hosts) = (mask(process, key)?, mask(host, key)?);
        writeln!(text, "  {name:<12} {}", capabilities(own, hosts))?;
    }
    let seccomp = match process.status("Seccomp")?.as_str() {
        "0" => "none".into(),
        "1" => "strict".into(),
        "2" => {
            let filters = process.status("Seccomp_filters").unwrap_or_default();
            format!("{filters} filter(s)")
        }
        other => other.to_owned(),
    };
    let new = match process.status("NoNewPrivs")?.as_str() {
        "0" => "not set: a set-user-ID program may raise privileges",
        _ => "set",
    };
    writeln!(text, "seccomp       {seccomp}")?;
    writeln!(text, "no_new_privs  {new}")?;
    Ok(())
}

fn mask(process: &Process, key: &str) -> Result<u64> {
    Ok(u64::from_str_radix(&process.status(key)?, 16)?)
}

/// A set in words: `none`, `all of the host's`, or its names.
fn capabilities(set: u64, hosts: u64) -> String {
    let names: Vec<_> = (0..64)
        .filter(|bit| set >> bit & 1 == 1)
        .map(|bit| {
            CAPABILITIES
                .get(bit)
                .map_or(format!("{bit}"), ToString::to_string)
        })
        .collect();
    match names.len() {
        0 => "none".into(),
        many if set == hosts => format!("all of the host's {many}"),
        many => format!("{many}: {}", names.join(" ")),
    }
}

fn descriptors(text: &mut String, process: &Process) -> Result<()> {
    let mut open = BTreeMap::new();
    for entry in fs::read_dir(process.file("fd"))?.flatten() {
        let number: Option<i32> = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let (Some(number), Ok(target)) = (number, fs::read_link(entry.path())) {
            open.insert(number, target);
        }
    }
    writeln!(text, "\nopen descriptors")?;
    for (number, target) in open {
        writeln!(text, "  {number:<3} {}", target.display())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_have_names() {
        assert_eq!(capabilities(0, 1), "none");
        assert_eq!(capabilities(1 << 21, 0), "1: sys_admin");
        assert_eq!(capabilities(1 << 40 | 1, 0), "2: chown checkpoint_restore");
        assert_eq!(capabilities(3, 3), "all of the host's 2");
    }

    #[test]
    fn a_process_beside_itself_shares_everything() {
        let own = Process(nix::unistd::getpid());
        let text = picture(&own, &own).unwrap();
        assert!(text.contains("uts     host's"), "{text}");
        assert!(!text.contains(" own "), "{text}");
    }
}

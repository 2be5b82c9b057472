//! What a process is told to be by files of /proc and single system calls.

use crate::config::read::{ProcessSpec, TimeOffset};
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use step05_tty::options::Options;

use crate::trees::Tree;

/// A procfs that can be trusted.
///
/// What the container has at /proc may be anything, and even a procfs may have something mounted on its files: a runtime that
/// wrote its labels there wrote them elsewhere (CVE-2019-16884, CVE-2025-52881). So this is a procfs of our own, which is
/// mounted nowhere. Where none can be had, it is the container's, but only if it is a procfs, and no mount below it counts.
pub struct Proc(OwnedFd);

impl Proc {
    /// Opens it.
    pub fn open() -> Result<Proc> {
        if let Ok(tree) = Tree::filesystem("proc", "proc", &Options::read([])) {
            return Ok(Proc(tree.into()));
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let proc = open("/proc", flags, Mode::empty()).context("/proc")?;
        match fstatfs(&proc)?.filesystem_type() {
            PROC_SUPER_MAGIC => Ok(Proc(proc)),
            _ => bail!("the container's /proc is no procfs"),
        }
    }

    fn file(&self, path: &str, flags: OFlag) -> nix::Result<File> {
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_XDEV
                | ResolveFlag::RESOLVE_NO_MAGICLINKS,
        );
        openat2(&self.0, path, how).map(File::from)
    }

    fn write(&self, path: &str, value: &str) -> Result<()> {
        let written = self
            .file(path, OFlag::O_WRONLY)
            .map_err(std::io::Error::from)
            .and_then(|mut file| file.write_all(value.as_bytes()));
        written.with_context(|| format!("{value:?} to /proc/{path}"))
    }

    /// Writes settings of the kernel, each a path below /proc/sys and a value.
    pub fn set_sysctl(&self, settings: &[(String, String)]) -> Result<()> {
        for (path, value) in settings {
            let name = path.replace('/', ".");
            let written = self.write(&format!("sys/{path}"), value);
            written.with_context(|| format!("linux.sysctl.{name}"))?;
        }
        Ok(())
    }

    /// Has the next program that the process executes run under its labels: apparmor(7), selinux(8).
    pub fn set_labels(&self, process: &ProcessSpec) -> Result<()> {
        let profile = &process.apparmor_profile;
        if !profile.is_empty() && profile != "unconfined" {
            let value = format!("exec {profile}");
            let written = self.write("self/attr/apparmor/exec", &value);
            // Before Linux 5.8 the file was that of whatever module there was.
            let written = written.or_else(|_| self.write("self/attr/exec", &value));
            written.context(
                "process.apparmorProfile: this kernel has no AppArmor, or no such profile",
            )?;
        }
        if !process.selinux_label.is_empty() {
            let written = self.write("self/attr/exec", &process.selinux_label);
            written
                .context("process.selinuxLabel: this kernel has no SELinux, or no such label")?;
        }
        Ok(())
    }
}

/// Whether the process is to run under a label.
pub fn is_labelled(process: &ProcessSpec) -> bool {
    let profile = &*process.apparmor_profile;
    !(profile.is_empty() || profile == "unconfined") || !process.selinux_label.is_empty()
}

/// Sets how soon the kernel ends the process `pid`, from outside: proc_pid_oom_score_adj(5).
pub fn set_oom_score(pid: Pid, score: Option<i32>) -> Result<()> {
    let Some(score) = score else { return Ok(()) };
    let file = format!("/proc/{pid}/oom_score_adj");
    // To write what is there already may take a right that isn't needed.
    if fs::read_to_string(&file)?.trim() == score.to_string() {
        return Ok(());
    }
    fs::write(&file, score.to_string())
        .with_context(|| format!("process.oomScoreAdj: {score} to {file}"))
}

/// This process's own score, to be restored when a child has inherited another one.
pub struct OomScore(Option<String>);

/// Sets this process's own score for a moment, so that a child inherits it.
pub fn own_oom_score(score: Option<i32>) -> Result<OomScore> {
    let own = "/proc/self/oom_score_adj";
    let before = fs::read_to_string(own)?.trim().to_owned();
    let wanted = score.map(|score| score.to_string());
    let Some(wanted) = wanted.filter(|wanted| *wanted != before) else {
        return Ok(OomScore(None));
    };
    fs::write(own, &wanted).with_context(|| format!("process.oomScoreAdj: {wanted} to {own}"))?;
    Ok(OomScore(Some(before)))
}

impl OomScore {
    /// Sets the score as it was.
    pub fn restore(self) -> Result<()> {
        match self.0 {
            Some(before) => Ok(fs::write("/proc/self/oom_score_adj", before)?),
            None => Ok(()),
        }
    }
}

/// Sets the clocks of the time namespace that the next program begins in: time_namespaces(7).
pub fn set_clocks(offsets: &BTreeMap<String, TimeOffset>) -> Result<()> {
    for (clock, offset) in offsets {
        let text = format!("{clock} {} {}", offset.secs, offset.nanosecs);
        fs::write("/proc/self/timens_offsets", &text).with_context(|| {
            format!("linux.timeOffsets.{clock}: {text:?} to /proc/self/timens_offsets")
        })?;
    }
    Ok(())
}

/// Gives the process a session keyring of its own, so that it doesn't see the keys of whoever started the runtime. It has no
/// name: one with a name could be there already, made by somebody else. See keyctl_join_session_keyring(3).
pub fn new_keyring() -> Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    let no_name = std::ptr::null::<libc::c_char>();
    // SAFETY: without a name the kernel reads nothing.
    let joined = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, no_name) };
    match Errno::result(joined) {
        // A kernel without keys, a filter around us that hides them, or no room for more: nothing is seen then, either.
        Err(Errno::ENOSYS | Errno::EPERM | Errno::EDQUOT) => Ok(()),
        joined => joined.map(drop).context("the session keyring"),
    }
}

/// Sets the execution domain: personality(2).
pub fn set_personality(domain: libc::c_ulong) -> Result<()> {
    // SAFETY: takes an integer.
    Errno::result(unsafe { libc::personality(domain) }).context("linux.personality")?;
    Ok(())
}

//! What works before a chapter and fails at its end.
//!
//! An attack runs on the pretend host, which takes the blow, and the kernel says whether it worked.

use crate::checks::Workbench;
use crate::container::{Outcome, eventually, run};
use crate::evidence::{Process, hosts_name};
use anyhow::{Context, Result};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

/// An attack on the host, and what its failure means.
pub struct Attack {
    /// What is typed in the container.
    pub command: &'static str,
    /// What it is to bring about.
    pub aim: &'static str,
    /// Makes the attack and says what came of it.
    pub make: fn(&Prison) -> Result<Blow>,
    /// What the chapter's exercises taught.
    pub learnt: &'static [&'static str],
    /// What production runtimes do beyond it.
    pub beyond: &'static str,
    /// The hole that is left, and where it is closed.
    pub next: &'static str,
}

/// Where the attacker sits: in a container of `bench.program`, with a root of its own when `rooted`;
/// on the bare host when `open`.
pub struct Prison<'a> {
    /// The program, and a place for what the attack makes.
    pub bench: &'a Workbench,
    /// Whether there is no container at all.
    pub open: bool,
    /// Whether the program takes `--rootfs`.
    pub rooted: bool,
}

/// What an attack has done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blow {
    /// Whether it worked.
    pub struck: bool,
    /// The file that tells, and what it says.
    pub seen: String,
}

impl Prison<'_> {
    /// Runs a line of shell as the attacker.
    fn attempt(&self, line: &str) -> Result<Outcome> {
        if self.open {
            return run("sh".as_ref(), &["-c", line]);
        }
        let mut arguments: Vec<OsString> = Vec::new();
        if self.rooted {
            arguments.extend(["--rootfs".into(), self.bench.root()?.into()]);
        }
        arguments.extend(["sh", "-c", line].map(OsString::from));
        run(&self.bench.program, &arguments)
    }
}

/// Somebody on the host, with a secret in the environment.
struct Victim(Child);

const SECRET: &str = "canary-4711";

impl Victim {
    fn new() -> Result<Victim> {
        let mut command = Command::new("sleep");
        command.arg("infinity").env("SECRET", SECRET);
        Ok(Victim(
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .context("sleep, the victim")?,
        ))
    }

    fn process(&self) -> Process {
        Process(Pid::from_raw(self.0.id() as i32))
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Chapter 1: the host is renamed from within.
pub const UTS: Attack = Attack {
    command: "hostname pwned",
    aim: "the host is called pwned",
    make: rename_the_host,
    learnt: &[
        "unshare(CLONE_NEWUTS) gives its caller a copy of the names, and nobody else",
        "execve returns only to say why it failed: 127 not found, 126 not executable",
    ],
    beyond: "runc, crun and youki make all namespaces in one clone, in a user namespace where \
             they can, and set the name from `hostname` in config.json",
    next: "the container can still send signals to every process of the host: chapter 2",
};

fn rename_the_host(prison: &Prison) -> Result<Blow> {
    prison.attempt("hostname pwned")?;
    let name = hosts_name()?;
    Ok(Blow {
        struck: name == "pwned",
        seen: format!("/proc/sys/kernel/hostname on the host: {name}"),
    })
}

/// Chapter 2: a process of the host is killed from within.
pub const PID: Attack = Attack {
    command: "kill VICTIM",
    aim: "a process of the host ends",
    make: kill_the_victim,
    learnt: &[
        "a PID namespace is for the children of who makes it; the first of them is PID 1",
        "close-on-exec tells a parent that its child has become the command",
        "a wait status holds an exit code or a signal, and 128+N tells of signal N",
        "PID 1 inherits orphans, and gets only the signals that it asks for",
    ],
    beyond: "Docker puts tini before the command for --init; runc leaves a process behind \
             between `create` and `start`, waiting on a fifo until the command may begin",
    next: "`ps` and /proc still show every process of the host, with its secrets: chapter 3",
};

fn kill_the_victim(prison: &Prison) -> Result<Blow> {
    let mut victim = Victim::new()?;
    let attempt = prison.attempt(&format!("kill {}", victim.0.id()))?;
    let ended = match attempt.code {
        // The signal is sent; its work takes a moment.
        0 => eventually(|| victim.0.try_wait().ok().flatten()),
        _ => victim.0.try_wait()?,
    };
    Ok(match ended {
        Some(status) => Blow {
            struck: true,
            seen: format!(
                "the victim was ended by signal {}",
                status.signal().unwrap_or_default()
            ),
        },
        None => Blow {
            struck: false,
            seen: format!(
                "/proc/VICTIM/status: State: {}; kill said: {}",
                victim.process().status("State")?,
                last_words(&attempt.errors)
            ),
        },
    })
}

/// Chapter 3: a secret of the host is read through its /proc.
pub const MOUNT: Attack = Attack {
    command: "cat /proc/VICTIM/environ",
    aim: "the secret in the environment of a process of the host is read",
    make: |prison| read_the_secret(prison, "cat /proc/VICTIM/environ"),
    learnt: &[
        "a copied mount namespace stays tied to the original until its mounts are private",
        "a procfs and a sysfs show the namespaces of the process that mounted them",
        "a new network namespace has a loopback, and it is down",
    ],
    beyond: "runtimes mask parts of /proc (kcore, keys, timer_list) and mount others read-only; \
             Docker connects the network namespace by a veth pair and a bridge",
    next: "below the new /proc the old one is still mounted, and umount uncovers it: chapter 4",
};

/// Chapter 4: what lies beneath the container's /proc.
pub const ROOT: Attack = Attack {
    command: "umount /proc; cat /proc/VICTIM/environ",
    aim: "the host's /proc appears beneath, with the secret of a process of the host",
    make: |prison| read_the_secret(prison, "umount /proc; cat /proc/VICTIM/environ"),
    learnt: &[
        "pivot_root exchanges mounts, so the new root has to be one",
        "with the old root detached no path and no mount leads back to the host",
        "a command inherits nothing that nobody gave it: the environment is made anew",
        "ENOENT from execve is about a file that the program needs: ask --why",
    ],
    beyond: "runc, crun and youki pivot in the same way, over an overlay of image layers; where \
             pivot_root is impossible (an initramfs) they move the mount and chroot",
    next: "the container has no terminal of its own, and can type into yours: chapter 5",
};

fn read_the_secret(prison: &Prison, line: &str) -> Result<Blow> {
    let victim = Victim::new()?;
    let line = line.replace("VICTIM", &victim.0.id().to_string());
    let attempt = prison.attempt(&line)?;
    let secret = attempt
        .output
        .split('\0')
        .find(|variable| variable.contains(SECRET));
    Ok(Blow {
        struck: secret.is_some(),
        seen: match secret {
            Some(secret) => format!("cat printed {secret}"),
            None => format!("cat said: {}", last_words(&attempt.errors)),
        },
    })
}

/// The end of the last line that a shell or a tool complained with.
fn last_words(errors: &str) -> &str {
    let line = errors.trim().lines().last().unwrap_or_default();
    line.rsplit(": ").next().unwrap_or(line)
}

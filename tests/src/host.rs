//! A host that may be hurt.
//!
//! Outer UTS, PID, mount, network and IPC namespaces, and a cgroup with a limit on processes. Inside
//! `/` is shared, as systemd has it, so that a container that forgets MS_PRIVATE is seen to leak.
//! Whatever is renamed, mounted or left running in there ends with it.

pub mod apart;
pub mod container;
pub mod evidence;
pub mod hang;
pub mod points;
pub mod registry;
pub mod trace;

use crate::host::evidence::{Photograph, hosts_mounts};
use crate::programs::workspace;
use anyhow::{Context, Result, bail};
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sched::CloneFlags;
use nix::sys::stat::Mode;
use nix::unistd::{geteuid, sethostname};
use std::env;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use step01_uts::{call, exec, host_environment};
use step02_pid::{die_with_parent, init, spawn};
use step03_mount::{loopback_up, make_private, mount_proc, mount_sysfs};
use step05_tty::mounts::MountPoint;
use step08_overlay::{MountAttributes, attach, clone_tree};

const NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWUTS
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWNS)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWNET);

/// Its hostname.
pub const NAME: &str = "pretend-host";

/// The exit code of [`supervise`] when the host isn't what it was.
pub const CHANGED: u8 = 99;

/// As many processes as a pretend host can have at once.
const MOST_PROCESSES: &str = "512";

/// How the mounts of a pretend host are tied to those of namespaces copied from it.
#[derive(Debug, Clone, Copy, PartialEq, clap::ValueEnum)]
pub enum Propagation {
    /// As systemd leaves a machine.
    Shared,
    /// As the kernel and other inits leave it.
    Private,
}

/// Runs `command` on a pretend host and returns its exit code.
pub fn pretend(propagation: Propagation, command: &[String]) -> Result<u8> {
    let group = Group::new();
    let child = spawn(NAMESPACES, || {
        die_with_parent()?;
        group.join();
        call!(sethostname(NAME))?;
        make_private()?;
        if propagation == Propagation::Shared {
            let (none, shared) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_SHARED);
            call!(mount(none, "/", none, shared, none))?;
        }
        mount_proc()?;
        // A new sysfs shows no control groups: the host's are mounted on it again.
        let cgroups = Path::new("/sys/fs/cgroup");
        let groups = clone_tree(cgroups, &MountAttributes::default());
        mount_sysfs()?;
        if let Ok(groups) = groups {
            let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
            let point = MountPoint::of(open(cgroups, flags, Mode::empty())?);
            attach(&groups, &point)?;
        }
        loopback_up()?;
        init()?;
        exec(command, &host_environment())
    })?;
    child.wait()
}

/// Whether this process is on a pretend host: PID 1 is this very program.
pub fn is_pretend() -> bool {
    let program = |pid: &str| fs::read_link(format!("/proc/{pid}/exe")).ok();
    program("1").is_some() && program("1") == program("self") && std::process::id() != 1
}

/// Runs `command` and compares the host before and after.
pub fn supervise(command: &[String]) -> Result<u8> {
    let [program, arguments @ ..] = command else {
        bail!("no command was given");
    };
    let before = Photograph::take()?;
    let status = Command::new(program).args(arguments).status();
    let status = status.with_context(|| program.clone())?;
    let changes = before.changes(&Photograph::take()?);
    for change in &changes {
        eprintln!("the host has changed: {change}");
    }
    match changes.is_empty() {
        true => Ok(exit_code(status)),
        false => Ok(CHANGED),
    }
}

/// An exit status as shells have it.
pub fn exit_code(status: ExitStatus) -> u8 {
    let killed = || 128 + status.signal().unwrap_or_default();
    status.code().unwrap_or_else(killed) as u8
}

/// The words that make this program run `command` on a pretend host.
pub fn on_pretend_host(progress: &Path, propagation: Propagation, command: &[&str]) -> Command {
    let mut host = Command::new(progress);
    let propagation = match propagation {
        Propagation::Shared => "shared",
        Propagation::Private => "private",
    };
    host.args(["pretend-host", "--propagation", propagation, "--"]);
    host.arg(progress).args(["supervise", "--"]).args(command);
    host
}

/// How a program becomes root here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// We are.
    Root,
    /// By sudo.
    Sudo,
    /// In a user namespace, which is enough for chapters 1 to 4.
    UserNamespace,
    /// Not at all.
    None,
}

impl Way {
    /// What `.cargo/as-root` will do, by asking it.
    pub fn here() -> Way {
        let said = Command::new(elevator()).arg("--way").output();
        let said = said.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        match said.unwrap_or_default().trim() {
            "root" => Way::Root,
            "sudo" => Way::Sudo,
            "user namespace" => Way::UserNamespace,
            _ => Way::None,
        }
    }

    /// The same for people.
    pub fn in_words(self) -> &'static str {
        match self {
            Way::Root => "you are root",
            Way::Sudo => {
                "containers are started through sudo (without the right to use it: export \
                 TEN_STEPS_NO_SUDO=1)"
            }
            Way::UserNamespace => {
                "there is no sudo, so containers are started in a user namespace: enough for \
                 chapters 1 to 4"
            }
            Way::None => "there is no sudo, and no user namespace for you: use the dev container",
        }
    }
}

/// `program`, to be run as root: through sudo or in a user namespace where that is needed.
pub fn as_root(program: &Path) -> Command {
    if geteuid().is_root() {
        return Command::new(program);
    }
    let mut elevated = Command::new(elevator());
    elevated.arg("--always").arg(program);
    elevated
}

fn elevator() -> PathBuf {
    workspace().join(".cargo/as-root")
}

/// A cgroup with a limit on processes, where this machine lets us make one.
struct Group(Option<PathBuf>);

impl Group {
    fn new() -> Group {
        let made = pids_hierarchy().map(|hierarchy| {
            let group = hierarchy.join(format!("ten-steps-host-{}", std::process::id()));
            let limited = fs::create_dir(&group)
                .and_then(|()| fs::write(group.join("pids.max"), MOST_PROCESSES));
            (group, limited)
        });
        match made {
            Some((group, Ok(()))) => Group(Some(group)),
            Some((group, Err(_))) => {
                let _ = fs::remove_dir(group);
                Group(None)
            }
            None => Group(None),
        }
    }

    /// Moves the calling process in. Without a group the host has no limit, which matters to an
    /// attack on it and to nothing else.
    fn join(&self) {
        let file = self.0.as_ref().map(|group| group.join("cgroup.procs"));
        if let Some(Ok(mut file)) = file.map(|file| File::options().write(true).open(file)) {
            let _ = file.write_all(b"0");
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = &self.0 {
            let _ = fs::remove_dir(group);
        }
    }
}

/// Where the pids controller is mounted: by itself (v1) or with all others (v2).
fn pids_hierarchy() -> Option<PathBuf> {
    let mounts = hosts_mounts().ok()?;
    let v1 = mounts.iter().find(|mount| {
        mount.filesystem == "cgroup"
            && mount
                .super_options
                .split(',')
                .any(|option| option == "pids")
    });
    let v2 = || {
        mounts.iter().find(|mount| {
            let controllers = mount.target.join("cgroup.subtree_control");
            let enabled = fs::read_to_string(controllers).unwrap_or_default();
            mount.filesystem == "cgroup2" && enabled.split_whitespace().any(|name| name == "pids")
        })
    };
    v1.or_else(v2).map(|mount| mount.target.clone())
}

/// This program, to be started again.
pub fn this_program() -> Result<PathBuf> {
    let path = env::current_exe().context("the path of this program")?;
    // Cargo may have built it anew since we were started: proc_pid_exe(5).
    let name = path.to_string_lossy();
    Ok(match name.strip_suffix(" (deleted)") {
        Some(name) if !path.exists() => name.into(),
        _ => path,
    })
}

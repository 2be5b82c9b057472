//! Containers of a pretend host's own.

use crate::host::{exit_code, is_pretend};
use anyhow::{Context, Result, bail};
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use step01_uts::call;
use step05_tty::mounts::MountPoint;
use step07_cgroups::cgroup::places::Groups;
use step08_overlay::{MountAttributes, attach, clone_tree};

/// What this machine lends a pretend host of the folder of all containers: roots are large, and made once.
const LENT: &str = "roots";

/// Where the sockets of containers lie.
const SOCKETS: &str = "/run/ten-steps";

/// Runs `command` with containers of its own, on a pretend host: the folder `state`, where they are written down and have
/// their images, is empty at first. Who runs in them ends with the command, and their control groups go. Returns the
/// command's exit code.
///
/// # Errors
/// This is no pretend host: nothing was done.
pub fn with_own_containers(state: &Path, command: &[String]) -> Result<u8> {
    let [program, arguments @ ..] = command else {
        bail!("no command was given");
    };
    if !is_pretend() {
        bail!("all other processes are ended in the end: this is for a pretend host");
    }
    let _covers = [
        Cover::new(state, Some(LENT))?,
        Cover::new(Path::new(SOCKETS), None)?,
    ];
    let mut child = Command::new(program)
        .args(arguments)
        .spawn()
        .with_context(|| program.clone())?;
    for key in [Signal::SIGINT, Signal::SIGQUIT] {
        // What is typed is for the command, which has the same terminal.
        // SAFETY: installs no handler.
        unsafe { signal(key, SigHandler::SigIgn)? };
    }
    let status = child.wait()?;
    // All but this process and PID 1: monitors, and whoever runs in a container.
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    for container in fs::read_dir(state.join("containers")).into_iter().flatten() {
        let id = container?.file_name();
        Groups::of(&id.to_string_lossy())?.remove()?;
    }
    Ok(exit_code(status))
}

/// An empty folder in memory over one of the machine's.
struct Cover {
    folder: PathBuf,
    /// Whether there was none below it.
    is_made: bool,
}

impl Cover {
    /// Covers `folder`, in which only the folder `lent` is still there.
    fn new(folder: &Path, lent: Option<&str>) -> Result<Cover> {
        let is_made = !folder.exists();
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let cover = Cover {
            folder: folder.to_owned(),
            is_made,
        };
        let lent = lent.map(|name| folder.join(name));
        let lent = lent.filter(|place| place.is_dir());
        let tree = lent
            .as_ref()
            .map(|place| clone_tree(place, &MountAttributes::default()));
        let tree = tree.transpose()?;
        let (kind, options) = (Some("tmpfs"), Some("mode=755"));
        call!(mount(kind, folder, kind, MsFlags::empty(), options))?;
        if let (Some(place), Some(tree)) = (lent, tree) {
            fs::create_dir(&place)?;
            let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
            attach(&tree, &MountPoint::of(open(&place, flags, Mode::empty())?))?;
        }
        Ok(cover)
    }
}

impl Drop for Cover {
    /// The machine is as it was: a folder that was made only to be covered goes.
    fn drop(&mut self) {
        if self.is_made {
            let _ = umount2(&self.folder, MntFlags::MNT_DETACH);
            let _ = fs::remove_dir(&self.folder);
        }
    }
}

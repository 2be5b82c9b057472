//! Pseudo-terminals to judge with, from a devpts that only the probe has.

use probe::anyhow::{Context, Result};
use probe::libc;
use probe::nix::errno::Errno;
use probe::nix::fcntl::{OFlag, open};
use probe::nix::mount::{MsFlags, mount};
use probe::nix::sys::stat::Mode;
use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

/// A pseudo-terminal: its two ends.
pub struct Terminal {
    pub master: OwnedFd,
    pub slave: OwnedFd,
}

/// Mounts a devpts of its own at `folder`.
pub fn devpts(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let (kind, data) = (
        Some("devpts"),
        Some("newinstance,ptmxmode=0666,mode=0620,gid=5"),
    );
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(kind, folder, kind, flags, data).context("a devpts of the probe's")
}

/// A new pseudo-terminal of the devpts at `folder`.
pub fn terminal(folder: &Path) -> Result<Terminal> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let ptmx = folder.join("ptmx");
    let master = open(&ptmx, flags, Mode::empty()).with_context(|| ptmx.display().to_string())?;
    let unlocked: libc::c_int = 0;
    // SAFETY: the kernel reads an int, takes an integer, and returns a descriptor that nobody else has.
    let slave = unsafe {
        Errno::result(libc::ioctl(
            master.as_raw_fd(),
            libc::TIOCSPTLCK,
            &raw const unlocked,
        ))?;
        let slave = libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags.bits());
        OwnedFd::from_raw_fd(Errno::result(slave)?)
    };
    Ok(Terminal { master, slave })
}

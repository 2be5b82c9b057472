//! The door before the command, and how far a process is on its way to it.

use crate::notify::sockets::listen_at;
use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, fcntl};
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::Path;

// ANCHOR: Door
/// The *door* before the command: a socket at which the container's process waits, and by which `start` comes.
pub struct Door {
    /// Where the process waits.
    pub socket: OwnedFd,
    /// The file whose lock tells how far the process is.
    progress: File,
}

/// How far a container's process is. It says so by a lock on a file, which the kernel takes from it when it becomes its
/// command, or is killed: with either all its descriptors go. A lock of this kind belongs to the open file, so that a child
/// inherits it: F_OFD_SETLK in fcntl_locking(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It is being made ready: F_RDLCK.
    MadeReady,
    /// It stands at the door: F_WRLCK.
    Waits,
    /// It holds no lock: it has gone through the door.
    Gone,
}
// ANCHOR_END: Door

impl Door {
    /// A door that is the socket at `path`, with `progress` for its lock. Make it before the child.
    pub fn new(path: &Path, progress: &Path) -> Result<Door> {
        let socket = listen_at(path)?;
        let progress = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(progress)?;
        let door = Door { socket, progress };
        door.tell(Progress::MadeReady)?;
        Ok(door)
    }

    /// Takes the lock that tells of `progress`.
    pub fn tell(&self, progress: Progress) -> Result<()> {
        let kind = match progress {
            Progress::MadeReady => libc::F_RDLCK,
            Progress::Waits => libc::F_WRLCK,
            Progress::Gone => libc::F_UNLCK,
        };
        fcntl(&self.progress, FcntlArg::F_OFD_SETLK(&lock(kind, ALL)))?;
        Ok(())
    }
}

/// Waits until nobody has a lock on the file `path` any more, who had it when this began.
pub fn wait_until_gone(path: &Path) -> Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let wanted = lock(libc::F_WRLCK, WAITED_FOR);
    fcntl(&file, FcntlArg::F_OFD_SETLKW(&wanted))?;
    Ok(())
}

/// How far the process is that has a lock on the file `path`. The kernel is only asked, and no lock is taken: two who look
/// at once don't see each other. See F_OFD_GETLK in fcntl_locking(2).
pub fn progress_of(path: &Path) -> Result<Progress> {
    let file = match File::open(path) {
        // Somebody has begun to remove it.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Progress::Gone),
        file => file.with_context(|| path.display().to_string())?,
    };
    let mut found = lock(libc::F_WRLCK, ASKED_ABOUT);
    fcntl(&file, FcntlArg::F_OFD_GETLK(&mut found))?;
    Ok(match libc::c_int::from(found.l_type) {
        libc::F_RDLCK => Progress::MadeReady,
        libc::F_WRLCK => Progress::Waits,
        _ => Progress::Gone,
    })
}

/// Parts of a file that is locked, each by its first byte and the number of bytes; 0 is all. The process has all of it.
/// Others ask about one byte, and wait for another: who waits is seen by nobody who asks.
const ALL: (i64, i64) = (0, 0);
const ASKED_ABOUT: (i64, i64) = (0, 1);
const WAITED_FOR: (i64, i64) = (1, 1);

/// A lock of `kind` on a part of a file.
pub fn lock(kind: libc::c_int, (start, length): (i64, i64)) -> libc::flock {
    // SAFETY: flock is plain numbers.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    (lock.l_start, lock.l_len) = (start, length);
    lock
}

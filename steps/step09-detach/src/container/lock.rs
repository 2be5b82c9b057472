//! Locks between processes, which the kernel frees when their holder dies: flock(2).

use anyhow::Result;
use nix::errno::Errno;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::path::Path;
use step07_cgroups::claim::is_at;

/// A lock that lasts as long as any process has this file open, a process that was forked with it included.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// Waits for the lock of `file`.
    pub(crate) fn wait(file: File) -> Result<Lock> {
        Lock::wait_for(file, libc::LOCK_EX)
    }

    /// Waits for the lock of `file`, exclusive or shared: LOCK_EX or LOCK_SH.
    pub(crate) fn wait_for(file: File, operation: i32) -> Result<Lock> {
        loop {
            match flock(&file, operation) {
                Err(Errno::EINTR) => continue,
                locked => locked?,
            }
            return Ok(Lock(file));
        }
    }

    /// Takes the lock of `file`, if nobody has it.
    pub(crate) fn attempt(file: File) -> Result<Option<Lock>> {
        match flock(&file, libc::LOCK_EX | libc::LOCK_NB) {
            Err(Errno::EWOULDBLOCK) => Ok(None),
            locked => Ok(locked.map(|()| Some(Lock(file)))?),
        }
    }

    /// A lock that another process has left to this one, open as `descriptor`.
    ///
    /// # Safety
    /// The descriptor is open, and nobody else's.
    pub unsafe fn inherited(descriptor: RawFd) -> Lock {
        // SAFETY: as the caller says.
        Lock(unsafe { File::from_raw_fd(descriptor) })
    }

    /// The lock's descriptor, for a process that is to inherit it.
    pub fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Whether this is the lock of the file that is at `path` now.
    pub(crate) fn is_of(&self, path: &Path) -> bool {
        is_at(&self.0, path)
    }
}

/// The raw call: nix's own lock unlocks when the first of two processes lets go.
fn flock(file: &File, operation: i32) -> nix::Result<()> {
    // SAFETY: takes two integers.
    Errno::result(unsafe { libc::flock(file.as_raw_fd(), operation) }).map(drop)
}

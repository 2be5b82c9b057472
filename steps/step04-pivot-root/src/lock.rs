//! Locks between processes, which the kernel frees when their holder dies: flock(2).

use nix::errno::Errno;
use std::fs::{self, File};
use std::ops::Deref;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A lock that lasts as long as this open file description, which a process has in common with those that were forked
/// with it: open(2). Who opens the file once more has another.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// Waits for the lock of `file`, which nobody else has then.
    pub fn exclusive(file: File) -> nix::Result<Lock> {
        Lock::wait(file, libc::LOCK_EX)
    }

    /// Waits for the lock of `file`, which others may share.
    pub fn shared(file: File) -> nix::Result<Lock> {
        Lock::wait(file, libc::LOCK_SH)
    }

    fn wait(file: File, operation: i32) -> nix::Result<Lock> {
        loop {
            match flock(&file, operation) {
                Err(Errno::EINTR) => continue,
                locked => return locked.map(|()| Lock(file)),
            }
        }
    }

    /// Takes the exclusive lock of `file`, if nobody has any.
    pub fn attempt(file: File) -> nix::Result<Option<Lock>> {
        match flock(&file, libc::LOCK_EX | libc::LOCK_NB) {
            Err(Errno::EWOULDBLOCK) => Ok(None),
            locked => locked.map(|()| Some(Lock(file))),
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

    /// Whether this is the lock of the file that is at `path` now: the file may have been removed meanwhile, and made
    /// again.
    pub fn is_of(&self, path: &Path) -> bool {
        let id = |of: fs::Metadata| (of.dev(), of.ino());
        let (file, path) = (self.0.metadata().map(id), fs::metadata(path).map(id));
        matches!((file, path), (Ok(file), Ok(path)) if file == path)
    }
}

impl Deref for Lock {
    type Target = File;

    /// The file that is locked.
    fn deref(&self) -> &File {
        &self.0
    }
}

/// The raw call: nix's own lock unlocks when the first of two processes lets go.
fn flock(file: &File, operation: i32) -> nix::Result<()> {
    // SAFETY: takes two integers.
    Errno::result(unsafe { libc::flock(file.as_raw_fd(), operation) }).map(drop)
}

//! The owner of a folder, when several programs make and sweep such folders at once: a program that has
//! locked a file in it. A crash frees the lock, and then any program may remove the folder. See flock(2).

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Makes a folder by `make` and locks `path`, the folder or a file in it, which `open` opens. Before the lock
/// another program may take the folder for one that a crash has left, and remove it: then it is made again.
///
/// # Errors
/// The errors of `make`, except EEXIST; the errors of `open`, except ENOENT and ENODEV.
pub fn claim(
    path: &Path,
    make: impl Fn() -> io::Result<()>,
    open: impl Fn() -> io::Result<File>,
) -> io::Result<Flock<File>> {
    // A few turns are enough: nobody sweeps more often meanwhile.
    const TIMES: u32 = 1000;
    for _ in 0..TIMES {
        match make() {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => made?,
        }
        let file = match open() {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            // The error of a control group that is being removed at this moment.
            Err(error) if error.raw_os_error() == Some(Errno::ENODEV as i32) => continue,
            opened => opened?,
        };
        let locked = Flock::lock(file, FlockArg::LockShared).map_err(|(_, errno)| errno)?;
        if is_at(&locked, path) {
            return Ok(locked);
        }
    }
    Err(io::Error::new(
        ErrorKind::NotFound,
        "it is gone as soon as it is made",
    ))
}

/// The lock of `path`, if no program has it: the folder may be removed as long as the caller holds the lock.
pub fn abandoned(path: &Path) -> Option<Flock<File>> {
    let file = File::open(path).ok()?;
    let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).ok()?;
    // The folder may have been removed meanwhile, and made again: then the lock is the old folder's.
    is_at(&lock, path).then_some(lock)
}

/// Whether `file` is still the one at `path`, which may have been removed, and made again.
pub fn is_at(file: &File, path: &Path) -> bool {
    let id = |of: fs::Metadata| (of.dev(), of.ino());
    let (file, path) = (file.metadata().map(id), fs::metadata(path).map(id));
    matches!((file, path), (Ok(file), Ok(path)) if file == path)
}

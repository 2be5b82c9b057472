//! Who a folder belongs to, when several programs make and sweep such folders at once: whoever has
//! locked a file in it. A crash frees the lock, and then the folder is anybody's to remove. See flock(2).

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Makes a folder by `make` and locks `path`, the folder or a file in it, by what `open` opens. Before it
/// is locked somebody may take it for the leavings of a crash: then it is made again.
///
/// # Errors
/// Those of `make`, but for EEXIST; those of `open`, but for ENOENT and ENODEV.
pub fn claim(
    path: &Path,
    make: impl Fn() -> io::Result<()>,
    open: impl Fn() -> io::Result<File>,
) -> io::Result<Flock<File>> {
    // A handful of times at most: nobody sweeps that often.
    const TIMES: u32 = 1000;
    for _ in 0..TIMES {
        match make() {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => made?,
        }
        let file = match open() {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            // What a control group says that goes in this very moment.
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

/// The lock of `path`, if nobody has it: then the folder may be removed, for as long as the lock is held.
pub fn abandoned(path: &Path) -> Option<Flock<File>> {
    let file = File::open(path).ok()?;
    let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).ok()?;
    // Removed meanwhile, and made again: the lock is that of the old one.
    is_at(&lock, path).then_some(lock)
}

/// Whether `file` is what is at `path` now: that one may have been removed, and made again.
pub fn is_at(file: &File, path: &Path) -> bool {
    let id = |of: fs::Metadata| (of.dev(), of.ino());
    let (file, path) = (file.metadata().map(id), fs::metadata(path).map(id));
    matches!((file, path), (Ok(file), Ok(path)) if file == path)
}

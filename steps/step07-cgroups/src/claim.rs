//! The owner of a folder, when several programs make and sweep such folders at once: a program that has
//! locked a file in it. A crash frees the lock, and then any program may remove the folder. See flock(2).

use nix::errno::Errno;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;
use step04_pivot_root::lock::Lock;

/// How a folder is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// Its owner keeps others from removing it, and others may be owners, too.
    Several,
    /// There is one owner. Who comes second is refused (EWOULDBLOCK), and doesn't wait.
    One,
}

/// Makes a folder by `make` and locks `path`, the folder or a file in it, which `open` opens. Before the lock
/// another program may take the folder for one that a crash has left, and remove it: then it is made again.
///
/// # Errors
/// The errors of `make`, except EEXIST; the errors of `open`, except ENOENT and ENODEV.
pub fn claim(
    path: &Path,
    make: impl Fn() -> io::Result<()>,
    open: impl Fn() -> io::Result<File>,
    owners: Owners,
) -> io::Result<Lock> {
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
        let locked = match owners {
            Owners::Several => Lock::shared(file)?,
            Owners::One => Lock::attempt(file)?.ok_or(ErrorKind::WouldBlock)?,
        };
        if locked.is_of(path) {
            return Ok(locked);
        }
    }
    Err(io::Error::new(
        ErrorKind::NotFound,
        "it is gone as soon as it is made",
    ))
}

/// The lock of `path`, if no program has it: the folder may be removed as long as the caller holds the lock.
pub fn abandoned(path: &Path) -> Option<Lock> {
    let file = File::open(path).ok()?;
    let lock = Lock::attempt(file).ok()??;
    // The folder may have been removed meanwhile, and made again: then the lock is the old folder's.
    lock.is_of(path).then_some(lock)
}

//! The names by which an archive hides what other layers have, and overlayfs's own way to say the same.

use crate::image::xattrs::set_attribute;
use anyhow::Result;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat, makedev, mknodat};
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use step04_pivot_root::root::kind;

/// How the names of marks begin.
pub const MARK: &[u8] = b".wh.";

/// The attribute of a directory that shows nothing of those below it.
pub const OPAQUE: &str = "trusted.overlay.opaque";

/// The numbers of the character device by which overlayfs notes that a file of a lower layer is gone.
pub const WHITEOUT: (u32, u32) = (0, 0);

/// Makes the whiteout `name` in `parent`.
///
/// # Errors
/// The kernel's: EEXIST, when something has that name already.
pub fn make_whiteout(parent: &OwnedFd, name: &OsStr) -> nix::Result<()> {
    let device = makedev(WHITEOUT.0.into(), WHITEOUT.1.into());
    mknodat(parent, name, SFlag::S_IFCHR, Mode::empty(), device)
}

/// Makes the directory `name` in `parent` opaque.
///
/// # Errors
/// The kernel's: ENOTDIR, when `name` is no directory.
pub fn make_opaque(parent: &OwnedFd, name: &OsStr) -> Result<()> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let directory = openat(parent, name, flags, Mode::empty())?;
    Ok(set_attribute(&directory, OsStr::new(OPAQUE), b"y")?)
}

/// Whether `name` in `parent` is a directory, and no link to one.
///
/// # Errors
/// The kernel's.
pub fn is_directory(parent: &OwnedFd, name: &OsStr) -> Result<bool> {
    Ok(kind(&look(parent, name)?) == SFlag::S_IFDIR)
}

/// Whether `name` in `parent` is a whiteout.
pub fn is_whiteout(parent: &OwnedFd, name: &OsStr) -> bool {
    let device = makedev(WHITEOUT.0.into(), WHITEOUT.1.into());
    look(parent, name).is_ok_and(|found| kind(&found) == SFlag::S_IFCHR && found.st_rdev == device)
}

fn look(parent: &OwnedFd, name: &OsStr) -> nix::Result<FileStat> {
    fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)
}

//! Removes a directory that others have filled.
//!
//! The directory may be deeper than the number of files that a process may have open,
//! and than its stack has room for. So nothing here goes down into it: a subdirectory
//! that isn't empty is moved up, to the topmost directory, and emptied there.

use anyhow::{Context, Result};
use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use step01_uts::program::visible;

/// How often the removal begins again, when other processes put files into the directory meanwhile.
const TIMES: u32 = 100;

/// The most subdirectories of one directory that are remembered at once: others chose how many there are.
const AT_ONCE: usize = 1000;

const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// Removes the directory `path` and all that is in it, however deep it goes. Links are removed and not followed, and
/// what is mounted on it, or somewhere in there, stays. Nothing happens where there is no such directory, or where another
/// process removes it meanwhile.
///
/// The removal takes three descriptors, and no space on the disk, which may be full.
///
/// # Errors
/// EBUSY or EXDEV where something is mounted, EPERM where a file may not be
/// removed. Other files may have been removed by then. EINVAL for `/` and for a path that ends with `..`.
pub fn remove_tree(path: &Path) -> Result<()> {
    let shown = || path.display().to_string();
    let top = match open_top(path) {
        Err(Errno::ENOENT) => return Ok(()),
        opened => opened.with_context(shown)?,
    };
    for _ in 1..TIMES {
        empty(&top).with_context(shown)?;
        match fs::remove_dir(path) {
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            removed => return removed.with_context(shown),
        }
    }
    fs::remove_dir(path).with_context(shown)
}

/// Opens the directory `path` itself, and not what is mounted on it: RESOLVE_NO_XDEV in openat2(2).
fn open_top(path: &Path) -> nix::Result<OwnedFd> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        // `/` and what ends with `..` are in nobody's directory under a name.
        return Err(Errno::EINVAL);
    };
    let parent = match parent.as_os_str().is_empty() {
        true => Path::new("."),
        false => parent,
    };
    // What leads there may have links in it, as any path; its last name may not.
    let parent = open(
        parent,
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    openat2(&parent, name, within())
}

/// How a directory is opened that lies in another one: another process may have exchanged it meanwhile for a link, or for
/// what is mounted elsewhere.
fn within() -> OpenHow {
    OpenHow::new()
        .flags(DIRECTORY)
        .resolve(ResolveFlag::RESOLVE_NO_XDEV | ResolveFlag::RESOLVE_NO_SYMLINKS)
}

/// Removes what is in the directory `top`.
fn empty(top: &OwnedFd) -> Result<()> {
    let mut number = 0;
    loop {
        let mut waiting = clear(top)?;
        if waiting.is_empty() {
            return Ok(());
        }
        while let Some(name) = waiting.pop() {
            let directory = match openat2(top, name.as_os_str(), within()) {
                // The name has gone: another directory was moved onto this one when it was empty.
                Err(Errno::ENOENT) => continue,
                opened => opened?,
            };
            for inside in clear(&directory)? {
                waiting.push(move_up(&directory, &inside, top, &mut number)?);
            }
            // A directory with more in it than was moved at once is left to the next round.
            match unlinkat(top, name.as_os_str(), UnlinkatFlags::RemoveDir) {
                Err(Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOENT) => {}
                removed => removed.with_context(|| visible(&name.to_string_lossy()))?,
            }
        }
    }
}

/// Removes what is in `directory`, except directories that aren't empty.
/// Returns the names of those, of no more than [`AT_ONCE`].
fn clear(directory: &OwnedFd) -> Result<Vec<OsString>> {
    let mut left = Vec::new();
    for entry in Dir::from_fd(openat(directory, ".", DIRECTORY, Mode::empty())?)?.iter() {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        let is_removed = remove(directory, name, entry.file_type());
        if !is_removed.with_context(|| visible(&name.to_string_lossy()))? {
            left.push(name.to_owned());
            if left.len() == AT_ONCE {
                break;
            }
        }
    }
    Ok(left)
}

/// Removes a file, or a directory if it is empty. Returns whether the entry has gone.
fn remove(directory: &OwnedFd, name: &OsStr, kind: Option<Type>) -> nix::Result<bool> {
    if kind != Some(Type::Directory) {
        match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
            // Not every filesystem says of what kind an entry is.
            Err(Errno::EISDIR) => {}
            Err(Errno::ENOENT) => return Ok(true),
            removed => return removed.map(|()| true),
        }
    }
    match unlinkat(directory, name, UnlinkatFlags::RemoveDir) {
        Err(Errno::ENOTEMPTY | Errno::EEXIST) => Ok(false),
        Err(Errno::ENOENT) => Ok(true),
        removed => removed.map(|()| true),
    }
}

/// Moves the directory `name` to `top`, under a number that is free there. Returns that new name.
fn move_up(from: &OwnedFd, name: &OsStr, top: &OwnedFd, number: &mut u64) -> Result<OsString> {
    loop {
        *number += 1;
        let new = OsString::from(number.to_string());
        match renameat(from, name, top, new.as_os_str()) {
            Err(Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOTDIR) => {}
            moved => return Ok(moved.map(|()| new)?),
        }
    }
}

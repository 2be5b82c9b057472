//! Mounts by table, each at its place in a root that somebody else made.
//!
//! After `pivot_root` a link in the root can only lead inside the root. Two kinds of path still
//! deserve care: links that the root put where a mount is to go, and the magic links of a procfs,
//! such as /proc/self/fd/3, which lead wherever that descriptor does.

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};
use std::borrow::Cow;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use step01_uts::call;
use step04_pivot_root::root::{Root, kind};

/// One line of the container's mount table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount<'a> {
    /// What is mounted: a device, a directory, or a name to be shown.
    pub source: &'a str,
    /// Where, in the container. It is made where it is missing.
    pub target: &'a str,
    /// The filesystem's type: filesystems(5).
    pub kind: &'a str,
    /// What all filesystems know: mount(2).
    pub flags: MsFlags,
    /// What only this one knows, `mode=755,size=64k`.
    pub data: &'a str,
}

// ANCHOR: mount_all
/// Mounts all of `mounts` in order. The caller's root is the container's already.
pub fn mount_all(mounts: &[Mount]) -> Result<()> {
    for each in mounts {
        let target = mount_point(Path::new(each.target), SFlag::S_IFDIR)?;
        let (source, kind) = (Some(each.source), Some(each.kind));
        call!(mount(source, &*target, kind, each.flags, Some(each.data)))?;
    }
    Ok(())
}
// ANCHOR_END: mount_all

/// The path, without any link, of the directory (S_IFDIR) or the file (S_IFREG) at `path`, to
/// mount something on. What is missing on the way is made.
///
/// # Errors
/// Something of another kind is there, or a link leads in a circle or through a procfs.
pub fn mount_point(path: &Path, wanted: SFlag) -> Result<Cow<'_, Path>> {
    // Most often all is there, or all but the last name, and nothing of it a link.
    match kind_at(path) {
        Ok(is) if is != SFlag::S_IFLNK => return as_wanted(Cow::Borrowed(path), is, wanted),
        Err(Errno::ENOENT) if make(path, wanted).is_ok() => return Ok(Cow::Borrowed(path)),
        _ => {}
    }
    let real = find_or_make(&Root::at(Path::new("/"))?, path, wanted)?;
    let is = kind_at(&real).with_context(|| real.display().to_string())?;
    as_wanted(Cow::Owned(real), is, wanted)
}

fn as_wanted(path: Cow<Path>, is: SFlag, wanted: SFlag) -> Result<Cow<Path>> {
    match (is == SFlag::S_IFDIR, wanted == SFlag::S_IFDIR) {
        (true, true) | (false, false) => Ok(path),
        (false, true) => bail!("{} in the container is no directory", path.display()),
        (true, false) => bail!("{} in the container is a directory", path.display()),
    }
}

/// The kind of file at `path`, be it a link itself, where no other part of the path is one.
fn kind_at(path: &Path) -> nix::Result<SFlag> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    let file = openat2(AT_FDCWD, path, how)?;
    Ok(kind(&fstat(&file)?))
}

/// As many missing names and dangling links as one path may have.
const MOST_TURNS: usize = 256;

/// Goes along `path` inside `root`, link by link, and makes what is missing. Returns the path
/// without links.
fn find_or_make(root: &Root, path: &Path, wanted: SFlag) -> Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MOST_TURNS {
        if wanted != SFlag::S_IFDIR {
            // The way to a file is made as directories.
            let name = path.file_name().map(OsStr::to_owned).unwrap_or_default();
            path = find_or_make(root, parent(&path), SFlag::S_IFDIR)?.join(name);
        }
        let broken = match root.follow(Path::new("/"), &path).end {
            Ok(found) => return Ok(found.path),
            Err(broken) => broken,
        };
        let made = match (broken.errno, broken.dangling) {
            (Errno::ENOENT, Some((link, target))) if wanted != SFlag::S_IFDIR => {
                path = parent(&link).join(target);
                Ok(())
            }
            (Errno::ENOENT, _) => make(&broken.path, wanted),
            (errno, _) => Err(errno),
        };
        made.with_context(|| format!("{} in the container", broken.path.display()))?;
    }
    bail!(
        "{} in the container: its links lead too far",
        path.display()
    )
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// Makes an empty directory or file. No part of its path may be a link, and nothing may be there.
fn make(path: &Path, kind: SFlag) -> nix::Result<()> {
    let resolve = ResolveFlag::RESOLVE_NO_SYMLINKS;
    if kind == SFlag::S_IFDIR {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(resolve);
        let above = openat2(AT_FDCWD, parent(path), how)?;
        let name = path.file_name().unwrap_or_default();
        return mkdirat(&above, name, Mode::from_bits_truncate(0o755));
    }
    let how = OpenHow::new()
        .flags(OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC)
        .mode(Mode::from_bits_truncate(0o644))
        .resolve(resolve);
    openat2(AT_FDCWD, path, how).map(drop)
}

//! Mounts by table, each at its place in a root that somebody else made.
//!
//! After `pivot_root` a link in the root can only lead inside the root. Two kinds of path still
//! deserve care: links that the root put where a mount is to go, and the magic links of a procfs,
//! such as /proc/self/fd/3, which lead wherever that descriptor does.

use anyhow::{Context, Result, bail};
use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};
use nix::sys::statfs::{FsType, fstatfs};
use std::borrow::Cow;
use std::ffi::{CStr, OsStr};
use std::fmt::{self, Formatter};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use step01_uts::call;
use step01_uts::call::Argument;
use step01_uts::program::visible;
use step04_pivot_root::root::{Root, by_descriptor, kind};

/// One line of the container's mount table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount<'a> {
    /// What is mounted: a device, a directory, or a name to be shown.
    pub source: &'a str,
    /// The mount point's path in the container. A missing directory is made.
    pub target: &'a str,
    /// The filesystem's type: filesystems(5).
    pub kind: &'a str,
    /// The options that all filesystems know: mount(2).
    pub flags: MsFlags,
    /// The options that only this filesystem knows, `mode=755,size=64k`.
    pub data: &'a str,
}

// ANCHOR: mount_all
/// Mounts all of `mounts` in order. The caller's root is the container's already.
pub fn mount_all(mounts: &[Mount]) -> Result<()> {
    for each in mounts {
        mount_on(&mount_point(Path::new(each.target), SFlag::S_IFDIR)?, each)?;
    }
    Ok(())
}
// ANCHOR_END: mount_all

/// Mounts `what` on `point`; the `target` of `what` doesn't count.
pub fn mount_on(point: &MountPoint, what: &Mount) -> Result<()> {
    let (source, kind) = (Some(what.source), Some(what.kind));
    call!(mount(source, point, kind, what.flags, Some(what.data)))?;
    Ok(())
}

/// A directory or a file in a container's root, to mount something on.
///
/// The place is held by a descriptor, and the kernel is given the descriptor: another process may have the same
/// directory, and put a link in its place between our look and the mount.
pub struct MountPoint {
    file: OwnedFd,
    /// The path that the kernel is given: the descriptor's, and perhaps a name below it.
    by_number: PathBuf,
    /// That name.
    name: Option<String>,
}

impl MountPoint {
    /// The place that `file` stands for, open with O_PATH.
    pub fn of(file: OwnedFd) -> MountPoint {
        MountPoint {
            by_number: by_descriptor(&file),
            file,
            name: None,
        }
    }

    /// The file `name` in this directory.
    fn below(&self, name: &str) -> Result<MountPoint> {
        Ok(MountPoint {
            file: self.file.try_clone()?,
            by_number: self.by_number.join(name),
            name: Some(name.to_owned()),
        })
    }

    /// Writes a file of that name into this directory, and returns it.
    pub fn write(&self, name: &str, text: &str) -> Result<MountPoint> {
        let file = self.below(name)?;
        fs::write(&file.by_number, text)?;
        Ok(file)
    }

    /// Where the place is, without links.
    fn path(&self) -> PathBuf {
        let by_number = by_descriptor(&self.file);
        // A root without a procfs doesn't tell.
        let path = fs::read_link(&by_number).unwrap_or(by_number);
        self.name.iter().fold(path, |path, name| path.join(name))
    }

    /// The path as people read it. A container chooses the names in it, and no terminal is to obey them.
    pub fn shown(&self) -> String {
        visible(&self.path().to_string_lossy())
    }

    /// The type of the filesystem that the place is on: statfs(2).
    pub fn filesystem(&self) -> Result<FsType> {
        Ok(fstatfs(&self.file)?.filesystem_type())
    }
}

impl AsFd for MountPoint {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl NixPath for MountPoint {
    fn is_empty(&self) -> bool {
        false
    }

    fn len(&self) -> usize {
        self.by_number.as_path().len()
    }

    fn with_nix_path<T, F: FnOnce(&CStr) -> T>(&self, then: F) -> nix::Result<T> {
        self.by_number.with_nix_path(then)
    }
}

impl Argument for MountPoint {
    fn show(&self, f: &mut Formatter) -> fmt::Result {
        self.path().show(f)
    }
}

/// The directory (S_IFDIR) or the file (S_IFREG) at `path`, to mount something on. What is missing on the way is made,
/// and a link leads to what it means in this root.
///
/// # Errors
/// Something of another kind is there, or a link leads in a circle or through a procfs.
pub fn mount_point(path: &Path, wanted: SFlag) -> Result<MountPoint> {
    place(&Within::OURS, path, wanted)
}

/// The same in the directory `root`, which is to become a root. No link leads out of it.
pub fn mount_point_in(root: &OwnedFd, path: &Path, wanted: SFlag) -> Result<MountPoint> {
    let within = Within {
        directory: root.as_fd(),
        resolve: ResolveFlag::RESOLVE_IN_ROOT,
    };
    place(&within, path, wanted)
}

/// The root in which a path is looked up.
struct Within<'a> {
    directory: BorrowedFd<'a>,
    resolve: ResolveFlag,
}

impl Within<'_> {
    /// The caller's own root.
    const OURS: Within<'static> = Within {
        directory: AT_FDCWD,
        resolve: ResolveFlag::empty(),
    };

    fn open(&self, path: &Path, how: OpenHow, resolve: ResolveFlag) -> nix::Result<OwnedFd> {
        openat2(self.directory, path, how.resolve(self.resolve | resolve))
    }

    fn root(&self) -> Result<Root> {
        match self.resolve.is_empty() {
            true => Root::at(Path::new("/")),
            false => Root::at(&by_descriptor(&self.directory)),
        }
    }
}

fn place(within: &Within, path: &Path, wanted: SFlag) -> Result<MountPoint> {
    let mut way = Cow::Borrowed(path);
    for _ in 0..MOST_CHANGES {
        match open(within, &way) {
            Ok(file) => return as_wanted(MountPoint::of(file), wanted),
            // Most often only the last name is missing, and no part of the path is a link.
            Err(Errno::ENOENT) if make(within, &way, wanted).is_ok() => {}
            Err(_) => way = find_or_make(within, &within.root()?, path, wanted)?.into(),
        }
    }
    bail!(
        "{} in the container is another one each time that one looks",
        path.display()
    )
}

/// How often another process may change the path while we make it.
const MOST_CHANGES: usize = 16;

fn as_wanted(point: MountPoint, wanted: SFlag) -> Result<MountPoint> {
    let is = kind(&fstat(&point)?);
    match (is == SFlag::S_IFDIR, wanted == SFlag::S_IFDIR) {
        (true, true) | (false, false) => Ok(point),
        (false, true) => bail!("{} in the container is no directory", point.shown()),
        (true, false) => bail!("{} in the container is a directory", point.shown()),
    }
}

/// Opens what `path` means in a root, to be held and not to be read.
fn open(within: &Within, path: &Path) -> nix::Result<OwnedFd> {
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC);
    within.open(path, how, ResolveFlag::RESOLVE_NO_MAGICLINKS)
}

/// The most missing names and dangling links that one path may have.
const MOST_TURNS: usize = 256;

/// Goes along `path` inside `root`, link by link, and makes what is missing. Returns the path
/// without links.
fn find_or_make(within: &Within, root: &Root, path: &Path, wanted: SFlag) -> Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MOST_TURNS {
        if wanted != SFlag::S_IFDIR {
            // The way to a file is made as directories.
            let name = path.file_name().map(OsStr::to_owned).unwrap_or_default();
            path = find_or_make(within, root, parent(&path), SFlag::S_IFDIR)?.join(name);
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
            (Errno::ENOENT, _) => make(within, &broken.path, wanted),
            (errno, _) => Err(errno),
        };
        let shown = || visible(&broken.path.to_string_lossy());
        made.with_context(|| format!("{} in the container", shown()))?;
    }
    bail!(
        "{} in the container: its links lead too far",
        visible(&path.to_string_lossy())
    )
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// Makes an empty directory or file. No part of its path may be a link, and nothing may be there.
fn make(within: &Within, path: &Path, kind: SFlag) -> nix::Result<()> {
    let resolve = ResolveFlag::RESOLVE_NO_SYMLINKS;
    if kind == SFlag::S_IFDIR {
        let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC);
        let above = within.open(parent(path), how, resolve)?;
        let name = path.file_name().unwrap_or_default();
        return mkdirat(&above, name, Mode::from_bits_truncate(0o755));
    }
    let how = OpenHow::new()
        .flags(OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC)
        .mode(Mode::from_bits_truncate(0o644));
    within.open(path, how, resolve).map(drop)
}

//! Copying files between two roots, of which one may be hostile: while we copy, a process in there may put a link in
//! the place of a directory.
//!
//! So no path is ever followed twice. The root is opened once, and the path in it is resolved by openat2(2) with
//! RESOLVE_IN_ROOT, which keeps every link inside the root. From there on each step takes one name in a directory
//! that is open, and follows no link.

use anyhow::{Context, Result, bail};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{
    AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, open, openat, openat2, readlinkat,
};
use nix::sys::stat::{FileStat, Mode, SFlag, UtimensatFlags, fstat, fstatat, mkdirat, utimensat};
use nix::sys::statfs::{
    CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, PROC_SUPER_MAGIC, SYSFS_MAGIC, fstatfs,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, chown, fchownat, mkfifoat, symlinkat, unlinkat};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write, stderr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use step01_uts::program::visible;
use step04_pivot_root::root::{by_descriptor, kind, mount_of};
use step05_tty::mounts::MountPoint;
use step08_overlay::image::archive::DEEPEST;
use step08_overlay::image::xattrs::{attributes, set_attribute};

/// A root that is open, and its name in messages.
pub struct Tree {
    root: OwnedFd,
    /// Whether this root isn't trusted: then nothing leads out of it.
    pub(crate) is_closed: bool,
    called: String,
}

/// The owner and the mode that the copies get.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// Owner and group of the copies; `None` keeps those of the originals.
    pub owner: Option<(u32, u32)>,
    /// Whether the copies may be setuid or setgid.
    pub keeps_setuid: bool,
}

/// A directory that is open, and a name in it, which may lead to nothing.
pub struct Place {
    directory: OwnedFd,
    name: OsString,
    shown: PathBuf,
    /// How many directories this is below the place where the copy began.
    depth: usize,
}

impl Tree {
    /// The tree below `root`: a container's, which `is_closed`, or the host's own.
    pub fn new(root: OwnedFd, is_closed: bool, called: String) -> Tree {
        Tree {
            root,
            is_closed,
            called,
        }
    }

    fn open(&self, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        let resolve = match self.is_closed {
            true => ResolveFlag::RESOLVE_IN_ROOT,
            false => ResolveFlag::empty(),
        };
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(resolve);
        openat2(&self.root, path, how)
    }

    fn shown(&self, path: &Path) -> String {
        format!("{}{}", self.called, visible(&path.to_string_lossy()))
    }

    /// What `path` leads to, links followed; `None` when nothing is there.
    pub fn stat(&self, path: &Path) -> Result<Option<FileStat>> {
        match self.open(path, OFlag::O_PATH) {
            Err(Errno::ENOENT) => Ok(None),
            opened => {
                let opened = opened.with_context(|| self.shown(path))?;
                Ok(Some(fstat(opened)?))
            }
        }
    }

    /// What `path` leads to, as a point to mount something on; `None` when nothing is there.
    pub fn mount_point(&self, path: &Path) -> Result<Option<MountPoint>> {
        match self.open(path, OFlag::O_PATH) {
            Err(Errno::ENOENT) => Ok(None),
            found => Ok(Some(MountPoint::of(
                found.with_context(|| self.shown(path))?,
            ))),
        }
    }

    /// The place of `path`: its directory, with all links followed, and its last name, with no link followed.
    ///
    /// # Errors
    /// There is no such directory.
    pub fn place(&self, path: &Path) -> Result<Place> {
        let (directory, name) = match (path.parent(), path.components().next_back()) {
            (Some(directory), Some(Component::Normal(name))) => (directory, name),
            // The root itself, or a path that ends in `..`: a directory, with `.` as the name in it.
            _ => (path, OsStr::new(".")),
        };
        let opened = self.open(directory, OFlag::O_PATH | OFlag::O_DIRECTORY);
        Ok(Place {
            directory: opened.with_context(|| self.shown(directory))?,
            name: name.into(),
            shown: self.shown(path).into(),
            depth: 0,
        })
    }

    /// The place of `path` with the last name followed, too, where that is a link.
    pub fn followed(&self, path: &Path) -> Result<Place> {
        let mut path = path.to_owned();
        // The kernel follows 40 links, too.
        for _ in 0..40 {
            let place = self.place(&path)?;
            match place.stat()? {
                Some(found) if kind(&found) == SFlag::S_IFLNK => {
                    let target = readlinkat(&place.directory, place.name.as_os_str())?;
                    path = path.parent().unwrap_or(Path::new("/")).join(target);
                }
                _ => return Ok(place),
            }
        }
        bail!("{}: too many links", self.shown(&path))
    }
}

impl Place {
    /// What is at this place, links not followed; `None` when nothing is.
    pub fn stat(&self) -> Result<Option<FileStat>> {
        let name = self.name.as_os_str();
        match fstatat(&self.directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => Ok(None),
            found => Ok(Some(found.with_context(|| self.shown())?)),
        }
    }

    fn open(&self, flags: OFlag, mode: Mode) -> nix::Result<OwnedFd> {
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(&self.directory, self.name.as_os_str(), flags, mode)
    }

    /// The place's name in messages. Names in a container are its own choice, and no terminal is to obey them.
    fn shown(&self) -> String {
        visible(&self.shown.to_string_lossy())
    }

    /// Whether the directory at this place is of a filesystem that the kernel makes up: its files are stored nowhere.
    fn is_kernels(&self) -> Result<bool> {
        let found = self.open(OFlag::O_PATH, Mode::empty())?;
        let kind = fstatfs(found)?.filesystem_type();
        Ok([
            PROC_SUPER_MAGIC,
            SYSFS_MAGIC,
            CGROUP_SUPER_MAGIC,
            CGROUP2_SUPER_MAGIC,
        ]
        .contains(&kind))
    }

    /// Whether something is mounted on the file at this place.
    fn is_mounted(&self) -> Result<bool> {
        match self.open(OFlag::O_PATH, Mode::empty()) {
            Err(Errno::ENOENT) => Ok(false),
            found => Ok(mount_of(&found?)? != mount_of(&self.directory)?),
        }
    }

    /// The place `name` in the directory at this place.
    pub fn below(&self, name: &OsStr) -> Result<Place> {
        let directory = self.open(OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty());
        Ok(Place {
            directory: directory.with_context(|| self.shown())?,
            name: name.into(),
            shown: self.shown.join(name),
            depth: self.depth + 1,
        })
    }
}

/// Copies what is at `from` to `to`. A regular file or a link that is there is replaced, but not by a directory. A
/// directory is copied with all that is in it, and into a directory that is there already. Devices, sockets and the
/// kernel's own filesystems below `from` are left out, with a line on standard error.
///
/// # Errors
/// The first file that can't be read or written. What was copied before stays.
pub fn copy(from: &Place, to: &Place, manner: Manner) -> Result<()> {
    let shown = || format!("{} to {}", from.shown(), to.shown());
    let Some(original) = from.stat()? else {
        // The file has been removed since it was found.
        return Ok(());
    };
    if kind(&original) == SFlag::S_IFDIR && from.depth > 0 && from.is_kernels()? {
        return leave_out(from, "it is the kernel's");
    }
    match kind(&original) {
        SFlag::S_IFREG => copy_file(from, to, &original, manner).with_context(shown),
        SFlag::S_IFDIR => copy_directory(from, to, &original, manner),
        SFlag::S_IFLNK => copy_link(from, to, &original, manner).with_context(shown),
        SFlag::S_IFIFO => copy_fifo(to, &original, manner).with_context(shown),
        _ => leave_out(from, "it is no file"),
    }
}

fn leave_out(what: &Place, why: &str) -> Result<()> {
    let note = format!("{}: left out: {why}\n", what.shown());
    // A note that can't be written is no reason to stop.
    let _ = stderr().write_all(note.as_bytes());
    Ok(())
}

/// Removes the file or the link at `to`, if there is one. Anything else there is an error.
fn make_room(to: &Place) -> Result<()> {
    match to.stat()?.map(|found| kind(&found)) {
        None => Ok(()),
        Some(SFlag::S_IFREG | SFlag::S_IFLNK) => Ok(unlinkat(
            &to.directory,
            to.name.as_os_str(),
            UnlinkatFlags::NoRemoveDir,
        )?),
        Some(SFlag::S_IFDIR) => bail!("there is a directory"),
        Some(_) => bail!("there is something that is no file, and stays"),
    }
}

fn copy_file(from: &Place, to: &Place, original: &FileStat, manner: Manner) -> Result<()> {
    // Opening a device is using it, and the file may have become one. So O_PATH comes first, which only looks.
    let found = from.open(OFlag::O_PATH, Mode::empty())?;
    if kind(&fstat(&found)?) != SFlag::S_IFREG {
        bail!("it is being replaced");
    }
    let source = open_again(&found, OFlag::O_RDONLY)?;
    let copy = match to.is_mounted()? {
        // A file with something mounted on it stays the same file. Removing its name would remove the mount, in the
        // container.
        true => open_again(
            &to.open(OFlag::O_PATH, Mode::empty())?,
            OFlag::O_WRONLY | OFlag::O_TRUNC,
        )?,
        false => {
            make_room(to)?;
            let new = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
            to.open(new, Mode::S_IRUSR | Mode::S_IWUSR)?
        }
    };
    let (source, mut copy) = (File::from(source), File::from(copy));
    // A process may write to the file as fast as it is copied: so the copy ends at the size that was seen first.
    let most = match original.st_size {
        0 => MOST_OF_THE_KERNELS,
        size => size as u64,
    };
    io::copy(&mut source.take(most), &mut copy)?;
    let copy = copy.into();
    finish(&copy, original, manner)?;
    copy_attributes(&found, &copy, manner)
}

/// The most bytes to copy of a file without a size: some of the kernel's files have bytes, and say 0.
const MOST_OF_THE_KERNELS: u64 = 64 * 1024 * 1024;

/// Opens a file by its O_PATH descriptor. If another process has a lease on it (fcntl(2)), this fails and doesn't wait.
fn open_again(found: &OwnedFd, flags: OFlag) -> Result<OwnedFd> {
    let flags = flags | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    match open(&by_descriptor(found), flags, Mode::empty()) {
        Err(Errno::EAGAIN) => {
            bail!("somebody has a lease on it\nhelp: once they are through, do it again")
        }
        opened => Ok(opened?),
    }
}

fn copy_fifo(to: &Place, original: &FileStat, manner: Manner) -> Result<()> {
    make_room(to)?;
    mkfifoat(
        &to.directory,
        to.name.as_os_str(),
        Mode::S_IRUSR | Mode::S_IWUSR,
    )?;
    let made = to.open(OFlag::O_PATH, Mode::empty())?;
    if kind(&fstat(&made)?) != SFlag::S_IFIFO {
        bail!("it is being replaced");
    }
    // A fifo isn't opened, which would wait for a process at its other end.
    finish(&made, original, manner)
}

fn copy_directory(from: &Place, to: &Place, original: &FileStat, manner: Manner) -> Result<()> {
    if from.depth > DEEPEST {
        bail!("{}: deeper than {DEEPEST} directories", from.shown());
    }
    let shown = || to.shown();
    match mkdirat(&to.directory, to.name.as_os_str(), Mode::S_IRWXU) {
        Err(Errno::EEXIST) => {}
        made => made.with_context(shown)?,
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let made = to.open(flags, Mode::empty()).with_context(shown)?;
    copy_contents(from, to, manner)?;
    let found = from.open(OFlag::O_PATH, Mode::empty());
    let finished = finish(&made, original, manner);
    finished
        .and_then(|()| copy_attributes(&found?, &made, manner))
        .with_context(shown)
}

/// Copies what people and programs have noted on the file (`user.`), and its capabilities, which are as good as
/// setuid: xattr(7).
fn copy_attributes(from: &OwnedFd, to: &OwnedFd, manner: Manner) -> Result<()> {
    for (key, value) in attributes(from)? {
        let is_wanted = match key.as_bytes() {
            b"security.capability" => manner.keeps_setuid,
            key => key.starts_with(b"user."),
        };
        if is_wanted {
            match set_attribute(to, &key, &value) {
                // The copy's filesystem has no such attributes.
                Err(Errno::ENOTSUP) => {}
                set => set.with_context(|| key.to_string_lossy().into_owned())?,
            }
        }
    }
    Ok(())
}

/// Copies what is in the directory `from` into the directory `to`.
pub fn copy_contents(from: &Place, to: &Place, manner: Manner) -> Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let opened = from.open(flags, Mode::empty());
    let mut directory = opened
        .and_then(Dir::from_fd)
        .with_context(|| from.shown())?;
    for entry in directory.iter() {
        let entry = entry.with_context(|| from.shown())?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            copy(&from.below(name)?, &to.below(name)?, manner)?;
        }
    }
    Ok(())
}

fn copy_link(from: &Place, to: &Place, original: &FileStat, manner: Manner) -> Result<()> {
    let target = readlinkat(&from.directory, from.name.as_os_str())?;
    make_room(to)?;
    symlinkat(target.as_os_str(), &to.directory, to.name.as_os_str())?;
    let (uid, gid) = manner.owner.unwrap_or((original.st_uid, original.st_gid));
    fchownat(
        &to.directory,
        to.name.as_os_str(),
        Some(Uid::from_raw(uid)),
        Some(Gid::from_raw(gid)),
        AtFlags::AT_SYMLINK_NOFOLLOW,
    )?;
    let (accessed, modified) = times(original);
    let flag = UtimensatFlags::NoFollowSymlink;
    Ok(utimensat(
        &to.directory,
        to.name.as_os_str(),
        &accessed,
        &modified,
        flag,
    )?)
}

/// Gives a copy its owner, its mode and its times, in this order: a change of owner takes setuid away.
fn finish(copy: &OwnedFd, original: &FileStat, manner: Manner) -> Result<()> {
    let (uid, gid) = manner.owner.unwrap_or((original.st_uid, original.st_gid));
    // By a path, because fchown(2) and fchmod(2) refuse an O_PATH descriptor.
    let path = by_descriptor(copy);
    chown(&path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    let mut mode = original.st_mode & 0o7777;
    if !manner.keeps_setuid && kind(original) != SFlag::S_IFDIR {
        mode &= 0o1777;
    }
    fs::set_permissions(&path, Permissions::from_mode(mode))?;
    let (accessed, modified) = times(original);
    let flag = UtimensatFlags::FollowSymlink;
    Ok(utimensat(AT_FDCWD, &path, &accessed, &modified, flag)?)
}

fn times(of: &FileStat) -> (TimeSpec, TimeSpec) {
    (
        TimeSpec::new(of.st_atime, of.st_atime_nsec),
        TimeSpec::new(of.st_mtime, of.st_mtime_nsec),
    )
}

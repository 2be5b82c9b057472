//! Copying files between two roots, of which one may be hostile: while we copy, somebody in there may put a link
//! in the place of a directory.
//!
//! So no path is ever followed twice. The root is opened once, and the path in it resolved by openat2(2) with
//! RESOLVE_IN_ROOT, for which the root is the root, wherever a link points. From there on it is one name at a
//! time in a directory that is open, and no name is followed.

use anyhow::{Context, Result, bail};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{
    FileStat, Mode, SFlag, UtimensatFlags, fchmod, fstat, fstatat, futimens, mkdirat, mknodat,
    utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, symlinkat, unlinkat};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// A root, as it is open, and what people call it.
pub struct Tree {
    root: OwnedFd,
    /// Whether it is one that we don't trust: nothing leads out of it.
    is_closed: bool,
    called: String,
}

/// What becomes of the copies.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// Whose they are; whoever's the originals are, with none.
    pub owner: Option<(u32, u32)>,
    /// Whether they may be setuid or setgid.
    pub keeps_setuid: bool,
}

/// A directory that is open, and a name in it, which may lead to nothing.
pub struct Place {
    directory: OwnedFd,
    name: OsString,
    shown: PathBuf,
}

impl Tree {
    /// The tree below `root`: a container's, which is `closed`, or the host's own.
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
        format!("{}{}", self.called, path.display())
    }

    /// What `path` leads to, links followed; `None`: nothing is there.
    pub fn stat(&self, path: &Path) -> Result<Option<FileStat>> {
        match self.open(path, OFlag::O_PATH) {
            Err(Errno::ENOENT) => Ok(None),
            opened => {
                let opened = opened.with_context(|| self.shown(path))?;
                Ok(Some(fstat(opened)?))
            }
        }
    }

    /// The place of `path`: its directory, with all links followed, and its last name, which isn't.
    ///
    /// # Errors
    /// There is no such directory.
    pub fn place(&self, path: &Path) -> Result<Place> {
        let (directory, name) = match (path.parent(), path.components().next_back()) {
            (Some(directory), Some(Component::Normal(name))) => (directory, name),
            // The root itself, or `..`: the directory is what it is in.
            _ => (path, OsStr::new(".")),
        };
        let opened = self.open(directory, OFlag::O_PATH | OFlag::O_DIRECTORY);
        Ok(Place {
            directory: opened.with_context(|| self.shown(directory))?,
            name: name.into(),
            shown: self.shown(path).into(),
        })
    }

    /// The same, with the last name followed, too, where it is a link.
    pub fn followed(&self, path: &Path) -> Result<Place> {
        let mut path = path.to_owned();
        // As many as the kernel follows.
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
    /// What is there, links not followed; `None`: nothing.
    pub fn stat(&self) -> Result<Option<FileStat>> {
        let name = self.name.as_os_str();
        match fstatat(&self.directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => Ok(None),
            found => Ok(Some(
                found.with_context(|| self.shown.display().to_string())?,
            )),
        }
    }

    fn open(&self, flags: OFlag, mode: Mode) -> nix::Result<OwnedFd> {
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(&self.directory, self.name.as_os_str(), flags, mode)
    }

    /// The place `name` in the directory that is here.
    pub fn below(&self, name: &OsStr) -> Result<Place> {
        let directory = self.open(OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty());
        Ok(Place {
            directory: directory.with_context(|| self.shown.display().to_string())?,
            name: name.into(),
            shown: self.shown.join(name),
        })
    }
}

/// What sort of file it is.
pub fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// Copies what is at `from` to `to`, where what isn't a directory is replaced. A directory is copied with all
/// that is in it, and into one that is there already. Devices and sockets are left out, which is said.
///
/// # Errors
/// The first file that can't be read or written. What was copied before stays.
pub fn copy(from: &Place, to: &Place, manner: Manner) -> Result<()> {
    let shown = || format!("{} to {}", from.shown.display(), to.shown.display());
    let Some(original) = from.stat()? else {
        // It was there a moment ago.
        return Ok(());
    };
    match kind(&original) {
        SFlag::S_IFREG => copy_file(from, to, &original, manner).with_context(shown),
        SFlag::S_IFDIR => copy_directory(from, to, &original, manner),
        SFlag::S_IFLNK => copy_link(from, to, &original, manner).with_context(shown),
        SFlag::S_IFIFO => copy_fifo(to, &original, manner).with_context(shown),
        _ => {
            eprintln!(
                "{}: left out: it is a device or a socket",
                from.shown.display()
            );
            Ok(())
        }
    }
}

/// Takes away what is at `to`, if that isn't a directory.
fn make_room(to: &Place) -> Result<()> {
    match to.stat()?.map(|found| kind(&found)) {
        None => Ok(()),
        Some(SFlag::S_IFDIR) => bail!("there is a directory"),
        Some(_) => Ok(unlinkat(
            &to.directory,
            to.name.as_os_str(),
            UnlinkatFlags::NoRemoveDir,
        )?),
    }
}

fn copy_file(from: &Place, to: &Place, original: &FileStat, manner: Manner) -> Result<()> {
    // O_NONBLOCK: it may have become a pipe that nobody writes to.
    let source = from.open(OFlag::O_RDONLY | OFlag::O_NONBLOCK, Mode::empty())?;
    if kind(&fstat(&source)?) != SFlag::S_IFREG {
        bail!("it is being replaced");
    }
    let new = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
    let copy = match make_room(to) {
        // Something is mounted on it: it stays the same file.
        Err(error) if error.downcast_ref() == Some(&Errno::EBUSY) => {
            to.open(OFlag::O_WRONLY | OFlag::O_TRUNC, Mode::empty())?
        }
        made => {
            made?;
            to.open(new, Mode::S_IRUSR | Mode::S_IWUSR)?
        }
    };
    let (mut source, mut copy) = (File::from(source), File::from(copy));
    io::copy(&mut source, &mut copy)?;
    finish(&copy.into(), original, manner)
}

fn copy_directory(from: &Place, to: &Place, original: &FileStat, manner: Manner) -> Result<()> {
    let shown = || to.shown.display().to_string();
    match mkdirat(&to.directory, to.name.as_os_str(), Mode::S_IRWXU) {
        Err(Errno::EEXIST) => {}
        made => made.with_context(shown)?,
    }
    let is_new = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let made = to.open(is_new, Mode::empty()).with_context(shown)?;
    copy_contents(from, to, manner)?;
    finish(&made, original, manner).with_context(shown)
}

/// Copies what is in the directory `from` into the directory `to`.
pub fn copy_contents(from: &Place, to: &Place, manner: Manner) -> Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let opened = from.open(flags, Mode::empty());
    let mut directory = opened
        .and_then(Dir::from_fd)
        .with_context(|| from.shown.display().to_string())?;
    for entry in directory.iter() {
        let entry = entry.with_context(|| from.shown.display().to_string())?;
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

fn copy_fifo(to: &Place, original: &FileStat, manner: Manner) -> Result<()> {
    make_room(to)?;
    mknodat(
        &to.directory,
        to.name.as_os_str(),
        SFlag::S_IFIFO,
        Mode::S_IRUSR | Mode::S_IWUSR,
        0,
    )?;
    let made = to.open(OFlag::O_RDWR | OFlag::O_NONBLOCK, Mode::empty())?;
    finish(&made, original, manner)
}

/// Gives a copy its owner, its mode and its times, in this order: a change of owner takes setuid away.
fn finish(copy: &OwnedFd, original: &FileStat, manner: Manner) -> Result<()> {
    let (uid, gid) = manner.owner.unwrap_or((original.st_uid, original.st_gid));
    fchown(copy, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    let mut mode = Mode::from_bits_truncate(original.st_mode);
    if !manner.keeps_setuid && kind(original) != SFlag::S_IFDIR {
        mode.remove(Mode::S_ISUID | Mode::S_ISGID);
    }
    fchmod(copy, mode)?;
    let (accessed, modified) = times(original);
    Ok(futimens(copy, &accessed, &modified)?)
}

fn times(of: &FileStat) -> (TimeSpec, TimeSpec) {
    (
        TimeSpec::new(of.st_atime, of.st_atime_nsec),
        TimeSpec::new(of.st_mtime, of.st_mtime_nsec),
    )
}

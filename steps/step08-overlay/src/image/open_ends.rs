//! What an archive leaves open, since the layers below it decide.

use crate::image::marks::{MARK, is_whiteout};
use crate::image::names::shown;
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{FileStat, UtimensatFlags, fstat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use step04_pivot_root::root::{by_descriptor, directory_at};

/// What the layers below have to say about, once they are there.
#[derive(Debug, Default)]
pub struct OpenEnds {
    /// Names that this layer hides.
    pub hidden: Vec<PathBuf>,
    /// Directories without an entry of their own: owner, mode and times are those of the layers below.
    pub implied: Vec<PathBuf>,
    /// Names of files of the layers below: the new name, and the file.
    pub links: Vec<(PathBuf, PathBuf)>,
    /// Whether the archive has an entry for its root.
    pub has_root: bool,
    /// The bytes that all these names take.
    memory: usize,
}

/// The most bytes of names that are kept in memory for later.
const MOST: usize = 16 * 1024 * 1024;

impl OpenEnds {
    /// Refuses links to files of the layers below, where nobody knows these.
    ///
    /// # Errors
    /// There is such a link.
    pub fn has_no_links(&self) -> Result<()> {
        match self.links.first() {
            None => Ok(()),
            Some((path, to)) => bail!(
                "its entry {}: a hard link to {}, which isn't there",
                shown(path),
                shown(to)
            ),
        }
    }

    /// Notes that a mark hides `path`.
    pub(crate) fn hides(&mut self, path: PathBuf) -> Result<()> {
        self.remember(&path)?;
        self.hidden.push(path);
        Ok(())
    }

    /// Notes that the directory at `path` was made without an entry of its own: the layers below know its owner.
    pub(crate) fn implies(&mut self, path: &Path) -> Result<()> {
        if has_mark(path) {
            bail!("it is in a directory that is called as a mark");
        }
        self.implied.push(path.to_owned());
        self.remember(path)
    }

    /// Notes that the file `to`, which isn't in this archive, is to be linked to `path` once the layers below are there.
    pub(crate) fn links(&mut self, path: &Path, to: &Path) -> Result<()> {
        if has_mark(to) {
            bail!("a link to a mark");
        }
        self.links.push((path.to_owned(), to.to_owned()));
        self.remember(path)?;
        self.remember(to)
    }

    fn remember(&mut self, path: &Path) -> Result<()> {
        // What a path takes beside its bytes counts, too.
        self.memory += size_of::<PathBuf>() + path.as_os_str().len();
        match self.memory > MOST {
            true => bail!("it leaves too much open that the layers below decide about"),
            false => Ok(()),
        }
    }
}

fn has_mark(path: &Path) -> bool {
    path.iter().any(|part| part.as_bytes().starts_with(MARK))
}

/// The lowest layer has nothing below it: nothing can be hidden there, and no file linked.
///
/// # Errors
/// A link to a file that isn't there.
pub fn fit_lowest(root: &Path, open: &OpenEnds) -> Result<()> {
    let root = directory_at(root)?;
    for path in &open.hidden {
        uncover(&root, path).with_context(|| shown(path))?;
    }
    open.has_no_links()
}

/// What is at `path` in `root`, without following any link.
///
/// # Errors
/// The kernel's; that there is nothing is no error.
pub fn find(root: &OwnedFd, path: &Path) -> Result<Option<OwnedFd>> {
    let path = match path.as_os_str().is_empty() {
        true => Path::new("."),
        false => path,
    };
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_BENEATH);
    match openat2(root, path, how) {
        // A link on the way. One at the end is opened itself: O_PATH and O_NOFOLLOW.
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
        found => Ok(Some(found?)),
    }
}

/// The directory of `path` in the layer, and its name there.
///
/// # Errors
/// A directory that isn't there.
pub fn place<'a>(root: &OwnedFd, path: &'a Path) -> Result<(OwnedFd, &'a OsStr)> {
    let name = path.file_name().context("an empty name")?;
    let parent = find(root, path.parent().unwrap_or(Path::new("")))?;
    Ok((parent.context("its directory is gone")?, name))
}

/// Removes the whiteout at `path`, which hides nothing: overlayfs shows such a one as a file that can't be looked at.
///
/// # Errors
/// The filesystem's.
pub fn uncover(root: &OwnedFd, path: &Path) -> Result<()> {
    let (parent, name) = place(root, path)?;
    // The archive may have put a file there since.
    if !is_whiteout(&parent, name) {
        return Ok(());
    }
    let before = fstat(&parent)?;
    unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir)?;
    set_times(&parent, &before)
}

/// Gives the directory the times of `like`.
///
/// # Errors
/// The filesystem's.
pub fn set_times(directory: &OwnedFd, like: &FileStat) -> Result<()> {
    let accessed = TimeSpec::new(like.st_atime, like.st_atime_nsec);
    let modified = TimeSpec::new(like.st_mtime, like.st_mtime_nsec);
    let path = by_descriptor(directory);
    Ok(utimensat(
        AT_FDCWD,
        &path,
        &accessed,
        &modified,
        UtimensatFlags::FollowSymlink,
    )?)
}

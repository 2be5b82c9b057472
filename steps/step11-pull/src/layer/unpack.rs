//! A layer's archive becomes a directory that overlayfs can lay on others.

use crate::manifest::parts::Layer;
use crate::{MARK, Verified, is_whiteout, make_opaque, mark};
use anyhow::{Context, Result, bail};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::ffi::OsStr;
use std::io::{self, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use step08_overlay::image::archive::{Stack, decompressed, unpack_tar};

/// What the layers below have to say about, once they are there.
#[derive(Debug, Default)]
pub struct OpenEnds {
    /// Names that this layer hides.
    pub hidden: Vec<PathBuf>,
    /// Directories without an entry of their own: owner, mode and times are those of the layers below.
    pub implied: Vec<PathBuf>,
    /// Names of files of the layers below: the new name, and the file.
    pub links: Vec<(PathBuf, PathBuf)>,
    /// Whether the layer says something about its root.
    pub has_root: bool,
    /// The bytes that all these names take.
    memory: usize,
}

/// The most bytes of names that are kept in memory for later.
const MOST: usize = 16 * 1024 * 1024;

impl Stack for OpenEnds {
    const MAY_BE_EMPTY: bool = true;

    fn mark(&mut self, parent: &OwnedFd, name: &OsStr, path: &Path) -> Result<bool> {
        let is_mark = mark(parent, name)?;
        if let Some(hidden) = name.as_bytes().strip_prefix(MARK).filter(|_| is_mark) {
            let hidden = OsStr::from_bytes(hidden);
            if is_whiteout(parent, hidden) {
                self.remember(path)?;
                self.hidden.push(path.with_file_name(hidden));
            }
        }
        Ok(is_mark)
    }

    fn give_way(&mut self, parent: &OwnedFd, name: &OsStr) -> Result<bool> {
        if !is_whiteout(parent, name) {
            return Ok(false);
        }
        unlinkat(parent, name, UnlinkatFlags::NoRemoveDir)?;
        mkdirat(parent, name, Mode::from_bits_truncate(0o755))?;
        // The layer has removed what was there, and so nothing of that shows through.
        make_opaque(parent, name).map(|()| true)
    }

    fn root(&mut self) {
        self.has_root = true;
    }

    fn implied(&mut self, path: &Path) -> Result<()> {
        if has_mark(path) {
            bail!("it is in a directory that is called as a mark");
        }
        self.implied.push(path.to_owned());
        self.remember(path)
    }

    fn is_mark(&self, parent: &OwnedFd, name: &OsStr) -> bool {
        is_whiteout(parent, name)
    }

    fn link_below(&mut self, path: &Path, to: &Path) -> Result<bool> {
        if has_mark(to) {
            bail!("a link to a mark");
        }
        self.links.push((path.to_owned(), to.to_owned()));
        self.remember(path)?;
        self.remember(to).map(|()| true)
    }
}

fn has_mark(path: &Path) -> bool {
    path.iter().any(|part| part.as_bytes().starts_with(MARK))
}

impl OpenEnds {
    fn remember(&mut self, path: &Path) -> Result<()> {
        // What a path takes beside its bytes counts, too.
        self.memory += size_of::<PathBuf>() + path.as_os_str().len();
        match self.memory > MOST {
            true => bail!("it leaves too much open that the layers below decide about"),
            false => Ok(()),
        }
    }
}

/// Unpacks the archive of `layer`, whose bytes come from `archive`, into the empty directory `root`. Returns what is open
/// still, and the number of bytes without compression.
///
/// # Errors
/// An archive that isn't one, or isn't the one that the image's configuration names, or holds more than `limit` bytes,
/// or names that lead out.
pub fn unpack(
    archive: impl Read,
    layer: &Layer,
    root: &Path,
    limit: u64,
) -> Result<(OpenEnds, u64)> {
    let mut open = OpenEnds::default();
    let mut raw = BufReader::with_capacity(128 * 1024, archive);
    let mut tar = Verified::new(decompressed(&mut raw)?, layer.diff_id.clone(), None);
    unpack_tar(&mut tar, root, limit, &mut open).context("what its archive unpacks to")?;
    let size = tar.seen;
    drop(tar);
    io::copy(&mut raw, &mut io::sink())?;
    Ok((open, size))
}

//! Fitting a layer to those below it: what its archive has left open.

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmodat, fstat, mkdirat};
use nix::unistd::{Gid, LinkatFlags, Uid, chown, linkat};
use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use step04_pivot_root::root::{by_descriptor, directory_at, kind};
use step08_overlay::image::marks::{OPAQUE, is_whiteout};
use step08_overlay::image::names::shown;
use step08_overlay::image::open_ends::{OpenEnds, find, place, set_times, uncover};
use step08_overlay::image::xattrs::{attributes, is_of_overlay, set_attribute};
use step10_exec::copy::{Manner, Tree, copy};

/// Fits the layer in `root` to `below`, which shows what the layers below it make up together. Files that come up from
/// there may have `limit` bytes together. Returns how many these have.
///
/// # Errors
/// A link to a file that isn't there; files of more than `limit` bytes.
pub fn fit(root: &Path, below: &Path, open: &OpenEnds, limit: u64) -> Result<u64> {
    let mut fitting = Fitting {
        root: directory_at(root)?,
        below: directory_at(below)?,
        covered: HashMap::new(),
        left: limit,
    };
    for path in &open.hidden {
        if fitting.is_covered(path)? || find(&fitting.below, path)?.is_none() {
            uncover(&fitting.root, path).with_context(|| shown(path))?;
        }
    }
    for (path, to) in &open.links {
        fitting
            .link(path, to)
            .with_context(|| format!("its entry {}: a hard link to {}", shown(path), shown(to)))?;
    }
    // Downwards, and at the end: what is put into a directory changes its time.
    let top = (!open.has_root).then(PathBuf::new);
    for path in top.iter().chain(&open.implied) {
        fitting.liken(path).with_context(|| shown(path))?;
    }
    Ok(limit - fitting.left)
}

fn is_opaque(directory: &OwnedFd) -> bool {
    let all = attributes(directory).unwrap_or_default();
    all.iter()
        .any(|(key, value)| key == OPAQUE && value == b"y")
}

/// Whether a layer hides all that is below it.
pub fn hides_all(root: &Path) -> Result<bool> {
    Ok(is_opaque(&directory_at(root)?))
}

/// A layer that is fitted to those below it.
struct Fitting {
    root: OwnedFd,
    below: OwnedFd,
    /// Of directories that were asked for: whether they show anything of the layers below.
    covered: HashMap<PathBuf, bool>,
    /// How many bytes may still come up.
    left: u64,
}

impl Fitting {
    /// Whether a directory on the way to `path` is opaque.
    fn is_covered(&mut self, path: &Path) -> Result<bool> {
        let Some(above) = path.parent() else {
            return Ok(false);
        };
        if let Some(known) = self.covered.get(above) {
            return Ok(*known);
        }
        let opaque = find(&self.root, above)?.is_some_and(|directory| is_opaque(&directory));
        // As deep as a layer may be: a few hundred turns.
        let is_covered = opaque || self.is_covered(above)?;
        self.covered.insert(above.to_owned(), is_covered);
        Ok(is_covered)
    }

    /// Gives the file `to` of the layers below the name `path`, too: both have to be in this layer.
    fn link(&mut self, path: &Path, to: &Path) -> Result<()> {
        let (parent, name) = place(&self.root, path)?;
        if find(&self.root, path)?.is_some() {
            // A later entry of the archive has that name.
            return Ok(());
        }
        let (to_parent, to_name) = place(&self.root, to)?;
        let is_hidden = self.is_covered(to)? || is_whiteout(&to_parent, to_name);
        let model = find(&self.below, to)?.filter(|_| !is_hidden);
        if find(&self.root, to)?.is_none() {
            let model = model.context("which isn't there")?;
            self.bring_up(to, &model, &to_parent)?;
        } else if is_hidden {
            bail!("which isn't there");
        }
        let before = fstat(&parent)?;
        linkat(&to_parent, to_name, &parent, name, LinkatFlags::empty())?;
        set_times(&parent, &before)
    }

    /// Copies the file `path` of the layers below into the directory `parent` of this one.
    fn bring_up(&mut self, path: &Path, model: &OwnedFd, parent: &OwnedFd) -> Result<()> {
        let found = fstat(model)?;
        match kind(&found) {
            SFlag::S_IFDIR => bail!("which is a directory"),
            SFlag::S_IFREG | SFlag::S_IFLNK | SFlag::S_IFIFO => {}
            _ => bail!("which is a device or a socket"),
        }
        let size = found.st_size.max(0) as u64;
        self.left = self
            .left
            .checked_sub(size)
            .context("which makes the layer larger than it may be")?;
        let tree = |root: &OwnedFd| -> Result<Tree> {
            Ok(Tree::new(root.try_clone()?, true, String::new()))
        };
        let absolute = Path::new("/").join(path);
        let (from, into) = (
            tree(&self.below)?.place(&absolute)?,
            tree(&self.root)?.place(&absolute)?,
        );
        let before = fstat(parent)?;
        let manner = Manner {
            owner: None,
            keeps_setuid: true,
        };
        copy(&from, &into, manner)?;
        let copied = find(&self.root, path)?.context("the copy is gone")?;
        copy_attributes(&copied, model)?;
        set_times(parent, &before)
    }

    /// Gives the directory `path` of the layer the owner, the mode, the attributes and the times that it has below.
    fn liken(&mut self, path: &Path) -> Result<()> {
        match self.is_covered(path)? {
            true => Ok(()),
            false => liken(&self.root, &self.below, path),
        }
    }
}

/// Gives the directory `path` of `root` the owner, the mode, the attributes and the times that it has in `below`.
fn liken(root: &OwnedFd, below: &OwnedFd, path: &Path) -> Result<()> {
    let Some(directory) = find(root, path)? else {
        // The archive has put something else there since.
        return Ok(());
    };
    if !path.as_os_str().is_empty() && is_opaque(&directory) {
        return Ok(());
    }
    let Some(model) = find(below, path)? else {
        return Ok(());
    };
    let like = fstat(&model)?;
    match kind(&like) == SFlag::S_IFDIR && kind(&fstat(&directory)?) == SFlag::S_IFDIR {
        true => assimilate(&directory, &model, &like),
        false => Ok(()),
    }
}

fn assimilate(directory: &OwnedFd, model: &OwnedFd, like: &FileStat) -> Result<()> {
    let at = by_descriptor(directory);
    let owner = (Uid::from_raw(like.st_uid), Gid::from_raw(like.st_gid));
    chown(&at, Some(owner.0), Some(owner.1))?;
    fs::set_permissions(&at, Permissions::from_mode(like.st_mode & 0o7777))?;
    copy_attributes(directory, model)?;
    set_times(directory, like)
}

/// Gives `file` all attributes of `model`, but for overlayfs's own.
fn copy_attributes(file: &OwnedFd, model: &OwnedFd) -> Result<()> {
    for (key, value) in attributes(model)? {
        if !is_of_overlay(key.as_bytes()) {
            match set_attribute(file, &key, &value) {
                Err(Errno::ENOTSUP) => {}
                set => set?,
            }
        }
    }
    Ok(())
}

/// Makes the directory `path` in `upper`, with all on the way that `below` hasn't. What `below` has keeps its owner and
/// mode. Where there is something else already, nothing is made.
///
/// # Errors
/// The filesystem's.
pub fn make_directory(upper: &Path, below: &Path, path: &Path) -> Result<()> {
    let (upper, below) = (directory_at(upper)?, directory_at(below)?);
    let path = path.strip_prefix("/").unwrap_or(path);
    liken(&upper, &below, Path::new(""))?;
    let mut way = PathBuf::new();
    for part in path.components() {
        let (above, at) = (way.clone(), part.as_os_str());
        way.push(part);
        let Some(parent) = find(&upper, &above)? else {
            return Ok(());
        };
        match find(&below, &way)?.map(|found| fstat(&found)).transpose()? {
            Some(found) if kind(&found) != SFlag::S_IFDIR => return Ok(()),
            _ => {}
        }
        match mkdirat(&parent, at, Mode::from_bits_truncate(0o755)) {
            Err(Errno::EEXIST) => {}
            made => {
                made?;
                let mode = Mode::from_bits_truncate(0o755);
                fchmodat(&parent, at, mode, FchmodatFlags::NoFollowSymlink)?;
                liken(&upper, &below, &way)?;
            }
        }
    }
    Ok(())
}

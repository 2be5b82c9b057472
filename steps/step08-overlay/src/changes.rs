//! Where a container's changes go: its own directories, and who removes them.

use crate::{tear_down, whole};
use anyhow::{Context, Result, bail};
use std::borrow::Cow;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::path::{Path, PathBuf};
use step04_pivot_root::lock::Lock;
use step07_cgroups::claim::{Owners, abandoned, claim};

/// Where a container's own directories are.
#[derive(Debug, Clone, Copy)]
pub enum Home<'a> {
    /// In the state folder by this name, for as long as the container runs.
    Passing(&'a str),
    /// In this directory, which the caller makes and removes.
    Lasting {
        /// The directory, with the upper layer in `upper`.
        folder: &'a Path,
        /// Whether the changes are worth nothing after a crash.
        volatile: bool,
    },
}

/// A container's own directories.
pub(crate) struct Changes {
    /// The directory on which the overlay is mounted, in the container.
    pub(crate) folder: PathBuf,
    pub(crate) upper: PathBuf,
    pub(crate) work: PathBuf,
    /// Whether the changes are worth nothing after a crash.
    pub(crate) volatile: bool,
    /// The folder's lock: while it is held, the folder is in use. The folder is removed at the end. A folder that
    /// outlives the container has no such lock.
    passing: Option<Lock>,
    /// The lock of the directory that `--keep` names.
    _kept_lock: Option<Lock>,
}

impl Changes {
    pub(crate) fn make(
        state: &Path,
        home: Home,
        keep: Option<&Path>,
        topmost: &Path,
    ) -> Result<Changes> {
        let (folder, passing) = match home {
            Home::Passing(id) => Changes::folder_of(state, id)?,
            Home::Lasting { folder, .. } => (folder.to_owned(), None),
        };
        let (upper, work) = match keep {
            None => (folder.join("upper"), folder.join("work")),
            Some(keep) => {
                directory(keep, 0o755).with_context(|| format!("--keep {}", keep.display()))?;
                let upper = keep.canonicalize()?;
                let (name, id) = (name_of(&upper), name_of(&folder));
                // The kernel wants the work directory on the same filesystem as the upper directory.
                let work = upper.with_file_name(format!(".{name}.work-{id}"));
                (upper, work)
            }
        };
        let kept_lock = keep.map(|_| Changes::keep_alone(&upper)).transpose()?;
        let changes = Changes {
            volatile: keep.is_none()
                && match home {
                    Home::Passing(_) => true,
                    Home::Lasting { volatile, .. } => volatile,
                },
            folder,
            upper,
            work,
            passing,
            _kept_lock: kept_lock,
        };
        directory(&changes.upper, 0o755)?;
        if is_empty(&changes.upper) {
            // The upper directory becomes the container's `/`. Its owner and mode are to be those of the topmost layer.
            let like = fs::metadata(topmost)?;
            chown(&changes.upper, Some(like.uid()), Some(like.gid()))?;
            fs::set_permissions(&changes.upper, like.permissions())?;
        }
        // A work directory that a crash has left may have the mark of a volatile mount, and the kernel refuses those.
        tear_down(&changes.work)?;
        directory(&changes.work, 0o755)?;
        Ok(changes)
    }

    /// Makes the folder of the container `id`, and locks it.
    fn folder_of(state: &Path, id: &str) -> Result<(PathBuf, Option<Lock>)> {
        let running = state.join("running");
        directory(&running, 0o700).with_context(|| {
            format!(
                "help: put `sudo` before the command, or name another place with --state-dir; {}",
                running.display()
            )
        })?;
        // The mount table has paths without links, and `tear_down` compares with those.
        let running = running.canonicalize()?;
        sweep(&running);
        whole::sweep(state);
        let folder = running.join(id);
        // No other user may look into a container's files, whatever their modes are.
        let make = || DirBuilder::new().mode(0o700).create(&folder);
        let lock = claim(&folder, make, || File::open(&folder), Owners::Several);
        let lock = lock.with_context(|| folder.display().to_string())?;
        Ok((folder, Some(lock)))
    }

    /// Locks the directory that `--keep` names, and removes the work directories of containers that were killed while
    /// they used it.
    fn keep_alone(upper: &Path) -> Result<Lock> {
        let Some(lock) = Lock::attempt(File::open(upper)?)? else {
            bail!("--keep {}: another container is using it", upper.display());
        };
        let work = format!(".{}.work-", name_of(upper));
        for entry in fs::read_dir(upper.parent().unwrap_or(upper))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(&work) {
                tear_down(&entry.path())?;
            }
        }
        Ok(lock)
    }

    pub(crate) fn remove(&self) -> Result<()> {
        tear_down(&self.work)?;
        match self.passing {
            Some(_) => tear_down(&self.folder),
            None => Ok(()),
        }
    }
}

impl Drop for Changes {
    /// Removes the directories on an early return, too. After [`Changes::remove`] nothing is left to do.
    fn drop(&mut self) {
        let _ = self.remove();
    }
}

/// Removes the directories that no process has locked: their programs were killed before they could remove them.
fn sweep(containers: &Path) {
    for entry in fs::read_dir(containers).into_iter().flatten().flatten() {
        if let Some(_lock) = abandoned(&entry.path()) {
            let _ = tear_down(&entry.path());
        }
    }
}

fn name_of(path: &Path) -> Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

fn directory(path: &Path, mode: u32) -> Result<()> {
    let mut builder = DirBuilder::new();
    let made = builder.recursive(true).mode(mode).create(path);
    made.with_context(|| path.display().to_string())
}

pub(crate) fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none())
}

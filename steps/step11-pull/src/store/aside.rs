//! A folder of a process's own, for what comes in one pass and is understood only at its end.

use crate::store::ImageStore;
use anyhow::{Context, Result};
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use step04_pivot_root::lock::Lock;
use step04_pivot_root::removal::remove_tree;
use step07_cgroups::cgroup::group::new_id;
use step07_cgroups::claim::abandoned;

/// A folder that is removed when this goes away. It has a lock: what a process leaves that was killed is known by a lock
/// that is free.
pub struct Aside {
    _lock: Lock,
    path: PathBuf,
}

impl Aside {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        let _ = remove_tree(&self.path);
    }
}

impl ImageStore {
    /// Makes such a folder, and removes those of processes that have died.
    ///
    /// # Errors
    /// The filesystem's.
    pub fn aside(&self) -> Result<Aside> {
        let lock = self.lock()?;
        let left = self.left_aside()?;
        let path = self.asides().join(new_id()?);
        let make = || -> Result<Aside> {
            DirBuilder::new().mode(0o700).create(&path)?;
            Ok(Aside {
                _lock: Lock::exclusive(File::open(&path)?)?,
                path: path.clone(),
            })
        };
        let made = make().with_context(|| path.display().to_string())?;
        // Nobody has to wait while much is removed: whoever finds these finds them locked.
        drop(lock);
        for (path, _lock) in left {
            remove_tree(&path)?;
        }
        Ok(made)
    }

    /// The folders of processes that have died, with their locks. The calling process has the lock of the store.
    pub(crate) fn left_aside(&self) -> Result<Vec<(PathBuf, Lock)>> {
        let entries = fs::read_dir(self.asides())?.flatten();
        let left = entries.filter_map(|entry| Some((entry.path(), abandoned(&entry.path())?)));
        Ok(left.collect())
    }

    fn asides(&self) -> PathBuf {
        self.folder.join("aside")
    }
}

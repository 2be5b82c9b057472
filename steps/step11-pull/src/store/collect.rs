//! Removing what nobody uses: images, and then the blobs and layers that belong to none.
//!
//! What is used is known from three lists: the images, the leases of processes that are about to use something, and the
//! layers of containers. All three are read while nobody can add to them. Then whatever isn't in one of them gets a name
//! that nobody looks for, which is done in a moment, and is removed when the others may go on.

use crate::Digest;
use crate::store::ImageStore;
use crate::store::names::Catalog;
use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use step04_pivot_root::lock::Lock;
use step04_pivot_root::removal::remove_tree;
use step07_cgroups::cgroup::group::new_id;
use step07_cgroups::claim::abandoned;
use step09_detach::container::store::{Inventory, Store};

/// What was removed.
#[derive(Debug, Default)]
pub struct Removed {
    /// The digests of the blobs and layers.
    pub digests: BTreeSet<Digest>,
    /// The bytes that they took.
    pub bytes: u64,
}

/// What containers use.
#[derive(Debug, Default)]
pub struct Users {
    /// The roots of layers.
    layers: BTreeSet<PathBuf>,
    /// Images, by the digests of their manifests; of each the name of a container.
    images: BTreeMap<String, String>,
}

impl Users {
    /// The name of a container that is of the image with the manifest `digest`.
    pub fn of(&self, digest: &Digest) -> Option<&str> {
        self.images.get(digest.as_str()).map(String::as_str)
    }
}

impl ImageStore {
    /// What containers use.
    ///
    /// # Errors
    /// A container whose record can't be read: nobody knows what it uses.
    fn users(&self) -> Result<Users> {
        let Inventory {
            records,
            mut broken,
        } = Store::open(&self.folders.state())?.records()?;
        if let Some(error) = broken.pop() {
            return Err(error.context("which images are in use can't be said"));
        }
        let mut users = Users::default();
        for (_, record) in records {
            users.layers.extend(record.plan.layers.image);
            if let Some(digest) = record.plan.image_digest {
                users.images.entry(digest).or_insert(record.name);
            }
        }
        Ok(users)
    }

    /// Changes the list of images by `change`, and removes what nobody uses any more.
    ///
    /// # Errors
    /// What `change` returns; then nothing is removed. The filesystem's.
    pub fn collect<T>(
        &self,
        change: impl FnOnce(&mut Catalog, &Users) -> Result<T>,
    ) -> Result<(T, Removed)> {
        self.sweep(None, change)
    }

    /// Removes those of the blobs and layers at `paths` that nobody uses, and nothing else: who has put them here has failed.
    ///
    /// # Errors
    /// As for [`ImageStore::collect`].
    pub fn withdraw(&self, paths: &BTreeSet<PathBuf>) -> Result<()> {
        self.sweep(Some(paths), |_, _| Ok(())).map(drop)
    }

    /// Changes the list of images, and removes what nobody uses; where `among` is given, only what is there, too.
    fn sweep<T>(
        &self,
        among: Option<&BTreeSet<PathBuf>>,
        change: impl FnOnce(&mut Catalog, &Users) -> Result<T>,
    ) -> Result<(T, Removed)> {
        let is_spared = |path: &Path| among.is_some_and(|among| !among.contains(path));
        let lock = self.lock()?;
        let users = self.users()?;
        let (changed, mut used) = self.change_locked(|catalog| {
            let changed = change(catalog, &users)?;
            let parts = catalog.images.values().flat_map(|entry| entry.parts.iter());
            let digests = catalog.images.keys().chain(parts).cloned();
            Ok((changed, digests.collect::<BTreeSet<Digest>>()))
        })?;
        let leased = self.leased()?;
        used.extend(leased.iter().cloned());
        let mut removed = Removed::default();
        let mut aside = match among {
            None => self.left_aside()?,
            Some(_) => Vec::new(),
        };
        for entry in fs::read_dir(self.blobs())?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let digest = digest_of(name.trim_end_matches(".part"));
            // What isn't whole is nobody's, unless somebody is at work on it.
            let wanted = if name.ends_with(".part") {
                &leased
            } else {
                &used
            };
            let is_wanted = digest
                .as_ref()
                .is_some_and(|digest| wanted.contains(digest));
            if is_wanted || is_spared(&entry.path()) {
                continue;
            }
            // Somebody may be at work on a part: its lock is a proof, too. It is held until the part is gone.
            let part = name.ends_with(".part");
            let lock = part.then(|| abandoned(&entry.path())).flatten();
            if part && lock.is_none() {
                continue;
            }
            removed.bytes += entry.metadata().map_or(0, |found| found.len());
            removed.digests.extend(digest);
            fs::remove_file(entry.path()).with_context(|| entry.path().display().to_string())?;
        }
        for entry in fs::read_dir(self.layers())?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_spared(&entry.path()) {
                continue;
            }
            if name.starts_with(".old-") {
                // A crash has left it, unless somebody is removing it just now.
                aside.extend(abandoned(&entry.path()).map(|lock| (entry.path(), lock)));
                continue;
            }
            if let Some(digits) = name.strip_prefix(".new-") {
                let digest = digest_of(&format!("sha256-{digits}"));
                if digest.is_some_and(|digest| leased.contains(&digest)) {
                    continue;
                }
                if let Some(lock) = abandoned(&entry.path()) {
                    aside.push((self.put_aside(&entry.path())?, lock));
                }
                continue;
            }
            let digest = digest_of(&name);
            let root = entry.path().join("root");
            if users.layers.contains(&root)
                || digest.as_ref().is_some_and(|digest| used.contains(digest))
            {
                continue;
            }
            removed.bytes += digest
                .as_ref()
                .and_then(|digest| self.layer_size(digest))
                .unwrap_or(0);
            removed.digests.extend(digest);
            let path = self.put_aside(&entry.path())?;
            let lock = Lock::exclusive(File::open(&path)?)?;
            aside.push((path, lock));
        }
        drop(lock);
        let mut failed = None;
        for (path, _lock) in aside {
            if let Err(error) = remove_tree(&path) {
                // One that fails doesn't keep the others.
                failed.get_or_insert(error);
            }
        }
        match failed {
            None => Ok((changed, removed)),
            Some(error) => Err(error),
        }
    }

    /// Takes a folder's name from it, and returns what it is called now.
    fn put_aside(&self, path: &Path) -> Result<PathBuf> {
        let aside = self.layers().join(format!(".old-{}", new_id()?));
        fs::rename(path, &aside).with_context(|| path.display().to_string())?;
        Ok(aside)
    }
}

/// The digest that the name of a file stands for.
fn digest_of(name: &str) -> Option<Digest> {
    name.replacen('-', ":", 1).parse().ok()
}

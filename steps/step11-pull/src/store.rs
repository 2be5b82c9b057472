//! Where images are kept:
//!
//! ```text
//! /var/lib/ten-steps/registry/names.json               which image has which name
//! /var/lib/ten-steps/registry/blobs/sha256-DIGEST      what registries have sent
//! /var/lib/ten-steps/registry/layers/sha256-CHAINID    what was unpacked: root, and size
//! /var/lib/ten-steps/registry/leases/ID                what somebody is about to use
//! /var/lib/ten-steps/registry/aside/ID                 what an archive of images holds, while it is read
//! ```
//!
//! A blob or a layer appears in one go, by a rename, when all of it is verified and on the disk. What isn't whole yet is
//! called `NAME.part` or `.new-NAME`, and is locked by the process that makes it. The kernel frees the lock when that
//! process dies, and the next one goes on with what is there.

pub mod aside;
pub mod blobs;
pub mod collect;
pub mod lease;
pub mod names;

use crate::Digest;
use anyhow::{Context, Result};
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use step04_pivot_root::lock::Lock;
use step04_pivot_root::state::StateDir;
use step09_detach::container::folders::Folders;

/// The images of a state folder.
#[derive(Debug, Clone)]
pub struct ImageStore {
    /// The folders of the containers, which may be of these images.
    pub(crate) folders: Folders,
    folder: PathBuf,
}

impl ImageStore {
    /// Opens the images of `state`, and makes their folders where there are none.
    ///
    /// # Errors
    /// The calling process isn't root.
    pub fn open(state: &StateDir) -> Result<ImageStore> {
        let folders = Folders::open(state)?;
        let folder = folders.state.join("registry");
        for part in ["blobs", "layers", "leases", "aside"] {
            let part = folder.join(part);
            // An image may hold a stranger's setuid programs: only root may reach them.
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&part);
            made.with_context(|| part.display().to_string())?;
        }
        Ok(ImageStore { folders, folder })
    }

    /// The blob that has the digest, which need not be there.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.file_name())
    }

    fn blobs(&self) -> PathBuf {
        self.folder.join("blobs")
    }

    /// The folder of an unpacked layer, which need not be there.
    pub fn layer(&self, chain_id: &Digest) -> PathBuf {
        self.layers().join(chain_id.file_name())
    }

    /// The root of an unpacked layer.
    pub fn layer_root(&self, chain_id: &Digest) -> PathBuf {
        self.layer(chain_id).join("root")
    }

    /// The size of an unpacked layer's archive in bytes.
    pub fn layer_size(&self, chain_id: &Digest) -> Option<u64> {
        let text = fs::read_to_string(self.layer(chain_id).join("size")).ok()?;
        text.trim().parse().ok()
    }

    fn layers(&self) -> PathBuf {
        self.folder.join("layers")
    }

    fn leases(&self) -> PathBuf {
        self.folder.join("leases")
    }

    fn names_path(&self) -> PathBuf {
        self.folder.join("names.json")
    }

    /// Waits until nobody else changes names or removes what isn't used, and keeps others from both.
    fn lock(&self) -> Result<Lock> {
        Ok(Lock::exclusive(self.open_self()?)?)
    }

    /// Waits until nobody removes what isn't used, and keeps others from it.
    fn keep(&self) -> Result<Lock> {
        Ok(Lock::shared(self.open_self()?)?)
    }

    fn open_self(&self) -> Result<File> {
        File::open(&self.folder).with_context(|| self.folder.display().to_string())
    }
}

/// Waits until the calling process alone makes the file `aside`, which `open` opens or makes, and which gets the name
/// `path` when it is whole. `None`: somebody else has made it meanwhile.
pub(crate) fn make_alone(
    path: &Path,
    aside: &Path,
    open: impl Fn() -> io::Result<File>,
) -> Result<Option<Lock>> {
    loop {
        if path.exists() {
            return Ok(None);
        }
        let file = match open() {
            // Somebody who tidies up has removed it between its making and its opening.
            Err(error)
                if error.kind() == ErrorKind::NotFound
                    && aside.parent().is_some_and(Path::exists) =>
            {
                continue;
            }
            file => file.with_context(|| aside.display().to_string())?,
        };
        let lock = Lock::exclusive(file)?;
        // The file may have got its name while we waited, or may have been removed.
        if lock.is_of(aside) && !path.exists() {
            return Ok(Some(lock));
        }
    }
}

//! Blobs: what registries send, by digests.

use crate::manifest::parts::{Image, LONGEST, configuration};
use crate::store::{ImageStore, make_alone};
use crate::{Digest, Verified};
use anyhow::{Context, Result, bail};
use nix::unistd::syncfs;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use step04_pivot_root::lock::Lock;
use step04_pivot_root::removal::remove_tree;
use step08_overlay::image::archive::empty_root;

/// A blob that isn't whole yet. The calling process alone writes to it.
pub struct Part {
    /// The file, which is locked.
    pub file: Lock,
    aside: PathBuf,
    path: PathBuf,
}

impl Part {
    /// How many bytes there are.
    ///
    /// # Errors
    /// The filesystem's.
    pub fn kept(&self) -> Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Makes this the blob. Its bytes are verified.
    ///
    /// # Errors
    /// The filesystem's.
    pub fn appear(self) -> Result<()> {
        self.file.sync_data()?;
        fs::rename(&self.aside, &self.path).with_context(|| self.path.display().to_string())
    }

    /// Makes the file `whole` the blob, whose bytes are verified and which is in the store's folder.
    ///
    /// # Errors
    /// The filesystem's.
    pub fn becomes(self, whole: &Path) -> Result<()> {
        File::open(whole)?.sync_data()?;
        fs::rename(whole, &self.path).with_context(|| self.path.display().to_string())?;
        self.discard()
    }

    /// Throws it away.
    ///
    /// # Errors
    /// The filesystem's.
    pub fn discard(self) -> Result<()> {
        fs::remove_file(&self.aside).with_context(|| self.aside.display().to_string())
    }
}

impl ImageStore {
    /// Begins the blob with `digest`, or goes on with it; `None`: it is there. Waits while another process gets it.
    ///
    /// # Errors
    /// The filesystem's.
    pub fn begin(&self, digest: &Digest) -> Result<Option<Part>> {
        let path = self.blob(digest);
        let aside = path.with_extension("part");
        let open = || {
            let mut options = File::options();
            options.create(true).read(true).append(true).open(&aside)
        };
        let file = make_alone(&path, &aside, open)?;
        Ok(file.map(|file| Part { file, aside, path }))
    }

    /// Keeps a small blob whose `bytes` are verified.
    ///
    /// # Errors
    /// The filesystem's.
    pub fn put(&self, bytes: &[u8]) -> Result<()> {
        let Some(part) = self.begin(&Digest::of(bytes))? else {
            return Ok(());
        };
        part.file.set_len(0)?;
        (&*part.file).write_all(bytes)?;
        part.appear()
    }

    /// The bytes of a small blob, if it is there.
    ///
    /// # Errors
    /// The disk has changed it; it is no small blob.
    pub fn get(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        let path = self.blob(digest);
        let file = match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            file => file.with_context(|| path.display().to_string())?,
        };
        if file.metadata()?.len() > LONGEST {
            // That is a layer, and nobody's manifest.
            return Ok(None);
        }
        let mut bytes = Vec::new();
        let read =
            Verified::new(file.take(LONGEST + 1), digest.clone(), None).read_to_end(&mut bytes);
        read.with_context(|| {
            format!(
                "{}\nhelp: remove this file, and pull the image again",
                path.display()
            )
        })?;
        Ok(Some(bytes))
    }

    /// The image that has the manifest `digest`.
    ///
    /// # Errors
    /// It isn't there, or the disk has changed it.
    pub fn image(&self, digest: &Digest) -> Result<Image> {
        let lost = || {
            format!(
                "a part of the image {} is gone: pull it again",
                digest.short()
            )
        };
        let manifest = self.get(digest)?.with_context(lost)?;
        let config = configuration(&serde_json::from_slice(&manifest)?)?;
        let config = self.get(&config.digest)?.with_context(lost)?;
        Image::read(&manifest, &config)
    }

    /// Whether all layers of `image` are there.
    pub fn has_layers(&self, image: &Image) -> bool {
        image
            .layers
            .iter()
            .all(|layer| self.layer(&layer.chain_id).exists())
    }

    /// Where the blobs and the layers of `parts` will be that aren't there yet. A layer's archive may have the digest that
    /// stands for the layer.
    pub fn missing(&self, parts: &[Digest]) -> BTreeSet<PathBuf> {
        let parts = parts.iter();
        let paths = parts.flat_map(|part| [self.blob(part), self.layer(part)]);
        paths.filter(|path| !path.exists()).collect()
    }

    /// The bytes of an image's layers, unpacked.
    pub fn size(&self, image: &Image) -> u64 {
        let sizes = image.layers.iter();
        sizes
            .filter_map(|layer| self.layer_size(&layer.chain_id))
            .sum()
    }

    /// Begins the layer with `chain_id`; `None`: it is there. Waits while another process makes it.
    ///
    /// # Errors
    /// The filesystem's.
    pub fn begin_layer(&self, chain_id: &Digest) -> Result<Option<NewLayer>> {
        let path = self.layer(chain_id);
        let aside = self.layers().join(format!(".new-{}", chain_id.digits()));
        let open = || match fs::create_dir(&aside) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
            _ => File::open(&aside),
        };
        let lock = make_alone(&path, &aside, open)?;
        if lock.is_none() {
            // The directory was made for nothing.
            let _ = fs::remove_dir(&aside);
        }
        Ok(lock.map(|_lock| NewLayer { _lock, aside, path }))
    }
}

/// A layer that isn't whole yet. The calling process alone makes it.
pub struct NewLayer {
    _lock: Lock,
    aside: PathBuf,
    path: PathBuf,
}

impl NewLayer {
    /// The empty directory into which the layer is unpacked. What a crash has left there is removed.
    ///
    /// # Errors
    /// The filesystem's.
    pub fn root(&self) -> Result<PathBuf> {
        let root = self.aside.join("root");
        remove_tree(&root)?;
        empty_root(&root).with_context(|| root.display().to_string())?;
        Ok(root)
    }

    /// A directory on which something can be mounted.
    ///
    /// # Errors
    /// The filesystem's.
    pub fn below(&self) -> Result<PathBuf> {
        let below = self.aside.join("below");
        match fs::create_dir(&below) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                bail!("{}: {error}", below.display())
            }
            _ => Ok(below),
        }
    }

    /// Makes this the layer. All of it is verified, and is on the disk before it has its name. `size`: of its archive, in
    /// bytes.
    ///
    /// # Errors
    /// The filesystem's.
    pub fn appear(self, size: u64) -> Result<()> {
        let _ = fs::remove_dir(self.aside.join("below"));
        fs::write(self.aside.join("size"), size.to_string())?;
        syncfs(File::open(&self.aside)?)?;
        fs::rename(&self.aside, &self.path).with_context(|| self.path.display().to_string())
    }

    /// Throws it away.
    ///
    /// # Errors
    /// The filesystem's.
    pub fn discard(self) -> Result<()> {
        remove_tree(&self.aside)
    }
}

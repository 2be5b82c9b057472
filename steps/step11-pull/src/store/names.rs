//! Which image has which name.

use crate::Digest;
use crate::manifest::parts::Image;
use crate::registry::name::{ImageName, ImageVersion};
use crate::store::ImageStore;
use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use step09_detach::save;

/// The form that the names are written in today.
const VERSION: u32 = 1;

/// All images, and their names.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalog {
    version: u32,
    /// The images, by the digests of their manifests.
    pub images: BTreeMap<Digest, CatalogEntry>,
    /// The images that have a name with a tag, by these.
    pub names: BTreeMap<String, Digest>,
}

/// An image.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogEntry {
    /// Its ID: the digest of its configuration.
    pub id: Digest,
    /// The names with digests under which registries have given it to us.
    pub digests: BTreeSet<String>,
    /// The blobs and layers that it consists of.
    pub parts: BTreeSet<Digest>,
}

impl Default for Catalog {
    fn default() -> Catalog {
        Catalog {
            version: VERSION,
            images: BTreeMap::new(),
            names: BTreeMap::new(),
        }
    }
}

impl Catalog {
    /// The entry of `image`, which is made if need be and keeps `parts`.
    pub fn enter(&mut self, image: &Image, parts: &[Digest]) -> &mut CatalogEntry {
        let entry = self.images.entry(image.manifest.clone());
        let entry = entry.or_insert_with(|| CatalogEntry {
            id: image.id.clone(),
            digests: BTreeSet::new(),
            parts: BTreeSet::new(),
        });
        entry.parts.extend(parts.iter().cloned());
        entry
    }

    /// The names that the image with the manifest `digest` has.
    pub fn names_of(&self, digest: &Digest) -> Vec<&str> {
        let names = self.names.iter();
        names
            .filter(|(_, of)| *of == digest)
            .map(|(name, _)| name.as_str())
            .collect()
    }

    /// The image that has exactly the name.
    pub fn named(&self, name: &ImageName) -> Option<&Digest> {
        match name.version {
            ImageVersion::Tag(_) => self.names.get(&name.to_string()),
            ImageVersion::Digest(_) => {
                let text = name.to_string();
                let mut images = self.images.iter();
                images
                    .find(|(_, entry)| entry.digests.contains(&text))
                    .map(|(digest, _)| digest)
            }
        }
    }

    /// The image that `text` means: a name, its ID, or the first digits of that.
    ///
    /// # Errors
    /// There is none, or there are several.
    pub fn find(&self, text: &str) -> Result<&Digest> {
        match (self.search(text)?, text.parse::<ImageName>()) {
            (Some(found), _) => Ok(found),
            (None, Ok(_)) => Err(anyhow!(
                "no such image: {text}\nhelp: `images` lists them, `pull {text}` gets it"
            )),
            (None, Err(error)) => Err(error),
        }
    }

    /// The same; `None`: there is none.
    ///
    /// # Errors
    /// There are several.
    pub fn search(&self, text: &str) -> Result<Option<&Digest>> {
        let name = text.parse::<ImageName>().ok();
        if let Some(found) = name.and_then(|name| self.named(&name)) {
            return Ok(Some(found));
        }
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let is_id = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let begins = |digest: &Digest| is_id && digest.digits().starts_with(digits);
        let images = self.images.iter();
        let found: Vec<&Digest> = images
            .filter(|(digest, entry)| begins(&entry.id) || begins(digest))
            .map(|(digest, _)| digest)
            .collect();
        // Two manifests may have one configuration, and so one ID: they are the same image in other archives.
        let is_one = found
            .iter()
            .all(|digest| self.images[*digest].id == self.images[found[0]].id);
        match found[..] {
            [_, _, ..] if !is_one => bail!(
                "{text}: {} images begin so\nhelp: type more of the ID",
                found.len()
            ),
            _ => Ok(found.first().copied()),
        }
    }
}

impl ImageStore {
    /// All images and their names, as they are now.
    ///
    /// # Errors
    /// The list makes no sense: a disk, or a hand, has changed it; or a newer program has written it.
    pub fn catalog(&self) -> Result<Catalog> {
        let path = self.names_path();
        let text = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Catalog::default()),
            text => text.with_context(|| path.display().to_string())?,
        };
        #[derive(Deserialize)]
        struct Form {
            version: u32,
        }
        let read = || -> Result<Catalog> {
            let form: Form = serde_json::from_slice(&text)?;
            if form.version > VERSION {
                bail!(
                    "it is of version {}, and this program knows up to {VERSION}\nhelp: take the program that wrote it",
                    form.version
                );
            }
            Ok(serde_json::from_slice(&text)?)
        };
        read().with_context(|| {
            format!(
                "{}, the list of images\nhelp: without this file there are no names; what was pulled is kept, and `pull` \
                 finds it there",
                path.display()
            )
        })
    }

    /// Changes the list. Nobody else does so meanwhile.
    ///
    /// # Errors
    /// What `change` returns; then nothing is changed. The filesystem's.
    pub fn change<T>(&self, change: impl FnOnce(&mut Catalog) -> Result<T>) -> Result<T> {
        let _lock = self.lock()?;
        self.change_locked(change)
    }

    /// The same for who has the lock.
    pub(crate) fn change_locked<T>(
        &self,
        change: impl FnOnce(&mut Catalog) -> Result<T>,
    ) -> Result<T> {
        let mut catalog = self.catalog()?;
        let changed = change(&mut catalog)?;
        save(
            &self.names_path(),
            &serde_json::to_vec_pretty(&catalog)?,
            true,
        )?;
        Ok(changed)
    }
}

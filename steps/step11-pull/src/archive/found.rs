//! The images that an archive has, and their names.

use crate::registry::name::{ImageName, ImageVersion};
use anyhow::{Result, bail};

/// The most images of an archive: what describes them is in memory until all are there.
const MOST_IMAGES: usize = 1000;

/// An image in an archive.
pub struct Found {
    /// Its manifest, or an index of its manifests.
    pub first: Vec<u8>,
    /// The names that it is to have.
    pub names: Vec<ImageName>,
}

/// The name that an archive has for an image; `None`: one that nobody gives, since it says a digest.
///
/// # Errors
/// No image can be called so.
pub fn name(text: &str) -> Result<Option<ImageName>> {
    let name: ImageName = text.parse()?;
    Ok(matches!(name.version, ImageVersion::Tag(_)).then_some(name))
}

/// Fails if an archive has more images than it may.
///
/// # Errors
/// `count` are too many.
pub fn few(count: usize) -> Result<()> {
    match count > MOST_IMAGES {
        true => bail!("it has {count} images, and may have {MOST_IMAGES}"),
        false => Ok(()),
    }
}

//! The one image that is meant, with the texts that describe it.

use crate::Digest;
use crate::manifest::index::{Kind, choose, kind};
use crate::manifest::parts::{Image, LONGEST, Named, configuration};
use crate::manifest::platform::TargetPlatform;
use anyhow::{Context, Error, Result, anyhow, bail};

/// What a text is, that is named by its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text {
    /// The manifest of an image.
    Manifest,
    /// The configuration of an image.
    Configuration,
}

/// An image, and the texts that describe it.
pub struct Chosen {
    /// The image.
    pub image: Image,
    /// The digest of what the name means: the image's manifest, or an index.
    pub digest: Digest,
    /// What is to be said of it: that it is for another machine.
    pub remark: Option<String>,
    /// Its index where there is one, its manifest and its configuration.
    pub texts: Vec<Vec<u8>>,
}

impl Chosen {
    /// The image that `first` describes, a manifest or an index, for the machine `wish` or else for this one. `get` gets
    /// the other texts.
    ///
    /// # Errors
    /// There is none for that machine; a text that makes no sense; those of `get`.
    pub fn of(
        first: Vec<u8>,
        wish: Option<&TargetPlatform>,
        get: impl Fn(Text, &Named) -> Result<Vec<u8>>,
    ) -> Result<Chosen> {
        let here = wish.cloned().unwrap_or_else(TargetPlatform::here);
        let digest = Digest::of(&first);
        let (index, manifest) = match kind(&first)? {
            Kind::Image => (None, first),
            Kind::Index(index) => {
                let chosen = choose(&index, &here)?;
                (Some(first), get(Text::Manifest, &chosen)?)
            }
        };
        if let Kind::Index(_) = kind(&manifest)? {
            bail!("its index names an index in the place of an image");
        }
        let config = configuration(&serde_json::from_slice(&manifest).context("its manifest")?)?;
        let config = get(Text::Configuration, &config)?;
        let image = Image::read(&manifest, &config)?;
        let remark = match index.is_some() {
            // An index has said what the image is for.
            true => None,
            false => fits(&image, wish, &here)?,
        };
        Ok(Chosen {
            image,
            digest,
            remark,
            texts: index.into_iter().chain([manifest, config]).collect(),
        })
    }

    /// All that is to be kept of it: its blobs and its layers.
    pub fn parts(&self) -> Vec<Digest> {
        let mut parts = self.image.blobs_and_layers();
        parts.push(self.digest.clone());
        parts
    }
}

/// Looks whether the image is for the machine that was asked for, or else for this one, and returns what to say of it.
fn fits(
    image: &Image,
    wish: Option<&TargetPlatform>,
    here: &TargetPlatform,
) -> Result<Option<String>> {
    let is = image.platform();
    match (is.serves(here), wish) {
        (Some(_), _) => Ok(None),
        (None, Some(wish)) => bail!("the image is for {is}, and there is none for {wish}"),
        (None, None) if is.os != "linux" => {
            bail!("the image is for {is}, and containers here run Linux")
        }
        (None, None) => Ok(Some(format!(
            "the image is for {is}, and this machine is {here}: its programs may not run"
        ))),
    }
}

impl Text {
    /// How an error calls it.
    pub fn name(self) -> &'static str {
        match self {
            Text::Manifest => "its manifest",
            Text::Configuration => "its configuration",
        }
    }
}

/// The error of a text that has more than [`LONGEST`] bytes.
pub fn too_long() -> Error {
    anyhow!(
        "it has more than {} MiB, and no honest one has",
        LONGEST >> 20
    )
}

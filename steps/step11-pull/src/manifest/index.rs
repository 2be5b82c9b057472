//! Which of several images is meant: an index names one for each platform.

use crate::manifest::parts::{Named, docker};
use crate::manifest::platform::TargetPlatform;
use anyhow::{Context, Result, bail};
use oci_spec::image::{Descriptor, ImageIndex, MediaType, Os, Platform};
use serde::Deserialize;
use step01_uts::program::visible;

/// What the bytes of a manifest are.
#[derive(Debug)]
pub enum Kind {
    /// One image.
    Image,
    /// Several images, of which one is chosen.
    Index(Box<ImageIndex>),
}

/// The media types that are asked for.
pub const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// As much of a manifest as tells what it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline {
    schema_version: Option<u32>,
    media_type: Option<String>,
    manifests: Option<serde_json::Value>,
    layers: Option<serde_json::Value>,
    #[serde(rename = "fsLayers")]
    fs_layers: Option<serde_json::Value>,
}

/// What `manifest` is. The text itself decides, and not what the server calls it.
///
/// # Errors
/// It is neither an image nor an index.
pub fn kind(manifest: &[u8]) -> Result<Kind> {
    let outline: Outline = serde_json::from_slice(manifest).context("its manifest")?;
    if outline.fs_layers.is_some() || outline.schema_version == Some(1) {
        bail!(
            "its manifest is of schema 1, in which nothing says what the layers are\nhelp: whoever has made the image \
             has to push it anew, with a program of this decade"
        );
    }
    match (outline.manifests, outline.layers, outline.media_type) {
        (Some(_), Some(_), _) => bail!("its manifest is an image and an index at once"),
        (Some(_), None, None) => {}
        (Some(_), None, Some(kind)) if is_index(&kind) => {}
        (None, Some(_), None) => return Ok(Kind::Image),
        (None, Some(_), Some(kind)) if is_image(&kind) => return Ok(Kind::Image),
        (_, _, Some(kind)) => bail!("it is no image, but {:?}", visible(&kind)),
        (None, None, None) => {
            bail!("its manifest says neither which layers it has nor which images")
        }
    }
    let index = serde_json::from_slice(manifest).context("its index")?;
    Ok(Kind::Index(Box::new(index)))
}

fn is_index(kind: &str) -> bool {
    kind == MediaType::ImageIndex.as_ref() || kind == docker("manifest.list.v2+json")
}

fn is_image(kind: &str) -> bool {
    kind == MediaType::ImageManifest.as_ref() || kind == docker("manifest.v2+json")
}

/// Whether an entry of an index is an image, or an index of images.
pub fn is_manifest(entry: &Descriptor) -> bool {
    let kind = entry.media_type().as_ref();
    let is_known = |platform: &Platform| platform.os() != &Os::from("unknown");
    (is_image(kind) || is_index(kind))
        && entry.artifact_type().is_none()
        && entry.platform().as_ref().is_none_or(is_known)
}

/// The image of `index` that serves a machine that is `wanted` best; the first of several that do so alike.
///
/// # Errors
/// There is none; what there is is named.
pub fn choose(index: &ImageIndex, wanted: &TargetPlatform) -> Result<Named> {
    let images = index
        .manifests()
        .iter()
        .filter_map(|entry| Some((platform(entry)?, entry)));
    let mut best: Option<(u32, &Descriptor)> = None;
    let mut others = Vec::new();
    for (platform, entry) in images {
        match platform.serves(wanted) {
            Some(level) if best.is_none_or(|(before, _)| level > before) => {
                best = Some((level, entry))
            }
            Some(_) => {}
            None => others.push(platform.to_string()),
        }
    }
    match (best, &others[..]) {
        (Some((_, entry)), _) => Named::of(entry, "a manifest"),
        (None, []) => bail!("none of what its index names is an image"),
        (None, others) => {
            let some: Vec<String> = others.iter().take(20).map(|other| visible(other)).collect();
            bail!(
                "there is no image for {wanted}: there is one for {}\nhelp: --platform takes one of these",
                some.join(", ")
            )
        }
    }
}

/// The platform of an entry that is an image. Signatures and proofs of where an image comes from stand in an index, too,
/// for a platform that is called unknown.
fn platform(entry: &Descriptor) -> Option<TargetPlatform> {
    let kind = entry.media_type().as_ref();
    let platform = entry.platform().as_ref()?;
    let platform = TargetPlatform::of(
        platform.os(),
        platform.architecture(),
        platform.variant().as_deref(),
    );
    let is_known = platform.os != "unknown" && platform.architecture != "unknown";
    (is_image(kind) && entry.artifact_type().is_none() && is_known).then_some(platform)
}

//! What `docker save` writes: manifest.json says which file is an image's configuration, and which are its layers.
//!
//! Nothing in it has a manifest as registries have it. So one is made here, of the digests that the files have.

use crate::archive::found::{Found, few, name};
use crate::archive::kept::{KeptArchive, KeptFile};
use crate::manifest::parts::Named;
use anyhow::{Context, Result, bail};
use oci_spec::image::MediaType;
use serde::Deserialize;
use serde_json::{Value, json};
use step08_overlay::layers::MOST_LAYERS;

/// The file that says what there is.
pub const MANIFEST: &str = "manifest.json";

/// An image, as that file has it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// The images of `archive`.
///
/// # Errors
/// A text that makes no sense; a file that isn't there; a name that no image has.
pub fn images(archive: &KeptArchive) -> Result<Vec<Found>> {
    let read = || -> Result<Vec<Saved>> {
        let text = archive.text(archive.find(MANIFEST)?)?;
        Ok(serde_json::from_slice(&text)?)
    };
    let all = read().context(MANIFEST)?;
    few(all.len())?;
    all.iter().map(|saved| image(archive, saved)).collect()
}

fn image(archive: &KeptArchive, saved: &Saved) -> Result<Found> {
    let config = archive.find(&saved.config).context("its configuration")?;
    if saved.layers.len() > MOST_LAYERS {
        bail!(
            "it has {} layers, and may have {MOST_LAYERS}",
            saved.layers.len()
        );
    }
    let layers: Result<Vec<Value>> = saved
        .layers
        .iter()
        .map(|layer| {
            let file = archive.find(layer).context("a layer")?;
            Ok(descriptor(&kind(file)?, &file.named))
        })
        .collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::ImageManifest.as_ref(),
        "config": descriptor(MediaType::ImageConfig.as_ref(), &config.named),
        "layers": layers?,
    });
    let tags = saved.repo_tags.iter().flatten();
    let names: Result<Vec<_>> = tags.map(|tag| name(tag)).collect();
    Ok(Found {
        first: serde_json::to_vec(&manifest)?,
        names: names?.into_iter().flatten().collect(),
    })
}

fn descriptor(kind: &str, named: &Named) -> Value {
    json!({"mediaType": kind, "digest": named.digest, "size": named.size})
}

/// The media type of a layer. Docker doesn't compress them; others do.
fn kind(file: &KeptFile) -> Result<String> {
    let plain = MediaType::ImageLayer;
    Ok(match file.compression()? {
        Some(how) => format!("{plain}+{how}"),
        None => plain.to_string(),
    })
}

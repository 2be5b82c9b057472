//! An image layout: index.json names manifests by their digests, and the folder blobs has all that is named so. See *Image
//! Layout* in the OCI image specification.

use crate::Digest;
use crate::archive::found::{Found, few, name};
use crate::archive::kept::KeptArchive;
use crate::manifest::index::{Kind, choose, is_manifest, kind};
use crate::manifest::parts::Named;
use crate::manifest::platform::TargetPlatform;
use crate::registry::name::ImageName;
use anyhow::{Context, Result, bail};
use oci_spec::image::{Descriptor, ImageIndex, ImageIndexBuilder};
use serde::Deserialize;
use std::collections::{BTreeMap, HashSet};
use step01_uts::program::visible;

/// The file that says that this is a layout.
pub const LAYOUT: &str = "oci-layout";

/// The file that says what there is.
const INDEX: &str = "index.json";

/// How the names of images are noted: by containerd and Docker, and by the specification.
const FULL_NAME: &str = "io.containerd.image.name";
const SHORT_NAME: &str = "org.opencontainers.image.ref.name";

/// The first of the two files.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layout {
    image_layout_version: String,
}

/// The images of `archive`. Where several have one name, or none, and each is for another platform, the one for a machine
/// that is `wanted` is meant.
///
/// # Errors
/// A text that makes no sense; a file that isn't there; no image at all.
pub fn images(archive: &KeptArchive, wanted: &TargetPlatform) -> Result<Vec<Found>> {
    version(archive).context(LAYOUT)?;
    let index = index(archive).context(INDEX)?;
    let meant = meant(&index, wanted)?.into_iter();
    let found = meant.map(|(named, names)| {
        let first = archive.named(&named, "its manifest")?;
        Ok(Found { first, names })
    });
    found.collect()
}

/// What `index` means: manifests and indexes, each with all of its names.
fn meant(index: &ImageIndex, wanted: &TargetPlatform) -> Result<Vec<(Named, Vec<ImageName>)>> {
    let mut meant: Vec<(Named, Vec<ImageName>)> = Vec::new();
    let mut known: BTreeMap<Digest, usize> = BTreeMap::new();
    for (name, entries) in by_name(index)? {
        let name = name.map(|name| name.parse()).transpose()?;
        for named in one_of(entries, wanted)? {
            let at = *known.entry(named.digest.clone()).or_insert(meant.len());
            if at == meant.len() {
                meant.push((named, Vec::new()));
            }
            meant[at].1.extend(name.clone());
        }
    }
    Ok(meant)
}

/// The entries of `index` that are images, by their names.
fn by_name(index: &ImageIndex) -> Result<BTreeMap<Option<String>, Vec<Descriptor>>> {
    let mut groups: BTreeMap<Option<String>, Vec<Descriptor>> = BTreeMap::new();
    for entry in index.manifests().iter().filter(|entry| is_manifest(entry)) {
        let name = name_of(entry)?.map(|name| name.to_string());
        groups.entry(name).or_default().push(entry.clone());
    }
    match groups.is_empty() {
        true => bail!("none of what its {INDEX} names is an image"),
        false => Ok(groups),
    }
}

fn version(archive: &KeptArchive) -> Result<()> {
    let layout: Layout = serde_json::from_slice(&archive.text(archive.find(LAYOUT)?)?)?;
    match layout.image_layout_version.starts_with("1.") {
        true => Ok(()),
        false => bail!(
            "it is of version {:?}, and this program knows 1",
            visible(&layout.image_layout_version)
        ),
    }
}

fn index(archive: &KeptArchive) -> Result<Box<ImageIndex>> {
    match kind(&archive.text(archive.find(INDEX)?)?)? {
        Kind::Index(index) => few(index.manifests().len()).map(|()| index),
        Kind::Image => bail!("it is the manifest of an image, and no index"),
    }
}

/// The name of an entry. A short one may be a name of the layout's own, which no image can have.
fn name_of(entry: &Descriptor) -> Result<Option<ImageName>> {
    let noted = entry.annotations().as_ref();
    let noted = |key: &str| noted.and_then(|noted| noted.get(key));
    match (noted(FULL_NAME), noted(SHORT_NAME)) {
        (Some(full), _) => name(full),
        (None, Some(short)) => Ok(name(short).ok().flatten()),
        (None, None) => Ok(None),
    }
}

/// What `entries` stand for, which have one name: one image for each of several platforms, of which one is chosen, or
/// else one image each.
fn one_of(entries: Vec<Descriptor>, wanted: &TargetPlatform) -> Result<Vec<Named>> {
    let platforms = entries.iter().filter_map(|entry| entry.platform().as_ref());
    let platforms: HashSet<String> = platforms
        .map(|of| {
            TargetPlatform::of(of.os(), of.architecture(), of.variant().as_deref()).to_string()
        })
        .collect();
    if entries.len() > 1 && platforms.len() == entries.len() {
        let group = ImageIndexBuilder::default().schema_version(2_u32);
        return Ok(vec![choose(&group.manifests(entries).build()?, wanted)?]);
    }
    let all = entries.iter().map(|entry| Named::of(entry, "a manifest"));
    all.collect()
}

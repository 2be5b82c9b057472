//! What an image consists of: its configuration, and its layers.

use crate::Digest;
use crate::manifest::platform::TargetPlatform;
use anyhow::{Context, Result, bail};
use oci_spec::image::{Descriptor, ImageConfiguration, ImageManifest, MediaType};
use sha2::{Digest as _, Sha256};
use step01_uts::program::visible;
use step08_overlay::layers::MOST_LAYERS;

/// The most bytes of a manifest, an index or a configuration.
pub const LONGEST: u64 = 4 * 1024 * 1024;

/// Something in a registry that is known before it comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// What its bytes have to be.
    pub digest: Digest,
    /// How many bytes it has.
    pub size: u64,
}

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The archive in the registry, most often compressed.
    pub blob: Named,
    /// The digest of the archive without the compression.
    pub diff_id: Digest,
    /// What stands for this layer and all below it.
    pub chain_id: Digest,
}

/// An image.
#[derive(Debug, Clone)]
pub struct Image {
    /// The digest of its manifest.
    pub manifest: Digest,
    /// The configuration, whose digest is what people call the image's ID.
    pub id: Digest,
    /// What the configuration says.
    pub config: ImageConfiguration,
    /// Its layers, the lowest first.
    pub layers: Vec<Layer>,
}

impl Named {
    /// What `descriptor` stands for, which is to be `what`.
    ///
    /// # Errors
    /// A digest that we can't compare.
    pub fn of(descriptor: &Descriptor, what: &str) -> Result<Named> {
        let digest = descriptor.digest().to_string().parse::<Digest>();
        Ok(Named {
            digest: digest
                .map_err(anyhow::Error::msg)
                .context(what.to_owned())?,
            size: descriptor.size(),
        })
    }
}

/// A media type of Docker's own.
pub fn docker(kind: &str) -> String {
    format!("application/vnd.docker.distribution.{kind}")
}

/// The configuration that a manifest names.
///
/// # Errors
/// It isn't an image's.
pub fn configuration(manifest: &ImageManifest) -> Result<Named> {
    let config = manifest.config();
    let kind = config.media_type().as_ref();
    let is_image = kind == MediaType::ImageConfig.as_ref()
        || kind == "application/vnd.docker.container.image.v1+json";
    if !is_image || manifest.artifact_type().is_some() {
        let kind = manifest
            .artifact_type()
            .as_ref()
            .map_or(kind, AsRef::as_ref);
        bail!(
            "it is no image, but an artifact of the type {}\nhelp: the program that it is for can get it",
            visible(kind)
        );
    }
    let config = Named::of(config, "its configuration")?;
    if config.size > LONGEST {
        bail!(
            "its configuration has {} bytes, and may have {LONGEST}",
            config.size
        );
    }
    Ok(config)
}

impl Image {
    /// The image that the texts of a manifest and of its configuration describe.
    ///
    /// # Errors
    /// The two don't fit together; a layer that isn't in the registry, or of a kind that nobody unpacks.
    pub fn read(manifest: &[u8], config: &[u8]) -> Result<Image> {
        let digest = Digest::of(manifest);
        let manifest: ImageManifest = serde_json::from_slice(manifest).context("its manifest")?;
        let id = configuration(&manifest)?.digest;
        let config: ImageConfiguration =
            serde_json::from_slice(config).context("its configuration")?;
        let (blobs, diff_ids) = (manifest.layers(), config.rootfs().diff_ids());
        if blobs.len() != diff_ids.len() {
            bail!(
                "its manifest has {} layers, and its configuration {}",
                blobs.len(),
                diff_ids.len()
            );
        }
        if blobs.is_empty() {
            bail!("it has no layers");
        }
        if blobs.len() > MOST_LAYERS {
            bail!("it has {} layers, and may have {MOST_LAYERS}", blobs.len());
        }
        let mut layers: Vec<Layer> = Vec::new();
        for (blob, diff_id) in blobs.iter().zip(diff_ids) {
            let place = || format!("its layer {} of {}", layers.len() + 1, blobs.len());
            let blob = archive(blob).with_context(place)?;
            let diff_id = diff_id.parse::<Digest>();
            let diff_id = diff_id.map_err(anyhow::Error::msg).with_context(place)?;
            let chain_id = chain_id(layers.last().map(|below| &below.chain_id), &diff_id);
            layers.push(Layer {
                blob,
                diff_id,
                chain_id,
            });
        }
        Ok(Image {
            manifest: digest,
            id,
            config,
            layers,
        })
    }

    /// The digests of all that is kept of it: its blobs and its unpacked layers.
    pub fn blobs_and_layers(&self) -> Vec<Digest> {
        let layers = self.layers.iter();
        let of_layers = layers.flat_map(|layer| [&layer.blob.digest, &layer.chain_id]);
        let all = of_layers.chain([&self.manifest, &self.id]);
        all.cloned().collect()
    }

    /// The machine that the image is for.
    pub fn platform(&self) -> TargetPlatform {
        let config = &self.config;
        TargetPlatform::of(
            config.os(),
            config.architecture(),
            config.variant().as_deref(),
        )
    }
}

/// What stands for the layer `diff_id` upon those that `below` stands for. See *ChainID* in the OCI image specification.
fn chain_id(below: Option<&Digest>, diff_id: &Digest) -> Digest {
    match below {
        None => diff_id.clone(),
        Some(below) => Digest::finish(Sha256::new_with_prefix(format!("{below} {diff_id}"))),
    }
}

/// The archive of a layer.
fn archive(layer: &Descriptor) -> Result<Named> {
    let kind = layer.media_type().as_ref();
    let has_addresses = layer.urls().as_ref().is_some_and(|urls| !urls.is_empty());
    if kind.contains("nondistributable") || kind.contains("foreign") || has_addresses {
        bail!(
            "it is somewhere else, where whoever pulls gets it on their own\nhelp: an image without such layers is \
             pulled from one place, which can vouch for it"
        );
    }
    let oci = "application/vnd.oci.image.layer.v1.tar";
    let docker = "application/vnd.docker.image.rootfs.diff.tar";
    let end = kind.strip_prefix(oci).or_else(|| kind.strip_prefix(docker));
    match end {
        Some("" | "+gzip" | "+zstd" | ".gzip" | ".zstd") => Named::of(layer, "its archive"),
        _ => bail!(
            "it is of the type {}, which isn't unpacked here",
            visible(kind)
        ),
    }
}

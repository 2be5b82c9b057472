//! `pull`: gets images from a registry.

use crate::layer::install::Source;
use crate::layer::progress::Progress;
use crate::manifest::chosen::{Chosen, Text, too_long};
use crate::manifest::index::ACCEPTED;
use crate::manifest::parts::{Image, LONGEST, Named};
use crate::manifest::platform::TargetPlatform;
use crate::registry::account::Accounts;
use crate::registry::client::{NotThere, Registry, Request, scope};
use crate::registry::name::{ImageName, ImageVersion};
use crate::store::ImageStore;
use crate::store::lease::Lease;
use crate::{Digest, Verified};
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use std::io::Read;
use std::str::FromStr;
use step01_uts::program::explain;
use step01_uts::say;
use step04_pivot_root::state::StateDir;
use step07_cgroups::flags::bytes;
use step08_overlay::layers::IMAGE_LIMIT;

/// How images are got.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Image")]
pub struct HowToPull {
    /// The machine that the image is for: OS/ARCHITECTURE[/VARIANT] [default: this one]
    #[arg(long, value_name = "PLATFORM", value_parser = TargetPlatform::from_str)]
    pub platform: Option<TargetPlatform>,

    /// The most that a layer may unpack to, with k, m, g or t behind [default: 16g]
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub max_size: Option<u64>,

    /// Whether a registry has to prove who it is; without proof it may also speak plainly
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set,
          num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pub tls_verify: bool,
}

/// Get an image from a registry
#[derive(Debug, Args)]
pub struct Pull {
    /// NAME[:TAG] or NAME@DIGEST; a NAME without a host is Docker Hub's
    #[arg(value_name = "NAME")]
    name: String,

    /// Get all tags of NAME
    #[arg(short, long)]
    all_tags: bool,

    /// Print only the name
    #[arg(short, long)]
    quiet: bool,

    #[command(flatten)]
    how: HowToPull,

    #[command(flatten)]
    state: StateDir,
}

impl Pull {
    /// Gets the image, or all of that name.
    ///
    /// # Errors
    /// As for [`pull`].
    pub fn run(self) -> Result<u8> {
        let name: ImageName = self.name.parse()?;
        let store = ImageStore::open(&self.state)?;
        let progress = Progress::new(self.quiet);
        let registry = connect(&name, &self.how)?;
        let names = match self.all_tags {
            false => vec![name],
            true if self.name.contains('@')
                || name.version != ImageVersion::Tag("latest".into())
                || self.name.ends_with(":latest") =>
            {
                bail!("--all-tags: {} is one of them", self.name)
            }
            true => registry
                .tags(&name)
                .with_context(|| format!("the tags of {}", name.repository()))?
                .iter()
                .map(|tag| name.with_tag(tag))
                .collect(),
        };
        for name in names {
            let pulled = pull(&store, &registry, &name, &self.how, &progress)?;
            if !self.quiet {
                say(format!("Digest: {}", pulled.digest))?;
                let status = match pulled.is_new {
                    true => "Downloaded newer image for",
                    false => "Image is up to date for",
                };
                say(format!("Status: {status} {name}"))?;
            }
            say(name.to_string())?;
        }
        Ok(0)
    }
}

/// An image that was pulled, and is kept for now.
pub struct Pulled {
    /// The image.
    pub image: Image,
    /// The digest that the registry has for the name: an image's, or that of an index.
    pub digest: Digest,
    /// Whether the name meant another image before, or none.
    pub is_new: bool,
    /// What keeps it.
    pub lease: Lease,
}

/// Connects to the registry of `name`.
///
/// # Errors
/// It can't be reached, or can't prove who it is; Docker's file of accounts makes no sense.
pub fn connect(name: &ImageName, how: &HowToPull) -> Result<Registry> {
    let account = Accounts::read()?
        .find(&name.registry)
        .unwrap_or_else(|error| {
            // What is for everybody is had without an account.
            eprintln!("{}", explain(&error));
            None
        });
    Registry::connect(&name.registry, account, how.tls_verify)
}

/// Gets the image `name`, and gives it this name here.
///
/// # Errors
/// There is no such image for this machine; something comes that isn't what it has to be.
pub fn pull(
    store: &ImageStore,
    registry: &Registry,
    name: &ImageName,
    how: &HowToPull,
    progress: &Progress,
) -> Result<Pulled> {
    fetch(store, registry, name, how, progress).with_context(|| format!("pull {name}"))
}

// ANCHOR: fetch
fn fetch(
    store: &ImageStore,
    registry: &Registry,
    name: &ImageName,
    how: &HowToPull,
    progress: &Progress,
) -> Result<Pulled> {
    progress.say(&format!(
        "{}: Pulling from {}",
        version(name),
        name.repository()
    ));
    let get = Getter {
        store,
        registry,
        name,
    };
    let chosen = Chosen::of(get.manifest()?, how.platform.as_ref(), |text, named| {
        get.named(text, named)
    })?;
    chosen.remark.iter().for_each(|remark| progress.say(remark));

    // From here on nobody removes what we find, or what we put there.
    let parts = chosen.parts();
    let lease = store.lease(&parts)?;
    for text in &chosen.texts {
        store.put(text)?;
    }
    let source = Source {
        registry: Some((registry, name)),
        store,
        limit: how.max_size.unwrap_or(IMAGE_LIMIT),
        done: "Pull complete",
    };
    let Chosen { image, digest, .. } = chosen;
    source.install(&image, progress)?;
    let is_new = store.change(|catalog| {
        let with_digest = format!("{}@{digest}", name.repository());
        let was_new = catalog.enter(&image, &parts).digests.insert(with_digest);
        Ok(match &name.version {
            ImageVersion::Digest(_) => was_new,
            ImageVersion::Tag(_) => {
                let before = catalog
                    .names
                    .insert(name.to_string(), image.manifest.clone());
                before.as_ref() != Some(&image.manifest)
            }
        })
    })?;
    Ok(Pulled {
        image,
        digest,
        is_new,
        lease,
    })
}
// ANCHOR_END: fetch

fn version(name: &ImageName) -> String {
    match &name.version {
        ImageVersion::Tag(tag) => tag.clone(),
        ImageVersion::Digest(digest) => digest.to_string(),
    }
}

/// Gets small things: manifests and configurations.
struct Getter<'a> {
    store: &'a ImageStore,
    registry: &'a Registry,
    name: &'a ImageName,
}

impl Getter<'_> {
    /// The manifest, or the index, that the name means.
    fn manifest(&self) -> Result<Vec<u8>> {
        let expected = match &self.name.version {
            ImageVersion::Digest(digest) => match self.store.get(digest)? {
                Some(known) => return Ok(known),
                None => Some(digest),
            },
            ImageVersion::Tag(_) => None,
        };
        let request = Request {
            path: format!("/v2/{}/manifests/{}", self.name.path, version(self.name)),
            scope: scope(self.name),
            accept: ACCEPTED.into(),
            ..Request::default()
        };
        let read = self.registry.read(&request, |answer| {
            let said = answer.headers().get("docker-content-digest");
            let said = said.and_then(|said| said.to_str().ok()?.parse::<Digest>().ok());
            let mut bytes = Vec::new();
            let body = answer.into_body().into_reader().take(LONGEST + 1);
            let read = match expected.cloned().or(said) {
                Some(digest) => Verified::new(body, digest, None).read_to_end(&mut bytes),
                None => { body }.read_to_end(&mut bytes),
            };
            match bytes.len() as u64 > LONGEST {
                true => Err(too_long()),
                false => Ok(read.map(|_| bytes)?),
            }
        });
        read.map_err(|error| match error.is::<NotThere>() {
            true => anyhow!(
                "{} has no such image, or none with this tag ({error:#})\nhelp: look at the name and the tag",
                self.name.registry
            ),
            false => error.context("its manifest"),
        })
    }

    /// A text whose digest is known, from here or from the registry.
    fn named(&self, text: Text, named: &Named) -> Result<Vec<u8>> {
        if named.size > LONGEST {
            return Err(too_long().context(text.name()));
        }
        if let Some(known) = self.store.get(&named.digest)? {
            return Ok(known);
        }
        let (folder, accepted) = match text {
            Text::Manifest => ("manifests", ACCEPTED),
            Text::Configuration => ("blobs", "*/*"),
        };
        let request = Request {
            path: format!("/v2/{}/{folder}/{}", self.name.path, named.digest),
            scope: scope(self.name),
            accept: accepted.into(),
            ..Request::default()
        };
        let read = self.registry.read(&request, |answer| {
            let body = answer.into_body().into_reader();
            let mut bytes = Vec::new();
            let mut verified = Verified::new(body, named.digest.clone(), Some(named.size));
            verified.read_to_end(&mut bytes)?;
            Ok(bytes)
        });
        read.context(text.name())
    }
}

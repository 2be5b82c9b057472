//! `load`: takes images from an archive.

use crate::Digest;
use crate::archive::docker;
use crate::archive::found::Found;
use crate::archive::kept::KeptArchive;
use crate::archive::layout;
use crate::layer::install::Source;
use crate::layer::progress::Progress;
use crate::manifest::chosen::Chosen;
use crate::manifest::platform::TargetPlatform;
use crate::registry::name::ImageName;
use crate::store::ImageStore;
use anyhow::{Context, Result, bail};
use clap::Args;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, IsTerminal, Read, stdin};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use step01_uts::program::explain;
use step01_uts::say;
use step04_pivot_root::state::StateDir;
use step07_cgroups::flags::bytes;
use step08_overlay::layers::IMAGE_LIMIT;

/// Take images from an archive that `docker save` has written, or from an image layout in an archive
#[derive(Debug, Args)]
pub struct Load {
    /// The archive, compressed or not [default: standard input]
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,

    /// Print only the names
    #[arg(short, long)]
    quiet: bool,

    /// The machine that the images are for: OS/ARCHITECTURE[/VARIANT] [default: this one]
    #[arg(long, value_name = "PLATFORM", value_parser = TargetPlatform::from_str)]
    platform: Option<TargetPlatform>,

    /// The most that the archive, or a layer, may unpack to, with k, m, g or t behind [default: 16g]
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    max_size: Option<u64>,

    #[command(flatten)]
    state: StateDir,
}

/// An image that is to be loaded, and the names that it is to have.
struct Loading {
    chosen: Chosen,
    names: Vec<ImageName>,
}

impl Load {
    /// Takes the images: all of them, or none.
    ///
    /// # Errors
    /// There is no such file, or it is no archive of images; something in it isn't what it has to be.
    pub fn run(self) -> Result<u8> {
        let store = ImageStore::open(&self.state)?;
        let loaded = self.load(&store);
        let loaded = loaded.with_context(|| match &self.input {
            Some(path) => format!("load {}", path.display()),
            None => "load from standard input".into(),
        })?;
        loaded.iter().try_for_each(say)?;
        Ok(0)
    }

    /// Takes the images, and returns what to tell of them.
    fn load(&self, store: &ImageStore) -> Result<Vec<String>> {
        let progress = Progress::new(self.quiet);
        let stream = self.open()?;
        let archive = KeptArchive::read(stream, store.aside()?, self.limit())?;
        let images = self.images(&archive)?;
        let remarks = images
            .iter()
            .filter_map(|image| image.chosen.remark.as_ref());
        remarks.for_each(|remark| progress.say(remark));
        self.put(store, &archive, &images, &progress)
    }

    /// Puts `images` into the store, and returns what to tell of them. If one of them fails, nothing is put there.
    fn put(
        &self,
        store: &ImageStore,
        archive: &KeptArchive,
        images: &[Loading],
        progress: &Progress,
    ) -> Result<Vec<String>> {
        let parts = images.iter().flat_map(|image| image.chosen.parts());
        let parts: Vec<Digest> = parts.collect();
        // From here on nobody removes what we find, or what we put there.
        let lease = store.lease(&parts)?;
        let missing = store.missing(&parts);
        let mut all = images.iter();
        let installed = all.try_for_each(|image| self.install(store, archive, image, progress));
        let noted = installed.and_then(|()| note(store, images, progress));
        if noted.is_err() {
            drop(lease);
            if let Err(error) = store.withdraw(&missing) {
                eprintln!("{}", explain(&error));
            }
        }
        noted
    }

    fn limit(&self) -> u64 {
        self.max_size.unwrap_or(IMAGE_LIMIT)
    }

    /// Opens the archive.
    fn open(&self) -> Result<Box<dyn Read>> {
        match &self.input {
            None if stdin().is_terminal() => {
                bail!("that is a terminal, and no archive\nhelp: -i FILE takes the archive FILE")
            }
            None => Ok(Box::new(stdin().lock())),
            Some(path) => Ok(Box::new(open(path)?)),
        }
    }

    /// The images that are in `archive`, one for each name.
    fn images(&self, archive: &KeptArchive) -> Result<Vec<Loading>> {
        let here = self.platform.clone().unwrap_or_else(TargetPlatform::here);
        // Docker writes both since version 25, and in a layout digests say what is meant.
        let found = match (archive.has(layout::LAYOUT), archive.has(docker::MANIFEST)) {
            (true, _) => layout::images(archive, &here)?,
            (false, true) => docker::images(archive)?,
            (false, false) => bail!(
                "it is no archive of images: it has neither {} nor {}\nhelp: this takes what `docker save` writes, or an \
                 image layout; a root is for `step10-exec run --image FILE`",
                docker::MANIFEST,
                layout::LAYOUT
            ),
        };
        if found.is_empty() {
            bail!("there is no image in it");
        }
        let loading = found.into_iter().map(|found| self.choose(archive, found));
        let loading: Vec<Loading> = loading.collect::<Result<_>>()?;
        are_distinct(&loading)?;
        Ok(loading)
    }

    fn choose(&self, archive: &KeptArchive, found: Found) -> Result<Loading> {
        let Found { first, names } = found;
        let chosen = || {
            let chosen = Chosen::of(first, self.platform.as_ref(), |text, named| {
                archive.named(named, text.name())
            })?;
            archive.has_layers(&chosen.image)?;
            Ok(chosen)
        };
        let chosen: Result<Chosen> = chosen();
        let chosen = chosen.with_context(|| match names.first() {
            Some(name) => format!("the image {name}"),
            None => "an image without a name".into(),
        })?;
        Ok(Loading { chosen, names })
    }

    /// Puts an image into the store, which has no name for it yet.
    fn install(
        &self,
        store: &ImageStore,
        archive: &KeptArchive,
        Loading { chosen, .. }: &Loading,
        progress: &Progress,
    ) -> Result<()> {
        for text in &chosen.texts {
            store.put(text)?;
        }
        for layer in &chosen.image.layers {
            let digest = &layer.blob.digest;
            if store.layer(&layer.chain_id).exists() {
                // Nobody asks for its archive.
                continue;
            }
            if let Some(part) = store.begin(digest)? {
                part.becomes(&archive.blob(digest)?.path)?;
            }
        }
        let source = Source {
            registry: None,
            store,
            limit: self.limit(),
            done: "Loaded",
        };
        source.install(&chosen.image, progress)
    }
}

/// Opens the archive at `path`.
fn open(path: &Path) -> Result<File> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("there is no such file\nhelp: `docker save -o FILE IMAGE` writes one")
        }
        file => file?,
    };
    match file.metadata()?.is_dir() {
        true => bail!(
            "it is a directory\nhelp: `tar -cf FILE -C DIR .` makes an archive of an image layout"
        ),
        false => Ok(file),
    }
}

/// Fails if two of `images` have one name: which of them counts would be for each reader to say.
fn are_distinct(images: &[Loading]) -> Result<()> {
    let mut known = BTreeMap::new();
    for Loading { chosen, names } in images {
        for name in names.iter().map(ImageName::to_string) {
            let manifest = &chosen.image.manifest;
            if *known.entry(name.clone()).or_insert(manifest) != manifest {
                bail!("it has two images that are called {name}");
            }
        }
    }
    Ok(())
}

/// Notes all `images` and their names at once, and returns what to tell of each.
fn note(store: &ImageStore, images: &[Loading], progress: &Progress) -> Result<Vec<String>> {
    store.change(|catalog| {
        let mut lines = Vec::new();
        for Loading { chosen, names } in images {
            let image = &chosen.image;
            catalog.enter(image, &chosen.parts());
            for name in names {
                let name = name.to_string();
                let before = catalog.names.insert(name.clone(), image.manifest.clone());
                if before.is_some_and(|before| before != image.manifest) {
                    progress.say(&format!("{name} was another image, which keeps its ID"));
                }
                lines.push(format!("Loaded image: {name}"));
            }
            if names.is_empty() {
                lines.push(format!("Loaded image ID: {}", image.id));
            }
        }
        Ok(lines)
    })
}

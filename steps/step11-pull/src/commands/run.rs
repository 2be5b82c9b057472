//! `run IMAGE` and `create IMAGE`: those of step 9, for a container whose plan an image has filled in.

use crate::commands::pull::{HowToPull, connect, pull};
use crate::layer::fit::make_directory;
use crate::layer::install::lower;
use crate::layer::progress::Progress;
use crate::manifest::config::merge;
use crate::manifest::parts::Image;
use crate::registry::name::ImageName;
use crate::store::ImageStore;
use crate::store::lease::Lease;
use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use step04_pivot_root::root::directory_at;
use step08_overlay::image::archive::empty_root;
use step08_overlay::layers::show;
use step08_overlay::volumes::Volume;
use step09_detach::commands::run::{Create, Run};
use step09_detach::container::plan::Plan;
use step09_detach::container::store::Making;
use step10_exec::copy::{Manner, Tree, copy};

/// When an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PullPolicy {
    /// Each time.
    Always,
    /// When it isn't there.
    Missing,
    /// Not at all.
    Never,
}

/// What is typed about the image of a container.
#[derive(Debug, Args)]
#[command(next_help_heading = "Image")]
struct OfImage {
    /// Run this in place of the image's own program; an empty word leaves only what is typed
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,

    /// When to pull the image: always, missing or never
    #[arg(
        long,
        value_name = "WHEN",
        default_value = "missing",
        hide_possible_values = true
    )]
    pull: PullPolicy,

    /// Note something on the container
    #[arg(short, long, value_name = "KEY[=VALUE]", value_parser = label)]
    label: Vec<(String, String)>,

    #[command(flatten)]
    how: HowToPull,
}

/// Make a container of an image and run its command; the image is pulled when it isn't there
#[derive(Debug, Args)]
#[command(mut_arg("command", |arg| arg.value_name("IMAGE [COMMAND").help(WORDS)))]
#[command(
    override_usage = "step11-pull run [OPTIONS] IMAGE [COMMAND]...\n       \
    step11-pull run [OPTIONS] --rootfs DIR|--image IMAGE [COMMAND]..."
)]
pub struct RunImage {
    #[command(flatten)]
    run: Run,

    #[command(flatten)]
    image: OfImage,
}

/// Make a container of an image, and leave its start for later
#[derive(Debug, Args)]
#[command(mut_arg("command", |arg| arg.value_name("IMAGE [COMMAND").help(WORDS)))]
#[command(
    override_usage = "step11-pull create [OPTIONS] IMAGE [COMMAND]...\n       \
    step11-pull create [OPTIONS] --rootfs DIR|--image IMAGE [COMMAND]..."
)]
pub struct CreateOfImage {
    #[command(flatten)]
    create: Create,

    #[command(flatten)]
    image: OfImage,
}

const WORDS: &str = "The image, by its name or its ID, then the command and its arguments [default: the image's own]; \
    with --rootfs or --image, the command at once";

impl RunImage {
    /// Makes the container and runs its command.
    ///
    /// # Errors
    /// There is no such image; the container didn't start.
    pub fn run(mut self) -> Result<u8> {
        let furniture = self.image.fill_in(&mut self.run.container.plan)?;
        self.run.run(|making| furniture.put_into(making))
    }
}

impl CreateOfImage {
    /// Makes the container.
    ///
    /// # Errors
    /// There is no such image.
    pub fn run(mut self) -> Result<u8> {
        let furniture = self.image.fill_in(&mut self.create.container.plan)?;
        self.create.run(|making| furniture.put_into(making))
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=').unwrap_or((text, "")) {
        ("", _) => Err("a label has a name: KEY=VALUE".into()),
        (key, value) => Ok((key.into(), value.into())),
    }
}

/// What an image wants to be in a container beyond its layers.
#[derive(Default)]
struct Furniture {
    /// Where it wants volumes of the container's own.
    volumes: Vec<PathBuf>,
    /// What keeps the image until the container is known to use it.
    _lease: Option<Lease>,
}

impl OfImage {
    /// Fills in `plan` with what the image says that is the first word typed.
    fn fill_in(&self, plan: &mut Plan) -> Result<Furniture> {
        plan.labels.extend(self.label.iter().cloned());
        if plan.files.rootfs.is_some() || !plan.layers.image.is_empty() {
            if let Some(program) = &self.entrypoint {
                bail!(
                    "--entrypoint {program}: with --rootfs or --image, type the command behind them"
                );
            }
            return Ok(Furniture::default());
        }
        let mut words = plan.command.take().unwrap_or_default();
        if words.is_empty() {
            bail!(
                "which image?\nhelp: type its name behind the flags, or --rootfs DIR before a command"
            );
        }
        let word = words.remove(0);
        plan.command = Some(words).filter(|words| !words.is_empty());
        let store = ImageStore::open(&plan.files.state)?;
        let (image, lease) = self.find(&store, &word)?;
        plan.layers.image = lower(&store, &image.layers)?;
        plan.image = Some(word.clone());
        plan.image_digest = Some(image.manifest.to_string());
        let volumes = merge(plan, &image, self.entrypoint.as_deref())
            .with_context(|| format!("the image {word}"))?;
        Ok(Furniture {
            volumes,
            _lease: Some(lease),
        })
    }

    /// The image that is called `word`, which is pulled if need be.
    fn find(&self, store: &ImageStore, word: &str) -> Result<(Image, Lease)> {
        if self.pull != PullPolicy::Always {
            if let Some(found) = self.find_here(store, word)? {
                return Ok(found);
            }
        }
        let name: ImageName = word.parse().map_err(|error: anyhow::Error| {
            let is_path = Path::new(word).exists();
            match is_path {
                true => anyhow!("{error:#}\nhelp: a directory or an archive goes behind --image"),
                false => error,
            }
        })?;
        if self.pull == PullPolicy::Never {
            bail!(
                "no such image: {name}\nhelp: `images` lists them; without --pull never it is pulled"
            );
        }
        let progress = Progress::new(false);
        if self.pull == PullPolicy::Missing {
            progress.say(&format!("Unable to find image '{name}' locally"));
        }
        let registry = connect(&name, &self.how)?;
        let pulled = pull(store, &registry, &name, &self.how, &progress)?;
        Ok((pulled.image, pulled.lease))
    }

    /// The image that is called `word` here; `None`: it has to be pulled.
    fn find_here(&self, store: &ImageStore, word: &str) -> Result<Option<(Image, Lease)>> {
        let catalog = store.catalog()?;
        let Some(digest) = catalog.search(word)? else {
            return Ok(None);
        };
        let image = match store.image(digest) {
            Ok(image) => image,
            Err(error) if self.pull == PullPolicy::Never => return Err(error),
            Err(_) => return Ok(None),
        };
        let is_wanted = |wish| image.platform().serves(wish).is_some();
        if !self.how.platform.as_ref().is_none_or(is_wanted) {
            return Ok(None);
        }
        // It may have been removed just before it was leased.
        let lease = store.lease(&image.blobs_and_layers())?;
        Ok(store.has_layers(&image).then_some((image, lease)))
    }
}

impl Furniture {
    /// Makes the container's own volumes, with what the image has in their places, and the directory that its command
    /// starts in.
    fn put_into(&self, making: Making) -> Result<()> {
        let Making {
            aside,
            folder,
            plan,
        } = making;
        let workdir = plan.env.workdir.clone();
        let workdir = workdir.filter(|_| plan.layers.keep.is_none());
        if plan.image.is_none() || (self.volumes.is_empty() && workdir.is_none()) {
            return Ok(());
        }
        let below = aside.join("below");
        fs::create_dir(&below)?;
        let layers = plan.layers.image.iter().map(PathBuf::as_path).collect();
        let made = show(layers, &below, |root| {
            let targets = self.make_volumes(&aside.join("volumes"), root)?;
            if let Some(workdir) = workdir.as_deref().map(Path::new) {
                make_workdir(aside, plan, &self.volumes, root, workdir)
                    .with_context(|| format!("the directory {}", workdir.display()))?;
            }
            Ok(targets)
        });
        fs::remove_dir(&below)?;
        for (number, target) in made?.iter().enumerate() {
            let source = folder.join("volumes").join(number.to_string());
            let volume = Volume::at(source, target);
            plan.layers
                .volume
                .push(volume.map_err(|error| anyhow!("the image's volume {target}: {error}"))?);
        }
        Ok(())
    }

    /// Makes the volumes in `folder`, and returns where they are to be.
    fn make_volumes(&self, folder: &Path, root: &Path) -> Result<Vec<String>> {
        if !self.volumes.is_empty() {
            DirBuilder::new().mode(0o700).create(folder)?;
        }
        let image = Tree::new(directory_at(root)?, true, String::new());
        let mut targets = Vec::new();
        for (number, target) in self.volumes.iter().enumerate() {
            let source = number_of(number);
            let text = target.to_str().context("a path that isn't UTF-8")?;
            let place = || format!("the image's volume {text}");
            match image.stat(target).with_context(place)? {
                Some(_) => {
                    let manner = Manner {
                        owner: None,
                        keeps_setuid: true,
                    };
                    let own = Tree::new(directory_at(folder)?, true, String::new());
                    let from = image.followed(target).with_context(place)?;
                    copy(&from, &own.place(&source)?, manner).with_context(place)?;
                }
                None => empty_root(&folder.join(number.to_string()))?,
            }
            targets.push(text.to_owned());
        }
        Ok(targets)
    }
}

/// The name of a volume's directory, in the folder of the volumes as its root.
fn number_of(volume: usize) -> PathBuf {
    Path::new("/").join(volume.to_string())
}

/// Makes the directory in which the command starts, if the image hasn't got it. `volumes` are the container's own.
fn make_workdir(
    aside: &Path,
    plan: &Plan,
    volumes: &[PathBuf],
    root: &Path,
    workdir: &Path,
) -> Result<()> {
    let own = volumes.iter().enumerate();
    let own = own.filter(|(_, target)| workdir.starts_with(target));
    if let Some((number, target)) = own.max_by_key(|(_, target)| target.components().count()) {
        let source = aside.join("volumes").join(number.to_string());
        return make_directory(&source, &source, workdir.strip_prefix(target)?);
    }
    let mut typed = plan.layers.volume.iter();
    if typed.any(|volume| workdir.starts_with(&volume.target)) {
        // It is for whoever has typed the volume.
        return Ok(());
    }
    let upper = plan.layers.upper(&plan.files, aside);
    let upper = upper.context("a root without layers")?;
    empty_root(&upper)?;
    make_directory(&upper, root, workdir)
}

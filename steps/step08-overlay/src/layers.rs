//! Which directories become a container's root.

use crate::image::commit;
use crate::image::images::Images;
use crate::volumes::{OpenVolume, Tmpfs, Volume};
use crate::{by_descriptor, mount_overlay, tear_down, whole};
use anyhow::{Context, Result, bail};
use clap::Args;
use nix::fcntl::{Flock, FlockArg, OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::path::{Path, PathBuf};
use step01_uts::call;
use step01_uts::program::{Ended, explain};
use step03_mount::make_private;
use step04_pivot_root::bind_self;
use step04_pivot_root::root::directory_at;
use step04_pivot_root::rootfs::{Files, Rootfs};
use step06_caps::remount_read_only;
use step07_cgroups::claim::{abandoned, claim};

/// What the container's files are made of.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[command(next_help_heading = "Files")]
pub struct LayerArgs {
    /// Directories and files of the host.
    #[arg(short, long, value_name = "VOLUME", value_parser = Volume::parse,
          help = "A directory or a file of the host: SRC:DST[:ro][,rprivate|rslave|rshared]")]
    pub volume: Vec<Volume>,

    /// Directories whose files are in memory.
    #[arg(long, value_name = "TMPFS", value_parser = Tmpfs::parse,
          help = "A directory whose files are in memory, and gone at the end: DST[:OPTIONS]")]
    pub tmpfs: Vec<Tmpfs>,

    /// A layer of the root, a directory or an archive (tar, tar.gz, tar.zst), the topmost first;
    /// it stays as it is
    #[arg(long, value_name = "IMAGE", conflicts_with = "rootfs")]
    pub image: Vec<PathBuf>,

    /// The most that an archive may hold, with k, m, g or t behind [default: 16g]
    #[arg(long, value_name = "SIZE", default_value = "16g", hide_default_value = true,
          value_parser = step07_cgroups::limits::bytes)]
    pub image_limit: u64,

    /// Keep what the container changes in DIR, and begin with what is there
    #[arg(long, value_name = "DIR", conflicts_with = "rootfs")]
    pub keep: Option<PathBuf>,

    /// Let the container write to its volumes only
    #[arg(long)]
    pub read_only: bool,

    /// At the end, save the whole root as an archive: FILE.tar, FILE.tar.gz or FILE.tar.zst
    #[arg(long, value_name = "FILE", value_parser = commit::Archive::parse)]
    pub commit: Option<commit::Archive>,
}

/// What a container mounts on. Where one is missing it is made, but not in somebody's own --rootfs.
const PLACES: [&str; 3] = ["proc", "sys", "dev"];

/// As many layers as fit into the page that mount(2) takes.
const MOST_LAYERS: usize = 200;

/// What a container's root is made of.
pub struct Layers {
    /// The topmost first. Only one, when nothing is laid over it.
    lower: Vec<PathBuf>,
    /// Where the changes go; nowhere else than into the only layer, without.
    changes: Option<Changes>,
    /// The state folder.
    state: PathBuf,
    _in_use: Option<Rootfs>,
}

/// Where a container's own directories are.
#[derive(Debug, Clone, Copy)]
pub enum Home<'a> {
    /// In the state folder by this name, for as long as the container runs.
    Passing(&'a str),
    /// In this directory, which is somebody else's to make and to remove.
    Lasting {
        /// It has the upper layer, `upper`.
        folder: &'a Path,
        /// Whether nobody will want that after a crash.
        volatile: bool,
    },
}

/// A container's own directories.
struct Changes {
    /// The mount covers it, in the container.
    folder: PathBuf,
    upper: PathBuf,
    work: PathBuf,
    /// Whether nobody will want the changes after a crash.
    volatile: bool,
    /// As long as it is locked, somebody uses the folder, which goes at the end. A folder that outlives the
    /// container has no such lock.
    passing: Option<Flock<File>>,
    /// And this one, the directory that is kept.
    _kept_lock: Option<Flock<File>>,
}

impl LayerArgs {
    /// Finds or unpacks the layers, and makes the container's directories; removes those that a crash has
    /// left.
    ///
    /// # Errors
    /// There is no such image, or it can't be one.
    pub fn open(&self, files: &Files, home: Home, why: bool) -> Result<Layers> {
        if let Some(archive) = &self.commit {
            archive.check()?;
        }
        let (lower, in_use) = self.lower(files)?;
        if files.rootfs.is_some() {
            return Ok(Layers {
                lower,
                changes: None,
                state: files.state.dir.clone(),
                _in_use: in_use,
            });
        }
        // Whoever only asks changes nothing, and may be anybody.
        let needs_none = why && self.keep.is_none() && lower.len() == 1;
        let changes = || Changes::make(&files.state.dir, home, self.keep.as_deref(), &lower[0]);
        let changes = (!needs_none).then(changes).transpose()?;
        Ok(Layers {
            lower,
            changes,
            state: files.state.dir.clone(),
            _in_use: in_use,
        })
    }

    /// The layers that are only read, the topmost first, and what keeps them as they are.
    fn lower(&self, files: &Files) -> Result<(Vec<PathBuf>, Option<Rootfs>)> {
        match self.image[..] {
            [] => {
                let rootfs = files.open()?;
                Ok((vec![rootfs.path.clone()], Some(rootfs)))
            }
            ref images if images.len() > MOST_LAYERS => {
                bail!(
                    "{} layers by --image: the kernel takes {MOST_LAYERS}",
                    images.len()
                )
            }
            ref images => {
                let store = Images::at(&files.state.dir, self.image_limit);
                let layers = images.iter().map(|image| store.layer(image));
                Ok((layers.collect::<Result<_>>()?, None))
            }
        }
    }

    /// The layers that are only read, the topmost first.
    pub fn lower_layers(&self, files: &Files) -> Result<Vec<PathBuf>> {
        Ok(self.lower(files)?.0)
    }

    /// Where the changes of a container with [`Home::Lasting`] in `folder` go; nowhere else than into the
    /// root itself with `--rootfs`.
    pub fn upper(&self, files: &Files, folder: &Path) -> Option<PathBuf> {
        let upper = || self.keep.clone().unwrap_or_else(|| folder.join("upper"));
        files.rootfs.is_none().then(upper)
    }

    /// Shows the whole root of a container with [`Home::Lasting`] in `folder` to `look`, whether it runs or
    /// not. Who runs is to be frozen: nothing may change meanwhile.
    pub fn show<T>(
        &self,
        files: &Files,
        folder: &Path,
        look: impl FnOnce(&Path) -> Result<T>,
    ) -> Result<T> {
        let (lower, _in_use) = self.lower(files)?;
        let upper = self.upper(files, folder).filter(|upper| upper.exists());
        let layers = upper.iter().chain(&lower).map(PathBuf::as_path);
        show(layers.collect(), folder, look)
    }

    /// Takes hold of the volumes, in the order in which they are to be attached.
    pub fn volumes(&self) -> Result<Vec<OpenVolume>> {
        let volumes = self.volume.iter().map(Volume::open);
        let mut volumes: Vec<_> = volumes.collect::<Result<_>>()?;
        volumes.sort_by_key(OpenVolume::depth);
        Ok(volumes)
    }

    /// Puts volumes and tmpfs into the root that the caller is in, and has the rest of it read-only when
    /// that was asked for.
    pub fn attach(&self, volumes: &[OpenVolume]) -> Result<()> {
        // What lies below something else comes after it.
        let mut tmpfs: Vec<&Tmpfs> = self.tmpfs.iter().collect();
        tmpfs.sort_by_key(|each| each.depth());
        let mut tmpfs = tmpfs.into_iter().peekable();
        for volume in volumes {
            while let Some(above) = tmpfs.next_if(|each| each.depth() <= volume.depth()) {
                above.attach()?;
            }
            volume.attach()?;
        }
        tmpfs.try_for_each(Tmpfs::attach)?;
        match self.read_only {
            true => remount_read_only("/"),
            false => Ok(()),
        }
    }
}

impl Changes {
    fn make(state: &Path, home: Home, keep: Option<&Path>, topmost: &Path) -> Result<Changes> {
        let (folder, passing) = match home {
            Home::Passing(id) => Changes::folder_of(state, id)?,
            Home::Lasting { folder, .. } => (folder.to_owned(), None),
        };
        let (upper, work) = match keep {
            None => (folder.join("upper"), folder.join("work")),
            Some(keep) => {
                directory(keep, 0o755).with_context(|| format!("--keep {}", keep.display()))?;
                let upper = keep.canonicalize()?;
                let (name, id) = (name_of(&upper), name_of(&folder));
                // The kernel wants it on the same filesystem as the upper directory.
                let work = upper.with_file_name(format!(".{name}.work-{id}"));
                (upper, work)
            }
        };
        let kept_lock = keep.map(|_| Changes::keep_alone(&upper)).transpose()?;
        let changes = Changes {
            volatile: keep.is_none()
                && match home {
                    Home::Passing(_) => true,
                    Home::Lasting { volatile, .. } => volatile,
                },
            folder,
            upper,
            work,
            passing,
            _kept_lock: kept_lock,
        };
        directory(&changes.upper, 0o755)?;
        if is_empty(&changes.upper) {
            // What the root's own directory is like, shows in the topmost layer.
            let like = fs::metadata(topmost)?;
            chown(&changes.upper, Some(like.uid()), Some(like.gid()))?;
            fs::set_permissions(&changes.upper, like.permissions())?;
        }
        // In one that a crash has left, the kernel finds the mark of a volatile mount.
        tear_down(&changes.work)?;
        directory(&changes.work, 0o755)?;
        Ok(changes)
    }

    /// Makes the folder of the container `id`, and locks it.
    fn folder_of(state: &Path, id: &str) -> Result<(PathBuf, Option<Flock<File>>)> {
        let running = state.join("running");
        directory(&running, 0o700).with_context(|| {
            format!(
                "help: put `sudo` before the command, or name another place with --state-dir; {}",
                running.display()
            )
        })?;
        // As the mount table has it.
        let running = running.canonicalize()?;
        sweep(&running);
        whole::sweep(state);
        let folder = running.join(id);
        // Nobody may look into a container's files, whatever their modes.
        let make = || DirBuilder::new().mode(0o700).create(&folder);
        let lock = claim(&folder, make, || File::open(&folder));
        let lock = lock.with_context(|| folder.display().to_string())?;
        Ok((folder, Some(lock)))
    }

    /// Locks a directory that is kept, and removes the work directories of those that were killed while they
    /// used it.
    fn keep_alone(upper: &Path) -> Result<Flock<File>> {
        let lock = Flock::lock(File::open(upper)?, FlockArg::LockExclusiveNonblock);
        let Ok(lock) = lock else {
            bail!("--keep {}: another container is using it", upper.display());
        };
        let work = format!(".{}.work-", name_of(upper));
        for entry in fs::read_dir(upper.parent().unwrap_or(upper))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(&work) {
                tear_down(&entry.path())?;
            }
        }
        Ok(lock)
    }

    fn remove(&self) -> Result<()> {
        tear_down(&self.work)?;
        match self.passing {
            Some(_) => tear_down(&self.folder),
            None => Ok(()),
        }
    }
}

impl Drop for Changes {
    /// On whatever way out; after [`Layers::settle`] nothing is left to do.
    fn drop(&mut self) {
        let _ = self.remove();
    }
}

impl Layers {
    // ANCHOR: mount
    /// Mounts the layers as one root and returns where, in the mount namespace of the caller, whose
    /// mounts are private.
    ///
    /// # Errors
    /// A layer that isn't there any more, or a link where the container mounts something.
    pub fn mount(&self) -> Result<PathBuf> {
        let Some(changes) = &self.changes else {
            Rootfs::at(&self.lower[0]).check(&PLACES)?;
            bind_self(&self.lower[0])?;
            return Ok(self.lower[0].clone());
        };
        let lower: Vec<_> = self
            .lower
            .iter()
            .map(|layer| directory_at(layer))
            .collect::<Result<_>>()?;
        let (upper, work) = (directory_at(&changes.upper)?, directory_at(&changes.work)?);
        // It covers the directories that it is made of, which are open already.
        let target = changes.folder.clone();
        mount_overlay(&lower, &upper, &work, changes.volatile, &target)?;
        for place in PLACES {
            match fs::create_dir(target.join(place)) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error.into()),
                _ => {}
            }
        }
        Rootfs::at(&target).check(&PLACES)?;
        Ok(target)
    }
    // ANCHOR_END: mount

    /// The topmost of the layers, as the host has it: where a file of the root most likely is.
    pub fn topmost(&self) -> &Path {
        &self.lower[0]
    }

    /// Shows the whole root to `look`, without a container: of one layer the layer itself, of several a
    /// mount that nobody else sees.
    pub fn show<T>(&self, look: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
        match &self.changes {
            Some(changes) => {
                let upper = std::iter::once(&changes.upper);
                let layers = upper.chain(&self.lower).map(PathBuf::as_path);
                show(layers.collect(), &changes.folder, look)
            }
            None => look(self.topmost()),
        }
    }

    /// Ends the container's use of the layers: saves what is to be saved, removes what nobody keeps, and
    /// hands the `outcome` of the command's life on.
    pub fn settle(self, outcome: Result<u8>, archive: Option<&commit::Archive>) -> Result<u8> {
        // Whatever the command ended with. One that never ran changed nothing.
        let ran = outcome
            .as_ref()
            .map_or_else(|error| error.is::<Ended>(), |_| true);
        let saved = match archive.filter(|_| ran) {
            Some(archive) => self.show(|root| archive.write(&directory_at(root)?, &self.state)),
            None => Ok(()),
        };
        if let Some(Err(error)) = self.changes.as_ref().map(Changes::remove) {
            // The command's life is over, and its outcome is what counts.
            eprintln!(
                "{}\nhelp: the next run removes what is left",
                explain(&error)
            );
        }
        saved.and(outcome)
    }
}

/// Shows `layers`, the topmost first, to `look` as one root: of one that isn't empty the layer itself, of
/// several a mount on `target` that nobody else sees.
fn show<T>(layers: Vec<&Path>, target: &Path, look: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let lowest = layers.last().copied().unwrap_or(target);
    let used: Vec<&Path> = layers
        .into_iter()
        .filter(|layer| !is_empty(layer))
        .collect();
    let [_, _, ..] = used[..] else {
        return look(used.first().unwrap_or(&lowest));
    };
    let _home = private_mounts()?;
    let opened: Vec<_> = used
        .iter()
        .map(|layer| directory_at(layer))
        .collect::<Result<_>>()?;
    let lower: Vec<_> = opened
        .iter()
        .map(|layer| by_descriptor(layer).display().to_string())
        .collect();
    let data = format!("lowerdir={}", lower.join(":"));
    let overlay = Some("overlay");
    call!(mount(
        overlay,
        target,
        overlay,
        MsFlags::MS_RDONLY,
        Some(&*data)
    ))?;
    look(target)
}

/// Gives the calling process mounts of its own, until what is returned is dropped: then those are gone, and the
/// process is back where it was, in `/`.
pub fn private_mounts() -> Result<impl Drop> {
    struct Home(OwnedFd);
    impl Drop for Home {
        fn drop(&mut self) {
            let _ = setns(&self.0, CloneFlags::CLONE_NEWNS);
        }
    }
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let home = Home(call!(open("/proc/self/ns/mnt", flags, Mode::empty()))?);
    call!(unshare(CloneFlags::CLONE_NEWNS))?;
    make_private()?;
    Ok(home)
}

/// Removes the directories that nobody has locked: those of programs that were killed before they
/// could.
fn sweep(containers: &Path) {
    for entry in fs::read_dir(containers).into_iter().flatten().flatten() {
        if let Some(_lock) = abandoned(&entry.path()) {
            let _ = tear_down(&entry.path());
        }
    }
}

fn name_of(path: &Path) -> Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

fn directory(path: &Path, mode: u32) -> Result<()> {
    let mut builder = DirBuilder::new();
    let made = builder.recursive(true).mode(mode).create(path);
    made.with_context(|| path.display().to_string())
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none())
}

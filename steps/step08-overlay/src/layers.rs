//! Which directories become a container's root.

use crate::changes::{Changes, Home, is_empty};
use crate::image::commit;
use crate::image::images::Images;
use crate::volumes::{OpenVolume, Tmpfs, Volume};
use crate::{among_descriptors, by_numbers, mount_overlay};
use anyhow::{Result, bail};
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use step01_uts::call;
use step01_uts::program::{Ended, explain};
use step03_mount::make_private;
use step04_pivot_root::bind_self;
use step04_pivot_root::root::directory_at;
use step04_pivot_root::rootfs::{Files, Rootfs};
use step06_caps::remount_read_only;

/// What the container's files are made of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Storage {
    /// Directories and files of the host.
    pub volume: Vec<Volume>,
    /// Directories whose files are in memory.
    pub tmpfs: Vec<Tmpfs>,
    /// The layers of the root, directories or archives, the topmost first.
    pub image: Vec<PathBuf>,
    /// The most bytes that an archive may hold; [`IMAGE_LIMIT`], where nothing is given.
    pub image_limit: Option<u64>,
    /// The directory that keeps what the container changes.
    pub keep: Option<PathBuf>,
    /// Whether the container may write to its volumes only.
    pub read_only: bool,
    /// The archive as which the whole root is saved at the end.
    pub commit: Option<commit::Archive>,
}

/// As many bytes an archive may hold, unless somebody says otherwise.
pub const IMAGE_LIMIT: u64 = 16 << 30;

/// The directories that a container mounts on. A missing one is made, but not in a user's own --rootfs.
const PLACES: [&str; 3] = ["proc", "sys", "dev"];

/// As many layers an image may have. Overlayfs takes 500, and one is for the changes where all of it is shown (`commit`,
/// `cp`): overlayfs in the kernel's documentation.
pub const MOST_LAYERS: usize = 499;

/// What a container's root is made of.
pub struct Layers {
    /// The layers below the changes, the topmost first. Without changes there is only one.
    lower: Vec<PathBuf>,
    /// Where the changes go. Without, they go into the only layer itself.
    changes: Option<Changes>,
    /// The state folder.
    state: PathBuf,
    _in_use: Option<Rootfs>,
}

impl Storage {
    /// Finds or unpacks the layers, and makes the container's directories. Directories that a crash has left are
    /// removed.
    ///
    /// # Errors
    /// An image that doesn't exist, or a file that can't be one.
    pub fn open(&self, files: &Files, home: Home, why: bool) -> Result<Layers> {
        if let Some(archive) = &self.commit {
            archive.check()?;
        }
        let (lower, in_use) = self.lower(files)?;
        // --why changes nothing. Where something is mounted in the root, its place is made in directories of our own.
        let why_alone = why && !self.mounts_in_root();
        if files.rootfs.is_some() && (!why || why_alone) {
            return Ok(Layers {
                lower,
                changes: None,
                state: files.state.dir.clone(),
                _in_use: in_use,
            });
        }
        // It needs no root: a single layer is looked at as it is.
        let needs_none = why_alone && self.keep.is_none() && lower.len() == 1;
        let (mut lower, mut keep) = (lower, self.keep.as_deref());
        if why && !why_alone {
            lower.splice(
                0..0,
                keep.take().filter(|keep| keep.is_dir()).map(Path::to_owned),
            );
        }
        let changes = || Changes::make(&files.state.dir, home, keep, &lower[0]);
        let changes = (!needs_none).then(changes).transpose()?;
        Ok(Layers {
            lower,
            changes,
            state: files.state.dir.clone(),
            _in_use: in_use,
        })
    }

    /// The layers that are only read, the topmost first, and the lock that keeps the default root as it is.
    fn lower(&self, files: &Files) -> Result<(Vec<PathBuf>, Option<Rootfs>)> {
        match self.image[..] {
            [] => {
                let rootfs = files.open()?;
                Ok((vec![rootfs.path.clone()], Some(rootfs)))
            }
            ref images if images.len() > MOST_LAYERS => {
                bail!(
                    "{} layers by --image: an overlay takes {MOST_LAYERS}",
                    images.len()
                )
            }
            ref images => {
                let store = Images::at(&files.state.dir, self.image_limit.unwrap_or(IMAGE_LIMIT));
                let lowest = images.len() - 1;
                let mut layers: Vec<PathBuf> = Vec::new();
                for (position, image) in images.iter().enumerate() {
                    let layer = store.layer(image, position == lowest)?;
                    // What is given twice shows nothing below itself, and the kernel refuses it.
                    if !layers.contains(&layer) {
                        layers.push(layer);
                    }
                }
                if images.iter().all(|image| image.is_file())
                    && layers.iter().all(|layer| is_empty(layer))
                {
                    bail!("--image {}: nothing is in it", images[0].display());
                }
                Ok((layers, None))
            }
        }
    }

    /// The layers that are only read, the topmost first.
    pub fn lower_layers(&self, files: &Files) -> Result<Vec<PathBuf>> {
        Ok(self.lower(files)?.0)
    }

    /// Where the changes of a container with [`Home::Lasting`] in `folder` go. With `--rootfs` they go into the root
    /// itself: `None`.
    pub fn upper(&self, files: &Files, folder: &Path) -> Option<PathBuf> {
        let upper = || self.keep.clone().unwrap_or_else(|| folder.join("upper"));
        files.rootfs.is_none().then(upper)
    }

    /// Shows the whole root of a container with [`Home::Lasting`] in `folder` to `look`, whether it runs or not. The
    /// caller freezes a container that runs: nothing may change meanwhile.
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

    /// Opens the volumes, in the order in which they are to be attached.
    pub fn volumes(&self) -> Result<Vec<OpenVolume>> {
        let volumes = self.volume.iter().map(Volume::open);
        let mut volumes: Vec<_> = volumes.collect::<Result<_>>()?;
        volumes.sort_by_key(OpenVolume::depth);
        Ok(volumes)
    }

    /// Mounts volumes and tmpfs in the caller's root, and makes the rest of it read-only when that was asked for.
    pub fn attach(&self, volumes: &[OpenVolume]) -> Result<()> {
        self.attach_in(None, volumes)?;
        match self.read_only {
            true => remount_read_only("/"),
            false => Ok(()),
        }
    }

    fn attach_in(&self, root: Option<&OwnedFd>, volumes: &[OpenVolume]) -> Result<()> {
        // By depth: a mount below another comes after it.
        let mut tmpfs: Vec<&Tmpfs> = self.tmpfs.iter().collect();
        tmpfs.sort_by_key(|each| each.depth());
        let mut tmpfs = tmpfs.into_iter().peekable();
        for volume in volumes {
            while let Some(above) = tmpfs.next_if(|each| each.depth() <= volume.depth()) {
                above.attach(root)?;
            }
            volume.attach(root)?;
        }
        tmpfs.try_for_each(|each| each.attach(root))
    }

    /// Whether something is mounted in the root.
    fn mounts_in_root(&self) -> bool {
        !self.volume.is_empty() || !self.tmpfs.is_empty()
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
        // The overlay covers the directories that it is made of, which are open already.
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

    /// Where the host has the files of the root, if it has them in one directory, and that isn't ours.
    pub fn on_host(&self) -> Option<&Path> {
        let [only] = &self.lower[..] else { return None };
        let is_ours = only.starts_with(self.state.join("images"));
        (!is_ours).then_some(only)
    }

    /// Shows the whole root to `look`, without a container. A single layer is shown itself, several as a mount that
    /// no other process sees.
    pub fn show<T>(&self, look: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
        match &self.changes {
            Some(changes) => {
                let upper = std::iter::once(&changes.upper);
                let layers = upper.chain(&self.lower).map(PathBuf::as_path);
                show(layers.collect(), &changes.folder, look)
            }
            None => look(&self.lower[0]),
        }
    }

    /// Shows the root of a container that isn't there to `look`, with all that `storage` mounts in it. No other process
    /// sees these mounts.
    pub fn foresee<T>(
        &self,
        storage: &Storage,
        volumes: &[OpenVolume],
        look: impl FnOnce(&Path) -> Result<T>,
    ) -> Result<T> {
        if !storage.mounts_in_root() {
            return self.show(look);
        }
        let _back = private_mounts()?;
        let root = self.mount()?;
        storage.attach_in(Some(&directory_at(&root)?), volumes)?;
        look(&root)
    }

    /// Ends the container's use of the layers: saves what is to be saved, removes what isn't kept, and passes on the
    /// `outcome` of the command.
    pub fn settle(self, outcome: Result<u8>, archive: Option<&commit::Archive>) -> Result<u8> {
        // The root is saved whatever the command's exit code is. A command that never ran changed nothing.
        let ran = outcome
            .as_ref()
            .map_or_else(|error| error.is::<Ended>(), |_| true);
        let saved = match archive.filter(|_| ran) {
            Some(archive) => self.show(|root| archive.write(&directory_at(root)?, &self.state)),
            None => Ok(()),
        };
        if let Some(Err(error)) = self.changes.as_ref().map(Changes::remove) {
            // The command has ended, and its outcome is what counts.
            eprintln!(
                "{}\nhelp: the next run removes what is left",
                explain(&error)
            );
        }
        saved.and(outcome)
    }
}

/// Shows `layers`, the topmost first, to `look` as one root. Empty layers don't count. A single layer is shown
/// itself, several as a mount on `target` that no other process sees.
pub fn show<T>(
    layers: Vec<&Path>,
    target: &Path,
    look: impl FnOnce(&Path) -> Result<T>,
) -> Result<T> {
    let lowest = layers.last().copied().unwrap_or(target);
    let used: Vec<&Path> = layers
        .into_iter()
        .filter(|layer| !is_empty(layer))
        .collect();
    let [_, _, ..] = used[..] else {
        return look(used.first().unwrap_or(&lowest));
    };
    let _back = private_mounts()?;
    let opened: Vec<_> = used
        .iter()
        .map(|layer| directory_at(layer))
        .collect::<Result<_>>()?;
    let data = format!("lowerdir={}", by_numbers(&opened));
    let overlay = Some("overlay");
    among_descriptors(|| {
        call!(mount(
            overlay,
            target,
            overlay,
            MsFlags::MS_RDONLY,
            Some(&*data)
        ))
    })?;
    look(target)
}

/// Gives the calling process a mount namespace of its own until the returned value is dropped. Then its mounts are
/// gone, and the process is back in the namespace that it came from, in `/`.
pub fn private_mounts() -> Result<impl Drop> {
    struct Back(OwnedFd);
    impl Drop for Back {
        fn drop(&mut self) {
            let _ = setns(&self.0, CloneFlags::CLONE_NEWNS);
        }
    }
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let back = Back(call!(open("/proc/self/ns/mnt", flags, Mode::empty()))?);
    call!(unshare(CloneFlags::CLONE_NEWNS))?;
    make_private()?;
    Ok(back)
}

//! `diff`: what a container has changed, as its upper layer has it.

use anyhow::{Context, Result, bail};
use clap::Args;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io::{ErrorKind, IsTerminal, stdout};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use step01_uts::program::visible;
use step01_uts::say;
use step04_pivot_root::root::by_descriptor;
use step04_pivot_root::state::StateDir;
use step08_overlay::image::archive::DEEPEST;
use step08_overlay::image::names::shown;
use step08_overlay::image::xattrs::attributes;
use step09_detach::container::store::Store;

/// List what a container has changed: A added, C changed, D deleted
#[derive(Debug, Args)]
pub struct Diff {
    /// The container, by its name or its ID
    #[arg(value_name = "CONTAINER")]
    container: String,

    #[command(flatten)]
    state: StateDir,
}

/// Files and directories that a container's start makes, for something to be mounted on.
const PLACES: [&str; 6] = [
    "proc",
    "sys",
    "dev",
    "etc/hosts",
    "etc/hostname",
    "etc/resolv.conf",
];

impl Diff {
    /// Lists the container's changes.
    pub fn run(&self) -> Result<u8> {
        let container = Store::open(&self.state)?.find(&self.container)?;
        let record = container.record()?;
        let plan = &record.plan;
        let Some(upper) = plan.layers.upper(&plan.files, &container.folder) else {
            bail!(
                "container {} writes into its --rootfs itself: nothing is apart",
                record.name
            );
        };
        let lower = plan.layers.lower_layers(&plan.files)?;
        let mut changes = BTreeMap::new();
        if upper.exists() {
            compare(&upper, &lower, Path::new(""), &mut changes)
                .with_context(|| upper.display().to_string())?;
        }
        for (path, kind) in changes {
            // A terminal isn't to obey the names that a container has chosen. A program that reads the list gets them
            // as they are.
            let path = match stdout().is_terminal() {
                true => visible(&path.to_string_lossy()).into_bytes(),
                false => path.into_os_string().into_vec(),
            };
            say([format!("{kind} /").as_bytes(), &path].concat())?;
        }
        Ok(0)
    }
}

/// What the layers below have at `path`; `None` where one of them has removed it.
fn below(lower: &[PathBuf], path: &Path) -> Option<Metadata> {
    'layers: for layer in lower {
        let mut at = layer.clone();
        let mut parts = path.components().peekable();
        let mut hides_the_rest = false;
        while let Some(part) = parts.next() {
            at.push(part);
            let Ok(found) = at.symlink_metadata() else {
                match hides_the_rest {
                    true => return None,
                    false => continue 'layers,
                }
            };
            match parts.peek() {
                _ if is_whiteout(&found) => return None,
                None => return Some(found),
                // A file, or a link, in the place of a directory: nothing is below it, here or further down.
                Some(_) if !found.is_dir() => return None,
                Some(_) => hides_the_rest |= is_opaque(&at),
            }
        }
    }
    None
}

/// The names in a directory of a layer; none when the directory is gone, or is a link or another file.
fn names_in(directory: &Path) -> Result<Vec<OsString>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let opened = match open(directory, flags, Mode::empty()) {
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(Vec::new()),
        opened => opened?,
    };
    let entries = fs::read_dir(by_descriptor(&opened))?;
    Ok(entries.flatten().map(|entry| entry.file_name()).collect())
}

/// Adds to `changes` what `upper` has below `path`.
fn compare(
    upper: &Path,
    lower: &[PathBuf],
    path: &Path,
    changes: &mut BTreeMap<PathBuf, char>,
) -> Result<()> {
    if path.components().count() > DEEPEST {
        bail!("{}: deeper than {DEEPEST} directories", shown(path));
    }
    for name in names_in(&upper.join(path))? {
        let path = path.join(name);
        let now = match upper.join(&path).symlink_metadata() {
            // The file is gone again.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            now => now.with_context(|| shown(&path))?,
        };
        let is_place = PLACES.iter().any(|place| Path::new(place) == path);
        match below(lower, &path) {
            None if is_place || is_whiteout(&now) => {}
            Some(_) if is_whiteout(&now) => drop(changes.insert(path, 'D')),
            Some(was) if now.is_dir() && was.is_dir() => {
                let known = changes.len();
                if is_opaque(&upper.join(&path)) {
                    deleted(upper, lower, &path, changes)?;
                }
                compare(upper, lower, &path, changes)?;
                // The directory may be in `upper` only for what is in it. So it has changed if something in it has,
                // or its own mode or owner.
                if changes.len() > known || differs(&now, &was) {
                    changes.insert(path, 'C');
                }
            }
            before => {
                let kind = if before.is_some() { 'C' } else { 'A' };
                changes.insert(path.clone(), kind);
                if now.is_dir() {
                    compare(upper, lower, &path, changes)?;
                }
            }
        }
    }
    Ok(())
}

/// Adds to `changes` what the layers below have in the directory `path`, which was replaced, and the new one hasn't.
fn deleted(
    upper: &Path,
    lower: &[PathBuf],
    path: &Path,
    changes: &mut BTreeMap<PathBuf, char>,
) -> Result<()> {
    for layer in lower {
        for name in names_in(&layer.join(path))? {
            let path = path.join(name);
            let is_there = upper.join(&path).symlink_metadata().is_ok();
            if !is_there && below(lower, &path).is_some() {
                changes.insert(path, 'D');
            }
        }
    }
    Ok(())
}

fn differs(now: &Metadata, was: &Metadata) -> bool {
    let of = |file: &Metadata| (file.mode(), file.uid(), file.gid());
    of(now) != of(was)
}

/// A file that was removed leaves a character device 0/0.
fn is_whiteout(file: &Metadata) -> bool {
    file.file_type().is_char_device() && file.rdev() == 0
}

/// A directory that replaces another has an attribute that says so.
fn is_opaque(path: &Path) -> bool {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let opened = open(path, flags, Mode::empty());
    let found = opened.and_then(|directory| attributes(&directory));
    found
        .unwrap_or_default()
        .iter()
        .any(|(key, value)| key == "trusted.overlay.opaque" && value == b"y")
}

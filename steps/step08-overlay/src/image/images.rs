//! Images on this machine: directories as they are, archives unpacked once.
//!
//! An unpacked archive is named by the SHA-256 of its bytes, and by whether it lies below all others: the lowest one has
//! nothing to hide. So two names for one archive are one image, and an archive that has changed is another image. Reading
//! an archive of a gigabyte only to see that it is known takes a second. So a small file beside the images remembers the
//! digest that a file had with a certain inode, size and time of change.

use crate::image::archive::{empty_root, unpack};
use crate::image::open_ends::fit_lowest;
use anyhow::{Context, Result, bail};
use nix::unistd::syncfs;
use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use step04_pivot_root::lock::Lock;
use step04_pivot_root::removal::remove_tree;
use step04_pivot_root::root::Root;

/// The images in a state folder: `images/sha256-…`.
pub struct Images {
    folder: PathBuf,
    /// The most bytes that an archive may unpack to.
    limit: u64,
}

impl Images {
    /// The images below `state`.
    pub fn at(state: &Path, limit: u64) -> Images {
        Images {
            folder: state.join("images"),
            limit,
        }
    }

    /// The directory of the image `path`, the lowest of all or one that is laid on others; an archive is unpacked when it
    /// is new.
    ///
    /// # Errors
    /// A file that doesn't exist or isn't an archive, or an archive that holds what it mustn't.
    pub fn layer(&self, path: &Path, is_lowest: bool) -> Result<PathBuf> {
        let shown = path.display();
        let found = match path.metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound => bail!(
                "--image {shown}: there is no such directory or archive\nhelp: rootfs-scripts/ has ways to make one"
            ),
            found => found.with_context(|| format!("--image {shown}"))?,
        };
        if found.is_dir() {
            let path = path.canonicalize()?;
            return match path == Path::new("/") {
                true => bail!("--image {shown}: that is this machine's own root"),
                false => Ok(path),
            };
        }
        if !found.is_file() {
            bail!("--image {shown}: it is neither a directory nor an archive");
        }
        self.unpacked(path, is_lowest)
            .with_context(|| format!("--image {shown}"))
    }

    // The compiler may not make it a part of its caller: decoders take 40 kB of its stack, and who stays with a container, as
    // later steps do, has for ever what it touched once. A directory takes none of them.
    #[inline(never)]
    fn unpacked(&self, archive: &Path, is_lowest: bool) -> Result<PathBuf> {
        // An image may hold a stranger's setuid programs: only root may reach them.
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&self.folder)?;
        let known = self.folder.join("known");
        builder.create(&known)?;

        let file = File::open(archive)?;
        let remembered = known.join(fingerprint(&file)?);
        let place = if is_lowest { "" } else { "-above" };
        let image = |digest: &str| self.folder.join(format!("sha256-{digest}{place}"));
        if let Ok(digest) = fs::read_to_string(&remembered) {
            let image = image(&digest);
            if image.exists() {
                return Ok(image);
            }
        }
        // Only one process unpacks at a time: another one that wants the same archive waits, and finds it there.
        let lock = File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("lock"))?;
        let _lock = Lock::exclusive(lock)?;
        if let Ok(digest) = fs::read_to_string(&remembered) {
            let image = image(&digest);
            if image.exists() {
                return Ok(image);
            }
        }
        // Nobody else is unpacking, because of the lock: a folder that is there was left by a crash.
        let aside = self.folder.join("new");
        remove_tree(&aside)?;
        empty_root(&aside)?;
        let digest = match self.unpack(file, &aside, is_lowest) {
            Ok(digest) => digest,
            Err(error) => {
                remove_tree(&aside)?;
                return Err(error);
            }
        };
        let image = image(&digest);
        match image.exists() {
            true => remove_tree(&aside)?,
            false => {
                // All of the image is on the disk before it gets a name that is trusted.
                syncfs(File::open(&aside)?)?;
                fs::rename(&aside, &image)?;
            }
        }
        let half = known.join("new");
        fs::write(&half, &digest)?;
        fs::rename(&half, &remembered)?;
        Ok(image)
    }

    /// Unpacks an archive into the empty directory `aside`, and returns its digest.
    fn unpack(&self, archive: File, aside: &Path, is_lowest: bool) -> Result<String> {
        let (digest, open) = unpack(archive, aside, self.limit)?;
        match is_lowest {
            true => fit_lowest(aside, &open)?,
            false => open.has_no_links()?,
        }
        is_a_root(aside)?;
        Ok(digest)
    }
}

/// What roots have at their top, and no archive of images.
pub const OF_ROOTS: [&str; 3] = ["bin", "etc", "usr"];

/// Refuses an archive that holds an image's layers as archives, instead of a root.
fn is_a_root(unpacked: &Path) -> Result<()> {
    let has = |name: &str| unpacked.join(name).symlink_metadata().is_ok();
    let format = if ["oci-layout", "index.json", "blobs"].into_iter().all(has) {
        "an image layout (OCI)"
    } else if lists_layers(unpacked)? {
        "what `docker save` writes"
    } else {
        return Ok(());
    };
    match OF_ROOTS.into_iter().any(has) {
        true => Ok(()),
        false => bail!(
            "it is {format}: archives of layers, and no root\nhelp: `step11-pull load -i FILE` makes an image of it, and \
             `step11-pull run` runs that"
        ),
    }
}

/// Whether the root's manifest.json is the list of images of `docker save`. An application's own is something else, and what
/// is no plain file isn't opened: a stranger may have put a device there.
fn lists_layers(unpacked: &Path) -> Result<bool> {
    const LONGEST: usize = 1024 * 1024;
    let text = Root::at(unpacked)?.text("/manifest.json", LONGEST);
    let text = String::from_utf8_lossy(&text);
    Ok(text.starts_with('[') && text.contains("\"Layers\""))
}

/// What tells one version of a file from another.
fn fingerprint(file: &File) -> Result<String> {
    let of = file.metadata()?;
    let (device, inode, size) = (of.dev(), of.ino(), of.size());
    let (modified, changed) = (of.mtime_nsec(), of.ctime_nsec());
    let (modified_s, changed_s) = (of.mtime(), of.ctime());
    Ok(format!(
        "{device}-{inode}-{size}-{modified_s}.{modified}-{changed_s}.{changed}"
    ))
}

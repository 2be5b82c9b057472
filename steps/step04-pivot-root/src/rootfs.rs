//! The root filesystem that a container gets: the one of `--rootfs`, or one from this machine.

use crate::default_root;
use crate::lock::Lock;
use crate::state::StateDir;
use anyhow::{Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use step01_uts::program::visible;

/// Where the container's files come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Files {
    /// The directory that becomes the container's root; without one, a root is made from this machine's own programs.
    pub rootfs: Option<PathBuf>,
    /// The state folder, where that root is kept.
    #[serde(skip)]
    pub state: StateDir,
}

/// A directory that is ready to become a root.
#[derive(Debug)]
pub struct Rootfs {
    /// Its absolute path on the host, without links.
    pub path: PathBuf,
    /// The lock on the default root, which isn't renewed as long as a container uses it.
    _in_use: Option<Lock>,
}

impl Files {
    /// Finds the root filesystem. Without `--rootfs` that is the default one, which is made first
    /// where it is missing or outdated.
    ///
    /// # Errors
    /// There is no such directory.
    pub fn open(&self) -> Result<Rootfs> {
        let Some(path) = &self.rootfs else {
            let (path, in_use) = default_root::open(&self.state.dir)?;
            return Ok(Rootfs {
                path,
                _in_use: in_use,
            });
        };
        let shown = path.display();
        let path = path.canonicalize().map_err(|error| {
            let why = match error.kind() {
                ErrorKind::NotFound => "there is no such directory".into(),
                _ => error.to_string(),
            };
            anyhow!("--rootfs {shown}: {why}\nhelp: rootfs-scripts/ has ways to make a root")
        })?;
        if !path.is_dir() {
            bail!(
                "--rootfs {shown}: it is no directory\nhelp: unpack an archive first, for example: \
                 tar -xpf {shown} -C DIR"
            );
        }
        if path == Path::new("/") {
            bail!(
                "--rootfs {shown}: that is this machine's own root\nhelp: without --rootfs a root is \
                 made from this machine's programs"
            );
        }
        Ok(Rootfs {
            path,
            _in_use: None,
        })
    }
}

impl Rootfs {
    /// Takes the directory `path` as a root, as it is: nothing is checked and nothing locked.
    pub fn at(path: &Path) -> Rootfs {
        Rootfs {
            path: path.to_owned(),
            _in_use: None,
        }
    }

    /// Checks that the root has real directories `names`, on which the container mounts. A link
    /// would make the kernel mount on whatever it leads to.
    pub fn check(&self, names: &[&str]) -> Result<()> {
        for name in names {
            let path = self.path.join(name);
            let shown = path.display();
            match path.symlink_metadata() {
                Ok(found) if found.is_dir() => {}
                Ok(found) if found.is_symlink() => bail!(
                    "{shown} is a link to {}, and has to be a directory: {name} is mounted on it\n\
                     help: rm {shown} && mkdir {shown}",
                    visible(&fs::read_link(&path).unwrap_or_default().to_string_lossy())
                ),
                Ok(_) => bail!(
                    "{shown} is a file, and has to be a directory: {name} is mounted on it\n\
                     help: rm {shown} && mkdir {shown}"
                ),
                Err(error) if error.kind() == ErrorKind::NotFound => bail!(
                    "{shown} isn't there, and has to be a directory: {name} is mounted on it\n\
                     help: mkdir {shown}, if {} is a root filesystem; rootfs-scripts/ has ways to \
                     make one",
                    self.path.display()
                ),
                Err(error) => bail!("{shown}: {error}"),
            }
        }
        Ok(())
    }
}

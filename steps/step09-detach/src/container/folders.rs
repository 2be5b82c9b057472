//! Where everything is kept:
//!
//! ```text
//! /var/lib/ten-steps/containers/ID/   config.json, container.log, upper, still
//! /var/lib/ten-steps/names/NAME       a link to ID
//! /run/ten-steps/ID.lock, ID.sock     gone after a reboot
//! ```

use anyhow::{Result, anyhow};
use std::fs::DirBuilder;
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use step04_pivot_root::state::{StateDir, USUAL};

/// A state folder, and the folder in /run that belongs to it.
#[derive(Debug, Clone)]
pub struct Folders {
    /// The state folder itself.
    pub state: PathBuf,
    /// A folder for each container, by its ID.
    pub containers: PathBuf,
    /// A link for each name.
    pub names: PathBuf,
    /// Sockets, and the lock files of containers' lives.
    pub run: PathBuf,
}

impl Folders {
    /// The folders of `state`, which are made where there are none.
    ///
    /// # Errors
    /// The calling process isn't root.
    pub fn open(state: &StateDir) -> Result<Folders> {
        let make = |path: &Path, mode| DirBuilder::new().recursive(true).mode(mode).create(path);
        let opened = || -> io::Result<Folders> {
            make(&state.dir, 0o755)?;
            // The path as the mount table has it.
            let state = state.dir.canonicalize()?;
            let usual = Path::new(USUAL).canonicalize();
            let usual = usual.is_ok_and(|usual| usual == state);
            let folders = Folders {
                containers: state.join("containers"),
                names: state.join("names"),
                run: match usual {
                    true => "/run/ten-steps".into(),
                    false => state.join("run"),
                },
                state,
            };
            // Only root may look into a container's files, whatever their modes.
            for folder in [&folders.containers, &folders.names, &folders.run] {
                make(folder, 0o700)?;
            }
            Ok(folders)
        };
        opened().map_err(|error| {
            let shown = state.dir.display();
            match error.kind() {
                ErrorKind::PermissionDenied => anyhow!(
                    "{shown}: {error}\nhelp: put `sudo` before the command, or name another place with --state-dir"
                ),
                _ => anyhow!("{shown}: {error}\nhelp: name another place with --state-dir"),
            }
        })
    }

    /// The state folder, for functions that take it as an argument.
    pub fn state(&self) -> StateDir {
        StateDir {
            dir: self.state.clone(),
        }
    }
}

/// Counts a missing file as success: somebody has removed it.
pub fn unless_missing(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

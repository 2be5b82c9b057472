//! What is known of each container, in a folder of its own: ROOT/ID.
//!
//! | file | what it is |
//! |---|---|
//! | `config.json` | the configuration as it was at `create` |
//! | `state.json` | which process it is ([`State`]), from the moment that there is one |
//! | `waits` | locked by the container's process until it is the command: how tells whether it stands at the door yet |
//! | `start` | the socket by which `start` lets it go on |
//!
//! A command that changes something locks the folder itself: a file in there could be made anew by the one while the other
//! removes it.

use crate::config::read::{Config, text_of};
use crate::report::Trouble;
use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use step04_pivot_root::lock::Lock;
use step09_detach::{Identity, save};

/// Where all containers are.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// One container's folder.
#[derive(Debug, Clone)]
pub struct Container {
    /// Its name, which the engine chose.
    pub id: String,
    /// ROOT/ID.
    pub folder: PathBuf,
}

/// What is written down of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The version of the specification that config.json keeps to.
    pub oci_version: String,
    /// The container's ID.
    pub id: String,
    /// Its process, which is the command later on.
    pub process: Identity,
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// The root's.
    pub rootfs: PathBuf,
    /// When it was made.
    pub created: String,
    /// Who made it.
    pub owner: u32,
    /// The path of its control groups, below the topmost group of each hierarchy.
    pub groups: Option<PathBuf>,
    /// The configuration's annotations.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

impl Store {
    /// The containers below `root`; where none is given, below /run, or in the user's own runtime directory.
    pub fn at(root: Option<PathBuf>) -> Store {
        let usual = || {
            let of_user = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
            match of_user.filter(|_| !geteuid().is_root()) {
                Some(directory) => directory.join("step12-oci"),
                None => "/run/step12-oci".into(),
            }
        };
        Store {
            root: root.unwrap_or_else(usual),
        }
    }

    /// The folder of a container that is to be made.
    ///
    /// # Errors
    /// There is one of that ID, or the ID can't be.
    pub fn create(&self, id: &str) -> Result<(Container, Lock)> {
        check_id(id)?;
        let private = |parents: bool| {
            let mut builder = DirBuilder::new();
            builder.mode(0o700).recursive(parents);
            builder
        };
        private(true)
            .create(&self.root)
            .with_context(|| self.root.display().to_string())?;
        let folder = self.root.join(id);
        let made = private(false).create(&folder);
        match made {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Err(Trouble::Exists.into());
            }
            made => made.with_context(|| folder.display().to_string())?,
        }
        let container = Container {
            id: id.into(),
            folder,
        };
        let lock = container.lock()?;
        Ok((container, lock))
    }

    /// The container `id`.
    ///
    /// # Errors
    /// There is none.
    pub fn find(&self, id: &str) -> Result<Container> {
        check_id(id)?;
        let folder = self.root.join(id);
        match folder.is_dir() {
            true => Ok(Container {
                id: id.into(),
                folder,
            }),
            false => Err(Trouble::DoesNotExist.into()),
        }
    }

    /// All containers, by name.
    pub fn list(&self) -> Result<Vec<Container>> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.with_context(|| self.root.display().to_string())?,
        };
        let names = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok());
        let mut containers: Vec<_> = names.filter_map(|id| self.find(&id).ok()).collect();
        containers.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(containers)
    }
}

impl Container {
    /// Keeps other commands from changing the container meanwhile.
    pub fn lock(&self) -> Result<Lock> {
        match File::open(&self.folder) {
            // It was removed since somebody looked.
            Err(error) if error.kind() == ErrorKind::NotFound => Err(Trouble::DoesNotExist.into()),
            folder => {
                let shown = || self.folder.display().to_string();
                let lock = Lock::exclusive(folder.with_context(shown)?)?;
                match lock.is_of(&self.folder) {
                    true => Ok(lock),
                    false => Err(Trouble::DoesNotExist.into()),
                }
            }
        }
    }

    /// Keeps the configuration, whose text is `text`.
    pub fn keep_config(&self, text: &str) -> Result<()> {
        save(&self.folder.join("config.json"), text.as_bytes(), false)
    }

    /// The configuration as it was at `create`.
    pub fn config(&self) -> Result<Config> {
        let text = text_of(&self.folder.join("config.json"))?;
        Config::of(&text, &self.folder, &mut |_| {})
    }

    /// What is written down; `None`, when the container never got as far as a process.
    pub fn state(&self) -> Result<Option<State>> {
        let path = self.folder.join("state.json");
        match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            text => {
                let text = text.with_context(|| path.display().to_string())?;
                let state: State =
                    serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
                match state.id == self.id {
                    true => Ok(Some(state)),
                    false => bail!("{}: it is the state of {:?}", path.display(), state.id),
                }
            }
        }
    }

    /// Writes `state` down.
    pub fn save(&self, state: &State) -> Result<()> {
        save(
            &self.folder.join("state.json"),
            &serde_json::to_vec(state)?,
            false,
        )
    }

    /// The file that is locked for as long as the container waits.
    pub fn waits(&self) -> PathBuf {
        self.folder.join("waits")
    }

    /// The socket by which it is let on.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("start")
    }

    /// Removes the folder.
    pub fn remove(&self) -> Result<()> {
        step04_pivot_root::removal::remove_tree(&self.folder)
    }
}

/// Checks an ID, as runc does. It becomes the name of a folder.
fn check_id(id: &str) -> Result<()> {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "_+-.".contains(letter);
    match !id.is_empty()
        && id.len() <= 1024
        && id.chars().all(is_plain)
        && ![".", ".."].contains(&id)
    {
        true => Ok(()),
        false => Err(Trouble::InvalidId(id.into()).into()),
    }
}

/// The path of a container's control groups, below the topmost group of each hierarchy.
pub fn groups_of(config: &Config, id: &str) -> PathBuf {
    let wanted = Path::new(&config.linux.cgroups_path);
    let plain: PathBuf = wanted
        .components()
        .filter(|part| matches!(part, std::path::Component::Normal(_)))
        .collect();
    match plain.as_os_str().is_empty() {
        true => id.into(),
        false => plain,
    }
}

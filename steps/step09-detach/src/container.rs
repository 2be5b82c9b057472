//! A container as it is kept: its folder, its record, its name, and who may change it.
//!
//! A container appears in one go, by a rename, and disappears so. Four locks keep commands apart. The kernel frees each
//! of them when its holder dies (flock(2)). The lock of `names` is held for as long as it takes to give or take a name.
//! The lock of a container's folder is held for as long as it takes to read and replace its record. A container's
//! *life* is the lock of `ID.lock`: the process that holds it may start or remove the container. A command that starts
//! a container takes its life and leaves it to the monitor, so the life is held as long as the monitor lives. A command
//! that removes a container has to get its life first. The lock of the container's file `still` is for commands that
//! freeze its processes or have them go on.

pub mod folders;
pub mod log;
pub mod name;
pub mod plan;
pub mod record;
pub mod restart;
pub mod status;
pub mod store;

use crate::{is_running, save};
use anyhow::{Context, Error, Result, anyhow, bail};
use folders::{Folders, unless_missing};
use plan::SHORT;
use record::{Newer, Record};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use step04_pivot_root::lock::Lock;
use step08_overlay::tear_down;

/// The file in a container's folder that is locked to freeze the container or to have it go on.
pub(crate) const STILL: &str = "still";

/// A handle for a container, which may have been removed by now.
#[derive(Debug, Clone)]
pub struct Container {
    /// Its ID.
    pub id: String,
    /// Its folder.
    pub folder: PathBuf,
    folders: Folders,
}

/// Whether `text` is a whole ID.
pub(crate) fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Writes the record into a container's folder.
pub(crate) fn write(folder: &Path, record: &Record) -> Result<()> {
    let text = serde_json::to_vec_pretty(record)?;
    // A container that is removed when it ends needn't survive a power failure.
    save(&folder.join("config.json"), &text, !record.plan.rm)
}

impl Container {
    /// The container's record, as it is now.
    ///
    /// # Errors
    /// The container isn't there any more, or the disk has damaged its record.
    pub fn record(&self) -> Result<Record> {
        let path = self.folder.join("config.json");
        let text = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound && self.is_gone() => {
                bail!("no such container: {}", &self.id[..SHORT])
            }
            read => read.map_err(Error::new),
        };
        let record = text.and_then(|text| {
            let mut record = Record::read(&text, &self.id)?;
            record.plan.files.state = self.folders.state();
            Ok(record)
        });
        record.map_err(|error| {
            if error.is::<Newer>() {
                return error.context(path.display().to_string());
            }
            anyhow!(
                "{}: {error:#}\nhelp: `rm -f {}` removes the container, whose record can't be read",
                path.display(),
                &self.id[..SHORT]
            )
        })
    }

    /// Changes the container's record. The lock of its folder keeps others from changing it meanwhile.
    pub fn update(&self, change: impl FnOnce(&mut Record)) -> Result<Record> {
        let _lock = self.lock_record()?;
        let mut record = self.record()?;
        change(&mut record);
        write(&self.folder, &record)?;
        Ok(record)
    }

    fn lock_record(&self) -> Result<Lock> {
        let gone = || anyhow!("no such container: {}", &self.id[..SHORT]);
        let lock = Lock::exclusive(File::open(&self.folder).map_err(|_| gone())?)?;
        match lock.is_of(&self.folder) {
            true => Ok(lock),
            false => Err(gone()),
        }
    }

    /// Whether the container has been removed.
    pub fn is_gone(&self) -> bool {
        !self.folder.exists()
    }

    /// The folders in which the container is kept, with others.
    pub fn folders(&self) -> &Folders {
        &self.folders
    }

    /// The path of the container's log.
    pub fn log(&self) -> PathBuf {
        self.folder.join("container.log")
    }

    /// The name of the container's socket in the directory of sockets.
    pub fn socket(&self) -> String {
        format!("{}.sock", self.id)
    }

    pub(crate) fn life_path(&self) -> PathBuf {
        self.folders.run.join(format!("{}.lock", self.id))
    }

    /// Takes the container's life, if nobody has it: then the container has no monitor, and gets none meanwhile.
    ///
    /// # Errors
    /// The container has been removed.
    pub fn take_life(&self) -> Result<Option<Lock>> {
        let life = self.lock_life()?;
        if life.is_some() && self.is_gone() {
            let _ = fs::remove_file(self.life_path());
            bail!("no such container: {}", &self.id[..SHORT]);
        }
        Ok(life)
    }

    /// Takes the container's life, if nobody has it, whether the container is there or not.
    pub(crate) fn lock_life(&self) -> Result<Option<Lock>> {
        loop {
            let path = self.life_path();
            let file = File::options().create(true).append(true).open(&path);
            let file = file.with_context(|| path.display().to_string())?;
            match Lock::attempt(file)? {
                // The lock file was removed meanwhile, together with its container.
                Some(lock) if !lock.is_of(&path) => continue,
                life => return Ok(life),
            }
        }
    }

    /// Waits until nobody else freezes the container or has it go on, and keeps others from both.
    pub fn hold_still(&self) -> Result<Lock> {
        Ok(Lock::exclusive(self.open_still()?)?)
    }

    /// Waits until nobody freezes the container, and keeps others from doing so. Several processes may have it go on.
    pub fn keep_going(&self) -> Result<Lock> {
        Ok(Lock::shared(self.open_still()?)?)
    }

    fn open_still(&self) -> Result<File> {
        let path = self.folder.join(STILL);
        File::open(&path).with_context(|| path.display().to_string())
    }

    /// Gives the container the name `name`, and takes its old one.
    ///
    /// # Errors
    /// Another container has this name.
    pub fn rename(&self, name: &str) -> Result<()> {
        let _names = self.folders.lock_names()?;
        let record = self.record()?;
        if record.name == name {
            return Ok(());
        }
        if record.of_older_program && record.state.monitor.as_ref().is_some_and(is_running) {
            bail!(
                "container {0} was started by an older program, which can't read what this one writes\nhelp: `stop {0}` \
                 first, then `rename` it",
                record.name
            );
        }
        let old = record.name;
        self.folders.give_name(name, &self.id)?;
        let renamed = self.update(|record| record.name = name.into());
        let not_any_more = if renamed.is_ok() { &old } else { name };
        self.folders.take_name(not_any_more, &self.id);
        renamed.map(drop)
    }

    /// Removes the container, for good. The calling process has to hold its `life`.
    pub fn remove(&self, life: &Lock) -> Result<()> {
        debug_assert!(life.is_of(&self.life_path()));
        let gone = self.folders.containers.join(format!(".old-{}", self.id));
        let names = self.folders.lock_names()?;
        let _record = self.lock_record()?;
        let name = self.record().map(|record| record.name);
        unless_missing(fs::rename(&self.folder, &gone))
            .with_context(|| self.folder.display().to_string())?;
        if let Ok(name) = name {
            self.folders.take_name(&name, &self.id);
        }
        // The rest may take a while, and others need names meanwhile.
        drop(names);
        let torn_down = tear_down(&gone);
        for left in [self.folders.run.join(self.socket()), self.life_path()] {
            let _ = fs::remove_file(left);
        }
        torn_down
    }
}

impl Folders {
    /// The container `id`, which need not be there.
    pub(crate) fn container(&self, id: String) -> Container {
        Container {
            folder: self.containers.join(&id),
            id,
            folders: self.clone(),
        }
    }

    /// The container that has the name `name`.
    pub(crate) fn named(&self, name: &str) -> Option<Container> {
        let id = fs::read_link(self.names.join(name::valid(name).ok()?)).ok()?;
        let id = id.to_str().filter(|id| is_id(id))?;
        let container = self.container(id.into());
        match container.record() {
            // A link that a crash has left leads to nothing, or to a container of another name.
            Ok(record) => (record.name == name).then_some(container),
            // Its name is nobody else's, though we can't read it.
            Err(error) => error.is::<Newer>().then_some(container),
        }
    }

    /// Waits until nobody else gives or takes a name.
    pub(crate) fn lock_names(&self) -> Result<Lock> {
        Ok(Lock::exclusive(File::open(&self.names)?)?)
    }

    /// Gives the `name` to the container `id`. The calling process has to hold the lock of `names`.
    ///
    /// # Errors
    /// Another container has the name.
    pub(crate) fn give_name(&self, name: &str, id: &str) -> Result<()> {
        if let Some(other) = self.named(name).filter(|other| other.id != id) {
            bail!(
                "the name {name} is already in use by container {}\nhelp: `rm {name}` removes it, `rename` \
                 calls it otherwise",
                &other.id[..SHORT]
            );
        }
        let link = self.names.join(name);
        unless_missing(fs::remove_file(&link))?;
        symlink(id, &link).with_context(|| link.display().to_string())
    }

    /// Takes the `name` from the container `id`, if the container has it.
    pub(crate) fn take_name(&self, name: &str, id: &str) {
        let link = self.names.join(name);
        if fs::read_link(&link).is_ok_and(|target| target == Path::new(id)) {
            let _ = fs::remove_file(link);
        }
    }
}

//! All containers of one state folder.

use crate::container::folders::{Folders, unless_missing};
use crate::container::plan::{Plan, SHORT};
use crate::container::record::{Record, State, Time};
use crate::container::{Container, STILL, is_id, name, write};
use anyhow::{Context, Result, bail};
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use step04_pivot_root::lock::Lock;
use step04_pivot_root::state::StateDir;
use step07_cgroups::cgroup::group::new_id;
use step08_overlay::{tear_down, whole};

/// The containers of a state folder.
#[derive(Debug, Clone)]
pub struct Store {
    folders: Folders,
}

/// A container that is being made: nobody else sees it yet.
#[derive(Debug)]
pub struct Making<'a> {
    /// Its folder, as it is called now.
    pub aside: &'a Path,
    /// Its folder, as it will be called.
    pub folder: &'a Path,
    /// What it is to be.
    pub plan: &'a mut Plan,
}

/// What is known of all containers.
#[derive(Debug)]
pub struct Inventory {
    /// The newest first.
    pub records: Vec<(Container, Record)>,
    /// What is wrong with those whose record can't be read.
    pub broken: Vec<anyhow::Error>,
}

impl Store {
    /// Opens the store of `state`, and makes its directories where there are none.
    ///
    /// # Errors
    /// The calling process isn't root.
    pub fn open(state: &StateDir) -> Result<Store> {
        Folders::open(state).map(|folders| Store { folders })
    }

    /// The folders in which the store is.
    pub fn folders(&self) -> &Folders {
        &self.folders
    }

    /// All containers, in no order.
    pub fn containers(&self) -> Result<Vec<Container>> {
        let entries = fs::read_dir(&self.folders.containers);
        let entries = entries.with_context(|| self.folders.containers.display().to_string())?;
        let ids = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok());
        Ok(ids
            .filter(|id| is_id(id))
            .map(|id| self.folders.container(id))
            .collect())
    }

    /// All containers that have a record, the newest first; and what is wrong with the others.
    pub fn records(&self) -> Result<Inventory> {
        let (mut records, mut broken) = (Vec::new(), Vec::new());
        for container in self.containers()? {
            match container.record() {
                Ok(record) => records.push((container, record)),
                Err(error) if container.is_gone() => drop(error),
                Err(error) => broken.push(error),
            }
        }
        records.sort_by_key(|(_, record)| std::cmp::Reverse(record.created));
        Ok(Inventory { records, broken })
    }

    /// The container that `text` means: its ID, its name, or the first digits of its ID.
    ///
    /// # Errors
    /// There is no such container, or there are several.
    pub fn find(&self, text: &str) -> Result<Container> {
        if is_id(text) && self.folders.containers.join(text).exists() {
            return Ok(self.folders.container(text.into()));
        }
        if let Some(container) = self.folders.named(text) {
            return Ok(container);
        }
        let is_prefix = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mut found = match is_prefix {
            true => self.containers()?,
            false => Vec::new(),
        };
        found.retain(|container| container.id.starts_with(&text.to_lowercase()));
        match &found[..] {
            [] => bail!("no such container: {text}\nhelp: `ps -a` lists them"),
            [one] => Ok(one.clone()),
            several => {
                let ids: Vec<_> = several.iter().map(|each| &each.id[..SHORT]).collect();
                bail!(
                    "{text}: {} containers begin so: {}\nhelp: type more of the ID",
                    ids.len(),
                    ids.join(", ")
                )
            }
        }
    }

    /// Makes a container, and doesn't start it: the container has a record, and what `prepare` has put beside it. The
    /// caller gets its life.
    ///
    /// # Errors
    /// The name is in use; a plan that makes no sense; an error of `prepare`. Nothing is left of the container then.
    pub fn create(
        &self,
        name: Option<String>,
        plan: Plan,
        prepare: impl FnOnce(Making) -> Result<()>,
    ) -> Result<(Container, Lock)> {
        let container = self.folders.container(new_id()?);
        let life = loop {
            // A process that sweeps may have the life for a moment.
            if let Some(life) = container.lock_life()? {
                break life;
            }
        };
        // The folder has another name until it is whole. A folder with such a name that isn't locked was left by a
        // crash.
        let aside = self
            .folders
            .containers
            .join(format!(".new-{}", container.id));
        let names = self.folders.lock_names()?;
        DirBuilder::new().mode(0o700).create(&aside)?;
        let _in_making = Lock::exclusive(File::open(&aside)?)?;
        drop(names);
        let made = self.create_aside(&container, &aside, name, plan, prepare);
        if made.is_err() {
            let _ = tear_down(&aside);
            let _ = fs::remove_file(container.life_path());
        }
        made.map(|()| (container, life))
    }

    fn create_aside(
        &self,
        container: &Container,
        aside: &Path,
        wanted: Option<String>,
        plan: Plan,
        prepare: impl FnOnce(Making) -> Result<()>,
    ) -> Result<()> {
        // The file is made now, while there is space for it.
        File::create(aside.join(STILL))?;
        let mut record = Record {
            id: container.id.clone(),
            name: wanted.clone().map_or_else(|| name::random(0), Ok)?,
            created: Time::now(),
            plan: plan.resolve(aside)?,
            state: State::default(),
            of_older_program: false,
        };
        prepare(Making {
            aside,
            folder: &container.folder,
            plan: &mut record.plan,
        })?;
        let mut turn = 0;
        loop {
            // The record is written before `names` is locked: the disk takes its time, and nobody else is to wait for
            // it.
            write(aside, &record)?;
            let _names = self.folders.lock_names()?;
            match self.folders.give_name(&record.name, &container.id) {
                Err(_) if wanted.is_none() && turn < 100 => turn += 1,
                given => {
                    given?;
                    let appeared = fs::rename(aside, &container.folder);
                    if appeared.is_err() {
                        self.folders.take_name(&record.name, &container.id);
                    }
                    return Ok(appeared?);
                }
            }
            record.name = name::random(turn)?;
        }
    }

    /// Removes what crashes have left, which no command would find: folders of containers that were being made or
    /// removed, names, locks and sockets of containers that aren't there. Returns how many there were.
    pub fn sweep(&self) -> Result<usize> {
        let (mut swept, mut failed) = (whole::sweep(&self.folders.state), None);
        let names = self.folders.lock_names()?;
        for entry in fs::read_dir(&self.folders.containers)?.flatten() {
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            // A process that is making or removing a container has its folder locked.
            let Ok(folder) = File::open(entry.path()) else {
                continue;
            };
            if hidden && Lock::attempt(folder)?.is_some() {
                match tear_down(&entry.path()) {
                    Ok(()) => swept += 1,
                    // One folder that fails doesn't keep the others.
                    Err(error) => failed = Some(error),
                }
            }
        }
        for entry in fs::read_dir(&self.folders.names)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if self.folders.named(&name).is_none() && !self.leads_to_broken(&entry.path()) {
                match fs::remove_file(entry.path()) {
                    Ok(()) => swept += 1,
                    Err(error) => failed = Some(error.into()),
                }
            }
        }
        drop(names);
        for entry in fs::read_dir(&self.folders.run)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some((id, _)) = name.split_once('.') else {
                continue;
            };
            let container = self.folders.container(id.into());
            if !is_id(id) || !container.is_gone() {
                continue;
            }
            // A process that is making a container has its life from the beginning.
            let Some(_life) = container.lock_life()? else {
                continue;
            };
            if !container.is_gone() {
                continue;
            }
            // The lock file goes last, and once: the next file of its name belongs to another process.
            let (left, lock) = (entry.path(), container.life_path());
            if left != lock {
                unless_missing(fs::remove_file(left))?;
            }
            unless_missing(fs::remove_file(lock))?;
            swept += 1;
        }
        failed.map_or(Ok(swept), Err)
    }

    /// Whether the container of a name is there, and its record can't be read: the name may belong to it.
    fn leads_to_broken(&self, link: &Path) -> bool {
        let id = fs::read_link(link).ok();
        let id = id.and_then(|id| id.into_os_string().into_string().ok());
        id.filter(|id| is_id(id)).is_some_and(|id| {
            let container = self.folders.container(id);
            !container.is_gone() && container.record().is_err()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::scope;

    /// One thread clears away what crashes have left while others make and remove containers.
    #[test]
    fn making_beside_sweeping() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("state");
        let store = Store::open(&StateDir { dir }).unwrap();
        let lives = || {
            for _ in 0..500 {
                let (container, life) = store.create(None, Plan::default(), |_| Ok(())).unwrap();
                assert!(life.is_of(&container.life_path()), "its life is gone");
                container.remove(&life).unwrap();
            }
        };
        scope(|scope| {
            let makers = [(); 2].map(|()| scope.spawn(lives));
            while makers.iter().any(|maker| !maker.is_finished()) {
                store.sweep().unwrap();
            }
        });
        for directory in [
            &store.folders.containers,
            &store.folders.names,
            &store.folders.run,
        ] {
            assert_eq!(fs::read_dir(directory).unwrap().count(), 0, "{directory:?}");
        }
    }

    /// Somebody makes files in it as long as there is a directory to make them in.
    #[test]
    fn a_folder_in_use_is_removed() {
        const MANY: usize = 20_000;
        let folder = tempfile::tempdir().unwrap();
        let (gone, inside) = (
            folder.path().join("gone"),
            folder.path().join("gone/inside"),
        );
        fs::create_dir_all(&inside).unwrap();
        let made = scope(|scope| {
            let maker = scope.spawn(|| {
                let make = |number: &usize| File::create(inside.join(number.to_string())).is_ok();
                (0..MANY).take_while(make).count()
            });
            while !inside.join("9").exists() {}
            tear_down(&gone).unwrap();
            maker.join().unwrap()
        });
        assert!(!gone.exists() && made > 9);
    }
}

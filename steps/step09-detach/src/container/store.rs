//! Where containers are kept, and who may change one.
//!
//! ```text
//! /var/lib/ten-steps/containers/ID/   config.json, container.log, upper, still
//! /var/lib/ten-steps/names/NAME       a link to ID
//! /run/ten-steps/ID.lock, ID.sock     gone after a reboot
//! ```
//!
//! A container appears in one go, by a rename, and disappears so. Four locks keep commands apart, all freed by
//! the kernel when their holder dies (flock(2)): that of `names`, for as long as it takes to give or take a
//! name; that of a container's folder, for as long as it takes to read and replace its record; and its
//! *life*, `ID.lock`. Whoever starts a container takes its life and leaves it to the monitor, so it is held as
//! long as that lives; whoever removes the container has to get it first. The fourth is that of its file `still`, for
//! who freezes its processes or has them go on.

use crate::container::name;
use crate::container::plan::ContainerArgs;
use crate::container::record::{Record, SHORT, State, Time};
use crate::save;
use anyhow::{Context, Error, Result, anyhow, bail};
use nix::errno::Errno;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use step04_pivot_root::state::{StateDir, USUAL};
use step07_cgroups::cgroup::group::new_id;
use step07_cgroups::claim::is_at;
use step08_overlay::{tear_down, whole};

/// What is locked in a container's folder by who freezes it.
const STILL: &str = "still";

/// A state folder, and what belongs to it in /run.
#[derive(Debug, Clone)]
pub struct Store {
    /// The state folder itself.
    pub state: PathBuf,
    containers: PathBuf,
    names: PathBuf,
    run: PathBuf,
}

/// A container in a store. That it was there is all that is sure.
#[derive(Debug, Clone)]
pub struct Container {
    /// Its ID.
    pub id: String,
    /// Its folder.
    pub folder: PathBuf,
    store: Store,
}

/// What is known of all containers.
#[derive(Debug)]
pub struct Records {
    /// The newest first.
    pub records: Vec<(Container, Record)>,
    /// What is wrong with those whose record can't be read.
    pub broken: Vec<anyhow::Error>,
}

/// A lock that lasts as long as somebody has this file open, a process that was forked with it included.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// Waits for the lock of `file`.
    fn wait(file: File) -> Result<Lock> {
        Lock::wait_for(file, libc::LOCK_EX)
    }

    fn wait_for(file: File, operation: i32) -> Result<Lock> {
        loop {
            match flock(&file, operation) {
                Err(Errno::EINTR) => continue,
                locked => locked?,
            }
            return Ok(Lock(file));
        }
    }

    /// Takes the lock of `file`, if nobody has it.
    fn attempt(file: File) -> Result<Option<Lock>> {
        match flock(&file, libc::LOCK_EX | libc::LOCK_NB) {
            Err(Errno::EWOULDBLOCK) => Ok(None),
            locked => Ok(locked.map(|()| Some(Lock(file)))?),
        }
    }

    /// A lock that another process has left us, open as `descriptor`.
    ///
    /// # Safety
    /// The descriptor is open, and nobody else's.
    pub unsafe fn inherited(descriptor: RawFd) -> Lock {
        // SAFETY: as the caller says.
        Lock(unsafe { File::from_raw_fd(descriptor) })
    }

    /// Its descriptor, for who is to inherit it.
    pub fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    fn is_of(&self, path: &Path) -> bool {
        is_at(&self.0, path)
    }
}

/// The raw call: nix's own unlocks when the first of two processes lets go.
fn flock(file: &File, operation: i32) -> nix::Result<()> {
    // SAFETY: takes two integers.
    Errno::result(unsafe { libc::flock(file.as_raw_fd(), operation) }).map(drop)
}

impl Store {
    /// Opens the store of `state`, and makes its directories where there are none.
    ///
    /// # Errors
    /// It takes root.
    pub fn open(state: &StateDir) -> Result<Store> {
        let make = |path: &Path, mode| DirBuilder::new().recursive(true).mode(mode).create(path);
        let opened = || -> std::io::Result<Store> {
            make(&state.dir, 0o755)?;
            // As the mount table has it.
            let state = state.dir.canonicalize()?;
            let usual = Path::new(USUAL).canonicalize();
            let usual = usual.is_ok_and(|usual| usual == state);
            let store = Store {
                containers: state.join("containers"),
                names: state.join("names"),
                run: match usual {
                    true => "/run/ten-steps".into(),
                    false => state.join("run"),
                },
                state,
            };
            // Nobody may look into a container's files, whatever their modes.
            for folder in [&store.containers, &store.names, &store.run] {
                make(folder, 0o700)?;
            }
            Ok(store)
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

    /// The state folder, for those who want it as an argument.
    pub fn state(&self) -> StateDir {
        StateDir {
            dir: self.state.clone(),
        }
    }

    /// The directory of sockets.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// All containers, in no order.
    pub fn containers(&self) -> Result<Vec<Container>> {
        let entries = fs::read_dir(&self.containers);
        let entries = entries.with_context(|| self.containers.display().to_string())?;
        let ids = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok());
        Ok(ids
            .filter(|id| is_id(id))
            .map(|id| self.container(id))
            .collect())
    }

    /// All containers that have a record, the newest first; and what is wrong with the others.
    pub fn records(&self) -> Result<Records> {
        let (mut records, mut broken) = (Vec::new(), Vec::new());
        for container in self.containers()? {
            match container.record() {
                Ok(record) => records.push((container, record)),
                Err(error) if container.is_gone() => drop(error),
                Err(error) => broken.push(error),
            }
        }
        records.sort_by_key(|(_, record)| std::cmp::Reverse(record.created));
        Ok(Records { records, broken })
    }

    fn container(&self, id: String) -> Container {
        Container {
            folder: self.containers.join(&id),
            id,
            store: self.clone(),
        }
    }

    /// The container that somebody calls `text`: by its ID, its name, or the first digits of its ID.
    ///
    /// # Errors
    /// There is none, or there are several.
    pub fn find(&self, text: &str) -> Result<Container> {
        if is_id(text) && self.containers.join(text).exists() {
            return Ok(self.container(text.into()));
        }
        if let Some(container) = self.named(text) {
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

    /// The container of that name.
    fn named(&self, name: &str) -> Option<Container> {
        let id = fs::read_link(self.names.join(name::valid(name).ok()?)).ok()?;
        let id = id.to_str().filter(|id| is_id(id))?;
        let container = self.container(id.into());
        // A link that a crash has left leads to nothing, or to a container of another name.
        let record = container.record().ok()?;
        (record.name == name).then_some(container)
    }

    fn lock_names(&self) -> Result<Lock> {
        Lock::wait(File::open(&self.names)?)
    }

    /// Gives `id` the `name`, for which the lock of `names` is to be held.
    ///
    /// # Errors
    /// Another container has it.
    fn give_name(&self, name: &str, id: &str) -> Result<()> {
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

    fn take_name(&self, name: &str, id: &str) {
        let link = self.names.join(name);
        if fs::read_link(&link).is_ok_and(|target| target == Path::new(id)) {
            let _ = fs::remove_file(link);
        }
    }

    /// Makes a container, which isn't started: it has a record and nothing else. Its life is the caller's.
    ///
    /// # Errors
    /// The name is in use; arguments that make no sense.
    pub fn create(&self, arguments: ContainerArgs) -> Result<(Container, Lock)> {
        let container = self.container(new_id()?);
        let life = loop {
            // Whoever sweeps may have it for a moment.
            if let Some(life) = container.lock_life()? {
                break life;
            }
        };
        // Under another name until it is whole. What isn't locked there belongs to a crash.
        let aside = self.containers.join(format!(".new-{}", container.id));
        let names = self.lock_names()?;
        DirBuilder::new().mode(0o700).create(&aside)?;
        let _in_making = Lock::wait(File::open(&aside)?)?;
        drop(names);
        let made = self.create_aside(&container, &aside, arguments);
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
        arguments: ContainerArgs,
    ) -> Result<()> {
        // Made while there is space for it.
        File::create(aside.join(STILL))?;
        let wanted = arguments.name.clone();
        let mut record = Record {
            id: container.id.clone(),
            name: wanted.clone().map_or_else(|| name::random(0), Ok)?,
            created: Time::now(),
            arguments: arguments.resolve(&container.id, aside)?,
            state: State::default(),
        };
        let mut turn = 0;
        loop {
            // The disk takes its time, and nobody else is to wait for it.
            write(aside, &record)?;
            let _names = self.lock_names()?;
            match self.give_name(&record.name, &container.id) {
                Err(_) if wanted.is_none() && turn < 100 => turn += 1,
                given => {
                    given?;
                    let appeared = fs::rename(aside, &container.folder);
                    if appeared.is_err() {
                        self.take_name(&record.name, &container.id);
                    }
                    return Ok(appeared?);
                }
            }
            record.name = name::random(turn)?;
        }
    }

    /// Removes what crashes have left, which no command would find: folders of containers that were being made or
    /// removed, names, locks and sockets of containers that aren't there. Says how many.
    pub fn sweep(&self) -> Result<usize> {
        let (mut swept, mut failed) = (whole::sweep(&self.state), None);
        let names = self.lock_names()?;
        for entry in fs::read_dir(&self.containers)?.flatten() {
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            // Whoever is making or removing it has it locked.
            let Ok(folder) = File::open(entry.path()) else {
                continue;
            };
            if hidden && Lock::attempt(folder)?.is_some() {
                match tear_down(&entry.path()) {
                    Ok(()) => swept += 1,
                    // The others needn't stay for that.
                    Err(error) => failed = Some(error),
                }
            }
        }
        for entry in fs::read_dir(&self.names)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if self.named(&name).is_none() && !self.leads_to_broken(&entry.path()) {
                match fs::remove_file(entry.path()) {
                    Ok(()) => swept += 1,
                    Err(error) => failed = Some(error.into()),
                }
            }
        }
        drop(names);
        for entry in fs::read_dir(&self.run)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some((id, _)) = name.split_once('.') else {
                continue;
            };
            let container = self.container(id.into());
            if !is_id(id) || !container.is_gone() {
                continue;
            }
            // Whoever is making one has its life from the beginning.
            let Some(_life) = container.lock_life()? else {
                continue;
            };
            if !container.is_gone() {
                continue;
            }
            // The lock goes last, and once: the next of its name is somebody else's.
            let (left, lock) = (entry.path(), container.life_path());
            if left != lock {
                unless_missing(fs::remove_file(left))?;
            }
            unless_missing(fs::remove_file(lock))?;
            swept += 1;
        }
        failed.map_or(Ok(swept), Err)
    }

    /// Whether a name's container is there, and its record can't be read: it may be its name.
    fn leads_to_broken(&self, link: &Path) -> bool {
        let id = fs::read_link(link).ok();
        let id = id.and_then(|id| id.into_os_string().into_string().ok());
        id.filter(|id| is_id(id)).is_some_and(|id| {
            let container = self.container(id);
            !container.is_gone() && container.record().is_err()
        })
    }
}

/// Whether `text` is a whole ID.
fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whatever is missing, somebody has removed.
pub(crate) fn unless_missing(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn write(folder: &Path, record: &Record) -> Result<()> {
    let text = serde_json::to_vec_pretty(record)?;
    // Nobody wants back what is removed when it ends.
    save(&folder.join("config.json"), &text, !record.arguments.rm)
}

impl Container {
    /// Its record, as it is now.
    ///
    /// # Errors
    /// It isn't there any more, or the disk has damaged it.
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
            record.arguments.files.state = self.store.state();
            Ok(record)
        });
        record.map_err(|error| {
            anyhow!(
                "{}: {error:#}\nhelp: `rm -f {}` removes the container, whose record can't be read",
                path.display(),
                &self.id[..SHORT]
            )
        })
    }

    /// Changes its record, and nobody else does meanwhile.
    pub fn update(&self, change: impl FnOnce(&mut Record)) -> Result<Record> {
        let _lock = self.lock_record()?;
        let mut record = self.record()?;
        change(&mut record);
        write(&self.folder, &record)?;
        Ok(record)
    }

    fn lock_record(&self) -> Result<Lock> {
        let gone = || anyhow!("no such container: {}", &self.id[..SHORT]);
        let lock = Lock::wait(File::open(&self.folder).map_err(|_| gone())?)?;
        match lock.is_of(&self.folder) {
            true => Ok(lock),
            false => Err(gone()),
        }
    }

    /// Whether it has been removed.
    pub fn is_gone(&self) -> bool {
        !self.folder.exists()
    }

    /// Its store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Where its log is.
    pub fn log(&self) -> PathBuf {
        self.folder.join("container.log")
    }

    /// The name of its socket in the directory of sockets.
    pub fn socket(&self) -> String {
        format!("{}.sock", self.id)
    }

    fn life_path(&self) -> PathBuf {
        self.store.run.join(format!("{}.lock", self.id))
    }

    /// Takes its life, if nobody has it: then it has no monitor, and gets none meanwhile.
    ///
    /// # Errors
    /// It has been removed.
    pub fn take_life(&self) -> Result<Option<Lock>> {
        let life = self.lock_life()?;
        if life.is_some() && self.is_gone() {
            let _ = fs::remove_file(self.life_path());
            bail!("no such container: {}", &self.id[..SHORT]);
        }
        Ok(life)
    }

    fn lock_life(&self) -> Result<Option<Lock>> {
        loop {
            let path = self.life_path();
            let file = File::options().create(true).append(true).open(&path);
            let file = file.with_context(|| path.display().to_string())?;
            match Lock::attempt(file)? {
                // Removed meanwhile together with its container.
                Some(lock) if !lock.is_of(&path) => continue,
                life => return Ok(life),
            }
        }
    }

    /// Waits until nobody else freezes it or has it go on, and keeps it so.
    pub fn hold_still(&self) -> Result<Lock> {
        Lock::wait_for(self.open_still()?, libc::LOCK_EX)
    }

    /// Waits until nobody freezes it, and keeps it so: several may have it go on.
    pub fn keep_going(&self) -> Result<Lock> {
        Lock::wait_for(self.open_still()?, libc::LOCK_SH)
    }

    fn open_still(&self) -> Result<File> {
        let path = self.folder.join(STILL);
        File::open(&path).with_context(|| path.display().to_string())
    }

    /// Calls it `name` from now on.
    ///
    /// # Errors
    /// Another container is called so.
    pub fn rename(&self, name: &str) -> Result<()> {
        let _names = self.store.lock_names()?;
        let old = self.record()?.name;
        if old == name {
            return Ok(());
        }
        self.store.give_name(name, &self.id)?;
        let renamed = self.update(|record| record.name = name.into());
        let not_any_more = if renamed.is_ok() { &old } else { name };
        self.store.take_name(not_any_more, &self.id);
        renamed.map(drop)
    }

    /// Removes it, for good, by the right of who has its life.
    pub fn remove(&self, life: &Lock) -> Result<()> {
        debug_assert!(life.is_of(&self.life_path()));
        let gone = self.store.containers.join(format!(".old-{}", self.id));
        let names = self.store.lock_names()?;
        let _record = self.lock_record()?;
        let name = self.record().map(|record| record.name);
        unless_missing(fs::rename(&self.folder, &gone))
            .with_context(|| self.folder.display().to_string())?;
        if let Ok(name) = name {
            self.store.take_name(&name, &self.id);
        }
        // It may take a while, and others need names meanwhile.
        drop(names);
        let torn_down = tear_down(&gone);
        for left in [self.store.run.join(self.socket()), self.life_path()] {
            let _ = fs::remove_file(left);
        }
        torn_down
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::thread::scope;

    /// Somebody clears away what crashes have left while others make and remove containers.
    #[test]
    fn making_beside_sweeping() {
        #[derive(Parser)]
        struct Words {
            #[command(flatten)]
            container: ContainerArgs,
        }
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("state");
        let store = Store::open(&StateDir { dir }).unwrap();
        let lives = || {
            for _ in 0..500 {
                let words = Words::parse_from(["run", "true"]);
                let (container, life) = store.create(words.container).unwrap();
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
        for directory in [&store.containers, &store.names, &store.run] {
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

//! `cp`: files from the host into a container, and out of one.

use crate::copy::{Manner, Tree, copy, copy_contents};
use anyhow::{Context, Result, bail};
use clap::Args;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag};
use nix::unistd::{getgid, getuid};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf, absolute};
use step04_pivot_root::root::kind;
use step04_pivot_root::state::StateDir;
use step08_overlay::changes::Home;
use step08_overlay::layers::private_mounts;
use step09_detach::container::Container;
use step09_detach::container::record::Record;
use step09_detach::container::store::Store;

/// Copy files between a container and the host: CONTAINER:PATH is in a container, PATH on the host
#[derive(Debug, Args)]
pub struct Cp {
    /// Keep owners, and setuid
    #[arg(short, long)]
    archive: bool,

    /// Copy what SOURCE leads to, where it is a link
    #[arg(short = 'L', long)]
    follow_link: bool,

    /// What is copied; of a directory that ends in /. what is in it
    source: String,

    /// Where it goes: into a directory that is there, or to this name
    destination: String,

    #[command(flatten)]
    state: StateDir,
}

/// A file, on one of the two sides.
enum Side<'a> {
    Host(PathBuf),
    Container(&'a str, PathBuf),
}

/// Reads SOURCE or DESTINATION. What is before a colon is a container's name, unless the text begins as a path does.
fn side(text: &str) -> Result<Side<'_>> {
    match text.split_once(':') {
        Some((name, path)) if !name.contains('/') && !text.starts_with('.') => {
            Ok(Side::Container(name, Path::new("/").join(path)))
        }
        _ => Ok(Side::Host(keep_end(absolute(text)?, text))),
    }
}

/// The path with the slash at its end, if `text` ends in one.
fn keep_end(path: PathBuf, text: &str) -> PathBuf {
    match text.ends_with('/') {
        true => path.join(""),
        false => path,
    }
}

impl Cp {
    /// Copies SOURCE to DESTINATION.
    pub fn run(&self) -> Result<u8> {
        if self.source == "-" || self.destination == "-" {
            bail!("cp reads and writes no archives\nhelp: exec CONTAINER tar -c PATH | tar -x");
        }
        let store = Store::open(&self.state)?;
        let host =
            || -> Result<Tree> { Ok(Tree::new(directory(Path::new("/"))?, false, String::new())) };
        let (source, destination) = (side(&self.source)?, side(&self.destination)?);
        match (source, destination) {
            (Side::Container(name, from), Side::Host(to)) => {
                let ours = (getuid().as_raw(), getgid().as_raw());
                // On the host everybody could run a container's setuid program, with its owner's rights.
                let manner = self.manner(ours, false);
                inside(&store.find(name)?, |tree| {
                    self.copy(&tree, &from, &host()?, &to, manner)
                })
            }
            (Side::Host(from), Side::Container(name, to)) => {
                let manner = self.manner((0, 0), true);
                let host = host()?;
                inside(&store.find(name)?, |tree| {
                    self.copy(&host, &from, &tree, &to, manner)
                })
            }
            (Side::Host(_), Side::Host(_)) => {
                bail!("neither of the two is in a container\nhelp: CONTAINER:PATH is")
            }
            (Side::Container(..), Side::Container(..)) => {
                bail!("both are in containers\nhelp: copy to the host first, and from there")
            }
        }?;
        Ok(0)
    }

    fn manner(&self, owner: (u32, u32), keeps_setuid: bool) -> Manner {
        Manner {
            owner: (!self.archive).then_some(owner),
            keeps_setuid: keeps_setuid || self.archive,
        }
    }

    /// Copies by Docker's rules of what goes where.
    fn copy(
        &self,
        from: &Tree,
        source: &Path,
        to: &Tree,
        target: &Path,
        manner: Manner,
    ) -> Result<()> {
        let last_name = match source.components().next_back() {
            Some(Component::Normal(name)) => Some(name.to_owned()),
            _ => None,
        };
        let contents = self.source.ends_with("/.");
        let wants_directory = self.destination.ends_with('/') || self.destination.ends_with("/.");
        let source = match self.follow_link || contents || self.source.ends_with('/') {
            true => from.followed(source)?,
            false => from.place(source)?,
        };
        let Some(original) = source.stat()? else {
            bail!("{}: there is no such file", self.source);
        };
        let is_directory = kind(&original) == SFlag::S_IFDIR;
        if !is_directory && (contents || self.source.ends_with('/')) {
            bail!("{}: it is no directory", self.source);
        }
        if !to.is_closed && !wants_directory {
            // A link may have come out of a container with an earlier copy: then the container chose where it leads.
            let place = to.place(target)?;
            if place
                .stat()?
                .is_some_and(|found| kind(&found) == SFlag::S_IFLNK)
            {
                bail!(
                    "{}: that is a link\nhelp: name what it leads to, or put a slash behind it",
                    self.destination
                );
            }
        }
        let there = to.stat(target)?.map(|found| kind(&found));
        match there {
            Some(SFlag::S_IFDIR) => {
                let target = to.followed(target)?;
                match last_name {
                    Some(name) if !contents => copy(&source, &target.below(&name)?, manner),
                    // The root of a container has no name.
                    _ => copy_contents(&source, &target, manner),
                }
            }
            Some(kind) if kind != SFlag::S_IFREG => bail!(
                "{}: it is neither a file nor a directory, and stays as it is",
                self.destination
            ),
            Some(_) if is_directory => bail!("{}: it is no directory", self.destination),
            Some(_) if wants_directory => bail!("{}: it is no directory", self.destination),
            Some(_) => copy(&source, &to.followed(target)?, manner),
            None if wants_directory && !is_directory => {
                bail!("{}: there is no such directory", self.destination)
            }
            None => copy(&source, &to.followed(target)?, manner),
        }
    }
}

fn directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(path, flags, Mode::empty()).with_context(|| path.display().to_string())
}

/// Calls `work` with a container's root, as its processes see it, or as they will.
fn inside(container: &Container, work: impl FnOnce(Tree) -> Result<()>) -> Result<()> {
    let record = container.record()?;
    let tree = |root| Tree::new(root, true, format!("{}:", record.name));
    if container.status(&record).is_up() {
        if let Some(root) = root_of(&record)? {
            return work(tree(root));
        }
    }
    // While this process has the container's life, nobody else may start or remove the container.
    let Some(_life) = container.take_life()? else {
        bail!(
            "container {0} is being started, removed or copied to by somebody else\nhelp: try again, or `stop {0}` \
             when it is about to start again",
            record.name
        );
    };
    let plan = &record.plan;
    let home = Home::Lasting {
        folder: &container.folder,
        volatile: false,
    };
    let layers = match &plan.files.rootfs {
        Some(_) => None,
        None => Some(plan.layers.open(&plan.files, home, false)?),
    };
    // The private mounts are dropped before the layers, which then remove directories that the mounts had covered.
    let _home = private_mounts()?;
    let root = match (&layers, &plan.files.rootfs) {
        (Some(layers), _) => &layers.mount()?,
        (None, rootfs) => rootfs.as_deref().unwrap_or(Path::new("/")),
    };
    let tree = tree(directory(root)?);
    for volume in plan.layers.volumes()? {
        // A volume without a place was never mounted, and the container has nothing in it.
        if let Some(point) = tree.mount_point(volume.target())? {
            volume.attach_on(&point)?;
        }
    }
    work(tree)
}

/// The root directory of a container's PID 1, with all that is mounted there.
fn root_of(record: &Record) -> Result<Option<OwnedFd>> {
    let Some(process) = &record.state.process else {
        return Ok(None);
    };
    let root = directory(Path::new(&format!("/proc/{}/root", process.pid)));
    // If the process had ended before its root was opened, the PID might be another process's.
    match process.open()? {
        Some(_) => root.map(Some),
        None => Ok(None),
    }
}

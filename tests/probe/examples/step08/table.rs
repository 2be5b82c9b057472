//! The mounts of the calling process, and directories for them.

use probe::anyhow::{Context, Result};
use probe::nix::fcntl::{OFlag, open};
use probe::nix::mount::{MsFlags, mount};
use probe::nix::sys::stat::Mode;
use probe::{Findings, private_mounts};
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// A line of mountinfo: proc_pid_mountinfo(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// Where it is mounted.
    pub target: PathBuf,
    /// The options of this mount: `ro`, `nosuid` …
    pub options: BTreeSet<String>,
    /// How it is tied to others: `shared:7`, `master:7`, `unbindable`.
    pub tags: Vec<String>,
    /// Of what type the filesystem is.
    pub kind: String,
    /// The options of the filesystem.
    pub of_all: BTreeSet<String>,
}

impl Mounted {
    fn read(line: &str) -> Option<Mounted> {
        let (place, filesystem) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(4);
        let mut filesystem = filesystem.split(' ');
        let set = |text: &str| text.split(',').map(String::from).collect();
        Some(Mounted {
            target: step07_cgroups::unescaped(place.next()?),
            options: set(place.next()?),
            tags: place.map(String::from).collect(),
            kind: filesystem.next()?.into(),
            of_all: set(filesystem.nth(1)?),
        })
    }

    /// What it says of itself, for the learner.
    pub fn in_words(&self) -> String {
        let options: Vec<&str> = self.options.iter().map(String::as_str).collect();
        match self.tags.is_empty() {
            true => options.join(","),
            false => format!("{} {}", options.join(","), self.tags.join(" ")),
        }
    }
}

/// The mounts at `place` and below it, in the order of the table.
pub fn mounts_at(place: &Path) -> Result<Vec<Mounted>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let all = table.lines().filter_map(Mounted::read);
    Ok(all
        .filter(|mounted| mounted.target.starts_with(place))
        .collect())
}

/// Puts the scratch directory into memory, where nobody else sees it: an overlay that is unmounted waits for the disk of its
/// upper layer, with whatever others are writing there.
pub fn in_memory(findings: &Findings) -> Result<()> {
    private_mounts()?;
    tmpfs(&findings.scratch, MsFlags::empty())
}

/// Mounts a new tmpfs, on a directory that is made for it.
pub fn tmpfs(target: &Path, flags: MsFlags) -> Result<()> {
    fs::create_dir_all(target)?;
    let (none, kind) = (None::<&str>, Some("tmpfs"));
    mount(kind, target, kind, flags, none).with_context(|| target.display().to_string())
}

/// Ties the mount at `target` to others, or unties it.
pub fn propagation(target: &Path, how: MsFlags) -> Result<()> {
    let none = None::<&str>;
    mount(none, target, none, how, none).with_context(|| target.display().to_string())
}

/// A directory, open as the program opens it.
pub fn opened(path: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(path, flags, Mode::empty()).with_context(|| path.display().to_string())
}

/// Makes a directory anew, with these files in it.
pub fn folder(path: &Path, files: &[(&str, &str)]) -> Result<()> {
    if path.exists() {
        fs::remove_dir_all(path)?;
    }
    fs::create_dir_all(path)?;
    for (name, text) in files {
        let file = path.join(name);
        fs::create_dir_all(file.parent().unwrap_or(path))?;
        fs::write(file, text)?;
    }
    Ok(())
}

/// The text of a file, or what is wrong with it.
pub fn text_of(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| error.to_string())
}

//! A record, and what it is to have.

use probe::anyhow::{Context, Result};
use probe::libc::{self, c_long};
use probe::nix::mount::{MsFlags, mount};
use probe::nix::sched::{CloneFlags, unshare};
use probe::old;
use probe::{Claim, Findings, Outcome};
use std::fs;
use std::path::{Path, PathBuf};

pub const OLD: &[u8] = b"the old text, which is longer than some of the new ones\n";
pub const NEW: &[u8] = b"the new text\n";

/// The calls that name a file.
pub const RENAMING: &[c_long] = &[old::SYS_rename, libc::SYS_renameat, libc::SYS_renameat2];

/// The calls that wait for the disk.
pub const SYNCING: &[c_long] = &[
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync,
    libc::SYS_syncfs,
];

/// A folder with a record, on a filesystem of its own.
pub struct Records {
    pub folder: PathBuf,
    pub path: PathBuf,
}

impl Records {
    /// The mount is seen by this process and its children alone, and goes with them.
    pub fn new(scratch: &Path) -> Result<Records> {
        let folder = scratch.join("records");
        fs::create_dir(&folder)?;
        unshare(CloneFlags::CLONE_NEWNS)?;
        let (none, private) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
        mount(none, "/", none, private, none)?;
        mount(
            Some("records"),
            &folder,
            Some("tmpfs"),
            MsFlags::empty(),
            none,
        )
        .context("a filesystem for records")?;
        let path = folder.join("config.json");
        Ok(Records { folder, path })
    }

    /// As at the beginning: one file, with the old text.
    pub fn begin_again(&self) -> Result<()> {
        for name in self.names() {
            fs::remove_file(self.folder.join(name))?;
        }
        Ok(fs::write(&self.path, OLD)?)
    }

    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    pub fn has(&self, text: &[u8]) -> bool {
        fs::read(&self.path).is_ok_and(|there| there == text)
    }

    /// What a process reads that opens the file now.
    pub fn in_words(&self) -> String {
        in_words(&self.path)
    }

    /// What lies beside the record.
    pub fn left(&self) -> Vec<String> {
        let mut names = self.names();
        names.retain(|name| name != "config.json");
        names
            .iter()
            .map(|name| format!("{name} is left in the directory"))
            .collect()
    }
}

pub fn in_words(path: &Path) -> String {
    match fs::read(path) {
        Ok(bytes) if bytes.len() > 80 => format!("the file has {} bytes", bytes.len()),
        Ok(bytes) => format!("the file has {:?}", String::from_utf8_lossy(&bytes)),
        Err(error) => format!("the file can't be read: {error}"),
    }
}

/// That an error has left the old text, and nothing else.
pub fn nothing_left(findings: &Findings, when: &str, records: &Records, outcome: &Outcome) {
    let left = traces(records, outcome);
    let holds = left.is_empty();
    let why = "on the way that fails the new file has to be removed: whoever looks into the directory takes it for a record";
    let seen = match holds {
        true => "config.json alone".into(),
        false => left.join("; "),
    };
    let expected = format!("{when}, an error leaves the old text, and nothing else");
    let is_file = left.iter().all(|left| left.contains("in the directory"));
    let why = (!holds && is_file).then(|| why.into());
    findings.claim(Claim::new(expected, seen, holds).because(why));
}

/// What an error has left that it shouldn't.
pub fn traces(records: &Records, outcome: &Outcome) -> Vec<String> {
    let mut left = outcome.changes(&[]);
    left.extend(records.left());
    // Who sends the names to the disk, too, may fail when the new text has its name.
    if outcome.is_error() && !records.has(OLD) && !records.has(NEW) {
        left.push(format!("the old text is lost: {}", records.in_words()));
    }
    left
}

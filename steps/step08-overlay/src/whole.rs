//! A file that is there when it is whole, and not before.
//!
//! It is written without a name (O_TMPFILE in open(2)), so that nobody can have prepared the name that it gets, and the
//! kernel takes it away if its writer is killed. A file that has no name can't take somebody else's place by itself:
//! it gets a name that nobody can guess, and is renamed. What SIGKILL may leave in between is noted in the state folder
//! beforehand, and whoever sweeps there removes it.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, Flock, OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use step04_pivot_root::root::{LONGEST_PATH, by_descriptor, directory_at};
use step07_cgroups::cgroup::group::new_id;
use step07_cgroups::claim::{abandoned, claim};

/// A file in the making. Dropped before it has appeared, it leaves nothing.
pub struct Whole {
    folder: OwnedFd,
    path: PathBuf,
    /// Its name until it has its own, and whether there is such a file already.
    aside: OsString,
    is_named: bool,
    note: Note,
}

/// What is noted of it, as long as it is in the making: a file in the state folder, which its writer has locked.
struct Note {
    path: PathBuf,
    _lock: Flock<File>,
}

/// Where the notes of `state` are.
fn notes(state: &Path) -> PathBuf {
    state.join("saving")
}

impl Whole {
    /// Begins to write what will be the file `path`, and notes so below `state`. Returns what is written to, too.
    ///
    /// # Errors
    /// There is no such directory, or nobody may write there.
    pub fn begin(path: &Path, state: &Path) -> Result<(Whole, File)> {
        let path = std::path::absolute(path)?;
        let folder = path.parent().filter(|_| path.file_name().is_some());
        let folder = folder.context("it has no name")?;
        let id = new_id()?;
        // As long as it may be anywhere, however long its own name is.
        let aside = aside(OsStr::new(&id));
        let note = Note::take(state, &id, &folder.join(&aside))?;
        let mut whole = Whole {
            folder: directory_at(folder)?,
            path,
            aside,
            is_named: false,
            note,
        };
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
        let file = match openat(&whole.folder, ".", flags | OFlag::O_TMPFILE, mode) {
            // Not every filesystem has files without names.
            Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::ENOENT) => {
                let new = flags | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
                let file = openat(&whole.folder, whole.aside.as_os_str(), new, mode)?;
                whole.is_named = true;
                file
            }
            opened => opened?,
        };
        Ok((whole, File::from(file)))
    }

    /// Has `file`, which is complete, appear under its name, in the place of what is called so.
    pub fn appear(mut self, file: &File) -> Result<()> {
        file.sync_all()?;
        let (folder, aside) = (&self.folder, self.aside.as_os_str());
        if !self.is_named {
            let unnamed = by_descriptor(file);
            let follow = AtFlags::AT_SYMLINK_FOLLOW;
            linkat(AT_FDCWD, &unnamed, folder, aside, follow)?;
            self.is_named = true;
        }
        let name = self.path.file_name().unwrap_or_default();
        renameat(folder, aside, folder, name)?;
        self.is_named = false;
        Ok(())
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        if self.is_named {
            let _ = unlinkat(
                &self.folder,
                self.aside.as_os_str(),
                UnlinkatFlags::NoRemoveDir,
            );
        }
        let _ = fs::remove_file(&self.note.path);
    }
}

impl Note {
    fn take(state: &Path, id: &str, of: &Path) -> Result<Note> {
        let notes = notes(state);
        let shown = || notes.display().to_string();
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&notes);
        made.with_context(shown)?;
        let path = notes.join(id);
        let write = || fs::write(&path, of.as_os_str().as_bytes());
        let lock = claim(&path, write, || File::open(&path)).with_context(shown)?;
        Ok(Note { path, _lock: lock })
    }
}

/// Removes what was in the making below `state` by those who were killed. Says how much that was.
pub fn sweep(state: &Path) -> usize {
    let mut swept = 0;
    for entry in fs::read_dir(notes(state)).into_iter().flatten().flatten() {
        let Some(note) = abandoned(&entry.path()) else {
            continue;
        };
        let mut left = Vec::new();
        let read = (&*note).take(LONGEST_PATH as u64).read_to_end(&mut left);
        let left = PathBuf::from(OsString::from_vec(left));
        // Its name is one that nobody can have guessed: whatever its folder is by now, nobody else's file is called so.
        let is_ours = left
            .file_name()
            .is_some_and(|name| name == aside(&entry.file_name()));
        if read.is_ok() && is_ours && fs::remove_file(&left).is_ok() {
            swept += 1;
        }
        let _ = fs::remove_file(entry.path());
    }
    swept
}

/// What a file is called whose note is called `id`, until it has its own name.
fn aside(id: &OsStr) -> OsString {
    let digits = &id.as_bytes()[..id.len().min(16)];
    OsString::from_vec([b".", digits].concat())
}

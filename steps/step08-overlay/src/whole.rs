//! A file that appears when it is whole, and not before.
//!
//! The file is written without a name (O_TMPFILE in open(2)). So nobody can have prepared anything under its name,
//! and the kernel removes the file if its writer is killed. A file without a name can't replace another file
//! directly. First it gets a name that nobody can guess, and then it is renamed. SIGKILL may leave that name behind.
//! So a note in the state folder tells the name beforehand, and a later [`sweep`] removes the file.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use step04_pivot_root::lock::Lock;
use step04_pivot_root::root::{LONGEST_PATH, by_descriptor, directory_at};
use step07_cgroups::cgroup::group::new_id;
use step07_cgroups::claim::{Owners, abandoned, claim};

/// A file in the making. Dropped before it has appeared, it leaves nothing.
pub struct Whole {
    folder: OwnedFd,
    path: PathBuf,
    /// Its temporary name, and whether a file has that name already.
    aside: OsString,
    is_named: bool,
    note: Note,
}

/// The note of a file in the making: a file in the state folder, which the writer has locked.
struct Note {
    path: PathBuf,
    _lock: Lock,
}

/// The folder of the notes below `state`.
fn notes(state: &Path) -> PathBuf {
    state.join("saving")
}

impl Whole {
    /// Begins to write what will be the file `path`, and makes a note of it below `state`. Returns the file to write
    /// to, too.
    ///
    /// # Errors
    /// A directory that doesn't exist, or in which the caller may not write.
    pub fn begin(path: &Path, state: &Path) -> Result<(Whole, File)> {
        let path = std::path::absolute(path)?;
        let folder = path.parent().filter(|_| path.file_name().is_some());
        let folder = folder.context("it has no name")?;
        let id = new_id()?;
        // A temporary name that is short enough for any filesystem, however long the file's own name is.
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

    /// Gives `file`, which is complete, its own name. A file that had this name is replaced.
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
        let open = || File::open(&path);
        let lock = claim(&path, write, open, Owners::Several).with_context(shown)?;
        Ok(Note { path, _lock: lock })
    }
}

/// Removes the unfinished files of writers that were killed, as noted below `state`. Returns how many there were.
pub fn sweep(state: &Path) -> usize {
    let mut swept = 0;
    for entry in fs::read_dir(notes(state)).into_iter().flatten().flatten() {
        let Some(note) = abandoned(&entry.path()) else {
            continue;
        };
        let mut left = Vec::new();
        let read = (&*note).take(LONGEST_PATH as u64).read_to_end(&mut left);
        let left = PathBuf::from(OsString::from_vec(left));
        // The temporary name can't be guessed: whatever its folder is by now, nobody else's file is called so.
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

/// The temporary name of the file whose note is called `id`.
fn aside(id: &OsStr) -> OsString {
    let digits = &id.as_bytes()[..id.len().min(16)];
    OsString::from_vec([b".", digits].concat())
}

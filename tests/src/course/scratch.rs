//! A folder for what a check makes, that goes with it: also, at the next check, if somebody has killed this one.

use anyhow::Result;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;
use step04_pivot_root::lock::Lock;
use step04_pivot_root::removal::remove_tree;
use step07_cgroups::claim::abandoned;
use tempfile::TempDir;

/// How the names of such folders begin.
const PREFIX: &str = "check-";

/// A folder of a check's own. While its lock is held, the folder is in use.
pub struct Scratch {
    folder: TempDir,
    _lock: Option<Lock>,
}

impl Scratch {
    /// Makes one in the folder `state`, and removes those there that checks were killed in. Layers can lie in `state`,
    /// which they can't in a container's own /tmp. Whoever may not write there gets one in /tmp, and no further
    /// than chapter 4.
    pub fn new(state: &Path) -> Result<Scratch> {
        match fs::create_dir_all(state).and_then(|()| in_folder(state)) {
            Ok(scratch) => Ok(scratch),
            Err(_) => Ok(Scratch {
                folder: tempfile::tempdir()?,
                _lock: None,
            }),
        }
    }

    /// The folder's path.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

fn in_folder(state: &Path) -> io::Result<Scratch> {
    sweep(state)?;
    loop {
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(state)?;
        // Before it is locked, another check may take it for one that was left, and remove it.
        let lock = match File::open(folder.path()) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            opened => Lock::shared(opened?)?,
        };
        if lock.is_of(folder.path()) {
            return Ok(Scratch {
                folder,
                _lock: Some(lock),
            });
        }
    }
}

/// Removes the folders that no check uses.
fn sweep(state: &Path) -> io::Result<()> {
    for entry in fs::read_dir(state)?.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        if let Some(_lock) = abandoned(&entry.path()) {
            // What can't be removed keeps nobody from a check.
            let _ = remove_tree(&entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_check_was_killed_in_goes_and_what_one_uses_stays() {
        let state = tempfile::tempdir().unwrap();
        let left = state.path().join("check-left");
        fs::create_dir_all(left.join("root/srv")).unwrap();
        let others = state.path().join("images");
        fs::create_dir(&others).unwrap();
        let first = Scratch::new(state.path()).unwrap();
        assert!(!left.exists());
        let second = Scratch::new(state.path()).unwrap();
        assert!(first.path().exists());
        assert!(second.path().exists());
        drop((first, second));
        let names = fs::read_dir(state.path()).unwrap().flatten();
        let names: Vec<_> = names.map(|entry| entry.path()).collect();
        assert_eq!(names, [others]);
    }
}

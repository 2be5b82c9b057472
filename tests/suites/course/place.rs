//! Folders in which a test does exercises.

use crate::stage::run;
use nix::fcntl::{Flock, FlockArg};
use progress::chapters::CHAPTERS;
use progress::desk::exercises::{Author, Copy, give_away};
use progress::programs::workspace;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use tempfile::TempDir;

/// A folder for exercises. Where they usually lie, the scripts are two folders further up.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Place {
        let place = Place::as_in_a_fresh_clone();
        bring_dependencies(&place.path());
        place
    }

    /// Whoever builds in there waits for all dependencies first.
    pub fn as_in_a_fresh_clone() -> Place {
        let folder = crate::stage::folder();
        symlink(
            workspace().join("rootfs-scripts"),
            folder.path().join("rootfs-scripts"),
        )
        .unwrap();
        fs::create_dir(folder.path().join("exercises")).unwrap();
        Place(folder)
    }

    pub fn path(&self) -> PathBuf {
        self.0.path().join("exercises")
    }

    /// A folder for containers that are written down.
    pub fn state(&self) -> PathBuf {
        self.0.path().join("state")
    }
}

/// Saves whoever builds in the folder `exercises` the time for the dependencies: they are built once, below
/// the workspace's own target folder, and copied.
pub fn bring_dependencies(exercises: &Path) {
    static BUILT: LazyLock<PathBuf> = LazyLock::new(|| {
        let exercises = Path::new(env!("CARGO_TARGET_TMPDIR")).join("exercises");
        fs::create_dir_all(&exercises).unwrap();
        // Another run of the suites may be about it.
        let lock = File::create(exercises.with_extension("lock")).unwrap();
        let _lock = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
        let last = CHAPTERS.last().unwrap();
        let program = Copy::of(last, &exercises).build(|_| Author::Solution);
        give_away(exercises.parent().unwrap()).unwrap();
        program.unwrap().ancestors().nth(2).unwrap().to_owned()
    });
    // With a target folder of somebody's own, all exercises share what is below it.
    if std::env::var_os("CARGO_TARGET_DIR").is_some() {
        return;
    }
    run(Command::new("cp")
        .args(["-a", "--reflink=auto"])
        .arg(&*BUILT)
        .arg(exercises.join("target")));
}

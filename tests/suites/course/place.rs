//! Folders in which a test does exercises.

use crate::stage::run;
use nix::fcntl::{Flock, FlockArg};
use progress::chapters::chapter;
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

/// What all chapters depend on, built once below the workspace's own target folder: a target folder.
pub fn dependencies() -> &'static Path {
    static BUILT: LazyLock<PathBuf> = LazyLock::new(|| {
        let exercises = Path::new(env!("CARGO_TARGET_TMPDIR")).join("exercises");
        fs::create_dir_all(&exercises).unwrap();
        // Another run of the suites may be about it.
        let lock = File::create(exercises.with_extension("lock")).unwrap();
        let _lock = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
        let debug = Path::new(env!("CARGO_BIN_EXE_progress")).parent().unwrap();
        if !is_in_common() && !exercises.join("target").exists() {
            // Most of them the workspace has as they are to be. Whoever is ended meanwhile leaves no half of them.
            let aside = tempfile::tempdir_in(&exercises).unwrap();
            bring(debug, &aside.path().join("target"));
            fs::rename(aside.path().join("target"), exercises.join("target")).unwrap();
        }
        // Together these have the dependencies of all, with the features that each chapter has them with.
        let programs = [7, 11, 12].map(|number| {
            let chapter = chapter(number).unwrap();
            Copy::of(chapter, &exercises).build(|_| Author::Solution)
        });
        give_away(exercises.parent().unwrap()).unwrap();
        let [.., last] = programs.map(Result::unwrap);
        last.ancestors().nth(2).unwrap().to_owned()
    });
    &BUILT
}

/// Cargo's own folder, below which the crates of others lie.
pub fn cargo_home() -> PathBuf {
    let usual = || std::env::home_dir().unwrap_or_default().join(".cargo");
    std::env::var_os("CARGO_HOME").map_or_else(usual, Into::into)
}

/// With a target folder of somebody's own, all exercises share what is below it.
fn is_in_common() -> bool {
    std::env::var_os("CARGO_TARGET_DIR").is_some()
}

/// Saves whoever builds in the folder `exercises` the time for the dependencies.
pub fn bring_dependencies(exercises: &Path) {
    let built = dependencies().join("debug");
    if !is_in_common() {
        bring(&built, &exercises.join("target"));
    }
}

/// Copies what cargo has built in the folder `built` to where it would build it in the target folder `target`.
pub fn bring(built: &Path, target: &Path) {
    let debug = target.join("debug");
    fs::create_dir_all(&debug).unwrap();
    let copy = |how: &[&str], names: &[&str]| {
        let mut copy = Command::new("cp");
        copy.arg("--archive").args(how).arg("-t").arg(&debug);
        copy.args(names.iter().map(|name| built.join(name)));
        copy
    };
    // Neither the lock, which each has for itself, nor what speeds up the second build of the same sources.
    run(&mut copy(&[], &[".fingerprint", "build"]));
    // What is built is large, and replaced when it is old: it may have several names, on one filesystem.
    let linked = copy(&["--link"], &["deps"]).output().unwrap();
    if !linked.status.success() {
        run(&mut copy(
            &["--reflink=auto", "--remove-destination"],
            &["deps"],
        ));
    }
}

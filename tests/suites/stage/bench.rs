//! A place for images of a test's own, and step 8, which runs on them.

use crate::stage::{Root, folder, step};
use progress::host::container::{RunOutcome, run as run_program};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

pub const STEP: &str = "step08-overlay";

/// A state folder, and images beside it.
pub struct Bench {
    pub folder: TempDir,
    pub root: Root,
}

impl Bench {
    pub fn new() -> Bench {
        Bench {
            folder: folder(),
            root: Root::shared(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn arguments(&self, flags: &[&str], command: &[&str]) -> Vec<OsString> {
        let mut arguments = vec!["--state-dir".into(), self.path("state").into()];
        arguments.extend(flags.iter().chain(command).map(OsString::from));
        arguments
    }

    /// Runs on the flags' own images.
    pub fn bare(&self, flags: &[&str], command: &[&str]) -> RunOutcome {
        run_program(step(STEP), &self.arguments(flags, command)).unwrap()
    }

    /// Runs with the flags' images above the usual root.
    pub fn run(&self, flags: &[&str], line: &str) -> RunOutcome {
        let root = self.root.path();
        let flags = [flags, &["--image", root.to_str().unwrap()]].concat();
        self.bare(&flags, &["sh", "-c", line])
    }

    /// Nothing of a container is left.
    #[track_caller]
    pub fn is_clean(&self) {
        let left: Vec<_> = fs::read_dir(self.path("state/running"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        assert!(left.is_empty(), "{left:?}");
        let half = self.path("state/images/new");
        assert!(!half.exists(), "half an image is left");
    }
}

/// Writes a layer at `path` with these files, each with its text.
pub fn layer(path: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let file = path.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
}

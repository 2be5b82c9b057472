//! A state folder of a test's own, a pretend registry beside it, and the small Docker that pulls from there.

use crate::stage::dock::ended;
use crate::stage::{Printed, folder, step};
use assert_cmd::assert::Assert;
use progress::host::registry::{PretendRegistry, archive};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tar::EntryType;
use tempfile::TempDir;

pub const STEP: &str = "step11-pull";

pub struct Depot {
    pub folder: TempDir,
    pub state: PathBuf,
    pub registry: PretendRegistry,
}

impl Depot {
    pub fn new() -> Depot {
        let folder = folder();
        Depot {
            state: folder.path().join("state"),
            registry: PretendRegistry::start().unwrap(),
            folder,
        }
    }

    /// A subcommand, ready to run.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(step(STEP));
        command
            .args(words)
            .env("TEN_STEPS_STATE", &self.state)
            .env("DOCKER_CONFIG", self.folder.path().join("docker"))
            .env("RUST_BACKTRACE", "0");
        command
    }

    /// Runs it, with nothing to read.
    #[track_caller]
    pub fn run(&self, words: &[&str]) -> Assert {
        ended(&mut self.command(words))
    }

    /// Runs one that succeeds, and returns what it printed.
    #[track_caller]
    pub fn ok(&self, words: &[&str]) -> String {
        self.run(words).success().printed()
    }

    /// Runs one that fails, with `words` in its error.
    #[track_caller]
    pub fn fails(&self, command: &[&str], words: &str) -> Assert {
        let ran = self.run(command).code(125);
        ran.complains(words);
        ran
    }

    /// Puts an image of two layers into the pretend registry, and returns its name there and its manifest.
    pub fn push(&self, path: &str) -> (String, Value) {
        let manifest = self.registry.push(path, "1", &layers(), &json!({}));
        (self.registry.image(&format!("{path}:1")), manifest)
    }

    /// What is in a folder of the store, without what isn't whole.
    pub fn whole(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.state.join("registry").join(folder));
        let names = entries.into_iter().flatten().flatten();
        let names = names.map(|entry| entry.file_name().into_string().unwrap());
        let mut names: Vec<String> = names
            .filter(|name| !name.starts_with('.') && !name.ends_with(".part"))
            .collect();
        names.sort();
        names
    }

    /// Fails unless the store is sound, and has nothing whole in it but what is small.
    #[track_caller]
    pub fn has_nothing(&self) {
        assert_eq!(self.ok(&["images", "-q"]), "");
        assert_eq!(self.whole("layers"), [""; 0]);
        self.ok(&["image", "prune"]);
        assert_eq!(self.whole("blobs"), [""; 0]);
    }

    /// The directories that make up the root of an image, the topmost first.
    pub fn lower(&self, image: &str) -> Vec<PathBuf> {
        let json = self.ok(&["image", "inspect", "-f", "{{json .LowerDirs}}", image]);
        serde_json::from_str(&json).unwrap()
    }
}

/// Two layers: the second hides a file of the first.
pub fn layers() -> Vec<Vec<u8>> {
    use EntryType::{Directory, Regular};
    let noise = noise(1 << 20);
    vec![
        archive(&[
            ("etc", Directory, b""),
            ("etc/secret", Regular, b"secret"),
            ("etc/both", Regular, b"first"),
            ("large", Regular, &noise),
        ]),
        archive(&[
            ("etc/both", Regular, b"second"),
            ("etc/.wh.secret", Regular, b""),
        ]),
    ]
}

/// Bytes that can't be compressed, the same each time.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 88172645463325252_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// Lays the directories on each other, the topmost first, at `target`; in a mount namespace of the test's own.
pub fn lay(lower: &[PathBuf], target: &Path) {
    let lower: Vec<_> = lower
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    fs::create_dir_all(target).unwrap();
    match &lower[..] {
        [one] => crate::stage::run(Command::new("mount").args(["--bind", one]).arg(target)),
        several => crate::stage::run(
            Command::new("mount")
                .args(["-t", "overlay", "overlay", "-o"])
                .arg(format!("ro,lowerdir={}", several.join(":")))
                .arg(target),
        ),
    };
}

//! A place for bundles of a test's own, and the runtime of step 12, which makes containers of them.

use crate::stage::dock::ended;
use crate::stage::{Printed, Root, folder, step};
use assert_cmd::assert::Assert;
use nix::unistd::Pid;
use progress::host::container::eventually;
use progress::host::evidence::Process;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

pub const STEP: &str = "step12-oci";

/// Bundles, and what is written down of their containers.
pub struct Quay {
    pub folder: TempDir,
    pub root: Root,
}

impl Quay {
    pub fn new() -> Quay {
        Quay {
            folder: folder(),
            root: Root::shared(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where the containers are written down.
    pub fn state(&self) -> PathBuf {
        self.path("run")
    }

    /// The path of a container's control groups, which no other test has.
    pub fn groups_path(&self, name: &str) -> String {
        let own = self.folder.path().file_name().unwrap().to_str().unwrap();
        format!("quay-{}-{name}", own.trim_start_matches('.'))
    }

    /// The control groups of a container that are there.
    pub fn groups(&self, name: &str) -> Vec<PathBuf> {
        groups_at(&self.groups_path(name))
    }

    /// A subcommand, ready to run.
    pub fn command(&self, words: &[&str]) -> Command {
        self.by(step(STEP), words)
    }

    /// The same by another copy of the program.
    pub fn by(&self, program: &Path, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .arg("--root")
            .arg(self.state())
            .args(words)
            .env("RUST_BACKTRACE", "0")
            .env_remove("NOTIFY_SOCKET");
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

    /// A bundle for the container `name`, whose command is a line for a shell in the shared root. `change` has the last
    /// word about config.json.
    pub fn bundle(&self, name: &str, line: &str, change: impl FnOnce(&mut Value)) -> PathBuf {
        let bundle = self.path("bundles").join(name);
        fs::create_dir_all(&bundle).unwrap();
        let file = bundle.join("config.json");
        let _ = fs::remove_file(&file);
        self.ok(&["spec", "--bundle", bundle.to_str().unwrap()]);
        let mut config: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["sh", "-c", line]);
        config["root"] = json!({"path": self.root.path(), "readonly": true});
        config["linux"]["cgroupsPath"] = json!(format!("/{}", self.groups_path(name)));
        change(&mut config);
        fs::write(&file, config.to_string()).unwrap();
        bundle
    }

    /// A subcommand on the bundle of the container `name`, ready to run.
    pub fn on_bundle(&self, words: &[&str], name: &str) -> Command {
        let bundle = self.path("bundles").join(name);
        let bundle = bundle.to_str().unwrap();
        self.command(&[words, &["--bundle", bundle, name]].concat())
    }

    /// `create`, or another command that takes a bundle.
    #[track_caller]
    pub fn begin(&self, words: &[&str], name: &str) -> Assert {
        ended(&mut self.on_bundle(words, name))
    }

    /// A container that runs.
    #[track_caller]
    pub fn started(&self, name: &str, line: &str, change: impl FnOnce(&mut Value)) {
        self.bundle(name, line, change);
        self.begin(&["create"], name).success();
        self.ok(&["start", name]);
    }

    /// The container's process.
    pub fn process(&self, name: &str) -> Process {
        let state: Value = serde_json::from_str(&self.ok(&["state", name])).unwrap();
        Process(Pid::from_raw(state["pid"].as_i64().unwrap() as i32))
    }

    /// What the container does.
    pub fn status(&self, name: &str) -> String {
        let state: Value = serde_json::from_str(&self.ok(&["state", name])).unwrap();
        state["status"].as_str().unwrap().to_owned()
    }

    /// Removes a container, whatever it does.
    #[track_caller]
    pub fn remove(&self, name: &str) {
        self.ok(&["delete", "--force", name]);
        let groups = self.groups(name);
        assert!(groups.is_empty(), "{groups:?} are left");
    }

    /// Fails when anything of any container is left.
    #[track_caller]
    pub fn is_empty(&self) {
        let entries = fs::read_dir(self.state()).into_iter().flatten().flatten();
        let left: Vec<_> = entries.map(|entry| entry.path()).collect();
        assert!(left.is_empty(), "{left:?}");
        let own = self.folder.path().to_str().unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(own), "a mount is left: {mounts}");
        let groups = groups_at(&self.groups_path(""));
        assert!(groups.is_empty(), "{groups:?} are left");
        let gone = eventually(|| self.left().is_empty().then_some(()));
        assert!(gone.is_some(), "processes are left: {:?}", self.left());
    }

    /// The processes that have something of this place: a descriptor, a mount, a group.
    fn left(&self) -> Vec<Process> {
        let own = self.folder.path().to_str().unwrap();
        let groups = self.groups_path("");
        let has = |process: &Process| {
            let links = fs::read_dir(process.file("fd")).into_iter().flatten();
            let mut links = links.flatten().map(|entry| entry.path());
            let reads = |file: &str, words: &str| {
                fs::read_to_string(process.file(file)).is_ok_and(|text| text.contains(words))
            };
            let open = links.any(|link| {
                fs::read_link(link)
                    .is_ok_and(|link| link.to_str().is_some_and(|link| link.contains(own)))
            });
            open || reads("mountinfo", own) || reads("cgroup", &groups)
        };
        let me = Pid::this();
        let all = Process::all().into_iter();
        all.filter(|process| process.0 != me && has(process))
            .collect()
    }
}

/// The control groups, in all hierarchies, whose path begins with `path`.
fn groups_at(path: &str) -> Vec<PathBuf> {
    let read = |folder: &Path| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.path())
            .filter(|path| path.is_dir())
            .collect::<Vec<_>>()
    };
    let top = Path::new("/sys/fs/cgroup");
    let mut found: Vec<PathBuf> = read(top)
        .iter()
        .flat_map(|hierarchy| read(hierarchy))
        .collect();
    found.extend(read(top));
    found.retain(|group| {
        let name = group.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(path)
    });
    found
}

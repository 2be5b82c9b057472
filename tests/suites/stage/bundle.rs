//! A bundle of a test's own, and the runtime of step 12, which makes containers of it in a state folder of the test's own.

use crate::stage::dock::ended;
use crate::stage::{Printed, Root, folder, run, step};
use assert_cmd::assert::Assert;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use progress::host::container::run_with;
use progress::host::evidence::{Mount, Process};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use step07_cgroups::cgroup::group::{processes, remove_group};
use tempfile::TempDir;

pub const STEP: &str = "step12-oci";

/// A folder with a bundle in it. What a test leaves goes with it.
pub struct Bundle {
    pub folder: TempDir,
    /// An ID for a container that no other test has. Others begin with it.
    pub id: String,
    /// What `spec` writes, but for a command that only waits, and without a terminal.
    usual: Value,
}

impl Bundle {
    pub fn new() -> Bundle {
        let folder = folder();
        let name = folder.path().file_name().unwrap().to_string_lossy();
        let id = format!("suite{}", name.replace('.', "-"));
        let root = Root::for_links();
        // The files are the shared root's own, which nobody changes; the directories are the bundle's.
        run(Command::new("cp")
            .arg("-al")
            .arg(root.path())
            .arg(folder.path().join("rootfs")));
        let mut bundle = Bundle {
            folder,
            id,
            usual: Value::Null,
        };
        bundle.ok(&["spec"]);
        let text = fs::read_to_string(bundle.path("config.json")).unwrap();
        bundle.usual = serde_json::from_str(&text).unwrap();
        bundle.usual["process"]["terminal"] = json!(false);
        bundle.usual["process"]["args"] = json!(["sleep", "1000000"]);
        bundle.usual["root"]["readonly"] = json!(false);
        bundle.write(|_| {});
        bundle
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A path of the bundle as text, for config.json and command lines.
    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Writes config.json: the usual one with this change.
    pub fn write(&self, change: impl FnOnce(&mut Value)) {
        let mut config = self.usual.clone();
        change(&mut config);
        let text = serde_json::to_string_pretty(&config).unwrap();
        fs::write(self.path("config.json"), text).unwrap();
    }

    /// A file of the root, with the folders above it.
    pub fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path("rootfs").join(name.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// The runtime, ready to run in the bundle.
    pub fn command(&self, words: &[&str]) -> Command {
        self.command_by(&[], words)
    }

    /// The same, started by another program: the words `by` come first.
    pub fn command_by(&self, by: &[&str], words: &[&str]) -> Command {
        let program = step(STEP);
        let mut command = match by {
            [] => Command::new(program),
            [by, rest @ ..] => {
                let mut command = Command::new(by);
                command.args(rest).arg(program);
                command
            }
        };
        command
            .arg("--root")
            .arg(self.path("state"))
            .args(words)
            .current_dir(self.folder.path())
            .env("RUST_BACKTRACE", "0")
            .env_remove("LISTEN_FDS")
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

    /// Runs one that fails.
    #[track_caller]
    pub fn fails(&self, words: &[&str]) -> Assert {
        self.run(words).code(1)
    }

    /// Makes the container `id` of config.json as it is. Returns its process, which waits for `start`.
    #[track_caller]
    pub fn create(&self, id: &str) -> Process {
        let file = self.text(&format!("{id}.pid"));
        self.ok(&["create", "--pid-file", &file, id]);
        process_of(Path::new(&file))
    }

    /// Makes the bundle's container of the usual configuration with this change, and starts it.
    #[track_caller]
    pub fn begin(&self, change: impl FnOnce(&mut Value)) -> Process {
        self.begin_as(&self.id, change)
    }

    /// The same by another ID.
    #[track_caller]
    pub fn begin_as(&self, id: &str, change: impl FnOnce(&mut Value)) -> Process {
        self.write(change);
        let process = self.create(id);
        self.ok(&["start", id]);
        process
    }

    /// What a shell with `line` to do prints in a container of the usual configuration with this change. It succeeds, and
    /// nothing is left.
    #[track_caller]
    pub fn says(&self, line: &str, change: impl FnOnce(&mut Value)) -> String {
        let ran = self.runs(line, change).success();
        self.is_clean();
        ran.printed()
    }

    /// Runs a shell with `line` to do in a container of the usual configuration with this change, to its end.
    #[track_caller]
    pub fn runs(&self, line: &str, change: impl FnOnce(&mut Value)) -> Assert {
        self.write(|config| {
            config["process"]["args"] = json!(["sh", "-c", line]);
            change(config);
        });
        self.run(&["run", &self.id])
    }

    /// `create` fails with these words, and leaves nothing.
    #[track_caller]
    pub fn refuses(&self, change: impl FnOnce(&mut Value), words: &[&str]) {
        self.write(change);
        let refused = self.fails(&["create", &self.id]);
        for word in words {
            refused.complains(word);
        }
        self.is_clean();
    }

    /// Removes the bundle's container, whatever it does, and sees that nothing is left.
    #[track_caller]
    pub fn end(&self) {
        self.ok(&["delete", "--force", &self.id]);
        self.is_clean();
    }

    /// What the runtime says that the container does.
    #[track_caller]
    pub fn status(&self, id: &str) -> String {
        let state: Value = serde_json::from_str(&self.ok(&["state", id])).unwrap();
        state["status"].as_str().unwrap().to_owned()
    }

    /// The folders that are written down in the state folder.
    pub fn kept(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("state"))
            .into_iter()
            .flatten()
            .flatten();
        let mut names: Vec<_> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// The control groups of the bundle's containers that are there.
    pub fn groups(&self) -> Vec<PathBuf> {
        let entries = |folder: &Path| {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect::<Vec<_>>()
        };
        let top = Path::new("/sys/fs/cgroup");
        let hierarchies = entries(top).into_iter().chain([top.to_owned()]);
        let is_ours = |folder: &PathBuf| {
            let name = folder.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(&self.id)
        };
        let all = hierarchies.flat_map(|hierarchy| entries(&hierarchy));
        all.filter(is_ours).collect()
    }

    /// The processes that have something of the bundle mounted, or named on their command lines.
    pub fn processes(&self) -> Vec<Process> {
        let folder = self.folder.path().display().to_string();
        let has = |process: &Process, file: &str| {
            let text = fs::read(process.file(file)).unwrap_or_default();
            String::from_utf8_lossy(&text).contains(&folder)
        };
        let all = Process::all().into_iter();
        all.filter(|process| has(process, "cmdline") || has(process, "mountinfo"))
            .collect()
    }

    /// Fails when anything of any container is left.
    #[track_caller]
    pub fn is_clean(&self) {
        assert_eq!(self.kept(), [""; 0], "it is still written down");
        let groups = self.groups();
        assert!(groups.is_empty(), "groups are left: {groups:?}");
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let root = self.text("rootfs");
        assert!(!mounts.contains(&root), "a mount is left: {mounts}");
        let left = self.processes();
        let shown = |process: &Process| process.strings("cmdline").unwrap_or_default();
        assert!(
            left.is_empty(),
            "processes are left: {:?}",
            left.iter().map(shown).collect::<Vec<_>>()
        );
    }
}

impl Drop for Bundle {
    /// Nothing that a test started outlives it, even if the runtime fails.
    fn drop(&mut self) {
        for id in self.kept() {
            let _ = run_with(&mut self.command(&["delete", "--force", &id]));
        }
        let in_groups = self.groups();
        let members = in_groups.iter().flat_map(|folder| processes(folder));
        let left = self.processes().into_iter().map(|process| process.0);
        for pid in members.map(Pid::from_raw).chain(left) {
            let _ = kill(pid, Signal::SIGKILL);
        }
        for folder in &in_groups {
            let _ = remove_group(folder);
        }
        // What a test has mounted in a mount namespace of its own.
        let mounts = Mount::table(Path::new("/proc/thread-self/mountinfo")).unwrap_or_default();
        let ours = |mount: &&Mount| mount.target.starts_with(self.folder.path());
        for mount in mounts.iter().rev().filter(ours) {
            let _ = umount2(&mount.target, MntFlags::MNT_DETACH);
        }
    }
}

/// The process whose number is in `file`.
#[track_caller]
pub fn process_of(file: &Path) -> Process {
    let text = fs::read_to_string(file).unwrap();
    Process(Pid::from_raw(text.trim().parse().unwrap()))
}

/// A path as the root of `process` has it.
pub fn inside(process: Process, path: &str) -> PathBuf {
    process.file("root").join(path.trim_start_matches('/'))
}

/// The topmost mount at `target` in the mount table of `process`.
#[track_caller]
pub fn mount_at(process: Process, target: &str) -> Mount {
    let mounts = process.mounts().unwrap();
    let found = mounts
        .iter()
        .rfind(|mount| mount.target == Path::new(target));
    found
        .unwrap_or_else(|| panic!("nothing is mounted at {target}: {mounts:#?}"))
        .clone()
}

/// Whether the mount has this option of its own.
pub fn has(mount: &Mount, option: &str) -> bool {
    mount.options.split(',').any(|each| each == option)
}

/// Gives the directories of a tree to somebody. The files belong to others, too.
pub fn give_directories(path: &Path, owner: u32) {
    chown(path, Some(owner), Some(owner)).unwrap();
    for entry in fs::read_dir(path).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            give_directories(&entry.path(), owner);
        }
    }
}

/// Gives config.json these namespaces, and a new mount namespace.
pub fn part(config: &mut Value, kinds: &[&str]) {
    let kinds = kinds.iter().chain(&["mount"]);
    let namespaces: Vec<_> = kinds.map(|kind| json!({"type": kind})).collect();
    config["linux"]["namespaces"] = json!(namespaces);
    if !namespaces.contains(&json!({"type": "uts"})) {
        config.as_object_mut().unwrap().remove("hostname");
    }
}

/// Adds an element to a list of config.json, which may not be there yet.
pub fn push(list: &mut Value, element: Value) {
    match list {
        Value::Array(elements) => elements.push(element),
        nothing => *nothing = json!([element]),
    }
}

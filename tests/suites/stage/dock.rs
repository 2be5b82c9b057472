//! A state folder of a test's own, and the small Docker that keeps its containers there.

use crate::stage::{Printed, Root, folder, step};
use assert_cmd::assert::{Assert, OutputAssertExt};
use progress::host::container::{Container, eventually, run_with};
use progress::host::evidence::Process;
use serde_json::Value;
use std::fs;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub const STEP: &str = "step10-exec";

pub struct Dock {
    pub folder: tempfile::TempDir,
    pub root: Root,
    pub state: PathBuf,
}

impl Dock {
    pub fn new() -> Dock {
        let folder = folder();
        Dock {
            state: folder.path().join("state"),
            root: Root::shared(),
            folder,
        }
    }

    /// A subcommand, ready to run.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(step(STEP));
        command
            .args(words)
            .env("TEN_STEPS_STATE", &self.state)
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

    /// Runs one that fails with 125.
    #[track_caller]
    pub fn fails(&self, words: &[&str]) -> Assert {
        self.run(words).code(125)
    }

    fn image(&self) -> String {
        self.root.path().display().to_string()
    }

    /// The words that run `command` in a container of the shared root.
    pub fn words(&self, how: &[&str], flags: &[&str], command: &[&str]) -> Vec<String> {
        let image = self.image();
        [how, &["--image", &image], flags, command]
            .concat()
            .into_iter()
            .map(String::from)
            .collect()
    }

    /// `run` of a container.
    #[track_caller]
    pub fn run_in(&self, flags: &[&str], command: &[&str]) -> Assert {
        let words = self.words(&["run"], flags, command);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.run(&words)
    }

    /// `run -d`: returns the ID.
    #[track_caller]
    pub fn start(&self, flags: &[&str], command: &[&str]) -> String {
        let words = self.words(&["run", "-d"], flags, command);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.ok(&words).trim().to_owned()
    }

    /// A foreground command, started and looked at while it runs.
    pub fn foreground(&self, words: &[&str]) -> Container {
        Container::start_with(&mut self.command(words)).unwrap()
    }

    /// The whole ID of a container.
    pub fn id(&self, name: &str) -> String {
        let id = self.ok(&["inspect", "-f", "{{.Id}}", name]);
        id.trim().to_owned()
    }

    pub fn container(&self, id: &str) -> PathBuf {
        self.state.join("containers").join(id)
    }

    pub fn record(&self, id: &str) -> Value {
        let text = fs::read(self.container(id).join("config.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// `process` or `monitor` of the record.
    pub fn process(&self, id: &str, which: &str) -> Process {
        let pid = self.record(id)["state"][which]["pid"].as_i64().unwrap();
        Process(nix::unistd::Pid::from_raw(pid as i32))
    }

    /// What `ps` says: its state, and its sentence.
    pub fn status(&self, name: &str) -> (String, String) {
        let listed = self.ok(&["ps", "-a", "--no-trunc", "--format", "json"]);
        let lines = listed
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut found = lines.filter(|line| line["ID"] == name || line["Names"] == name);
        found.next().map_or(("none".into(), String::new()), |line| {
            let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            (text("State"), text("Status"))
        })
    }

    pub fn logs(&self, name: &str) -> String {
        self.ok(&["logs", name])
    }

    /// Waits until it has said `text`.
    pub fn until_it_says(&self, name: &str, text: &str) {
        let said = eventually(|| self.logs(name).contains(text).then_some(()));
        assert!(
            said.is_some(),
            "{name} didn't say {text}: {}",
            self.logs(name)
        );
    }

    /// Fails when anything of any container is left.
    pub fn is_empty(&self) {
        for name in ["containers", "names", "run"] {
            let left: Vec<_> = fs::read_dir(self.state.join(name))
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path())
                .collect();
            assert!(left.is_empty(), "{left:?}");
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let state = self.state.display().to_string();
        assert!(!mounts.contains(&state), "a mount is left: {mounts}");
        // Who has told of the end is about to leave.
        let gone = eventually(|| monitors(&self.state).is_empty().then_some(()));
        assert!(
            gone.is_some(),
            "monitors are left: {:?}",
            monitors(&self.state)
        );
    }
}

/// Runs a program that may have to wait for others: until somebody has reaped what a killed process has left,
/// say, which some machines' first processes do every other second.
#[track_caller]
pub fn ended(command: &mut Command) -> Assert {
    let [mut output, mut errors] = [(); 2].map(|()| tempfile::tempfile().unwrap());
    command
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(errors.try_clone().unwrap());
    let mut child = command.spawn().unwrap();
    let Some(status) = eventually(|| child.try_wait().unwrap()) else {
        child.kill().unwrap();
        child.wait().unwrap();
        panic!("{command:?}: it hangs");
    };
    let bytes = |file: &mut fs::File| {
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    };
    let output = Output {
        status,
        stdout: bytes(&mut output),
        stderr: bytes(&mut errors),
    };
    output
        .assert()
        .append_context("command", format!("{command:?}"))
}

/// The monitors of a state folder.
pub fn monitors(state: &Path) -> Vec<Process> {
    let state = state.display().to_string();
    Process::all()
        .into_iter()
        .filter(|process| {
            let words = process.strings("cmdline").unwrap_or_default();
            words
                .first()
                .is_some_and(|word| word == "ten-steps-monitor")
                && words.iter().any(|word| word.contains(&state))
        })
        .collect()
}

/// The control groups of a container that are there.
pub fn groups_of(id: &str) -> Vec<PathBuf> {
    let tops = fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten();
    tops.map(|entry| entry.path())
        .chain(["/sys/fs/cgroup".into()])
        .map(|top| top.join("ten-steps").join(id))
        .filter(|folder| folder.exists())
        .collect()
}

impl Drop for Dock {
    /// Nothing that a test started outlives it.
    fn drop(&mut self) {
        if let Ok(ids) = run_with(&mut self.command(&["ps", "-aq", "--no-trunc"])) {
            for id in ids.output.lines() {
                let _ = run_with(&mut self.command(&["rm", "-f", id]));
            }
        }
    }
}

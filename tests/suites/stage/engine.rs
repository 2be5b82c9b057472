//! A Docker engine of a test's own: Debian's, on a socket and a data folder of its own.

use crate::stage::clients::Groups;
use crate::stage::folder;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use progress::host::container::{eventually, in_a_while};
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use tempfile::TempDir;

/// A running engine. It ends, with all that it has, when this goes away.
pub struct Engine {
    process: Child,
    folder: TempDir,
    groups: Groups,
}

impl Engine {
    /// Starts an engine and waits until it answers.
    pub fn start() -> Engine {
        let folder = folder();
        let groups = Groups::new();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let log = fs::File::create(at("log")).unwrap();
        // What it mounts is gone with its mount namespace.
        let process = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "dockerd"])
            .args(["--data-root", &at("data"), "--exec-root", &at("exec")])
            .args([
                "--pidfile",
                &at("pid"),
                "-H",
                &format!("unix://{}", at("sock")),
            ])
            .args([
                "--iptables=false",
                "--ip6tables=false",
                "--bridge=none",
                "--ip-forward=false",
            ])
            .args(["--cgroup-parent", &groups.parent()])
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let engine = Engine {
            process,
            folder,
            groups,
        };
        let answers = in_a_while(|| {
            let version = engine
                .docker()
                .arg("version")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            version.unwrap().success().then_some(())
        });
        let log = || fs::read_to_string(engine.at("log")).unwrap();
        answers.unwrap_or_else(|| panic!("{}", log()));
        engine
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Has a command talk to this engine.
    pub fn with<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env(
            "DOCKER_HOST",
            format!("unix://{}", self.at("sock").display()),
        )
    }

    /// The client.
    pub fn docker(&self) -> Command {
        let mut docker = Command::new("docker");
        self.with(&mut docker);
        docker
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.process.id() as i32), Signal::SIGTERM);
        let _ = self.process.wait();
        let removed = eventually(|| self.groups.remove().then_some(()));
        assert!(
            removed.is_some() || thread::panicking(),
            "a group is left behind"
        );
    }
}

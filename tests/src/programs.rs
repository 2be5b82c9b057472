//! Where the programs of the steps are.

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::collections::HashMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

/// The programs of the steps, by package.
pub struct Programs(HashMap<String, PathBuf>);

/// A line of `cargo build --message-format=json`, as far as it says where a program is.
#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    executable: Option<PathBuf>,
    #[serde(default)]
    target: Option<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// The top of the workspace.
pub fn workspace() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_owned()
}

impl Programs {
    /// Builds the programs of `packages` and their probes with cargo, all of them when none is named, and asks it where they are. Who
    /// learns chapter 1 doesn't wait for what chapter 11 is made of.
    ///
    /// Under sudo cargo runs as the user who called sudo, so that nothing in the checkout comes to
    /// belong to root.
    pub fn build(packages: &[&str]) -> Result<Programs> {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo
            .current_dir(workspace())
            .args([
                "build",
                "--quiet",
                "--message-format=json-render-diagnostics",
            ])
            // With the features that the whole workspace gives its dependencies: they are built once, whoever asks.
            .arg("--workspace");
        match packages {
            [] => drop(cargo.args(["--bins", "--examples"])),
            packages => {
                let probes = packages.iter().filter_map(|package| {
                    let probe = format!("{package}-probe");
                    let source = format!("tests/probe/examples/{probe}.rs");
                    workspace().join(source).exists().then_some(probe)
                });
                let probes: Vec<String> = probes.collect();
                cargo.args(packages.iter().flat_map(|package| ["--bin", package]));
                cargo.args(probes.iter().flat_map(|probe| ["--example", probe]));
            }
        }
        cargo.stdin(Stdio::null()).stderr(Stdio::inherit());
        let caller = |name: &str| env::var(name).ok()?.parse().ok();
        if let (Some(user), Some(group)) = (caller("SUDO_UID"), caller("SUDO_GID")) {
            cargo.uid(user).gid(group);
        }
        let output = cargo.output().context("cargo, which builds the programs")?;
        if !output.status.success() {
            bail!("the programs don't build: {}", output.status);
        }
        let lines = output.stdout.split(|&byte| byte == b'\n');
        let messages = lines.filter_map(|line| serde_json::from_slice::<Message>(line).ok());
        let programs =
            messages.filter_map(|message| Some((message.target?.name, message.executable?)));
        Ok(Programs(programs.collect()))
    }

    /// Takes the programs that lie in `directory`.
    pub fn in_directory(directory: &Path) -> Result<Programs> {
        let entries = fs::read_dir(directory)
            .with_context(|| format!("--bin-dir {}", directory.display()))?;
        let programs = entries.flatten().filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some((name, entry.path().canonicalize().ok()?))
        });
        Ok(Programs(programs.collect()))
    }

    /// The program of `package`.
    pub fn path(&self, package: &str) -> Result<&Path> {
        let path = self.0.get(package).map(PathBuf::as_path);
        path.with_context(|| format!("{package} isn't among the programs that were built"))
    }
}

//! Exercise 4.4: three root filesystems that answer "No such file or directory", to be repaired.

use crate::programs::workspace;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The kinds of `break.sh` that are to be repaired.
pub const KINDS: [&str; 3] = ["missing-loader", "dangling-loader-link", "crlf-shebang"];

/// Their folders. One that was named after its fault would leave nothing to find out.
const FOLDERS: [&str; 3] = ["a", "b", "c"];

/// The broken roots in one folder: one a kind, and a whole one beside them.
pub struct Repairs(PathBuf);

impl Repairs {
    /// The roots in `folder`, which need not be there yet.
    pub fn at(folder: &Path) -> Repairs {
        Repairs(folder.into())
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.0
    }

    /// The root of a kind.
    pub fn root(&self, kind: &str) -> PathBuf {
        let position = KINDS.iter().position(|known| *known == kind);
        self.0
            .join(position.map_or(kind, |position| FOLDERS[position]))
    }

    /// The root that isn't broken.
    fn whole(&self) -> PathBuf {
        self.0.join("whole")
    }

    /// The command that fails in the root of a kind.
    pub fn command(&self, kind: &str) -> Result<String> {
        let file = self.root(kind).with_extension("command");
        let text = fs::read_to_string(&file).with_context(|| {
            format!(
                "{} isn't there\nhelp: cargo progress reset 4.4 makes the three roots again",
                file.display()
            )
        })?;
        Ok(text.trim().into())
    }

    /// Whether they have been made.
    pub fn exist(&self) -> bool {
        KINDS.iter().all(|kind| self.command(kind).is_ok())
    }

    /// Makes the roots and breaks them.
    pub fn make(&self) -> Result<()> {
        if self.0.exists() {
            fs::remove_dir_all(&self.0)?;
        }
        fs::create_dir_all(&self.0).with_context(|| self.0.display().to_string())?;
        run(script("from-host.sh").arg("--small").arg(self.whole()))?;
        for kind in KINDS {
            run(Command::new("cp")
                .arg("-a")
                .arg(self.whole())
                .arg(self.root(kind)))?;
            let command = run(script("break.sh").arg(kind).arg(self.root(kind)))?;
            fs::write(self.root(kind).with_extension("command"), command)?;
        }
        Ok(())
    }

    /// Repairs the root of a kind as we would.
    pub fn mend(&self, kind: &str) -> Result<()> {
        let remedy = match kind {
            "crlf-shebang" => "sed -i 's/\\r$//' usr/local/bin/greet",
            // With tar every link comes along, which cp -r would turn into a copy or leave out.
            _ => "here=$PWD; cd \"$WHOLE\"; tar -c lib* usr/lib* | tar -x -C \"$here\"",
        };
        let mut shell = Command::new("sh");
        shell.args(["-ec", remedy]).env("WHOLE", self.whole());
        run(shell.current_dir(self.root(kind))).map(drop)
    }
}

fn script(name: &str) -> Command {
    Command::new(workspace().join("rootfs-scripts").join(name))
}

/// Runs a command that must go well, and returns what it printed.
fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?}: {}: {}", output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

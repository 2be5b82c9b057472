//! One function an exercise: what the kernel says of a program that does it.
//!
//! A check runs on the pretend host. It starts the chapter's program and reads the evidence; the
//! program's own word counts for nothing.

pub mod step01;
pub mod step02;
pub mod step03;
pub mod step04;
pub mod step05;
pub mod step06;
pub mod step07;
pub mod step08;
pub mod step09;
pub mod step10;

use crate::container::Container;
use crate::course::Chapter;
use crate::evidence::{Process, read_proc_at};
use crate::host::{as_root, is_pretend};
use crate::programs::workspace;
use crate::report::Report;
use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::getpid;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use step04_pivot_root::state::StateDir;

/// A check: what it claims of the program, and whether that holds.
pub type Check = fn(&Workbench) -> Result<Vec<Claim>>;

/// What a check has at hand.
pub struct Workbench {
    /// The chapter's program.
    pub program: PathBuf,
    /// A place for what a check makes.
    pub scratch: PathBuf,
    /// Where the learner's broken roots are, when these are to be looked at instead of our own.
    pub broken: Option<PathBuf>,
}

impl Workbench {
    /// A root filesystem from this machine's programs, which a check may not change.
    pub fn root(&self) -> Result<PathBuf> {
        let root = self.scratch.join("root");
        if !root.exists() {
            let script = workspace().join("rootfs-scripts/from-host.sh");
            let made = Command::new(&script).arg("--small").arg(&root).status()?;
            if !made.success() {
                bail!("{}: {made}", script.display());
            }
        }
        Ok(root)
    }

    /// The arguments that run `command` in that root: `flags`, which may say `-i`, come first.
    pub fn in_root(&self, flags: &[&str], command: &[&str]) -> Result<Vec<OsString>> {
        let mut arguments: Vec<OsString> = vec!["--rootfs".into(), self.root()?.into()];
        arguments.extend(flags.iter().chain(command).map(OsString::from));
        Ok(arguments)
    }

    /// The words of a scene, with a root filesystem for `{root}`.
    pub fn words(&self, scene: &[&str]) -> Result<Vec<String>> {
        let word = |word: &&str| match *word {
            "{root}" => Ok(self.root()?.display().to_string()),
            word => Ok(word.into()),
        };
        scene.iter().map(word).collect()
    }
}

/// Something that must be true, and what the kernel says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// What must be true.
    pub expected: String,
    /// The file that tells, and what it says.
    pub seen: String,
    /// Whether it is true.
    pub holds: bool,
    /// Why it isn't, where the evidence itself tells.
    #[serde(default)]
    pub why: Option<String>,
}

impl Claim {
    /// A claim that holds when `holds` does.
    pub fn new(expected: impl Into<String>, seen: impl Into<String>, holds: bool) -> Claim {
        Claim {
            expected: expected.into(),
            seen: seen.into(),
            holds,
            why: None,
        }
    }

    /// The same claim, with the reason for which it doesn't hold.
    pub fn because(self, why: Option<String>) -> Claim {
        Claim { why, ..self }
    }

    /// A claim that `seen`, which `source` says, is just `wanted`.
    pub fn equal<T: std::fmt::Debug + PartialEq>(
        expected: &str,
        source: &str,
        seen: &T,
        wanted: &T,
    ) -> Claim {
        Claim::new(
            format!("{expected}; {source}: {wanted:?}"),
            format!("{source}: {seen:?}"),
            seen == wanted,
        )
    }
}

/// Runs the checks of a chapter right here, of all its exercises or of `only` one, and hands each
/// report on. Everything that they make is in one folder, which goes away.
///
/// # Errors
/// This isn't a pretend host: what a check undoes would be somebody's.
pub fn examine(
    chapter: &Chapter,
    program: &Path,
    only: Option<usize>,
    broken: Option<PathBuf>,
    mut tell: impl FnMut(&Report) -> Result<()>,
) -> Result<()> {
    on_workbench(program, broken, |bench| {
        let positions = 0..chapter.exercises.len();
        let mut over = false;
        for position in positions.filter(|&position| only.is_none_or(|only| only == position)) {
            let report = match over {
                true => Report::unseen(chapter, position),
                false => Report::of(chapter, position, bench)?,
            };
            tell(&report)?;
            over = report.is_last;
        }
        Ok(())
    })
}

/// Does some work at a workbench for `program`, on the pretend host that this has to be.
pub fn on_workbench<T>(
    program: &Path,
    broken: Option<PathBuf>,
    work: impl FnOnce(&Workbench) -> Result<T>,
) -> Result<T> {
    if !is_pretend() {
        bail!("this is for a pretend host\nhelp: cargo progress check");
    }
    // Layers can lie in the state folder, which they can't in a container's own /tmp. Whoever may not write
    // there gets no further than chapter 4.
    let state = StateDir::default().dir;
    let scratch = std::fs::create_dir_all(&state)
        .and_then(|()| tempfile::Builder::new().prefix("check-").tempdir_in(&state))
        .or_else(|_| tempfile::tempdir())?;
    let window = scratch.path().join("proc");
    std::fs::create_dir(&window)?;
    let none = None::<&str>;
    mount(none, &window, Some("proc"), MsFlags::empty(), none)
        .context("a procfs for the checks")?;
    read_proc_at(window.clone());
    let done = work(&Workbench {
        program: program.into(),
        scratch: scratch.path().into(),
        broken,
    });
    umount2(&window, MntFlags::MNT_DETACH)?;
    done
}

/// What the hidden commands of `progress` say, which run on a pretend host: a line of JSON each.
pub fn elsewhere<T: for<'a> Deserialize<'a>>(progress: &Path, words: &[&str]) -> Result<Vec<T>> {
    // The same few directories come first everywhere.
    let path = std::env::var("PATH").unwrap_or_default();
    let output = as_root(progress)
        .args(["pretend-host", "--"])
        .arg(progress)
        .args(words)
        .env("PATH", format!("{}:{path}", step01_uts::PATH))
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .output()?;
    let lines = serde_json::Deserializer::from_slice(&output.stdout).into_iter();
    let lines = lines.collect::<Result<Vec<T>, _>>()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "the pretend host ended before the checks were through: {} {}",
            output.status,
            said.trim()
        );
    }
    Ok(lines)
}

/// Has the checks of a chapter run on a pretend host, by the program `progress`, on the program `step`.
pub fn examine_elsewhere(
    progress: &Path,
    chapter: &Chapter,
    step: &Path,
    only: Option<usize>,
    broken: Option<&Path>,
) -> Result<Vec<Report>> {
    let number = chapter.number.to_string();
    let step = step.to_string_lossy();
    let mut words = vec!["examine", &number, &step];
    let only = only.map(|position| position.to_string());
    if let Some(only) = &only {
        words.extend(["--only", only]);
    }
    let broken = broken.map(Path::to_string_lossy);
    if let Some(broken) = &broken {
        words.extend(["--broken", broken]);
    }
    elsewhere(progress, &words)
}

/// A command that says when it is ready, and ends with its input.
const READY: [&str; 3] = ["sh", "-c", "echo ready; read end"];

/// A claim that the container isn't in the host's namespace of a kind: `uts`, `pid`, `mnt` …
fn in_its_own(container: &Container, kind: &str) -> Result<Claim> {
    let own = container.first_process().namespace(kind)?;
    let hosts = Process(getpid()).namespace(kind)?;
    Ok(Claim::new(
        format!("the container has a {kind} namespace of its own"),
        format!("/proc/PID/ns/{kind}: {own}, the host's: {hosts}"),
        own != hosts,
    ))
}

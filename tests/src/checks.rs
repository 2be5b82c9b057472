//! One function an exercise: what the kernel says of a program that does it.
//!
//! A check runs on the pretend host. It starts the chapter's program and reads the evidence; the
//! program's own word counts for nothing.

pub mod step01;
pub mod step02;
pub mod step03;
pub mod step04;

use crate::container::Container;
use crate::course::{Chapter, Exercise};
use crate::evidence::Process;
use crate::host::as_root;
use crate::programs::workspace;
use anyhow::{Result, bail};
use nix::unistd::getpid;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A check: what it claims of the program, and whether that holds.
pub type Check = fn(&Workbench) -> Result<Vec<Claim>>;

/// What a check has at hand.
pub struct Workbench {
    /// The chapter's program.
    pub program: PathBuf,
    /// A place for what a check makes.
    pub scratch: PathBuf,
}

impl Workbench {
    /// A root filesystem from this machine's programs, which a check may not change.
    pub fn root(&self) -> Result<PathBuf> {
        let root = self.scratch.join("root");
        if !root.exists() {
            let script = workspace().join("rootfs-scripts/from-host.sh");
            let made = Command::new(&script).arg(&root).status()?;
            if !made.success() {
                bail!("{}: {made}", script.display());
            }
        }
        Ok(root)
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
}

/// What became of one exercise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// `4.2`
    pub id: String,
    /// The exercise's name.
    pub name: String,
    /// What was looked at.
    pub claims: Vec<Claim>,
    /// Why nothing more could be looked at.
    pub error: Option<String>,
}

impl Claim {
    /// A claim that holds when `holds` does.
    pub fn new(expected: impl Into<String>, seen: impl Into<String>, holds: bool) -> Claim {
        Claim {
            expected: expected.into(),
            seen: seen.into(),
            holds,
        }
    }

    /// A claim that `seen`, which `source` says, is just `wanted`.
    pub fn equal<T: std::fmt::Debug + PartialEq>(
        expected: &str,
        source: &str,
        seen: &T,
        wanted: &T,
    ) -> Claim {
        Claim::new(expected, format!("{source}: {seen:?}"), seen == wanted)
    }
}

impl Report {
    /// Runs the check of `exercise`, the one at `position` of its chapter.
    pub fn of(
        chapter: &Chapter,
        position: usize,
        exercise: &Exercise,
        bench: &Workbench,
    ) -> Report {
        let (claims, error) = match (exercise.check)(bench) {
            Ok(claims) => (claims, None),
            Err(error) => (Vec::new(), Some(format!("{error:#}"))),
        };
        Report {
            id: format!("{}.{}", chapter.number, position + 1),
            name: exercise.name.into(),
            claims,
            error,
        }
    }

    /// Whether all that was claimed holds.
    pub fn holds(&self) -> bool {
        self.error.is_none()
            && !self.claims.is_empty()
            && self.claims.iter().all(|claim| claim.holds)
    }
}

/// Has the checks of a chapter run on a pretend host, by the program `progress`, on the program `step`.
pub fn examine_elsewhere(progress: &Path, chapter: &Chapter, step: &Path) -> Result<Vec<Report>> {
    let output = as_root(progress)
        .args(["pretend-host", "--"])
        .arg(progress)
        .args(["examine", &chapter.number.to_string()])
        .arg(step)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    let reports = serde_json::Deserializer::from_slice(&output.stdout).into_iter();
    let reports: Vec<Report> = reports.collect::<Result<_, _>>()?;
    if reports.len() != chapter.exercises.len() {
        bail!(
            "the checks ended before they were through: {}",
            output.status
        );
    }
    Ok(reports)
}

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

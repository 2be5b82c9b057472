//! What a check works with, and what it comes to.

use crate::course::scratch::Scratch;
use crate::host::container::Container;
use crate::host::evidence::{Process, read_proc_at};
use crate::host::is_pretend;
use crate::host::registry::archive;
use crate::programs::workspace;
use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::getpid;
use probe::{Claim, Line};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use step04_pivot_root::state::StateDir;
use tar::EntryType;

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

    /// What the probe of an exercise finds: see the crate `probe`. It lies beside the program of `package`.
    ///
    /// # Errors
    /// There is none, or it fails itself.
    pub fn probe(&self, package: &str, exercise: &str, root: Option<&Path>) -> Result<Vec<Claim>> {
        let name = format!("{package}-probe");
        let beside = self.program.with_file_name(&name);
        // Those of our solutions are examples of a package.
        let program = match beside.exists() {
            true => beside,
            false => self.program.with_file_name("examples").join(&name),
        };
        let scratch = self.scratch.join(format!("probe-{exercise}"));
        fs::create_dir(&scratch).with_context(|| scratch.display().to_string())?;
        let mut command = Command::new(&program);
        command.arg(exercise).arg(&scratch).args(root);
        let mut ran = Container::spawn(&mut command, Stdio::null())
            .with_context(|| format!("{name}, which belongs beside the program"))?;
        let hangs = ran.read_all().err();
        let mut claims = Vec::new();
        let (mut begun, mut is_over) = (None, false);
        for line in ran.output().lines() {
            match serde_json::from_str(line).with_context(|| format!("{name}: {line}"))? {
                Line::Begin(expected) => begun = Some(expected),
                Line::Claim(claim) => claims.push(claim),
                Line::End => is_over = true,
            }
        }
        let fails = claims.iter().any(|claim| !claim.holds);
        match hangs {
            Some(hang) => {
                let expected = begun.unwrap_or_else(|| format!("{exercise} comes to an end"));
                claims.push(Claim::new(expected, format!("{hang:#}"), false));
            }
            // What a broken function does to its probe is the function's fault.
            None if !is_over && !fails => {
                let expected = begun.unwrap_or_else(|| format!("{exercise} can be judged"));
                claims.push(Claim::new(expected, ran.ended()?.in_words(), false));
            }
            None => {}
        }
        Ok(claims)
    }

    /// The words of a scene, with a root filesystem for `{root}`, a layer with marks for `{marked}`, for `{state}` a
    /// state folder in which nothing is yet, and for `{left}` one in which a container has left something, with a mount.
    pub fn words(&self, scene: &[&str]) -> Result<Vec<String>> {
        let word = |word: &&str| match *word {
            "{root}" => Ok(self.root()?.display().to_string()),
            "{state}" => Ok(self.scratch.join("state").display().to_string()),
            "{left}" => {
                let (left, kind) = (left_in(&self.scratch), Some("tmpfs"));
                fs::create_dir_all(&left)?;
                mount(kind, &left, kind, MsFlags::empty(), None::<&str>)?;
                Ok(self.scratch.join("state").display().to_string())
            }
            "{marked}" => {
                let marked = self.scratch.join("marked.tar");
                fs::write(&marked, archive(MARKED))?;
                Ok(marked.display().to_string())
            }
            word => Ok(word.into()),
        };
        scene.iter().map(word).collect()
    }
}

/// Where something is mounted in what a container has left.
fn left_in(scratch: &Path) -> PathBuf {
    scratch.join("state/running/left/upper/mnt")
}

/// A layer that hides a file, a file that it has itself, a directory that it has itself, and what a directory has.
const MARKED: &[(&str, EntryType, &[u8])] = &[
    ("srv/", EntryType::Directory, b""),
    ("srv/.wh.gone", EntryType::Regular, b""),
    ("srv/own", EntryType::Regular, b"own"),
    ("srv/.wh.own", EntryType::Regular, b""),
    ("srv/dir/", EntryType::Directory, b""),
    ("srv/.wh.dir", EntryType::Regular, b""),
    ("srv/opaque/", EntryType::Directory, b""),
    ("srv/opaque/.wh..wh..opq", EntryType::Regular, b""),
];

/// Does some work at a workbench for `program`, on the pretend host that this has to be.
pub fn on_workbench<T>(
    program: &Path,
    broken: Option<PathBuf>,
    work: impl FnOnce(&Workbench) -> Result<T>,
) -> Result<T> {
    if !is_pretend() {
        bail!("this is for a pretend host\nhelp: cargo progress check");
    }
    let scratch = Scratch::new(&StateDir::default().dir)?;
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
    // The program should have done so.
    let _ = umount2(&left_in(scratch.path()), MntFlags::MNT_DETACH);
    done
}

/// A command that says when it is ready, and ends with its input.
pub const READY: [&str; 3] = ["sh", "-c", "echo ready; read end"];

/// A claim that the container isn't in the host's namespace of a kind: `uts`, `pid`, `mnt` …
pub fn in_its_own(container: &Container, kind: &str) -> Result<Claim> {
    let own = container.first_process().namespace(kind)?;
    let hosts = Process(getpid()).namespace(kind)?;
    Ok(Claim::new(
        format!("the container has a {kind} namespace of its own"),
        format!("/proc/PID/ns/{kind}: {own}, the host's: {hosts}"),
        own != hosts,
    ))
}

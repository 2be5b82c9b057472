//! Chapter 4: a root filesystem of its own.

use super::{Claim, Workbench};
use crate::container::{Container, run};
use crate::evidence::Mount;
use crate::programs::workspace;
use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The arguments that run `command` in the root `root`.
fn in_root(root: &Path, command: &[&str]) -> Vec<OsString> {
    let mut arguments = vec!["--rootfs".into(), root.into()];
    arguments.extend(command.iter().map(OsString::from));
    arguments
}

const READY: [&str; 3] = ["sh", "-c", "echo ready; read end"];

/// A tmpfs on a directory of the root, while a check looks at it.
struct Submount(PathBuf);

impl Submount {
    fn make(target: &Path) -> Result<Submount> {
        let none = None::<&str>;
        mount(Some("below"), target, Some("tmpfs"), MsFlags::empty(), none)?;
        Ok(Submount(target.into()))
    }
}

impl Drop for Submount {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// 4.1: the root is a mount of the directory that was given, with what is mounted below it.
pub fn bind_self(bench: &Workbench) -> Result<Vec<Claim>> {
    let root = bench.root()?;
    let _below = Submount::make(&root.join("run"))?;
    let container = Container::start(&bench.program, &in_root(&bench.root()?, &READY))?;
    let mounts = container.first_process().mounts()?;
    let top = mounts.iter().find(|mount| mount.target == Path::new("/"));
    let top = top.context("/proc/PID/mountinfo has no mount at /")?;
    let submount = mounts
        .iter()
        .find(|mount| mount.target == Path::new("/run"));
    let show = |mount: Option<&Mount>| mount.map_or("nothing".into(), |mount| format!("{mount:?}"));
    Ok(vec![
        Claim::new(
            "the directory is mounted at /",
            format!("/proc/PID/mountinfo: {} at /", top.root.display()),
            root.ends_with(top.root.strip_prefix("/").unwrap_or(&top.root)),
        ),
        Claim::new(
            "what is mounted below it came along",
            format!("/proc/PID/mountinfo at /run: {}", show(submount)),
            submount.is_some_and(|mount| mount.source == "below"),
        ),
    ])
}

/// 4.2: nothing of the host's is left, neither in the mount table nor above the root.
pub fn swap_roots(bench: &Workbench) -> Result<Vec<Claim>> {
    let container = Container::start(&bench.program, &in_root(&bench.root()?, &READY))?;
    let first = container.first_process();
    let mut targets: Vec<_> = first
        .mounts()?
        .into_iter()
        .map(|mount| mount.target)
        .collect();
    targets.sort();
    let names = |directory: PathBuf| -> Result<Vec<OsString>> {
        let entries = fs::read_dir(&directory).with_context(|| directory.display().to_string())?;
        let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        Ok(names)
    };
    let above = names(first.file("root/.."))?;
    let workdir = fs::read_link(first.file("cwd"))?;
    Ok(vec![
        Claim::equal(
            "the container has its own three mounts and none of the host's",
            "/proc/PID/mountinfo",
            &targets,
            &["/", "/proc", "/sys"].map(PathBuf::from).to_vec(),
        ),
        Claim::new(
            "above the root is the root",
            format!("ls /.. in the container: {} names", above.len()),
            above == names(bench.root()?)?,
        ),
        Claim::equal(
            "the command starts in /",
            "/proc/PID/cwd",
            &workdir,
            &PathBuf::from("/"),
        ),
    ])
}

/// 4.3: the environment is what was asked for, and the command is looked for inside.
pub fn environment(bench: &Workbench) -> Result<Vec<Claim>> {
    // A program that only this PATH finds, and a secret.
    let decoy = bench.scratch.join("decoy");
    fs::create_dir_all(&decoy)?;
    let mut command = Command::new(&bench.program);
    let given = ["-e", "GIVEN=yes", "-e", "FROM_HOST", "-e", "HOME=/tmp"];
    command
        .args(given)
        .args(in_root(&bench.root()?, &READY))
        .env("PATH", &decoy)
        .env("FROM_HOST", "taken")
        .env("SECRET", "leaked");
    let container = Container::start_with(&mut command)?;
    let variables = container.first_process().strings("environ")?;
    let wanted = [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOSTNAME=container",
        "GIVEN=yes",
        "FROM_HOST=taken",
        "HOME=/tmp",
    ];
    Ok(vec![Claim::equal(
        "the environment is Docker's, and what -e asks for; PATH is the container's",
        "/proc/PID/environ",
        &variables,
        &wanted.map(String::from).to_vec(),
    )])
}

/// 4.4: three roots that answer "No such file or directory" run again.
pub fn repair(bench: &Workbench) -> Result<Vec<Claim>> {
    let mut claims = Vec::new();
    for (kind, remedy) in REPAIRS {
        let root = bench.scratch.join(kind);
        copy(&bench.root()?, &root)?;
        let script = workspace().join("rootfs-scripts/break.sh");
        let broken = Command::new(script).arg(kind).arg(&root).output()?;
        let command = String::from_utf8_lossy(&broken.stdout).trim().to_owned();
        if !broken.status.success() {
            bail!(
                "break.sh {kind}: {}",
                String::from_utf8_lossy(&broken.stderr)
            );
        }
        let before = run(&bench.program, &in_root(&root, &[&command]))?;
        let repaired = Command::new("sh")
            .args(["-ec", remedy])
            .env("WHOLE", bench.root()?)
            .current_dir(&root)
            .status()?;
        let after = run(&bench.program, &in_root(&root, &[&command]))?;
        claims.push(Claim::new(
            format!("{kind}: {command} fails, and runs after the repair"),
            format!(
                "exit codes {} and {}; the repair: {repaired}",
                before.code, after.code
            ),
            before.code == 127 && repaired.success() && after.code == 0,
        ));
    }
    Ok(claims)
}

/// What mends a broken root, in its directory; $WHOLE is one that is whole.
const REPAIRS: [(&str, &str); 3] = [
    // With tar every link comes along, which cp -r would turn into a copy or leave out.
    (
        "missing-loader",
        "tar -C \"$WHOLE\" -c lib lib64 usr/lib usr/lib64 | tar -x",
    ),
    (
        "dangling-loader-link",
        "tar -C \"$WHOLE\" -c lib lib64 usr/lib usr/lib64 | tar -x",
    ),
    ("crlf-shebang", "sed -i 's/\\r$//' usr/local/bin/greet"),
];

/// Copies a root with its links, owners and modes.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    match copied.success() {
        true => Ok(()),
        false => bail!("cp -a {} {}: {copied}", from.display(), to.display()),
    }
}

//! The default root, made of this machine's own programs, for users who have no other.

use crate::lock::Lock;
use crate::removal::remove_tree;
use crate::root::Root;
use anyhow::{Context, Result, anyhow, bail};
use nix::unistd::{AccessFlags, access};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use step01_uts::{candidates, host_environment};

/// The scripts that make the default root, as they were when this program was built.
const SCRIPTS: [(&str, &str); 3] = [
    (
        "from-host.sh",
        include_str!("../../../rootfs-scripts/from-host.sh"),
    ),
    ("aside.sh", include_str!("../../../rootfs-scripts/aside.sh")),
    (
        "follow.sh",
        include_str!("../../../rootfs-scripts/follow.sh"),
    ),
];

/// Opens the default root, `roots/default` in the state folder. The root is made on first use, and again when a program
/// on the host is newer or the scripts have changed; while a container uses it, it stays as it is.
///
/// Returns the root's path, and a lock to hold as long as a container uses the root.
pub fn open(state_dir: &Path) -> Result<(PathBuf, Option<Lock>)> {
    let roots = state_dir.join("roots");
    let mut builder = DirBuilder::new();
    let path = roots.join("default");
    // A container may write setuid programs into a root: nobody else on the host may reach them.
    let made = builder.recursive(true).mode(0o755).create(state_dir);
    let made = made.and_then(|()| match DirBuilder::new().mode(0o700).create(&roots) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            fs::set_permissions(&roots, Permissions::from_mode(0o700))
        }
        made => made,
    });
    let writable = made.and_then(|()| {
        let path = roots.join("default.lock");
        File::options().create(true).append(true).open(path)
    });
    if writable.is_err() && path.exists() {
        // A user who may not renew the root may still look at it.
        return Ok((path, None));
    }
    let lock = writable.map_err(|error| {
        anyhow!(
            "the default root can't be made in {}: {error}\nhelp: put `sudo` before the command, \
             name a root with --rootfs, or another place with --state-dir",
            roots.display()
        )
    })?;
    // A caller that comes while the root is being made waits here.
    let lock = Lock::exclusive(lock)?;

    let scripts = roots.join("default.scripts");
    let absent = !path.exists();
    if absent || (is_outdated(&path, &scripts) && !is_in_use(&path)?) {
        assemble(&path, &scripts, &lock)?;
    }
    let in_use = Lock::shared(File::open(&path)?)?;
    drop(lock);
    Ok((path.canonicalize()?, Some(in_use)))
}

/// Whether a container uses the root: each such container holds a shared lock, so an exclusive one is refused.
fn is_in_use(path: &Path) -> Result<bool> {
    Ok(Lock::attempt(File::open(path)?)?.is_none())
}

/// The most bytes of a root's list of copied files (/etc/from-host), which usually has some hundred lines.
const LONGEST_MANIFEST: usize = 256 * 1024;

/// Whether the root was made by other scripts than ours, or of programs that are newer by now.
fn is_outdated(path: &Path, scripts: &Path) -> bool {
    let ours = SCRIPTS.iter().all(|(name, text)| {
        fs::read(scripts.join(name)).is_ok_and(|made_by| made_by == text.as_bytes())
    });
    let modified = |path: &Path| {
        let file = path.symlink_metadata().ok()?;
        Some((file.mtime(), file.mtime_nsec()))
    };
    // A container may have damaged the root. A file that is missing counts as outdated, and a file
    // that is there may be a trap.
    let manifest = Root::at(path).map(|root| root.text("/etc/from-host", LONGEST_MANIFEST));
    let copied = String::from_utf8(manifest.unwrap_or_default()).unwrap_or_default();
    let changed = |line: &str| match line.strip_prefix("absent ") {
        Some(name) => candidates(name, &host_environment())
            .iter()
            .any(|path| access(Path::new(path), AccessFlags::X_OK).is_ok()),
        None => {
            let copy = modified(&path.join(line.trim_start_matches('/')));
            copy.is_none() || modified(Path::new(line)).is_some_and(|host| Some(host) > copy)
        }
    };
    !ours || copied.is_empty() || copied.lines().any(changed)
}

/// Makes the root under another name, and gives it its own name when it is whole.
///
/// The script inherits the lock as its standard input: if we are killed and the script goes on, no
/// other process begins before the script has ended.
fn assemble(path: &Path, scripts: &Path, lock: &File) -> Result<()> {
    let (new, old) = (path.with_extension("new"), path.with_extension("old"));
    // A run that was killed in here leaves `default.old`, `default.new`, and the directory beside
    // it in which the script works.
    for entry in fs::read_dir(path.parent().unwrap_or(path))? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(".default.new.") || name == "default.new" || name == "default.old" {
            remove_tree(&entry.path())?;
        }
    }
    fs::create_dir_all(scripts)?;
    for (name, text) in SCRIPTS {
        fs::write(scripts.join(name), text)?;
    }
    let script = scripts.join("from-host.sh");
    let made = Command::new("sh")
        .arg(&script)
        .arg(&new)
        .stdin(lock.try_clone()?)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .context("sh, which makes the default root")?;
    let said = String::from_utf8_lossy(&made.stderr);
    if !made.status.success() {
        bail!(
            "the default root couldn't be made: {}: {}\n{}",
            script.display(),
            made.status,
            said.trim_end()
        );
    }
    eprint!("{said}");
    if path.exists() {
        fs::rename(path, &old)?;
    }
    fs::rename(&new, path)?;
    remove_tree(&old)
}

//! The root filesystem that a container gets: the one of `--rootfs`, or one from this machine.

use crate::removal::remove_tree;
use crate::root::Root;
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{AccessFlags, access};
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use step01_uts::program::visible;
use step01_uts::{candidates, host_environment};

/// Where the container's files come from.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
#[command(next_help_heading = "Files")]
pub struct Files {
    /// The directory that becomes the container's root; without it, one is made from this
    /// machine's own programs
    #[arg(long, value_name = "DIR")]
    pub rootfs: Option<PathBuf>,

    /// Where they are kept.
    #[command(flatten)]
    #[serde(skip)]
    pub state: State,
}

/// Where the state folder usually is.
pub const USUAL: &str = "/var/lib/ten-steps";

/// The state folder.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Files")]
pub struct State {
    /// Where things are kept from one run to the next [default: $TEN_STEPS_STATE, or else
    /// /var/lib/ten-steps]
    #[arg(long = "state-dir", value_name = "DIR", default_value_os_t = State::default().dir,
          hide_default_value = true)]
    pub dir: PathBuf,
}

impl Default for State {
    /// $TEN_STEPS_STATE, or /var/lib/ten-steps.
    fn default() -> State {
        let given = std::env::var_os("TEN_STEPS_STATE");
        State {
            dir: given.map_or_else(|| USUAL.into(), PathBuf::from),
        }
    }
}

/// A directory that is ready to become a root.
#[derive(Debug)]
pub struct Rootfs {
    /// Its absolute path on the host, without links.
    pub path: PathBuf,
    /// Held as long as a container uses the default root, which is not renewed meanwhile.
    _in_use: Option<Flock<File>>,
}

impl Files {
    /// Finds the root filesystem, and makes the default one when it is asked for and not there.
    ///
    /// # Errors
    /// There is no such directory.
    pub fn open(&self) -> Result<Rootfs> {
        let Some(path) = &self.rootfs else {
            return default_root(&self.state.dir);
        };
        let shown = path.display();
        let path = path.canonicalize().map_err(|error| {
            let why = match error.kind() {
                ErrorKind::NotFound => "there is no such directory".into(),
                _ => error.to_string(),
            };
            anyhow!("--rootfs {shown}: {why}\nhelp: rootfs-scripts/ has ways to make a root")
        })?;
        if !path.is_dir() {
            bail!(
                "--rootfs {shown}: it is no directory\nhelp: unpack an archive first, for example: \
                 tar -xpf {shown} -C DIR"
            );
        }
        if path == Path::new("/") {
            bail!(
                "--rootfs {shown}: that is this machine's own root\nhelp: without --rootfs a root is \
                 made from this machine's programs"
            );
        }
        Ok(Rootfs {
            path,
            _in_use: None,
        })
    }
}

impl Rootfs {
    /// The directory `path`, whose it may be.
    pub fn at(path: &Path) -> Rootfs {
        Rootfs {
            path: path.to_owned(),
            _in_use: None,
        }
    }

    /// Checks that the root has real directories `names`, on which the container mounts. A link
    /// would make the kernel mount on whatever it leads to.
    pub fn check(&self, names: &[&str]) -> Result<()> {
        for name in names {
            let path = self.path.join(name);
            let shown = path.display();
            match path.symlink_metadata() {
                Ok(found) if found.is_dir() => {}
                Ok(found) if found.is_symlink() => bail!(
                    "{shown} is a link to {}, and has to be a directory: {name} is mounted on it\n\
                     help: rm {shown} && mkdir {shown}",
                    visible(&fs::read_link(&path).unwrap_or_default().to_string_lossy())
                ),
                Ok(_) => bail!(
                    "{shown} is a file, and has to be a directory: {name} is mounted on it\n\
                     help: rm {shown} && mkdir {shown}"
                ),
                Err(error) if error.kind() == ErrorKind::NotFound => bail!(
                    "{shown} isn't there, and has to be a directory: {name} is mounted on it\n\
                     help: mkdir {shown}, if {} is a root filesystem; rootfs-scripts/ has ways to \
                     make one",
                    self.path.display()
                ),
                Err(error) => bail!("{shown}: {error}"),
            }
        }
        Ok(())
    }
}

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

/// The root made of this machine's own programs, `roots/default` in the state folder. It is made
/// on first use, and again when a program on the host is newer or the scripts have changed; while
/// a container uses it, it stays as it is.
fn default_root(state_dir: &Path) -> Result<Rootfs> {
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
        // Whoever may not renew it may still look at it.
        return Ok(Rootfs {
            path,
            _in_use: None,
        });
    }
    let lock = writable.map_err(|error| {
        anyhow!(
            "the default root can't be made in {}: {error}\nhelp: put `sudo` before the command, \
             name a root with --rootfs, or another place with --state-dir",
            roots.display()
        )
    })?;
    // Whoever comes while it is being made waits here.
    let lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;

    let scripts = roots.join("default.scripts");
    let absent = !path.exists();
    if absent || (is_outdated(&path, &scripts) && !is_in_use(&path)?) {
        assemble(&path, &scripts, &lock)?;
    }
    let in_use = Flock::lock(File::open(&path)?, FlockArg::LockShared);
    let in_use = in_use.map_err(|(_, errno)| errno)?;
    drop(lock);
    Ok(Rootfs {
        path: path.canonicalize()?,
        _in_use: Some(in_use),
    })
}

/// Whether a container uses the root: each holds a shared lock, so nobody gets an exclusive one.
fn is_in_use(path: &Path) -> Result<bool> {
    Ok(Flock::lock(File::open(path)?, FlockArg::LockExclusiveNonblock).is_err())
}

/// Some hundred lines are usual.
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
    // A container may have damaged it: what isn't there is as good as outdated, and what is there
    // may be a trap.
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

/// Makes the root aside and gives it its name when it is whole.
///
/// The script inherits the lock as its standard input: should we be killed and it go on, nobody
/// else begins before it has ended.
fn assemble(path: &Path, scripts: &Path, lock: &File) -> Result<()> {
    let (new, old) = (path.with_extension("new"), path.with_extension("old"));
    // What a run left behind that was killed here: `default.old`, `default.new`, and the directory
    // beside it in which the script works.
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

//! # Step 4: a root filesystem of its own
//!
//! A mount namespace is a copy of the host's mounts, with the host's root. [`enter_root`] exchanges
//! that root for another, and then lets go of the old one: no path leads back to it. What else would
//! leak from the host is the environment, so the container gets a clean one ([`environment`]).
//!
//! In a new root, the commonest answer to `execve` is "No such file or directory", for a file that is there. [`why`]
//! says which other file the kernel meant, and [`why::witness`] lets the parent look into the root after the child has
//! failed. [`rootfs`] finds the root that a container is to have, and [`removal`] removes a directory, whatever a
//! container has made of it.

pub mod default_root;
pub mod descriptors;
pub mod flags;
pub mod lock;
pub mod removal;
pub mod root;
pub mod rootfs;
pub mod state;
pub mod why;

use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, getcwd, pivot_root};
use serde::{Deserialize, Serialize};
use std::env;
use std::path::Path;
use step01_uts::{PATH, call};

// ANCHOR: enter_root
/// Makes the directory `new_root` the root of this mount namespace and forgets the old root.
///
/// `mounts` runs in between, when `/` is the new root already and the old root hasn't gone yet.
/// This is the moment to mount a procfs and a sysfs: the kernel gives one to an unprivileged user
/// only while another of its kind is fully visible. See pivot_root(2), mount_namespaces(7).
///
/// The namespace's mounts must be private (`make_private` of step 3): `pivot_root` refuses a root
/// that would tell other namespaces of its move.
pub fn enter_root(new_root: &Path, mounts: impl FnOnce() -> Result<()>) -> Result<()> {
    bind_self(new_root)?;
    swap_roots(new_root, mounts)
}
// ANCHOR_END: enter_root

// ANCHOR: bind_self
/// Mounts the directory `new_root` on itself, with all that is mounted below it.
///
/// `pivot_root` exchanges mounts, not directories: what becomes the root has to be the top of a
/// mount. See MS_BIND in mount(2).
///
/// # Errors
/// [`Refused`](step01_uts::Refused): ENOENT where there is no such directory. None is made.
pub fn bind_self(new_root: &Path) -> Result<()> {
    // ANCHOR_END: bind_self
    // ANCHOR: exercise_bind_self
    let (no_type, no_data) = (None::<&str>, None::<&str>);
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    call!(mount(Some(new_root), new_root, no_type, flags, no_data))?;
    Ok(())
    // ANCHOR_END: exercise_bind_self
}

// ANCHOR: swap_roots
/// Puts the mount `new_root` in the place of the root, runs `mounts`, and detaches the old root. The caller stands in
/// the new root then. An error of `mounts` is returned.
///
/// With "." for both arguments `pivot_root` needs no directory to put the old root in: it lies on
/// top of the new one, at the same place, until `umount2` takes it away. See NOTES in
/// pivot_root(2).
pub fn swap_roots(new_root: &Path, mounts: impl FnOnce() -> Result<()>) -> Result<()> {
    // ANCHOR_END: swap_roots
    // ANCHOR: exercise_swap_roots
    call!(chdir(new_root))?;
    call!(pivot_root(".", "."))?;
    mounts()?;
    // MNT_DETACH: the old root is busy, with all that runs on the host.
    call!(umount2(".", MntFlags::MNT_DETACH))?;
    Ok(())
    // ANCHOR_END: exercise_swap_roots
}

/// Makes `directory` the working directory, if it is in the container.
///
/// A name such as /proc/self/fd/9 leads to whatever directory a descriptor stands for. A directory of the host that was
/// left open is one too, and from there `..` leads on. getcwd(2) finds no path to such a directory.
pub fn enter_workdir(directory: &str) -> Result<()> {
    call!(chdir(directory))?;
    match getcwd() {
        Err(Errno::ENOENT) => bail!(
            "--workdir {directory}: that isn't in the container\nhelp: name a directory that it has"
        ),
        inside => Ok(inside.map(drop)?),
    }
}

/// What the command finds around itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Env {
    /// Variables, `KEY=VALUE`; a `KEY` alone takes the value that it has here.
    pub env: Vec<String>,
    /// The directory in the container in which the command starts.
    pub workdir: Option<String>,
}

impl Env {
    /// The directory to start in: the root's own, unless somebody has named one.
    pub fn workdir(&self) -> &str {
        self.workdir.as_deref().unwrap_or("/")
    }
}

// ANCHOR: environment
/// The container's environment, as `KEY=VALUE` strings: what every program expects, then the
/// variables of `-e`. A variable given twice has its last value, and is there once, in whatever place; `KEY` without
/// a value takes the host's, and is left out where the host has none. Nothing else of the host's comes in: its
/// environment has secrets, and a PATH for another root. See environ(7).
pub fn environment(hostname: &str, given: &[String]) -> Vec<String> {
    // ANCHOR_END: environment
    // ANCHOR: exercise_environment
    let mut variables = vec![
        format!("PATH={PATH}"),
        format!("HOSTNAME={hostname}"),
        "HOME=/root".to_owned(),
    ];
    for variable in given {
        let (key, value) = match variable.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (variable.as_str(), env::var(variable).ok()),
        };
        variables.retain(|known| known.split('=').next() != Some(key));
        variables.extend(value.map(|value| format!("{key}={value}")));
    }
    variables
    // ANCHOR_END: exercise_environment
}

/// The variables of `-e`, each with the value that it has here; a variable without any value is left out.
pub fn with_values(given: Vec<String>) -> Vec<String> {
    let value = |variable: String| match variable.contains('=') {
        true => Some(variable),
        false => Some(format!("{variable}={}", env::var(&variable).ok()?)),
    };
    given.into_iter().filter_map(value).collect()
}

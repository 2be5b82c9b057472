//! Worlds that are made up for a call: what a subject does before its function is called.

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::fs;
use std::path::Path;

/// A mount namespace of the caller's own, in which no mount is tied to another namespace's.
pub fn private_mounts() -> Result<()> {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS).context("unshare")?;
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(none, "/", none, flags, none).context("a private mount table")
}

/// A directory with a tmpfs on it, which mountinfo calls `name`.
pub fn tmpfs(directory: &Path, name: &str) -> Result<()> {
    fs::create_dir_all(directory)?;
    let none = None::<&str>;
    mount(Some(name), directory, Some("tmpfs"), MsFlags::empty(), none)
        .with_context(|| format!("a tmpfs on {}", directory.display()))
}

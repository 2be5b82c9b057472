//! What a made-up world begins with.

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Gives the calling process mounts of its own, which tell nobody of what becomes of them.
///
/// # Errors
/// Those of the kernel: it takes root.
pub fn private_mounts() -> Result<()> {
    let (none, all) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
    unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace for the probe")?;
    mount(none, "/", none, all, none).context("private mounts for the probe")
}

//! A descriptor for the container's process, for an engine that wants to be sure of it: pidfd_open(2).

use crate::notify::sockets::connect_to;
use anyhow::{Context, Result};
use nix::sys::socket::MsgFlags;
use std::os::fd::OwnedFd;
use std::path::Path;
use step04_pivot_root::descriptors::send_with;

/// Sends `pidfd` to the engine that listens at the socket `path`.
pub fn send(path: &Path, pidfd: &OwnedFd) -> Result<()> {
    let engine = connect_to(path)?;
    let sent = send_with(&engine, b"pidfd", &[pidfd], MsgFlags::MSG_NOSIGNAL);
    sent.map(drop).with_context(|| path.display().to_string())
}

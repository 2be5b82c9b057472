//! Descriptors with numbers of one's choice: what a careless caller has open.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::os::fd::{AsRawFd, RawFd};

/// Opens `file` once more, as the descriptor `number`. `flags` may be O_CLOEXEC.
pub fn place(file: &impl AsRawFd, number: RawFd, flags: i32) -> Result<()> {
    // SAFETY: takes integers; whoever had the number before is the caller's.
    Errno::result(unsafe { libc::dup3(file.as_raw_fd(), number, flags) }).context("dup3(2)")?;
    Ok(())
}

/// A number that is higher than people think descriptors to be, as far as the calling process may have one. Its limit is
/// raised for that.
pub fn high_number() -> Result<RawFd> {
    const HIGH: u64 = 70_000;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let most = hard.min(HIGH);
    setrlimit(Resource::RLIMIT_NOFILE, most, hard)?;
    Ok(most as RawFd - 1)
}

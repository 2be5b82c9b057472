//! What a monitor is told when it is started, and how it sets out.

use crate::{detach, sealed};
use anyhow::Result;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::os::fd::{BorrowedFd, RawFd};
use std::path::PathBuf;
use step01_uts::narration::Legacy;

/// What a monitor is to do, as its only argument.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Errand {
    pub(crate) id: String,
    pub(crate) state: PathBuf,
    /// The descriptor of the container's life.
    pub(crate) life: RawFd,
    /// That of the socket to who started it.
    pub(crate) caller: RawFd,
    pub(crate) size: Option<(u16, u16)>,
    pub(crate) new: bool,
    pub(crate) narration: Option<Legacy>,
}

/// What a monitor is called, in place of a program's name.
pub(crate) const MONITOR: &CStr = c"ten-steps-monitor";

impl Errand {
    /// Becomes the monitor.
    pub(crate) fn set_out(&self) -> Result<Infallible> {
        let mut keep = vec![self.life, self.caller];
        keep.extend(self.narration.map(|narration| narration.descriptor));
        detach(&keep)?;
        for descriptor in keep {
            // SAFETY: it is open as long as this process is.
            let descriptor = unsafe { BorrowedFd::borrow_raw(descriptor) };
            fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        let words = [MONITOR.to_owned(), CString::new(serde_json::to_vec(self)?)?];
        sealed::execute(&words, &[])
    }
}

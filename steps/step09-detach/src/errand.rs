//! What a monitor is told when it is started, and how a process becomes one.

use crate::{detach, sealed};
use anyhow::Result;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::os::fd::{BorrowedFd, RawFd};
use std::path::PathBuf;
use step01_uts::narration::Legacy;

/// A monitor's *errand*: what the monitor is to do, given to it as its only argument.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Errand {
    pub(crate) id: String,
    pub(crate) state: PathBuf,
    /// The descriptor of the container's life.
    pub(crate) life: RawFd,
    /// The descriptor of the socket to the caller.
    pub(crate) caller: RawFd,
    pub(crate) size: Option<(u16, u16)>,
    pub(crate) new: bool,
    pub(crate) narration: Option<Legacy>,
}

/// A monitor's name, in place of the program's.
pub(crate) const MONITOR: &CStr = c"ten-steps-monitor";

impl Errand {
    /// Makes the calling process the monitor: detaches it, and executes this program anew.
    pub(crate) fn set_out(&self) -> Result<Infallible> {
        let mut keep = vec![self.life, self.caller];
        keep.extend(self.narration.map(|narration| narration.descriptor));
        detach(&keep)?;
        for descriptor in keep {
            // SAFETY: the descriptor is open as long as this process is.
            let descriptor = unsafe { BorrowedFd::borrow_raw(descriptor) };
            fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        let words = [MONITOR.to_owned(), CString::new(serde_json::to_vec(self)?)?];
        sealed::execute(&words, &[])
    }
}

//! How a monitor comes to be: this program once more, in a process that has let go of the caller.

use crate::caller::connection::Connection;
use crate::container::store::{Container, Lock};
use crate::message::{Ending, Message};
use crate::monitor::Monitor;
use crate::monitor::exchange::Client;
use crate::{detach, sealed};
use anyhow::{Error, Result};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::env;
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::panic;
use std::path::PathBuf;
use step01_uts::call;
use step01_uts::narration::{self, Legacy};
use step02_pid::report::Report;
use step02_pid::{fork, leave};

/// Starts `container` with a monitor of its own, by the right of `life`, and returns when the command runs.
/// Whoever keeps the connection is attached; a terminal begins with `size`, in rows and columns. One that is
/// `new` is removed if its command never runs: there is nothing in it that anybody could want.
///
/// The monitor is this program once more, in a process that has let go of the caller: it begins with none of
/// what the caller has in its memory, and in its environment.
///
/// # Errors
/// It didn't start.
pub fn launch(
    container: &Container,
    life: Lock,
    size: Option<(u16, u16)>,
    new: bool,
) -> Result<Connection> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
    let errand = Errand {
        id: container.id.clone(),
        state: container.store().state.clone(),
        life: life.descriptor(),
        caller: theirs.as_raw_fd(),
        size,
        new,
        narration: narration::legacy(),
    };
    if call!(fork())?.is_some() {
        drop((theirs, life));
        return Connection::started(ours, container);
    }
    let Err(error) = errand.set_out();
    tell_failure(Client::new(theirs, 0), life, &error);
    leave(libc::EXIT_FAILURE as u8)
}

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
    fn set_out(&self) -> Result<Infallible> {
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

/// Is the monitor, when that is what this process was started as. Call it first of all.
pub fn be_monitor() {
    let mut words = env::args_os();
    if words
        .next()
        .is_none_or(|word| word.as_bytes() != MONITOR.to_bytes())
    {
        return;
    }
    // The container dies with this process, and the record tells no lie by that.
    panic::set_hook(Box::new(|_| leave(libc::EXIT_FAILURE as u8)));
    let errand = words.next().unwrap_or_default();
    if let Ok(errand) = serde_json::from_slice(errand.as_bytes()) {
        Monitor::stay(errand);
    }
    leave(libc::EXIT_FAILURE as u8)
}

/// Tells who started a container that it can't be, and lets go of its life first: they remove it then.
pub(crate) fn tell_failure(mut to: Client, life: Lock, error: &Error) {
    drop(life);
    to.tell(&failure(error).encode());
}

fn failure(error: &Error) -> Message {
    Message::Ended(Ending {
        outcome: Err(Report::from(error).cut()),
        usage: None,
        left: None,
    })
}

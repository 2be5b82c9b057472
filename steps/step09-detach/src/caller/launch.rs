//! How a monitor is started: this program once more, in a process that has let go of the caller.

use crate::caller::connection::Connection;
use crate::container::Container;
use crate::errand::Errand;
use crate::monitor::client::{Client, tell_failure};
use anyhow::Result;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use std::os::fd::AsRawFd;
use step01_uts::call;
use step01_uts::narration;
use step02_pid::{fork, leave};
use step04_pivot_root::lock::Lock;

/// Starts `container` with a monitor of its own, and returns when the command runs. The caller holds the container's
/// `life`, which the monitor inherits. As long as the caller keeps the connection, it is attached; a terminal begins
/// with `size`, in rows and columns. A container that is `new` is removed if its command never runs: there is nothing
/// in it that anybody could want.
///
/// The monitor is this program once more, in a process that has let go of the caller: it begins with none of what the
/// caller has in its memory, and in its environment.
///
/// # Errors
/// The container didn't start.
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
        state: container.folders().state.clone(),
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

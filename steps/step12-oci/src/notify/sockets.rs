//! Sockets at a path: unix(7). An address has room for 108 bytes, and a path for 4096, so a socket is named by a descriptor
//! of its folder.

use anyhow::{Context, Result};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, UnixAddr, accept4, bind, connect,
    listen, socket,
};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use step01_uts::call;
use step04_pivot_root::root::{by_descriptor, directory_at};

/// A new socket at `path`, to which others may connect.
pub fn listen_at(path: &Path) -> Result<OwnedFd> {
    let socket = stream()?;
    let (_folder, address) = address_of(path)?;
    bind(socket.as_raw_fd(), &address).with_context(|| path.display().to_string())?;
    listen(&socket, Backlog::new(1)?)?;
    Ok(socket)
}

/// A connection to the socket at `path`.
pub fn connect_to(path: &Path) -> Result<OwnedFd> {
    let socket = stream()?;
    let (_folder, address) = address_of(path)?;
    connect(socket.as_raw_fd(), &address).with_context(|| path.display().to_string())?;
    Ok(socket)
}

/// Takes the next connection: accept4(2).
pub fn accept(socket: &OwnedFd) -> nix::Result<OwnedFd> {
    let connection = accept4(socket.as_raw_fd(), SockFlag::SOCK_CLOEXEC)?;
    // SAFETY: the kernel has just opened this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(connection) })
}

fn stream() -> Result<OwnedFd> {
    let socket = call!(socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None::<SockProtocol>,
    ))?;
    Ok(socket)
}

/// The address of the socket at `path`. It is good as long as the descriptor of its folder is open.
fn address_of(path: &Path) -> Result<(OwnedFd, UnixAddr)> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = directory_at(folder.unwrap_or(Path::new(".")))?;
    let name = by_descriptor(&folder).join(path.file_name().unwrap_or_default());
    let address = UnixAddr::new(&name).with_context(|| path.display().to_string())?;
    Ok((folder, address))
}

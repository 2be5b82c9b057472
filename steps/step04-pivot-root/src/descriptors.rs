//! Open files on their way from one process to another: SCM_RIGHTS in unix(7).

use anyhow::{Context, Result};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Two sockets, an end for the child and an end for the parent. Make them before the child.
pub fn passage() -> nix::Result<(OwnedFd, OwnedFd)> {
    let (kind, any) = (SockType::SeqPacket, None);
    socketpair(AddressFamily::Unix, kind, any, SockFlag::SOCK_CLOEXEC)
}

/// Sends descriptors, with one byte that carries them.
pub fn send<const N: usize>(socket: &OwnedFd, descriptors: [&OwnedFd; N]) -> nix::Result<usize> {
    let descriptors = descriptors.map(AsRawFd::as_raw_fd);
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let byte = [IoSlice::new(b"/")];
    sendmsg::<()>(socket.as_raw_fd(), &byte, &rights, MsgFlags::empty(), None)
}

/// Takes the descriptors that came in one message. Doesn't wait.
///
/// # Errors
/// No message has come, or one with another number of descriptors.
pub fn receive<const N: usize>(socket: &OwnedFd) -> Result<[OwnedFd; N]> {
    let mut space = nix::cmsg_space!([RawFd; N]);
    let mut byte = [0];
    let mut data = [IoSliceMut::new(&mut byte)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut data, Some(&mut space), flags)?;
    let rights = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmRights(descriptors) => <[RawFd; N]>::try_from(descriptors).ok(),
        _ => None,
    });
    let descriptors = rights.context("a message without its descriptors")?;
    // SAFETY: the kernel has just installed them for us, and nobody else has them.
    Ok(descriptors.map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }))
}

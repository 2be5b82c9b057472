//! Open files on their way from one process to another: SCM_RIGHTS in unix(7).

use anyhow::{Context, Result};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// The most descriptors that come with one message: more than any sender here uses.
const MOST: usize = 4;

/// Two connected sockets, one for the child and one for the parent. Make them before the child.
pub fn passage() -> nix::Result<(OwnedFd, OwnedFd)> {
    let (kind, any) = (SockType::SeqPacket, None);
    socketpair(AddressFamily::Unix, kind, any, SockFlag::SOCK_CLOEXEC)
}

/// Sends descriptors, with one byte that carries them.
pub fn send<const N: usize>(socket: &OwnedFd, descriptors: [&OwnedFd; N]) -> nix::Result<usize> {
    send_with(socket, b"/", &descriptors, MsgFlags::empty())
}

/// Takes the descriptors that came in one message. Doesn't wait.
///
/// # Errors
/// No message has come, or one with another number of descriptors.
pub fn receive<const N: usize>(socket: &OwnedFd) -> Result<[OwnedFd; N]> {
    const { assert!(N <= MOST) };
    let (_, descriptors) = receive_with(socket, &mut [0], MsgFlags::MSG_DONTWAIT)?;
    let descriptors = descriptors.try_into().ok();
    descriptors.context("a message without its descriptors")
}

/// Sends a message with descriptors: sendmsg(2).
pub fn send_with(
    socket: &OwnedFd,
    text: &[u8],
    descriptors: &[&OwnedFd],
    flags: MsgFlags,
) -> nix::Result<usize> {
    let descriptors: Vec<RawFd> = descriptors
        .iter()
        .map(|descriptor| descriptor.as_raw_fd())
        .collect();
    let rights = [ControlMessage::ScmRights(&descriptors)];
    sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(text)],
        &rights,
        flags,
        None,
    )
}

/// Takes a message, with the descriptors that came along. Returns how many bytes of the message are in `buffer`: 0 when
/// the other side has gone. See recvmsg(2).
pub fn receive_with(
    socket: &OwnedFd,
    buffer: &mut [u8],
    flags: MsgFlags,
) -> nix::Result<(usize, Vec<OwnedFd>)> {
    let mut space = nix::cmsg_space!([RawFd; MOST]);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = flags | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let rights = message.cmsgs()?.filter_map(|control| match control {
        ControlMessageOwned::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    // SAFETY: the kernel has just installed these descriptors for us, and nothing else owns them.
    let own = |raw: RawFd| unsafe { OwnedFd::from_raw_fd(raw) };
    Ok((message.bytes, rights.flatten().map(own).collect()))
}

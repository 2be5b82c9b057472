//! What one end of a monitor's socket says, the other reads: a message, or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, socketpair};
use std::os::fd::AsRawFd;
use step09_detach::message::receive;

fuzz_target!(|bytes: &[u8]| {
    let kind = SockType::SeqPacket;
    let pair = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC);
    let (ours, theirs) = pair.expect("two sockets");
    let sent = send(ours.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT);
    drop(ours);
    if sent.is_ok() {
        let mut buffer = vec![0; 64 * 1024];
        if let Ok(Some(message)) = receive(&theirs, &mut buffer) {
            // What was understood can be said again.
            assert!(!message.encode().is_empty());
        }
    }
});

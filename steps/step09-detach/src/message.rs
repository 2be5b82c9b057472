//! What a monitor and those who attach to its container say to each other, over a socket that keeps messages
//! apart: SOCK_SEQPACKET in unix(7).

use crate::log::Stream;
use crate::store::{Container, unless_missing};
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect, listen, recv,
    send, socket,
};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use step02_pid::report::Report;

/// One message. Bytes go as they are, behind a digit; everything else is JSON.
#[derive(Debug, Serialize, Deserialize)]
pub enum Message {
    /// To the monitor: I want to see what is said, and to type.
    Attach,
    /// To the monitor: I only want to know how it ends.
    Wait,
    /// To the monitor: what was typed. It answers [`Message::Taken`], and until then nothing more comes.
    #[serde(skip)]
    Input(Vec<u8>),
    /// To the monitor: nothing more will be typed.
    EndOfInput,
    /// To the monitor: rows and columns of the terminal.
    Size(u16, u16),
    /// To the monitor: a signal for the command. It answers [`Message::Heard`].
    Signal(i32),
    /// To the monitor: nobody reads this stream any more.
    Refused(Stream),
    /// To the monitor: I go, and it is to go on as if I were there.
    Detach,
    /// To the monitor: when it ends, it isn't to be started again; `true`: not at a reboot either.
    LetItEnd(bool),
    /// From the monitor: what was typed has been read.
    Taken,
    /// From the monitor: the signal has been passed on.
    Heard,
    /// From the monitor: whoever attached reads too slowly, and is shown no more.
    LeftBehind,
    /// From the monitor: what the container has said.
    #[serde(skip)]
    Output(Stream, Vec<u8>),
    /// From the monitor: the command runs.
    Started,
    /// From the monitor: it has ended, and will be started again after a while.
    Restarting,
    /// From the monitor: it has ended for good, and all traces are in order; or it didn't start.
    Ended(Ending),
}

/// How a container ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ending {
    /// Its exit code, or what went wrong.
    pub outcome: Result<u8, Report>,
    /// What it used, when somebody asked.
    pub usage: Option<String>,
}

/// The most bytes of input or output in one message.
pub const LONGEST: usize = 4 * 1024;

const INPUT: u8 = b'0';
const OUTPUT: u8 = b'1';
const ERROR: u8 = b'2';

impl Message {
    /// As it goes over the socket.
    pub fn encode(&self) -> Vec<u8> {
        let with = |first: u8, bytes: &[u8]| [&[first], bytes].concat();
        match self {
            Message::Input(bytes) => with(INPUT, bytes),
            Message::Output(Stream::Error, bytes) => with(ERROR, bytes),
            Message::Output(_, bytes) => with(OUTPUT, bytes),
            other => serde_json::to_vec(other).unwrap_or_default(),
        }
    }

    fn decode(bytes: &[u8]) -> Result<Message> {
        Ok(match bytes {
            [INPUT, bytes @ ..] => Message::Input(bytes.to_vec()),
            [OUTPUT, bytes @ ..] => Message::Output(Stream::Output, bytes.to_vec()),
            [ERROR, bytes @ ..] => Message::Output(Stream::Error, bytes.to_vec()),
            other => serde_json::from_slice(other).context("a message that makes no sense")?,
        })
    }
}

/// Sends a message, if the other side takes it now: EAGAIN when it has to read first.
pub fn send_now(to: &OwnedFd, encoded: &[u8]) -> nix::Result<()> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    send(to.as_raw_fd(), encoded, flags).map(drop)
}

/// Sends a message, and waits until the other side takes it.
pub fn send_all(to: &OwnedFd, message: &Message) -> Result<()> {
    loop {
        match send(to.as_raw_fd(), &message.encode(), MsgFlags::MSG_NOSIGNAL) {
            Err(Errno::EINTR) => continue,
            sent => return Ok(sent.map(drop)?),
        }
    }
}

/// The next message, of no more than as many bytes as `buffer` has; `None` when the other side has gone.
pub fn receive(from: &OwnedFd, buffer: &mut [u8]) -> Result<Option<Message>> {
    loop {
        return match recv(from.as_raw_fd(), buffer, MsgFlags::empty()) {
            Ok(0) => Ok(None),
            // The other side has gone and left something unread. What it had sent before is still to come.
            Err(Errno::EINTR | Errno::ECONNRESET) => continue,
            Err(errno) => Err(errno.into()),
            Ok(length) => Message::decode(&buffer[..length]).map(Some),
        };
    }
}

/// Throws away what the other side has said; `false`: it has gone.
pub fn ignore(from: &OwnedFd) -> bool {
    let mut buffer = [0; LONGEST + 1];
    loop {
        return match recv(from.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => false,
            Ok(_) | Err(Errno::EINTR | Errno::ECONNRESET) => continue,
            Err(errno) => errno == Errno::EAGAIN,
        };
    }
}

/// A path to the socket of `container` that is short enough for its address, wherever the directory is. The
/// directory is open as long as the file is.
fn address(container: &Container) -> Result<(File, PathBuf)> {
    let folder = File::open(container.store().run())?;
    let path = format!(
        "/proc/self/fd/{}/{}",
        folder.as_raw_fd(),
        container.socket()
    );
    Ok((folder, path.into()))
}

/// Opens the door of a container's monitor, to which others [`knock`].
pub fn open_door(container: &Container) -> Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let door = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    let (_folder, path) = address(container)?;
    // That of a monitor that was killed.
    unless_missing(fs::remove_file(&path))?;
    let bound = bind(door.as_raw_fd(), &UnixAddr::new(&path)?);
    bound.with_context(|| {
        container
            .store()
            .run()
            .join(container.socket())
            .display()
            .to_string()
    })?;
    listen(&door, Backlog::new(64)?)?;
    Ok(door)
}

/// A socket to the monitor of `container`, if it has one that listens.
pub fn knock(container: &Container) -> Result<Option<OwnedFd>> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    let (_folder, path) = address(container)?;
    loop {
        return match connect(socket.as_raw_fd(), &UnixAddr::new(&path)?) {
            Err(Errno::EINTR) => continue,
            Err(Errno::ENOENT | Errno::ECONNREFUSED) => Ok(None),
            connected => Ok(connected.map(|()| Some(socket))?),
        };
    }
}

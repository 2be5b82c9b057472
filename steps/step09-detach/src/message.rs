//! The messages between a container's monitor and its clients, the processes that attach to the container or wait for
//! it. The socket keeps messages apart: SOCK_SEQPACKET in unix(7).

use crate::Identity;
use crate::container::Container;
use crate::container::folders::unless_missing;
use crate::container::log::OutputStream;
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::sockopt::SendTimeout;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect, listen, recv,
    send, setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use step02_pid::report::Report;
use step04_pivot_root::descriptors;
use step04_pivot_root::root::by_descriptor;

/// One message. Bytes go as they are, behind a digit; everything else is JSON.
#[derive(Debug, Serialize, Deserialize)]
pub enum Message {
    /// To the monitor: I want to see what is said, and to type.
    Attach,
    /// To the monitor: I only want to know how the container ends.
    Wait,
    /// To the monitor: what was typed. The monitor answers [`Message::Taken`], and until then the client sends no more
    /// of it.
    #[serde(skip)]
    Input(Vec<u8>),
    /// To the monitor: nothing more will be typed.
    EndOfInput,
    /// To the monitor: rows and columns of the terminal.
    Size(u16, u16),
    /// To the monitor: a signal for the command. The monitor answers [`Message::Heard`].
    Signal(i32),
    /// To the monitor: nobody reads this stream any more.
    Refused(OutputStream),
    /// To the monitor: I go, and the container is to go on as if I were there.
    Detach,
    /// To the monitor: when the container ends, don't start it again. The monitor answers [`Message::Taken`]. A monitor
    /// of an older program knows this by its older name.
    #[serde(rename = "LetItEnd")]
    End(Rest),
    /// To the monitor: I want to look why the command didn't start, so send me a [`Message::Sight`].
    Looking,
    /// To the monitor: I have looked.
    Looked,
    /// To the monitor: I freeze the container. Have it go on when I have gone, however I went. The monitor answers
    /// [`Message::Taken`].
    Still,
    /// To the monitor: the container goes on already. The monitor answers [`Message::Taken`].
    GoesOn,
    /// From the monitor: the command's outcome, and where the host has the files of its root, if it has them in one
    /// directory that people know. If you look why, say [`Message::Looking`].
    Look(Result<u8, Report>, Option<PathBuf>),
    /// From the monitor: look. With the message come two descriptors, by which you can see why: those of
    /// [`step04_pivot_root::why::witness::Sight`]. The container stays as it is until you say [`Message::Looked`], for
    /// a while at most.
    Sight,
    /// From the monitor: what was typed has been read, or what was asked for is noted.
    Taken,
    /// From the monitor: the signal has arrived, and is being passed on.
    Heard,
    /// From the monitor: you read too slowly, and are shown no more.
    LeftBehind,
    /// From the monitor: what the container has said.
    #[serde(skip)]
    Output(OutputStream, Vec<u8>),
    /// From the monitor: the command runs.
    Started,
    /// From the monitor: the container has ended, and will be started again after a while.
    Restarting,
    /// From the monitor: the container has ended for good, and all traces are in order; or it didn't start.
    Ended(Ending),
}

/// How long a container that is ended stays so. It goes over the socket as `true` for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "bool", into = "bool")]
pub enum Rest {
    /// Until the machine is started again.
    UntilBoot,
    /// Longer than that, unless its policy is to be started always.
    ForGood,
}

impl From<bool> for Rest {
    fn from(for_good: bool) -> Rest {
        match for_good {
            true => Rest::ForGood,
            false => Rest::UntilBoot,
        }
    }
}

impl From<Rest> for bool {
    fn from(rest: Rest) -> bool {
        rest == Rest::ForGood
    }
}

/// How a container ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ending {
    /// Its exit code, or what went wrong.
    pub outcome: Result<u8, Report>,
    /// What the container used; `None` when it didn't start.
    pub usage: Option<String>,
    /// What couldn't be removed of the container, and why.
    #[serde(default)]
    pub left: Option<String>,
}

/// The most bytes of input or output in one message.
pub const LONGEST: usize = 4 * 1024;

const INPUT: u8 = b'0';
const OUTPUT: u8 = b'1';
const ERROR: u8 = b'2';

impl Message {
    /// The message as bytes for the socket.
    pub fn encode(&self) -> Vec<u8> {
        let with = |first: u8, bytes: &[u8]| [&[first], bytes].concat();
        match self {
            Message::Input(bytes) => with(INPUT, bytes),
            Message::Output(OutputStream::Error, bytes) => with(ERROR, bytes),
            Message::Output(_, bytes) => with(OUTPUT, bytes),
            other => serde_json::to_vec(other).unwrap_or_default(),
        }
    }

    fn decode(bytes: &[u8]) -> Result<Message> {
        Ok(match bytes {
            [INPUT, bytes @ ..] => Message::Input(bytes.to_vec()),
            [OUTPUT, bytes @ ..] => Message::Output(OutputStream::Output, bytes.to_vec()),
            [ERROR, bytes @ ..] => Message::Output(OutputStream::Error, bytes.to_vec()),
            other => serde_json::from_slice(other).context("a message that makes no sense")?,
        })
    }
}

/// Sends a message without waiting: EAGAIN when the other side has to read first.
pub fn send_now(to: &OwnedFd, encoded: &[u8]) -> nix::Result<()> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    send(to.as_raw_fd(), encoded, flags).map(drop)
}

/// As [`send_now`], with descriptors.
pub fn send_with(to: &OwnedFd, encoded: &[u8], with: &[OwnedFd]) -> nix::Result<()> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let with: Vec<&OwnedFd> = with.iter().collect();
    descriptors::send_with(to, encoded, &with, flags).map(drop)
}

/// The next message, with the descriptors that came with it. Use this only where the other side is trusted: [`receive`]
/// takes no descriptors.
pub fn receive_with(from: &OwnedFd, buffer: &mut [u8]) -> Result<Option<(Message, Vec<OwnedFd>)>> {
    loop {
        return match descriptors::receive_with(from, buffer, MsgFlags::empty()) {
            Ok((0, _)) => Ok(None),
            Err(Errno::EINTR | Errno::ECONNRESET) => continue,
            Err(errno) => Err(errno.into()),
            Ok((length, with)) => Ok(Some((Message::decode(&buffer[..length])?, with))),
        };
    }
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

/// Throws away what the other side has said; `false`: the other side has gone.
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

/// A path to the socket of `container` that is short enough for a socket address, wherever the directory is. The path
/// leads there as long as the returned file, the directory, is open.
fn address(container: &Container) -> Result<(File, PathBuf)> {
    let folder = File::open(&container.folders().run)?;
    let path = by_descriptor(&folder).join(container.socket());
    Ok((folder, path))
}

/// Opens the *door* of a container's monitor: the socket on which it listens, and to which other processes connect, or
/// [`knock`].
pub fn open_door(container: &Container) -> Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let door = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    let (_folder, path) = address(container)?;
    // A monitor that was killed has left its socket.
    unless_missing(fs::remove_file(&path))?;
    let bound = bind(door.as_raw_fd(), &UnixAddr::new(&path)?);
    bound.with_context(|| {
        container
            .folders()
            .run
            .join(container.socket())
            .display()
            .to_string()
    })?;
    listen(&door, Backlog::new(QUEUE)?)?;
    Ok(door)
}

/// How many connections may wait at a monitor's door to be accepted: listen(2).
const QUEUE: i32 = 64;

/// How long a process waits to connect, in seconds, while so many connections wait already.
const BEFORE_THE_DOOR: i64 = 10;

/// *Knocks* at a monitor's door: connects to the monitor of `container`. `None`: no monitor listens.
///
/// # Errors
/// As many connections wait at the door as may, and the monitor accepts none.
pub fn knock(container: &Container) -> Result<Option<OwnedFd>> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    let (_folder, path) = address(container)?;
    // The time that connect(2) may wait: SO_SNDTIMEO in socket(7).
    setsockopt(&socket, SendTimeout, &TimeVal::seconds(BEFORE_THE_DOOR))?;
    loop {
        return match connect(socket.as_raw_fd(), &UnixAddr::new(&path)?) {
            Err(Errno::EINTR) => continue,
            Err(Errno::ENOENT | Errno::ECONNREFUSED) => Ok(None),
            Err(Errno::EAGAIN) => {
                let monitor = container
                    .record()
                    .ok()
                    .and_then(|record| record.state.monitor);
                let way = monitor.map_or_else(String::new, |Identity { pid, .. }| {
                    format!("\nhelp: `kill -9 {pid}` ends it, and the container with it")
                });
                bail!("the container's monitor lets nobody in, and {QUEUE} wait already{way}")
            }
            connected => {
                connected?;
                setsockopt(&socket, SendTimeout, &TimeVal::seconds(0))?;
                Ok(Some(socket))
            }
        };
    }
}

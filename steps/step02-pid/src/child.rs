//! What later steps than this one need of a [`Child`], and of the [`ErrorPipe`] by which it reports a failure.

use crate::report::Report;
use crate::signals::{Requests, asked_to_end, send};
use crate::{Child, ErrorPipe, WRITER, reap};
use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

impl Child {
    /// Kills the child, reaps it when it has ended, and returns its exit code. A child that another process traces has
    /// ended too, but can't be reaped by us until the tracer lets go of it: ptrace(2).
    pub(crate) fn end(&self) -> Result<u8> {
        send(self.pid, libc::SIGKILL)?;
        while !self.has_ended(PollTimeout::NONE)? {}
        let killed = 128 + libc::SIGKILL as u8;
        Ok(reap(Some(self.pid))?.map_or(killed, |(_, code)| code))
    }

    /// Waits until the child has ended, and reaps it. When a signal that is held back asks this process to end meanwhile,
    /// the child is killed.
    pub(crate) fn end_unless_it_ends(&self) -> Result<()> {
        let requests = Requests::new()?;
        loop {
            let mut polled = [
                PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN),
                PollFd::new(requests.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut polled, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                polled => polled?,
            };
            let [has_ended, asked] = polled.map(|each| each.any() == Some(true));
            if has_ended {
                return reap(Some(self.pid)).map(drop);
            }
            if asked {
                let number = requests.receive()?;
                self.end()?;
                return Err(asked_to_end(number).into());
            }
        }
    }

    /// Whether the child has ended, even when we can't reap it because it is traced. SIGCHLD comes only when we can.
    pub fn has_ended(&self, timeout: PollTimeout) -> Result<bool> {
        let mut polled = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, timeout) {
            Err(Errno::EINTR) => Ok(false),
            polled => Ok(polled? > 0),
        }
    }
}

/// The most bytes that a report has. A process in a container that may trace the child could have it write without end.
const LONGEST: usize = 1 << 20;

/// The message that all went well, from a child whose silence doesn't say so.
const WELL: &[u8] = b"\n";

impl ErrorPipe {
    /// [`ErrorPipe::outcome`] for a `child` that other processes may hold up before it has
    /// become its command. When a signal that is held back ([`hold`](crate::signals::hold))
    /// asks this process to end meanwhile, the child is killed first.
    ///
    /// # Errors
    /// The child's own error, that this process was [asked to end](asked_to_end), or that nobody can listen. In each case
    /// the child has ended by then, and is reaped.
    pub fn outcome_or_end(self, child: &Child) -> Result<()> {
        hear(&self.news(), Some(child))
    }

    /// The parent's end alone.
    pub(crate) fn news(self) -> File {
        self.reader
    }

    /// The child's half, where the child goes on and becomes no command: says
    /// how it went. A child that says nothing was killed.
    pub fn tell(self, outcome: &Result<()>) {
        match outcome {
            Ok(()) => drop((&self.writer).write_all(WELL)),
            Err(error) => Report::from(error).send(&self.writer),
        }
    }

    /// The parent's half for such a child: waits for its [`ErrorPipe::tell`].
    pub fn told(self) -> Result<()> {
        let mut text = Vec::new();
        self.news().take(LONGEST as u64).read_to_end(&mut text)?;
        match &text[..] {
            WELL => Ok(()),
            [] => bail!("it was killed before it could tell how it went"),
            text => Err(serde_json::from_slice::<Report>(text)?.into_error()),
        }
    }
}

/// Has this child report to somebody else from now on: whoever [hears](hear) what is written to `to`. Its parent reads the
/// end of the news, as if the child had become its command.
pub fn report_to(to: &OwnedFd) -> Result<()> {
    if let Some(writer) = WRITER.get() {
        let (old, new) = (to.as_raw_fd(), writer.as_raw_fd());
        // SAFETY: `writer` owns its descriptor's number before and after: only what the number stands for changes.
        Errno::result(unsafe { libc::dup3(old, new, OFlag::O_CLOEXEC.bits()) })?;
    }
    Ok(())
}

/// Waits until the child at the other end of the pipe `news` has become its command, or has told why not. When a signal
/// that is held back asks this process to end meanwhile, the `child` is killed first; without one there is nobody to kill,
/// and the pipe is about to end.
///
/// # Errors
/// What the child has told, that this process was asked to end, or that nobody can listen. In each case the `child` has
/// ended by then, and is reaped.
pub fn hear(news: &File, child: Option<&Child>) -> Result<()> {
    let heard = listen(news, child.is_some());
    if let (Err(_), Some(child)) = (&heard, child) {
        // It may be about to end anyway. PID 1 of its namespace can't end before the child is reaped.
        child.end()?;
    }
    heard
}

/// The same, and the child goes on after an error. A signal is heeded where there is a child to end.
fn listen(mut news: &File, has_child: bool) -> Result<()> {
    let requests = Requests::new()?;
    let mut text = Vec::new();
    loop {
        let mut polled = [
            PollFd::new(news.as_fd(), PollFlags::POLLIN),
            PollFd::new(requests.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut polled, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            polled => polled?,
        };
        let [told, asked] = polled.map(|each| each.any() == Some(true));
        if !told && asked && has_child {
            return Err(asked_to_end(requests.receive()?).into());
        }
        let mut part = [0; 4096];
        match news.read(&mut part)? {
            0 => break,
            length if text.len() + length > LONGEST => {
                bail!("it reports more than {LONGEST} bytes");
            }
            length => text.extend_from_slice(&part[..length]),
        }
    }
    match text.is_empty() {
        true => Ok(()),
        false => Err(serde_json::from_slice::<Report>(&text)?.into_error()),
    }
}

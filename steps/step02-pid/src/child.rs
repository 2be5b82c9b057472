//! What chapters later than the second ask of a child, and of the pipe by which it says that it failed.

use crate::report::Report;
use crate::signals::{Requests, send};
use crate::{Child, ErrorPipe, reap};
use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use step01_uts::program::Ended;

impl Child {
    /// Kills it, and reaps it when it has ended. One that somebody else traces isn't ours to reap until they let go of
    /// it; it has ended all the same: ptrace(2).
    fn end(&self) -> Result<()> {
        send(self.pid, libc::SIGKILL)?;
        while !self.has_ended(PollTimeout::NONE)? {}
        reap(Some(self.pid)).map(drop)
    }

    /// Whether it has ended, be it ours to reap or not. SIGCHLD says so only when it is.
    pub fn has_ended(&self, timeout: PollTimeout) -> Result<bool> {
        let mut polled = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, timeout) {
            Err(Errno::EINTR) => Ok(false),
            polled => Ok(polled? > 0),
        }
    }
}

/// All went well, where silence doesn't say so.
const WELL: &[u8] = b"\n";

impl ErrorPipe {
    /// [`ErrorPipe::outcome`] for a `child` that others may hold up before it is its command: whoever asks this process to end
    /// meanwhile, by a signal that is held back, ends the child first.
    ///
    /// # Errors
    /// [`Ended`] with 128 and the signal's number.
    pub fn outcome_or_end(self, child: &Child) -> Result<()> {
        let ErrorPipe { reader, writer } = self;
        drop(writer);
        let requests = Requests::new()?;
        let mut text = Vec::new();
        loop {
            let mut polled = [
                PollFd::new(reader.as_fd(), PollFlags::POLLIN),
                PollFd::new(requests.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut polled, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                polled => polled?,
            };
            let [told, asked] = polled.map(|each| each.any() == Some(true));
            if !told && asked {
                let number = requests.receive()?;
                child.end()?;
                let text = "it was asked to end before the command ran".to_owned();
                let code = 128 + number as u8;
                return Err(Ended { code, text }.into());
            }
            let mut part = [0; 4096];
            match (&reader).read(&mut part)? {
                0 => break,
                length => text.extend_from_slice(&part[..length]),
            }
        }
        match &text[..] {
            [] => Ok(()),
            text => {
                // It is about to end. Until it is reaped, its namespace's PID 1 can't.
                child.end()?;
                Err(serde_json::from_slice::<Report>(text)?.into_error())
            }
        }
    }

    /// The half of a child that becomes no command and goes on: says how it went. Who never says so was killed.
    pub fn tell(self, outcome: &Result<()>) {
        match outcome {
            Ok(()) => drop((&self.writer).write_all(WELL)),
            Err(error) => Report::from(error).send(&self.writer),
        }
    }

    /// What such a child has told.
    pub fn told(self) -> Result<()> {
        drop(self.writer);
        let mut text = Vec::new();
        (&self.reader).read_to_end(&mut text)?;
        match &text[..] {
            WELL => Ok(()),
            [] => bail!("it was killed before it could tell how it went"),
            text => Err(serde_json::from_slice::<Report>(text)?.into_error()),
        }
    }
}

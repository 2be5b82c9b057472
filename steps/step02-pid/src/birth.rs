//! A child that another process makes for us: how we learn which one it is.

use crate::{Child, leave};
use anyhow::Result;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{Pid, pipe2};
use std::convert::Infallible;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use step01_uts::call;

/// A pipe by which a process learns of a child that another process has made for it.
pub struct Birth {
    reader: File,
    writer: File,
}

impl Birth {
    /// For one child; make it before the process that makes that child.
    pub fn new() -> Result<Birth> {
        // Reading needn't wait: the process between has ended by then, and has told or never will.
        let (reader, writer) = call!(pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK))?;
        Ok(Birth {
            reader: reader.into(),
            writer: writer.into(),
        })
    }

    /// Tells the PID of `child`, and ends this process.
    pub fn announce(&self, child: &Child) -> Result<Infallible> {
        (&self.writer).write_all(&child.pid.as_raw().to_ne_bytes())?;
        leave(0)
    }

    /// The child; `None` when the process between announced none.
    pub fn child(self) -> Result<Option<Child>> {
        drop(self.writer);
        let mut pid = [0; size_of::<i32>()];
        match (&self.reader).read_exact(&mut pid) {
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::UnexpectedEof | ErrorKind::WouldBlock
                ) =>
            {
                Ok(None)
            }
            read => {
                read?;
                let pid = i32::from_ne_bytes(pid);
                // The child is ours: until we reap it no other process gets its number.
                Ok(Some(Child {
                    pid: Pid::from_raw(pid),
                    pidfd: call!(pidfd_open(pid))?,
                }))
            }
        }
    }
}

/// A descriptor for the process `pid`: pidfd_open(2).
pub fn pidfd_open(pid: i32) -> nix::Result<OwnedFd> {
    // SAFETY: takes two integers, and returns a descriptor that nobody else has.
    unsafe {
        let pidfd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        Ok(OwnedFd::from_raw_fd(Errno::result(pidfd)? as i32))
    }
}

//! What a monitor has of the command that it stays with.

use nix::unistd::Pid;
use std::os::fd::OwnedFd;
use step02_pid::Child;
use step05_tty::terminal::Ends;

/// What the command of a container is connected to.
#[derive(Default)]
pub(crate) struct RunningCommand {
    /// The command's process; none, when it has ended.
    pub(super) pid: Option<Pid>,
    /// The end to write to, from which the command reads.
    pub(super) input: Option<OwnedFd>,
    /// The ends to read from, to which the command writes: standard output, or its terminal, and standard error.
    pub(super) output: [Option<OwnedFd>; 2],
    /// The command's end of its terminal.
    pub(super) slave: Option<OwnedFd>,
}

impl RunningCommand {
    /// The command that runs in `child`, with our ends of its streams.
    pub(crate) fn of(child: &Child, ends: Ends) -> RunningCommand {
        RunningCommand {
            pid: Some(child.pid),
            input: ends.input,
            output: ends.output,
            slave: ends.slave,
        }
    }
}

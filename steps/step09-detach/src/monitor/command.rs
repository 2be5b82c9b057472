//! What a monitor has of the command that it stays with.

use nix::unistd::Pid;
use std::os::fd::OwnedFd;
use step02_pid::Child;
use step05_tty::terminal::Ends;

/// What the command of a container is connected to.
#[derive(Default)]
pub(crate) struct RunningCommand {
    /// Its process; none, when it has ended.
    pub(super) pid: Option<Pid>,
    /// Where it reads.
    pub(super) input: Option<OwnedFd>,
    /// Where it writes: standard output, or its terminal, and standard error.
    pub(super) output: [Option<OwnedFd>; 2],
    /// Its end of its terminal.
    pub(super) slave: Option<OwnedFd>,
}

impl RunningCommand {
    /// That of `child`, whose ends we have.
    pub(crate) fn of(child: &Child, ends: Ends) -> RunningCommand {
        RunningCommand {
            pid: Some(child.pid),
            input: ends.input,
            output: ends.output,
            slave: ends.slave,
        }
    }
}

//! The exercises of chapter 2, called one by one.

#[path = "step02/init.rs"]
mod init;
#[path = "step02/outcome.rs"]
mod outcome;
#[path = "step02/reap.rs"]
mod reap;
#[path = "step02/spawn.rs"]
mod spawn;

use probe::anyhow::Result;
use probe::libc;
use probe::nix::errno::Errno;
use probe::nix::unistd::Pid;
use std::fs;
use step01_uts::Refused;

fn main() -> Result<()> {
    probe::main(&[
        ("spawn", spawn::judge),
        ("reap", reap::judge),
        ("outcome", outcome::judge),
        ("init", init::judge),
    ])
}

/// Errors with the errno of a [`Refused`] in front.
fn told<T>(outcome: Result<T>) -> Result<T> {
    probe::told(outcome, Refused::errno)
}

/// A child of the subject that does `what` and ends with the exit code that this returns.
fn child(what: impl FnOnce() -> i32) -> Result<Pid> {
    // SAFETY: the subject has one thread.
    match Errno::result(unsafe { libc::fork() })? {
        0 => {
            let code = what();
            // SAFETY: ends the process.
            unsafe { libc::_exit(code) }
        }
        pid => Ok(Pid::from_raw(pid)),
    }
}

/// The letter of a process's state; nothing when it isn't there.
fn state(pid: Pid) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    fields.chars().take(1).collect()
}

/// Waits until a child has ended and nobody has reaped it.
fn until_it_ends(pid: Pid) {
    while state(pid) != "Z" {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

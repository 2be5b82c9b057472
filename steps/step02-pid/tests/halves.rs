//! The child never comes back into the parent's code: neither by an error nor by a panic.
//!
//! A program of its own rather than a test of the harness, whose threads `spawn` couldn't copy.

use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::chdir;
use std::convert::Infallible;
use std::fs;
use std::path::Path;
use step01_uts::{Refused, call};
use step02_pid::signals::{Signals, hold};
use step02_pid::{fork, leave, reap, spawn};

/// A thing of the parent's that would be gone if a copied process dropped it.
struct Precious<'a>(&'a Path);

impl Drop for Precious<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.0);
    }
}

fn fails(body: impl Fn() -> Result<Infallible>) -> anyhow::Error {
    match spawn(CloneFlags::CLONE_NEWPID, body) {
        Err(error) => error,
        Ok(child) => panic!("a child {} started", child.pid),
    }
}

/// A child that held a signal back has ended by it: that shows at the first look, and no second one is waited for. Whoever
/// sleeps gives the processor up, which the kernel counts.
fn nobody_is_looked_for_who_has_ended() {
    hold().unwrap();
    let Some(child) = fork().unwrap() else {
        leave(0);
    };
    waitid(Id::Pid(child), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
    let sleeps = || {
        getrusage(UsageWho::RUSAGE_THREAD)
            .unwrap()
            .voluntary_context_switches()
    };
    let before = sleeps();
    let mut signals = Signals::new().unwrap();
    signals.ask(Signal::SIGTERM as i32, false, child).unwrap();
    let slept = sleeps() - before;
    assert!(slept < 100, "it slept {slept} times");
    reap(Some(child)).unwrap();
}

fn main() {
    let path = std::env::temp_dir().join(format!("ten-steps-precious-{}", std::process::id()));
    fs::write(&path, "").unwrap();
    let precious = Precious(&path);

    let error = fails(|| bail!("what went wrong"));
    assert_eq!(error.to_string(), "what went wrong");

    let error = fails(|| {
        let _dropped_while_unwinding = Precious(precious.0);
        panic!("what nobody expected")
    });
    assert!(
        error.to_string().contains("what nobody expected"),
        "{error}"
    );
    assert!(path.exists(), "the child unwound");

    // The kernel's answer arrives as it was given, with what was said around it.
    let error = fails(|| {
        let nowhere = Err(call!(chdir("/no/such/directory")).unwrap_err());
        nowhere
            .map_err(anyhow::Error::new)
            .map_err(|error| error.context("on the way"))
    });
    assert_eq!(
        error.downcast_ref::<Refused>().unwrap().errno(),
        Errno::ENOENT
    );
    assert_eq!(
        format!("{error:#}"),
        "on the way: chdir(\"/no/such/directory\"): No such file or directory (ENOENT)"
    );

    // A report longer than a pipe holds at once.
    let long = "x".repeat(200_000);
    assert_eq!(fails(|| bail!("{long}")).to_string(), long);

    nobody_is_looked_for_who_has_ended();

    // Each failed child has been reaped.
    assert_eq!(nix::sys::wait::wait(), Err(Errno::ECHILD));
    drop(precious);
    println!("test halves ... ok");
}

//! A process that is to be ended.

use probe::anyhow::{Context, Result, bail};
use probe::libc;
use probe::nix::errno::Errno;
use probe::nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use probe::nix::unistd::{ForkResult, Pid, fork};
use std::fs;
use std::sync::atomic::{AtomicI32, Ordering};
use step09_detach::{Identity, Stat};

/// A child of the probe's. It is deaf: what it gets it keeps pending, but for SIGKILL.
pub struct Victim(i32);

impl Victim {
    /// One that only SIGKILL ends.
    pub fn new() -> Result<Victim> {
        // SAFETY: this process has one thread, and the child only waits.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => {
                let victim = Victim(child.as_raw());
                victim.wait_until_it_is_deaf()?;
                Ok(victim)
            }
            ForkResult::Child => be_deaf(),
        }
    }

    /// One with the number of a process that has been reaped, which begins at another time.
    pub fn in_place_of(gone: &Identity) -> Result<Victim> {
        for _ in 0..1000 {
            let victim = Victim(born_as(gone.pid)?);
            victim.wait_until_it_is_deaf()?;
            // By /proc/PID/stat nobody can tell two apart that began in the same clock tick.
            if Stat::of(gone.pid)?.start_time != gone.start_time {
                return Ok(victim);
            }
            victim.end()?;
        }
        bail!("time stands still")
    }

    fn wait_until_it_is_deaf(&self) -> Result<()> {
        while signals(self.0, "SigBlk").context("its signals")? & 1 == 0 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        Ok(())
    }

    pub fn pid(&self) -> i32 {
        self.0
    }

    pub fn identity(&self) -> Result<Identity> {
        Identity::of(Pid::from_raw(self.0))
    }

    /// Kills it, and leaves the zombie.
    pub fn die(&self) -> Result<()> {
        kill(self.0);
        waitid(
            Id::Pid(Pid::from_raw(self.0)),
            WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT,
        )?;
        Ok(())
    }

    /// Kills it, and takes its exit code.
    pub fn end(&self) -> Result<()> {
        kill(self.0);
        waitpid(Pid::from_raw(self.0), None)?;
        Ok(())
    }
}

/// A set of signals in the status of a process.
fn signals(pid: i32, set: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(set)?.strip_prefix(':'))?;
    u64::from_str_radix(value.trim(), 16).ok()
}

/// The signal that a victim got: one that is pending, or the one that ended it.
pub fn got(pid: i32) -> Option<i32> {
    if has_ended(pid) {
        return Some(libc::SIGKILL);
    }
    let pending = signals(pid, "ShdPnd")?;
    (pending != 0).then(|| pending.trailing_zeros() as i32 + 1)
}

/// What the victim does.
fn be_deaf() -> ! {
    // SAFETY: the mask is the process's own; the calls take nothing else.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
        loop {
            libc::pause();
        }
    }
}

/// Makes a process with the number `pid`: set_tid of clone(2).
fn born_as(pid: i32) -> Result<i32> {
    let number = AtomicI32::new(pid);
    // SAFETY: all zeros are arguments; the child, a copy of this process, only waits.
    unsafe {
        let mut arguments: libc::clone_args = std::mem::zeroed();
        arguments.exit_signal = libc::SIGCHLD as u64;
        arguments.set_tid = number.as_ptr() as u64;
        arguments.set_tid_size = 1;
        let born = libc::syscall(
            libc::SYS_clone3,
            &raw mut arguments,
            size_of_val(&arguments),
        );
        number.load(Ordering::Relaxed);
        match Errno::result(born).context("clone3(2) with set_tid")? {
            0 => be_deaf(),
            born => Ok(born as i32),
        }
    }
}

/// Sends SIGKILL.
pub fn kill(pid: i32) {
    // SAFETY: takes integers.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

/// Sends SIGKILL, and comes back once it has worked: on a busy machine that takes a while.
pub fn kill_and_see(pid: i32) {
    kill(pid);
    while !has_ended(pid) {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// Ends a child, so that nothing is left of it.
pub fn end_now(pid: i32) {
    kill(pid);
    let _ = waitpid(Pid::from_raw(pid), None);
}

/// Whether a process has ended: it is a zombie, or gone.
pub fn has_ended(pid: i32) -> bool {
    Stat::of(pid).map_or(true, |stat| matches!(stat.state, 'Z' | 'X'))
}

/// A signal's name.
pub fn name(signal: i32) -> String {
    match probe::nix::sys::signal::Signal::try_from(signal) {
        Ok(signal) => signal.as_str().to_owned(),
        Err(_) => format!("signal {signal}"),
    }
}

//! # Step 9: outliving the caller
//!
//! Close the terminal, and a container of step 8 dies with it. A container that is to go on needs a process that stays
//! with it and that nothing ties to the caller: a process in a session of its own that has let go of the caller's
//! terminal, files and directory ([`detach`]). This process, the *monitor*, waits for the container, writes down what
//! the container says, and notes how it ended. Everybody else learns of the container by reading a record, which is
//! replaced and never overwritten ([`save`]). But a record can only say what was true when it was written. Whether a
//! process still runs is for the kernel to say, and a number alone isn't a process ([`is_running`]). To end a process,
//! a command asks, waits, and then insists ([`stop`]).
//!
//! The monitor is described in [`monitor`], what it does with the container in [`mod@start`], which is the closure of
//! step 8, and how it is given its task in [`errand`]. What is written down of a container, and where, is in
//! [`container`]. How other commands start a monitor and talk to it is described in [`caller`] and [`message`], what
//! they do with a container in [`lifecycle`], and what people type in [`commands`].

pub mod caller;
pub mod commands;
pub mod container;
pub mod errand;
pub mod flags;
pub mod lifecycle;
pub mod message;
pub mod monitor;
pub mod sealed;
pub mod start;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, chdir, close, dup2_stderr, dup2_stdin, dup2_stdout, setsid};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::{Duration, Instant};
use step01_uts::call;
use step02_pid::birth::pidfd_open;

// ANCHOR: detach
/// Detaches the calling process from the process that started it. Afterwards the calling process is in a session of its
/// own, which no terminal hangs up, stands in `/`, which nobody wants to unmount, and has only the descriptors in
/// `keep`, as they were, with /dev/null for its standard input, output and error, also where `keep` names one of these.
/// It is still the same process, and nothing else about it changes. The order is free. The descriptors 0, 1 and 2 are open
/// when it is called: Rust sees to that at a program's start.
///
/// A process that reads from a pipe reads on until the last writing end is closed: with the caller's output still open
/// here, `run -d | cat` would go on for as long as the container. See setsid(2), daemon(7).
///
/// # Errors
/// [`Refused`](step01_uts::Refused): EPERM of a process that leads its group, and so can't begin a session. This is for
/// a child.
pub fn detach(keep: &[RawFd]) -> Result<()> {
    // ANCHOR_END: detach
    // ANCHOR: exercise_detach
    call!(setsid())?;
    call!(chdir("/"))?;
    for descriptor in open_descriptors()? {
        if descriptor > libc::STDERR_FILENO && !keep.contains(&descriptor) {
            call!(close(descriptor))?;
        }
    }
    let null = call!(open("/dev/null", OFlag::O_RDWR, Mode::empty()))?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    Ok(())
    // ANCHOR_END: exercise_detach
}

// ANCHOR: open_descriptors
/// The numbers of this process's open descriptors: proc_pid_fd(5).
pub fn open_descriptors() -> Result<Vec<RawFd>> {
    let names = fs::read_dir("/proc/self/fd")?.flatten();
    let numbers = names.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let numbers: Vec<RawFd> = numbers.collect();
    // One of the numbers was the descriptor of the directory itself, which is closed by now.
    let is_open = |number: &RawFd| fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_ok();
    Ok(numbers.into_iter().filter(is_open).collect())
}
// ANCHOR_END: open_descriptors

// ANCHOR: save
/// Replaces the file `path` by one with `text`. At every moment, a process that opens the file reads the whole of the
/// old text or the whole of the new one, and an error leaves the old one, and nothing else. With `durable` this also
/// holds when the power fails; without it nothing waits for the disk.
///
/// The new file is written beside the old one and renamed over it, which the kernel does in one go, on one filesystem.
/// The name may reach the disk before the contents do, unless the contents are sent there first. How the new file is
/// called meanwhile is free; one that a killed process left there isn't in the way. Its mode is that of any new file:
/// 0666 without the bits of the umask. See rename(2), fsync(2).
///
/// # Errors
/// Whatever the kernel refused: not all of the text could be written, or it can't get its name.
pub fn save(path: &Path, text: &[u8], durable: bool) -> Result<()> {
    // ANCHOR_END: save
    // ANCHOR: exercise_save
    let aside = path.with_extension("new");
    let write = || {
        let mut file = File::create(&aside)?;
        file.write_all(text)?;
        if durable {
            file.sync_all()?;
        }
        fs::rename(&aside, path)
    };
    write().with_context(|| {
        let _ = fs::remove_file(&aside);
        path.display().to_string()
    })
    // ANCHOR_END: exercise_save
}

// ANCHOR: Identity
/// A process, identified by what no other process has ever had or will have.
///
/// Process IDs come round again: when the highest has been given out, the kernel goes on with the free ones. Two
/// processes with the same ID began at different times, or in different boots of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its process ID on the host.
    pub pid: i32,
    /// When the process began, in clock ticks since the machine was started: field 22 of proc_pid_stat(5).
    pub start_time: u64,
    /// The boot of the machine in which the process began: /proc/sys/kernel/random/boot_id.
    pub boot_id: String,
}
// ANCHOR_END: Identity

// ANCHOR: is_running
/// Whether `process` is still there, whoever's it is, and whether it runs, sleeps or is stopped. A zombie, a process that
/// has ended and that nobody has reaped, isn't. Looking changes nothing: who waits for its exit code still gets it.
///
/// `kill(pid, 0)` would only say that *a* process has the ID. See proc_pid_stat(5).
pub fn is_running(process: &Identity) -> bool {
    // ANCHOR_END: is_running
    // ANCHOR: exercise_is_running
    if boot_id().ok().as_ref() != Some(&process.boot_id) {
        return false;
    }
    match Stat::of(process.pid) {
        Ok(stat) => stat.start_time == process.start_time && !matches!(stat.state, 'Z' | 'X'),
        Err(_) => false,
    }
    // ANCHOR_END: exercise_is_running
}

// ANCHOR: Stat
/// What /proc/PID/stat says of a process.
#[derive(Debug, Clone, Copy)]
pub struct Stat {
    /// A letter: R runs, S sleeps, Z is a zombie.
    pub state: char,
    /// For how long the process has had a processor, in clock ticks.
    pub time: u64,
    /// When the process began, in clock ticks since the machine was started.
    pub start_time: u64,
}

impl Stat {
    /// Reads what the kernel says of the process `pid`.
    pub fn of(pid: i32) -> Result<Stat> {
        let bytes = fs::read(format!("/proc/{pid}/stat"))?;
        let text = String::from_utf8_lossy(&bytes);
        // The second field is the program's name in parentheses. A process chooses it, of any bytes.
        let (_, fields) = text.rsplit_once(") ").context("a stat without a name")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        let state = fields[0].chars().next().context("a stat without a state")?;
        let number = |field: usize| -> Result<u64> {
            Ok(fields.get(field).context("a short stat")?.parse()?)
        };
        Ok(Stat {
            state,
            time: number(11)? + number(12)?,
            start_time: number(19)?,
        })
    }
}
// ANCHOR_END: Stat

/// The ID of the machine's current boot.
pub fn boot_id() -> Result<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(id.trim().to_owned())
}

// ANCHOR: identity
impl Identity {
    /// The identity of the process that has the ID `pid` now. Call this for a child, or for the calling process itself:
    /// any other process may have ended, and its ID may belong to a new one.
    pub fn of(pid: Pid) -> Result<Identity> {
        let pid = pid.as_raw();
        Ok(Identity {
            pid,
            start_time: Stat::of(pid)?.start_time,
            boot_id: boot_id()?,
        })
    }

    /// A descriptor for the process, if it is still there: pidfd_open(2).
    ///
    /// The order matters: first the descriptor is opened, then the start time is read. The descriptor means the process
    /// that had the ID at that moment, whatever the ID means by now. If that process began when it should, it is the
    /// right one.
    pub fn open(&self) -> Result<Option<OwnedFd>> {
        match call!(pidfd_open(self.pid)) {
            Err(refused) if refused.errno() == Errno::ESRCH => Ok(None),
            pidfd => Ok(Some(pidfd?).filter(|_| is_running(self))),
        }
    }
}
// ANCHOR_END: identity

// ANCHOR: stop
/// Ends `process`: sends it `signal`, waits for `patience`, with `None` for ever, and then has the kernel end it by
/// SIGKILL. With a patience of zero SIGKILL follows `signal` at once. Who ends in time gets `signal` alone. Returns when the
/// process has ended, killed or not; at once when it isn't there any more, and then nobody gets a signal.
///
/// A loop that sleeps for a second and then looks, sleeps too long and looks too late. A pidfd becomes readable when
/// its process ends, and it never stands for another one, as a process ID may: no signal goes to a bare ID. See
/// pidfd_send_signal(2), poll(2).
///
/// # Errors
/// [`Refused`](step01_uts::Refused) when the kernel lets the process not be opened or signalled, or whatever made waiting
/// fail. That the process ended meanwhile (ESRCH) is no error.
pub fn stop(process: &Identity, signal: i32, patience: Option<Duration>) -> Result<()> {
    // ANCHOR_END: stop
    // ANCHOR: exercise_stop
    let Some(pidfd) = process.open()? else {
        return Ok(());
    };
    send(&pidfd, signal)?;
    if !wait_for_end(&pidfd, patience)? {
        send(&pidfd, libc::SIGKILL)?;
        wait_for_end(&pidfd, None)?;
    }
    Ok(())
    // ANCHOR_END: exercise_stop
}

// ANCHOR: waiting
/// Sends `signal` to the process of `pidfd`, which may have ended.
pub fn send(pidfd: &OwnedFd, signal: i32) -> Result<()> {
    match call!(pidfd_send_signal(pidfd, signal)) {
        Err(refused) if refused.errno() != Errno::ESRCH => Err(refused.into()),
        _ => Ok(()),
    }
}

/// Waits until the process of `pidfd` has ended, for `patience` at most, and says whether it has.
pub fn wait_for_end(pidfd: &OwnedFd, patience: Option<Duration>) -> Result<bool> {
    let begin = Instant::now();
    loop {
        let left = patience.map(|patience| patience.saturating_sub(begin.elapsed()));
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            // poll(2) waits for whole milliseconds: a part of one counts as one.
            let millis = left.as_millis().saturating_add(u128::from(!left.is_zero()));
            i32::try_from(millis)
                .ok()
                .and_then(|millis| PollTimeout::try_from(millis).ok())
                .unwrap_or(PollTimeout::MAX)
        });
        match poll(
            &mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)],
            timeout,
        ) {
            Ok(0) if left.is_some_and(|left| left.is_zero()) => return Ok(false),
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        }
    }
}
// ANCHOR_END: waiting

/// Sends a signal to the process of `pidfd`: pidfd_send_signal(2).
pub fn pidfd_send_signal(pidfd: &OwnedFd, signal: i32) -> nix::Result<()> {
    let nothing = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: takes integers; without a siginfo the kernel fills one in, as for kill(2).
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            nothing,
            0,
        )
    };
    Errno::result(result).map(drop)
}

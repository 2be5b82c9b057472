//! # Step 1: a hostname of its own
//!
//! A container is a process that was told a few lies about the machine it runs on. The first and
//! smallest lie is the machine's name. [`enter_uts`] tells it, and [`exec`] turns the process
//! that was told into the command you asked for.
//!
//! The rest of this crate serves every later step: [`call!`] makes a system call and says so
//! ([`mod@call`]), [`Narration`] has the flags that show those calls ([`narration`]), and
//! [`program()`] turns the outcome of a container's life into an exit code ([`mod@program`]).

pub mod call;
pub mod narration;
pub mod program;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::SigSet;
use nix::unistd::{execve, sethostname};
use std::convert::Infallible;
use std::ffi::CString;

pub use call::{Refused, Variable};
pub use narration::Narration;
pub use program::{host_environment, hostname, program, say};

// ANCHOR: enter_uts
/// Moves the caller into a UTS namespace of its own and gives that one the name `hostname`.
///
/// A UTS namespace holds two strings, the hostname and the NIS domain name. `unshare` copies the
/// caller's and points the caller at the copy: whatever is renamed from now on, the host keeps its
/// name. Needs CAP_SYS_ADMIN. See unshare(2), sethostname(2), uts_namespaces(7).
///
/// # Errors
/// [`Refused`], with EPERM for want of CAP_SYS_ADMIN and ENOSPC when the limit in
/// `/proc/sys/user/max_uts_namespaces` is reached.
pub fn enter_uts(hostname: &str) -> Result<()> {
    // ANCHOR_END: enter_uts
    // ANCHOR: exercise_enter_uts
    call!(unshare(CloneFlags::CLONE_NEWUTS))?;
    call!(sethostname(hostname))?;
    Ok(())
    // ANCHOR_END: exercise_enter_uts
}

// ANCHOR: exec
/// Turns the calling process into `command`: its program, then each word as one argument.
///
/// The program is looked for in the PATH of `environment` (`KEY=VALUE` strings), as execvp(3)
/// does, except that a file without `#!` isn't handed to a shell. The command inherits the three
/// standard descriptors and nothing else by accident ([`inherit_nothing`]). See execve(2).
///
/// # Errors
/// `execve` returns only to say why it couldn't: [`Refused`], with a text that begins with `execve(`.
/// Its exit code is 127 when no such program was found (ENOENT) and 126 when it can't be executed.
pub fn exec(command: &[String], environment: &[String]) -> Result<Infallible> {
    // ANCHOR_END: exec
    // ANCHOR: exercise_exec
    let words = c_strings(command)?;
    let variables: Vec<_> = c_strings(environment)?.into_iter().map(Variable).collect();
    inherit_nothing()?;

    let mut errno = Errno::ENOENT;
    for path in candidates(&command[0], environment) {
        let path = CString::new(path)?;
        let Err(refused) = call!(execve(&path, &words, &variables));
        match refused.errno() {
            Errno::ENOENT | Errno::ENOTDIR if !command[0].contains('/') => continue,
            // Another directory of PATH may have one that we may execute.
            Errno::EACCES => errno = Errno::EACCES,
            other => {
                errno = other;
                break;
            }
        }
    }
    Err(Refused::new(format!("execve({:?})", command[0]), errno).into())
    // ANCHOR_END: exercise_exec
}

// ANCHOR: candidates
/// The paths at which to look for `name`: itself when it has a slash, otherwise one below each
/// directory of PATH in `environment`, in order. An empty directory means the current one.
pub fn candidates(name: &str, environment: &[String]) -> Vec<String> {
    if name.contains('/') {
        return vec![name.to_owned()];
    }
    search_path(environment)
        .split(':')
        .map(|directory| if directory.is_empty() { "." } else { directory })
        .map(|directory| format!("{}/{name}", directory.trim_end_matches('/')))
        .collect()
}
// ANCHOR_END: candidates

/// The value of PATH in `environment`, or [`PATH`] when it isn't set.
pub fn search_path(environment: &[String]) -> &str {
    environment
        .iter()
        .find_map(|variable| variable.strip_prefix("PATH="))
        .unwrap_or(PATH)
}

/// The PATH in which programs are looked for where nobody has set another: Docker's default.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

// ANCHOR: inherit_nothing
/// Undoes what a command would inherit from this process by accident.
///
/// Across `execve` a process keeps its ignored signals, its signal mask and its open descriptors.
/// Rust ignores SIGPIPE, so without this `yes | head` would complain of a broken pipe; `nohup` and
/// shells ignore others; and every descriptor above 2 is a door out of the container. The
/// descriptors are marked close-on-exec rather than closed: one of them carries the report of a
/// failed `execve`, and closing that one would read as success. See signal(7), close_range(2).
pub fn inherit_nothing() -> Result<()> {
    for signal in 1..=libc::SIGRTMAX() {
        default_disposition(signal);
    }
    SigSet::empty().thread_set_mask()?;
    call!(close_range(3, CloseRange::CloseOnExec))?;
    Ok(())
}
// ANCHOR_END: inherit_nothing

/// Gives `signal` its default disposition; SIGKILL and SIGSTOP have no other. The system call is
/// made directly: glibc's function refuses two signals that glibc uses itself, and the process that
/// started us may have ignored those too. See sigaction(2).
fn default_disposition(signal: libc::c_int) {
    // The kernel's struct sigaction, all zero: SIG_DFL, no flags, an empty mask.
    let action = [0u64; 4];
    let (old, mask_size) = (std::ptr::null_mut::<u64>(), size_of::<u64>());
    // SAFETY: the kernel reads `action`, which is as large as its struct, and writes nothing.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            action.as_ptr(),
            old,
            mask_size,
        )
    };
}

/// What [`close_range`] does to a descriptor.
#[derive(Debug, Clone, Copy)]
pub enum CloseRange {
    /// Closes the descriptor at once. Code that owned it must not use it again.
    Close,
    /// Has `execve` close the descriptor: CLOSE_RANGE_CLOEXEC.
    CloseOnExec,
}

impl call::Argument for CloseRange {
    fn show(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(match self {
            CloseRange::Close => "0",
            CloseRange::CloseOnExec => "CLOSE_RANGE_CLOEXEC",
        })
    }
}

/// Closes every descriptor from `first` on, now or later. See close_range(2); Linux 5.11.
pub fn close_range(first: u32, how: CloseRange) -> nix::Result<()> {
    let flags = match how {
        CloseRange::Close => 0,
        CloseRange::CloseOnExec => libc::CLOSE_RANGE_CLOEXEC,
    };
    // SAFETY: the call takes three integers.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) };
    Errno::result(result).map(drop)
}

// ANCHOR: c_strings
/// The strings as the kernel takes them: each ends at its first NUL byte, so none may have one inside.
fn c_strings(strings: &[String]) -> Result<Vec<CString>> {
    if strings.first().is_some_and(|word| word.is_empty()) {
        bail!("the command is an empty word\nhelp: name a program, for example: sh");
    }
    strings
        .iter()
        .map(|word| CString::new(word.as_str()).with_context(|| format!("{word:?} has a NUL byte")))
        .collect()
}
// ANCHOR_END: c_strings

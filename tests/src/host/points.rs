//! Faults at a chosen moment: a program and all that it starts, one of which is killed, or has a system call
//! fail, at its n-th call. See ptrace(2).

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which of the processes, in the order in which they appear: the caller, its monitor, and then everybody in
/// the container.
pub type Role = usize;

/// What happens at the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// The process is killed before the call.
    Kill,
    /// The call fails with this errno. Only calls count that write to the folder in question.
    Error(i32),
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Struck {
    /// The call at which it happened; none, when there are fewer.
    pub call: Option<String>,
    /// How the program itself ended; 128+N by signal N.
    pub code: i32,
}

/// Calls that leave no trace outside of the process: whether it is killed before one of them or after makes no
/// difference.
const WITHOUT_TRACE: [&str; 48] = [
    "access",
    "arch_prctl",
    "brk",
    "clock_gettime",
    "dup",
    "dup2",
    "dup3",
    "execve",
    "faccessat",
    "faccessat2",
    "fcntl",
    "fstat",
    "fstatfs",
    "futex",
    "getcwd",
    "getdents64",
    "getegid",
    "geteuid",
    "getgid",
    "getpid",
    "getppid",
    "getrandom",
    "gettid",
    "getuid",
    "inotify_init1",
    "lseek",
    "lstat",
    "madvise",
    "mmap",
    "mprotect",
    "munmap",
    "newfstatat",
    "pidfd_open",
    "poll",
    "pread64",
    "prlimit64",
    "read",
    "readlink",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "sched_getaffinity",
    "set_robust_list",
    "set_tid_address",
    "sigaltstack",
    "stat",
    "statx",
    "uname",
];

/// Runs `command` with `fault` at the `point`-th call, counted from 0, of the process in `role`. What the
/// program left running goes on when this process ends.
pub fn strike(
    command: &mut Command,
    role: Role,
    point: u64,
    fault: Fault,
    folder: &Path,
) -> Result<Struck> {
    // SAFETY: ptrace is async-signal-safe.
    unsafe {
        command.pre_exec(|| Ok(ptrace::traceme()?));
    }
    let caller = Pid::from_raw(command.spawn().context("the program")?.id() as i32);
    waitpid(caller, None)?;
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC;
    ptrace::setoptions(caller, options)?;
    ptrace::syscall(caller, None)?;
    let mut harness = Harness {
        tracees: vec![caller],
        inside: HashMap::new(),
        unchanged: HashMap::new(),
        failing: None,
        seen: 0,
        role,
        point,
        fault,
        folder,
        call: None,
    };
    loop {
        let status = waitpid(Pid::from_raw(-1), Some(WaitPidFlag::__WALL))?;
        let code = match status {
            WaitStatus::Exited(pid, code) if pid == caller => code,
            WaitStatus::Signaled(pid, signal, _) if pid == caller => 128 + signal as i32,
            other => {
                harness.step(other)?;
                continue;
            }
        };
        for other in harness.tracees.iter().filter(|other| **other != caller) {
            // Whoever is new begins stopped, and would stay so without us.
            let _ = kill(*other, Signal::SIGCONT);
        }
        return Ok(Struck {
            call: harness.call,
            code,
        });
    }
}

struct Harness<'a> {
    tracees: Vec<Pid>,
    /// Who is in a call.
    inside: HashMap<Pid, bool>,
    /// Whose last call left no trace.
    unchanged: HashMap<Pid, bool>,
    /// Whose call is made to fail.
    failing: Option<Pid>,
    seen: u64,
    role: Role,
    point: u64,
    fault: Fault,
    folder: &'a Path,
    call: Option<String>,
}

impl Harness<'_> {
    fn step(&mut self, status: WaitStatus) -> Result<()> {
        let Some(pid) = status.pid() else {
            return Ok(());
        };
        if !self.tracees.contains(&pid) {
            self.tracees.push(pid);
        }
        let signal = match status {
            WaitStatus::PtraceSyscall(_) => {
                self.at_call(pid)?;
                None
            }
            WaitStatus::Stopped(_, Signal::SIGSTOP | Signal::SIGTRAP) => None,
            WaitStatus::Stopped(_, signal) => Some(signal),
            WaitStatus::PtraceEvent(_, _, event) => {
                if event != Event::PTRACE_EVENT_EXEC as i32 {
                    let new = Pid::from_raw(ptrace::getevent(pid)? as i32);
                    if !self.tracees.contains(&new) {
                        self.tracees.push(new);
                    }
                }
                None
            }
            _ => return Ok(()),
        };
        let goes_on = match self.call.is_some() && self.failing.is_none() {
            // It has happened: nobody need stop any more.
            true => ptrace::cont(pid, signal),
            false => ptrace::syscall(pid, signal),
        };
        match goes_on {
            // It was killed.
            Err(Errno::ESRCH) => Ok(()),
            goes_on => Ok(goes_on?),
        }
    }

    fn at_call(&mut self, pid: Pid) -> Result<()> {
        let inside = self.inside.entry(pid).or_default();
        *inside = !*inside;
        if !*inside {
            if self.failing == Some(pid) {
                self.failing = None;
                if let Fault::Error(errno) = self.fault {
                    set_result(pid, -i64::from(errno))?;
                }
            }
            return Ok(());
        }
        let role = self
            .tracees
            .iter()
            .position(|known| *known == pid)
            .unwrap_or(0)
            .min(2);
        if role != self.role || self.call.is_some() {
            return Ok(());
        }
        let call = Call::of(pid)?;
        let nothing_new = self
            .unchanged
            .insert(pid, call.leaves_no_trace())
            .unwrap_or(false);
        let counts = match self.fault {
            Fault::Kill => !nothing_new,
            Fault::Error(_) => call.writes_to(pid, self.folder),
        };
        if !counts {
            return Ok(());
        }
        self.seen += 1;
        if self.seen <= self.point {
            return Ok(());
        }
        self.call = Some(call.name());
        match self.fault {
            Fault::Kill => kill(pid, Signal::SIGKILL)?,
            Fault::Error(_) => {
                call.skip(pid)?;
                self.failing = Some(pid);
            }
        }
        Ok(())
    }
}

/// A call that is about to be made.
struct Call {
    number: i64,
    arguments: [u64; 6],
}

#[cfg(target_arch = "x86_64")]
impl Call {
    fn of(pid: Pid) -> Result<Call> {
        let of = ptrace::getregs(pid)?;
        Ok(Call {
            number: of.orig_rax as i64,
            arguments: [of.rdi, of.rsi, of.rdx, of.r10, of.r8, of.r9],
        })
    }

    /// Has the kernel find no such call.
    fn skip(&self, pid: Pid) -> Result<()> {
        let mut registers = ptrace::getregs(pid)?;
        registers.orig_rax = u64::MAX;
        Ok(ptrace::setregs(pid, registers)?)
    }
}

#[cfg(target_arch = "x86_64")]
fn set_result(pid: Pid, result: i64) -> Result<()> {
    let mut registers = ptrace::getregs(pid)?;
    registers.rax = result as u64;
    Ok(ptrace::setregs(pid, registers)?)
}

#[cfg(target_arch = "aarch64")]
impl Call {
    fn of(pid: Pid) -> Result<Call> {
        let of = ptrace::getregset::<ptrace::regset::NT_PRSTATUS>(pid)?;
        let mut arguments = [0; 6];
        arguments.copy_from_slice(&of.regs[..6]);
        Ok(Call {
            number: of.regs[8] as i64,
            arguments,
        })
    }

    /// Has the kernel make a call that does nothing: the number itself is in a register set of its own.
    fn skip(&self, _pid: Pid) -> Result<()> {
        anyhow::bail!("on this machine no call is made to fail")
    }
}

#[cfg(target_arch = "aarch64")]
fn set_result(_pid: Pid, _result: i64) -> Result<()> {
    Ok(())
}

impl Call {
    fn name(&self) -> String {
        syscalls::Sysno::new(self.number as usize)
            .map_or(self.number.to_string(), |call| call.to_string())
    }

    fn leaves_no_trace(&self) -> bool {
        let name = self.name();
        let only_reads =
            name == "openat" && self.arguments[2] as i32 & (libc::O_CREAT | libc::O_TRUNC) == 0;
        only_reads || WITHOUT_TRACE.contains(&name.as_str())
    }

    /// Whether it writes into the folder, or makes or renames something there.
    fn writes_to(&self, pid: Pid, folder: &Path) -> bool {
        let name = self.name();
        let descriptor = |argument: usize| {
            fs::read_link(format!(
                "/proc/{pid}/fd/{}",
                self.arguments[argument] as i32
            ))
            .ok()
        };
        let path = |argument: usize| string_at(pid, self.arguments[argument]);
        let place = match name.as_str() {
            "write" | "writev" | "pwrite64" | "fsync" | "fdatasync" | "ftruncate"
            | "copy_file_range" => descriptor(if name == "copy_file_range" { 2 } else { 0 }),
            "openat" if self.arguments[2] as i32 & libc::O_CREAT != 0 => path(1),
            "mkdir" | "creat" => path(0),
            "mkdirat" => path(1),
            "rename" | "link" | "symlink" => path(1),
            "renameat" | "renameat2" | "linkat" => path(3),
            "symlinkat" => path(2),
            _ => None,
        };
        place.is_some_and(|place| place.starts_with(folder))
    }
}

/// A string in another process's memory.
fn string_at(pid: Pid, address: u64) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::FileExt;
    let memory = fs::File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut bytes = Vec::new();
    let mut piece = [0; 64];
    while bytes.len() < 4096 {
        let read = memory
            .read_at(&mut piece, address + bytes.len() as u64)
            .ok()?;
        let end = piece[..read].iter().position(|byte| *byte == 0);
        bytes.extend_from_slice(&piece[..end.unwrap_or(read)]);
        if end.is_some() || read == 0 {
            break;
        }
    }
    Some(std::ffi::OsStr::from_bytes(&bytes).into())
}

//! The command: where its program is, where it stands, and how the process becomes it.

use crate::config::read::ProcessSpec;
use crate::notify::ready;
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::stat::{Mode, SFlag, stat, umask};
use nix::unistd::{AccessFlags, access, execve};
use std::convert::Infallible;
use std::ffi::CString;
use std::fs;
use std::os::fd::BorrowedFd;
use step01_uts::call::Variable;
use step01_uts::{Refused, call, candidates, inherit_nothing};
use step04_pivot_root::enter_workdir;
use step05_tty::COMMANDS_UMASK;
use step06_caps::users::UserName;

/// What is executed.
#[derive(Debug, Clone)]
pub struct Command {
    /// Its name as it was given, and its arguments.
    pub args: Vec<String>,
    /// Its environment.
    pub env: Vec<String>,
    /// How many descriptors from 3 on it gets.
    pub preserve_fds: u32,
}

impl Command {
    /// The command of a process, which gets `preserve_fds` descriptors from 3 on. A service manager that has opened
    /// sockets for it says how many by LISTEN_FDS: sd_listen_fds(3).
    pub fn of(process: &ProcessSpec, preserve_fds: u32) -> Command {
        let mut env = process.env.clone();
        if let Ok(count) = std::env::var("LISTEN_FDS") {
            env.retain(|variable| !variable.starts_with("LISTEN_FDS="));
            env.push(format!("LISTEN_FDS={count}"));
        }
        Command {
            args: process.args.clone(),
            env,
            preserve_fds,
        }
    }

    /// The same command, the first process of its container, which is told that number where it is told of sockets; and
    /// where it says that it is ready, if somebody wants to hear that.
    pub fn told(mut self, notifies: bool) -> Command {
        if self
            .env
            .iter()
            .any(|variable| variable.starts_with("LISTEN_FDS="))
        {
            self.env
                .retain(|variable| !variable.starts_with("LISTEN_PID="));
            self.env.push("LISTEN_PID=1".into());
        }
        if notifies {
            self.env
                .retain(|variable| !variable.starts_with("NOTIFY_SOCKET="));
            self.env.push(ready::VARIABLE.into());
        }
        self
    }

    /// Finds the program in the caller's root, before anybody waits for it. Adds HOME to the environment, which
    /// every program expects.
    ///
    /// # Errors
    /// [`Refused`], as by `execve`: there is no such program, or nobody may execute it.
    pub fn find(&mut self, uid: u32) -> Result<String> {
        if !self
            .env
            .iter()
            .any(|variable| variable.starts_with("HOME="))
        {
            let user = UserName {
                user: Some(uid.to_string()),
            };
            let home = user.find().map_or("/".to_owned(), |user| user.home);
            self.env.push(format!("HOME={home}"));
        }
        let name = &self.args[0];
        let mut errno = Errno::ENOENT;
        for path in candidates(name, &self.env) {
            let found = stat(&*path).and_then(|found| {
                match SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT {
                    SFlag::S_IFREG => access(&*path, AccessFlags::X_OK),
                    _ => Err(Errno::EACCES),
                }
            });
            match found {
                Ok(()) => return Ok(path),
                Err(Errno::ENOENT | Errno::ENOTDIR) if !name.contains('/') => continue,
                // Another directory of PATH may have one that can be executed.
                Err(found) if errno == Errno::ENOENT => errno = found,
                Err(_) => {}
            }
        }
        Err(Refused::new(format!("execve({name:?})"), errno).into())
    }

    /// Undoes what the command would inherit by accident, and keeps what it is to get. A filter of system calls that is
    /// older than one of these calls comes after this.
    pub fn inherit(&self) -> Result<()> {
        inherit_nothing()?;
        for number in preserved(self.preserve_fds) {
            // SAFETY: the descriptor is the caller's, and is open: `check_preserved` has seen it.
            let kept = unsafe { BorrowedFd::borrow_raw(number) };
            fcntl(kept, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        Ok(())
    }

    /// Becomes the command, whose program is at `path`.
    pub fn execute(&self, path: &str) -> Result<Infallible> {
        let c_strings = |strings: &[String]| -> Result<Vec<CString>> {
            let c_string = |text: &String| {
                CString::new(text.as_str()).with_context(|| format!("{text:?} has a NUL byte"))
            };
            strings.iter().map(c_string).collect()
        };
        let (program, words) = (CString::new(path)?, c_strings(&self.args)?);
        let variables: Vec<_> = c_strings(&self.env)?.into_iter().map(Variable).collect();
        let Err(refused) = call!(execve(&program, &words, &variables));
        Err(Refused::new(format!("execve({path:?})"), refused.errno()).into())
    }
}

fn preserved(count: u32) -> std::ops::Range<i32> {
    3..3 + count as i32
}

/// How many descriptors from 3 on the command gets: `count`, and those of LISTEN_FDS.
///
/// # Errors
/// One of them isn't open.
pub fn check_preserved(count: u32) -> Result<u32> {
    let listens = std::env::var("LISTEN_FDS").ok();
    let listens = listens
        .and_then(|text| text.parse::<u32>().ok())
        .unwrap_or(0);
    let count = count.saturating_add(listens).min(1 << 20);
    for number in preserved(count) {
        if fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_err() {
            bail!(
                "--preserve-fds, LISTEN_FDS: {count} descriptors from 3 on are wanted, and {number} isn't open"
            );
        }
    }
    Ok(count)
}

/// Makes `cwd` the working directory, and sets the umask.
///
/// Descriptors of the host's directories are still open here, until the command is executed. A `cwd` that leads to one of
/// them is no directory of the container, which is looked at (CVE-2024-21626).
pub fn stand_in(cwd: &str, mask: Option<u32>) -> Result<()> {
    umask(mask.map_or(COMMANDS_UMASK, Mode::from_bits_truncate));
    enter_workdir(cwd).context("process.cwd")
}

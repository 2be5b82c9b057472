//! A system call that says what it does, and what was wrong when it fails.
//!
//! ```
//! use nix::unistd::sethostname;
//! use step01_uts::call;
//!
//! let refused = call!(sethostname(&"x".repeat(65))).unwrap_err();
//! assert_eq!(refused.call, format!("sethostname({:?})", "x".repeat(65)));
//! ```

use crate::narration::{narrate, narrating};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags};
use nix::sched::CloneFlags;
use nix::sys::memfd::MFdFlags;
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType};
use nix::sys::stat::{Mode, SFlag};
use nix::sys::wait::WaitPidFlag;
use nix::unistd::{Gid, Pid, Uid, geteuid};
use serde::{Deserialize, Serialize};
use std::ffi::{CStr, CString};
use std::fmt::{self, Display, Formatter};
use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Makes a system call: `call!(sethostname(&name))?`.
///
/// The call's text, `sethostname("box")`, is printed under `--verbose` before it happens, and is
/// the error's text when the kernel refuses ([`Refused`]). The function is called by its bare
/// name and returns a `nix::Result`. Each argument is written once and evaluated twice, for the
/// text and for the call, so it should have no effect: a name, a constant, `Some(name)`, `a | b`.
#[macro_export]
macro_rules! call {
    ($call:ident($($argument:expr),* $(,)?)) => {
        $crate::call::narrated(
            stringify!($call),
            &[$(&$argument as &dyn $crate::call::Argument),*],
            || $call($($argument),*),
        )
    };
}

/// What [`call!`] expands to: narrates the call, makes it, and names it when it fails.
pub fn narrated<T>(
    name: &str,
    arguments: &[&dyn Argument],
    call: impl FnOnce() -> nix::Result<T>,
) -> Result<T, Refused> {
    let text = || Text { name, arguments }.to_string();
    if narrating() {
        narrate(&text());
    }
    call().map_err(|errno| Refused::new(text(), errno))
}

/// A system call that the kernel refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The call as it was narrated: `sethostname("box")`.
    pub call: String,
    /// What the kernel answered, as errno(3) numbers it.
    pub errno: i32,
    /// The reason, where one was looked for ([`Refused::because`]): the rest of the error's line, then more lines.
    #[serde(default)]
    pub why: Option<String>,
}

impl Refused {
    /// The refusal of `call` with `errno`.
    pub fn new(call: String, errno: Errno) -> Refused {
        Refused {
            call,
            errno: errno as i32,
            why: None,
        }
    }

    /// The same refusal, explained.
    pub fn because(self, why: String) -> Refused {
        Refused {
            why: Some(why),
            ..self
        }
    }

    /// The same refusal, with its texts as `shorter` returns them.
    pub fn told(&self, shorter: impl Fn(&str) -> String) -> Refused {
        Refused {
            call: shorter(&self.call),
            errno: self.errno,
            why: self.why.as_deref().map(shorter),
        }
    }

    /// What the kernel answered.
    pub fn errno(&self) -> Errno {
        Errno::from_raw(self.errno)
    }

    /// Whether the call was `name`.
    pub fn is(&self, name: &str) -> bool {
        self.call
            .strip_prefix(name)
            .is_some_and(|rest| rest.starts_with('('))
    }

    /// The exit code that tells this failure, as shells and Docker have it: 127 for a command that
    /// isn't found, 126 for one that can't be executed, 125 for a failure of our own.
    pub fn exit_code(&self) -> u8 {
        match (self.is("execve"), self.errno()) {
            (true, Errno::ENOENT) => 127,
            (true, _) => 126,
            (false, _) => 125,
        }
    }

    /// What the user can do about the refusal, where the call and its errno are enough to tell.
    pub fn help(&self) -> Option<String> {
        let makes_namespaces = self.is("unshare") || self.is("clone3");
        match self.errno() {
            Errno::EPERM if self.is("execve") => None,
            Errno::ENOENT | Errno::ENOTDIR if self.is("chdir") => {
                Some("name a directory that the root has".into())
            }
            Errno::EPERM if geteuid().is_root() && has_sys_admin() => root_of_a_namespace(),
            Errno::EPERM if geteuid().is_root() => Some(
                "you are root without CAP_SYS_ADMIN, as in a container: start that one with \
                 `docker run --privileged`, or use the dev container: \
                 `docker compose run --rm workshop`"
                    .into(),
            ),
            Errno::EPERM => Some(
                "this takes CAP_SYS_ADMIN, which root has: put `sudo` before the command \
                 (`cargo run` does so by itself where sudo is installed); without sudo, use the \
                 dev container: `docker compose run --rm workshop`"
                    .into(),
            ),
            Errno::ENOSPC if makes_namespaces => Some(self.namespaces_used_up()),
            Errno::EINVAL if makes_namespaces => {
                Some("this kernel was built without one of these namespaces".into())
            }
            Errno::ENOSYS if self.is("clone3") => Some(
                "clone3 takes Linux 5.3 or newer, and an old container engine's seccomp profile \
                 hides it: start the container around you with `--privileged`"
                    .into(),
            ),
            _ => None,
        }
    }

    /// The limits that the call may have run into, with their values: namespaces(7).
    fn namespaces_used_up(&self) -> String {
        let limits = [
            ("CLONE_NEWUTS", "uts"),
            ("CLONE_NEWPID", "pid"),
            ("CLONE_NEWNS", "mnt"),
            ("CLONE_NEWIPC", "ipc"),
            ("CLONE_NEWNET", "net"),
            ("CLONE_NEWUSER", "user"),
            ("CLONE_NEWCGROUP", "cgroup"),
        ]
        .into_iter()
        .filter(|(flag, _)| self.call.contains(flag))
        .filter_map(|(_, name)| {
            let file = format!("/proc/sys/user/max_{name}_namespaces");
            let value = std::fs::read_to_string(&file).ok()?;
            Some((file, value.trim().parse::<u64>().ok()?))
        })
        .collect::<Vec<_>>();
        match limits.iter().find(|(_, value)| *value == 0) {
            Some((file, _)) => format!("{file} is 0: write a larger number to it"),
            None => format!(
                "one of these limits is reached (or PID namespaces are nested 32 deep): {}",
                limits
                    .iter()
                    .map(|(file, value)| format!("{file} is {value}"))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        }
    }
}

/// The way out for root that has CAP_SYS_ADMIN in a user namespace only: there not all numbers stand for themselves. The
/// machine's own root lacks another capability, or did what nobody may. See user_namespaces(7).
fn root_of_a_namespace() -> Option<String> {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let is_the_machines = map.is_empty() || map.split_whitespace().eq(["0", "0", "4294967295"]);
    (!is_the_machines).then(|| {
        "you are root in a user namespace only, and this takes the machine's root: put `sudo` before the command, or \
         use the dev container: `docker compose run --rm workshop`"
            .into()
    })
}

/// Whether this process has CAP_SYS_ADMIN, number 21: CapEff in proc_pid_status(5).
fn has_sys_admin() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    effective.is_some_and(|set| set >> 21 & 1 == 1)
}

impl Display for Refused {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let errno = self.errno();
        write!(f, "{}: {} ({errno:?})", self.call, errno.desc())?;
        match &self.why {
            Some(why) => write!(f, ": {why}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Refused {}

/// A value that a call's text can show, written as strace(1) writes it.
pub trait Argument {
    /// Writes the value.
    fn show(&self, f: &mut Formatter) -> fmt::Result;

    /// Writes an array of such values: `["ls", "-l"]`.
    fn show_array(array: &[Self], f: &mut Formatter) -> fmt::Result
    where
        Self: Sized,
    {
        f.write_str("[")?;
        show_list(array, f)?;
        f.write_str("]")
    }
}

/// An environment variable, `KEY=VALUE`. Narration prints how many variables there are, and none of
/// them: a value may be a secret, and a log is read by many.
pub struct Variable(pub CString);

impl AsRef<CStr> for Variable {
    fn as_ref(&self) -> &CStr {
        &self.0
    }
}

impl Argument for Variable {
    fn show(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str("/* 1 var */")
    }

    fn show_array(array: &[Self], f: &mut Formatter) -> fmt::Result {
        write!(f, "[/* {} vars */]", array.len())
    }
}

struct Text<'a> {
    name: &'a str,
    arguments: &'a [&'a dyn Argument],
}

impl Display for Text<'_> {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        write!(f, "{}(", self.name)?;
        show_list(self.arguments, f)?;
        f.write_str(")")
    }
}

fn show_list<A: Argument>(list: &[A], f: &mut Formatter) -> fmt::Result {
    for (position, argument) in list.iter().enumerate() {
        if position > 0 {
            f.write_str(", ")?;
        }
        argument.show(f)?;
    }
    Ok(())
}

impl<A: Argument + ?Sized> Argument for &A {
    fn show(&self, f: &mut Formatter) -> fmt::Result {
        (**self).show(f)
    }
}

impl<A: Argument> Argument for Option<A> {
    fn show(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            Some(value) => value.show(f),
            None => f.write_str("NULL"),
        }
    }
}

impl<A: Argument> Argument for [A] {
    fn show(&self, f: &mut Formatter) -> fmt::Result {
        A::show_array(self, f)
    }
}

impl<A: Argument, const N: usize> Argument for [A; N] {
    fn show(&self, f: &mut Formatter) -> fmt::Result {
        self.as_slice().show(f)
    }
}

impl<A: Argument> Argument for Vec<A> {
    fn show(&self, f: &mut Formatter) -> fmt::Result {
        self.as_slice().show(f)
    }
}

/// Implements [`Argument`] for types whose text is one expression, written as strace(1) writes it.
macro_rules! arguments {
    ($($type:ty: |$value:ident, $f:ident| $show:expr;)*) => {
        $(impl Argument for $type {
            fn show(&self, $f: &mut Formatter) -> fmt::Result {
                let $value = self;
                $show
            }
        })*
    };
}

arguments! {
    str: |value, f| write!(f, "{value:?}");
    String: |value, f| write!(f, "{value:?}");
    CStr: |value, f| write!(f, "{value:?}");
    CString: |value, f| write!(f, "{value:?}");
    Path: |value, f| write!(f, "{value:?}");
    PathBuf: |value, f| write!(f, "{value:?}");
    i32: |value, f| write!(f, "{value}");
    u32: |value, f| write!(f, "{value}");
    // A `u64` is usually a set of bits.
    u64: |value, f| write!(f, "{value:#x}");
    bool: |value, f| write!(f, "{}", u8::from(*value));
    Mode: |value, f| write!(f, "{:#o}", value.bits());
    Pid: |value, f| write!(f, "{value}");
    Uid: |value, f| write!(f, "{value}");
    Gid: |value, f| write!(f, "{value}");
    File: |value, f| write!(f, "{}", value.as_raw_fd());
    OwnedFd: |value, f| write!(f, "{}", value.as_raw_fd());
    BorrowedFd<'_>: |value, f| match value.as_raw_fd() {
        libc::AT_FDCWD => f.write_str("AT_FDCWD"),
        number => write!(f, "{number}"),
    };
    AddressFamily: |value, f| write!(f, "{value:?}");
    SockType: |value, f| write!(f, "{value:?}");
    SockProtocol: |value, f| write!(f, "{value:?}");
    SFlag: |value, f| f.write_str(match *value {
        SFlag::S_IFCHR => "S_IFCHR",
        SFlag::S_IFBLK => "S_IFBLK",
        SFlag::S_IFIFO => "S_IFIFO",
        _ => "S_IFMT",
    });
    WaitPidFlag: |value, f| show_flags(value.iter_names(), f);
    Signal: |value, f| write!(f, "{value}");
    CloneFlags: |value, f| show_flags(value.iter_names(), f);
    SockFlag: |value, f| show_flags(value.iter_names(), f);
    OFlag: |value, f| show_flags(value.iter_names(), f);
    MFdFlags: |value, f| show_flags(value.iter_names(), f);
    MsFlags: |value, f| show_flags(value.iter_names(), f);
    MntFlags: |value, f| show_flags(value.iter_names(), f);
}

/// Writes the names of flags, such as `MS_REC|MS_PRIVATE`.
fn show_flags<T>(names: impl Iterator<Item = (&'static str, T)>, f: &mut Formatter) -> fmt::Result {
    let names: Vec<_> = names.map(|(name, _)| name).collect();
    f.write_str(if names.is_empty() { "0" } else { "" })?;
    f.write_str(&names.join("|"))
}

//! A terminal for a process of the container, whose other end goes to the engine, or to us.

use crate::config::read::ProcessSpec;
use crate::trees::Tree;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::socket::MsgFlags;
use nix::sys::stat::{Mode, SFlag, fstat, makedev};
use nix::unistd::{Gid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, fchown, setsid};
use std::io::{stderr, stdin, stdout};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use step01_uts::call;
use step02_pid::Child;
use step04_pivot_root::descriptors::send_with;
use step04_pivot_root::root::kind;
use step05_tty::mounts::MountPoint;
use step05_tty::relay::Until;
use step05_tty::terminal::{Channel, Terminal};
use step05_tty::{open_pty, set_size, take_terminal};

/// Where a process's terminal goes.
pub enum Console {
    /// There is none: the process has the runtime's own descriptors 0 to 2.
    None,
    /// To an engine, which listens at a socket and gets the master.
    Engine(OwnedFd),
    /// To this process, which carries the bytes.
    Ours(Terminal),
}

impl Console {
    /// Stays with `child`, which has become its command, until it has ended: carries bytes if the terminal's other end is
    /// ours, and hands on every signal. Returns its exit code.
    pub fn stay_with(self, child: &Child, until: Until) -> Result<u8> {
        let terminal = match self {
            Console::Ours(terminal) => terminal,
            // Its descriptors are our own, and need nobody who carries.
            _ => Terminal::Streams([Channel::Hosts, Channel::Hosts, Channel::Hosts]),
        };
        terminal.relay_until(child, until)
    }
}

/// The child's half: gives `process` its terminal, or its session without one. The terminal becomes /dev/console, too, if
/// `is_console`.
pub fn take_console(console: &Console, process: &ProcessSpec, is_console: bool) -> Result<()> {
    let asked = process.console_size.map(|size| (size.height, size.width));
    let uid = process.user.uid;
    let (to, size, both) = match console {
        Console::Engine(engine) => (engine, asked, false),
        Console::Ours(Terminal::Pty { child, size, .. }) => (child, asked.or(*size), true),
        Console::None | Console::Ours(_) => {
            call!(setsid())?;
            return give_streams_to(uid);
        }
    };
    let pty = open_pty()?;
    if let Some(size) = size {
        set_size(&pty.master, size)?;
    }
    if is_console {
        be_console(&pty.slave)?;
    }
    let ends = [&pty.master, &pty.slave];
    let ends = if both { &ends[..] } else { &ends[..1] };
    let sent = send_with(to, b"/dev/ptmx", ends, MsgFlags::MSG_NOSIGNAL);
    sent.context("the socket for the terminal")?;
    if uid != 0 {
        call!(fchown(&pty.slave, Some(Uid::from_raw(uid)), None::<Gid>))?;
    }
    take_terminal(&pty.slave)?;
    dup2_stdin(&pty.slave)?;
    dup2_stdout(&pty.slave)?;
    dup2_stderr(&pty.slave)?;
    Ok(())
}

/// Gives the descriptors 0 to 2 to the user `uid`: who opens /dev/stdout opens the file behind it anew, as that user. What
/// can't be given stays whose it is.
fn give_streams_to(uid: u32) -> Result<()> {
    let null = makedev(1, 3);
    for stream in [stdin().as_fd(), stdout().as_fd(), stderr().as_fd()] {
        let Ok(found) = fstat(stream) else { continue };
        let is_null = kind(&found) == SFlag::S_IFCHR && found.st_rdev == null;
        if is_null || found.st_uid == uid {
            continue;
        }
        match fchown(stream, Some(Uid::from_raw(uid)), None::<Gid>) {
            Err(Errno::EINVAL | Errno::EPERM | Errno::EROFS | Errno::ENOSYS) => {}
            given => given?,
        }
    }
    Ok(())
}

/// Makes the terminal known as /dev/console, too. No link at that path is followed, whoever has put it there: the file that
/// is covered is opened once, and by its descriptor the terminal is mounted on it (CVE-2025-52565).
fn be_console(slave: &OwnedFd) -> Result<()> {
    let path = Path::new("/dev/console");
    let how = |flags: OFlag| {
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC);
        how.resolve(ResolveFlag::RESOLVE_NO_SYMLINKS)
    };
    // Where there is something already, this fails, and what is there is covered.
    let new = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
    let _ = openat2(AT_FDCWD, path, how(new).mode(Mode::S_IRUSR | Mode::S_IWUSR));
    let file = openat2(AT_FDCWD, path, how(OFlag::O_PATH)).context("/dev/console")?;
    Tree::of_file(slave, false)?.attach(&MountPoint::of(file))
}

//! A terminal for a process whose engine holds the other end: the engine listens at a socket, and gets the master.

use crate::trees::Tree;
use anyhow::{Context, Result};
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::socket::MsgFlags;
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, fchown};
use std::os::fd::OwnedFd;
use std::path::Path;
use step01_uts::call;
use step04_pivot_root::descriptors::send_with;
use step05_tty::mounts::MountPoint;
use step05_tty::{open_pty, set_size, take_terminal};

/// Opens a terminal of the container's, of `size` in rows and columns, sends its master to `engine`, and makes the slave the
/// terminal of the calling process, which belongs to the user `uid`.
pub fn attach(
    engine: &OwnedFd,
    size: Option<(u16, u16)>,
    uid: u32,
    is_console: bool,
) -> Result<()> {
    let pty = open_pty()?;
    if let Some(size) = size {
        set_size(&pty.master, size)?;
    }
    if is_console {
        be_console(&pty.slave)?;
    }
    send_with(engine, b"/dev/ptmx", &[&pty.master], MsgFlags::MSG_NOSIGNAL)
        .context("the socket for the terminal")?;
    if uid != 0 {
        call!(fchown(&pty.slave, Some(Uid::from_raw(uid)), None::<Gid>))?;
    }
    take_terminal(&pty.slave)?;
    dup2_stdin(&pty.slave)?;
    dup2_stdout(&pty.slave)?;
    dup2_stderr(&pty.slave)?;
    Ok(())
}

/// Makes the terminal known as /dev/console, too. No link at that path is followed, whoever has put it there: the file that
/// is covered is opened once, and by its descriptor the terminal is mounted on it.
pub fn be_console(slave: &OwnedFd) -> Result<()> {
    let path = Path::new("/dev/console");
    let how = |flags: OFlag| {
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC);
        how.resolve(ResolveFlag::RESOLVE_NO_SYMLINKS)
    };
    // Where there is something already, this fails, and what is there is covered.
    let new = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
    let _ = openat2(AT_FDCWD, path, how(new).mode(Mode::S_IRUSR | Mode::S_IWUSR));
    let file = openat2(AT_FDCWD, path, how(OFlag::O_PATH)).context("/dev/console")?;
    Tree::of_file(slave, false)?.attach(&MountPoint::of(file)?)
}

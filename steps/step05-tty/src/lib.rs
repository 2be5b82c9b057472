//! # Step 5: a terminal of its own
//!
//! So far the container's shell spoke through the host's terminal, and could type into it. A
//! container gets a /dev of its own ([`DEV`], [`make_devices`]) with a devpts of its own, a
//! pseudo-terminal from *that* devpts ([`open_pty`]), and a session with this pseudo-terminal as its
//! controlling terminal ([`take_terminal`]). The parent has the other end and carries bytes ([`terminal`]),
//! with the host's terminal in raw mode meanwhile ([`raw_mode`]).
//!
//! How a mount finds its place in a root that somebody else made is told in [`mod@mounts`]. The files
//! by which a container knows its own name are in [`names`].

pub mod flags;
pub mod mounts;
pub mod names;
pub mod options;
pub mod relay;
pub mod terminal;

use anyhow::Result;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::MsFlags;
use nix::sys::stat::{Mode, SFlag, mode_t, umask};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{Gid, Uid, chown, setsid, symlinkat};
use std::borrow::Cow;
use std::fmt::{self, Formatter};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use step01_uts::call;
use step01_uts::call::Argument;

use mounts::Mount;

// ANCHOR: DEV
/// The mounts for a container's devices: an empty /dev of the container's own, and in it a devpts, where
/// pseudo-terminals come from. Each devpts numbers its pseudo-terminals from 0. Group 5 is `tty`, which
/// mesg(1) and write(1) count on. See pts(4), shm_overview(7), mq_overview(7).
pub const DEV: &[Mount] = &[
    Mount {
        source: "tmpfs",
        target: "/dev",
        kind: "tmpfs",
        flags: MsFlags::MS_NOSUID.union(MsFlags::MS_STRICTATIME),
        data: "mode=755,size=65536k",
    },
    Mount {
        source: "devpts",
        target: "/dev/pts",
        kind: "devpts",
        flags: MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC),
        data: "newinstance,ptmxmode=0666,mode=0620,gid=5",
    },
    Mount {
        source: "shm",
        target: "/dev/shm",
        kind: "tmpfs",
        flags: MsFlags::MS_NOSUID
            .union(MsFlags::MS_NODEV)
            .union(MsFlags::MS_NOEXEC),
        data: "mode=1777,size=65536k",
    },
    Mount {
        source: "mqueue",
        target: "/dev/mqueue",
        kind: "mqueue",
        flags: MsFlags::MS_NOSUID
            .union(MsFlags::MS_NODEV)
            .union(MsFlags::MS_NOEXEC),
        data: "",
    },
];
// ANCHOR_END: DEV

// ANCHOR: Device
/// A device file. The kernel knows a device by its number alone: a file of that type and number
/// *is* the device, under whatever name. See mknod(2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device<'a> {
    /// The file's path in the container.
    pub path: Cow<'a, str>,
    /// S_IFCHR or S_IFBLK.
    pub kind: SFlag,
    /// The device's number.
    pub number: Number,
    /// Its permissions.
    pub mode: mode_t,
    /// Its owner and group.
    pub owner: (u32, u32),
}

/// A device's number: the driver, and which of the driver's devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number {
    /// The driver.
    pub major: u32,
    /// Which of its devices.
    pub minor: u32,
}
// ANCHOR_END: Device

// ANCHOR: DEVICES
/// The devices that every program counts on: null(4), full(4), random(4), tty(4).
pub const DEVICES: &[Device] = &[
    character("/dev/null", 1, 3),
    character("/dev/zero", 1, 5),
    character("/dev/full", 1, 7),
    character("/dev/random", 1, 8),
    character("/dev/urandom", 1, 9),
    character("/dev/tty", 5, 0),
];

const fn character(path: &str, major: u32, minor: u32) -> Device<'_> {
    Device {
        path: Cow::Borrowed(path),
        kind: SFlag::S_IFCHR,
        number: Number { major, minor },
        mode: 0o666,
        owner: (0, 0),
    }
}

/// Links in /dev to files that differ from process to process, or from devpts to devpts.
pub const LINKS: &[(&str, &str)] = &[
    ("pts/ptmx", "/dev/ptmx"),
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
];
// ANCHOR_END: DEVICES

// ANCHOR: make_devices
/// Makes `devices`, each with just its mode and owner.
///
/// The mode that `mknod` gets loses the bits of the process's umask, and a container's devices
/// are for all of its users. The umask doesn't stay at 0, not even when a device can't be made:
/// afterwards it is [`COMMANDS_UMASK`], or again what it was. See mknod(2), umask(2).
///
/// # Errors
/// [`Refused`](step01_uts::Refused): EPERM for want of CAP_MKNOD in the initial user namespace, EEXIST
/// where something is at the path already: a link, for one, that would lead elsewhere.
pub fn make_devices(devices: &[Device]) -> Result<()> {
    // ANCHOR_END: make_devices
    // ANCHOR: exercise_make_devices
    umask(Mode::empty());
    let made = devices.iter().try_for_each(|device| {
        let (path, mode) = (&*device.path, Mode::from_bits_truncate(device.mode));
        call!(mknod(path, device.kind, mode, device.number))?;
        if device.owner != (0, 0) {
            let (uid, gid) = device.owner;
            call!(chown(path, Some(Uid::from(uid)), Some(Gid::from(gid))))?;
        }
        Ok(())
    });
    // After an error, too: whoever goes on makes files.
    umask(COMMANDS_UMASK);
    made
    // ANCHOR_END: exercise_make_devices
}

/// The umask of a command, whatever umask the host's shell has.
pub const COMMANDS_UMASK: Mode = Mode::S_IWGRP.union(Mode::S_IWOTH);

/// Makes the links in /dev.
pub fn make_links() -> Result<()> {
    for (target, link) in LINKS {
        call!(symlink(*target, *link))?;
    }
    Ok(())
}

// ANCHOR: mknod
/// Makes the device file `path`. See mknod(2).
pub fn mknod(path: &str, kind: SFlag, mode: Mode, number: Number) -> nix::Result<()> {
    let device = nix::sys::stat::makedev(number.major.into(), number.minor.into());
    nix::sys::stat::mknod(path, kind, mode, device)
}
// ANCHOR_END: mknod

fn symlink(target: &str, link: &str) -> nix::Result<()> {
    symlinkat(target, nix::fcntl::AT_FDCWD, link)
}

impl Argument for Number {
    fn show(&self, f: &mut Formatter) -> fmt::Result {
        write!(f, "makedev({}, {})", self.major, self.minor)
    }
}

// ANCHOR: open_pty
/// A pseudo-terminal: what is written into one end comes out of the other, and on the way the
/// kernel does what a terminal does: echo, line editing, Ctrl-C. See pty(7).
pub struct Pty {
    /// The end that takes the place of a screen and a keyboard.
    pub master: OwnedFd,
    /// The end that programs take for their terminal.
    pub slave: OwnedFd,
}

/// Opens a new pseudo-terminal of the devpts that is mounted at /dev/pts: by its own ptmx in there, as what is at
/// /dev/ptmx may belong to another.
///
/// A pseudo-terminal from the host's devpts would work, but `tty` in the container would say "not a tty": the terminal's
/// name is in a filesystem that isn't there. Both ends are for reading and writing (O_RDWR), closed by `execve` (O_CLOEXEC)
/// and nobody's controlling terminal (O_NOCTTY). See open(2), ioctl_tty(2) on TIOCSPTLCK and TIOCGPTPEER.
///
/// # Errors
/// [`Refused`](step01_uts::Refused): ENOENT without a devpts at /dev/pts. Neither end stays open.
pub fn open_pty() -> Result<Pty> {
    // ANCHOR_END: open_pty
    // ANCHOR: exercise_open_pty
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = call!(open("/dev/pts/ptmx", flags, Mode::empty()))?;
    // A new slave is locked: in the past its owner had to be set before anybody could open it.
    call!(unlock(&master))?;
    // The slave is opened by its master and not by a name, which could lead anywhere.
    let slave = call!(open_peer(&master, flags))?;
    Ok(Pty { master, slave })
    // ANCHOR_END: exercise_open_pty
}

// ANCHOR: unlock
/// Allows the slave of `master` to be opened: TIOCSPTLCK in ioctl_tty(2).
pub fn unlock(master: &OwnedFd) -> nix::Result<()> {
    let locked: libc::c_int = 0;
    // SAFETY: the kernel reads one int.
    let result = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const locked) };
    Errno::result(result).map(drop)
}
// ANCHOR_END: unlock

// ANCHOR: open_peer
/// Opens the slave of `master`: TIOCGPTPEER in ioctl_tty(2).
pub fn open_peer(master: &OwnedFd, flags: OFlag) -> nix::Result<OwnedFd> {
    // SAFETY: takes an integer, and returns a descriptor that nobody else has.
    unsafe {
        let slave = libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags.bits());
        Ok(OwnedFd::from_raw_fd(Errno::result(slave)?))
    }
}
// ANCHOR_END: open_peer

// ANCHOR: take_terminal
/// Begins a session of the calling process's own, and makes `terminal` its controlling terminal.
///
/// A terminal's Ctrl-C and hang-up reach its session, and /dev/tty is the controlling terminal of the
/// process that opens it. Only the leader of a session that has no controlling terminal yet can take one.
/// See setsid(2), TIOCSCTTY in ioctl_tty(2).
///
/// # Errors
/// [`Refused`](step01_uts::Refused): EPERM when the caller leads a process group already, or the
/// terminal is another session's, which keeps it; ENOTTY when `terminal` is none.
pub fn take_terminal(terminal: &OwnedFd) -> Result<()> {
    // ANCHOR_END: take_terminal
    // ANCHOR: exercise_take_terminal
    call!(setsid())?;
    call!(set_controlling_terminal(terminal))?;
    Ok(())
    // ANCHOR_END: exercise_take_terminal
}

// ANCHOR: set_controlling_terminal
/// Makes `terminal` the controlling terminal of the caller's session: TIOCSCTTY in ioctl_tty(2).
pub fn set_controlling_terminal(terminal: &OwnedFd) -> nix::Result<()> {
    let steal: libc::c_int = 0;
    // SAFETY: takes an integer.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, steal) };
    Errno::result(result).map(drop)
}
// ANCHOR_END: set_controlling_terminal

// ANCHOR: raw_mode
/// Runs `body` with `terminal` in raw mode, and puts its old mode back, however `body` ends.
///
/// A terminal in raw mode hands on each key as it is: Ctrl-C is a byte, and nothing is echoed. The
/// container's own terminal acts on Ctrl-C and echoes. If the host's terminal stays raw, its user can't
/// type in it any more. Settings that raw mode doesn't name are kept. See termios(3) on cfmakeraw.
///
/// # Errors
/// What `body` returns; a panic of its goes on, too. ENOTTY when `terminal` is none: then `body` doesn't run.
pub fn raw_mode<T>(terminal: BorrowedFd, body: impl FnOnce() -> Result<T>) -> Result<T> {
    // ANCHOR_END: raw_mode
    // ANCHOR: exercise_raw_mode
    struct Restore<F: Fn()>(F);
    impl<F: Fn()> Drop for Restore<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    let before = tcgetattr(terminal)?;
    let mut raw = before.clone();
    cfmakeraw(&mut raw);
    tcsetattr(terminal, SetArg::TCSANOW, &raw)?;
    // From here on the old mode has to be put back: after an error and in a panic, too.
    let _restore = Restore(|| {
        let _ = tcsetattr(terminal, SetArg::TCSADRAIN, &before);
    });
    body()
    // ANCHOR_END: exercise_raw_mode
}

// ANCHOR: copy_size
/// Gives the terminal `to` the size of the terminal `from`, in rows and columns; the kernel tells
/// the programs on it by SIGWINCH. See ioctl_tty(2) on TIOCGWINSZ.
pub fn copy_size(from: impl AsFd, to: impl AsFd) -> nix::Result<()> {
    set_size(to, size(from)?)
}

/// The rows and columns of a terminal.
pub fn size(terminal: impl AsFd) -> nix::Result<(u16, u16)> {
    // SAFETY: winsize is four numbers, which the kernel writes.
    unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        let terminal = terminal.as_fd().as_raw_fd();
        Errno::result(libc::ioctl(terminal, libc::TIOCGWINSZ, &raw mut size))?;
        Ok((size.ws_row, size.ws_col))
    }
}

/// Sets the rows and columns of a terminal.
pub fn set_size(terminal: impl AsFd, (rows, columns): (u16, u16)) -> nix::Result<()> {
    // SAFETY: winsize is four numbers, which the kernel reads.
    unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        (size.ws_row, size.ws_col) = (rows, columns);
        let terminal = terminal.as_fd().as_raw_fd();
        Errno::result(libc::ioctl(terminal, libc::TIOCSWINSZ, &raw const size)).map(drop)
    }
}
// ANCHOR_END: copy_size

//! A command's standard input, output and error: a terminal of the container's (`-t`), or the host's
//! own files and pipes, but never the host's terminal.

use crate::mounts::MountPoint;
use crate::relay::{Pump, Relay, Until};
use crate::{Pty, copy_size, open_pty, raw_mode, set_size, take_terminal};
use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, fchmod, fstat, makedev};
use nix::unistd::{Gid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, fchown, pipe2, setsid, ttyname};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{IsTerminal, stderr, stdin, stdout};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use step01_uts::call;
use step02_pid::Child;
use step04_pivot_root::descriptors::{passage, receive, send};

/// What the command reads and where it writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tty {
    /// Whether standard input is connected; without that the command reads nothing.
    pub interactive: bool,
    /// Whether the container has a terminal of its own.
    pub tty: bool,
}

impl Tty {
    /// These flags, or for a lone `sh` without any flag, the flags of a shell to type in: without them the
    /// shell would read nothing and end.
    pub fn or_for(self, command: &[String]) -> Tty {
        match command {
            [shell] if shell == "sh" && !self.interactive && !self.tty => Tty {
                interactive: true,
                tty: stdin().is_terminal() && stdout().is_terminal(),
            },
            _ => self,
        }
    }

    /// The variables for a terminal. TERM tells programs what the terminal can do. ENV names the file that an
    /// interactive shell reads first: in the default root, a file with a prompt. See ENV in sh(1).
    pub fn environment(self) -> Vec<String> {
        match self.tty {
            true => vec!["TERM=xterm".into(), "ENV=/etc/shrc".into()],
            false => vec![],
        }
    }

    /// Fails when `-i` and `-t` are given, and standard input is no terminal.
    pub fn check(self) -> Result<()> {
        if self.tty && self.interactive && !stdin().is_terminal() {
            bail!(
                "-it: standard input is no terminal\nhelp: leave out -t to read from a file or a pipe, or \
                 type the command in a terminal"
            );
        }
        Ok(())
    }

    /// Makes ready what the parent and the child need. Call this before the child is made.
    ///
    /// # Errors
    /// The errors of [`Tty::check`].
    pub fn open(self) -> Result<Terminal> {
        self.check()?;
        if self.tty {
            return self.pty(None);
        }
        let input = match (self.interactive, stdin().is_terminal()) {
            (false, _) => Channel::Nothing,
            (true, false) => Channel::Hosts,
            (true, true) => {
                let (inside, outside) = pipe2(OFlag::O_CLOEXEC)?;
                Channel::Pipe { inside, outside }
            }
        };
        let output = |is_terminal: bool| match is_terminal {
            false => Ok(Channel::Hosts),
            true => {
                let (outside, inside) = pipe2(OFlag::O_CLOEXEC)?;
                Ok::<_, Errno>(Channel::Pipe { inside, outside })
            }
        };
        Ok(Terminal::Streams([
            input,
            output(stdout().is_terminal())?,
            output(stderr().is_terminal())?,
        ]))
    }

    /// Makes ready what the parent and the child need, without any file, pipe or terminal of the host's:
    /// the process that started the container may go. A terminal begins with `size`, in rows and columns.
    pub fn open_apart(self, size: Option<(u16, u16)>) -> Result<Terminal> {
        if self.tty {
            return self.pty(size);
        }
        let input = match self.interactive {
            false => Channel::Nothing,
            true => {
                let (inside, outside) = pipe2(OFlag::O_CLOEXEC)?;
                Channel::Pipe { inside, outside }
            }
        };
        let output = || {
            let (outside, inside) = pipe2(OFlag::O_CLOEXEC)?;
            Ok::<_, Errno>(Channel::Pipe { inside, outside })
        };
        Ok(Terminal::Streams([input, output()?, output()?]))
    }

    fn pty(self, size: Option<(u16, u16)>) -> Result<Terminal> {
        let (child, parent) = passage()?;
        Ok(Terminal::Pty {
            interactive: self.interactive,
            size,
            is_console: true,
            child,
            parent,
        })
    }
}

/// What a command's three standard descriptors lead to.
pub enum Terminal {
    /// A pseudo-terminal of the container. Only the child can open it, and sends both ends to the parent.
    Pty {
        /// Whether our standard input goes there.
        interactive: bool,
        /// Its rows and columns; `None`: those of the host's terminal.
        size: Option<(u16, u16)>,
        /// Whether the terminal becomes the container's /dev/console.
        is_console: bool,
        /// The child's end of the socket.
        child: OwnedFd,
        /// The parent's end of the socket.
        parent: OwnedFd,
    },
    /// Input, output and error, each by itself.
    Streams([Channel; 3]),
}

/// What one of the three standard descriptors leads to.
pub enum Channel {
    /// /dev/null.
    Nothing,
    /// The host's file or pipe, as it is.
    Hosts,
    /// A pipe in place of the host's terminal: a process that holds the terminal could read what is
    /// typed there, and put input into it (TIOCSTI).
    Pipe {
        /// The command's end.
        inside: OwnedFd,
        /// Our end.
        outside: OwnedFd,
    },
}

impl Terminal {
    /// The child's half: puts the three descriptors in place, in a session of their own. Needs the
    /// container's /dev.
    pub fn attach(&self) -> Result<()> {
        match self {
            Terminal::Pty {
                child,
                size,
                is_console,
                ..
            } => {
                let pty = open_pty()?;
                if let Some(size) = size {
                    set_size(&pty.master, *size)?;
                } else if stdin().is_terminal() {
                    copy_size(stdin(), &pty.master)?;
                } else if stdout().is_terminal() {
                    copy_size(stdout(), &pty.master)?;
                }
                if *is_console {
                    be_console(&pty)?;
                }
                call!(send(child, [&pty.master, &pty.slave]))?;
                take_terminal(&pty.slave)?;
                dup2_stdin(&pty.slave)?;
                dup2_stdout(&pty.slave)?;
                dup2_stderr(&pty.slave)?;
            }
            Terminal::Streams([input, output, error]) => {
                call!(setsid())?;
                input.put(|inside| dup2_stdin(inside))?;
                output.put(|inside| dup2_stdout(inside))?;
                error.put(|inside| dup2_stderr(inside))?;
            }
        }
        Ok(())
    }

    /// Gives the terminal or the pipes that we made to the user `uid`, who couldn't open /dev/stdout
    /// otherwise. Files and pipes of the host keep their owner.
    pub fn give_to(&self, uid: u32) -> Result<()> {
        let uid = Some(Uid::from_raw(uid)).filter(|uid| !uid.is_root());
        let ours = match self {
            Terminal::Pty { .. } => [true, false, false],
            Terminal::Streams(streams) => streams
                .each_ref()
                .map(|stream| matches!(stream, Channel::Pipe { .. })),
        };
        for (stream, ours) in [stdin().as_fd(), stdout().as_fd(), stderr().as_fd()]
            .iter()
            .zip(ours)
        {
            if ours && uid.is_some() {
                call!(fchown(stream, uid, None::<Gid>))?;
            }
        }
        Ok(())
    }

    /// The parent's half: carries bytes and signals until `child` has ended, and returns its exit
    /// code.
    pub fn relay(self, child: &Child) -> Result<u8> {
        self.relay_until(child, Until::AllHaveEnded)
    }

    /// As [`Terminal::relay`], for a command that joined a container (step 10).
    pub fn relay_until(self, child: &Child, until: Until) -> Result<u8> {
        let ends = self.ends()?;
        let is_terminal = ends.slave.is_some();
        let [output, error] = ends.output.map(|end| end.map(Rc::new));
        let mut relay = Relay {
            slave: ends.slave,
            until,
            ..Relay::default()
        };
        if let Some(output) = output {
            if is_terminal && stdout().is_terminal() {
                relay.size = Some((stdout().as_fd().try_clone_to_owned()?, Rc::clone(&output)));
            }
            relay.output.push(Pump::new(output, duplicate(stdout())?));
        }
        if let Some(error) = error {
            relay.output.push(Pump::new(error, duplicate(stderr())?));
        }
        let Some(input) = ends.input else {
            return relay.run(child);
        };
        relay.input = Some(Pump::new(duplicate(stdin())?, Rc::new(input)));
        match is_terminal {
            true => raw_mode(stdin().as_fd(), || relay.run(child)),
            false => relay.run(child),
        }
    }
}

/// Our ends of a command's descriptors. A descriptor that leads to the host's own file, or to /dev/null, has none.
#[derive(Debug)]
pub struct Ends {
    /// Where the command's input is written; a write never waits.
    pub input: Option<OwnedFd>,
    /// Where the command's output and its errors are read; a read never waits. A terminal has one end for both.
    pub output: [Option<OwnedFd>; 2],
    /// The container's end of its terminal, when it has one. We hold it, so that a program in the container that
    /// closes its own doesn't end the conversation.
    pub slave: Option<OwnedFd>,
}

impl Terminal {
    /// The parent's half, for a caller that relays by itself. Call this when the child has become its command.
    pub fn ends(self) -> Result<Ends> {
        match self {
            Terminal::Pty {
                interactive,
                parent,
                ..
            } => {
                let [master, slave] = ends_of(&parent)?;
                Ok(Ends {
                    input: interactive.then(|| master.try_clone()).transpose()?,
                    output: [Some(master), None],
                    slave: Some(slave),
                })
            }
            Terminal::Streams([input, output, error]) => {
                let input = input.outside();
                if let Some(input) = &input {
                    dont_wait(input, OFlag::O_WRONLY)?;
                }
                let output = [output.outside(), error.outside()];
                // The container may open its own ends for reading, and take the bytes that a poll has just announced.
                for output in output.iter().flatten() {
                    dont_wait(output, OFlag::O_RDONLY)?;
                }
                Ok(Ends {
                    input,
                    output,
                    slave: None,
                })
            }
        }
    }
}

/// Opens the null device, to be held: in a running container, root may have put another device at /dev/null.
///
/// # Errors
/// Something else is at /dev/null.
pub fn null() -> Result<MountPoint> {
    const NULL: u64 = makedev(1, 3);
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let found = open("/dev/null", flags, Mode::empty())?;
    let stat = fstat(&found)?;
    let is_device = stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFCHR.bits();
    if !is_device || stat.st_rdev != NULL {
        bail!(
            "/dev/null in the container is something else\nhelp: rm /dev/null; mknod -m 666 /dev/null c 1 3"
        );
    }
    Ok(MountPoint::of(found))
}

/// The master and the slave that the child has sent.
fn ends_of(parent: &OwnedFd) -> Result<[OwnedFd; 2]> {
    let [master, slave] = receive(parent)?;
    // A write mustn't wait: the container may read nothing for a long time.
    dont_wait(&master, OFlag::O_RDWR)?;
    Ok([master, slave])
}

fn dont_wait(descriptor: &OwnedFd, mode: OFlag) -> nix::Result<()> {
    fcntl(descriptor, FcntlArg::F_SETFL(mode | OFlag::O_NONBLOCK)).map(drop)
}

impl Channel {
    /// Puts the command's end in its place, unless it is there already.
    fn put(&self, place: impl FnOnce(BorrowedFd) -> nix::Result<()>) -> Result<()> {
        match self {
            Channel::Nothing => {
                let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
                let null = open(&null()?, flags, Mode::empty())?;
                Ok(place(null.as_fd())?)
            }
            Channel::Pipe { inside, .. } => Ok(place(inside.as_fd())?),
            Channel::Hosts => Ok(()),
        }
    }

    /// Our end of the pipe. The command's end is closed here: as long as we hold it ourselves, we
    /// never read end-of-file.
    fn outside(self) -> Option<OwnedFd> {
        match self {
            Channel::Pipe { outside, .. } => Some(outside),
            _ => None,
        }
    }
}

fn duplicate(stream: impl AsFd) -> Result<Rc<OwnedFd>> {
    Ok(Rc::new(stream.as_fd().try_clone_to_owned()?))
}

/// Makes the terminal known as /dev/console, too: a program that has no other terminal writes there.
fn be_console(pty: &Pty) -> Result<()> {
    let none = None::<&str>;
    let console = File::create_new("/dev/console")?;
    fchmod(&console, Mode::S_IRUSR | Mode::S_IWUSR)?;
    let name = ttyname(&pty.slave)?;
    call!(mount(
        Some(&name),
        "/dev/console",
        none,
        MsFlags::MS_BIND,
        none
    ))?;
    Ok(())
}

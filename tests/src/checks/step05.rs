//! Chapter 5: a terminal of its own.

use crate::course::Exercise;
use crate::course::workbench::{READY, Workbench};
use crate::host::container::{Container, before_rest};
use crate::host::evidence::Process;
use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{major, minor};
use nix::sys::termios::{LocalFlags, Termios, tcgetattr};
use nix::unistd::Pid;
use probe::Claim;
use pty_process::blocking::{Command as PtyCommand, Pty, open};
use std::fs;
use std::fs::File;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::process::{Child, Command};
use step05_tty::DEVICES;

/// The exercises of chapter 5.
pub const EXERCISES: &[Exercise] = &[
    Exercise {
        name: "make_devices",
        heart: "devices are numbers",
        check: make_devices,
        scenes: &[&["--rootfs", "{root}", "-t", "true"]],
        mistakes: &[],
        read: "mknod(2), umask(2), null(4)",
        show: "(umask 077; cargo progress run 5 -- ls -l /dev)",
        hints: [
            "ls -l shows a device's two numbers where a file's size would be. What takes bits away \
             from the mode that mknod gets?",
            "umask(Mode::empty()); for each device mknod(path, kind, mode, number), and chown where \
             the owner isn't root; then umask(COMMANDS_UMASK), after an error, too.",
        ],
    },
    Exercise {
        name: "open_pty",
        heart: "ptmx belongs to an instance",
        check: open_pty,
        scenes: &[&["--rootfs", "{root}", "-t", "true"]],
        mistakes: &[],
        read: "pty(7), ioctl_tty(2) on TIOCSPTLCK and TIOCGPTPEER",
        show: "cargo progress run 5 -- -it tty",
        hints: [
            "Each devpts has a ptmx of its own, and numbers its terminals from 0. Which one is the \
             container's?",
            "open(\"/dev/pts/ptmx\", O_RDWR | O_NOCTTY | O_CLOEXEC), then unlock(&master), then \
             open_peer(&master, the same flags).",
        ],
    },
    Exercise {
        name: "take_terminal",
        heart: "setsid, then TIOCSCTTY",
        check: take_terminal,
        scenes: &[&["--rootfs", "{root}", "-t", "true"]],
        mistakes: &[],
        read: "setsid(2), TIOCSCTTY in ioctl_tty(2), proc(5) on /proc/PID/stat",
        show: "cargo progress run 5 -- -it ps -o pid,sid,tty,tpgid,args",
        hints: [
            "Only the leader of a session that has no terminal yet can take one. Who leads which \
             session here?",
            "setsid()?, then set_controlling_terminal(terminal)?.",
        ],
    },
    Exercise {
        name: "raw_mode",
        heart: "Drop as promise",
        check: raw_mode,
        scenes: &[],
        mistakes: &[],
        read: "termios(3) on raw mode, std::ops::Drop",
        show: "cargo progress run 5 -- -it no-such-program; stty -a | grep isig",
        hints: [
            "body can end in three ways: a value, an error, a panic. What runs after all three?",
            "tcgetattr; a clone of it through cfmakeraw; tcsetattr(TCSANOW). Then a value whose drop \
             sets the first one again, bound to a name so that it lives until body() has ended.",
        ],
    },
];

/// A program at a terminal of ours, in the foreground.
pub struct AtTerminal {
    /// Our end.
    pub pty: Pty,
    /// The other end, by which we look at what the terminal is like.
    pub slave: File,
    /// The program.
    pub program: Child,
    /// What it has printed.
    pub said: String,
}

impl AtTerminal {
    /// Starts `command` there and waits for `text`.
    pub fn start(command: PtyCommand, text: &str) -> Result<AtTerminal> {
        let (pty, terminal) = open()?;
        // Beside the program's own descriptors, so that the terminal stays when it has ended.
        let name = nix::unistd::ttyname(&terminal_of(&terminal)?)?;
        let slave = File::options().read(true).write(true).open(name)?;
        let program = command.spawn(terminal)?;
        let mut started = AtTerminal {
            pty,
            slave,
            program,
            said: String::new(),
        };
        started.read_until(text)?;
        Ok(started)
    }

    /// Reads until `text` has come.
    pub fn read_until(&mut self, text: &str) -> Result<()> {
        use std::io::Read;
        let mut buffer = [0; 4096];
        while !self.said.contains(text) {
            crate::host::container::wait_for(&self.pty, self.process())
                .with_context(|| format!("it printed {:?}, and not {text:?}", self.said))?;
            let read = self.pty.read(&mut buffer)?;
            self.said += &String::from_utf8_lossy(&buffer[..read]);
        }
        Ok(())
    }

    /// Types.
    pub fn write(&mut self, text: &str) -> Result<()> {
        use std::io::Write;
        Ok(self.pty.write_all(text.as_bytes())?)
    }

    /// The program.
    pub fn process(&self) -> Process {
        Process(Pid::from_raw(self.program.id() as i32))
    }

    /// The container's first process.
    pub fn first_process(&self) -> Result<Process> {
        let children = self.process().children();
        children.first().copied().context("it has no child")
    }

    /// What the terminal is like now.
    pub fn termios(&self) -> Result<Termios> {
        Ok(tcgetattr(&self.slave)?)
    }
}

impl Drop for AtTerminal {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

/// The slave as a descriptor of our own: a child shows which file it is.
fn terminal_of(terminal: &pty_process::blocking::Pts) -> Result<std::os::fd::OwnedFd> {
    use std::os::fd::AsFd;
    Ok(terminal.as_fd().try_clone_to_owned()?)
}

fn at_terminal(
    bench: &Workbench,
    flags: &[&str],
    command: &[&str],
    text: &str,
) -> Result<AtTerminal> {
    let arguments = bench.in_root(flags, command)?;
    AtTerminal::start(PtyCommand::new(&bench.program).args(arguments), text)
}

/// 5.1: every device has its number, and is for everybody, whatever the host's umask.
pub fn make_devices(bench: &Workbench) -> Result<Vec<Claim>> {
    let before = names(&bench.root()?.join("dev"))?;
    let mut command = Command::new("sh");
    command
        .args(["-c", "umask 077; exec \"$0\" \"$@\""])
        .arg(&bench.program);
    command.args(bench.in_root(&["-i"], &READY)?);
    let container = Container::start_with(&mut command)?;
    let first = container.first_process();
    let mut claims = Vec::new();
    for device in DEVICES {
        let seen = fs::symlink_metadata(first.file("root").join(&device.path[1..]));
        let number = format!("{}:{}", device.number.major, device.number.minor);
        let expected = format!(
            "{} is the character device {number}, with mode 0666",
            device.path
        );
        let source = format!("/proc/PID/root{}", device.path);
        claims.push(match seen {
            Err(error) => Claim::new(expected, format!("{source}: {error}"), false),
            Ok(seen) => {
                let is = format!("{}:{}", major(seen.rdev()), minor(seen.rdev()));
                let mode = seen.mode() & 0o7777;
                let kind = if seen.file_type().is_char_device() {
                    "character device"
                } else {
                    "no character device"
                };
                let holds = is == number && mode == 0o666 && seen.file_type().is_char_device();
                Claim::new(
                    expected,
                    format!("{source}: {kind} {is}, mode {mode:04o}"),
                    holds,
                )
            }
        });
    }
    container.finish()?;
    let after = names(&bench.root()?.join("dev"))?;
    claims.push(Claim::equal(
        "the root's own /dev is as it was",
        "its names on the host",
        &after,
        &before,
    ));
    Ok(claims)
}

fn names(directory: &std::path::Path) -> Result<Vec<String>> {
    let entries: Result<Vec<_>, _> = fs::read_dir(directory)?.collect();
    let mut names: Vec<_> = entries?
        .iter()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    Ok(names)
}

/// 5.2: the command's terminal lies on the container's own devpts.
pub fn open_pty(bench: &Workbench) -> Result<Vec<Claim>> {
    let container = at_terminal(bench, &["-it"], &READY, "ready")?;
    let first = container.first_process()?;
    let mut claims = Vec::new();
    let devpts = fs::metadata(first.file("root/dev/pts"))?.dev();
    for number in 0..3 {
        let file = first.file(&format!("fd/{number}"));
        let name = fs::read_link(&file)?;
        let seen = fs::metadata(&file)?;
        claims.push(Claim::new(
            format!("descriptor {number} is /dev/pts/0 of the container's devpts, which is device {devpts}"),
            format!("/proc/PID/fd/{number}: {} on device {}", name.display(), seen.dev()),
            seen.dev() == devpts && name.to_string_lossy() == "/dev/pts/0",
        ));
    }
    Ok(claims)
}

/// Of proc_pid_stat(5): the process group, the session, the controlling terminal, and the
/// terminal's foreground process group.
fn stat(process: &Process) -> Result<[i32; 4]> {
    let text = fs::read_to_string(process.file("stat"))?;
    let (_, fields) = text.rsplit_once(") ").context("no fields")?;
    let fields: Vec<i32> = fields
        .split(' ')
        .skip(2)
        .take(4)
        .map(|field| field.parse().unwrap_or(0))
        .collect();
    Ok([fields[0], fields[1], fields[2], fields[3]])
}

/// 5.3: the command leads a session, and its terminal controls it.
pub fn take_terminal(bench: &Workbench) -> Result<Vec<Claim>> {
    let container = at_terminal(bench, &["-it"], &READY, "ready")?;
    let first = container.first_process()?;
    let [_, session, terminal, foreground] = stat(&first)?;
    let pid = first.0.as_raw();
    // encode_dev: the minor's low byte, the major above it.
    let pts = 136 << 8;
    let outside = stat(&container.process())?[1];
    Ok(vec![
        Claim::new(
            "the command leads a session of its own, which the program isn't in",
            format!(
                "/proc/PID/stat: session {}, the program's {}",
                show(session, pid),
                show(outside, pid)
            ),
            session == pid && outside != session,
        ),
        Claim::new(
            "its controlling terminal is pts/0",
            format!(
                "/proc/PID/stat: tty_nr {}:{}",
                terminal >> 8,
                terminal & 0xff
            ),
            terminal == pts,
        ),
        Claim::new(
            "it is in that terminal's foreground",
            format!("/proc/PID/stat: tpgid {}", show(foreground, pid)),
            foreground == pid,
        ),
    ])
}

/// A pid without its number, which differs each time.
fn show(pid: i32, own: i32) -> &'static str {
    match pid {
        _ if pid == own => "its own",
        0 | -1 => "none",
        _ => "another's",
    }
}

/// 5.4: the terminal is raw while the container runs, and afterwards what it was, however it ended.
pub fn raw_mode(bench: &Workbench) -> Result<Vec<Claim>> {
    type End = fn(&mut AtTerminal) -> Result<()>;
    let ends: [(&str, End); 3] = [
        ("its command ends", |terminal| terminal.write("\r")),
        ("its command is killed", |terminal| {
            Ok(kill(terminal.first_process()?.0, Signal::SIGKILL)?)
        }),
        ("it was asked to end three times", |terminal| {
            // A shell has no handler for it, and as PID 1 doesn't hear.
            for _ in 0..3 {
                let pending = |terminal: &AtTerminal| terminal.process().status("ShdPnd");
                kill(terminal.process().0, Signal::SIGTERM)?;
                before_rest(terminal.process(), || {
                    pending(terminal)
                        .map_or(true, |mask| mask == "0".repeat(16))
                        .then_some(())
                });
            }
            Ok(())
        }),
    ];
    let mut claims = Vec::new();
    for (how, end) in ends {
        let (pty, terminal) = open()?;
        let before = tcgetattr(&terminal_of(&terminal)?)?;
        drop((pty, terminal));
        let mut container = at_terminal(bench, &["-it"], &READY, "ready")?;
        let raw = before_rest(container.process(), || {
            let now = container.termios().ok()?;
            let cooked = LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG;
            (!now.local_flags.intersects(cooked)).then_some(())
        });
        let meanwhile = container.termios()?.local_flags;
        end(&mut container)?;
        let process = container.process();
        let ended = before_rest(process, || container.program.try_wait().ok().flatten());
        let after = container.termios()?;
        let same = after.local_flags == before.local_flags
            && after.input_flags == before.input_flags
            && after.output_flags == before.output_flags;
        // It is the same each time.
        if claims.is_empty() {
            claims.push(Claim::new(
                "the host's terminal is in raw mode while the container runs",
                match raw {
                    Some(()) => "tcgetattr: raw".to_owned(),
                    None => format!("tcgetattr: {meanwhile:?}"),
                },
                raw.is_some(),
            ));
        }
        claims.push(Claim::new(
            format!("when {how} the terminal is what it was"),
            match (ended, same) {
                (None, _) => "the program is still there".to_owned(),
                (_, true) => "tcgetattr: the same".to_owned(),
                (_, false) => format!("tcgetattr: {:?}", after.local_flags),
            },
            ended.is_some() && same,
        ));
    }
    Ok(claims)
}

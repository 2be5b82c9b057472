//! 5.3: a session of the caller's own, and its controlling terminal.

use crate::terminals::{Terminal, devpts, terminal};
use probe::anyhow::{Context, Result};
use probe::libc::{self, c_long};
use probe::nix::errno::Errno;
use probe::nix::sys::stat::{fstat, major, minor};
use probe::nix::sys::termios::tcgetattr;
use probe::nix::unistd::{
    ForkResult, Pid, dup2_stdin, fork, getpid, pause, pipe, read, setpgid, setsid, write,
};
use probe::{Claim, Findings, Outcome, State, note, noted, private_mounts};
use std::cell::Cell;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};

pub fn take_terminal(findings: &Findings) -> Result<()> {
    private_mounts()?;
    devpts(&findings.scratch.join("pts"))?;
    findings.play(&[
        any_terminal,
        the_terminal_itself,
        who_leads_a_group,
        who_leads_a_session,
        another_sessions,
        what_is_no_terminal,
        a_call_fails,
    ])
}

const TAKING: &[(c_long, &str, Errno)] = &[
    (libc::SYS_setsid, "setsid(2)", Errno::EPERM),
    (libc::SYS_ioctl, "ioctl(2), TIOCSCTTY", Errno::EIO),
];

/// The terminal that is to be taken, with others before it and one at standard input.
struct World {
    wanted: Terminal,
    _others: [Terminal; 2],
}

fn world(findings: &Findings) -> Result<World> {
    let pts = findings.scratch.join("pts");
    let others = [terminal(&pts)?, terminal(&pts)?];
    dup2_stdin(&others[1].slave)?;
    Ok(World {
        wanted: terminal(&pts)?,
        _others: others,
    })
}

/// What a terminal has that is nobody's to change here: its mode, its size, its file's mode and owner.
fn look(terminal: &OwnedFd) -> Result<impl PartialEq> {
    let file = fstat(terminal)?;
    let (mode, size) = (tcgetattr(terminal)?, step05_tty::size(terminal)?);
    Ok((file.st_mode, file.st_uid, file.st_gid, mode, size))
}

/// A field of proc_pid_stat(5), counted from the state as 0.
fn field(state: &State, at: usize) -> i32 {
    let field = state.stat.get(at).and_then(|field| field.parse().ok());
    field.unwrap_or_default()
}

const GROUP: usize = 2;
const SESSION: usize = 3;
const TERMINAL: usize = 4;
const FOREGROUND: usize = 5;

/// Calls the function in a process to which `first` has happened before.
fn call(
    findings: &Findings,
    subject: probe::Subject,
    first: impl FnOnce() -> Result<()>,
) -> Result<Outcome> {
    subject.call_in(
        || {
            let world = world(findings)?;
            first()?;
            Ok(world)
        },
        |world| {
            let slave = &world.wanted.slave;
            let number = fstat(slave)?.st_rdev;
            let taken = step05_tty::take_terminal(slave);
            // It stays open for whoever looks from outside.
            std::mem::forget(world);
            taken?;
            Ok((getpid().as_raw(), number))
        },
        |_| Ok(()),
    )
}

/// Whether the process leads a session with the terminal: what is otherwise.
fn wrong(outcome: &Outcome) -> Vec<String> {
    let (pid, number): (i32, u64) = outcome.value().unwrap_or_default();
    let after = &outcome.after;
    let mut wrong = Vec::new();
    if field(after, SESSION) != pid {
        wrong.push("it is in another's session (/proc/PID/stat: session)".to_owned());
    } else if field(after, GROUP) != pid {
        wrong.push("it doesn't lead its process group (/proc/PID/stat: pgrp)".to_owned());
    }
    // Of tty_nr the minor's low byte comes first, and the major above it.
    let is = field(after, TERMINAL);
    let wanted = ((major(number) << 8) | minor(number)) as i32;
    match is {
        _ if is == wanted => {}
        0 => wrong.push("it has no controlling terminal (/proc/PID/stat: tty_nr 0)".into()),
        _ => wrong.push(format!(
            "its controlling terminal is {}:{}, and not {}:{}, the one that was given (/proc/PID/stat: tty_nr)",
            is >> 8,
            is & 0xff,
            wanted >> 8,
            wanted & 0xff
        )),
    }
    if wrong.is_empty() && field(after, FOREGROUND) != pid {
        wrong.push("it isn't in its terminal's foreground (/proc/PID/stat: tpgid)".into());
    }
    wrong
}

/// Why the kernel refuses, when it does: by the order of the two calls.
fn why(outcome: &Outcome) -> Option<String> {
    let names: Vec<c_long> = outcome.calls.iter().map(|call| call.number).collect();
    let text = match names[..] {
        [libc::SYS_ioctl, ..] => {
            "the terminal was asked for without a session before (setsid): only the leader of one that has no terminal yet can take it"
        }
        [libc::SYS_setsid] => {
            "setsid(2) begins a session, and takes away the terminal: none was taken then (TIOCSCTTY)"
        }
        _ => return None,
    };
    Some(text.into())
}

fn any_terminal(findings: &Findings) -> Result<()> {
    let expected = "the caller leads a session of its own, and the terminal that is given is its controlling terminal";
    findings.begin(expected);
    let watcher = probe::Watcher::records(&[libc::SYS_setsid, libc::SYS_ioctl]);
    let outcome = call(findings, findings.subject().watch(watcher), || Ok(()))?;
    let wrong = wrong(&outcome);
    if findings.holds(expected, &outcome, &wrong, || why(&outcome)) {
        findings.caller_stays(&outcome, &["session"]);
    }
    Ok(())
}

fn the_terminal_itself(findings: &Findings) -> Result<()> {
    let expected =
        "the terminal's mode and size, and its file's owner and permissions, stay as they were";
    findings.begin(expected);
    let world = world(findings)?;
    let slave = &world.wanted.slave;
    let before = look(slave)?;
    let outcome = findings
        .subject()
        .call(|| step05_tty::take_terminal(slave))?;
    let stays = look(slave)? == before;
    let wrong = (!stays).then(|| "one of them is otherwise".to_owned());
    findings.holds(expected, &outcome, wrong.as_slice(), || None);
    Ok(())
}

fn who_leads_a_group(findings: &Findings) -> Result<()> {
    let expected = "a caller that leads a process group already is refused";
    findings.begin(expected);
    let outcome = call(findings, findings.subject(), || {
        Ok(setpgid(Pid::from_raw(0), Pid::from_raw(0))?)
    })?;
    let why = "the error of setsid(2) is thrown away, or another process was made to lead the session instead";
    if findings.refuses(expected, &outcome, Errno::EPERM, why) {
        findings.caller_stays(&outcome, &[]);
    }
    Ok(())
}

fn who_leads_a_session(findings: &Findings) -> Result<()> {
    let expected = "a caller that leads a session already, and so a process group, is refused";
    findings.begin(expected);
    let outcome = call(findings, findings.subject(), || {
        setsid()?;
        Ok(())
    })?;
    let why = "the error of setsid(2) is thrown away: no session was begun, and nobody is told";
    if findings.refuses(expected, &outcome, Errno::EPERM, why) {
        findings.caller_stays(&outcome, &[]);
    }
    Ok(())
}

/// Where a look at the other session leaves its terminal's number, before and after.
const BEFORE: usize = 0;
const AFTER: usize = 1;

/// Another process leads a session whose terminal is the one that is given.
fn another_sessions(findings: &Findings) -> Result<()> {
    let expected = "a terminal that another session has is refused";
    findings.begin(expected);
    let theirs = terminal(&findings.scratch.join("pts"))?;
    let look = |owner, index| -> Result<()> {
        note(index, field(&State::of(owner)?, TERMINAL) as u32);
        Ok(())
    };
    let outcome = findings.subject().call_in(
        || {
            let owner = owner(&theirs.slave)?;
            look(owner, BEFORE)?;
            Ok(owner)
        },
        |owner| {
            let taken = step05_tty::take_terminal(&theirs.slave);
            look(owner, AFTER)?;
            taken
        },
        |_| Ok(()),
    )?;
    let keeps = noted(BEFORE) == noted(AFTER);
    let why = match keeps {
        true => {
            "the kernel refuses to take a terminal from another session, and its error is thrown away"
        }
        false => {
            "the terminal was stolen: TIOCSCTTY with the argument 1 takes it from whoever has it"
        }
    };
    if findings.refuses(expected, &outcome, Errno::EPERM, why) {
        let seen = format!(
            "its tty_nr is {:#x}, and was {:#x}",
            noted(AFTER),
            noted(BEFORE)
        );
        findings.claim(Claim::new(
            "the other session keeps its terminal",
            seen,
            keeps,
        ));
        findings.caller_stays(&outcome, &["session"]);
    }
    Ok(())
}

/// A process that leads a session with `terminal`. It goes with its parent.
fn owner(terminal: &OwnedFd) -> Result<Pid> {
    let (hears, tells) = pipe()?;
    // SAFETY: this process has one thread.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            drop(tells);
            let told = read(&hears, &mut [0])?;
            (told == 1)
                .then_some(child)
                .context("a session with a terminal")
        }
        ForkResult::Child => {
            // SAFETY: takes an integer; ends this process with nothing of the parent's run.
            unsafe {
                let taken =
                    setsid().is_ok() && libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) == 0;
                if taken && write(&tells, b"x").is_ok() {
                    pause();
                }
                libc::_exit(1)
            }
        }
    }
}

fn what_is_no_terminal(findings: &Findings) -> Result<()> {
    let expected = "what is no terminal is refused";
    findings.begin(expected);
    let null: OwnedFd = File::open("/dev/null")?.into();
    let outcome = findings
        .subject()
        .call(|| step05_tty::take_terminal(&null))?;
    let why = "another terminal than the one that is given was taken, or the error is thrown away";
    if findings.refuses(expected, &outcome, Errno::ENOTTY, why) {
        findings.caller_stays(&outcome, &["session"]);
    }
    Ok(())
}

fn a_call_fails(findings: &Findings) -> Result<()> {
    let is_done = Cell::new(false);
    findings.each_call_fails(
        "take_terminal",
        TAKING,
        |subject| {
            let outcome = call(findings, subject, || Ok(()))?;
            is_done.set(outcome.is_ok() && wrong(&outcome).is_empty());
            Ok(outcome)
        },
        || is_done.get(),
        |outcome| outcome.changes(&["session"]),
    )?;
    Ok(())
}

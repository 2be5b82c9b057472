//! 5.2: a pseudo-terminal of the devpts that is at /dev/pts.

use crate::terminals::{devpts, terminal};
use probe::anyhow::{Context, Result};
use probe::libc::{self, c_long};
use probe::nix::errno::Errno;
use probe::nix::mount::{MsFlags, mount};
use probe::nix::sys::stat::fstat;
use probe::nix::sys::termios::{LocalFlags, OutputFlags, tcgetattr};
use probe::nix::unistd::{read, setsid, write};
use probe::serde_json::{Value, json};
use probe::{Claim, Findings, Outcome, own_mounts};
use std::cell::Cell;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use step05_tty::Pty;

pub fn open_pty(findings: &Findings) -> Result<()> {
    findings.scenes(&[
        the_first_one,
        where_others_are_open,
        beside_another_devpts,
        without_a_devpts,
        a_call_fails,
    ])
}

const OPENING: &[(c_long, &str, Errno)] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, "open(2)", Errno::EMFILE),
    (libc::SYS_openat, "open(2)", Errno::EMFILE),
    (libc::SYS_openat2, "openat2(2)", Errno::EMFILE),
    (libc::SYS_ioctl, "ioctl(2)", Errno::EIO),
];

/// What a /dev is like when the function is called.
#[derive(Clone, Copy, PartialEq)]
enum Dev {
    /// As a container has it: its ptmx leads to that of /dev/pts.
    Containers,
    /// Its ptmx is that of another devpts.
    OthersPtmx,
    /// There is no devpts at /dev/pts, and the ptmx is that of another.
    NoDevpts,
}

/// Makes a /dev, and opens `open` pseudo-terminals there; begins a session without a terminal, which could get one.
fn world(dev: Dev, open: usize) -> Result<Vec<OwnedFd>> {
    own_mounts()?;
    setsid()?;
    let (kind, flags) = (Some("tmpfs"), MsFlags::MS_NOSUID);
    mount(kind, "/dev", kind, flags, Some("mode=755")).context("a /dev of the probe's")?;
    let pts = Path::new("/dev/pts");
    match dev {
        Dev::NoDevpts => fs::create_dir(pts)?,
        _ => devpts(pts)?,
    }
    match dev {
        Dev::Containers => symlink("pts/ptmx", "/dev/ptmx")?,
        _ => {
            devpts(Path::new("/dev/others"))?;
            File::create("/dev/ptmx")?;
            let none = None::<&str>;
            let others = Some("/dev/others/ptmx");
            mount(others, "/dev/ptmx", none, MsFlags::MS_BIND, none)?;
        }
    }
    let mut kept = Vec::new();
    for _ in 0..open {
        let opened = terminal(pts)?;
        kept.extend([opened.master, opened.slave]);
    }
    Ok(kept)
}

/// What is otherwise than it should be about the two ends, seen from the process that has them.
fn wrong(pty: &Pty) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let mut number: libc::c_int = -1;
    // SAFETY: the kernel writes an int.
    let told = unsafe { libc::ioctl(pty.master.as_raw_fd(), libc::TIOCGPTN, &raw mut number) };
    if told < 0 {
        return Ok(vec!["master is no master of a pseudo-terminal".into()]);
    }
    let (devpts, slave) = (fs::metadata("/dev/pts")?.dev(), fstat(&pty.slave)?);
    if slave.st_dev != devpts {
        wrong.push("slave isn't of the devpts at /dev/pts, but of another one".into());
        return Ok(wrong);
    }
    let file = fs::metadata(format!("/dev/pts/{number}"))?;
    if slave.st_ino != file.ino() {
        wrong.push("slave isn't the other end of master, but another terminal".into());
        return Ok(wrong);
    }
    if (file.mode() & 0o7777, file.uid(), file.gid()) != (0o620, 0, 5) {
        wrong.push(format!(
            "/dev/pts/{number} has mode {:04o} and owner {}:{}, and devpts made it with 0620 and 0:5",
            file.mode() & 0o7777,
            file.uid(),
            file.gid()
        ));
    }
    let settings = tcgetattr(&pty.slave)?;
    let cooked = LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG;
    if !settings.local_flags.contains(cooked) || !settings.output_flags.contains(OutputFlags::OPOST)
    {
        wrong.push(
            "the new terminal isn't as it was made any more: its mode (termios) was changed".into(),
        );
    } else if !carries(pty)? {
        wrong.push("what is written into slave doesn't come out of master".into());
    }
    Ok(wrong)
}

/// Whether a byte comes from one end to the other.
fn carries(pty: &Pty) -> Result<bool> {
    let mut byte = [0];
    write(&pty.slave, b"x")?;
    Ok(read(&pty.master, &mut byte)? == 1 && byte == *b"x")
}

/// Opens one more, with those open that are `kept`.
fn opened(kept: Vec<OwnedFd>, looks: bool) -> Result<Value> {
    std::mem::forget(kept);
    told(step05_tty::open_pty()?, looks)
}

/// What the subject tells of the ends that it got.
fn told(pty: Pty, looks: bool) -> Result<Value> {
    let wrong = match looks {
        true => wrong(&pty)?,
        false => Vec::new(),
    };
    let ends = [pty.master.as_raw_fd(), pty.slave.as_raw_fd()];
    // They stay open for whoever looks from outside.
    std::mem::forget(pty);
    Ok(json!({ "ends": ends, "wrong": wrong }))
}

fn ends(outcome: &Outcome) -> Vec<i32> {
    let numbers = outcome.value["ends"].as_array().into_iter().flatten();
    numbers
        .filter_map(|number| number.as_i64().map(|number| number as i32))
        .collect()
}

/// What the flags of the two ends lack, and what is open beside them.
fn flags_and_others(outcome: &Outcome) -> Vec<String> {
    let ends = ends(outcome);
    let mut wrong = Vec::new();
    for (name, number) in ["master", "slave"].into_iter().zip(&ends) {
        let Some(end) = outcome.after.descriptors.get(number) else {
            wrong.push(format!("{name} isn't open"));
            continue;
        };
        if !end.is_closed_on_exec() {
            wrong.push(format!(
                "{name} is opened without O_CLOEXEC, so that each program that is executed gets it"
            ));
        }
        if end.flags & libc::O_ACCMODE != libc::O_RDWR {
            wrong.push(format!(
                "{name} isn't opened for reading and writing (O_RDWR)"
            ));
        }
        if end.flags & libc::O_NONBLOCK != 0 {
            wrong.push(format!(
                "{name} is opened with O_NONBLOCK, so that reading it doesn't wait"
            ));
        }
    }
    let mut after = outcome.after.clone();
    after.descriptors.retain(|number, _| !ends.contains(number));
    wrong.extend(outcome.before.left_open(&after));
    wrong
}

fn controls(outcome: &Outcome) -> bool {
    outcome.after.stat.get(4) != outcome.before.stat.get(4)
}

fn judge(findings: &Findings, expected: &str, outcome: &Outcome) {
    let wrong: Vec<String> = outcome.value["wrong"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|text| text.as_str().map(String::from))
        .collect();
    findings.holds(expected, outcome, &wrong);
    if !outcome.is_ok() || !wrong.is_empty() {
        return;
    }
    let wrong = flags_and_others(outcome);
    let expected = "both ends, and nothing else, are opened with O_RDWR and O_CLOEXEC";
    findings.holds(expected, outcome, &wrong);
    let holds = !controls(outcome);
    let why = (!holds).then(|| {
        "a session's leader that opens a terminal without O_NOCTTY gets it for its controlling terminal".into()
    });
    findings.claim(
        Claim::new(
            "the pseudo-terminal doesn't become the caller's controlling terminal",
            match holds {
                true => "/proc/PID/stat: tty_nr is what it was",
                false => "/proc/PID/stat: tty_nr is another one",
            },
            holds,
        )
        .because(why),
    );
    if holds {
        findings.caller_stays(outcome, &["descriptors"]);
    }
}

fn open_in(findings: &Findings, expected: &str, dev: Dev, open: usize) -> Result<Outcome> {
    findings.begin(expected);
    findings
        .subject()
        .call_in(|| world(dev, open), |kept| opened(kept, true), |_| Ok(()))
}

fn the_first_one(findings: &Findings) -> Result<()> {
    let expected = "the two ends are one new pseudo-terminal of the devpts at /dev/pts";
    let outcome = open_in(findings, expected, Dev::Containers, 0)?;
    judge(findings, expected, &outcome);
    Ok(())
}

fn where_others_are_open(findings: &Findings) -> Result<()> {
    let expected = "where others of that devpts are open already, it is a new one";
    let outcome = open_in(findings, expected, Dev::Containers, 2)?;
    judge(findings, expected, &outcome);
    Ok(())
}

fn beside_another_devpts(findings: &Findings) -> Result<()> {
    let expected =
        "where /dev/ptmx is another devpts's, it is one of the devpts at /dev/pts all the same";
    let outcome = open_in(findings, expected, Dev::OthersPtmx, 0)?;
    judge(findings, expected, &outcome);
    Ok(())
}

fn without_a_devpts(findings: &Findings) -> Result<()> {
    let expected = "where no devpts is at /dev/pts, it returns an error";
    let outcome = open_in(findings, expected, Dev::NoDevpts, 0)?;
    let why = outcome
        .is_ok()
        .then(|| "another devpts's pseudo-terminal was taken, whose name isn't in /dev/pts".into());
    let claim = Claim::new(expected, outcome.in_words(), outcome.is_error());
    findings.claim(claim.because(why));
    findings.caller_stays(&outcome, &[]);
    Ok(())
}

fn a_call_fails(findings: &Findings) -> Result<()> {
    let is_whole = Cell::new(false);
    findings.each_call_fails(
        "open_pty",
        OPENING,
        |subject| {
            let outcome = subject.call_in(
                || world(Dev::Containers, 1),
                |kept| opened(kept, false),
                |_| Ok(()),
            )?;
            let slave = ends(&outcome).pop();
            let slave = slave.and_then(|slave| outcome.after.descriptors.get(&slave));
            let is_slave = slave.is_some_and(|slave| slave.target == Path::new("/dev/pts/1"));
            is_whole.set(is_slave && flags_and_others(&outcome).is_empty());
            Ok(outcome)
        },
        || is_whole.get(),
        |outcome| match outcome.is_error() {
            true => outcome.changes(&[]),
            false => Vec::new(),
        },
    )?;
    Ok(())
}

//! 5.2: a pseudo-terminal of the devpts that is at /dev/pts.

use crate::terminals::{devpts, terminal};
use probe::anyhow::{Context, Result};
use probe::libc::{self, c_long};
use probe::nix::errno::Errno;
use probe::nix::fcntl::{FcntlArg, OFlag, fcntl};
use probe::nix::mount::{MsFlags, mount};
use probe::nix::sys::stat::fstat;
use probe::nix::sys::termios::{LocalFlags, OutputFlags, tcgetattr};
use probe::nix::unistd::{read, setsid, write};
use probe::serde::{Deserialize, Serialize};
use probe::{Claim, Findings, Outcome, Watcher, names, private_mounts};
use std::cell::Cell;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use step05_tty::Pty;

pub fn open_pty(findings: &Findings) -> Result<()> {
    findings.play(&[
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
    private_mounts()?;
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
            symlink("others/ptmx", "/dev/ptmx")?;
        }
    }
    let mut kept = Vec::new();
    for _ in 0..open {
        let opened = terminal(pts)?;
        kept.extend([opened.master, opened.slave]);
    }
    Ok(kept)
}

/// What is wrong about two ends, and why, if there is one reason only.
#[derive(Default, Serialize, Deserialize)]
#[serde(crate = "probe::serde")]
struct Fault {
    seen: String,
    why: Option<String>,
}

impl Fault {
    fn new(seen: impl Into<String>, why: &str) -> Option<Fault> {
        Some(Fault {
            seen: seen.into(),
            why: (!why.is_empty()).then(|| why.into()),
        })
    }
}

/// What is otherwise than it should be about the two ends, seen from the process that has them.
fn fault(pty: &Pty) -> Result<Option<Fault>> {
    let mut number: libc::c_int = -1;
    // SAFETY: the kernel writes an int.
    let told = unsafe { libc::ioctl(pty.master.as_raw_fd(), libc::TIOCGPTN, &raw mut number) };
    if told < 0 {
        return Ok(Fault::new(
            "master is no master of a pseudo-terminal (TIOCGPTN)",
            "the master is the end that opening ptmx gives",
        ));
    }
    let (devpts, slave) = (fs::metadata("/dev/pts")?.dev(), fstat(&pty.slave)?);
    if slave.st_dev != devpts {
        return Ok(Fault::new(
            "slave isn't of the devpts at /dev/pts, but of another one",
            OTHERS_PTMX,
        ));
    }
    if slave.st_ino != fs::metadata(format!("/dev/pts/{number}"))?.ino() {
        return Ok(Fault::new(
            format!("master is number {number} of its devpts, and slave is another one"),
            "the slave of a new master has the number that the devpts gave it, which isn't always the same",
        ));
    }
    match changed(pty, number)? {
        None if !carries(pty)? => Ok(Fault::new(
            "what is written into slave doesn't come out of master",
            "",
        )),
        changed => Ok(changed),
    }
}

/// What of the new terminal isn't as it was made.
fn changed(pty: &Pty, number: libc::c_int) -> Result<Option<Fault>> {
    let file = fs::metadata(format!("/dev/pts/{number}"))?;
    let is = (file.mode() & 0o7777, file.uid(), file.gid());
    if is != (0o620, 0, 5) {
        let (mode, uid, gid) = is;
        return Ok(Fault::new(
            format!("/dev/pts/{number}: mode {mode:04o}, owner {uid}:{gid}, and not 0620, 0:5"),
            "the devpts has given mode and owner already, as its mount says",
        ));
    }
    let settings = tcgetattr(&pty.slave)?;
    let cooked = LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG;
    let output = settings.output_flags.contains(OutputFlags::OPOST);
    if !settings.local_flags.contains(cooked) || !output {
        return Ok(Fault::new(
            "tcgetattr: the new terminal doesn't echo, edit lines or make signals any more",
            "the new terminal's mode was changed: it is the host's terminal that is to be raw, and not this one",
        ));
    }
    match step05_tty::size(&pty.slave)? {
        (0, 0) => Ok(None),
        _ => Ok(Fault::new(
            "the new terminal has a size already (TIOCGWINSZ)",
            "a size was set, which nobody asked for here: that is for the caller to do",
        )),
    }
}

/// Whether a byte comes from one end to the other. How they were opened is told by their flags.
fn carries(pty: &Pty) -> Result<bool> {
    for end in [&pty.master, &pty.slave] {
        let flags = OFlag::from_bits_truncate(fcntl(end, FcntlArg::F_GETFL)?);
        if flags & OFlag::O_ACCMODE != OFlag::O_RDWR {
            return Ok(true);
        }
    }
    let mut byte = [0];
    write(&pty.slave, b"x")?;
    Ok(read(&pty.master, &mut byte)? == 1 && byte == *b"x")
}

/// Opens one more, with those open that are `kept`.
fn opened(kept: Vec<OwnedFd>, looks: bool) -> Result<Told> {
    std::mem::forget(kept);
    told(step05_tty::open_pty()?, looks)
}

/// What the subject tells of the ends that it got.
#[derive(Serialize, Deserialize)]
#[serde(crate = "probe::serde")]
struct Told {
    ends: Vec<i32>,
    fault: Option<Fault>,
}

fn told(pty: Pty, looks: bool) -> Result<Told> {
    let fault = match looks {
        true => fault(&pty)?,
        false => None,
    };
    let ends = vec![pty.master.as_raw_fd(), pty.slave.as_raw_fd()];
    // They stay open for whoever looks from outside.
    std::mem::forget(pty);
    Ok(Told { ends, fault })
}

fn ends(outcome: &Outcome) -> Vec<i32> {
    outcome.value().map_or(Vec::new(), |told: Told| told.ends)
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

const OTHERS_PTMX: &str = "each devpts has a ptmx of its own. That of the devpts at /dev/pts is /dev/pts/ptmx; the one that was opened is another's";

/// Why there is no pseudo-terminal: what was opened, and what was asked of the master, tells.
fn why_refused(outcome: &Outcome) -> Option<String> {
    let opens = |call: &probe::Call| [0, 1].iter().any(|at| call.text(*at) == "/dev/ptmx");
    let unlocks = |call: &probe::Call| {
        call.number == libc::SYS_ioctl && call.arguments[1] == libc::TIOCSPTLCK
    };
    let calls = &outcome.calls;
    let text = match outcome.is_error() {
        true if calls.iter().any(opens) => OTHERS_PTMX,
        true if names(outcome.error(), Errno::EIO) && !calls.iter().any(unlocks) => {
            "a new slave is locked: it can't be opened before it is unlocked (TIOCSPTLCK)"
        }
        _ => return None,
    };
    Some(text.into())
}

fn judge(findings: &Findings, expected: &str, outcome: &Outcome) {
    let fault = outcome.value().and_then(|told: Told| told.fault);
    let (wrong, why) = fault.map_or((Vec::new(), None), |fault| (vec![fault.seen], fault.why));
    if !findings.holds(expected, outcome, &wrong, || {
        why.or_else(|| why_refused(outcome))
    }) {
        return;
    }
    let wrong = flags_and_others(outcome);
    let expected = "both ends, and nothing else, are opened with O_RDWR and O_CLOEXEC";
    findings.holds(expected, outcome, &wrong, || {
        let is_inherited = wrong.iter().all(|text| text.contains("O_CLOEXEC"));
        let why = "O_CLOEXEC stands among the flags of each open, TIOCGPTPEER's included: the command gets copies of its own";
        is_inherited.then(|| why.into())
    });
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
    let numbers: Vec<_> = OPENING.iter().map(|(number, ..)| *number).collect();
    let watcher = Watcher::records(&numbers);
    findings.subject().watch(watcher).call_in(
        || world(dev, open),
        |kept| opened(kept, true),
        |_| Ok(()),
    )
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
    if outcome.is_error() {
        findings.caller_stays(&outcome, &[]);
    }
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

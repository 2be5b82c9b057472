//! What join does when it can't succeed, and what is left then.

use super::going::rests;
use super::target::{self, CALLER, CAME_BACK, CODE, RAN, Target, looks_around, sleeper};
use probe::anyhow::{Result, bail};
use probe::libc::{self, c_long};
use probe::nix::errno::Errno;
use probe::nix::sched::CloneFlags;
use probe::nix::sys::signal::{Signal, kill};
use probe::nix::sys::wait::waitpid;
use probe::nix::unistd::Pid;
use probe::old;
use probe::{Claim, Ending, Findings, Outcome, Verdict, Watcher, note, noted};
use step01_uts::Refused;
use step01_uts::program::Ended;
use step10_exec::{NAMESPACES, join};

/// What changes in the caller that is meant to: it holds signals back.
pub const MAY_CHANGE: &[&str] = &["SigBlk"];

/// The calls that make a process.
pub const BIRTHS: &[c_long] = &[
    libc::SYS_clone,
    libc::SYS_clone3,
    old::SYS_fork,
    old::SYS_vfork,
];

/// What may not fail without anybody's knowing.
const CALLS: &[(c_long, &str, Errno)] = &[
    (libc::SYS_setns, "setns(2)", Errno::EPERM),
    (libc::SYS_clone, "clone(2)", Errno::EAGAIN),
    (libc::SYS_clone3, "clone3(2)", Errno::EAGAIN),
    (libc::SYS_pipe2, "pipe2(2)", Errno::EMFILE),
    (libc::SYS_prctl, "prctl(2)", Errno::EPERM),
    (libc::SYS_openat, "open(2)", Errno::EMFILE),
    (libc::SYS_signalfd4, "signalfd(2)", Errno::EMFILE),
];

/// Leaves what an error has: its errno, or the exit code that it comes to.
fn notes_code<T>(joined: Result<T>) -> Result<T> {
    joined.inspect_err(|error| {
        let errno = error
            .downcast_ref::<Refused>()
            .map(|refused| refused.errno() as u32);
        let code = error.downcast_ref::<Ended>().map(|ended| ended.code.into());
        note(CODE, errno.or(code).unwrap_or(0));
    })
}

/// Claims that an error has come, that it has `errno`, and that nothing is left.
fn fails(findings: &Findings, when: &str, outcome: &Outcome, errno: Option<Errno>) {
    let why = outcome.is_ok().then(|| {
        "what the child, or the process between, met isn't asked for, or thrown away: the error pipe tells it".into()
    });
    let expected = format!("{when}, join returns an error");
    findings.claim(Claim::new(expected, outcome.in_words(), outcome.is_error()).because(why));
    if let (Some(errno), true) = (errno, outcome.is_error()) {
        let is = Errno::from_raw(noted(CODE) as i32);
        let why = match is {
            Errno::ECHILD => {
                "a child was waited for twice: when outcome_or_end returns an error, the child has ended and is reaped"
            }
            _ => {
                "the error that was returned is another one: of what the kernel said only a text is left, or nothing"
            }
        };
        findings.claim(
            Claim::new(
                format!("{when}, the error has errno {errno:?}"),
                match noted(CODE) {
                    0 => format!("it is no Refused: {}", outcome.error()),
                    _ => format!("{is:?}: {}", outcome.error()),
                },
                is == errno,
            )
            .because((is != errno).then(|| why.into())),
        );
    }
    if outcome.is_error() {
        let left = outcome.changes(MAY_CHANGE);
        let seen = if left.is_empty() {
            "nothing is left".into()
        } else {
            left.join("; ")
        };
        let why = "on the way that fails, the children have to be waited for, and reaped";
        let is_child = left
            .iter()
            .any(|left| left.contains("zombie") || left.contains("child"));
        let claim = Claim::new(
            format!("{when}, nothing is left of it"),
            seen,
            left.is_empty(),
        );
        findings.claim(claim.because(is_child.then(|| why.into())));
    }
}

pub fn the_body_fails(findings: &Findings, (): &()) -> Result<()> {
    let when = "when body fails with ENOEXEC";
    findings.begin(format!("{when}, join returns that error"));
    let target = Target::new()?;
    let outcome = findings.subject().call(|| {
        let body = || Err(Refused::new("execve(\"box\")".into(), Errno::ENOEXEC).into());
        notes_code(join(&target.pidfd, NAMESPACES, body).map(drop))
    })?;
    fails(findings, when, &outcome, Some(Errno::ENOEXEC));
    Ok(())
}

pub fn the_body_panics(findings: &Findings, (): &()) -> Result<()> {
    let when = "when body panics";
    findings.begin(format!("{when}, join returns an error"));
    let target = Target::new()?;
    let outcome = findings.subject().call(|| {
        let body = || panic!("in the container");
        notes_code(join(&target.pidfd, NAMESPACES, body).map(drop))
    })?;
    fails(findings, when, &outcome, None);
    Ok(())
}

pub fn the_target_has_ended(findings: &Findings, (): &()) -> Result<()> {
    let when = "when the process of pidfd has ended";
    findings.begin(format!("{when}, join returns an error"));
    let target = Target::new()?;
    Target::end(target.pid);
    let outcome = findings
        .subject()
        .call(|| notes_code(join(&target.pidfd, NAMESPACES, sleeper).map(drop)))?;
    fails(findings, when, &outcome, Some(Errno::ESRCH));
    Ok(())
}

/// The namespaces were entered, and have no PID 1 any more when the child is to be born.
pub fn its_first_process_ends_meanwhile(findings: &Findings, (): &()) -> Result<()> {
    let when = "when PID 1 of the namespace ends just before the child is born";
    findings.begin(format!("{when}, join returns an error"));
    let target = Target::new()?;
    let (pid, mut is_in) = (target.pid, false);
    let watcher = Watcher::new(&[&[libc::SYS_setns], BIRTHS].concat(), move |call| {
        if is_in && call.number != libc::SYS_setns {
            Target::end(pid);
        }
        is_in |= call.number == libc::SYS_setns;
        Verdict::Go
    });
    let outcome = findings
        .subject()
        .watch(watcher)
        .call(|| notes_code(join(&target.pidfd, NAMESPACES, sleeper).map(drop)))?;
    fails(findings, when, &outcome, Some(Errno::ENOMEM));
    Ok(())
}

/// The container holds the command up, and the caller is asked to end.
pub fn asked_to_end(findings: &Findings, (): &()) -> Result<()> {
    let when = "when the caller is asked to end (SIGTERM) while the container holds body up";
    let expected = format!("{when}, join ends the child and returns an error");
    findings.begin(&expected);
    let target = Target::new()?;
    let outcome = findings.subject().call_in(
        || Ok(()),
        |()| {
            let body = || {
                looks_around();
                loop {
                    probe::nix::unistd::pause();
                }
            };
            let joined = join(&target.pidfd, NAMESPACES, body).map(drop);
            note(CAME_BACK, 1);
            notes_code(joined)
        },
        ask_to_end,
    )?;
    let why = match (&outcome.ending, noted(STUCK)) {
        (_, 1..) => Some(
            "the caller waits for the child alone, which the container holds up, and hears nobody who asks it to end: \
             outcome_or_end waits for both",
        ),
        (Ending::Left(143), _) => Some(
            "SIGTERM ended the caller itself, and the child is left alone: signals::hold() holds it back for outcome_or_end",
        ),
        (Ending::Returned, _) => Some(
            "join came back while body was still running: nobody waited until it is its command",
        ),
        _ => None,
    };
    let seen = match noted(STUCK) {
        0 => outcome.in_words(),
        _ => "it went on waiting".into(),
    };
    let claim = Claim::new(expected, seen, outcome.is_error());
    findings.claim(claim.because(why.map(String::from)));
    if outcome.is_error() {
        let code = noted(CODE);
        let claim = Claim::equal(
            &format!("{when}, the error is that of a command that SIGTERM has ended"),
            "its exit code",
            &code,
            &143,
        );
        findings.claim(claim);
        let left = outcome.changes(MAY_CHANGE);
        let seen = if left.is_empty() {
            "nothing is left".into()
        } else {
            left.join("; ")
        };
        findings.claim(Claim::new(
            format!("{when}, nothing is left of it"),
            seen,
            left.is_empty(),
        ));
    }
    Ok(())
}

/// SIGTERM comes when the first process is about to be made.
pub fn asked_at_birth(findings: &Findings, (): &()) -> Result<()> {
    let expected = "when the caller is asked to end (SIGTERM) as soon as it makes a process, join still returns, an error";
    findings.begin(expected);
    let target = Target::new()?;
    let mut asked = false;
    let watcher = Watcher::new(BIRTHS, move |call| {
        if !asked {
            asked = true;
            let _ = kill(call.pid, Signal::SIGTERM);
        }
        Verdict::Go
    });
    let outcome = findings.subject().watch(watcher).call(|| {
        let body = || {
            loop {
                probe::nix::unistd::pause();
            }
        };
        notes_code(join(&target.pidfd, NAMESPACES, body).map(drop))
    })?;
    let why = (outcome.ending == Ending::Left(143)).then(|| {
        "SIGTERM ended the caller: a signal that comes between clone3 and signals::hold() isn't held back. hold() comes first"
            .into()
    });
    findings.claim(Claim::new(expected, outcome.in_words(), outcome.is_error()).because(why));
    Ok(())
}

/// Whether the caller didn't hear: the number of a note, of which the body doesn't make use in that scene.
const STUCK: usize = CALLER;

/// Waits until body runs, asks the caller to end, and says whether it doesn't hear.
fn ask_to_end(caller: Pid) -> Result<()> {
    for _ in 0..20_000 {
        if noted(RAN) != 0 || noted(CAME_BACK) != 0 || !target::is_there(caller) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    if noted(RAN) == 0 {
        return Ok(());
    }
    kill(caller, Signal::SIGTERM)?;
    // Who is killed wakes, and who hears does.
    if rests(caller, 200) && noted(CAME_BACK) == 0 {
        note(STUCK, 1);
        kill(caller, Signal::SIGKILL)?;
    }
    Ok(())
}

pub fn each_call_fails(findings: &Findings, (): &()) -> Result<()> {
    findings.each_call_fails(
        "join",
        CALLS,
        |subject| {
            let target = Target::new()?;
            subject.call(|| {
                // SAFETY: ends the child alone, as if it had become a command that is over at once.
                let body = || unsafe { libc::_exit(0) };
                let child = join(&target.pidfd, CloneFlags::CLONE_NEWPID, body)?;
                match waitpid(child.pid, None) {
                    Ok(_) => Ok(()),
                    Err(errno) => bail!("the child can't be waited for: {errno}"),
                }
            })
        },
        || false,
        |outcome| outcome.changes(MAY_CHANGE),
    )?;
    Ok(())
}

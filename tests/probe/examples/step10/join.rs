//! 10.1: the command is where it is to be, and whoever started it where it was.

#[path = "join/going.rs"]
mod going;
#[path = "join/target.rs"]
mod target;

use going::{Going, rests};
use probe::anyhow::{Result, bail};
use probe::libc::{self, c_long};
use probe::nix::errno::Errno;
use probe::nix::sched::CloneFlags;
use probe::nix::sys::signal::{Signal, kill};
use probe::nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use probe::nix::unistd::{ForkResult, Pid, fork, getpid};
use probe::{Claim, Ending, Findings, Outcome, Verdict, Watcher, note, noted};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use step01_uts::Refused;
use step01_uts::program::Ended;
use step10_exec::{NAMESPACES, join};
use target::{
    CALLER, CAME_BACK, CODE, Command, DUMPABLE, ENVIRONMENT, KINDS, RAN, Target, looks_around,
    sleeper,
};

/// What changes in the caller that is meant to: it holds signals back.
const MAY_CHANGE: &[&str] = &["SigBlk"];

/// The calls that make a process.
const BIRTHS: &[c_long] = &[
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_fork,
    libc::SYS_vfork,
];

/// What may not fail without anybody's knowing.
const CALLS: &[(c_long, &str, Errno)] = &[
    (libc::SYS_setns, "setns(2)", Errno::EPERM),
    (libc::SYS_clone, "clone(2)", Errno::EAGAIN),
    (libc::SYS_clone3, "clone3(2)", Errno::EAGAIN),
    (libc::SYS_pipe2, "pipe2(2)", Errno::EMFILE),
    (libc::SYS_prctl, "prctl(2)", Errno::EPERM),
    (libc::SYS_openat, "open(2)", Errno::EMFILE),
];

pub fn judge(findings: &Findings) -> Result<()> {
    everywhere(findings)?;
    only_where_asked(findings)?;
    the_body_fails(findings)?;
    the_body_panics(findings)?;
    the_target_has_ended(findings)?;
    its_first_process_ends_meanwhile(findings)?;
    asked_to_end(findings)?;
    each_call_fails(findings)
}

/// Before join is called: another child of the caller's has ended, and waits to be reaped.
fn with_a_zombie() -> Result<Pid> {
    // SAFETY: this process has one thread, and the child ends at once.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            waitid(Id::Pid(child), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)?;
            Ok(child)
        }
        // SAFETY: ends this process alone.
        ForkResult::Child => unsafe { libc::_exit(0) },
    }
}

fn everywhere(findings: &Findings) -> Result<()> {
    let expected = "join comes back with Ok when its child has become its command";
    findings.begin(expected);
    let target = Target::new()?;
    // A target ends with the subject that it was made for.
    let theirs = target.namespaces();
    let going = Arc::new(Mutex::new(Going::default()));
    let watcher = Watcher::new(&[&[libc::SYS_setns, libc::SYS_execve], BIRTHS].concat(), {
        let going = going.clone();
        move |call| {
            if let Ok(mut going) = going.lock() {
                going.heed(call);
            }
            Verdict::Go
        }
    });
    let outcome = findings.subject().watch(watcher).call_in(
        with_a_zombie,
        |zombie| {
            note(CALLER, getpid().as_raw() as u32);
            let child = join(&target.pidfd, NAMESPACES, sleeper);
            note(CAME_BACK, 1);
            let child = child?;
            Ok((Command::of(child.pid), zombie.as_raw(), child.pid.as_raw()))
        },
        |_| Ok(()),
    )?;
    let going = std::mem::take(&mut *going.lock().map_err(|_| probe::anyhow::anyhow!("going"))?);
    findings.claim(Claim::new(expected, outcome.in_words(), outcome.is_ok()).because(
        outcome.came_back_twice.then(|| {
            "a child came back from join into the code of the caller: whoever runs body may never come back from it. \
             ErrorPipe::report sees to that"
                .into()
        }),
    ));
    let Some((command, zombie, pid)) = outcome.value::<(Command, i32, i32)>() else {
        return Ok(());
    };
    where_it_is(findings, &command, &theirs);
    who_it_is(findings, &command);
    going
        .claims()
        .into_iter()
        .for_each(|claim| findings.claim(claim));
    hidden(findings);
    caller(findings, &outcome, &command, zombie, pid);
    Ok(())
}

/// That the command is in each namespace of the target.
fn where_it_is(findings: &Findings, command: &Command, wanted: &BTreeMap<String, String>) {
    for (kind, _) in KINDS {
        let (is, wanted, own) = (&command.namespaces[kind], &wanted[kind], &command.own[kind]);
        let why = (kind == "pid" && is == own).then(|| {
            "setns doesn't move a process into another PID namespace: only children that it has afterwards are born there. \
             The command isn't such a child"
                .into()
        });
        let seen = match is == own {
            true => format!("/proc/PID/ns/{kind}: that of the caller"),
            false if is == wanted => format!("/proc/PID/ns/{kind}: that of the target"),
            false => format!("/proc/PID/ns/{kind}: {is}, neither the target's nor the caller's"),
        };
        let expected = format!("the command is in the target's {kind} namespace");
        findings.claim(Claim::new(expected, seen, is == wanted).because(why));
    }
}

fn who_it_is(findings: &Findings, command: &Command) {
    let why = "the parent of the command is another process: without CLONE_PARENT a child of the process between is that \
        one's, and when that one has ended nobody waits for the command";
    let seen = match command.parent_is_caller {
        true => "/proc/PID/status: PPid is the caller",
        false => "/proc/PID/status: PPid isn't the caller",
    };
    let claim = Claim::new(
        "the command is a child of the caller's",
        seen,
        command.parent_is_caller,
    );
    findings.claim(claim.because((!command.parent_is_caller).then(|| why.into())));
    let ran = noted(RAN);
    findings.claim(Claim::new(
        "body runs once",
        match ran {
            1 => "it ran once".into(),
            times => format!("it ran {times} times"),
        },
        ran == 1,
    ));
    let [levels, own] = command.levels;
    findings.claim(Claim::new(
        "the command has a number in the target's PID namespace, too",
        format!("/proc/PID/status: NSpid has {levels} numbers, the caller's {own}"),
        levels == own + 1,
    ));
}

/// What the container's processes can find in the memory of the child before it is its command.
fn hidden(findings: &Findings) {
    let known = noted(ENVIRONMENT);
    let why = "the processes of the container may read /proc/PID/environ of the child before it executes its command, and the \
        host's environment may have secrets: forget_environment() wipes it";
    findings.claim(
        Claim::new(
            "while body runs, the child has nothing of the caller's environment",
            format!("/proc/PID/environ: {known} bytes"),
            known == 0,
        )
        .because((known > 0).then(|| why.into())),
    );
    let dumpable = noted(DUMPABLE);
    let why = "the processes of the container may look into the child before it executes its command: hide() forbids it";
    findings.claim(
        Claim::new(
            "while body runs, no process of the container may look into the child",
            format!("PR_GET_DUMPABLE: {dumpable}"),
            dumpable == 0,
        )
        .because((dumpable != 0).then(|| why.into())),
    );
}

/// That the caller is what it was, and where it was.
fn caller(findings: &Findings, outcome: &Outcome, command: &Command, zombie: i32, pid: i32) {
    let mut outcome = outcome.clone();
    let is_there = outcome.after.children.contains_key(&zombie);
    outcome.after.children.remove(&pid);
    findings.same_caller(&outcome, MAY_CHANGE);
    let why = "any child was waited for, and another one than that of join was reaped: whoever waits for that one never hears \
        of its end. reap takes the number of the process between";
    let seen = if is_there {
        "/proc/PID/stat of a zombie that was there before: Z"
    } else {
        "a zombie that was there before is gone"
    };
    let claim = Claim::new(
        "other children of the caller's aren't reaped",
        seen,
        is_there,
    );
    findings.claim(claim.because((!is_there).then(|| why.into())));
    let kept = command.environment_of_caller > 0 && command.arguments_of_caller != "init";
    let why = "the caller itself was hidden, or its environment wiped: that is for the process between, which goes in";
    let seen = format!(
        "/proc/PID/environ: {} bytes; cmdline: {}",
        command.environment_of_caller, command.arguments_of_caller
    );
    let seen = if kept {
        "both are as before".into()
    } else {
        seen
    };
    let claim = Claim::new(
        "the caller keeps its arguments and its environment",
        seen,
        kept,
    );
    findings.claim(claim.because((!kept).then(|| why.into())));
}

/// Some of the namespaces, and not all of them.
fn only_where_asked(findings: &Findings) -> Result<()> {
    for namespaces in [
        CloneFlags::CLONE_NEWUTS,
        CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC,
    ] {
        let names: Vec<&str> = KINDS
            .iter()
            .filter(|(_, flag)| namespaces.contains(*flag))
            .map(|(kind, _)| *kind)
            .collect();
        let expected = format!(
            "asked for {} alone, join enters no others",
            names.join(" and ")
        );
        findings.begin(&expected);
        let target = Target::new()?;
        let theirs = target.namespaces();
        let outcome = findings.subject().call(|| {
            let child = join(&target.pidfd, namespaces, sleeper)?;
            Ok(Command::of(child.pid))
        })?;
        let Some(command) = outcome.value::<Command>() else {
            findings.claim(Claim::new(expected, outcome.in_words(), false));
            return Ok(());
        };
        let wrong: Vec<String> = KINDS
            .iter()
            .filter_map(|(kind, flag)| {
                let wanted = if namespaces.contains(*flag) {
                    &theirs
                } else {
                    &command.own
                };
                let whose = if namespaces.contains(*flag) {
                    "caller's"
                } else {
                    "target's"
                };
                (command.namespaces[*kind] != wanted[*kind]).then(|| format!("{kind}: the {whose}"))
            })
            .collect();
        let seen = match wrong.is_empty() {
            true => "/proc/PID/ns: as asked for".into(),
            false => format!("/proc/PID/ns: {}", wrong.join("; ")),
        };
        let why = (!wrong.is_empty()).then(|| "the argument namespaces isn't heeded".into());
        findings.claim(Claim::new(expected, seen, wrong.is_empty()).because(why));
    }
    Ok(())
}

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
        let why = "the error that was returned is another one: of what the kernel said only a text is left, or nothing";
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

fn the_body_fails(findings: &Findings) -> Result<()> {
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

fn the_body_panics(findings: &Findings) -> Result<()> {
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

fn the_target_has_ended(findings: &Findings) -> Result<()> {
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
fn its_first_process_ends_meanwhile(findings: &Findings) -> Result<()> {
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
fn asked_to_end(findings: &Findings) -> Result<()> {
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

fn each_call_fails(findings: &Findings) -> Result<()> {
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

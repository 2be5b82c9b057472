//! 10.1: the command is where it is to be, and whoever started it where it was.

#[path = "join/failures.rs"]
mod failures;
#[path = "join/going.rs"]
mod going;
#[path = "join/target.rs"]
mod target;

use failures::{
    MAY_CHANGE, asked_at_birth, asked_to_end, each_call_fails, its_first_process_ends_meanwhile,
    the_body_fails, the_body_panics, the_target_has_ended,
};
use going::Going;
use probe::anyhow::{Result, anyhow};
use probe::libc::{self, c_long};
use probe::nix::sched::CloneFlags;
use probe::nix::sys::wait::{Id, WaitPidFlag, waitid};
use probe::nix::unistd::{ForkResult, Pid, chdir, fork, getpid};
use probe::{Claim, Findings, Outcome, Verdict, Watcher, note, noted};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use step10_exec::{NAMESPACES, join};
use target::{CALLER, CAME_BACK, Command, DUMPABLE, ENVIRONMENT, KINDS, RAN, Target, sleeper};

pub fn judge(findings: &Findings) -> Result<()> {
    findings.play_in(
        &(),
        &[
            everywhere,
            only_where_asked,
            the_body_fails,
            the_body_panics,
            the_target_has_ended,
            its_first_process_ends_meanwhile,
            asked_to_end,
            asked_at_birth,
            each_call_fails,
        ],
    )
}

/// What is seen of the way into the namespaces.
const WATCHED: &[c_long] = &[
    libc::SYS_setns,
    libc::SYS_execve,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
];

/// Before join is called: another child of the caller's has ended, and waits to be reaped.
fn with_a_zombie() -> Result<Pid> {
    chdir("/tmp")?;
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

fn everywhere(findings: &Findings, (): &()) -> Result<()> {
    let expected = "join comes back with Ok when its child has become its command";
    findings.begin(expected);
    let target = Target::new()?;
    // A target ends with the subject that it was made for.
    let theirs = target.namespaces();
    let going = Arc::new(Mutex::new(Going::default()));
    let watcher = Watcher::new(WATCHED, {
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
    let going = std::mem::take(&mut *going.lock().map_err(|_| anyhow!("going"))?);
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
    let caller_went = going.caller_went;
    where_it_is(findings, &command, &theirs);
    who_it_is(findings, &command);
    going
        .claims()
        .into_iter()
        .for_each(|claim| findings.claim(claim));
    // Who went in alone brought along what it has.
    if !caller_went {
        hidden(findings);
    }
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
            match known {
                0 => "/proc/PID/environ: nothing",
                _ => "/proc/PID/environ: the caller's environment",
            },
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
    findings.caller_stays(&outcome, MAY_CHANGE);
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
    let seen = match (command.environment_of_caller, kept) {
        (_, true) => "/proc/PID/environ, /proc/PID/cmdline: as before",
        (0, _) => "/proc/PID/environ: nothing",
        _ => "/proc/PID/cmdline: init",
    };
    let claim = Claim::new(
        "the caller keeps its arguments and its environment",
        seen,
        kept,
    );
    findings.claim(claim.because((!kept).then(|| why.into())));
}

/// Some of the namespaces, and not all of them.
fn only_where_asked(findings: &Findings, (): &()) -> Result<()> {
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

//! 2.4: PID 1's duties.

use probe::anyhow::{Result, bail};
use probe::libc::{self, c_long};
use probe::nix::errno::Errno;
use probe::nix::fcntl::{FcntlArg, OFlag, fcntl};
use probe::nix::sys::prctl::set_child_subreaper;
use probe::nix::sys::signal::{Signal, kill};
use probe::nix::unistd::{Pid, getpid, pipe2};
use probe::{
    Claim, Ending, Findings, Outcome, Rest, State, Subject, Verdict, Watcher, at_rest, children_of,
    note, noted, pending, until,
};
use std::fs;
use std::path::Path;
use step01_uts::exec;
use step02_pid::{init, signals};

pub fn judge(findings: &Findings) -> Result<()> {
    if !ends_as_its_command(findings)? {
        return Ok(());
    }
    stays_behind_with_nothing(findings)?;
    takes_every_orphan(findings)?;
    waits_for_nobody_else(findings)?;
    passes_signals_on(findings)?;
    kills_nobody_for_being_deaf(findings)?;
    hears_of_an_early_end(findings)?;
    tells_what_the_kernel_refuses(findings)
}

/// What is noted when the command's process has lost its descriptors.
const CLOSED_TOO_EARLY: usize = 5;

/// Has a subject become an init, whose command is the shell script `script`. The subject takes every orphan below it, as
/// PID 1 does.
fn run(
    subject: Subject,
    script: &str,
    meanwhile: impl FnOnce(Pid) -> Result<()>,
) -> Result<Outcome> {
    let command = ["/bin/sh".to_owned(), "-c".into(), script.into()];
    let environment = ["PATH=/usr/local/bin:/usr/bin:/bin".to_owned()];
    subject.call_in(
        || {
            set_child_subreaper(true)?;
            // One end is for the command's process, and both are doors of the host's to PID 1.
            let (reader, writer) = pipe2(OFlag::empty())?;
            std::mem::forget(writer);
            signals::hold()?;
            Ok(reader)
        },
        |door| {
            let itself = getpid();
            init()?;
            if getpid() == itself {
                bail!("init came back in PID 1 itself: only the child goes on");
            }
            if fcntl(&door, FcntlArg::F_GETFD).is_err() {
                note(CLOSED_TOO_EARLY, 1);
            }
            match exec(&command, &environment)? {}
            #[allow(unreachable_code)]
            Ok(())
        },
        meanwhile,
    )
}

fn ends_as_its_command(findings: &Findings) -> Result<bool> {
    for (script, code, expected) in [
        ("exit 5", 5, "init ends with its command's exit code"),
        (
            "kill -KILL $$",
            137,
            "init ends with 128+N when signal N has killed its command",
        ),
        ("exit 0", 0, "init ends with 0 when its command does"),
    ] {
        findings.begin(expected);
        let outcome = run(findings.subject(), script, |_| Ok(()))?;
        let holds = outcome.ending == Ending::Left(code);
        findings.claim(Claim::new(expected, outcome.in_words(), holds));
        if !holds {
            return Ok(false);
        }
    }
    findings.claim(
        Claim::new(
            "the command's process has all descriptors that it had before init",
            "a pipe that was open before init is closed in the command's process",
            noted(CLOSED_TOO_EARLY) == 0,
        )
        .why(
            "PID 1 closed its descriptors before there was a child, which then has none either, and no way to tell why its \
             execve failed: PID 1 closes its own, once the child has them",
        ),
    );
    Ok(findings.all_hold())
}

/// What PID 1 holds while its command runs, and what it does then: nothing.
fn stays_behind_with_nothing(findings: &Findings) -> Result<()> {
    let ready = findings.scratch.join("ready");
    let script = format!("echo >{}; exec sleep 1000", ready.display());
    let mut state = None;
    findings.begin("while the command runs, PID 1 waits for signals");
    let sleeps = [libc::SYS_nanosleep, libc::SYS_clock_nanosleep];
    let subject = findings.subject().watch(Watcher::new(&sleeps, |call| {
        // The command's own sleep is another program's.
        let name = fs::read_to_string(format!("/proc/{}/comm", call.pid)).unwrap_or_default();
        if name.trim() == "init" {
            note(0, 1);
        }
        Verdict::Go
    }));
    let outcome = run(subject, &script, |pid| {
        until(pid, || ready.exists());
        let rest = at_rest(pid);
        state = State::of(pid).ok().filter(|_| rest == Rest::Waits);
        kill(pid, Signal::SIGKILL)?;
        Ok(())
    })?;
    let _ = fs::remove_file(&ready);
    let Some(state) = state else {
        findings.claim(Claim::new(
            "while the command runs, PID 1 waits for signals",
            outcome.in_words(),
            false,
        ));
        return Ok(());
    };
    findings.claim(
        Claim::new("PID 1 waits for signals, and doesn't look again and again", "it sleeps for a time, and looks", noted(0) == 0)
            .why("PID 1 sleeps and looks, so it comes too late or runs for nothing: a signal says when there is something to do"),
    );
    let open: Vec<String> = state
        .descriptors
        .iter()
        .filter(|(number, descriptor)| {
            let target = descriptor.target.to_string_lossy();
            **number > 2
                && !["signalfd", "pidfd", "eventpoll"]
                    .iter()
                    .any(|own| target.contains(own))
        })
        .map(|(number, descriptor)| format!("{number} ({})", descriptor.target.display()))
        .collect();
    let kinds: Vec<String> = open.iter().map(|text| without_number(text)).collect();
    findings.claim(
        Claim::new(
            "PID 1 has closed all descriptors but the three standard ones and its own",
            format!("/proc/1/fd also has {}", kinds.join(", ")),
            open.is_empty(),
        )
        .why("PID 1 never calls execve, so what is open stays open: the error pipe, for whose end the parent waits, and \
              every door to the host. close_range(3, CloseRange::Close) closes them all"),
    );
    Ok(())
}

/// `9 (pipe:[4711])` without the number of the pipe.
fn without_number(text: &str) -> String {
    match text.split_once(":[") {
        Some((before, _)) => format!("{before})"),
        None => text.into(),
    }
}

fn children(pid: Pid) -> Vec<(Pid, String)> {
    let children = children_of(pid).into_iter();
    children
        .map(|(pid, state)| (Pid::from_raw(pid), state))
        .collect()
}

/// Three orphans end while PID 1 is stopped: one SIGCHLD tells of all.
fn takes_every_orphan(findings: &Findings) -> Result<()> {
    let expected = "orphans that end at once are all reaped, and the command goes on";
    findings.begin(expected);
    let ready = findings.scratch.join("orphans");
    let script = format!(
        "for i in 1 2 3; do (sleep 1000 &); done; echo >{}; exec sleep 2000",
        ready.display()
    );
    let mut seen = String::new();
    let mut holds = false;
    let outcome = run(findings.subject(), &script, |pid| {
        let orphans = |pid| {
            children(pid)
                .into_iter()
                .filter(|(pid, _)| is_orphan(pid))
                .count()
        };
        until(pid, || ready.exists() && orphans(pid) == 3);
        kill(pid, Signal::SIGSTOP)?;
        until(pid, || super::state(pid) == "T");
        let orphans: Vec<Pid> = children(pid)
            .into_iter()
            .map(|(pid, _)| pid)
            .filter(is_orphan)
            .collect();
        for orphan in &orphans {
            kill(*orphan, Signal::SIGKILL)?;
            until(pid, || super::state(*orphan) == "Z");
        }
        kill(pid, Signal::SIGCONT)?;
        until(pid, || at_rest(pid) != Rest::Came);
        until(pid, || {
            children(pid).len() == 1 || at_rest(pid) == Rest::Waits
        });
        let zombies = children(pid)
            .into_iter()
            .filter(|(_, state)| state == "Z")
            .count();
        holds = orphans.len() == 3 && zombies == 0 && children(pid).len() == 1;
        seen = match (orphans.len(), children(pid).is_empty()) {
            (3, false) => format!("of three that have ended {zombies} are zombies still"),
            (3, true) => "PID 1 has ended, and the command with it".into(),
            (other, _) => format!("PID 1 got {other} orphans of three"),
        };
        kill(pid, Signal::SIGKILL)?;
        Ok(())
    })?;
    let claim = Claim::new(expected, seen.clone(), holds);
    findings.claim(match seen.as_str() {
        "of three that have ended 3 are zombies still" => claim.why(
            "PID 1 waits for its own child only. Orphans become its children, too, and stay zombies until somebody takes \
             their exit code: reap(None) takes any",
        ),
        "of three that have ended 2 are zombies still" => claim.why(
            "at a SIGCHLD one child was reaped, and there were three: signals of one kind don't queue, so reap until there \
             is nothing to take (while let)",
        ),
        "PID 1 has ended, and the command with it" => claim.why(
            "init ended with the first child that ended, an orphan: only the command's end is init's",
        ),
        _ => claim,
    });
    let _ = (outcome, fs::remove_file(&ready));
    Ok(())
}

fn is_orphan(pid: &Pid) -> bool {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    words == b"sleep\x001000\0"
}

/// A daemon that the command has left behind.
fn waits_for_nobody_else(findings: &Findings) -> Result<()> {
    let expected = "init ends when its command does, also when others are left";
    findings.begin(expected);
    let mut waits = false;
    let outcome = run(findings.subject(), "(sleep 1000 &); exit 3", |pid| {
        let is_over = |pid| children(pid).iter().all(|(pid, _)| is_orphan(pid));
        until(pid, || !children(pid).is_empty() && is_over(pid));
        waits = at_rest(pid) == Rest::Waits;
        if waits {
            kill(pid, Signal::SIGKILL)?;
        }
        Ok(())
    })?;
    let seen = match waits {
        true => "the command has ended, and PID 1 waits".to_owned(),
        false => outcome.in_words(),
    };
    let claim = Claim::new(expected, seen, outcome.ending == Ending::Left(3));
    findings.claim(match waits {
        true => claim.why("PID 1 waits until it has no child any more: only the command's end is init's, and the kernel ends the others"),
        false => claim,
    });
    Ok(())
}

/// Each signal that isn't about PID 1's own children is the command's.
fn passes_signals_on(findings: &Findings) -> Result<()> {
    for (signal, name) in [
        (Signal::SIGTERM, "TERM"),
        (Signal::SIGHUP, "HUP"),
        (Signal::SIGUSR1, "USR1"),
        (Signal::SIGWINCH, "WINCH"),
    ] {
        let expected = format!("SIG{name} to PID 1 reaches the command");
        findings.begin(&expected);
        let ready = findings.scratch.join("listens");
        let script = format!(
            "trap 'exit 6' {name}; echo >{}; while :; do sleep 0.05; done",
            ready.display()
        );
        let mut is_sent = false;
        let outcome = run(findings.subject(), &script, |pid| {
            until(pid, || ready.exists());
            until(pid, || at_rest(pid) == Rest::Waits);
            // Who is stopped can't have dealt with it yet: what it is sent is seen.
            if let Some((command, _)) = children(pid).first() {
                kill(*command, Signal::SIGSTOP)?;
                until(pid, || super::state(*command) == "T");
                kill(pid, signal)?;
                until(pid, || at_rest(pid) == Rest::Waits);
                is_sent = pending(*command) & (1 << (signal as i32 - 1)) != 0;
                kill(*command, Signal::SIGCONT)?;
            }
            if !is_sent {
                kill(pid, Signal::SIGKILL)?;
            }
            Ok(())
        })?;
        let holds = outcome.ending == Ending::Left(6);
        let seen = match is_sent {
            false => "the command was sent nothing".to_owned(),
            true => outcome.in_words(),
        };
        findings.claim(Claim::new(expected, seen, holds).why(
            "PID 1 got the signal and told nobody, or only some: each signal but SIGCHLD was meant for the command, and \
             signals.forward passes it on",
        ));
        remove(&[&ready]);
        if !holds {
            break;
        }
    }
    Ok(())
}

/// A command that ignores SIGTERM is asked again and again.
fn kills_nobody_for_being_deaf(findings: &Findings) -> Result<()> {
    let expected = "a command that ignores SIGTERM goes on, however often PID 1 gets it";
    findings.begin(expected);
    let ready = findings.scratch.join("deaf");
    let script = format!("trap '' TERM; echo >{}; exec sleep 1000", ready.display());
    let mut lives = false;
    let outcome = run(findings.subject(), &script, |pid| {
        until(pid, || ready.exists());
        for _ in 0..5 {
            until(pid, || at_rest(pid) == Rest::Waits);
            kill(pid, Signal::SIGTERM)?;
        }
        lives = at_rest(pid) == Rest::Waits && children(pid).iter().any(|(_, state)| state == "S");
        kill(pid, Signal::SIGKILL)?;
        Ok(())
    })?;
    remove(&[&ready]);
    let seen = match lives {
        true => "it goes on".to_owned(),
        false => format!("it was killed: {}", outcome.in_words()),
    };
    findings.claim(Claim::new(expected, seen, lives).why(
        "PID 1 insists: it kills a command that doesn't end. That is for a parent outside; with an init the command hears \
         each signal, and may ignore it",
    ));
    Ok(())
}

fn remove(files: &[&Path]) {
    for file in files {
        let _ = fs::remove_file(file);
    }
}

/// The calls by which somebody begins to wait for signals.
const LISTENING: &[c_long] = &[
    libc::SYS_signalfd4,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_rt_sigsuspend,
    libc::SYS_ppoll,
    libc::SYS_epoll_pwait,
    libc::SYS_wait4,
    libc::SYS_waitid,
];

/// The command has ended before PID 1 listens.
fn hears_of_an_early_end(findings: &Findings) -> Result<()> {
    let expected = "a command that ends before PID 1 listens is heard of";
    findings.begin(expected);
    let mut done = false;
    let watcher = Watcher::new(LISTENING, move |call| {
        let name = fs::read_to_string(format!("/proc/{}/comm", call.pid)).unwrap_or_default();
        if !done && name.trim() == "init" && !children(call.pid).is_empty() {
            done = true;
            until(call.pid, || {
                children(call.pid).iter().all(|(_, state)| state == "Z")
            });
        }
        Verdict::Go
    });
    let outcome = run(findings.subject().watch(watcher), "exit 4", |_| Ok(()))?;
    findings.claim(Claim::new(
        expected,
        outcome.in_words(),
        outcome.ending == Ending::Left(4),
    ));
    Ok(())
}

fn tells_what_the_kernel_refuses(findings: &Findings) -> Result<()> {
    let calls = [
        (libc::SYS_clone, "fork (clone)", Errno::EAGAIN),
        (libc::SYS_clone3, "clone3", Errno::EAGAIN),
    ];
    let by_itself = |subject: Subject| run(subject, "exit 4", |_| Ok(()));
    findings.each_call_fails("init", &calls, by_itself, || false, |_| Vec::new())?;
    Ok(())
}

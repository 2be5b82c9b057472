//! 2.2: the exit code of a child that has ended.

use super::{child, state, told, until_it_ends};
use probe::anyhow::Result;
use probe::libc;
use probe::nix::errno::Errno;
use probe::nix::sys::signal::{Signal, kill};
use probe::nix::unistd::Pid;
use probe::{Claim, Findings, Verdict, Watcher, at_rest, children_of};
use std::fs::File;
use std::os::unix::fs::FileExt;
use step02_pid::reap;

/// What reap returned, in plain numbers.
type Taken = Option<(i32, u8)>;

fn take(pid: Option<Pid>) -> Result<Taken> {
    Ok(told(reap(pid))?.map(|(pid, code)| (pid.as_raw(), code)))
}

pub fn judge(findings: &Findings) -> Result<()> {
    if !ends_are_told_apart(findings)? {
        return Ok(());
    }
    nothing_to_take(findings)?;
    takes_the_one_that_is_meant(findings)?;
    one_at_a_time(findings)?;
    a_core_dump_is_no_other_end(findings)?;
    whom_it_has_not(findings)
}

/// How a child ends, and the exit code that tells it.
struct End {
    expected: &'static str,
    how: fn() -> i32,
    code: u8,
    why: &'static str,
}

fn raise(signal: i32) -> i32 {
    // SAFETY: sends this process a signal, whose default is the end.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
    99
}

const ENDS: &[End] = &[
    End {
        expected: "a child that exits with 7",
        how: || 7,
        code: 7,
        why: "the wait status itself was returned. Its low byte tells of the signal; the exit code is the byte above it, \
              and WEXITSTATUS takes it out",
    },
    End {
        expected: "a child that exits with 0",
        how: || 0,
        code: 0,
        why: "an exit code of 0 is an end like others",
    },
    End {
        expected: "a child that exits with 255",
        how: || 255,
        code: 255,
        why: "an exit code goes up to 255",
    },
    End {
        expected: "a child that SIGKILL, signal 9, kills",
        how: || raise(libc::SIGKILL),
        code: 137,
        why: "whom a signal kills has no exit code: the signal's number stands in its place, with 128 added, so that \
              `exit 9` and signal 9 differ",
    },
    End {
        expected: "a child that a real-time signal, 40, kills",
        how: || raise(40),
        code: 168,
        why: "signals go up to 64, and not every library knows those from 32 on",
    },
];

fn ends_are_told_apart(findings: &Findings) -> Result<bool> {
    for end in ENDS {
        let wanted = |pid: i32| Some((pid, end.code));
        findings.begin(end.expected);
        let outcome = findings.subject().call(|| {
            let pid = child(end.how)?;
            until_it_ends(pid);
            Ok((pid.as_raw(), take(Some(pid))?))
        })?;
        let Some((pid, taken)) = outcome.value::<(i32, Taken)>() else {
            findings.claim(Claim::new(end.expected, outcome.in_words(), false));
            return Ok(false);
        };
        let code = taken.map(|(_, code)| code);
        findings.claim(
            Claim::equal(
                end.expected,
                "the exit code that reap returns",
                &code,
                &Some(end.code),
            )
            .why(end.why),
        );
        let its_own = taken.is_none() || taken == wanted(pid) || code != Some(end.code);
        findings.claim(Claim::new(
            "reap returns the pid of the child that has ended",
            "another number",
            its_own,
        ));
        let left = outcome.before.left_children(&outcome.after);
        findings.claim(Claim::new(
            "whom it has taken is gone",
            left.join("; "),
            left.is_empty(),
        ));
    }
    Ok(true)
}

/// Without an end there is nothing to take, and nobody waits for one.
fn nothing_to_take(findings: &Findings) -> Result<()> {
    let waits = "waitpid was called without WNOHANG, so it waits when there is nothing to take, and hears no signal \
                 meanwhile";
    for (any, expected) in [
        (
            false,
            "while the child lives there is nothing to take, and reap comes back at once",
        ),
        (
            true,
            "while all children live there is nothing to take, and reap(None) comes back at once",
        ),
    ] {
        findings.begin(expected);
        let outcome = findings.subject().call_in(
            || child(pause),
            |pid| take((!any).then_some(pid)),
            |subject| {
                if at_rest(subject) == probe::Rest::Waits {
                    probe::note(0, 1);
                    // So that somebody judges the rest.
                    for pid in children_of(subject).into_keys() {
                        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                    }
                }
                Ok(())
            },
        )?;
        let waited = probe::noted(0) == 1;
        let seen = match waited {
            true => "it waits for the child's end".to_owned(),
            false => {
                outcome.in_words()
                    + &outcome
                        .value::<Taken>()
                        .map_or(String::new(), |taken| format!(": {taken:?}"))
            }
        };
        let holds = !waited && outcome.value::<Taken>() == Some(None);
        let claim = Claim::new(expected, seen, holds);
        findings.claim(if waited { claim.why(waits) } else { claim });
    }
    let expected = "without any child there is nothing to take: reap(None) returns None";
    findings.begin(expected);
    let outcome = findings.subject().call(|| take(None))?;
    let holds = outcome.value::<Taken>() == Some(None);
    findings.claim(
        Claim::new(expected, outcome.in_words(), holds)
            .why("ECHILD for any child says that there is none: no error, but nothing to take"),
    );
    let expected = "a child that was stopped hasn't ended";
    findings.begin(expected);
    let outcome = findings.subject().call(|| {
        let pid = child(pause)?;
        kill(pid, Signal::SIGSTOP)?;
        while state(pid) != "T" {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        take(Some(pid))
    })?;
    let holds = outcome.value::<Taken>() == Some(None);
    findings.claim(
        Claim::new(
            expected,
            format!("{}: {}", outcome.in_words(), outcome.value),
            holds,
        )
        .why("with WUNTRACED waitpid tells of stops, too; nobody asked for those"),
    );
    Ok(())
}

fn pause() -> i32 {
    loop {
        // SAFETY: waits for a signal.
        unsafe { libc::pause() };
    }
}

/// With a pid nobody else's exit code is taken.
fn takes_the_one_that_is_meant(findings: &Findings) -> Result<()> {
    let expected = "reap(Some(pid)) takes the exit code of that child, and leaves the others";
    findings.begin(expected);
    let outcome = findings.subject().call(|| {
        let (other, meant) = (child(|| 3)?, child(|| 4)?);
        until_it_ends(other);
        until_it_ends(meant);
        let taken = take(Some(meant))?;
        Ok((taken == Some((meant.as_raw(), 4)), state(other) == "Z"))
    })?;
    let (is_it, is_there) = outcome.value::<(bool, bool)>().unwrap_or_default();
    let seen = match (is_it, is_there) {
        _ if !outcome.is_ok() => outcome.in_words(),
        (true, true) => "it took the one that was meant".into(),
        (_, false) => "the exit code of the other child was taken, too".into(),
        (false, true) => "it didn't take the one that was meant".into(),
    };
    findings.claim(
        Claim::new(expected, seen, is_it && is_there)
            .why("the parameter `pid` isn't heeded: waitpid was asked for any child (-1)"),
    );
    Ok(())
}

fn one_at_a_time(findings: &Findings) -> Result<()> {
    let expected =
        "of two children that have ended, reap(None) takes one, and the other at the next call";
    findings.begin(expected);
    let outcome = findings.subject().call(|| {
        let pids = [child(|| 3)?, child(|| 4)?];
        pids.iter().copied().for_each(until_it_ends);
        let mut taken = [take(None)?, take(None)?];
        taken.sort();
        let mut wanted = [Some((pids[0].as_raw(), 3)), Some((pids[1].as_raw(), 4))];
        wanted.sort();
        Ok((
            taken == wanted,
            format!("{:?}", taken.map(|one| one.map(|(_, code)| code))),
        ))
    })?;
    let (holds, seen) = outcome
        .value::<(bool, String)>()
        .unwrap_or((false, outcome.in_words()));
    findings.claim(Claim::new(expected, format!("exit codes: {seen}"), holds));
    Ok(())
}

/// The kernel's answer is replaced: SIGSEGV with a core dump is 11 with the bit 0x80.
fn a_core_dump_is_no_other_end(findings: &Findings) -> Result<()> {
    let expected = "a child that SIGSEGV, signal 11, kills, with a core dump";
    findings.begin(expected);
    let watcher = Watcher::new(&[libc::SYS_wait4], |call| {
        let memory = File::options()
            .write(true)
            .open(format!("/proc/{}/mem", call.pid));
        let written = memory
            .and_then(|memory| memory.write_all_at(&0x8b_i32.to_ne_bytes(), call.arguments[1]));
        match written {
            Ok(()) => Verdict::Return(4711),
            Err(_) => Verdict::Go,
        }
    });
    let outcome = findings
        .subject()
        .watch(watcher)
        .call(|| take(Some(Pid::from_raw(4711))))?;
    if outcome.refused {
        let code = outcome.value::<Taken>().flatten().map(|(_, code)| code);
        findings.claim(
            Claim::equal(expected, "the exit code that reap returns", &code, &Some(139))
                .why("the bit 0x80 of a wait status says that there is a core dump, and isn't part of the signal: WTERMSIG leaves it out"),
        );
    }
    Ok(())
}

/// Whom the caller hasn't got can't be waited for.
fn whom_it_has_not(findings: &Findings) -> Result<()> {
    let expected = "for somebody who is no child of the caller reap returns an error: ECHILD";
    findings.begin(expected);
    let outcome = findings.subject().call(|| take(Some(Pid::from_raw(1))))?;
    let holds = outcome.error().starts_with("ECHILD");
    findings.claim(
        Claim::new(expected, outcome.in_words(), holds)
            .why("the kernel's ECHILD was taken for \"nothing to take\", so that a caller who waits for this child waits for ever"),
    );
    let calls = [
        (libc::SYS_wait4, "waitpid", Errno::EINVAL),
        (libc::SYS_waitid, "waitid", Errno::EINVAL),
    ];
    let run = |subject: probe::Subject| subject.call(|| take(None));
    findings.each_call_fails("reap", &calls, run, || false, |_| Vec::new())?;
    Ok(())
}

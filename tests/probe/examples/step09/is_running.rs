//! 9.3: the kernel says whether it is still the same process.

use probe::anyhow::{Context, Result};
use probe::libc;
use probe::nix::errno::Errno;
use probe::nix::sys::prctl::set_name;
use probe::nix::sys::signal::{Signal, kill};
use probe::nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use probe::nix::unistd::{ForkResult, Pid, Uid, fork, getpid, pause, setresuid};
use probe::{Claim, Findings};
use std::ffi::CStr;
use step09_detach::{Identity, is_running};

/// Starts a child with `name` for its program's name, which sleeps, or has ended: a zombie.
fn child(name: &CStr, ends: bool) -> Result<Identity> {
    // SAFETY: this process has one thread, and the child does nothing but wait or end.
    let pid = match unsafe { fork() }? {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let _ = set_name(name);
            if ends {
                // SAFETY: ends this process alone.
                unsafe { libc::_exit(0) }
            }
            loop {
                pause();
            }
        }
    };
    if ends {
        waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)?;
    } else {
        while comm(pid) != name.to_bytes() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
    Identity::of(pid).context("its identity")
}

fn comm(pid: Pid) -> Vec<u8> {
    let mut name = std::fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.pop();
    name
}

pub fn judge(findings: &Findings) -> Result<()> {
    // Of who says nothing true of any process, nothing else is to be told.
    findings.play_in(&(), &[who_runs])?;
    if findings.all_hold() {
        times(findings)?;
        boots(findings)?;
        its_own_zombie(findings)?;
        stopped(findings)?;
        traced(findings)?;
        of_another_user(findings)?;
    }
    // These fail with the others, and for the same reasons.
    findings.play_in(&(), &[who_has_ended, numbers, names])
}

/// Claims what is_running says of a process, which `who` makes.
fn says(
    findings: &Findings,
    expected: &str,
    who: impl FnOnce() -> Result<Identity>,
    wanted: bool,
    why: &str,
) -> Result<bool> {
    findings.begin(expected);
    let identity = who()?;
    let outcome = findings.subject().call(|| Ok(is_running(&identity)))?;
    let said: Option<bool> = outcome.value();
    let seen = match said {
        Some(said) => format!("is_running says {said}"),
        None => outcome.in_words(),
    };
    let why = (said == Some(!wanted) && !why.is_empty()).then(|| why.into());
    let holds = said == Some(wanted);
    findings.claim(Claim::new(expected, seen, holds).because(why));
    findings.caller_stays(&outcome, &[]);
    Ok(holds)
}

fn who_runs(findings: &Findings, (): &()) -> Result<()> {
    let ours = || Identity::of(getpid());
    says(findings, "a process that is there runs", ours, true, "").map(drop)
}

fn stopped(findings: &Findings) -> Result<()> {
    let why = "state T, stopped, was taken for an end: only Z, a zombie, and X, which is about to go, have ended";
    let who = || {
        let known = child(c"stopped", false)?;
        let pid = Pid::from_raw(known.pid);
        kill(pid, Signal::SIGSTOP)?;
        waitid(Id::Pid(pid), WaitPidFlag::WSTOPPED | WaitPidFlag::WNOWAIT)?;
        Ok(known)
    };
    says(
        findings,
        "a process that is stopped is still there",
        who,
        true,
        why,
    )
    .map(drop)
}

/// A debugger has it.
fn traced(findings: &Findings) -> Result<()> {
    let why = "state t, stopped by a debugger, was taken for an end: only Z, a zombie, and X, which is about to go, have ended";
    let who = || {
        let known = child(c"traced", false)?;
        let nothing = std::ptr::null_mut::<libc::c_void>();
        for request in [libc::PTRACE_SEIZE, libc::PTRACE_INTERRUPT] {
            // SAFETY: both requests take no address and no data.
            Errno::result(unsafe { libc::ptrace(request, known.pid, nothing, nothing) })?;
        }
        waitid(
            Id::Pid(Pid::from_raw(known.pid)),
            WaitPidFlag::WSTOPPED | WaitPidFlag::WNOWAIT,
        )?;
        Ok(known)
    };
    says(
        findings,
        "a process that is being debugged is still there",
        who,
        true,
        why,
    )
    .map(drop)
}

/// The caller is nobody, and the process root's.
fn of_another_user(findings: &Findings) -> Result<()> {
    let expected =
        "a process of another user, to which the caller may send no signal, is still there";
    let ours = Identity::of(getpid())?;
    findings.begin(expected);
    let nobody = || {
        let nobody = Uid::from_raw(65534);
        Ok(setresuid(nobody, nobody, nobody)?)
    };
    let outcome = findings
        .subject()
        .call_in(nobody, |()| Ok(is_running(&ours)), |_| Ok(()))?;
    let said: Option<bool> = outcome.value();
    let why = (said == Some(false))
        .then(|| "the caller may neither signal it nor look into it (EPERM), and that was taken for its end".into());
    let seen = said.map_or_else(
        || outcome.in_words(),
        |said| format!("is_running says {said}"),
    );
    findings.claim(Claim::new(expected, seen, said == Some(true)).because(why));
    Ok(())
}

/// A child of the caller's that has ended.
fn its_own_zombie(findings: &Findings) -> Result<()> {
    let expected = "a zombie, a child of the caller's, doesn't run";
    findings.begin(expected);
    let outcome = findings.subject().call_in(
        || child(c"child", true),
        |zombie| Ok((is_running(&zombie), zombie.pid)),
        |_| Ok(()),
    )?;
    let said: Option<(bool, i32)> = outcome.value();
    let seen = said.map_or_else(
        || outcome.in_words(),
        |(said, _)| format!("is_running says {said}"),
    );
    let holds = said.is_some_and(|(said, _)| !said);
    findings
        .claim(Claim::new(expected, seen, holds).because(zombie_why(said.map(|(said, _)| said))));
    if let Some((_, pid)) = said {
        let stays = outcome.after.children.contains_key(&pid);
        let why = "whoever waits for this child gets ECHILD now: is_running has taken its exit code (waitpid). It may only look";
        let claim = Claim::new(
            "its exit code is still there for whoever waits for it",
            if stays {
                "/proc/PID/stat: state Z"
            } else {
                "/proc/PID is gone: the zombie was reaped"
            },
            stays,
        );
        findings.claim(claim.because((!stays).then(|| why.into())));
    }
    Ok(())
}

fn zombie_why(said: Option<bool>) -> Option<String> {
    (said == Some(true)).then(|| {
        "a zombie has a folder in /proc, its number and its start time, and yet it has ended: the state, the letter behind \
         the name in /proc/PID/stat, tells"
            .into()
    })
}

fn who_has_ended(findings: &Findings, (): &()) -> Result<()> {
    let expected = "a zombie, whoever's child it is, doesn't run";
    says(findings, expected, || child(c"zombie", true), false, "")?;
    let reaped = || {
        let zombie = child(c"reaped", true)?;
        waitpid(Pid::from_raw(zombie.pid), None)?;
        Ok(zombie)
    };
    let expected = "a process that was reaped doesn't run";
    says(findings, expected, reaped, false, "").map(drop)
}

/// A process chooses its name, and may put into it what looks like the rest of the line.
fn names(findings: &Findings, (): &()) -> Result<()> {
    let why = "a program's name may have blanks and brackets in it: in /proc/PID/stat the fields begin behind the last )";
    let runs = || child(c"a) Z 1 (b", false);
    let expected = "a process with the name `a) Z 1 (b` runs";
    says(findings, expected, runs, true, why)?;
    let zombie = || child(c"a) S 1 (b c", true);
    let expected = "a zombie with the name `a) S 1 (b c` doesn't run";
    says(findings, expected, zombie, false, why).map(drop)
}

/// Processes that had the same number once, and began at another time.
fn times(findings: &Findings) -> Result<()> {
    let ours = Identity::of(getpid())?;
    let why = "another process has this number now, which began at another time: the numbers alone were compared, or not \
        exactly";
    for (expected, start_time) in [
        (
            "a process that began earlier, and had the number of one that runs, doesn't run",
            ours.start_time - 1,
        ),
        ("nor does one that began later", ours.start_time + 1),
        (
            "nor one that began 2^32 clock ticks later",
            ours.start_time + (1 << 32),
        ),
    ] {
        let other = Identity {
            start_time,
            ..ours.clone()
        };
        if !says(findings, expected, || Ok(other), false, why)? {
            break;
        }
    }
    Ok(())
}

/// Processes of another boot of the machine.
fn boots(findings: &Findings) -> Result<()> {
    let ours = Identity::of(getpid())?;
    let why = "the number and the start time are those of another boot of the machine, in which every number was given out \
        anew: boot_id wasn't compared, or not all of it";
    let mut last = ours.boot_id.clone();
    let digit = if last.pop() == Some('0') { '1' } else { '0' };
    for (expected, boot_id) in [
        (
            "a process of another boot of the machine doesn't run",
            format!("{last}{digit}"),
        ),
        ("nor does one whose boot has no ID", String::new()),
    ] {
        let other = Identity {
            boot_id,
            ..ours.clone()
        };
        if !says(findings, expected, || Ok(other), false, why)? {
            break;
        }
    }
    Ok(())
}

/// What kill(2) takes for many processes at once.
fn numbers(findings: &Findings, (): &()) -> Result<()> {
    let ours = Identity::of(getpid())?;
    for pid in [0, -1] {
        let other = Identity {
            pid,
            ..ours.clone()
        };
        let expected = format!("no process has the number {pid}");
        says(findings, &expected, || Ok(other), false, "")?;
    }
    Ok(())
}

//! 6.3: a filter of system calls, and no_new_privs.

use crate::process::hold;
use probe::anyhow::{Result, bail};
use probe::libc::{self, c_long};
use probe::nix::errno::Errno;
use probe::nix::sys::wait::{WaitStatus, waitpid};
use probe::nix::unistd::{ForkResult, fork};
use probe::{Claim, Findings, Outcome, Subject, Watcher};
use std::cell::Cell;
use std::collections::BTreeMap;
use step06_caps::seccomp::{Filter, compile};

pub fn filter(findings: &Findings) -> Result<()> {
    findings.scenes(&[
        each_by_itself,
        its_flags,
        it_refuses_what_is_needed,
        without_privileges,
        what_the_kernel_refuses,
        a_call_fails,
    ])
}

const INSTALLING: &[(c_long, &str, Errno)] = &[
    (libc::SYS_prctl, "prctl(2)", Errno::EINVAL),
    (libc::SYS_seccomp, "seccomp(2)", Errno::EINVAL),
];

/// A filter that lets all calls go but those with the number `refused`: these fail with an errno that nobody else uses.
fn refusing(refused: c_long) -> Result<Filter> {
    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    let rule = vec![(Vec::new(), libc::SECCOMP_RET_ERRNO | ODD as u32)];
    let table = step06_caps::seccomp::Table {
        architecture: ARCHITECTURE,
        calls: BTreeMap::from([(u32::try_from(refused)?, rule)]),
        newest: None,
        from: Vec::new(),
    };
    match compile(&[table], ALLOW, ALLOW) {
        Ok(filter) => Ok(filter),
        Err(_) => bail!("a filter of one rule has too many instructions"),
    }
}

const ODD: Errno = Errno::EXDEV;

/// AUDIT_ARCH_X86_64 and AUDIT_ARCH_AARCH64.
const ARCHITECTURE: u32 = if cfg!(target_arch = "x86_64") {
    0xc000_003e
} else {
    0xc000_00b7
};

/// A call that changes nothing, and that the filters of most scenes refuse.
const HARMLESS: c_long = libc::SYS_getpgid;

fn is_refused() -> bool {
    // SAFETY: takes an integer.
    let result = unsafe { libc::syscall(HARMLESS, 0) };
    Errno::result(result) == Err(ODD)
}

/// Whether the calling process's children have it refused, too.
fn is_refused_to_children() -> Result<bool> {
    // SAFETY: the child makes one call and ends.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(waitpid(child, None)? == WaitStatus::Exited(child, 0)),
        // SAFETY: ends this process with nothing of the parent's run.
        ForkResult::Child => unsafe { libc::_exit(i32::from(!is_refused())) },
    }
}

fn call(
    subject: Subject,
    filter: Option<&Filter>,
    no_new_privileges: bool,
    first: impl FnOnce() -> Result<()>,
) -> Result<Outcome> {
    subject.call_in(
        first,
        |()| {
            step06_caps::filter(filter, no_new_privileges)?;
            Ok((is_refused(), is_refused_to_children()?))
        },
        |_| Ok(()),
    )
}

fn count(state: &probe::State) -> u32 {
    // Kernels before 5.9 don't count, and tell the mode only: 2 with a filter.
    let line = match state.status("Seccomp_filters") {
        "" => state.status("Seccomp"),
        line => line,
    };
    line.parse().unwrap_or_default()
}

/// What isn't as it was asked for.
fn wrong(outcome: &Outcome, has_filter: bool, no_new_privileges: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    let (refused, to_children): (bool, bool) = outcome.value().unwrap_or_default();
    let new = count(&outcome.after) - count(&outcome.before).min(count(&outcome.after));
    match (has_filter, new) {
        (true, 0) => wrong.push("no filter was installed (/proc/PID/status: Seccomp)".to_owned()),
        (false, 1..) => wrong.push("a filter was installed, and none was given".to_owned()),
        (true, 1..) if !refused => {
            wrong.push("another filter than the one that is given was installed".into())
        }
        (true, 1..) if !to_children => {
            wrong.push("a child of the caller runs without the filter".into())
        }
        (true, 2..) if !outcome.after.status("Seccomp_filters").is_empty() => {
            wrong.push(format!("{new} filters were installed instead of one"));
        }
        _ => {}
    }
    match (outcome.after.status("NoNewPrivs"), no_new_privileges) {
        ("1", false) => wrong.push(
            "no_new_privs is on, and wasn't asked for: setuid programs don't work any more (/proc/PID/status: NoNewPrivs: 1)".into(),
        ),
        ("0", true) => wrong.push("no_new_privs isn't on (/proc/PID/status: NoNewPrivs: 0)".into()),
        _ => {}
    }
    wrong
}

fn judge(findings: &Findings, expected: &str, has_filter: bool, nnp: bool) -> Result<()> {
    findings.begin(expected);
    let filter = has_filter.then(|| refusing(HARMLESS)).transpose()?;
    let outcome = call(findings.subject(), filter.as_ref(), nnp, || Ok(()))?;
    let wrong = wrong(&outcome, has_filter, nnp);
    findings.holds(expected, &outcome, &wrong);
    if outcome.is_ok() && wrong.is_empty() {
        findings.caller_stays(&outcome, &["NoNewPrivs"]);
    }
    Ok(())
}

fn each_by_itself(findings: &Findings) -> Result<()> {
    judge(
        findings,
        "with both, the filter is installed and no_new_privs is on",
        true,
        true,
    )?;
    judge(
        findings,
        "with a filter alone, it is installed, and no_new_privs stays off",
        true,
        false,
    )?;
    judge(
        findings,
        "with no_new_privs alone, it is on, and no filter is installed",
        false,
        true,
    )?;
    judge(findings, "with neither, nothing happens", false, false)
}

fn its_flags(findings: &Findings) -> Result<()> {
    let expected = "the filter's own flags are given to seccomp(2)";
    findings.begin(expected);
    let mut filter = refusing(HARMLESS)?;
    filter.flags = libc::SECCOMP_FILTER_FLAG_LOG | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    let watcher = Watcher::records(&[libc::SYS_seccomp]);
    let outcome = call(
        findings.subject().watch(watcher),
        Some(&filter),
        true,
        || Ok(()),
    )?;
    let given = outcome.calls.first().map(|call| call.arguments[1]);
    let holds = outcome.is_ok() && given == Some(filter.flags);
    let seen = match given {
        _ if !outcome.is_ok() => outcome.in_words(),
        Some(flags) => format!(
            "its second argument is {flags:#x}, and filter.flags is {:#x}",
            filter.flags
        ),
        None => "seccomp(2) wasn't called: prctl(PR_SET_SECCOMP) takes no flags".into(),
    };
    findings.claim(Claim::new(expected, seen, holds));
    Ok(())
}

/// The filter refuses prctl(2), which turns no_new_privs on.
fn it_refuses_what_is_needed(findings: &Findings) -> Result<()> {
    let expected = "no_new_privs is turned on before the filter is there, which may refuse that";
    findings.begin(expected);
    let filter = refusing(libc::SYS_prctl)?;
    let outcome = findings
        .subject()
        .call(|| step06_caps::filter(Some(&filter), true))?;
    let mut wrong = Vec::new();
    if outcome.after.status("NoNewPrivs") != "1" {
        wrong.push("no_new_privs isn't on (/proc/PID/status: NoNewPrivs: 0)".to_owned());
    }
    let holds = outcome.is_ok() && wrong.is_empty();
    let why = (!holds).then(|| {
        "the filter was installed first, and holds for its installer's next call already".into()
    });
    let seen = match outcome.is_ok() {
        true => wrong.join("; "),
        false => outcome.in_words(),
    };
    findings.claim(Claim::new(expected, seen, holds).because(why));
    Ok(())
}

fn without_privileges(findings: &Findings) -> Result<()> {
    let expected = "a caller without any capability gets a filter with no_new_privs";
    findings.begin(expected);
    let filter = refusing(HARMLESS)?;
    let drop_all = || hold(0, 0, 0);
    let outcome = call(findings.subject(), Some(&filter), true, drop_all)?;
    findings.holds(expected, &outcome, &wrong(&outcome, true, true));

    let expected = "without no_new_privs such a caller is refused";
    findings.begin(expected);
    let outcome = call(findings.subject(), Some(&filter), false, drop_all)?;
    let why = "the filter isn't there, or no_new_privs was turned on for it, which wasn't asked for; and nobody is told";
    findings.refuses(expected, &outcome, Errno::EACCES, why);
    findings.caller_stays(&outcome, &[]);
    Ok(())
}

fn what_the_kernel_refuses(findings: &Findings) -> Result<()> {
    let expected = "a filter that doesn't pass the kernel's check is an error";
    findings.begin(expected);
    let mut filter = refusing(HARMLESS)?;
    filter.flags = 1 << 31;
    let outcome = call(findings.subject(), Some(&filter), true, || Ok(()))?;
    let why = "the error of seccomp(2) is thrown away: the caller believes that it has a filter";
    findings.refuses(expected, &outcome, Errno::EINVAL, why);
    findings.caller_stays(&outcome, &["NoNewPrivs"]);
    Ok(())
}

fn a_call_fails(findings: &Findings) -> Result<()> {
    let filter = refusing(HARMLESS)?;
    let is_done = Cell::new(false);
    findings.each_call_fails(
        "filter",
        INSTALLING,
        |subject| {
            let outcome = call(subject, Some(&filter), true, || Ok(()))?;
            is_done.set(outcome.is_ok() && wrong(&outcome, true, true).is_empty());
            Ok(outcome)
        },
        || is_done.get(),
        |outcome| outcome.changes(&["NoNewPrivs"]),
    )?;
    Ok(())
}

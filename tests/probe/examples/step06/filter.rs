//! 6.3: a filter of system calls, and no_new_privs.

use crate::process::hold;
use probe::anyhow::{Result, bail};
use probe::libc::{self, c_long};
use probe::nix::errno::Errno;
use probe::nix::sys::wait::{WaitStatus, waitpid};
use probe::nix::unistd::{ForkResult, fork};
use probe::{Findings, Outcome, Subject, Watcher, names};
use std::cell::Cell;
use std::collections::BTreeMap;
use step06_caps::seccomp::{Filter, compile};

pub fn filter(findings: &Findings) -> Result<()> {
    findings.play(&[
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

/// What isn't as it was asked for, about the filter.
fn filter_wrong(outcome: &Outcome, has_filter: bool) -> Option<String> {
    let (refused, to_children): (bool, bool) = outcome.value().unwrap_or_default();
    let new = count(&outcome.after).saturating_sub(count(&outcome.before));
    let counts = !outcome.after.status("Seccomp_filters").is_empty();
    let seen = match (has_filter, new) {
        (true, 0) => "no filter was installed (/proc/PID/status: Seccomp_filters)".into(),
        (false, 1..) => "a filter was installed, and none was given".into(),
        (true, _) if !refused => "another filter than the one that is given was installed".into(),
        (true, _) if !to_children => "a child of the caller runs without the filter".into(),
        (true, 2..) if counts => format!("{new} filters were installed instead of one"),
        _ => return None,
    };
    Some(seen)
}

/// The same about no_new_privs.
fn no_new_privs_wrong(outcome: &Outcome, wanted: bool) -> Option<String> {
    let seen = match (outcome.after.status("NoNewPrivs"), wanted) {
        ("1", false) => {
            "no_new_privs is on, and wasn't asked for (/proc/PID/status: NoNewPrivs: 1)"
        }
        ("0", true) => "no_new_privs isn't on (/proc/PID/status: NoNewPrivs: 0)",
        _ => return None,
    };
    Some(seen.into())
}

fn wrong(outcome: &Outcome, has_filter: bool, no_new_privileges: bool) -> Vec<String> {
    let filter = filter_wrong(outcome, has_filter);
    let nnp = no_new_privs_wrong(outcome, no_new_privileges);
    [filter, nnp].into_iter().flatten().collect()
}

/// Why it is so, if one mistake explains it.
fn why(outcome: &Outcome, has_filter: bool, nnp: bool) -> Option<String> {
    if !outcome.is_ok() {
        return None;
    }
    let pair = (
        filter_wrong(outcome, has_filter).is_some(),
        no_new_privs_wrong(outcome, nnp).is_some(),
    );
    let text = match (pair, has_filter, nnp) {
        ((false, true), _, false) => {
            "no_new_privs is turned on though `no_new_privileges` is false, and nobody can turn it off again: setuid programs don't work any more"
        }
        ((false, true), false, true) => {
            "without a filter the function is through before it turns no_new_privs on: these are two things, and each is asked for by itself"
        }
        ((false, true), true, true) => "no_new_privs was never turned on (PR_SET_NO_NEW_PRIVS)",
        ((true, false), true, false) => {
            "the filter is installed only together with no_new_privs: these are two things, and each is asked for by itself"
        }
        _ => return None,
    };
    Some(text.into())
}

fn judge(findings: &Findings, expected: &str, has_filter: bool, nnp: bool) -> Result<()> {
    findings.begin(expected);
    let filter = has_filter.then(|| refusing(HARMLESS)).transpose()?;
    let outcome = call(findings.subject(), filter.as_ref(), nnp, || Ok(()))?;
    let wrong = wrong(&outcome, has_filter, nnp);
    if findings.holds(expected, &outcome, &wrong, || {
        why(&outcome, has_filter, nnp)
    }) {
        findings.caller_stays(&outcome, &["NoNewPrivs"]);
    }
    Ok(())
}

fn each_by_itself(findings: &Findings) -> Result<()> {
    for (expected, has_filter, no_new_privileges) in [
        (
            "with both, the filter is installed and no_new_privs is on",
            true,
            true,
        ),
        (
            "with a filter alone, it is installed, and no_new_privs stays off",
            true,
            false,
        ),
        (
            "with no_new_privs alone, it is on, and no filter is installed",
            false,
            true,
        ),
        ("with neither, nothing happens", false, false),
    ] {
        judge(findings, expected, has_filter, no_new_privileges)?;
        if !findings.all_hold() {
            break;
        }
    }
    Ok(())
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
    let wrong = match given {
        Some(flags) if flags == filter.flags => None,
        Some(flags) => Some(format!(
            "its second argument is {flags:#x}, and filter.flags is {:#x}",
            filter.flags
        )),
        None => Some("seccomp(2) wasn't called".to_owned()),
    };
    let wrong: Vec<String> = wrong.into_iter().collect();
    findings.holds(expected, &outcome, &wrong, || {
        let text = match given {
            _ if !outcome.is_ok() => return None,
            Some(0) => "filter.flags isn't looked at",
            Some(flags) if flags & filter.flags == filter.flags => {
                "a flag was added to the filter's own, which nobody asked for"
            }
            Some(_) => return None,
            None => "prctl(PR_SET_SECCOMP) takes no flags: only seccomp(2) does",
        };
        Some(text.into())
    });
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
    let wrong: Vec<String> = no_new_privs_wrong(&outcome, true).into_iter().collect();
    findings.holds(expected, &outcome, &wrong, || {
        Some(
            "the filter was installed first, and holds already for its installer's next call"
                .into(),
        )
    });
    Ok(())
}

fn without_privileges(findings: &Findings) -> Result<()> {
    let expected = "a caller without any capability gets a filter with no_new_privs";
    findings.begin(expected);
    let filter = refusing(HARMLESS)?;
    let drop_all = || hold(0, 0, 0);
    let outcome = call(findings.subject(), Some(&filter), true, drop_all)?;
    let wrong = wrong(&outcome, true, true);
    findings.holds(expected, &outcome, &wrong, || {
        let is_late = names(outcome.error(), Errno::EACCES);
        is_late.then(|| "the kernel wants no_new_privs before the filter, from a caller without CAP_SYS_ADMIN".into())
    });

    let expected = "without no_new_privs such a caller is refused";
    findings.begin(expected);
    let outcome = call(findings.subject(), Some(&filter), false, drop_all)?;
    let why = match outcome.after.status("NoNewPrivs") {
        "1" => {
            "no_new_privs was turned on so that the kernel takes the filter: it wasn't asked for, and can't be undone"
        }
        _ => "the error of seccomp(2) is thrown away: the caller believes that it has a filter",
    };
    if findings.refuses(expected, &outcome, Errno::EACCES, why) {
        findings.caller_stays(&outcome, &[]);
    }
    Ok(())
}

fn what_the_kernel_refuses(findings: &Findings) -> Result<()> {
    let expected = "a filter that doesn't pass the kernel's check is an error";
    findings.begin(expected);
    let mut filter = refusing(HARMLESS)?;
    filter.flags = 1 << 31;
    let outcome = call(findings.subject(), Some(&filter), true, || Ok(()))?;
    let why = "the error of seccomp(2) is thrown away: the caller believes that it has a filter";
    if findings.refuses(expected, &outcome, Errno::EINVAL, why) {
        findings.caller_stays(&outcome, &["NoNewPrivs"]);
    }
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

//! 6.1: a process's user and groups.

use crate::process::{SETGID, SETUID, differs, hold, mask, securebits, set};
use probe::anyhow::Result;
use probe::libc::{self, c_long};
use probe::nix::errno::Errno;
use probe::nix::unistd::{Gid, setgroups};
use probe::{Claim, Findings, Outcome, Subject, Watcher, note, noted};
use std::cell::RefCell;
use step06_caps::capabilities::permitted;
use step06_caps::users::User;

pub fn become_user(findings: &Findings) -> Result<()> {
    findings.play(&[
        another_user,
        many_groups,
        root_with_other_groups,
        root_as_before,
        a_capability_is_missing,
        a_call_fails,
    ])
}

const GROUPS: &[(c_long, &str, Errno)] = &[
    (libc::SYS_setgroups, "setgroups(2)", Errno::EPERM),
    (libc::SYS_setresgid, "setresgid(2)", Errno::EPERM),
    (libc::SYS_setregid, "setregid(2)", Errno::EPERM),
    (libc::SYS_setgid, "setgid(2)", Errno::EPERM),
];

const USERS: &[(c_long, &str, Errno)] = &[
    (libc::SYS_setresuid, "setresuid(2)", Errno::EPERM),
    (libc::SYS_setreuid, "setreuid(2)", Errno::EPERM),
    (libc::SYS_setuid, "setuid(2)", Errno::EPERM),
];

const PRCTL: (c_long, &str, Errno) = (libc::SYS_prctl, "prctl(2)", Errno::EPERM);

fn user(uid: u32, gid: u32, groups: &[u32]) -> User {
    User {
        uid,
        gid,
        groups: groups.into(),
        home: "/nowhere".into(),
    }
}

/// Where the securebits are left, before and after.
const BITS: [usize; 2] = [0, 1];

/// Calls the function in a process with groups of the host's, to which `first` has happened.
fn call(subject: Subject, user: &User, first: impl FnOnce() -> Result<()>) -> Result<Outcome> {
    subject.call_in(
        || {
            let hosts = [4, 20, 27].map(Gid::from_raw);
            setgroups(&hosts)?;
            first()
        },
        |()| {
            note(BITS[0], securebits() as u32);
            let became = step06_caps::become_user(user);
            note(BITS[1], securebits() as u32);
            became
        },
        |_| Ok(()),
    )
}

/// The numbers in a line of the status, in their order.
fn numbers(outcome: &Outcome, line: &str) -> Vec<u32> {
    let words = outcome.after.status(line).split_whitespace();
    let mut numbers: Vec<u32> = words.filter_map(|word| word.parse().ok()).collect();
    if line == "Groups" {
        numbers.sort_unstable();
    }
    numbers
}

/// What a long list lacks, and what it has too much.
fn in_short(seen: &[u32], wanted: &[u32]) -> String {
    let lacks = wanted.iter().filter(|number| !seen.contains(number));
    let others = seen.iter().filter(|number| !wanted.contains(number));
    format!(
        "{} of {} are missing, and {} are others",
        lacks.count(),
        wanted.len(),
        others.count()
    )
}

/// What isn't as `user` says.
fn wrong(outcome: &Outcome, user: &User) -> Vec<String> {
    let mut groups = user.groups.clone();
    groups.sort_unstable();
    let wanted = [
        ("Uid", vec![user.uid; 4]),
        ("Gid", vec![user.gid; 4]),
        ("Groups", groups),
    ];
    let differs = wanted.into_iter().filter_map(|(line, wanted)| {
        let seen = numbers(outcome, line);
        (seen != wanted).then(|| match wanted.len() {
            0..8 => format!("/proc/PID/status: {line}: {seen:?}, and not {wanted:?}"),
            _ => format!("/proc/PID/status: {line}: {}", in_short(&seen, &wanted)),
        })
    });
    differs.collect()
}

/// Whether the user was changed before a call that changes groups.
fn is_user_first(outcome: &Outcome) -> bool {
    let is_in =
        |table: &[(c_long, &str, Errno)], number| table.iter().any(|(known, ..)| *known == number);
    let mut calls = outcome.calls.iter().map(|call| call.number);
    let user = calls.position(|number| is_in(USERS, number));
    user.is_some() && calls.any(|number| is_in(GROUPS, number))
}

/// Why it is so, where the calls or the numbers leave one reason only.
fn why(outcome: &Outcome, user: &User) -> Option<String> {
    let is_only_effective = |line, wanted| {
        let numbers = numbers(outcome, line);
        numbers.get(1) == Some(&wanted) && numbers.iter().any(|number| *number != wanted)
    };
    let sets_groups = !outcome.calls_of(libc::SYS_setgroups).is_empty();
    let text = match outcome.is_ok() {
        false if is_user_first(outcome) => {
            "the user was changed before the groups: with the last uid 0 the effective capabilities are gone, CAP_SETGID among them"
        }
        false => return None,
        true if is_only_effective("Uid", user.uid) || is_only_effective("Gid", user.gid) => {
            "not all of the real, the effective and the saved ID were changed: from one that is kept the process can go back"
        }
        true if user.uid == 0 && outcome.changes(&[]).is_empty() => {
            "nothing was done for uid 0: root has a group and groups, too"
        }
        true if numbers(outcome, "Uid") != [user.uid; 4]
            || numbers(outcome, "Gid") != [user.gid; 4] =>
        {
            return None;
        }
        true if !sets_groups => {
            "setgroups(2) wasn't called: the supplementary groups are still those of whoever started the program"
        }
        true => "the groups that were set aren't just those of the user",
    };
    Some(text.into())
}

fn watched() -> Watcher {
    let tables = GROUPS.iter().chain(USERS);
    let numbers: Vec<_> = tables.map(|(number, ..)| *number).collect();
    Watcher::records(&numbers)
}

/// Whether the process is that user, and nothing else has changed.
fn judge(findings: &Findings, expected: &str, user: &User) -> Result<Outcome> {
    findings.begin(expected);
    let outcome = call(findings.subject().watch(watched()), user, || Ok(()))?;
    let wrong = wrong(&outcome, user);
    if findings.holds(expected, &outcome, &wrong, || why(&outcome, user)) {
        its_capabilities(findings, &outcome);
        securebits_stay(findings);
        let may_change = ["Uid", "Gid", "Groups", "CapPrm", "CapEff"];
        findings.caller_stays(&outcome, &may_change);
    }
    Ok(outcome)
}

fn its_capabilities(findings: &Findings, outcome: &Outcome) {
    let [before, after] = [&outcome.before, &outcome.after].map(|state| mask(state, "CapPrm"));
    let holds = before == after;
    let why = (!holds).then(|| {
        "with the last uid 0 the kernel takes away all capabilities, unless that is switched off before: PR_SET_KEEPCAPS(2const)".into()
    });
    let expected =
        "the permitted capabilities are kept, for drop_capabilities to say which of them remain";
    let seen = format!("/proc/PID/status: CapPrm: {}", differs(after, before));
    findings.claim(Claim::new(expected, seen, holds).because(why));
}

fn securebits_stay(findings: &Findings) {
    let [before, after] = BITS.map(noted);
    let expected = "the securebits are what they were, except for the one that execve takes back";
    let seen = format!("PR_GET_SECUREBITS: {after:#x}, before {before:#x}");
    findings.claim(Claim::new(expected, seen, before == after));
}

fn another_user(findings: &Findings) -> Result<()> {
    let expected =
        "the caller is user 4711 and group 4712, four times each, and has no other groups";
    judge(findings, expected, &user(4711, 4712, &[]))?;
    Ok(())
}

fn many_groups(findings: &Findings) -> Result<()> {
    let groups: Vec<u32> = (0..40).map(|number| 70000 - 31 * number).collect();
    let expected = "the supplementary groups are just those of the user: forty of them";
    judge(findings, expected, &user(70001, 70002, &groups))?;
    Ok(())
}

fn root_with_other_groups(findings: &Findings) -> Result<()> {
    let expected = "a user who is root gets group and groups, too";
    judge(findings, expected, &user(0, 4712, &[8, 9]))?;
    Ok(())
}

/// The usual container: root, with no groups.
fn root_as_before(findings: &Findings) -> Result<()> {
    let expected = "a caller who is root already stays root, without the host's groups";
    let outcome = judge(findings, expected, &user(0, 0, &[]))?;
    if outcome.is_ok() {
        let changes = outcome.changes(&["Groups"]);
        let expected = "a caller who is that user already keeps all capabilities";
        findings.claim(Claim::new(expected, changes.join("; "), changes.is_empty()));
    }
    Ok(())
}

fn a_capability_is_missing(findings: &Findings) -> Result<()> {
    for (name, number) in [("CAP_SETGID", SETGID), ("CAP_SETUID", SETUID)] {
        let expected = format!("a caller without {name} is refused");
        findings.begin(&expected);
        let user = user(4711, 4712, &[4713]);
        let outcome = call(findings.subject(), &user, || {
            let rest = permitted() & !set(&[number]);
            hold(rest, rest, 0)
        })?;
        let why = "the kernel refused a call, and nobody is told";
        findings.refuses(&expected, &outcome, Errno::EPERM, why);
    }
    Ok(())
}

fn a_call_fails(findings: &Findings) -> Result<()> {
    let user = user(4711, 4712, &[4713]);
    let last = RefCell::new(None);
    let table = [GROUPS, USERS, &[PRCTL]].concat();
    findings.each_call_fails(
        "become_user",
        &table,
        |subject| {
            let outcome = call(subject, &user, || Ok(()))?;
            last.replace(Some(outcome.clone()));
            Ok(outcome)
        },
        || {
            let last = last.borrow();
            last.as_ref().is_some_and(|outcome| {
                let kept = mask(&outcome.before, "CapPrm") == mask(&outcome.after, "CapPrm");
                outcome.is_ok() && kept && wrong(outcome, &user).is_empty()
            })
        },
        |outcome| {
            let may_change = ["Uid", "Gid", "Groups", "CapPrm", "CapEff"];
            outcome.changes(&may_change)
        },
    )?;
    Ok(())
}

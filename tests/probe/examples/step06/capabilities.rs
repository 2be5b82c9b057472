//! 6.2: four of the five sets.

use crate::process::{
    CHOWN, KILL, NET_RAW, SETGID, SETPCAP, SETUID, SYS_ADMIN, SYSLOG, WAKE_ALARM, differs, hold,
    mask, securebits, set,
};
use probe::anyhow::Result;
use probe::libc::{self, c_long};
use probe::nix::errno::Errno;
use probe::nix::sys::prctl::set_keepcaps;
use probe::nix::unistd::{Uid, setresuid};
use probe::{Call, Claim, Findings, Outcome, Subject, Verdict, Watcher, note, noted};
use std::cell::RefCell;
use std::sync::{Arc, Mutex};
use step06_caps::capabilities::{CapSets, permitted};

pub fn drop_capabilities(findings: &Findings) -> Result<()> {
    findings.play(&[
        some_stay,
        none_stays,
        each_set_is_another,
        ambient_ones,
        who_is_not_root,
        what_the_caller_has_not,
        ambient_without_inheritable,
        a_call_fails,
    ])
}

const SETTING: &[(c_long, &str, Errno)] = &[
    (libc::SYS_capset, "capset(2)", Errno::EPERM),
    (libc::SYS_prctl, "prctl(2)", Errno::EPERM),
];

/// Where the securebits are left, before and after.
const BITS: [usize; 2] = [0, 1];

/// Sets with the capabilities that this machine lets us have. The bounding set is a smaller one than the caller's.
fn sets(permitted: &[u32], effective: &[u32], inheritable: &[u32], ambient: &[u32]) -> CapSets {
    let ours = step06_caps::capabilities::permitted();
    CapSets {
        bounding: ours & !set(&[NET_RAW, WAKE_ALARM]),
        permitted: set(permitted) & ours,
        effective: set(effective) & ours,
        inheritable: set(inheritable) & ours,
        ambient: set(ambient) & ours,
    }
}

fn call(subject: Subject, sets: &CapSets, first: impl FnOnce() -> Result<()>) -> Result<Outcome> {
    subject.call_in(
        first,
        |()| {
            note(BITS[0], securebits() as u32);
            let dropped = step06_caps::drop_capabilities(sets);
            note(BITS[1], securebits() as u32);
            dropped
        },
        |_| Ok(()),
    )
}

const LINES: [&str; 4] = ["CapPrm", "CapEff", "CapInh", "CapAmb"];

/// The lines that aren't as `sets` says.
fn wrong(outcome: &Outcome, sets: &CapSets) -> Vec<String> {
    let wanted = [
        sets.permitted,
        sets.effective,
        sets.inheritable,
        sets.ambient,
    ];
    let pairs = LINES.into_iter().zip(wanted);
    let wrong = pairs.filter_map(|(line, wanted)| {
        let seen = mask(&outcome.after, line);
        (seen != wanted).then(|| format!("/proc/PID/status: {line}: {}", differs(seen, wanted)))
    });
    wrong.collect()
}

fn raises(call: &&Call) -> bool {
    let raise = [libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE].map(|number| number as u64);
    call.number == libc::SYS_prctl && call.arguments[..2] == raise
}

/// Why it is so, where the calls or the sets leave one reason only.
fn why(outcome: &Outcome, sets: &CapSets, given: Option<Given>) -> Option<String> {
    let state = &outcome.after;
    let set_at = outcome
        .calls
        .iter()
        .position(|call| call.number == libc::SYS_capset);
    let raised_at = outcome.calls.iter().position(|call| raises(&call));
    let high = 0xffff_ffff_0000_0000;
    let is_lost = |line, wanted: u64| {
        let seen = mask(state, line);
        seen != wanted && (seen ^ wanted) & !high == 0
    };
    let text = match (set_at, raised_at) {
        (None, Some(_)) if !outcome.is_ok() => {
            "an ambient capability was raised first, and the kernel refused: only what is permitted and inheritable already can \
             become ambient, so capset(2) comes before"
        }
        (None, _) => {
            "capset(2) was never called: whatever else was done, three of the five sets are what they were"
        }
        (Some(set), Some(raised)) if raised < set => {
            "an ambient capability was raised before capset(2): it has to be permitted and inheritable by then"
        }
        // Once the ambient set is raised, the other ones are set.
        (_, None) if !outcome.is_ok() => {
            return given.and_then(|given| why_refused(outcome, sets, given));
        }
        _ if !outcome.is_ok() => return None,
        _ if is_lost("CapPrm", sets.permitted) => {
            "the upper half is wrong: capset(2) takes each set as two numbers of 32 bits, and some capabilities are in the second"
        }
        _ if mask(state, "CapPrm") != sets.permitted && mask(state, "CapEff") == sets.effective => {
            "what is only taken out of the effective set is taken up again: the permitted set has to be smaller, too"
        }
        _ if sets.effective != sets.permitted && mask(state, "CapEff") == sets.permitted => {
            "sets.effective isn't looked at: all that is permitted became effective"
        }
        (_, None) if sets.ambient != 0 => {
            "no ambient capability was raised: capset(2) doesn't know that set (PR_CAP_AMBIENT_RAISE)"
        }
        _ => return None,
    };
    Some(text.into())
}

/// Why capset(2) refused sets that it would have taken: what it was given tells.
fn why_refused(outcome: &Outcome, sets: &CapSets, given: Given) -> Option<String> {
    let [effective, permitted, inheritable] = given;
    let held = mask(&outcome.before, "CapPrm");
    let is_as_wanted = effective == sets.effective && permitted == sets.permitted;
    let text = if is_as_wanted && inheritable == sets.inheritable {
        return None;
    } else if effective == sets.permitted && permitted == sets.effective && !is_as_wanted {
        "the effective set was given for the permitted one, and the permitted for the effective: what is effective has to be \
         permitted"
    } else if permitted & !held != 0 {
        "the permitted set that was given has capabilities which the caller hasn't got: that set may only shrink"
    } else if effective & !permitted != 0 {
        "the effective set that was given has capabilities which aren't in the permitted one: effective, permitted and \
         inheritable may stand in each other's places"
    } else if inheritable & !(held | mask(&outcome.before, "CapInh")) != 0 {
        "the inheritable set that was given has capabilities which the caller hasn't got"
    } else {
        return None;
    };
    Some(text.into())
}

/// The effective, permitted and inheritable sets that capset(2) was given.
type Given = [u64; 3];

/// What a call of capset(2), which waits, was given: three numbers of 32 bits, and again three for the upper halves.
fn given(call: &Call) -> Option<Given> {
    let bytes = call.bytes(1, 24);
    let number = |at: usize| {
        Some(u32::from_ne_bytes(
            bytes.get(4 * at..4 * at + 4)?.try_into().ok()?,
        ))
    };
    let set = |at: usize| Some(u64::from(number(at)?) | u64::from(number(at + 3)?) << 32);
    Some([set(0)?, set(1)?, set(2)?])
}

fn judge(
    findings: &Findings,
    expected: &str,
    sets: &CapSets,
    first: impl FnOnce() -> Result<()>,
) -> Result<()> {
    findings.begin(expected);
    let numbers: Vec<_> = SETTING.iter().map(|(number, ..)| *number).collect();
    let last = Arc::new(Mutex::new(None));
    let heard = Arc::clone(&last);
    let subject = findings
        .subject()
        .watch(Watcher::new(&numbers, move |call| {
            if let (libc::SYS_capset, Ok(mut last)) = (call.number, heard.lock()) {
                *last = given(call);
            }
            Verdict::Go
        }));
    let outcome = call(subject, sets, first)?;
    let wrong = wrong(&outcome, sets);
    let given = last.lock().ok().and_then(|last| *last);
    if findings.holds(expected, &outcome, &wrong, || why(&outcome, sets, given)) {
        findings.caller_stays(&outcome, &LINES);
        let [before, after] = BITS.map(noted);
        let expected = "the securebits are what they were";
        let seen = format!("PR_GET_SECUREBITS: {after:#x}, before {before:#x}");
        findings.claim(Claim::new(expected, seen, before == after));
    }
    Ok(())
}

fn some_stay(findings: &Findings) -> Result<()> {
    let few = [CHOWN, SETUID, NET_RAW];
    let expected = "three permitted and effective capabilities stay, and no inheritable one";
    judge(findings, expected, &sets(&few, &few, &[], &[]), || Ok(()))
}

fn none_stays(findings: &Findings) -> Result<()> {
    let expected = "with empty sets no capability stays at all";
    judge(findings, expected, &sets(&[], &[], &[], &[]), || Ok(()))
}

fn each_set_is_another(findings: &Findings) -> Result<()> {
    let held = [CHOWN, SETPCAP, SYS_ADMIN, SYSLOG, WAKE_ALARM];
    let expected = "each set is just what is said for it, with capabilities above 31, too";
    let sets = sets(&held, &[CHOWN, SYSLOG], &[CHOWN, WAKE_ALARM], &[]);
    judge(findings, expected, &sets, || Ok(()))
}

fn ambient_ones(findings: &Findings) -> Result<()> {
    let held = [CHOWN, KILL, SETUID, SYSLOG];
    let expected = "of the inheritable capabilities just those that are said become ambient";
    let sets = sets(&held, &held, &held, &[KILL, SYSLOG]);
    judge(findings, expected, &sets, || Ok(()))
}

fn who_is_not_root(findings: &Findings) -> Result<()> {
    let expected = "a caller who has just become another user loses what it kept";
    judge(findings, expected, &sets(&[], &[], &[], &[]), || {
        set_keepcaps(true)?;
        let other = Uid::from_raw(4711);
        Ok(setresuid(other, other, other)?)
    })
}

fn what_the_caller_has_not(findings: &Findings) -> Result<()> {
    let expected = "a capability that the caller hasn't got is refused";
    findings.begin(expected);
    let wanted = [CHOWN, SYS_ADMIN];
    let sets = sets(&wanted, &wanted, &[], &[]);
    let outcome = call(findings.subject(), &sets, || {
        let rest = permitted() & !set(&[SYS_ADMIN]);
        hold(rest, rest, 0)
    })?;
    let why = match outcome.changes(&[]).is_empty() {
        true => "the error of capset(2) is thrown away: the caller has all that it had",
        false => "what the caller hasn't got was left out, and nobody is told",
    };
    findings.refuses(expected, &outcome, Errno::EPERM, why);
    Ok(())
}

fn ambient_without_inheritable(findings: &Findings) -> Result<()> {
    let expected = "an ambient capability that isn't inheritable is refused";
    findings.begin(expected);
    let held = [CHOWN, KILL];
    let sets = sets(&held, &held, &[CHOWN], &[KILL]);
    let watcher = Watcher::records(&[libc::SYS_prctl]);
    let outcome = call(findings.subject().watch(watcher), &sets, || Ok(()))?;
    let is_inheritable = mask(&outcome.after, "CapInh") != sets.inheritable;
    let why = match outcome.calls.iter().any(|call| raises(&call)) {
        _ if is_inheritable => "the capability was made inheritable, which nobody asked for",
        true => {
            "the error of PR_CAP_AMBIENT_RAISE is thrown away: the ambient capability isn't there, and nobody is told"
        }
        false => "the ambient capability was left out, and nobody is told",
    };
    findings.refuses(expected, &outcome, Errno::EPERM, why);
    Ok(())
}

fn a_call_fails(findings: &Findings) -> Result<()> {
    let held = [CHOWN, SETGID, SYSLOG];
    let sets = sets(&held, &held, &held, &[CHOWN, SYSLOG]);
    let last = RefCell::new(None);
    findings.each_call_fails(
        "drop_capabilities",
        SETTING,
        |subject| {
            let outcome = call(subject, &sets, || Ok(()))?;
            last.replace(Some(outcome.clone()));
            Ok(outcome)
        },
        || {
            let last = last.borrow();
            let is_done = |outcome: &Outcome| outcome.is_ok() && wrong(outcome, &sets).is_empty();
            last.as_ref().is_some_and(is_done)
        },
        |outcome| outcome.changes(&LINES),
    )?;
    Ok(())
}

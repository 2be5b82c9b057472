//! 10.2: what holds a container's own processes holds one that joins it, in the same order.

#[path = "same_prison/scene.rs"]
mod scene;

use probe::anyhow::{Result, bail};
use probe::libc::{self, c_long};
use probe::nix::errno::Errno;
use probe::{Claim, Findings, Outcome};
use scene::{OF_PRISON, OF_READY, RLIMITS, Scene, Seen, of_a_user, of_root};
use std::fs::File;
use std::path::PathBuf;
use step06_caps::Process;
use step10_exec::{Prison, same_prison};

/// What may change in the caller, as it is meant to.
const MAY_CHANGE: &[&str] = &[
    "Uid",
    "Gid",
    "Groups",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
];

/// What may not fail without anybody's knowing.
const CALLS: &[(c_long, &str, Errno)] = &[
    (libc::SYS_write, "write(2)", Errno::ENODEV),
    (libc::SYS_prlimit64, "setrlimit(2)", Errno::EPERM),
    (libc::SYS_setrlimit, "setrlimit(2)", Errno::EPERM),
    (libc::SYS_setgroups, "setgroups(2)", Errno::EPERM),
    (libc::SYS_setresgid, "setresgid(2)", Errno::EPERM),
    (libc::SYS_setresuid, "setresuid(2)", Errno::EPERM),
    (libc::SYS_capset, "capset(2)", Errno::EPERM),
];

pub fn judge(findings: &Findings) -> Result<()> {
    let mut scene = Scene::new(&findings.scratch)?;
    let judged = findings.play_in(
        &scene,
        &[
            a_user,
            root,
            without_anything,
            a_group_refuses,
            not_ready,
            a_limit_is_refused,
            each_call_fails,
        ],
    );
    scene.cgroup.remove()?;
    judged
}

fn a_user(findings: &Findings, scene: &Scene) -> Result<()> {
    let expected = "same_prison comes back with Ok";
    findings.begin(expected);
    let prison = scene.prison(RLIMITS)?;
    let outcome = scene.call(findings.subject(), &prison, of_a_user)?;
    let seen: Seen = outcome.value().unwrap_or_default();
    let holds = outcome.is_ok() && seen.error.is_none();
    let words = in_words(&outcome, &seen);
    let too_late = seen.after.uid == 1000 && words.contains("ulimit");
    let why = (!holds && too_late).then(|| {
        "the limits were set after the process was confined: then its filter may refuse setrlimit(2), as this one does, and \
         without CAP_SYS_RESOURCE no limit can be raised"
            .into()
    });
    findings.claim(Claim::new(expected, words, holds).because(why));
    if !holds {
        return Ok(());
    }
    groups(findings, &prison, &seen);
    limits(findings, &seen);
    process(findings, &outcome, &of_a_user()?, "a user");
    let why = "when the user changes, the kernel forgets that the process is to die with its parent: confine asks once more";
    let stays = seen.after.dies_with_parent;
    let claim = Claim::new(
        "it still dies with its parent",
        format!("PR_GET_PDEATHSIG: {}", if stays { "SIGKILL" } else { "0" }),
        stays,
    );
    findings.claim(claim.because((!stays).then(|| why.into())));
    findings.caller_stays(&outcome, MAY_CHANGE);
    Ok(())
}

/// How same_prison ended, where its error was taken along.
fn in_words(outcome: &Outcome, seen: &Seen) -> String {
    match &seen.error {
        Some(error) => format!("it returned the error: {error}"),
        None => outcome.in_words(),
    }
}

fn groups(findings: &Findings, prison: &Prison, seen: &Seen) {
    let all = prison.groups.len();
    let count = seen.ready.len();
    findings.claim(Claim::new(
        "make_ready runs once",
        format!("it ran {count} times"),
        count == 1,
    ));
    let after = seen.after.groups;
    let why = match after {
        1 if all > 1 => "only one group was joined: each hierarchy has one, with limits of its own",
        _ => {
            "not every group of the container was joined: the process takes from the host what it isn't given there"
        }
    };
    let claim = Claim::new(
        "the process is in all control groups of the container",
        in_groups(after, all),
        after == all,
    );
    findings.claim(claim.because((after < all).then(|| why.into())));
    if let Some(ready) = seen.ready.first() {
        let joined = ready.groups;
        let why = "the control groups come first: what make_ready does in there would be on the host's account, and devices that \
            the container mayn't open would be opened";
        let claim = Claim::new(
            "it is in all of them when make_ready runs",
            in_groups(joined, all),
            joined == all,
        );
        findings.claim(claim.because((joined < all && after == all).then(|| why.into())));
    }
}

/// In how many groups a process is.
fn in_groups(joined: usize, all: usize) -> &'static str {
    match joined {
        0 => "/proc/PID/cgroup: in none of them",
        1 if all > 1 => "/proc/PID/cgroup: in one of them",
        some if some < all => "/proc/PID/cgroup: in some of them, and not in all",
        _ => "/proc/PID/cgroup: in all of them",
    }
}

fn limits(findings: &Findings, seen: &Seen) {
    let (files, core) = (seen.after.files, seen.after.core);
    let why = match files {
        OF_READY if core != (0, 0) => {
            Some("the limits of the prison weren't set: they are those that make_ready took")
        }
        OF_READY => Some(
            "the limits were set before make_ready: make_ready takes over those of PID 1, and the container's own \
             have to be set after that",
        ),
        (soft, hard) if soft == OF_PRISON.0 || hard == OF_PRISON.1 => Some(
            "a limit has two values: the soft one that holds, and the hard one up to which it may be raised",
        ),
        _ => None,
    };
    let holds = files == OF_PRISON;
    let expected = format!(
        "its limit of open files is the prison's, {}:{}",
        OF_PRISON.0, OF_PRISON.1
    );
    let words = format!("RLIMIT_NOFILE: {}:{}", files.0, files.1);
    let why = why.filter(|_| !holds).map(String::from);
    findings.claim(Claim::new(expected, words, holds).because(why));
    findings.claim(Claim::new(
        "the prison's other limits are set, too: core=0",
        format!("RLIMIT_CORE: {}:{}", core.0, core.1),
        core == (0, 0),
    ));
}

/// That the process is what make_ready said.
fn process(findings: &Findings, outcome: &Outcome, wanted: &Process, who: &str) {
    let state = &outcome.after;
    let words = |name: &str| {
        state
            .status(name)
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    let times = |number: u32| [number; 4].map(|number| number.to_string()).join(" ");
    let groups: Vec<String> = wanted.user.groups.iter().map(u32::to_string).collect();
    let sets = wanted.capabilities;
    let mask = |set: u64| format!("{set:016x}");
    let seccomp = if wanted.filter.is_some() { "2" } else { "0" };
    for (name, value) in [
        ("Uid", times(wanted.user.uid)),
        ("Gid", times(wanted.user.gid)),
        ("Groups", groups.join(" ")),
        ("CapBnd", mask(sets.bounding)),
        ("CapPrm", mask(sets.permitted)),
        ("CapEff", mask(sets.effective)),
        ("CapInh", mask(sets.inheritable)),
        ("CapAmb", mask(sets.ambient)),
        ("NoNewPrivs", u8::from(wanted.no_new_privileges).to_string()),
        ("Seccomp", seccomp.to_owned()),
    ] {
        let is = words(name);
        let expected = format!("{who}: {name} is what make_ready returned, {value}");
        let seen = format!("/proc/PID/status: {name}: {is}");
        findings.claim(Claim::new(expected, seen, is == value));
    }
}

fn root(findings: &Findings, scene: &Scene) -> Result<()> {
    let expected = "same_prison comes back with Ok for root, without a filter";
    findings.begin(expected);
    let prison = scene.prison(&[])?;
    let outcome = scene.call(findings.subject(), &prison, of_root)?;
    let seen: Seen = outcome.value().unwrap_or_default();
    let holds = outcome.is_ok() && seen.error.is_none();
    findings.claim(Claim::new(expected, in_words(&outcome, &seen), holds));
    if holds {
        process(findings, &outcome, &of_root()?, "root");
        let files = seen.after.files;
        findings.claim(Claim::new(
            "without limits in the prison those that make_ready took stay",
            format!("RLIMIT_NOFILE: {}:{}", files.0, files.1),
            files == OF_READY,
        ));
    }
    Ok(())
}

/// A machine without control groups.
fn without_anything(findings: &Findings, scene: &Scene) -> Result<()> {
    let expected = "without control groups, the process is confined all the same";
    findings.begin(expected);
    let prison = Prison {
        groups: Vec::new(),
        ..scene.prison(RLIMITS)?
    };
    let outcome = scene.call(findings.subject(), &prison, of_a_user)?;
    let seen: Seen = outcome.value().unwrap_or_default();
    let holds = outcome.is_ok() && seen.error.is_none() && seen.after.uid == 1000;
    findings.claim(Claim::new(expected, in_words(&outcome, &seen), holds));
    Ok(())
}

/// One step fails: what was claimed of it, and that nothing came after it.
fn stops(findings: &Findings, expected: &str, outcome: &Outcome, later: &[(&str, bool)]) {
    let seen: Seen = outcome.value().unwrap_or_default();
    let failed = seen.error.is_some() || outcome.is_error();
    let why =
        (outcome.is_ok() && !failed).then(|| "the error is thrown away, and nobody is told".into());
    findings.claim(Claim::new(expected, in_words(outcome, &seen), failed).because(why));
    if !failed {
        return;
    }
    let done: Vec<&str> = later
        .iter()
        .filter(|(_, done)| *done)
        .map(|(what, _)| *what)
        .collect();
    let holds = done.is_empty();
    let why = "the error is returned too late: the first step that fails has to be the last one";
    let expected = expected.replace("same_prison returns an error", "nothing is done after that");
    let seen = match holds {
        true => "nothing came after it".into(),
        false => format!("after it {}", done.join(", and ")),
    };
    findings.claim(Claim::new(expected, seen, holds).because((!holds).then(|| why.into())));
}

/// The second group can't be joined.
fn a_group_refuses(findings: &Findings, scene: &Scene) -> Result<()> {
    let expected = "when a control group can't be joined (ENOSPC), same_prison returns an error";
    findings.begin(expected);
    let mut prison = scene.prison(RLIMITS)?;
    let full = PathBuf::from("/dev/full");
    let file = File::options().write(true).open(&full)?;
    let at = prison.groups.len().min(1);
    prison.groups.insert(at, (full, file));
    let outcome = scene.call(findings.subject(), &prison, of_a_user)?;
    let seen: Seen = outcome.value().unwrap_or_default();
    let later = [
        ("another group was joined", seen.after.groups > at),
        ("make_ready ran", !seen.ready.is_empty()),
        ("limits were set", seen.after.files == OF_PRISON),
        ("the process became its user", seen.after.uid == 1000),
    ];
    stops(findings, expected, &outcome, &later);
    Ok(())
}

fn not_ready(findings: &Findings, scene: &Scene) -> Result<()> {
    let expected = "when make_ready fails, same_prison returns an error";
    findings.begin(expected);
    let prison = scene.prison(RLIMITS)?;
    let outcome = scene.call(findings.subject(), &prison, || {
        bail!("there is no such user")
    })?;
    let seen: Seen = outcome.value().unwrap_or_default();
    let later = [
        ("limits were set", seen.after.files == OF_PRISON),
        ("the process became its user", seen.after.uid == 1000),
    ];
    stops(findings, expected, &outcome, &later);
    if let Some(error) = &seen.error {
        findings.claim(Claim::new(
            "when make_ready fails, its error is returned",
            format!("it returned the error: {error}"),
            error.contains("there is no such user"),
        ));
    }
    Ok(())
}

/// More files than any process may have open.
fn a_limit_is_refused(findings: &Findings, scene: &Scene) -> Result<()> {
    let expected = "when a limit can't be set (nofile above /proc/sys/fs/nr_open), same_prison returns an error";
    findings.begin(expected);
    let prison = scene.prison(&["nofile=4000000000"])?;
    let outcome = scene.call(findings.subject(), &prison, of_a_user)?;
    let seen: Seen = outcome.value().unwrap_or_default();
    let later = [("the process became its user", seen.after.uid == 1000)];
    stops(findings, expected, &outcome, &later);
    Ok(())
}

fn each_call_fails(findings: &Findings, scene: &Scene) -> Result<()> {
    findings.each_call_fails(
        "same_prison",
        CALLS,
        |subject| {
            let prison = scene.prison(RLIMITS)?;
            subject.call(|| same_prison(&prison, of_a_user))
        },
        || false,
        |_| Vec::new(),
    )?;
    Ok(())
}

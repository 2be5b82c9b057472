//! 7.3: a process that enters the groups of a container.

use crate::groups::{Container, is_member, mounts_of};
use probe::anyhow::Result;
use probe::nix::errno::Errno;
use probe::nix::mount::{MntFlags, umount2};
use probe::nix::unistd::{getpid, getppid};
use probe::{Claim, Findings, Outcome, libc};
use std::fs;
use std::mem::ManuallyDrop;
use step07_cgroups::limits::Limits;

/// The calls by which groups are joined and a namespace is made.
const ENTERING: &[(libc::c_long, &str, Errno)] = &[
    (libc::SYS_write, "write(2)", Errno::ENOSPC),
    (libc::SYS_pwrite64, "pwrite(2)", Errno::ENOSPC),
    (libc::SYS_writev, "writev(2)", Errno::ENOSPC),
    (libc::SYS_openat, "open(2)", Errno::EACCES),
    (libc::SYS_unshare, "unshare(2)", Errno::EPERM),
];

/// What the caller may be found to be elsewhere.
const MEANT: &[&str] = &["ns/cgroup"];

pub fn enter(findings: &Findings) -> Result<()> {
    findings.play(&[on_v2, without_paths, here, each_call])
}

/// What was seen from inside: for each group whether the caller is in it, its /proc/self/cgroup, and whether its parent is
/// in one of the groups.
type Seen = (Vec<(String, bool)>, String, bool);

/// Enters the groups of `container`, with their paths or without.
fn entered(
    findings: &Findings,
    container: &Container,
    limits: &Limits,
    has_paths: bool,
) -> Result<Outcome> {
    findings.subject().call_in(
        || {
            let cgroup = container.make(limits)?;
            let members = container.members(&cgroup)?;
            if !has_paths {
                // Some of them may be covered by others, and lead nowhere already.
                for place in mounts_of(&["cgroup", "cgroup2"])? {
                    let _ = umount2(&place, MntFlags::MNT_DETACH);
                }
            }
            Ok((cgroup, members))
        },
        |(cgroup, members)| {
            cgroup.enter()?;
            let own = fs::read_to_string("/proc/self/cgroup")?;
            // They stay open, as whatever the caller has.
            let mut members = ManuallyDrop::new(members);
            let is_parent_in = members
                .iter_mut()
                .any(|(_, file)| is_member(file, getppid()));
            let each = members
                .iter_mut()
                .map(|(list, file)| (list.clone(), is_member(file, getpid())));
            Ok::<Seen, _>((each.collect(), own, is_parent_in))
        },
        |_| Ok(()),
    )
}

/// A container with a group in every hierarchy that there is.
fn everywhere() -> Limits {
    Limits {
        freezer: true,
        everywhere: true,
        ..Limits::default()
    }
}

/// On a machine that has version 2 alone, where the kernel has it.
fn on_v2(findings: &Findings) -> Result<()> {
    findings.begin("enter joins the group on a machine that has version 2 alone");
    if let Some(container) = Container::on_v2(findings)? {
        let outcome = entered(findings, &container, &Limits::default(), true)?;
        judge(
            findings,
            &container,
            &outcome,
            "on a machine that has version 2 alone",
            None,
        );
    }
    Ok(())
}

/// Where the groups are mounted nowhere any more.
fn without_paths(findings: &Findings) -> Result<()> {
    findings.begin("enter joins the group where its path leads nowhere");
    if let Some(container) = Container::on_v2(findings)? {
        let outcome = entered(findings, &container, &Limits::default(), false)?;
        let why = "a path was looked up again, and here it leads nowhere; the files of the groups are open already";
        judge(
            findings,
            &container,
            &outcome,
            "where the groups are mounted nowhere any more",
            Some(why),
        );
    }
    Ok(())
}

/// On this machine as it is.
fn here(findings: &Findings) -> Result<()> {
    findings.begin("enter joins all of the groups");
    let container = Container::here(findings)?;
    let outcome = entered(findings, &container, &everywhere(), true)?;
    judge(findings, &container, &outcome, "on this machine", None);
    Ok(())
}

/// The claims of one entry. `why` is told when it doesn't get as far as into the groups.
fn judge(
    findings: &Findings,
    container: &Container,
    outcome: &Outcome,
    machine: &str,
    why: Option<&str>,
) {
    let (groups, own, is_parent_in) = outcome.value::<Seen>().unwrap_or_default();
    let outside: Vec<&str> = groups
        .iter()
        .filter(|(_, is_in)| !is_in)
        .map(|(list, _)| &**list)
        .collect();
    let seen = match (outcome.is_ok(), &outside[..]) {
        (false, _) => outcome.in_words().replace(container.id(), "ID"),
        (true, []) => "it is in each of them".into(),
        (true, outside) if outside.len() == groups.len() => "it is in none of them".into(),
        (true, outside) => format!("it is in some of them, and not in {}", outside.join(", ")),
    };
    let joined = outcome.is_ok() && outside.is_empty();
    let only_some = outcome.is_ok() && !outside.is_empty() && outside.len() < groups.len();
    let why = if is_parent_in {
        Some("its parent was moved: a process that joins by itself writes 0, and no other's pid")
    } else if only_some {
        Some("not all groups were joined: each hierarchy has a group of its own")
    } else {
        why.filter(|_| outcome.is_error())
    };
    let expected =
        format!("{machine}, the caller is a member of all of the groups afterwards (cgroup.procs)");
    let claim = Claim::new(expected, seen, joined);
    findings.claim(claim.because(why.filter(|_| !joined).map(Into::into)));
    if joined {
        findings.claim(topmost(container, outcome, &own));
        findings.claim(outcome.keeps_caller("enter", MEANT));
    }
}

/// A claim that the groups are the topmost ones that the caller sees.
fn topmost(container: &Container, outcome: &Outcome, own: &str) -> Claim {
    let elsewhere = own.lines().find(|line| line.contains(container.id()));
    let namespace = |state: &probe::State| state.namespaces.get("cgroup").cloned();
    let is_new = namespace(&outcome.before) != namespace(&outcome.after);
    let seen = match elsewhere {
        None => "nothing is above them",
        Some(_) => "it sees one as …/ten-steps/ID, with those of the host above it",
    };
    let why = match is_new {
        true => {
            "the namespace was made before the groups were joined, and has those for its roots that the caller was in then"
        }
        false => {
            "the caller is in no new cgroup namespace: without unshare(CLONE_NEWCGROUP) it sees the host's groups"
        }
    };
    let holds = elsewhere.is_none() && is_new;
    let expected = "its groups are the topmost ones that the caller sees (/proc/self/cgroup)";
    Claim::new(expected, seen, holds).because((!holds).then(|| why.into()))
}

/// Whoever can't enter says so.
fn each_call(findings: &Findings) -> Result<()> {
    Container::on_both(findings, each_call_in)
}

fn each_call_in(findings: &Findings, container: &Container) -> Result<()> {
    findings.each_call_fails(
        "enter",
        ENTERING,
        |subject| {
            subject.call_in(
                || container.make(&Limits::default()),
                |cgroup| cgroup.enter(),
                |_| Ok(()),
            )
        },
        || false,
        |outcome| outcome.changes(MEANT),
    )?;
    Ok(())
}

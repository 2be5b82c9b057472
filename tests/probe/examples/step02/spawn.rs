//! 2.1: a child in new namespaces.

use super::told;
use probe::anyhow::Result;
use probe::libc::{self, c_long};
use probe::nix::errno::Errno;
use probe::nix::sched::CloneFlags;
use probe::nix::sys::prctl::get_pdeathsig;
use probe::nix::unistd::{Pid, getpid};
use probe::old;
use probe::{Claim, Ending, Findings, Outcome, Verdict, Watcher, at_rest, note, noted};
use std::fs;
use std::os::fd::IntoRawFd;
use step01_uts::{Refused, exec};
use step02_pid::spawn;

/// The calls that make a process.
const BIRTHS: &[(c_long, &str, Errno)] = &[
    (libc::SYS_clone3, "clone3", Errno::EPERM),
    (libc::SYS_clone, "clone", Errno::EPERM),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_fork, "fork", Errno::EAGAIN),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_vfork, "vfork", Errno::EAGAIN),
];

pub fn judge(findings: &Findings) -> Result<()> {
    if !starts_a_child(findings)? {
        return Ok(());
    }
    namespaces_are_those_asked_for(findings)?;
    holds_signals_first(findings)?;
    brings_errors_home(findings)?;
    tells_what_the_kernel_refuses(findings)
}

/// Where the body notes how often it ran, and as whom.
const RUNS: usize = 0;
const PID: usize = 1;
/// Whether it would die with its parent.
const DIES: usize = 2;

/// Starts a child that becomes a program, and says of it: its pid, and its namespaces.
fn start(namespaces: CloneFlags) -> Result<(i32, Vec<String>)> {
    let command = ["/bin/sleep".to_owned(), "1000".to_owned()];
    let child = told(spawn(namespaces, || {
        note(RUNS, noted(RUNS) + 1);
        note(PID, std::process::id());
        note(DIES, u32::from(get_pdeathsig()?.is_some()));
        exec(&command, &[])
    }))?;
    let link = |name: &str| fs::read_link(format!("/proc/{}/{name}", child.pid));
    let links = ["exe", "ns/pid", "ns/uts", "ns/mnt", "ns/net"].map(link);
    let links = links
        .into_iter()
        .map(|link| Ok(link?.display().to_string()));
    let told = (child.pid.as_raw(), links.collect::<Result<Vec<String>>>()?);
    let _stays_open = child.pidfd.into_raw_fd();
    Ok(told)
}

fn starts_a_child(findings: &Findings) -> Result<bool> {
    let expected = "spawn returns the child once the child has become its command";
    findings.begin(expected);
    let held = findings.subject().watch(that_holds_the_child());
    let outcome = held.call(|| start(CloneFlags::CLONE_NEWPID))?;
    let claim = Claim::new(expected, outcome.in_words(), outcome.is_ok());
    let (runs, inner) = (noted(RUNS), noted(PID));
    if outcome.came_back_twice {
        findings.claim(Claim::new(expected, "a child came back from spawn, too", false).why(
            "after clone3 there are two processes on the same line of the code, and the child went on into its caller's \
             code: in the child only pipe.report(body) runs, which never comes back",
        ));
        return Ok(false);
    }
    findings.claim(match outcome.ending {
        Ending::Left(_) if runs > 0 && inner != 1 => claim.why(
            "the caller itself ran body and became the command: only the child, which gets None from clone3, may",
        ),
        _ => claim,
    });
    let Some((pid, links)) = outcome.value::<(i32, Vec<String>)>() else {
        return Ok(false);
    };
    let is_another = ["sleep", "busybox", "coreutils"]
        .iter()
        .any(|name| links[0].ends_with(name));
    let seen = format!("/proc/PID/exe: {}", links[0]);
    findings.claim(
        Claim::new("when spawn returns, the child is another program", seen, is_another).why(
            "nobody waited for what the child has to say: pipe.outcome() comes back once the child is its command, or has failed",
        ),
    );
    // How far it has come by now is nobody's concern.
    if !is_another {
        return Ok(false);
    }
    findings.claim(Claim::equal(
        "body runs once, in the child",
        "how often it ran",
        &runs,
        &1,
    ));
    findings.claim(
        Claim::equal(
            "with CLONE_NEWPID the child is PID 1",
            "getpid() in body",
            &inner,
            &1,
        )
        .why("the child was made without the namespaces that were asked for"),
    );
    findings.claim(
        Claim::equal("body begins in a child that asks for nothing yet", "how many have set PR_SET_PDEATHSIG", &noted(DIES), &0)
            .why("the child asks for SIGKILL at its parent's end. Whether it does so is for body to say: some containers outlive \
                  whoever started them"),
    );
    findings.claim(Claim::new(
        "Child::pid is the child's number as its parent sees it",
        format!(
            "it is {}",
            if outcome.after.children.contains_key(&pid) {
                "a child of the caller"
            } else {
                "no child of the caller"
            }
        ),
        outcome.after.children.contains_key(&pid),
    ));
    nothing_stays(findings, &outcome, &["children", "SigBlk"]);
    Ok(true)
}

/// All that a caller of spawn may keep is the child, and the descriptor for it.
fn nothing_stays(findings: &Findings, outcome: &Outcome, may_change: &[&str]) {
    let mut changes = outcome.changes(may_change);
    changes.retain(|change| !change.contains("pidfd"));
    findings.claim(Claim::new(
        "the caller is what it was, and has the pidfd",
        changes.join("; "),
        changes.is_empty(),
    ));
}

fn namespaces_are_those_asked_for(findings: &Findings) -> Result<()> {
    for (flags, named, expected) in [
        (
            CloneFlags::empty(),
            vec![],
            "with no flags the child is in its caller's namespaces",
        ),
        (
            CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWNS,
            vec!["uts", "mnt"],
            "with CLONE_NEWUTS and CLONE_NEWNS the child has these two of its own, and shares the others",
        ),
    ] {
        findings.begin(expected);
        let outcome = findings.subject().call(|| start(flags))?;
        let Some((_, links)) = outcome.value::<(i32, Vec<String>)>() else {
            findings.claim(Claim::new(expected, outcome.in_words(), false));
            continue;
        };
        let own: Vec<&str> = ["pid", "uts", "mnt", "net"]
            .into_iter()
            .zip(&links[1..])
            .filter(|(name, link)| outcome.before.namespaces.get(*name) != Some(link))
            .map(|(name, _)| name)
            .collect();
        findings.claim(
            Claim::equal(expected, "/proc/CHILD/ns: of its own", &own, &named)
                .why("clone3 gets other flags than the caller's `namespaces`"),
        );
    }
    Ok(())
}

/// A watcher that holds a child at its execve until its caller waits for it, or has come back too soon and looked at what
/// it got: so such a caller always sees the same.
fn that_holds_the_child() -> Watcher {
    Watcher::new(&[libc::SYS_execve], |call| {
        // A caller that becomes the command itself is a child of this process, which never rests.
        if let Some(caller) = parent_of(call.pid).filter(|parent| *parent != getpid()) {
            at_rest(caller);
        }
        Verdict::Go
    })
}

fn parent_of(pid: Pid) -> Option<Pid> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok().map(Pid::from_raw)
}

/// From the moment at which there is a child its end may be told.
fn holds_signals_first(findings: &Findings) -> Result<()> {
    let expected = "SIGCHLD is held back before there is a child";
    findings.begin(expected);
    let numbers: Vec<c_long> = BIRTHS.iter().map(|(number, ..)| *number).collect();
    let watcher = Watcher::new(&numbers, |call| {
        let status = fs::read_to_string(format!("/proc/{}/status", call.pid)).unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        let holds = mask.is_some_and(|mask| mask & (1 << (libc::SIGCHLD - 1)) != 0);
        note(3, u32::from(holds) + 1);
        Verdict::Go
    });
    let outcome = findings
        .subject()
        .watch(watcher)
        .call(|| start(CloneFlags::CLONE_NEWPID))?;
    if outcome.is_ok() {
        let holds = noted(3) == 2;
        let seen = match holds {
            true => "it was, when the child was made",
            false => "/proc/PID/status: SIGCHLD isn't in SigBlk when the child is made",
        };
        findings.claim(Claim::new(expected, seen, holds).why(
            "a child that ends at once sends SIGCHLD while nobody holds it back, and the signal is lost: signals::hold() \
             comes before clone3",
        ));
    }
    Ok(())
}

/// What body met is the caller's to know, and no zombie is left.
fn brings_errors_home(findings: &Findings) -> Result<()> {
    let refusal = || Refused::new("made_up(1)".into(), Errno::EXDEV);
    let expected = "an error of body is spawn's error, with its errno";
    findings.begin(expected);
    let slow_to_end = findings.subject().watch(that_ends_slowly());
    let outcome = slow_to_end.call(|| {
        told(spawn(CloneFlags::CLONE_NEWPID, || Err(refusal().into())))
            .map(|child| child.pid.as_raw())
    })?;
    let holds = outcome.error().starts_with("EXDEV") && outcome.error().contains("made_up(1)");
    findings.claim(Claim::new(expected, outcome.in_words(), holds));
    left_after_a_failure(findings, &outcome, "an error of body");

    let expected = "a panic of body is spawn's error, with the panic's text";
    findings.begin(expected);
    let slow_to_end = findings.subject().watch(that_ends_slowly());
    let outcome = slow_to_end.call(|| {
        told(spawn(CloneFlags::CLONE_NEWPID, || {
            panic!("there is no such moon")
        }))
        .map(|child| child.pid.as_raw())
    })?;
    let holds = outcome.is_error() && outcome.error().contains("no such moon");
    findings.claim(Claim::new(expected, outcome.in_words(), holds));
    left_after_a_failure(findings, &outcome, "a panic of body");
    Ok(())
}

/// A watcher by which a child takes a while to end: it hasn't ended yet when somebody asks who hasn't waited for it.
fn that_ends_slowly() -> Watcher {
    let numbers = [
        libc::SYS_wait4,
        libc::SYS_waitid,
        libc::SYS_read,
        old::SYS_poll,
        libc::SYS_ppoll,
        old::SYS_epoll_wait,
        libc::SYS_epoll_pwait,
        libc::SYS_rt_sigtimedwait,
    ];
    let mut has_waited = false;
    Watcher::new(&numbers, move |call| {
        let options = match call.number {
            libc::SYS_wait4 => call.arguments[2],
            libc::SYS_waitid => call.arguments[3],
            // The error pipe's end comes before the child's.
            libc::SYS_read => {
                let target = call.target(0).unwrap_or_default();
                has_waited |= target.to_string_lossy().contains("signalfd");
                return Verdict::Go;
            }
            _ => {
                has_waited = true;
                return Verdict::Go;
            }
        };
        match options & libc::WNOHANG as u64 {
            0 => Verdict::Go,
            _ if std::mem::replace(&mut has_waited, true) => Verdict::Go,
            _ => Verdict::Return(0),
        }
    })
}

fn left_after_a_failure(findings: &Findings, outcome: &Outcome, what: &str) {
    let mut left = outcome.before.left_children(&outcome.after);
    let expected = format!("after {what} no child is left, not even a zombie");
    let claim = Claim::new(expected, left.join("; "), left.is_empty());
    findings.claim(claim.why(
        "the child that failed has ended, or is about to, and nobody has taken its exit code: child.wait() waits for that, \
         before the error is returned",
    ));
    left = outcome.before.left_open(&outcome.after);
    findings.claim(Claim::new(
        format!("after {what} nothing is left open"),
        left.join("; "),
        left.is_empty(),
    ));
}

fn tells_what_the_kernel_refuses(findings: &Findings) -> Result<()> {
    let mut calls = BIRTHS.to_vec();
    calls.push((libc::SYS_pipe2, "pipe2", Errno::EMFILE));
    let left = |outcome: &Outcome| {
        let mut left = outcome.changes(&["children", "SigBlk"]);
        if outcome.is_error() {
            left.extend(outcome.before.left_children(&outcome.after));
        }
        left.retain(|change| !change.contains("pidfd"));
        left
    };
    let run = |subject: probe::Subject| subject.call(|| start(CloneFlags::CLONE_NEWPID));
    findings.each_call_fails("spawn", &calls, run, || false, left)?;
    Ok(())
}

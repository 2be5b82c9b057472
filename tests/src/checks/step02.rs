//! Chapter 2: a process tree of its own.

use super::{Claim, Workbench, in_its_own};
use crate::container::{Container, eventually, run};
use crate::evidence::Process;
use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};

/// A command that says that it is ready, and ends when its input does.
const READY: [&str; 3] = ["sh", "-c", "echo ready; read end"];

/// 2.1: the command is PID 1 of a namespace that its parent isn't in.
pub fn spawn(bench: &Workbench) -> Result<Vec<Claim>> {
    let container = Container::start(&bench.program, &READY)?;
    let first = container.first_process();
    let pids = first.pids()?;
    let parent = container.program().pids()?;
    let own = in_its_own(&container, "pid")?;
    let parents = container.program().executable()?;
    // Whoever else became the command has printed its line by the end, unless the other one's end
    // was its own: then it stands in the parent's place by now.
    let printed = container.finish()?.output;
    Ok(vec![
        own,
        Claim::new(
            "the command has two pids, and the inner one is 1",
            format!("/proc/PID/status: NSpid: {pids:?}; its parent's: {parent:?}"),
            pids.len() == parent.len() + 1 && pids.ends_with(&[1]),
        ),
        Claim::new(
            "the command runs once: the parent doesn't become it, too",
            format!(
                "standard output: {printed:?}; /proc/PID/exe of the parent: {}",
                parents.display()
            ),
            printed == "ready\n" && parents == bench.program.canonicalize()?,
        ),
    ])
}

/// 2.2: the exit code of a command that exits, and of one that a signal kills.
pub fn reap(bench: &Workbench) -> Result<Vec<Claim>> {
    let exited = run(&bench.program, &["sh", "-c", "exit 7"])?;
    let container = Container::start(&bench.program, &READY)?;
    kill(container.first_process().0, Signal::SIGKILL)?;
    let killed = container.ended()?;
    Ok(vec![
        Claim::equal("a command that exits with 7", "exit code", &exited.code, &7),
        Claim::equal(
            "a command that SIGKILL, signal 9, kills",
            "exit code",
            &killed.code,
            &137,
        ),
    ])
}

/// 2.3: what went wrong in the child is known to the parent.
pub fn outcome(bench: &Workbench) -> Result<Vec<Claim>> {
    let absent = run(&bench.program, &["no-such-program"])?;
    let started = run(&bench.program, &["true"])?;
    Ok(vec![
        Claim::equal(
            "a command that isn't found",
            "exit code",
            &absent.code,
            &127,
        ),
        Claim::new(
            "the parent names the kernel's answer",
            format!("standard error: {}", absent.errors.trim()),
            absent.errors.contains("ENOENT"),
        ),
        Claim::equal("a command that starts", "exit code", &started.code, &0),
        Claim::equal(
            "nothing is said when all is well",
            "standard error",
            &started.errors.as_str(),
            &"",
        ),
    ])
}

/// 2.4: orphans are reaped, SIGTERM reaches the command, its exit code is the container's.
pub fn init(bench: &Workbench) -> Result<Vec<Claim>> {
    // The subshell ends at once, and leaves a child behind.
    let script = "(sleep 1000 & echo $!); echo ready; read end; exit 5";
    let mut container = Container::start(&bench.program, &["--init", "sh", "-c", script])?;
    container.read_until("ready\n")?;
    let inner: i32 = container
        .first_line()
        .parse()
        .context("the pid of the orphan")?;
    let init = container.first_process();
    // A zombie has pids, too, and its parent's; a process that has been reaped has nothing.
    let orphan = eventually(|| {
        let adopted = init.children().into_iter();
        adopted
            .into_iter()
            .find(|child| child.pids().is_ok_and(|pids| pids.last() == Some(&inner)))
    });
    let orphan = orphan.context("PID 1 didn't get the orphan")?;
    kill(orphan.0, Signal::SIGKILL)?;
    let is_child = |process: &Process| init.children().contains(process);
    let reaped = eventually(|| (!is_child(&orphan)).then_some(()));
    let left = match reaped {
        Some(()) => format!("PID 1 has no child {inner} any more"),
        None => format!(
            "/proc/PID/status of the child {inner}: State: {}",
            orphan.status("State")?
        ),
    };
    let ended = container.finish()?;
    let container = Container::start(&bench.program, &["--init", "sh", "-c", READY[2]])?;
    container.signal(Signal::SIGTERM)?;
    let asked = container.ended()?;
    Ok(vec![
        Claim::new("an orphan that has ended is reaped", left, reaped.is_some()),
        Claim::equal(
            "the container ends as its command does",
            "exit code",
            &ended.code,
            &5,
        ),
        Claim::equal(
            "SIGTERM, signal 15, ends the command",
            "exit code",
            &asked.code,
            &143,
        ),
    ])
}

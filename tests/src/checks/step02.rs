//! Chapter 2: a process tree of its own.

use crate::course::workbench::{Workbench, in_its_own};
use crate::course::{Exercise, Mistake};
use crate::host::container::{Container, before_rest, let_end, run};
use crate::host::evidence::Process;
use crate::host::trace::{Call, Trace};
use anyhow::{Context, Result};
use nix::cmsg_space;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::sockopt::PassCred;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, setsockopt};
use probe::Claim;
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

/// A command that says that it is ready, and ends when its input does.
const READY: [&str; 3] = ["sh", "-c", "echo ready; read end"];

/// The exercises of chapter 2.
pub const EXERCISES: &[Exercise] = &[
    Exercise {
        name: "spawn",
        heart: "creating a namespace isn't entering it",
        check: spawn,
        scenes: &[&["true"], &["no-such-program"]],
        mistakes: &[
            Mistake {
                why: "unshare(CLONE_NEWPID) was called, and nobody was born after it. A process \
                      never changes its pid: the new namespace is for the caller's children",
                shows: |traces| {
                    traces[0].has("unshare", "CLONE_NEWPID")
                        && !traces[0].all().any(Call::makes_a_process)
                },
            },
            Mistake {
                why: "after clone3 there are two processes on the same line of the code. The \
                      parent went on to the command, too; only the child, which got None, may",
                shows: |traces| {
                    let parent = traces[0].process(0);
                    let became_it = |call: &Call| call.is("execve", "") && call.worked();
                    parent.iter().any(Call::makes_a_process) && parent.iter().any(became_it)
                },
            },
            Mistake {
                why: "SIGCHLD came while nobody held it back, and was lost: signals::hold() comes \
                      before clone3",
                shows: |traces| {
                    let parent = traces[0].process(0);
                    let at = |wanted: fn(&Call) -> bool| parent.iter().position(wanted);
                    let held = at(|call| call.is("rt_sigprocmask", ""));
                    at(Call::makes_a_process).is_some_and(|born| held.is_none_or(|at| at > born))
                },
            },
            Mistake {
                why: "what the child met was not asked for: pipe.outcome() tells whether it became \
                      its command, and if not, why",
                shows: |traces| {
                    let asked = traces[1]
                        .process(0)
                        .iter()
                        .any(|call| call.is("read", "<pipe>"));
                    traces[1].all().any(Call::makes_a_process) && !asked
                },
            },
            Mistake {
                why: "the child ran body by itself. pipe.report(body) does more: it sends what the \
                      child met to the parent, and lets no error of the child run the parent's code",
                shows: |traces| {
                    let tells = |call: &Call| call.is("write", "<pipe>");
                    traces[1].process(0).iter().any(Call::makes_a_process)
                        && !traces[1].process(1).iter().any(tells)
                },
            },
            Mistake {
                why: "the child was made without CLONE_NEWPID: it lives in its parent's namespace",
                shows: |traces| {
                    !traces[0]
                        .all()
                        .any(|call| call.arguments.contains("CLONE_NEWPID"))
                },
            },
        ],
        read: "clone(2), pid_namespaces(7)",
        show: "cargo progress run 2 -- sh -c 'echo I am $$'",
        hints: [
            "clone3 returns twice. What does it return to whom, and which of the two may run \
             `body`?",
            "Make the pipe, hold the signals, then match on call!(clone3(namespaces))?: in the \
             parent, Some(child), wait for pipe.outcome() and return the child, or take its exit \
             code and return the error; in the child, None, only pipe.report(body), which never \
             comes back.",
        ],
    },
    Exercise {
        name: "reap",
        heart: "a wait status holds two things",
        check: reap,
        scenes: &[
            &["sh", "-c", "exit 7"],
            &["--init", "sh", "-c", "kill -KILL $$"],
        ],
        mistakes: &[
            Mistake {
                why: "the wait status itself was returned. Its low byte tells of the signal; the \
                      exit code is the byte above it, and WEXITSTATUS takes it out",
                shows: |traces| ends_after_wait(&traces[0], "WEXITSTATUS(s) == 7", "0"),
            },
            Mistake {
                why: "WEXITSTATUS was asked of a process that a signal killed: that one has no \
                      exit code, and the byte is 0, as if all had gone well",
                shows: |traces| ends_after_wait(&traces[1], "WTERMSIG(s) == SIGKILL", "0"),
            },
            Mistake {
                why: "waitpid was called without WNOHANG, so it waits when there is nothing to \
                      take, and hears no signal meanwhile",
                shows: |traces| {
                    let waits =
                        |call: &Call| call.is("wait4", "") && !call.arguments.contains("WNOHANG");
                    traces.iter().any(|trace| trace.all().any(waits))
                },
            },
            Mistake {
                why: "the number of the signal became the exit code. Shells add 128, so that a \
                      command that exits with 9 and one that signal 9 kills differ",
                shows: |traces| ends_after_wait(&traces[1], "WTERMSIG(s) == SIGKILL", "9"),
            },
        ],
        read: "waitpid(2)",
        show: "sh -c 'kill -KILL $$'; echo $?",
        hints: [
            "A wait status is one number that tells of two different ends. Which macro of \
             waitpid(2) asks which end it was, before you read the value?",
            "waitpid(pid or -1, WNOHANG): pid 0 back means that all live, ECHILD that there are \
             none; both are Ok(None). Then WIFSIGNALED(status) ? 128 + WTERMSIG(status) : \
             WEXITSTATUS(status).",
        ],
    },
    Exercise {
        name: "outcome",
        heart: "close-on-exec is \"success\"",
        check: outcome,
        scenes: &[&["no-such-program"], &["true"]],
        mistakes: &[
            Mistake {
                why: "the parent waits for the end of a pipe that it holds open for writing \
                      itself. A pipe ends when its last writing end is closed",
                shows: |traces| {
                    let waits = |call: &Call| call.is("read", "<pipe>") && call.result == "?";
                    traces
                        .iter()
                        .any(|trace| trace.process(0).iter().any(waits))
                },
            },
            Mistake {
                why: "what came through the pipe was read and thrown away: whoever called spawn \
                      was told that all went well",
                shows: |traces| read_report(&traces[0]) && !traces[0].has("write", "2<"),
            },
            Mistake {
                why: "the report was read, and an error made of it that no longer has the \
                      kernel's answer. errno is in the report: Report::into_error keeps it",
                shows: |traces| {
                    let named = |call: &Call| {
                        call.is("write", "ENOENT") && call.arguments.starts_with("2<")
                    };
                    read_report(&traces[0]) && !traces[0].all().any(named)
                },
            },
        ],
        read: "pipe(7), execve(2) on close-on-exec",
        show: "cargo progress run 2 -- no-such-program; echo $?",
        hints: [
            "Who closes which end of the pipe, and when? Count the writing ends after clone3.",
            "Drop self.writer first. Read the reader to its end: nothing means Ok(()); anything \
             else is a Report in JSON, and into_error() makes the error of it.",
        ],
    },
    Exercise {
        name: "init",
        heart: "PID 1's duties",
        check: init,
        scenes: &[
            &[
                "--init",
                "sh",
                "-c",
                // The shell reads until the orphan has closed what it writes to: the orphan ends first. PID 1 takes
                // signals by their numbers, SIGCHLD (17) before SIGURG (23): who is sent that one back knows that the
                // orphan's end was dealt with.
                "trap 'exit 5' URG; echo $( (true & echo $!) ); \
                 [ $PPID = 1 ] && kill -URG 1 && { sleep 100 & wait; }; exit 5",
            ],
            &[
                "--init",
                "sh",
                "-c",
                // Only what is PID 1 of a container may be asked to end.
                "trap 'exit 3' TERM; [ $PPID = 1 ] && kill -TERM 1 && { sleep 100 & wait; }",
            ],
        ],
        mistakes: &[
            Mistake {
                why: "init waits for its own child only. Orphans become its children, too, and \
                      stay zombies until somebody takes their exit code: reap(None) takes any",
                shows: |traces| {
                    let init = traces[0].process(1);
                    !init.is_empty() && !init.iter().any(|call| call.is("wait4", "-1"))
                },
            },
            Mistake {
                why: "PID 1 never calls execve, so its copy of the error pipe stays open, and the \
                      parent waits for its end: close every descriptor from 3 on",
                shows: |traces| {
                    let init = traces[0].process(1);
                    !init.is_empty() && !init.iter().any(|call| call.is("close_range", ""))
                },
            },
            Mistake {
                why: "init ended with the first child that ended, an orphan; the kernel then \
                      killed the command. Only the command's end is init's",
                shows: |traces| {
                    let taken = |call: &&Call| call.is("wait4", "") && call.result == "PID";
                    let init = traces[0].process(1);
                    // The scene's command ends with 5.
                    let too_early =
                        |call: &Call| call.is("exit_group", "") && call.arguments != "5";
                    init.iter().filter(taken).count() == 1 && init.iter().any(too_early)
                },
            },
            Mistake {
                why: "at a SIGCHLD one child was reaped, and there were two: signals of one kind \
                      don't queue, so reap until there is nothing to take (while let)",
                shows: |traces| {
                    let taken = |call: &Call| call.is("wait4", "-1") && call.result == "PID";
                    let next = ["wait4", "exit_group"];
                    let pairs = traces[0].process(1).windows(2);
                    let mut after = pairs.filter(|pair| taken(&pair[0])).map(|pair| &pair[1]);
                    after.any(|call| !next.contains(&call.name.as_str()))
                },
            },
            Mistake {
                why: "init was asked to end (SIGTERM) and told nobody. The signal was meant for \
                      the command, and PID 1 is who gets it",
                shows: |traces| {
                    let init = traces[1].process(1);
                    !init.is_empty() && !init.iter().any(|call| call.is("kill", ""))
                },
            },
        ],
        read: "pid_namespaces(7), signalfd(2)",
        show: "cargo progress run 2 -- --init sh -c '(for i in 1 2 3 4 5 6 7 8; do true & done); \
               sleep 1; grep -s ^State:.Z /proc/[0-9]*/status'",
        hints: [
            "Whose parent does PID 1 become when a parent dies? And which signals reach a PID 1 \
             that has no handler?",
            "call!(fork())?: in the child, None, return Ok(()). PID 1 goes on: it makes \
             call!(close_range(3, CloseRange::Close))?, then Signals::new()?, and loops: a signal other than SIGCHLD is forwarded; at SIGCHLD reap(None) until \
             it says None, and leave(code) when the pid was the command's.",
        ],
    },
];

/// Whether a process waited for one that ended as `how` says, and then exited with `code`.
fn ends_after_wait(trace: &Trace, how: &str, code: &str) -> bool {
    trace.0.iter().any(|calls| {
        let waited = calls.iter().any(|call| call.is("wait4", how));
        let last = calls.last();
        waited && last.is_some_and(|call| call.name == "exit_group" && call.arguments == code)
    })
}

/// Whether the program has read something from its child.
fn read_report(trace: &Trace) -> bool {
    let something = |call: &Call| call.is("read", "<pipe>") && call.worked() && call.result != "0";
    trace.process(0).iter().any(something)
}

/// 2.1: the command is PID 1 of a namespace that its parent isn't in.
pub fn spawn(bench: &Workbench) -> Result<Vec<Claim>> {
    let container = Container::start(&bench.program, &READY)?;
    let first = container.first_process();
    let pids = first.pids()?;
    let parent = container.program().pids()?;
    let own = in_its_own(&container, "pid")?;
    // The parent either waits by now, or is on its way to become the command, too.
    let asleep = || {
        container
            .program()
            .status("State")
            .is_ok_and(|state| state.starts_with('S'))
    };
    before_rest(container.program(), || asleep().then_some(()));
    let parents = container.program().executable()?;
    let printed = container.finish()?.output;
    let itself = bench.program.canonicalize()?;
    let absent = run(&bench.program, &["no-such-program"])?;
    let teller = who_tells(bench)?;
    let container = Container::start(&bench.program, &READY)?;
    let left = container.first_process();
    let is_child = left != container.program();
    container.signal(Signal::SIGKILL)?;
    let orphaned = match is_child {
        true => before_rest(left, || left.is_ending().then_some(())),
        // There is no child that could be left.
        false => Some(()),
    };
    Ok(vec![
        own,
        Claim::new(
            "the command has two pids, and the inner one is 1",
            format!("/proc/PID/status: NSpid: {pids:?}; its parent's: {parent:?}"),
            pids.len() == parent.len() + 1 && pids.ends_with(&[1]),
        ),
        Claim::new(
            "the command runs once: the parent doesn't become it, too",
            match parents == itself {
                true => format!("standard output: {printed:?}"),
                false => format!("/proc/PID/exe of the parent: {}", parents.display()),
            },
            printed == "ready\n" && parents == itself,
        ),
        Claim::equal(
            "what the child met is known to the parent: a command that isn't found",
            "exit code",
            &absent.code,
            &127,
        ),
        Claim::new(
            "the parent says what the child met: the child never comes back into the parent's code",
            format!("SCM_CREDENTIALS of what was written: {teller}"),
            teller == "the parent",
        ),
        Claim::new(
            "the child dies with its parent",
            match orphaned {
                Some(()) => "after SIGKILL to the parent: no such process".into(),
                None => format!(
                    "after SIGKILL to the parent: State: {}",
                    left.status("State")?
                ),
            },
            orphaned.is_some(),
        ),
    ])
}

/// Which process writes that a command isn't found, as the kernel knows it: unix(7).
fn who_tells(bench: &Workbench) -> Result<&'static str> {
    let (ours, theirs) = UnixStream::pair()?;
    setsockopt(&ours, PassCred, &true)?;
    let program = Command::new(&bench.program)
        .arg("no-such-program")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(OwnedFd::from(theirs))
        .spawn()?;
    let pid = program.id() as i32;
    let_end(program)?;
    let (mut byte, mut space) = ([0], cmsg_space!(UnixCredentials));
    let mut parts = [IoSliceMut::new(&mut byte)];
    let (socket, now) = (ours.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
    let senders: Vec<_> = match recvmsg::<()>(socket, &mut parts, Some(&mut space), now) {
        Ok(message) => message.cmsgs()?.collect(),
        Err(_) => Vec::new(),
    };
    Ok(match senders[..] {
        [ControlMessageOwned::ScmCredentials(sender)] if sender.pid() == pid => "the parent",
        [ControlMessageOwned::ScmCredentials(_)] => "a child",
        _ => "nobody",
    })
}

/// 2.2: the exit code of a command that exits, and of one that a signal kills.
pub fn reap(bench: &Workbench) -> Result<Vec<Claim>> {
    let exited = run(&bench.program, &["sh", "-c", "exit 7"])?;
    let container = Container::start(&bench.program, &READY)?;
    kill(container.first_process().0, Signal::SIGKILL)?;
    let killed = container.ended()?;
    let container = container_without_orphans(bench)?;
    container.signal(Signal::SIGTERM)?;
    let asked = container.ended();
    Ok(vec![
        Claim::equal("a command that exits with 7", "exit code", &exited.code, &7),
        Claim::equal(
            "a command that SIGKILL, signal 9, kills",
            "exit code",
            &killed.code,
            &137,
        ),
        Claim::new(
            "while the command lives nobody waits in vain: SIGTERM still arrives",
            match &asked {
                Ok(outcome) => format!("exit code: {}", outcome.code),
                Err(hang) => format!("{hang:#}"),
            },
            asked.as_ref().is_ok_and(|outcome| outcome.code == 143),
        ),
    ])
}

/// A container with an init, and an orphan in it that has ended and that nobody speaks of any more.
fn container_without_orphans(bench: &Workbench) -> Result<Container> {
    let script = "(true &); echo ready; read end";
    let container = Container::start(&bench.program, &["--init", "sh", "-c", script])?;
    let init = container.first_process();
    before_rest(init, || (init.children().len() == 1).then_some(()));
    Ok(container)
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
    let script = "(sleep 1000 & echo $!; sleep 1000 &); echo ready; read end; exit 5";
    let mut container = Container::start(&bench.program, &["--init", "sh", "-c", script])?;
    container.read_until("ready\n")?;
    let inner: i32 = container
        .first_line()
        .parse()
        .context("the pid of the orphan")?;
    let init = container.first_process();
    // A zombie has pids, too, and its parent's; a process that has been reaped has nothing.
    let orphan = before_rest(init, || {
        let adopted = init.children().into_iter();
        adopted
            .into_iter()
            .find(|child| child.pids().is_ok_and(|pids| pids.last() == Some(&inner)))
    });
    let orphan = orphan.context("PID 1 didn't get the orphan")?;
    let other = before_rest(init, || {
        let children = init.children().into_iter();
        let mut sleepers =
            children.filter(|child| child.status("Name").is_ok_and(|n| n == "sleep"));
        sleepers.find(|child| *child != orphan)
    });
    let other = other.context("PID 1 didn't get the second orphan")?;
    // Two that end while PID 1 is stopped are one SIGCHLD: signals of a kind don't queue.
    kill(init.0, Signal::SIGSTOP)?;
    before_rest(init, || {
        init.status("State").ok()?.starts_with('T').then_some(())
    });
    for end in [orphan, other] {
        kill(end.0, Signal::SIGKILL)?;
        before_rest(init, || {
            end.status("State").ok()?.starts_with('Z').then_some(())
        });
    }
    kill(init.0, Signal::SIGCONT)?;
    let is_child = |process: &Process| init.children().contains(process);
    let reaped = before_rest(init, || {
        (!is_child(&orphan) && !is_child(&other)).then_some(())
    });
    let orphan = if is_child(&orphan) { orphan } else { other };
    let left = match reaped {
        Some(()) => "PID 1 has only the command left".into(),
        None => format!(
            "/proc/PID/status of an orphan: State: {}",
            orphan.status("State")?
        ),
    };
    let ended = container.finish()?;
    let container = Container::start(&bench.program, &["--init", "sh", "-c", READY[2]])?;
    container.signal(Signal::SIGTERM)?;
    let asked = container.ended()?;
    Ok(vec![
        Claim::new(
            "two orphans that end at once are both reaped",
            left,
            reaped.is_some(),
        ),
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

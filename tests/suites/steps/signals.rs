//! Signals, descriptors, and whose end is whose.

use crate::stage::{DIRECT, Root, have, progress, step, usual};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid};
use progress::host::container::{Container, eventually, wait_for};
use progress::host::evidence::Process;
use std::fs;
use std::io::{Read, Write};
use std::process::Command;

/// The steps that have a parent which waits: all but the first, whose process is the command.
const WITH_PARENT: [&str; 2] = ["step02-pid", "step03-mount"];

fn start(package: &str, script: &str) -> Container {
    Container::start(step(package), &["sh", "-c", script]).unwrap()
}

/// A command that prints a line, waits, and has no handler for any signal. (A shell that is about to
/// `exec` may still have one.)
const DEAF: [&str; 3] = ["cat", "/proc/version", "-"];

/// A shell that prints what it gets and goes on. It waits: one that reads misses a signal that comes just before.
const TRAPS: &str = "trap 'echo got TERM' TERM; trap 'echo got INT' INT; trap 'echo got USR1' USR1; \
    trap 'echo got HUP' HUP; trap 'echo mark' USR2; echo ready; while :; do sleep 1000 & wait; done";

#[test]
fn a_signal_arrives_once() {
    for package in WITH_PARENT {
        let mut container = start(package, TRAPS);
        for (signal, name) in [
            (Signal::SIGTERM, "TERM"),
            (Signal::SIGUSR1, "USR1"),
            (Signal::SIGHUP, "HUP"),
        ] {
            container.signal(signal).unwrap();
            container.read_until(&format!("got {name}\n")).unwrap();
        }
        // Whatever else had been sent twice would have been printed before this line.
        container.signal(Signal::SIGUSR2).unwrap();
        container.read_until("mark\n").unwrap();
        kill(container.first_process().0, Signal::SIGKILL).unwrap();
        let outcome = container.ended().unwrap();
        assert_eq!(
            outcome.output, "ready\ngot TERM\ngot USR1\ngot HUP\nmark\n",
            "{package}"
        );
        assert_eq!(outcome.code, 137);
    }
}

#[test]
fn the_third_request_kills_a_deaf_container() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let container = Container::start(step("step02-pid"), &DEAF).unwrap();
        let pending = |container: &Container| {
            // The parent has taken the signal when nothing is pending any more.
            eventually(|| {
                (container.program().status("ShdPnd").unwrap() == "0".repeat(16)).then_some(())
            })
        };
        for _ in 0..2 {
            container.signal(signal).unwrap();
            pending(&container).unwrap();
        }
        assert!(
            !container
                .first_process()
                .status("State")
                .unwrap()
                .starts_with('Z')
        );
        container.signal(signal).unwrap();
        assert_eq!(container.ended().unwrap().code, 137, "{signal}");
    }
}

#[test]
fn an_init_makes_the_default_action_happen() {
    let arguments = [&["--init"], &DEAF[..]].concat();
    let container = Container::start(step("step02-pid"), &arguments).unwrap();
    container.signal(Signal::SIGTERM).unwrap();
    assert_eq!(container.ended().unwrap().code, 143);
}

/// A pty with the program in the foreground, as at a terminal.
///
/// The words of `command` may begin with flags of the step.
fn at_terminal(command: &[&str]) -> (pty_process::blocking::Pty, std::process::Child) {
    let (pty, terminal) = pty_process::blocking::open().unwrap();
    let command = pty_process::blocking::Command::new(step("step02-pid")).args(command);
    let program = command.spawn(terminal).unwrap();
    (pty, program)
}

/// Reads from the pty until `text` has come `times` times.
fn read_until(pty: &mut pty_process::blocking::Pty, seen: &mut String, text: &str, times: usize) {
    let mut buffer = [0; 1024];
    while seen.matches(text).count() < times {
        // Whoever else may write it: this process's children, one of which is the program.
        wait_for(pty, Process(getpid())).unwrap();
        let read = pty.read(&mut buffer).unwrap();
        seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
}

const CTRL_C: &[u8] = b"\x03";

/// At a prompt Ctrl-C is pressed all day: it arrives once each time, and kills nobody who handles it.
#[test]
fn ctrl_c_arrives_once_and_never_kills_who_handles_it() {
    for init in [&[][..], &["--init"]] {
        let command = [progress().to_str().unwrap(), "count-interrupts"];
        press_ctrl_c_all_day(at_terminal(&[init, &command].concat()));
    }
}

fn press_ctrl_c_all_day((mut pty, mut program): (pty_process::blocking::Pty, std::process::Child)) {
    let mut seen = String::new();
    read_until(&mut pty, &mut seen, "ready\r\n", 1);
    for times in 1..=20 {
        pty.write_all(CTRL_C).unwrap();
        read_until(&mut pty, &mut seen, "interrupt\r\n", times);
        // The parent has dealt with it as well.
        let parent = Process(Pid::from_raw(program.id() as i32));
        eventually(|| (parent.status("ShdPnd").unwrap() == "0".repeat(16)).then_some(())).unwrap();
    }
    pty.write_all(b"mark\n").unwrap();
    read_until(&mut pty, &mut seen, "read mark\r\n", 1);
    assert_eq!(seen.matches("interrupt").count(), 20, "{seen}");
    program.kill().unwrap();
    program.wait().unwrap();
}

#[test]
fn the_third_ctrl_c_kills_a_deaf_container() {
    // `cat` echoes what it reads, so the terminal shows when a signal has been dealt with.
    let (mut pty, mut program) = at_terminal(&DEAF);
    let mut seen = String::new();
    read_until(&mut pty, &mut seen, "\r\n", 1);
    for mark in ["one", "two"] {
        pty.write_all(CTRL_C).unwrap();
        pty.write_all(format!("{mark}\n").as_bytes()).unwrap();
        // Once echoed by the terminal, once printed by cat: it is alive.
        read_until(&mut pty, &mut seen, &format!("{mark}\r\n"), 2);
        let parent = Process(Pid::from_raw(program.id() as i32));
        eventually(|| (parent.status("ShdPnd").unwrap() == "0".repeat(16)).then_some(())).unwrap();
    }
    pty.write_all(CTRL_C).unwrap();
    let status = eventually(|| program.try_wait().unwrap());
    program.kill().unwrap();
    assert_eq!(
        progress::host::exit_code(status.expect("it is still there")),
        137
    );
}

/// A JVM prints its threads on SIGQUIT, as often as it is asked to.
#[test]
fn a_request_that_is_handled_never_kills() {
    let handles = "trap 'echo got QUIT' QUIT; echo ready; while :; do sleep 1000 & wait; done";
    let mut container = start("step02-pid", handles);
    for times in 1..=5 {
        container.signal(Signal::SIGQUIT).unwrap();
        container.read_until(&"got QUIT\n".repeat(times)).unwrap();
    }
    kill(container.first_process().0, Signal::SIGKILL).unwrap();
    assert_eq!(container.ended().unwrap().code, 137);
}

/// The terminal's window is closed: nobody is left who could ask a deaf container to end.
#[test]
fn a_hang_up_ends_a_deaf_container() {
    let (mut pty, mut program) = at_terminal(&DEAF);
    read_until(&mut pty, &mut String::new(), "\r\n", 1);
    let child = Process(Pid::from_raw(program.id() as i32)).children()[0];
    drop(pty);
    let status = eventually(|| program.try_wait().unwrap());
    if status.is_none() {
        kill(child.0, Signal::SIGKILL).unwrap();
    }
    assert!(status.is_some(), "the container is still there");
}

#[test]
fn a_signal_that_the_caller_ignores_is_not_for_the_container() {
    let shell = "trap '' HUP; exec \"$0\" sh -c \"$1\"";
    let program = step("step02-pid");
    let mut command = Command::new("sh");
    command.args(["-c", shell]).arg(program).arg(TRAPS);
    let mut container = Container::start_with(&mut command).unwrap();
    container.signal(Signal::SIGHUP).unwrap();
    container.signal(Signal::SIGUSR1).unwrap();
    container.read_until("got USR1\n").unwrap();
    kill(container.first_process().0, Signal::SIGKILL).unwrap();
    let outcome = container.ended().unwrap();
    assert!(!outcome.output.contains("HUP"), "{}", outcome.output);
}

/// A command starts with nothing blocked, nothing ignored, and descriptors 0 to 2.
#[test]
fn nothing_is_inherited_by_accident() {
    for package in DIRECT {
        let root = Root::shared();
        let mut command = Command::new("sh");
        // The caller ignores three signals, one of them a real-time signal, and leaves a door open.
        let shell =
            "trap '' HUP PIPE 40; exec 9</; exec \"$0\" \"$@\" sh -c 'echo ready; read end'";
        command.args(["-c", shell]).arg(step(package));
        command.args(usual(package, &root.path()));
        let container = Container::start_with(&mut command).unwrap();
        let first = container.first_process();
        for mask in ["SigBlk", "SigIgn"] {
            assert_eq!(
                first.status(mask).unwrap(),
                "0".repeat(16),
                "{package}: {mask}"
            );
        }
        let mut descriptors: Vec<_> = fs::read_dir(first.file("fd"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        descriptors.sort();
        assert_eq!(descriptors, ["0", "1", "2"], "{package}");
    }
}

#[test]
fn a_container_dies_with_its_parent() {
    for package in WITH_PARENT {
        for init in [&[][..], &["--init"]] {
            let arguments = [init, &DEAF].concat();
            let container = Container::start(step(package), &arguments).unwrap();
            let first = container.first_process();
            let namespace = first.namespace("pid").unwrap();
            container.signal(Signal::SIGKILL).unwrap();
            // The pid may belong to another process by now: the namespace tells.
            let gone = eventually(|| match first.namespace("pid") {
                Ok(own) if own == namespace => None,
                _ => Some(()),
            });
            assert!(gone.is_some(), "{package} {init:?}: PID 1 is still there");
        }
    }
}

/// A parent that dies before its child has asked to die with it: strace holds the child up on its way
/// to ask.
#[test]
fn a_container_whose_caller_dies_at_once_does_not_stay() {
    if !have("strace", "strace") {
        return;
    }
    let mut tracer = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=prctl"])
        .args(["-e", "inject=prctl:delay_enter=500000:when=1"])
        .arg(step("step02-pid"))
        .args(["sleep", "1000"])
        .spawn()
        .unwrap();
    let strace = Process(Pid::from_raw(tracer.id() as i32));
    let (parent, child) = eventually(|| {
        let parent = *strace.children().first()?;
        Some((parent, *parent.children().first()?))
    })
    .unwrap();
    let namespace = child.namespace("pid").unwrap();
    kill(parent.0, Signal::SIGKILL).unwrap();
    let gone = eventually(|| match child.namespace("pid") {
        Ok(own) if own == namespace => None,
        _ => Some(()),
    });
    if gone.is_none() {
        kill(child.0, Signal::SIGKILL).unwrap();
    }
    tracer.wait().unwrap();
    assert!(gone.is_some(), "the container has outlived its caller");
}

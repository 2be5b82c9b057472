//! Step 9: who is attached to a container, what goes to and fro, and what becomes of it when somebody goes.

use crate::stage::dock::{Dock, monitors};
use assert_cmd::assert::OutputAssertExt;
use nix::sys::signal::{Signal, kill};
use progress::checks::step05::AtTerminal;
use progress::host::container::eventually;
use progress::host::evidence::Process;
use pty_process::blocking::Command as PtyCommand;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

#[test]
fn the_two_streams_stay_apart() {
    let dock = Dock::new();
    let ran = dock.run_in(&["--name", "box"], &["sh", "-c", "echo out; echo err >&2"]);
    ran.stdout("out\n").stderr("err\n");
    let logs = dock.run(&["logs", "box"]);
    logs.stdout("out\n").stderr("err\n");
    let log = fs::read_to_string(dock.container(&dock.id("box")).join("container.log"));
    let log = log.unwrap();
    let fields: Vec<Vec<&str>> = log
        .lines()
        .map(|line| line.splitn(4, ' ').collect())
        .collect();
    let of_stream =
        |stream: &str| fields.iter().find(|line| line[1] == stream).unwrap()[2..].join(" ");
    assert_eq!(
        (of_stream("stdout").as_str(), of_stream("stderr").as_str()),
        ("F out", "F err")
    );
    assert!(
        fields[0][0].ends_with('Z') && fields[0][0].len() == 30,
        "{log}"
    );
}

/// Byte for byte, in both directions, through a reader that is slow.
#[test]
fn nothing_is_lost_on_the_way() {
    let dock = Dock::new();
    let bytes: Vec<u8> = (0..600_000_u32)
        .map(|number| (number % 251) as u8)
        .collect();
    let file = dock.folder.path().join("bytes");
    fs::write(&file, &bytes).unwrap();
    let words = dock.words(&["run", "--rm", "-i"], &[], &["cat"]);
    let mut command = dock.command(&[]);
    command
        .args(&words)
        .stdin(File::open(&file).unwrap())
        .stdout(Stdio::piped());
    let mut program = command.spawn().unwrap();
    let mut output = program.stdout.take().unwrap();
    let mut back = Vec::new();
    let mut piece = [0; 1000];
    while let Ok(length @ 1..) = output.read(&mut piece) {
        back.extend_from_slice(&piece[..length]);
    }
    assert!(program.wait().unwrap().success());
    assert!(
        back == bytes,
        "{} of {} bytes came back",
        back.len(),
        bytes.len()
    );
    dock.is_empty();
}

#[test]
fn a_reader_that_goes_ends_the_command() {
    let dock = Dock::new();
    let words = dock.words(
        &["run", "--rm"],
        &[],
        &["sh", "-c", "while echo y; do :; done"],
    );
    let mut command = dock.command(&[]);
    let mut program = command
        .args(&words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut some = [0; 10];
    program
        .stdout
        .take()
        .unwrap()
        .read_exact(&mut some)
        .unwrap();
    assert!(
        eventually(|| program.try_wait().unwrap()).is_some(),
        "it goes on for ever"
    );
    eventually(|| monitors(&dock.state).is_empty().then_some(()));
    dock.is_empty();
}

/// The caller of a foreground `run` is killed: the container goes on, and its log with it.
#[test]
fn a_caller_may_be_killed() {
    let dock = Dock::new();
    let script = "echo ready; while :; do sleep 0.1; echo tick; done";
    let words = dock.words(&["run", "--name", "box"], &[], &["sh", "-c", script]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let container = dock.foreground(&words);
    kill(container.program().0, Signal::SIGKILL).unwrap();
    drop(container);
    let before = dock.logs("box").lines().count();
    eventually(|| (dock.logs("box").lines().count() > before + 2).then_some(())).unwrap();
    assert_eq!(dock.status("box").0, "running");
}

/// Signals that are sent to `run` are the command's.
#[test]
fn signals_reach_the_command() {
    let dock = Dock::new();
    let script = "trap 'echo asked; exit 6' TERM; echo ready; while :; do sleep 0.1; done";
    let words = dock.words(&["run", "--rm"], &[], &["sh", "-c", script]);
    let container = dock.foreground(&words.iter().map(String::as_str).collect::<Vec<_>>());
    container.signal(Signal::SIGTERM).unwrap();
    let outcome = container.ended().unwrap();
    assert_eq!(
        (outcome.code, outcome.output.as_str()),
        (6, "ready\nasked\n")
    );
    // Who is deaf is killed when asked for the third time.
    let words = dock.words(
        &["run", "--rm"],
        &[],
        &["sh", "-c", "echo ready; exec sleep 1000"],
    );
    let container = dock.foreground(&words.iter().map(String::as_str).collect::<Vec<_>>());
    // A shell would hear.
    let is_sleep = |process: &Process| process.status("Name").is_ok_and(|name| name == "sleep");
    let sleeps = || {
        container
            .program()
            .tree()
            .iter()
            .any(is_sleep)
            .then_some(())
    };
    eventually(sleeps).unwrap();
    for _ in 0..3 {
        container.signal(Signal::SIGINT).unwrap();
        let program = container.program();
        // Two of a kind are one, as long as nobody has read the first.
        eventually(|| {
            let pending = program.status("ShdPnd").ok()?;
            (u64::from_str_radix(&pending, 16).ok()? & 2 == 0).then_some(())
        });
    }
    assert_eq!(container.ended().unwrap().code, 137);
    dock.is_empty();
}

/// A terminal: Ctrl-C is the container's, ctrl-p ctrl-q leaves it running, and one can come back.
/// Who only watches goes by Ctrl-C, and the container stays.
#[test]
fn signals_may_be_for_the_caller() {
    let dock = Dock::new();
    let script = "trap 'echo asked; exit 6' INT TERM; echo ready; while :; do sleep 0.1; done";
    let id = dock.start(&["--name", "box"], &["sh", "-c", script]);
    dock.until_it_says("box", "ready");
    for flag in ["--no-stdin", "--sig-proxy=false"] {
        let mut watcher = dock.command(&["attach", flag, "box"]);
        let mut watcher = watcher.stdin(Stdio::null()).spawn().unwrap();
        let program = Process(nix::unistd::Pid::from_raw(watcher.id() as i32));
        // It waits, and holds signals back.
        let waits = || {
            let held = u64::from_str_radix(&program.status("SigBlk").ok()?, 16).ok()?;
            let sleeps = program.status("State").ok()?.starts_with('S');
            (held & 2 != 0 && sleeps).then_some(())
        };
        eventually(waits).unwrap();
        kill(program.0, Signal::SIGINT).unwrap();
        assert_eq!(watcher.wait().unwrap().code(), Some(130));
    }
    assert_eq!(dock.status("box").0, "running");
    assert!(!dock.ok(&["logs", "box"]).contains("asked"));
    assert!(dock.process(&id, "process").file("stat").exists());
}

#[test]
fn attach_and_detach() {
    let dock = Dock::new();
    let words = dock.words(&["run", "-it", "--name", "box"], &[], &["sh"]);
    let mut terminal = AtTerminal::start(at_terminal(&dock, &words), "# ").unwrap();
    terminal.write("stty size; tty\n").unwrap();
    terminal.read_until("/dev/pts/0").unwrap();
    terminal.write("\x10\x11").unwrap();
    terminal.read_until("read escape sequence").unwrap();
    let ended = eventually(|| terminal.program.try_wait().unwrap()).unwrap();
    assert!(ended.success());
    assert_eq!(dock.status("box").0, "running");
    let words = ["attach".to_owned(), "box".to_owned()];
    let mut terminal = AtTerminal::start(at_terminal(&dock, &words), "").unwrap();
    terminal.write("echo back again $((1 + 1))\n").unwrap();
    terminal.read_until("back again 2").unwrap();
    terminal.write("exit 8\n").unwrap();
    terminal.read_until("exit").unwrap();
    let ended = eventually(|| terminal.program.try_wait().unwrap()).unwrap();
    assert_eq!(ended.code(), Some(8));
    assert!(dock.logs("box").contains("back again 2"));
}

fn at_terminal(dock: &Dock, words: &[String]) -> PtyCommand {
    PtyCommand::new(crate::stage::step(crate::stage::dock::STEP))
        .args(words)
        .env("TEN_STEPS_STATE", &dock.state)
}

/// `run -d --verbose | cat` comes to an end, and so does one whose caller had a lock open.
#[test]
fn nobody_waits_for_a_detached_container() {
    let dock = Dock::new();
    for flags in [&["-d"][..], &["-d", "--verbose"]] {
        let words = dock.words(&["run"], flags, &["sleep", "1000"]);
        let mut command = dock.command(&[]);
        command
            .args(&words)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let output = eventually_output(command);
        assert!(output.contains("clone3") == (flags.len() == 2), "{output}");
    }
}

/// All that a program prints, on both streams, until nobody has them open any more.
fn eventually_output(mut command: Command) -> String {
    let mut program = command.spawn().unwrap();
    let (send, receive) = std::sync::mpsc::channel();
    let (mut output, mut errors) = (
        program.stdout.take().unwrap(),
        program.stderr.take().unwrap(),
    );
    std::thread::spawn(move || {
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        errors.read_to_string(&mut text).unwrap();
        let _ = send.send(text);
    });
    let text = eventually(|| receive.try_recv().ok()).expect("somebody still has its output open");
    program.wait().unwrap();
    text
}

/// Whoever still has something to say when it ends hears how it ended.
#[test]
fn no_exit_code_is_lost() {
    let dock = Dock::new();
    for _ in 0..20 {
        let words = dock.words(&["run", "--rm", "-i"], &[], &["sh", "-c", "read x; exit 3"]);
        let mut command = dock.command(&[]);
        let mut yes = Command::new("sh");
        yes.args(["-c", "while echo y; do :; done"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut yes = yes.spawn().unwrap();
        command.args(&words).stdin(yes.stdout.take().unwrap());
        command.assert().code(3);
        // With it goes our end of the pipe.
        drop(command);
        yes.wait().unwrap();
    }
}

/// A reader that is suspended holds up nobody else, and costs nothing.
#[test]
fn a_suspended_reader_holds_up_nobody() {
    let dock = Dock::new();
    let words = dock.words(
        &["run", "--name", "box"],
        &[],
        &[
            "sh",
            "-c",
            "while :; do echo 0123456789012345678901234567890123456789; done",
        ],
    );
    let mut command = dock.command(&[]);
    let mut program = command
        .args(&words)
        .stdout(Stdio::piped())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    // Nobody reads: all pipes on the way are full.
    let pid = nix::unistd::Pid::from_raw(program.id() as i32);
    eventually(|| (dock.status("box").0 == "running").then_some(())).unwrap();
    let monitor = dock.process(&dock.id("box"), "monitor");
    let settled = || {
        let log = || {
            fs::metadata(dock.container(&dock.id("box")).join("container.log")).map(|of| of.len())
        };
        let before = log().ok()?;
        let is_same = |_| {
            dock.ok(&["ps"]);
            log().is_ok_and(|now| now == before)
        };
        (before > 1000 && (0..5).all(is_same)).then_some(())
    };
    eventually(settled).unwrap();
    kill(pid, Signal::SIGSTOP).unwrap();
    dock.ok(&["stop", "-t", "0", "box"]);
    assert_eq!(dock.ok(&["wait", "box"]), "137\n");
    let switches = || {
        monitor
            .status("voluntary_ctxt_switches")
            .unwrap_or_default()
    };
    eventually(|| monitor.status("State").ok()?.starts_with('S').then_some(())).unwrap();
    let before = switches();
    dock.ok(&["start", "box"]);
    dock.ok(&["rm", "-f", "box"]);
    assert_eq!(switches(), before, "it wakes up for nothing");
    kill(pid, Signal::SIGCONT).unwrap();
    let mut output = program.stdout.take().unwrap();
    std::io::copy(&mut output, &mut std::io::sink()).unwrap();
    assert_eq!(program.wait().unwrap().code(), Some(137));
    eventually(|| monitors(&dock.state).is_empty().then_some(())).unwrap();
}

/// What isn't typed any more isn't in a later life, either.
#[test]
fn input_over_several_lives() {
    let dock = Dock::new();
    let words = dock.words(
        &["run", "-i", "--name", "box", "--restart", "on-failure:1"],
        &[],
        &["sh", "-c", "cat; exit 1"],
    );
    let mut command = dock.command(&[]);
    command
        .args(&words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut program = command.spawn().unwrap();
    program.stdin.take().unwrap().write_all(b"hi\n").unwrap();
    let ended = eventually(|| program.try_wait().unwrap()).expect("its second life reads for ever");
    assert_eq!(ended.code(), Some(1));
    // Somebody who attaches to one that was started without a terminal doesn't end its input.
    dock.start(
        &["--name", "other", "-i"],
        &["sh", "-c", "while read x; do echo got $x; done; echo eof"],
    );
    for word in ["one", "two"] {
        let mut attached = dock.command(&["attach", "other"]);
        let mut attached = attached
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = attached.stdin.take().unwrap();
        input.write_all(format!("{word}\n").as_bytes()).unwrap();
        dock.until_it_says("other", &format!("got {word}"));
        drop(input);
        kill(
            nix::unistd::Pid::from_raw(attached.id() as i32),
            Signal::SIGKILL,
        )
        .unwrap();
        attached.wait().unwrap();
    }
    assert!(!dock.logs("other").contains("eof"));
}

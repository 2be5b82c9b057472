//! Step 9: containers that outlive their caller.

use crate::dock::{Dock, groups_of, monitors};
use crate::stage::{nested, redact};
use nix::sys::signal::{Signal, kill};
use progress::checks::step05::AtTerminal;
use progress::container::{Container, eventually};
use progress::evidence::Process;
use progress::programs::workspace;
use pty_process::blocking::Command as PtyCommand;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

#[test]
fn exit_codes_and_words_are_dockers() {
    let dock = Dock::new();
    for (command, code) in [
        (&["true"][..], 0),
        (&["sh", "-c", "exit 7"], 7),
        (&["sh", "-c", "kill -9 $$"], 0),
        (&["no-such-program"], 127),
        (&["/etc"], 126),
    ] {
        let outcome = dock.run_in(&["--rm"], command);
        // PID 1 is deaf to itself.
        assert_eq!(outcome.code, code, "{command:?}: {}", outcome.errors);
        dock.is_empty();
    }
    let outcome = dock.run_in(&["--rm", "--init"], &["sh", "-c", "kill -9 $$"]);
    assert_eq!(outcome.code, 137);
    // What never ran leaves nothing, with --rm or without.
    for flags in [&["-v", "/no-such-place:/x"][..], &["-w", "/no/such/place"]] {
        let outcome = dock.run_in(flags, &["true"]);
        assert_eq!(outcome.code, 125, "{}", outcome.errors);
        dock.is_empty();
    }
    let outcome = dock.run_in(&["-d"], &["no-such-program"]);
    assert_eq!((outcome.code, outcome.output.as_str()), (127, ""));
    dock.is_empty();
}

#[test]
fn the_two_streams_stay_apart() {
    let dock = Dock::new();
    let outcome = dock.run_in(&["--name", "box"], &["sh", "-c", "echo out; echo err >&2"]);
    assert_eq!(
        (outcome.output.as_str(), outcome.errors.as_str()),
        ("out\n", "err\n")
    );
    let outcome = dock.run(&["logs", "box"]);
    assert_eq!(
        (outcome.output.as_str(), outcome.errors.as_str()),
        ("out\n", "err\n")
    );
    let log = fs::read_to_string(dock.container(&full_id(&dock, "box")).join("container.log"));
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

fn full_id(dock: &Dock, name: &str) -> String {
    let id = dock.ok(&["inspect", "-f", "{{.Id}}", name]);
    id.trim().to_owned()
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

#[test]
fn names_are_given_once() {
    let dock = Dock::new();
    let id = dock.start(&["--name", "web"], &["sleep", "1000"]);
    assert_eq!(id.len(), 64);
    let twice = dock.run_in(&["-d", "--name", "web"], &["true"]);
    assert_eq!(twice.code, 125);
    assert!(
        twice
            .errors
            .contains("the name web is already in use by container"),
        "{}",
        twice.errors
    );
    assert!(twice.errors.contains("\nhelp: "), "{}", twice.errors);
    for name in ["web", &id, &id[..12], &id[..3]] {
        assert_eq!(
            dock.ok(&["inspect", "-f", "{{.Id}}", name]).trim(),
            id,
            "{name}"
        );
    }
    assert!(
        dock.fails(&["inspect", "nobody"])
            .contains("no such container: nobody")
    );
    assert!(dock.fails(&["inspect", ""]).contains("no such container"));
    assert!(
        dock.fails(&["logs", "../containers"])
            .contains("no such container")
    );
    let created = dock.words(&["create"], &[], &["true"]);
    let created: Vec<&str> = created.iter().map(String::as_str).collect();
    let other = dock.ok(&created);
    dock.ok(&["rename", "web", "site"]);
    dock.fails(&["inspect", "web"]);
    let name = dock.ok(&["inspect", "-f", "{{.Name}}", other.trim()]);
    assert!(
        dock.fails(&["rename", "site", name.trim()])
            .contains("already in use")
    );
    dock.ok(&["rename", other.trim(), "web"]);
    // Its hostname is its ID.
    let name = dock.ok(&["exec", "site", "cat", "/proc/sys/kernel/hostname"]);
    assert_eq!(name.trim(), &id[..12]);
}

#[test]
fn the_list_is_dockers() {
    let dock = Dock::new();
    let up = dock.start(&["--name", "up"], &["sleep", "1000"]);
    dock.run_in(&["--name", "down"], &["sh", "-c", "exit 3"]);
    let words = dock.words(
        &["create", "--name", "new"],
        &[],
        &["echo", "a b", "and more words than fit"],
    );
    dock.ok(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let table = dock.ok(&["ps", "-a"]);
    let line = |name: &str| {
        table
            .lines()
            .find(|line| line.ends_with(name))
            .unwrap()
            .to_owned()
    };
    assert_eq!(
        table
            .lines()
            .next()
            .unwrap()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" "),
        "CONTAINER ID IMAGE COMMAND CREATED STATUS NAMES"
    );
    assert!(
        line("up").contains("   Up ") && line("up").starts_with(&up[..12]),
        "{table}"
    );
    assert!(line("down").contains("   Exited (3) "), "{table}");
    assert!(line("new").contains("   Created "), "{table}");
    assert!(line("new").contains("\"echo a b and more w…\""), "{table}");
    assert_eq!(dock.ok(&["ps", "-q"]).trim(), &up[..12]);
    let names = |filter: &[&str]| {
        let words = [&["ps", "-a", "--format", "json"], filter].concat();
        let mut names: Vec<String> = dock
            .ok(&words)
            .lines()
            .map(|line| {
                serde_json::from_str::<serde_json::Value>(line).unwrap()["Names"].to_string()
            })
            .collect();
        names.sort();
        names.join(" ").replace('"', "")
    };
    assert_eq!(names(&["-f", "status=running"]), "up");
    assert_eq!(
        names(&["-f", "status=exited", "-f", "status=created"]),
        "down new"
    );
    assert_eq!(names(&["-f", "exited=3"]), "down");
    assert_eq!(names(&["-f", "name=w"]), "down new");
    assert_eq!(names(&["-f", &format!("id={}", &up[..5])]), "up");
    assert!(
        dock.fails(&["ps", "-f", "colour=blue"])
            .contains("there is no filter colour")
    );
    assert!(dock.ok(&["ps", "-a", "--no-trunc"]).contains(&up));
}

#[test]
fn the_life_of_a_container() {
    let dock = Dock::new();
    let script =
        "trap 'echo asked; exit 5' TERM; echo up; touch /mine; while :; do sleep 0.1; done";
    let id = dock.start(&["--name", "box"], &["sh", "-c", script]);
    dock.until_it_says("box", "up");
    assert_eq!(dock.ok(&["stop", "box"]), "box\n");
    assert!(dock.logs("box").contains("asked"));
    assert_eq!(dock.status("box").0, "exited");
    assert_eq!(dock.record(&id)["state"]["exit_code"], 5);
    assert_eq!(dock.ok(&["wait", "box"]), "5\n");
    assert!(groups_of(&id).is_empty() && monitors(&dock.state).is_empty());
    // Stopped twice is stopped; the upper layer is still there.
    dock.ok(&["stop", "box"]);
    dock.ok(&["start", "box"]);
    dock.ok(&["start", "box"]);
    assert_eq!(dock.ok(&["exec", "box", "ls", "/mine"]), "/mine\n");
    let first = dock.process(&id, "process");
    dock.ok(&["restart", "-t", "5", "box"]);
    assert_ne!(dock.process(&id, "process"), first);
    assert!(dock.fails(&["rm", "box"]).contains("is running"));
    dock.ok(&["pause", "box"]);
    assert_eq!(dock.status("box").0, "paused");
    assert!(dock.status("box").1.ends_with("(Paused)"));
    assert!(dock.fails(&["pause", "box"]).contains("paused already"));
    assert!(dock.fails(&["exec", "box", "true"]).contains("is paused"));
    let groups = groups_of(&id);
    let frozen = groups.iter().any(|group| {
        let read = |file| fs::read_to_string(group.join(file)).unwrap_or_default();
        read("freezer.state").trim() == "FROZEN" || read("cgroup.events").contains("frozen 1")
    });
    assert!(frozen, "{groups:?}");
    dock.ok(&["unpause", "box"]);
    assert!(dock.fails(&["unpause", "box"]).contains("isn't paused"));
    // One that is paused can be stopped, too.
    dock.ok(&["pause", "box"]);
    dock.ok(&["stop", "-t", "5", "box"]);
    assert_eq!(dock.record(&id)["state"]["exit_code"], 5);
    assert!(dock.fails(&["kill", "box"]).contains("isn't running"));
    assert!(dock.fails(&["attach", "box"]).contains("isn't running"));
    dock.ok(&["start", "box"]);
    dock.ok(&["kill", "box"]);
    assert_eq!(dock.record(&id)["state"]["exit_code"], 137);
    assert_eq!(dock.ok(&["rm", "box"]), "box\n");
    dock.is_empty();
}

#[test]
fn signals_by_name_and_by_flag() {
    let dock = Dock::new();
    let script = "trap 'echo usr; exit 9' USR1; echo up; while :; do sleep 0.1; done";
    let id = dock.start(
        &["--name", "box", "--stop-signal", "SIGUSR1"],
        &["sh", "-c", script],
    );
    dock.until_it_says("box", "up");
    dock.ok(&["stop", "box"]);
    assert_eq!(dock.record(&id)["state"]["exit_code"], 9);
    dock.ok(&["start", "box"]);
    eventually(|| (dock.logs("box").matches("up").count() == 2).then_some(())).unwrap();
    dock.ok(&["kill", "-s", "usr1", "box"]);
    assert_eq!(dock.ok(&["wait", "box"]), "9\n");
    assert!(
        dock.fails(&["kill", "-s", "NOTHING", "box"])
            .contains("there is no signal NOTHING")
    );
}

#[test]
fn start_can_attach() {
    let dock = Dock::new();
    let words = dock.words(
        &["create", "--name", "box", "-i"],
        &[],
        &["sh", "-c", "cat; exit 4"],
    );
    dock.ok(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let mut command = dock.command(&["start", "-ai", "box"]);
    let mut program = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    program.stdin.take().unwrap().write_all(b"typed\n").unwrap();
    let output = program.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), &output.stdout[..]),
        (Some(4), &b"typed\n"[..])
    );
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
    PtyCommand::new(crate::stage::step(crate::dock::STEP))
        .args(words)
        .env("TEN_STEPS_STATE", &dock.state)
}

/// The log is followed through several files, nothing is missing, and following ends with the container.
#[test]
fn logs_are_followed_through_rotation() {
    let dock = Dock::new();
    let gate = dock.folder.path().join("gate");
    fs::create_dir(&gate).unwrap();
    let volume = format!("{}:/gate", gate.display());
    let script = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); \
        [ $((i % 100)) != 0 ] || while [ ! -e /gate/$i ]; do sleep 0.02; done; done";
    let flags = ["--name", "box", "--log-max-size", "16k", "-v", &volume];
    dock.start(&flags, &["sh", "-c", script]);
    let mut command = dock.command(&["logs", "-f", "box"]);
    let mut follower = command.stdout(Stdio::piped()).spawn().unwrap();
    let output = follower.stdout.take().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(output));
    for number in 0..2000 {
        let line = lines.next().unwrap().unwrap();
        assert_eq!(line, format!("line {number}"));
        if (number + 1) % 100 == 0 {
            // Only when all has been read so far: one old log is kept, not all.
            File::create(gate.join((number + 1).to_string())).unwrap();
        }
    }
    assert!(lines.next().is_none());
    assert!(
        eventually(|| follower.try_wait().unwrap())
            .unwrap()
            .success()
    );
    let id = full_id(&dock, "box");
    for log in ["container.log", "container.log.1"] {
        let size = fs::metadata(dock.container(&id).join(log)).unwrap().len();
        assert!(size <= 16 * 1024, "{log}: {size}");
    }
    assert_eq!(
        dock.ok(&["logs", "--tail", "3", "box"]),
        "line 1997\nline 1998\nline 1999\n"
    );
    assert_eq!(dock.ok(&["logs", "-n", "0", "box"]), "");
    let stamped = dock.ok(&["logs", "-t", "--tail", "1", "box"]);
    let (time, text) = stamped.trim().split_once(' ').unwrap();
    assert_eq!(text, "line 1999");
    let since = dock.ok(&["logs", "--since", time, "box"]);
    assert!(
        since.ends_with(
            "line 1999
"
        ) && !since.contains(
            "line 1800
"
        ),
        "{since}"
    );
    assert_eq!(dock.ok(&["logs", "--until", "1h", "box"]), "");
    assert_eq!(
        dock.ok(&["logs", "--tail", "1", "--since", "1h", "box"]),
        "line 1999\n"
    );
    assert!(
        dock.fails(&["logs", "--since", "soon", "box"])
            .contains("it has to be a time")
    );
}

/// Who follows a log, and the monitor, don't wake up when nothing happens.
#[test]
fn nothing_wakes_up_for_nothing() {
    let dock = Dock::new();
    let id = dock.start(
        &["--name", "box"],
        &["sh", "-c", "echo ready; exec sleep 1000"],
    );
    let mut command = dock.command(&["logs", "-f", "box"]);
    let mut follower = Container::start_with(&mut command).unwrap();
    let monitor = dock.process(&id, "monitor");
    let asleep = |process: &progress::evidence::Process| {
        process
            .status("State")
            .is_ok_and(|state| state.starts_with('S'))
            .then_some(())
    };
    eventually(|| asleep(&monitor).and(asleep(&follower.program()))).unwrap();
    let switches = |process: &progress::evidence::Process| {
        let number = process.status("voluntary_ctxt_switches").unwrap();
        number.parse::<u64>().unwrap()
    };
    let works_of_others = || {
        for _ in 0..80 {
            dock.ok(&["ps"]);
        }
    };
    // The monitor tidies up once, when it is idle for the first time.
    let quiet = || {
        let before = switches(&monitor);
        works_of_others();
        (switches(&monitor) == before).then_some(())
    };
    eventually(quiet).expect("it is never at rest");
    let before = (switches(&monitor), switches(&follower.program()));
    works_of_others();
    assert_eq!((switches(&monitor), switches(&follower.program())), before);
    let threads = monitor.status("Threads").unwrap();
    assert_eq!(threads, "1");
    dock.ok(&["kill", "box"]);
    follower.read_until("ready").unwrap();
    assert_eq!(follower.ended().unwrap().code, 0);
}

/// The monitor has what the issue of its size allows, in the build that people use.
#[test]
fn the_monitor_is_small() {
    if nested() {
        return;
    }
    let build = Command::new(env!("CARGO"))
        .args(["build", "--release", "--quiet", "-p", crate::dock::STEP])
        .current_dir(workspace())
        .status()
        .unwrap();
    assert!(build.success());
    // The pages of a file that was just written are dirty, too.
    nix::unistd::sync();
    let program = crate::stage::progress()
        .ancestors()
        .nth(2)
        .unwrap()
        .join("release")
        .join(crate::dock::STEP);
    let dock = Dock::new();
    let words = dock.words(
        &["run", "-d"],
        &["-v", "/etc:/mnt:ro"],
        &[
            "sh",
            "-c",
            "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo line $i; done; exec sleep 1000",
        ],
    );
    let run = |words: &[&str]| {
        let mut command = Command::new(&program);
        command.args(words).env("TEN_STEPS_STATE", &dock.state);
        let output = command.output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    let id = run(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let monitor = dock.process(id.trim(), "monitor");
    let size = |key: &str| -> u64 {
        let text = fs::read_to_string(monitor.file("smaps_rollup")).unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    // When it has tidied up, which it does when it is idle for the first time.
    eventually(|| (size("Rss:") <= 2560).then_some(()));
    let (private, resident) = (size("Private_Dirty:"), size("Rss:"));
    println!("{private} kB are private and dirty, {resident} kB are resident");
    assert!(
        private <= 250 && resident <= 2560,
        "{private} kB, {resident} kB"
    );
}

#[test]
fn policies_start_it_again() {
    let dock = Dock::new();
    let script = "echo life; exit 3";
    dock.start(
        &["--name", "thrice", "--restart", "on-failure:2"],
        &["sh", "-c", script],
    );
    assert_eq!(dock.ok(&["wait", "thrice"]), "3\n");
    assert_eq!(dock.logs("thrice"), "life\n".repeat(3));
    let id = full_id(&dock, "thrice");
    assert_eq!(dock.record(&id)["state"]["restarts"], 2);
    dock.start(&["--name", "once", "--restart", "on-failure"], &["true"]);
    assert_eq!(dock.ok(&["wait", "once"]), "0\n");

    let id = dock.start(
        &["--name", "ever", "--restart", "always"],
        &["sh", "-c", "echo life; sleep 0.05"],
    );
    eventually(|| (dock.logs("ever").lines().count() >= 2).then_some(())).unwrap();
    let monitor = dock.process(&id, "monitor");
    let descriptors = || {
        // While it runs, not between two lives.
        let running = dock.status("ever").0 == "running";
        let count = fs::read_dir(monitor.file("fd")).ok()?.count();
        (running && dock.status("ever").0 == "running").then_some(count)
    };
    let before = eventually(descriptors);
    eventually(|| (dock.logs("ever").lines().count() >= 4).then_some(())).unwrap();
    let after = eventually(descriptors);
    if let (Some(before), Some(after)) = (before, after) {
        // The look itself has nothing open there.
        assert!(
            after <= before + 1,
            "{before} descriptors were open, and now {after}"
        );
    }
    dock.ok(&["stop", "-t", "0", "ever"]);
    assert_eq!(dock.status("ever").0, "exited");
    assert!(monitors(&dock.state).is_empty());
    assert!(
        dock.fails(&["run", "--rm", "--restart", "always", "true"])
            .contains("--rm and --restart")
    );
}

/// A reboot: nothing runs, and what asked for it is started.
#[test]
fn boot_starts_what_asked_for_it() {
    let dock = Dock::new();
    let mut ids = Vec::new();
    for (name, policy) in [
        ("never", "no"),
        ("always", "always"),
        ("unless", "unless-stopped"),
        ("stopped", "unless-stopped"),
    ] {
        ids.push(dock.start(&["--name", name, "--restart", policy], &["sleep", "1000"]));
    }
    dock.ok(&["stop", "-t", "0", "stopped"]);
    // The power fails.
    for id in &ids {
        if dock.status(id).0 == "running" {
            kill(dock.process(id, "monitor").0, Signal::SIGKILL).unwrap();
        }
    }
    let all_down = || dock.ok(&["ps", "-q"]).is_empty().then_some(());
    eventually(all_down).unwrap();
    let booted = dock.ok(&["boot"]);
    let mut names: Vec<_> = booted.lines().collect();
    names.sort();
    assert_eq!(names, ["always", "unless"]);
    assert_eq!(dock.status("always").0, "running");
    assert_eq!(dock.status("stopped").0, "exited");
    let unit = dock.ok(&["boot", "--unit"]);
    assert!(
        unit.contains("\nExecStart=/") && unit.contains(" boot --state-dir "),
        "{unit}"
    );
    assert!(unit.contains("\nWantedBy=multi-user.target\n"), "{unit}");
}

/// A state folder that was copied in mid-flight, onto a machine that was started since.
#[test]
fn after_a_power_failure_all_is_put_right() {
    let dock = Dock::new();
    let id = dock.start(
        &["--name", "box"],
        &["sh", "-c", "echo mine >/mine; echo said; exec sleep 1000"],
    );
    dock.until_it_says("box", "said");
    let copy = Dock::new();
    let copied = Command::new("cp")
        .arg("-a")
        .arg(&dock.state)
        .arg(&copy.state)
        .status()
        .unwrap();
    assert!(copied.success());
    fs::remove_dir_all(copy.state.join("run")).unwrap();
    let path = copy.container(&id).join("config.json");
    let text = fs::read_to_string(&path).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    fs::write(
        &path,
        text.replace(boot.trim(), "00000000-0000-4000-8000-000000000000"),
    )
    .unwrap();
    // Half a line, half a container, and a name that leads to nothing.
    let mut log = File::options()
        .append(true)
        .open(copy.container(&id).join("container.log"))
        .unwrap();
    log.write_all(b"2026-11-22T21:4").unwrap();
    fs::create_dir(copy.state.join("containers/.new-0123")).unwrap();
    std::os::unix::fs::symlink("0123", copy.state.join("names/ghost")).unwrap();

    assert_eq!(
        copy.status("box"),
        ("exited".into(), "Exited (unknown)".into())
    );
    assert!(
        copy.fails(&["wait", "box"])
            .contains("nobody knows how container box ended")
    );
    assert_eq!(copy.logs("box"), "said\n");
    // The first one runs all the while, in groups of the same name: it is another.
    assert_eq!(dock.status("box").0, "running");
    dock.ok(&["rm", "-f", "box"]);
    copy.ok(&["start", "box"]);
    assert_eq!(copy.ok(&["exec", "box", "cat", "/mine"]), "mine\n");
    copy.ok(&["rm", "-f", "box"]);
    copy.ok(&["prune", "-f"]);
    copy.is_empty();
}

#[test]
fn the_truth_after_a_kill() {
    let dock = Dock::new();
    let id = dock.start(
        &["--name", "box"],
        &["sh", "-c", "echo x >>/mine; echo up; exec sleep 1000"],
    );
    dock.until_it_says("box", "up");
    // The command.
    kill(dock.process(&id, "process").0, Signal::SIGKILL).unwrap();
    assert_eq!(dock.ok(&["wait", "box"]), "137\n");
    dock.ok(&["start", "box"]);
    // Its monitor.
    let first = dock.process(&id, "process");
    kill(dock.process(&id, "monitor").0, Signal::SIGKILL).unwrap();
    eventually(|| (dock.status("box").0 == "exited").then_some(())).unwrap();
    eventually(|| (!first.file("stat").exists()).then_some(())).unwrap();
    assert!(dock.fails(&["wait", "box"]).contains("nobody knows"));
    dock.ok(&["stop", "box"]);
    dock.ok(&["start", "box"]);
    eventually(|| (dock.ok(&["exec", "box", "cat", "/mine"]) == "x\nx\nx\n").then_some(()))
        .unwrap();
    kill(dock.process(&id, "monitor").0, Signal::SIGKILL).unwrap();
    eventually(|| (dock.status("box").0 == "exited").then_some(())).unwrap();
    dock.ok(&["rm", "box"]);
    dock.ok(&["prune", "-f"]);
    assert!(groups_of(&id).is_empty(), "{:?}", groups_of(&id));
    dock.is_empty();
}

/// A damaged record is told of, and can be removed; nothing else suffers.
#[test]
fn a_damaged_record() {
    let dock = Dock::new();
    dock.run_in(&["--name", "good"], &["true"]);
    dock.run_in(&["--name", "bad"], &["true"]);
    let id = full_id(&dock, "bad");
    for damage in [&b""[..], b"{\"id\": 7}", b"\xff\xfe"] {
        fs::write(dock.container(&id).join("config.json"), damage).unwrap();
        let listed = dock.run(&["ps", "-a"]);
        assert_eq!(listed.code, 0);
        assert!(listed.output.contains("good") && !listed.output.contains("bad"));
        assert!(
            listed.errors.contains("`rm -f") && listed.errors.contains(&id[..12]),
            "{}",
            listed.errors
        );
    }
    dock.ok(&["rm", "-f", &id]);
    let again = dock.run_in(&["--rm", "--name", "bad"], &["true"]);
    assert_eq!(again.code, 0, "{}", again.errors);
    dock.ok(&["prune", "-f"]);
    dock.is_empty();
}

/// The disk is full: the container runs, and says afterwards what is missing.
#[test]
fn a_full_disk_ends_nobody() {
    let dock = Dock::new();
    fs::create_dir(&dock.state).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=512k", "small"])
        .arg(&dock.state)
        .status();
    assert!(mounted.unwrap().success());
    let run = || {
        let gate = dock.folder.path().join("gate");
        fs::create_dir(&gate).unwrap();
        let volume = format!("{}:/gate", gate.display());
        let script = "echo before; while [ ! -e /gate/full ]; do sleep 0.02; done; i=0; while [ $i -lt 1000 ]; do i=$((i+1)); echo line $i; done; echo spoken >/gate/spoken; \
            while [ ! -e /gate/free ]; do sleep 0.02; done; echo after; exec sleep 1000";
        dock.start(&["--name", "box", "-v", &volume], &["sh", "-c", script]);
        dock.until_it_says("box", "before");
        let mut filler = File::create(dock.state.join("filler")).unwrap();
        let _ = std::io::copy(&mut std::io::repeat(0), &mut filler);
        drop(filler);
        File::create(gate.join("full")).unwrap();
        eventually(|| gate.join("spoken").exists().then_some(())).expect("it stands still");
        assert_eq!(dock.status("box").0, "running");
        fs::remove_file(dock.state.join("filler")).unwrap();
        File::create(gate.join("free")).unwrap();
        dock.until_it_says("box", "after");
        let outcome = dock.run(&["logs", "box"]);
        assert!(
            outcome
                .errors
                .contains("bytes of output are missing here: "),
            "{}",
            outcome.errors
        );
        assert!(outcome.output.starts_with("before\n") && outcome.output.ends_with("after\n"));
        dock.ok(&["rm", "-f", "box"]);
    };
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    for id in dock.run(&["ps", "-aq"]).output.lines() {
        dock.run(&["rm", "-f", id]);
    }
    let unmounted = Command::new("umount").arg("-l").arg(&dock.state).status();
    assert!(unmounted.unwrap().success());
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// `inspect` has what people ask for, under Docker's names.
#[test]
fn inspect_tells_all() {
    let dock = Dock::new();
    let id = dock.start(
        &["--name", "box", "-e", "A=b", "-v", "/etc:/mnt:ro"],
        &["sleep", "1000"],
    );
    let pid = dock.ok(&["inspect", "-f", "{{.State.Pid}}", "box"]);
    assert_eq!(pid.trim(), dock.process(&id, "process").0.to_string());
    let upper = dock.ok(&["inspect", "--format", "{{.UpperDir}}", "box"]);
    assert!(std::path::Path::new(upper.trim()).is_dir());
    let all: serde_json::Value = serde_json::from_str(&dock.ok(&["inspect", "box"])).unwrap();
    assert_eq!(all[0]["State"]["Status"], "running");
    assert_eq!(all[0]["Mounts"][0]["RW"], false);
    assert_eq!(all[0]["Config"]["Env"][0], "A=b");
    assert!(
        dock.fails(&["inspect", "-f", "{{.Nothing}}", "box"])
            .contains("there is no Nothing")
    );
}

/// What a container changed becomes an archive while it runs, and an archive is an image again.
#[test]
fn commit_while_it_runs() {
    let dock = Dock::new();
    dock.start(
        &["--name", "box"],
        &["sh", "-c", "echo mine >/mine; echo up; exec sleep 1000"],
    );
    dock.until_it_says("box", "up");
    let archive = dock.folder.path().join("box.tar.gz");
    let archive = archive.to_str().unwrap();
    dock.ok(&["commit", "box", archive]);
    assert_eq!(dock.status("box").0, "running");
    dock.ok(&["stop", "-t", "0", "box"]);
    dock.ok(&["commit", "box", archive]);
    let outcome = dock.run(&["run", "--rm", "--image", archive, "cat", "/mine"]);
    assert_eq!(outcome.output, "mine\n", "{}", outcome.errors);
    // At its end, as in step 8.
    let at_end = dock.folder.path().join("end.tar");
    let words = ["--rm", "--commit", at_end.to_str().unwrap()];
    assert_eq!(dock.run_in(&words, &["sh", "-c", "echo end >/end"]).code, 0);
    let image = [
        "run",
        "--rm",
        "--image",
        at_end.to_str().unwrap(),
        "cat",
        "/end",
    ];
    assert_eq!(dock.ok(&image), "end\n");
    let words = ["--name", "kept", "--commit", at_end.to_str().unwrap()];
    assert_eq!(dock.run_in(&words, &["true"]).code, 0);
    assert_eq!(dock.status("kept").0, "exited");
    assert!(
        dock.fails(&["commit", "box", "/no/such/place.tar"])
            .contains("there is no directory")
    );
    assert!(dock.fails(&["commit", "box", "box.zip"]).contains(".tar"));
}

#[test]
fn prune_asks_first() {
    let dock = Dock::new();
    dock.run_in(&["--name", "down"], &["true"]);
    dock.start(&["--name", "up"], &["sleep", "1000"]);
    let mut command = dock.command(&["prune"]);
    command.stdin(Stdio::null());
    assert!(command.output().unwrap().status.success());
    assert_eq!(dock.status("down").0, "exited");
    dock.ok(&["prune", "-f"]);
    assert_eq!(dock.status("down").0, "none");
    assert_eq!(dock.status("up").0, "running");
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

#[test]
fn help_of_the_commands() {
    let dock = Dock::new();
    let told: String = ["", "run", "ps", "logs", "stop", "exec", "cp", "stats"]
        .map(|command| {
            let words: Vec<&str> = [command, "--help"]
                .into_iter()
                .filter(|word| !word.is_empty())
                .collect();
            format!("$ {}\n{}\n", words.join(" "), dock.ok(&words))
        })
        .concat();
    insta::assert_snapshot!(redact(&told, &[]));
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
        assert_eq!(command.status().unwrap().code(), Some(3));
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
    let monitor = dock.process(&full_id(&dock, "box"), "monitor");
    let settled = || {
        let log = || {
            fs::metadata(dock.container(&full_id(&dock, "box")).join("container.log"))
                .map(|of| of.len())
        };
        let before = log().ok()?;
        dock.ok(&["ps"]);
        (before > 1000 && log().ok()? == before).then_some(())
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

/// Stopped in whatever moment of its many lives.
#[test]
fn one_that_is_being_restarted_can_be_stopped() {
    let dock = Dock::new();
    for round in 0..12_u32 {
        let script = "[ -e /once ] && exec sleep 1000; echo x >/once; exit 1";
        dock.start(
            &["--name", "box", "--restart", "always"],
            &["sh", "-c", script],
        );
        for _ in 0..round % 6 {
            dock.ok(&["ps"]);
        }
        dock.ok(&["stop", "-t", "0", "box"]);
        assert_eq!(dock.status("box").0, "exited");
        dock.ok(&["rm", "box"]);
    }
    dock.is_empty();
}

/// A command that has changed its user outlives a monitor that is killed. It isn't forgotten.
#[test]
fn an_orphan_is_not_forgotten() {
    let dock = Dock::new();
    let script = "exec setpriv --reuid 1234 --regid 1234 --clear-groups sleep 1000";
    let root = crate::stage::armed_root(dock.folder.path(), &["setpriv"]);
    let root = root.to_str().unwrap();
    dock.ok(&[
        "run", "-d", "--name", "box", "--image", root, "sh", "-c", script,
    ]);
    let id = full_id(&dock, "box");
    let first = dock.process(&id, "process");
    eventually(|| (first.status("Uid").ok()?.starts_with("1234")).then_some(())).unwrap();
    kill(dock.process(&id, "monitor").0, Signal::SIGKILL).unwrap();
    eventually(|| monitors(&dock.state).is_empty().then_some(())).unwrap();
    assert_eq!(dock.status("box").0, "running");
    assert!(
        dock.fails(&["rm", "box"])
            .contains("its monitor was killed")
    );
    dock.ok(&["prune", "-f"]);
    assert_eq!(dock.status("box").0, "running");
    // To start it is to start it anew, once.
    dock.ok(&["start", "box"]);
    assert_ne!(dock.process(&id, "process"), first);
    eventually(|| (!first.file("stat").exists()).then_some(())).unwrap();
    dock.ok(&["rm", "-f", "box"]);
    dock.is_empty();
}

/// The state folder by another name is the same one.
#[test]
fn a_state_folder_behind_a_link() {
    let dock = Dock::new();
    dock.start(&["--name", "box"], &["sleep", "1000"]);
    let link = dock.folder.path().join("link");
    std::os::unix::fs::symlink(&dock.state, &link).unwrap();
    let mut command = dock.command(&["stop", "-t", "0", "box"]);
    assert!(
        command
            .env("TEN_STEPS_STATE", &link)
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(dock.status("box").0, "exited");
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

/// What asks `run` to end before the command runs is heard.
#[test]
fn a_start_can_be_given_up() {
    let dock = Dock::new();
    dock.run_in(&["--rm"], &["true"]);
    fs::create_dir_all(dock.state.join("roots")).unwrap();
    // Somebody is making the default root, and takes his time.
    let lock = File::create(dock.state.join("roots/default.lock")).unwrap();
    let lock = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusive).unwrap();
    let mut command = dock.command(&["run", "sleep", "1000"]);
    let mut program = command.stdin(Stdio::null()).spawn().unwrap();
    eventually(|| (!monitors(&dock.state).is_empty()).then_some(())).unwrap();
    kill(
        nix::unistd::Pid::from_raw(program.id() as i32),
        Signal::SIGINT,
    )
    .unwrap();
    let ended = eventually(|| program.try_wait().unwrap()).expect("it doesn't hear");
    assert_eq!(ended.code(), Some(130));
    drop(lock);
    eventually(|| monitors(&dock.state).is_empty().then_some(())).unwrap();
    assert_eq!(dock.ok(&["ps", "-q"]), "");
    dock.ok(&["prune", "-f"]);
    dock.is_empty();
}

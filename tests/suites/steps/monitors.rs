//! Step 9: what a monitor does while its container runs: the log, and next to nothing else.

use crate::attacks::tried;
use crate::stage::dock::Dock;
use crate::stage::{Printed, have, mount_apart, nested, run};
use progress::host::container::{Container, eventually};
use progress::host::evidence::Process;
use progress::programs::workspace;
use std::fs::{self, DirEntry, File};
use std::process::{Command, Stdio};

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
    let id = dock.id("box");
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
    dock.fails(&["logs", "--since", "soon", "box"])
        .complains("it has to be a time");
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
    eventually(|| (sleeps(&monitor) && sleeps(&follower.program())).then_some(())).unwrap();
    let switches = |process: &Process| {
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

fn sleeps(process: &Process) -> bool {
    process
        .status("State")
        .is_ok_and(|state| state.starts_with('S'))
}

/// More come than a monitor may have files open: who comes too late is told, waits otherwise, and can end it.
#[test]
fn a_full_house() {
    if !have("prlimit", "util-linux") {
        return;
    }
    let _attack = tried("");
    let dock = Dock::new();
    let id = dock.start(&["--name", "box"], &["sleep", "1000"]);
    let monitor = dock.process(&id, "monitor");
    let files = || {
        let numbers = fs::read_dir(format!("/proc/{}/fd", monitor.0)).unwrap();
        let number = |entry: DirEntry| entry.file_name().to_str()?.parse::<usize>().ok();
        let numbers = numbers.filter_map(|entry| number(entry.unwrap()));
        numbers.collect::<Vec<_>>()
    };
    // Of the numbers below it, all will be taken.
    let limit = files().iter().max().unwrap() + 3;
    run(Command::new("prlimit")
        .arg(format!("--pid={}", monitor.0))
        .arg(format!("--nofile={limit}:{limit}")));
    let wait = || {
        let mut command = dock.command(&["wait", "box"]);
        command.stdout(Stdio::piped()).spawn().unwrap()
    };
    let waiting: Vec<_> = (0..limit).map(|_| wait()).collect();
    // One number is kept back.
    eventually(|| (files().len() == limit).then_some(())).expect("it isn't full");
    let refused = dock.fails(&["attach", "box"]);
    refused.complains("as many files open as it may");
    for _ in 0..20 {
        dock.ok(&["ps"]);
        eventually(|| sleeps(&monitor).then_some(())).expect("it spins");
    }
    dock.ok(&["kill", "box"]);
    for waiting in waiting {
        let output = waiting.wait_with_output().unwrap();
        assert_eq!(output.stdout, b"137\n");
    }
    dock.ok(&["rm", "box"]);
    dock.is_empty();
}

/// The monitor has what the issue of its size allows, in the build that people use.
#[test]
fn the_monitor_is_small() {
    if nested() {
        return;
    }
    // Who says it to the compiler has the suites compiled anew for whoever has another one.
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    run(Command::new(cargo)
        .args([
            "build",
            "--release",
            "--quiet",
            "-p",
            crate::stage::dock::STEP,
        ])
        .current_dir(workspace()));
    // The pages of a file that was just written are dirty, too.
    nix::unistd::sync();
    let program = crate::stage::progress()
        .ancestors()
        .nth(2)
        .unwrap()
        .join("release")
        .join(crate::stage::dock::STEP);
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
    let id = run(Command::new(&program)
        .args(&words)
        .env("TEN_STEPS_STATE", &dock.state));
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
    let sizes = || (size("Private_Dirty:"), size("Rss:"));
    // It has some 250 kB, a third of which are relocated pages of the program and its libraries. Where the kernel puts
    // these decides over four or five pages more or fewer. A buffer of a stream that isn't given back is 64 kB.
    let is_small = |(private, resident)| private <= 280 && resident <= 2560;
    eventually(|| is_small(sizes()).then_some(()));
    let (private, resident) = sizes();
    println!("{private} kB are private and dirty, {resident} kB are resident");
    assert!(is_small((private, resident)), "{private} kB, {resident} kB");
}

/// The disk is full: the container runs, and says afterwards what is missing.
#[test]
fn a_full_disk_ends_nobody() {
    let dock = Dock::new();
    mount_apart();
    fs::create_dir(&dock.state).unwrap();
    run(Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=512k", "small"])
        .arg(&dock.state));
    let test = || {
        let gate = dock.folder.path().join("gate");
        fs::create_dir(&gate).unwrap();
        let volume = format!("{}:/gate", gate.display());
        // More than a pipe holds: once all is said, the monitor has tried to write most of it.
        let script = "echo before; while [ ! -e /gate/full ]; do sleep 0.02; done; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo line $i; done; echo spoken >/gate/spoken; \
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
        let logs = dock.run(&["logs", "box"]);
        logs.complains("bytes of output are missing here: ");
        let said = logs.printed();
        assert!(
            said.starts_with("before\n") && said.ends_with("after\n"),
            "{logs}"
        );
        dock.ok(&["rm", "-f", "box"]);
    };
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(test));
    for id in dock.run(&["ps", "-aq"]).printed().lines() {
        dock.run(&["rm", "-f", id]);
    }
    run(Command::new("umount").arg("-l").arg(&dock.state));
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

//! Step 9: containers that outlive their caller.

use crate::stage::Printed;
use crate::stage::dock::{Dock, groups_of, monitors};
use crate::stage::redaction::redact;
use assert_cmd::assert::OutputAssertExt;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use progress::host::container::eventually;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

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
        // PID 1 is deaf to itself.
        dock.run_in(&["--rm"], command).code(code);
        dock.is_empty();
    }
    dock.run_in(&["--rm", "--init"], &["sh", "-c", "kill -9 $$"])
        .code(137);
    // What never ran leaves nothing, with --rm or without.
    for flags in [&["-v", "/no-such-place:/x"][..], &["-w", "/no/such/place"]] {
        dock.run_in(flags, &["true"]).code(125);
        dock.is_empty();
    }
    let absent = dock.run_in(&["-d"], &["no-such-program"]);
    absent.code(127).stdout("");
    dock.is_empty();
}

#[test]
fn names_are_given_once() {
    let dock = Dock::new();
    let id = dock.start(&["--name", "web"], &["sleep", "1000"]);
    assert_eq!(id.len(), 64);
    let twice = dock.run_in(&["-d", "--name", "web"], &["true"]);
    twice
        .code(125)
        .complains("the name web is already in use by container")
        .complains("\nhelp: ");
    for name in ["web", &id, &id[..12], &id[..3]] {
        assert_eq!(
            dock.ok(&["inspect", "-f", "{{.Id}}", name]).trim(),
            id,
            "{name}"
        );
    }
    dock.fails(&["inspect", "nobody"])
        .complains("no such container: nobody");
    dock.fails(&["inspect", ""]).complains("no such container");
    dock.fails(&["logs", "../containers"])
        .complains("no such container");
    let created = dock.words(&["create"], &[], &["true"]);
    let created: Vec<&str> = created.iter().map(String::as_str).collect();
    let other = dock.ok(&created);
    dock.ok(&["rename", "web", "site"]);
    dock.fails(&["inspect", "web"]);
    let name = dock.ok(&["inspect", "-f", "{{.Name}}", other.trim()]);
    dock.fails(&["rename", "site", name.trim()])
        .complains("already in use");
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
    dock.fails(&["ps", "-f", "colour=blue"])
        .complains("there is no filter colour");
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
    assert!(groups_of(&id).is_empty());
    // It has said so, and is on the way out.
    eventually(|| monitors(&dock.state).is_empty().then_some(())).unwrap();
    // Stopped twice is stopped; the upper layer is still there.
    dock.ok(&["stop", "box"]);
    dock.ok(&["start", "box"]);
    dock.ok(&["start", "box"]);
    assert_eq!(dock.ok(&["exec", "box", "ls", "/mine"]), "/mine\n");
    let first = dock.process(&id, "process");
    dock.ok(&["restart", "-t", "5", "box"]);
    assert_ne!(dock.process(&id, "process"), first);
    let lives = || {
        dock.logs("box")
            .lines()
            .filter(|line| *line == "up")
            .count()
    };
    eventually(|| (lives() == 3).then_some(())).expect("its third life");
    dock.fails(&["rm", "box"]).complains("is running");
    dock.ok(&["pause", "box"]);
    assert_eq!(dock.status("box").0, "paused");
    assert!(dock.status("box").1.ends_with("(Paused)"));
    dock.fails(&["pause", "box"]).complains("paused already");
    dock.fails(&["exec", "box", "true"]).complains("is paused");
    let groups = groups_of(&id);
    let frozen = groups.iter().any(|group| {
        let read = |file| fs::read_to_string(group.join(file)).unwrap_or_default();
        read("freezer.state").trim() == "FROZEN" || read("cgroup.events").contains("frozen 1")
    });
    assert!(frozen, "{groups:?}");
    dock.ok(&["unpause", "box"]);
    dock.fails(&["unpause", "box"]).complains("isn't paused");
    // One that is paused can be stopped, too.
    dock.ok(&["pause", "box"]);
    dock.ok(&["stop", "-t", "60", "box"]);
    assert_eq!(dock.record(&id)["state"]["exit_code"], 5);
    dock.fails(&["kill", "box"]).complains("isn't running");
    dock.fails(&["attach", "box"]).complains("isn't running");
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
    dock.fails(&["kill", "-s", "NOTHING", "box"])
        .complains("there is no signal NOTHING");
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
    let id = dock.id("thrice");
    assert_eq!(dock.record(&id)["state"]["restarts"], 2);
    dock.start(&["--name", "once", "--restart", "on-failure"], &["true"]);
    assert_eq!(dock.ok(&["wait", "once"]), "0\n");

    // Each life ends when a line comes through the gate.
    let gate = dock.folder.path().join("gate");
    mkfifo(&gate, Mode::S_IRWXU).unwrap();
    let volume = format!("{}:/gate", gate.display());
    let id = dock.start(
        &["--name", "ever", "--restart", "always", "-v", &volume],
        &["sh", "-c", "echo life; read line </gate"],
    );
    let monitor = dock.process(&id, "monitor");
    let descriptors = || {
        let open = fs::read_dir(monitor.file("fd")).unwrap().flatten();
        let paths = open.filter_map(|entry| fs::read_link(entry.path()).ok());
        // It looks how large it is when it has been quiet for a while.
        paths.filter(|path| !path.ends_with("smaps")).count()
    };
    let mut before = None;
    for number in 1..=5 {
        let begun = || {
            let running = dock.status("ever").0 == "running";
            (running && dock.logs("ever").lines().count() == number).then_some(())
        };
        eventually(begun).unwrap();
        // Whoever started it may still be on the way out in its first life.
        if number > 1 {
            let before = *before.get_or_insert_with(descriptors);
            eventually(|| (descriptors() == before).then_some(())).expect("it leaves some open");
        }
        fs::write(&gate, "on\n").unwrap();
    }
    dock.ok(&["stop", "-t", "0", "ever"]);
    assert_eq!(dock.status("ever").0, "exited");
    eventually(|| monitors(&dock.state).is_empty().then_some(())).unwrap();
    dock.fails(&["run", "--rm", "--restart", "always", "true"])
        .complains("--rm and --restart");
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
    dock.fails(&["inspect", "-f", "{{.Nothing}}", "box"])
        .complains("there is no Nothing");
}

/// A name that nobody has doesn't keep the others from being served.
#[test]
fn an_unknown_name_among_others() {
    let dock = Dock::new();
    dock.run_in(&["--name", "box"], &["sh", "-c", "exit 7"]);
    for (words, printed) in [
        (&["inspect", "-f", "{{.Name}}"][..], "box\n"),
        (&["wait"], "7\n"),
        (&["rm"], "box\n"),
    ] {
        let words = [words, &["nobody", "box"]].concat();
        dock.fails(&words).stdout(printed).complains("nobody");
    }
    dock.is_empty();
}

/// What a container changed becomes an archive while it runs, and an archive is an image again.
/// A process may call itself whatever it likes.
#[test]
fn a_name_of_any_bytes_hides_nothing() {
    let dock = Dock::new();
    let script = "printf '\\377) Z (' >/proc/$$/comm; echo ready; while :; do sleep 1000; done";
    let id = dock.start(&["--name", "box"], &["sh", "-c", script]);
    dock.until_it_says("box", "ready");
    let name = fs::read(dock.process(&id, "process").file("comm")).unwrap();
    assert_eq!(name, b"\xff) Z (\n");
    assert_eq!(dock.status("box").0, "running");
    assert!(dock.ok(&["top", "box"]).contains("while"));
    dock.ok(&["rm", "-f", "box"]);
    dock.is_empty();
}

/// Its lock, which others wait for.
fn locked(path: &Path) -> Flock<File> {
    Flock::lock(File::open(path).unwrap(), FlockArg::LockExclusive).unwrap()
}

fn waits_for_a_lock(pid: impl Display) -> Option<()> {
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).ok()?;
    let flock = libc::SYS_flock.to_string();
    (call.split(' ').next() == Some(&flock)).then_some(())
}

/// While somebody saves it, nobody has it go on, starts it or removes it.
#[test]
fn it_holds_still_for_a_commit() {
    let dock = Dock::new();
    let id = dock.start(&["--name", "box"], &["sleep", "1000"]);
    let archive = dock.folder.path().join("box.tar").display().to_string();
    let still = locked(&dock.container(&id).join("still"));
    let mut waiting: Vec<_> = [
        &["commit", "box", &archive][..],
        &["pause", "box"],
        &["stop", "-t", "0", "box"],
    ]
    .into_iter()
    .map(|words| {
        let mut command = dock.command(words);
        let program = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        eventually(|| waits_for_a_lock(program.id()))
            .unwrap_or_else(|| panic!("{words:?} doesn't wait"));
        program
    })
    .collect();
    assert_eq!(dock.status("box").0, "running");
    drop(still);
    let mut stop = waiting.pop().unwrap();
    assert!(stop.wait().unwrap().success());
    for mut other in waiting {
        other.wait().unwrap();
    }
    // In whatever turn they came.
    dock.run(&["unpause", "box"]);
    dock.ok(&["rm", "-f", "box"]);
    dock.is_empty();
}

/// One that holds still to be saved isn't paused, and whoever pauses it meanwhile has it paused afterwards.
#[test]
fn pause_waits_for_a_commit() {
    let dock = Dock::new();
    let id = dock.start(&["--name", "box"], &["sleep", "1000"]);
    let still = locked(&dock.container(&id).join("still"));
    // As a commit does.
    let groups = step07_cgroups::cgroup::places::Groups::of(&id).unwrap();
    groups.freeze(true).unwrap();
    let mut command = dock.command(&["pause", "box"]);
    let pause = command.stdin(Stdio::null()).stdout(Stdio::piped());
    let pause = pause.stderr(Stdio::piped()).spawn().unwrap();
    eventually(|| waits_for_a_lock(pause.id())).expect("pause doesn't wait");
    groups.freeze(false).unwrap();
    drop(still);
    pause.wait_with_output().unwrap().assert().success();
    assert_eq!(dock.status("box").0, "paused");
    dock.ok(&["rm", "-f", "box"]);
    dock.is_empty();
}

/// Who is frozen doesn't hear SIGKILL: while one is being ended it can't be paused, and can be killed.
#[test]
fn pause_waits_for_a_stop() {
    let dock = Dock::new();
    let script = "trap 'echo asked' TERM; echo up; while :; do sleep 1000 & wait; done";
    dock.start(&["--name", "box"], &["sh", "-c", script]);
    dock.until_it_says("box", "up");
    let begin = |words: &[&str]| {
        let mut command = dock.command(words);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut stop = begin(&["stop", "-t", "-1", "box"]);
    dock.until_it_says("box", "asked");
    let pause = begin(&["pause", "box"]);
    eventually(|| waits_for_a_lock(pause.id())).expect("pause doesn't wait");
    dock.ok(&["kill", "box"]);
    assert!(stop.wait().unwrap().success());
    let refused = pause.wait_with_output().unwrap().assert();
    refused.complains("isn't running");
    dock.ok(&["rm", "box"]);
    dock.is_empty();
}

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
    let ran = dock.run(&["run", "--rm", "--image", archive, "cat", "/mine"]);
    ran.stdout("mine\n");
    // At its end, as in step 8.
    let at_end = dock.folder.path().join("end.tar");
    let words = ["--rm", "--commit", at_end.to_str().unwrap()];
    dock.run_in(&words, &["sh", "-c", "echo end >/end"])
        .success();
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
    dock.run_in(&words, &["true"]).success();
    assert_eq!(dock.status("kept").0, "exited");
    dock.fails(&["commit", "box", "/no/such/place.tar"])
        .complains("there is no directory");
    dock.fails(&["commit", "box", "box.zip"]).complains(".tar");
}

#[test]
fn prune_asks_first() {
    let dock = Dock::new();
    dock.run_in(&["--name", "down"], &["true"]);
    dock.start(&["--name", "up"], &["sleep", "1000"]);
    // Nobody answers.
    dock.ok(&["prune"]);
    assert_eq!(dock.status("down").0, "exited");
    dock.ok(&["prune", "-f"]);
    assert_eq!(dock.status("down").0, "none");
    assert_eq!(dock.status("up").0, "running");
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

/// What asks `run` to end before the command runs is heard.
#[test]
fn a_start_can_be_given_up() {
    let dock = Dock::new();
    dock.run_in(&["--rm"], &["true"]);
    // The one that is waited for below is the next one's.
    eventually(|| monitors(&dock.state).is_empty().then_some(())).unwrap();
    fs::create_dir_all(dock.state.join("roots")).unwrap();
    // Somebody is making the default root, and takes his time.
    let root = dock.state.join("roots/default.lock");
    File::create(&root).unwrap();
    let lock = locked(&root);
    // Nor is it started later.
    let mut command = dock.command(&["run", "--restart", "always", "sleep", "1000"]);
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
    assert_eq!(dock.ok(&["ps", "-aq"]), "");
    dock.ok(&["prune", "-f"]);
    dock.is_empty();
}

/// The same when the command runs already and its monitor is about to note it: a new one goes, and an old one is what
/// it was.
#[test]
fn a_start_can_be_given_up_at_the_last_moment() {
    let dock = Dock::new();
    let none_is_there = || monitors(&dock.state).is_empty().then_some(());
    dock.run_in(&["--rm"], &["true"]);
    eventually(none_is_there).unwrap();
    fs::create_dir_all(dock.state.join("roots")).unwrap();
    dock.ok(&["create", "--name", "old", "sleep", "1000"]);
    let root = dock.state.join("roots/default.lock");
    File::create(&root).unwrap();
    for words in [
        &["run", "--restart", "always", "sleep", "1000"][..],
        &["start", "-a", "old"],
    ] {
        // It is held up at its root first, then at its record.
        let at_root = locked(&root);
        let mut command = dock.command(words);
        let mut program = command.stdin(Stdio::null()).spawn().unwrap();
        let monitor = eventually(|| monitors(&dock.state).pop()).unwrap();
        let ids = dock.ok(&["ps", "-aq", "--no-trunc"]);
        let id = ids.lines().next().unwrap();
        let at_record = locked(&dock.container(id));
        let before = dock.status(id);
        drop(at_root);
        let is_noting = || {
            let here = waits_for_a_lock(monitor.0);
            here.filter(|()| !monitor.children().is_empty())
        };
        eventually(is_noting).expect("it isn't noted");
        let pid = nix::unistd::Pid::from_raw(program.id() as i32);
        kill(pid, Signal::SIGINT).unwrap();
        let ended = eventually(|| program.try_wait().unwrap()).expect("it doesn't hear");
        assert_eq!(ended.code(), Some(130), "{words:?}");
        drop(at_record);
        eventually(none_is_there).unwrap_or_else(|| panic!("{words:?}: it goes on"));
        if words[0] == "start" {
            assert_eq!(dock.status(id), before);
        }
    }
    assert_eq!(dock.ok(&["ps", "-aq"]).lines().count(), 1);
    dock.ok(&["rm", "old"]);
    dock.ok(&["prune", "-f"]);
    dock.is_empty();
}

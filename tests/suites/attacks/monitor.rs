//! Hanging those who stay outside: the monitor, and whoever asks it something.

use super::tried;
use crate::stage::dock::{Dock, groups_of};
use crate::stage::{Printed, armed_root, progress};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, send, socket,
};
use nix::unistd::Pid;
use progress::attacks::attacker::{NO_LUCK, STUCK};
use progress::host::container::{eventually, in_a_while};
use progress::host::evidence::Process;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};

/// Stops a process, and waits until it stands still.
fn stop(process: &Process) {
    kill(process.0, Signal::SIGSTOP).unwrap();
    eventually(|| process.status("State").ok()?.starts_with('T').then_some(())).unwrap();
}

/// A container in which whoever comes in is stopped, as soon as can be.
fn stops_everybody(dock: &Dock) -> String {
    let root = armed_root(dock.folder.path(), &[]);
    let line = "while :; do for each in /proc/[0-9]*; do
        [ $each = /proc/1 ] || kill -STOP ${each#/proc/} 2>/dev/null; done; done";
    let image = root.to_str().unwrap();
    let words = ["run", "-d", "--image", image, "sh", "-c", line];
    dock.ok(&words).trim().to_owned()
}

/// A command that takes its own words back while its reader reads: nobody waits for it.
#[test]
fn nobody_waits_for_words_that_were_taken_back() {
    let _attack = tried("");
    const TURNS: &str = "1000";
    let dock = Dock::new();
    let note = dock.folder.path().join("note");
    let says = |note: &Path, words: &str| fs::read_to_string(note).is_ok_and(|text| text == words);
    // The control: a reader that polls both, and then reads both, and may wait.
    let mut attacker = Command::new(progress())
        .args(["attacker", "take-back", "1000000"])
        .arg(&note)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ends: [Box<dyn ReadEnd>; 2] = [
        Box::new(attacker.stdout.take().unwrap()),
        Box::new(attacker.stderr.take().unwrap()),
    ];
    let (send, number) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        send.send(nix::unistd::gettid()).unwrap();
        loop {
            let mut polled =
                [0, 1].map(|which| PollFd::new(ends[which].as_fd(), PollFlags::POLLIN));
            poll(&mut polled, PollTimeout::NONE).unwrap();
            let ready = polled.map(|each| each.any() == Some(true));
            for (end, ready) in ends.iter_mut().zip(ready) {
                if ready && end.read(&mut [0; 4096]).unwrap() == 0 {
                    return;
                }
            }
        }
    });
    // Where the kernel has it wait: proc_pid_syscall(5).
    let call = format!("/proc/self/task/{}/syscall", number.recv().unwrap());
    let reads = format!("{} ", libc::SYS_read);
    let waits = || {
        let call = fs::read_to_string(&call).unwrap_or_default();
        (says(&note, STUCK) && call.starts_with(&reads)).then_some(())
    };
    let control = in_a_while(waits);
    attacker.kill().unwrap();
    attacker.wait().unwrap();
    reader.join().unwrap();
    control.expect("the control has won nothing");

    let root = armed_root(dock.folder.path(), &[]);
    let root = root.to_str().unwrap();
    let attacker = progress().to_str().unwrap();
    let command = [attacker, "attacker", "take-back", TURNS, "/tmp/note"];
    let words = ["run", "-d", "--name", "box", "--image", root, "sh", "-c"];
    let line = format!("{}; exec sleep 1000", command.join(" "));
    dock.ok(&[&words[..], &[&line]].concat());
    let id = dock.id("box");
    let note = dock.process(&id, "process").file("root/tmp/note");
    in_a_while(|| says(&note, NO_LUCK).then_some(())).expect("the monitor waits");
    // The one who carries what exec's command says.
    fs::remove_file(&note).unwrap();
    dock.run(&[&["exec", "box"], &command[..]].concat())
        .success();
    assert!(says(&note, NO_LUCK), "exec waits");
    dock.ok(&["stop", "-t", "0", "box"]);
    dock.ok(&["rm", "box"]);
    dock.is_empty();
}

trait ReadEnd: Read + std::os::fd::AsFd + Send {}
impl<T: Read + std::os::fd::AsFd + Send> ReadEnd for T {}

/// A monitor that answers nobody: whoever ends its container asks the kernel, and whoever only waits is ended by a
/// signal.
#[test]
fn a_monitor_that_never_answers() {
    let _attack = tried("");
    let dock = Dock::new();
    let ways: [&[&str]; 4] = [
        &["stop", "-t", "0"],
        &["kill"],
        &["rm", "-f"],
        &["restart", "-t", "0"],
    ];
    let ids: Vec<String> = ways
        .iter()
        .map(|_| dock.start(&[], &["sleep", "1000"]))
        .collect();
    let monitors: Vec<_> = ids.iter().map(|id| dock.process(id, "monitor")).collect();
    let firsts: Vec<_> = ids.iter().map(|id| dock.process(id, "process")).collect();
    for monitor in &monitors {
        stop(monitor);
    }
    let waits = |words: &[&str]| {
        let mut command = dock.command(words);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.spawn().unwrap()
    };
    // These wait for ever, unless somebody asks them to end; attach passes a first signal on.
    for words in [["attach", &ids[0]], ["wait", &ids[0]]] {
        let mut program = waits(&words);
        let pid = Pid::from_raw(program.id() as i32);
        let ended = eventually(|| {
            kill(pid, Signal::SIGTERM).unwrap();
            program.try_wait().unwrap()
        });
        assert!(ended.is_some(), "{words:?} can't be ended");
    }
    // So does who runs one in the foreground, and has it from its first moment.
    let words = dock.words(&["run", "--name", "fore"], &[], &["sleep", "1000"]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut program = waits(&words);
    eventually(|| (dock.status("fore").0 == "running").then_some(())).unwrap();
    let monitor = dock.process(&dock.id("fore"), "monitor");
    stop(&monitor);
    let pid = Pid::from_raw(program.id() as i32);
    let ended = eventually(|| {
        kill(pid, Signal::SIGTERM).unwrap();
        program.try_wait().unwrap()
    });
    let code = ended.and_then(|status| status.code());
    assert_eq!(code, Some(143), "it can't be ended");
    dock.ok(&["rm", "-f", "fore"]);
    let programs: Vec<_> = ways
        .iter()
        .zip(&ids)
        .map(|(words, id)| waits(&[*words, &[id.as_str()]].concat()))
        .collect();
    for (mut program, words) in programs.into_iter().zip(ways) {
        let ended = in_a_while(|| program.try_wait().unwrap());
        assert!(
            ended.is_some_and(|status| status.success()),
            "{words:?}: {ended:?}"
        );
    }
    for gone in monitors.iter().chain(&firsts) {
        assert!(gone.is_ending(), "{gone:?} is still there");
    }
    assert_eq!(dock.status(&ids[3]).0, "running", "restart starts it again");
    dock.ok(&["rm", "-f", &ids[0], &ids[1], &ids[3]]);
    for id in &ids {
        let left = groups_of(id);
        assert!(left.is_empty(), "{left:?}");
    }
    dock.is_empty();
}

/// A monitor that lets nobody in, and as many before its door as may stand there: who comes is told what to do.
#[test]
fn a_door_that_stays_shut() {
    let _attack = tried("");
    let dock = Dock::new();
    let id = dock.start(&[], &["sleep", "1000"]);
    let monitor = dock.process(&id, "monitor");
    stop(&monitor);
    let folder = File::open(dock.state.join("run")).unwrap();
    let path = format!("/proc/self/fd/{}/{id}.sock", folder.as_raw_fd());
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let mut queue = Vec::new();
    loop {
        let ours = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).unwrap();
        match connect(ours.as_raw_fd(), &UnixAddr::new(path.as_str()).unwrap()) {
            Err(nix::errno::Errno::EAGAIN) => break,
            connected => connected.unwrap(),
        }
        queue.push(ours);
    }
    let way = format!("`kill -9 {}`", monitor.0);
    dock.fails(&["rm", "-f", &id]).complains(&way);
    kill(monitor.0, Signal::SIGKILL).unwrap();
    eventually(|| monitor.is_ending().then_some(())).unwrap();
    drop(queue);
    dock.ok(&["rm", "-f", &id]);
    dock.ok(&["prune", "-f"]);
    dock.is_empty();
}

/// Words that make no sense cost whoever says them the connection, and the container nothing.
#[test]
fn a_message_without_sense() {
    let _attack = tried("");
    let dock = Dock::new();
    let id = dock.start(&[], &["sleep", "1000"]);
    let first = dock.process(&id, "process");
    let short = File::open(dock.state.join("run")).unwrap();
    let path = format!("/proc/self/fd/{}/{id}.sock", short.as_raw_fd());
    for words in [
        "{\"Signal\":200}",
        "{\"Signal\":0}",
        "{\"Signal\":-9}",
        "{\"Size\":[1]}",
        "\"Taken\"",
        "\"Started\"",
        "{}",
        "\u{0}",
        "nothing",
    ] {
        let flags = SockFlag::SOCK_CLOEXEC;
        let ours = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).unwrap();
        connect(ours.as_raw_fd(), &UnixAddr::new(path.as_str()).unwrap()).unwrap();
        send(ours.as_raw_fd(), words.as_bytes(), MsgFlags::MSG_NOSIGNAL).unwrap();
        // It hangs up, when it has read that.
        let mut polled = [PollFd::new(
            std::os::fd::AsFd::as_fd(&ours),
            PollFlags::empty(),
        )];
        let hung_up = poll(&mut polled, PollTimeout::from(20_000_u16)).unwrap();
        assert_eq!(hung_up, 1, "{words:?} costs nothing");
        assert!(
            !first.is_ending(),
            "{words:?} has cost the container its life"
        );
    }
    dock.ok(&["exec", &id, "true"]);
    dock.ok(&["rm", "-f", &id]);
    dock.is_empty();
}

/// Somebody attaches and is suspended: the command and its log go on, and he reads in the end what he has missed.
#[test]
fn who_lags_behind_is_left_behind() {
    let _attack = tried("");
    let dock = Dock::new();
    let line = "while :; do echo 0123456789012345678901234567890123456789; done";
    let id = dock.start(&["--log-max-size", "0"], &["sh", "-c", line]);
    let mut command = dock.command(&["attach", "--no-stdin", &id]);
    let mut program = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = program.stdout.take().unwrap();
    output.read_exact(&mut [0; 100]).unwrap();
    let pid = Pid::from_raw(program.id() as i32);
    kill(pid, Signal::SIGSTOP).unwrap();
    // More than all pipes and queues on the way hold together.
    let log = dock.container(&id).join("container.log");
    let length = || fs::metadata(&log).unwrap().len();
    let before = length();
    eventually(|| (length() > before + (8 << 20)).then_some(())).expect("its log waits");
    kill(pid, Signal::SIGCONT).unwrap();
    std::io::copy(&mut output, &mut std::io::sink()).unwrap();
    let mut errors = String::new();
    program
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut errors)
        .unwrap();
    assert_eq!(program.wait().unwrap().code(), Some(125), "{errors}");
    assert!(
        errors.contains("left behind") && errors.contains("logs -f"),
        "{errors}"
    );
    dock.ok(&["rm", "-f", &id]);
    dock.is_empty();
}

/// A record whose ID isn't its folder's hides no other, and panics nobody.
#[test]
fn a_record_with_another_id() {
    let _attack = tried("");
    let dock = Dock::new();
    dock.run_in(&["--name", "good"], &["true"]).success();
    dock.run_in(&["--name", "bad"], &["true"]).success();
    let id = dock.id("bad");
    let file = dock.container(&id).join("config.json");
    let sound = dock.record(&id);
    for (key, value) in [
        ("id", "\"abc\""),
        ("id", "\"\""),
        ("name", "\"../../x\""),
        ("plan.command", "[]"),
    ] {
        let mut record = sound.clone();
        let mut place = &mut record;
        for part in key.split('.') {
            place = &mut place[part];
        }
        *place = serde_json::from_str(value).unwrap();
        fs::write(&file, record.to_string()).unwrap();
        let listed = dock.run(&["ps", "-a"]).success();
        listed
            .prints("good")
            .complains("`rm -f")
            .complains(&id[..12]);
        for words in [["start", &id], ["logs", &id], ["inspect", &id]] {
            let ran = dock.run(&words);
            assert!(!ran.errors().contains("panicked"), "{ran}");
        }
    }
    dock.ok(&["rm", "-f", &id]);
    dock.ok(&["prune", "-f"]);
    dock.is_empty();
}

/// Those in there stop whoever comes in, before there is a command: he isn't held up for ever, who asked for it.
#[test]
fn who_is_held_up_on_the_way_in() {
    let _attack = tried("");
    let dock = Dock::new();
    let id = stops_everybody(&dock);
    let command = || {
        let mut command = dock.command(&["exec", &id, "true"]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.spawn().unwrap()
    };
    let mut held_up = false;
    for _ in 0..300 {
        let mut program = command();
        let pid = Pid::from_raw(program.id() as i32);
        // The one who came in, stopped, and whether it is its command already.
        let stopped = || {
            let file = format!("/proc/{pid}/task/{pid}/children");
            let children = fs::read_to_string(file).unwrap_or_default();
            let child = children.split_whitespace().next()?.parse().ok()?;
            let child = Process(Pid::from_raw(child));
            let state = child.status("State").ok()?;
            state.starts_with('T').then(|| child.status("Name").ok())?
        };
        let name = eventually(|| match program.try_wait().unwrap() {
            Some(_) => Some(String::new()),
            None => stopped(),
        });
        held_up = name.as_deref() != Some("") && name.as_deref() != Some("true");
        let asked = if held_up {
            Signal::SIGINT
        } else {
            Signal::SIGKILL
        };
        let _ = kill(pid, asked);
        let ended = eventually(|| program.try_wait().unwrap());
        let Some(status) = ended else {
            program.kill().unwrap();
            panic!("it can't be interrupted");
        };
        if held_up {
            assert_eq!(status.code(), Some(130), "{name:?}");
            break;
        }
    }
    assert!(held_up, "nobody was held up");
    dock.ok(&["rm", "-f", &id]);
    dock.is_empty();
}

/// Those in there stop or trace a command that would end when it is asked to: the third request ends it, and whoever
/// asked for it goes.
#[test]
fn a_command_that_is_held_up() {
    let dock = Dock::new();
    let id = dock.start(&[], &["sleep", "1000"]);
    for traces in [false, true] {
        let _attack = tried("");
        let line = "trap : TERM; echo ready; while :; do sleep 0.1; done";
        let mut program = dock.command(&["exec", &id, "sh", "-c", line]);
        let mut program = program
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        program
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut [0; 6])
            .unwrap();
        let exec = Process(Pid::from_raw(program.id() as i32));
        let command = exec.children()[0];
        match traces {
            true => ptrace::seize(command.0, ptrace::Options::empty()).unwrap(),
            false => kill(command.0, Signal::SIGSTOP).unwrap(),
        }
        // One that is traced stands still whenever it gets a signal, and has ended without its parent's knowledge.
        let ended = eventually(|| {
            kill(exec.0, Signal::SIGTERM).unwrap();
            program.try_wait().unwrap()
        });
        if ended.is_none() {
            program.kill().unwrap();
        }
        if traces {
            // It is ours, until we have seen it end.
            let _ = kill(command.0, Signal::SIGKILL);
            nix::sys::wait::waitpid(command.0, None).unwrap();
        }
        let code = ended.and_then(|status| status.code());
        assert!(matches!(code, Some(137 | 143)), "{code:?}");
    }
    dock.ok(&["rm", "-f", &id]);
    dock.is_empty();
}

/// Who fails on the way in is nobody's concern in there, when whoever asked for it says so: PID 1 can end.
#[test]
fn nobody_is_left_who_failed_on_the_way_in() {
    let _attack = tried("");
    let dock = Dock::new();
    let id = dock.start(&[], &["sleep", "1000"]);
    let first = dock.process(&id, "process");
    let here = first.namespace("pid").unwrap();
    for flags in [&[][..], &["-d"]] {
        dock.run(&[&["exec"], flags, &[&id, "/nonexistent"]].concat())
            .code(127);
        let inside = |process: &Process| {
            process
                .pids()
                .is_ok_and(|pids| pids.len() > first.pids().map_or(0, |pids| pids.len() - 1))
                && process.namespace("pid").is_ok_and(|space| space == here)
        };
        let all = Process::all();
        let left: Vec<_> = all.into_iter().filter(inside).collect();
        assert_eq!(left, [first], "{flags:?}");
    }
    let mut program = dock.command(&["stop", "-t", "0", &id]).spawn().unwrap();
    let ended = in_a_while(|| program.try_wait().unwrap());
    assert!(ended.is_some(), "it can't be stopped");
    dock.ok(&["rm", &id]);
    dock.is_empty();
}

/// Somebody is attached, and stands still when the container ends with an exit code that wants an explanation: nobody
/// waits for them for ever.
#[test]
fn who_is_asked_to_look_and_does_not() {
    let dock = Dock::new();
    for policy in ["no", "always"] {
        let _attack = tried("");
        let line = "until [ -e /go ]; do sleep 0.02; done; exit 127";
        let id = dock.start(&["--restart", policy], &["sh", "-c", line]);
        let attach = || {
            let mut command = dock.command(&["attach", "--no-stdin", &id]);
            let silent = || Stdio::null();
            command.stdin(silent()).stdout(silent()).stderr(silent());
            command.spawn().unwrap()
        };
        let mut attached = attach();
        let pid = Pid::from_raw(attached.id() as i32);
        let process = Process(pid);
        // It waits for news.
        eventually(|| process.status("State").ok()?.starts_with('S').then_some(())).unwrap();
        kill(pid, Signal::SIGSTOP).unwrap();
        // The container may end, and its command with it, before touch has.
        dock.run(&["exec", &id, "touch", "/go"]);
        let done = || match policy {
            "no" => dock.status(&id).0 == "exited",
            _ => dock.record(&id)["state"]["restarts"].as_u64() >= Some(2),
        };
        let ended = in_a_while(|| done().then_some(()));
        assert!(ended.is_some(), "--restart {policy}: it waits");
        attached.kill().unwrap();
        attached.wait().unwrap();
        dock.ok(&["rm", "-f", &id]);
    }
    dock.is_empty();
}

/// Somebody who asked for a command in the background ends before it runs, since those in there hold it up: nobody of
/// theirs stays.
#[test]
fn nobody_keeps_what_nobody_asks_for() {
    let _attack = tried("");
    let dock = Dock::new();
    let id = &stops_everybody(&dock);
    let mut held_up = false;
    for _ in 0..300 {
        let mut program = dock.command(&["exec", "-d", id, "sleep", "1000"]);
        let mut program = program
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let caller = Process(Pid::from_raw(program.id() as i32));
        // The caller's child stays, and has the one who comes in for a child.
        let stopped = || {
            let keeper = *caller.children().first()?;
            let child = *keeper.children().first()?;
            let state = child.status("State").ok()?;
            let is_ours = child.status("Name").is_ok_and(|name| name != "sleep");
            (state.starts_with('T') && is_ours).then_some((keeper, child))
        };
        let found = eventually(|| match program.try_wait().unwrap() {
            Some(_) => Some(None),
            None => stopped().map(Some),
        });
        if let Some(Some((keeper, child))) = found {
            kill(caller.0, Signal::SIGTERM).unwrap();
            program.wait().unwrap();
            let gone = || (keeper.is_ending() && child.is_ending()).then_some(());
            eventually(gone).expect("somebody stays");
            held_up = true;
            break;
        }
        let _ = program.kill();
        program.wait().unwrap();
    }
    assert!(held_up, "nobody was held up");
    dock.ok(&["rm", "-f", id]);
    dock.is_empty();
}

/// Whoever saves a container is asked to end meanwhile: so they do, and it goes on.
#[test]
fn who_commits_can_be_interrupted() {
    let _attack = tried("");
    let dock = Dock::new();
    let large = dock.folder.path().join("large");
    dock.root.copy(&large);
    let mut noise = File::open("/dev/urandom").unwrap().take(128 << 20);
    std::io::copy(&mut noise, &mut File::create(large.join("noise")).unwrap()).unwrap();
    let id = dock.ok(&[
        "run",
        "-d",
        "--image",
        large.to_str().unwrap(),
        "sleep",
        "1000",
    ]);
    let id = id.trim();
    let archive = dock.folder.path().join("saved.tar.gz");
    let mut command = dock.command(&["commit", id, archive.to_str().unwrap()]);
    let mut program = command.stderr(Stdio::null()).spawn().unwrap();
    let frozen = || dock.status(id).0 == "paused";
    eventually(|| frozen().then_some(())).expect("it isn't saved while it stands still");
    kill(Pid::from_raw(program.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(
        program.wait().unwrap().code(),
        None,
        "it goes on to its end"
    );
    eventually(|| (!frozen()).then_some(())).expect("it is frozen for ever");
    assert!(!archive.exists());
    dock.ok(&["rm", "-f", id]);
    dock.ok(&["prune", "-f"]);
    dock.is_empty();
}

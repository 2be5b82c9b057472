//! Hanging those who stay outside: the monitor, and whoever asks it something.

use super::tried;
use crate::dock::{Dock, groups_of};
use crate::stage::{Printed, armed_root, progress};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, send, socket,
};
use progress::attacker::{NO_LUCK, STUCK};
use progress::container::{eventually, in_a_while};
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};

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
        kill(monitor.0, Signal::SIGSTOP).unwrap();
        eventually(|| monitor.status("State").ok()?.starts_with('T').then_some(())).unwrap();
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
        let pid = nix::unistd::Pid::from_raw(program.id() as i32);
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
    kill(monitor.0, Signal::SIGSTOP).unwrap();
    eventually(|| monitor.status("State").ok()?.starts_with('T').then_some(())).unwrap();
    let pid = nix::unistd::Pid::from_raw(program.id() as i32);
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
    kill(monitor.0, Signal::SIGSTOP).unwrap();
    eventually(|| monitor.status("State").ok()?.starts_with('T').then_some(())).unwrap();
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
    let pid = nix::unistd::Pid::from_raw(program.id() as i32);
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
        ("arguments.command", "[]"),
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
    let root = armed_root(dock.folder.path(), &[]);
    let line = "while :; do for each in /proc/[0-9]*; do
        [ $each = /proc/1 ] || kill -STOP ${each#/proc/} 2>/dev/null; done; done";
    let image = root.to_str().unwrap();
    let words = ["run", "-d", "--image", image, "sh", "-c", line];
    let id = dock.ok(&words).trim().to_owned();
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
        let pid = nix::unistd::Pid::from_raw(program.id() as i32);
        // The one who came in, stopped, and whether it is its command already.
        let stopped = || {
            let file = format!("/proc/{pid}/task/{pid}/children");
            let children = fs::read_to_string(file).unwrap_or_default();
            let child = children.split_whitespace().next()?.parse().ok()?;
            let child = progress::evidence::Process(nix::unistd::Pid::from_raw(child));
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

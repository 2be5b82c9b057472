//! Step 10: `exec` comes into a container, and nothing of the host does.

use crate::attacks::tried;
use crate::stage::dock::{Dock, STEP, ended};
use crate::stage::{Printed, armed_root, copy_program, step};
use assert_cmd::assert::OutputAssertExt;
use nix::sys::signal::{Signal, kill};
use progress::checks::step05::AtTerminal;
use progress::host::container::{eventually, run_with};
use progress::host::exit_code;
use pty_process::blocking::Command as PtyCommand;
use std::fs::{self, File};
use std::process::{Command, Stdio};

#[test]
fn exit_codes_and_explanations() {
    let dock = Dock::new();
    dock.start(&["--name", "box"], &["sleep", "1000"]);
    for (command, code) in [
        (&["true"][..], 0),
        (&["sh", "-c", "exit 9"], 9),
        (&["sh", "-c", "kill -TERM $$"], 143),
        (&["no-such-program"], 127),
        (&["/etc"], 126),
    ] {
        dock.run(&[&["exec", "box"], command].concat()).code(code);
    }
    let mistyped = dock.run(&["exec", "box", "slep"]);
    mistyped.complains("did you mean sleep?");
    dock.fails(&["exec", "-w", "/no/such", "box", "true"])
        .complains("help: name a directory");
    dock.fails(&["exec", "-u", "nobody-here", "box", "true"])
        .complains("has no user nobody-here");
    dock.fails(&["exec", "nobody", "true"])
        .complains("no such container: nobody");
    dock.ok(&["stop", "-t", "0", "box"]);
    dock.fails(&["exec", "box", "true"])
        .complains("container box isn't running")
        .complains("help: `start box`");
}

#[test]
fn environment_user_and_place() {
    let dock = Dock::new();
    dock.start(
        &["--name", "box", "-e", "A=1", "-e", "B=2", "-w", "/etc"],
        &["sleep", "1000"],
    );
    let script = "echo $A $B $C; pwd; echo $SECRET; env | cut -d= -f1 | sort | tr '\\n' ' '";
    let mut command = dock.command(&["exec", "-e", "B=3", "-e", "C", "box", "sh", "-c", script]);
    let outcome = run_with(command.env("C", "4").env("SECRET", "canary")).unwrap();
    assert!(
        outcome.output.starts_with("1 3 4\n/etc\n\n"),
        "{} {}",
        outcome.output,
        outcome.errors
    );
    let script = "cat /proc/self/status";
    let status = dock.ok(&[
        "exec",
        "-u",
        "1234:5678",
        "-w",
        "/",
        "box",
        "sh",
        "-c",
        script,
    ]);
    assert!(
        status.contains("\nUid:\t1234\t1234\t1234\t1234\n"),
        "{status}"
    );
    assert!(
        status.contains("\nGid:\t5678\t5678\t5678\t5678\n"),
        "{status}"
    );
    assert!(status.contains("\nCapEff:\t0000000000000000\n"), "{status}");
}

/// Of the host nothing can be reached: no descriptor, no directory, no file behind its output.
#[test]
fn nothing_of_the_host_is_open() {
    let _attack = tried("CVE-2024-21626");
    let dock = Dock::new();
    dock.start(&["--name", "box"], &["sleep", "1000"]);
    let output = dock.folder.path().join("output");
    let script =
        "for fd in /proc/self/fd/*; do readlink $fd; done; ls -d /proc/self/fd/1/.. 2>&1; echo end";
    let mut command = dock.command(&["exec", "box", "sh", "-c", script]);
    let door = File::open(dock.folder.path()).unwrap();
    nix::fcntl::fcntl(
        &door,
        nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()),
    )
    .unwrap();
    command
        .stdin(Stdio::null())
        .stdout(File::create(&output).unwrap());
    command.assert().success();
    let said = fs::read_to_string(&output).unwrap();
    let host = dock.folder.path().to_str().unwrap();
    assert!(
        said.contains("end") && said.contains("pipe:") && !said.contains(host),
        "{said}"
    );
}

/// Whoever comes in can't be looked into on the way, not even by root of the container.
#[test]
fn the_one_who_joins_is_not_caught() {
    let _attack = tried("CVE-2016-9962");
    let dock = Dock::new();
    // It catches whatever it sees, as fast as it can.
    let script = "while :; do for p in /proc/[0-9]*; do case $p in /proc/1) ;; *) \
        cat $p/environ 2>/dev/null | tr '\\0' '\\n'; readlink $p/exe $p/root/proc/1/exe 2>/dev/null; esac; done; done";
    let id = dock.start(
        &["--name", "box", "--log-max-size", "0"],
        &["sh", "-c", script],
    );
    for _ in 0..60 {
        let mut command = dock.command(&["exec", "box", "true"]);
        let outcome = run_with(command.env("SECRET", "canary-4711")).unwrap();
        assert_eq!(outcome.code, 0, "{}", outcome.errors);
    }
    dock.ok(&["stop", "-t", "0", "box"]);
    let log = fs::read_to_string(dock.container(&id).join("container.log")).unwrap();
    assert!(
        !log.contains("canary-4711"),
        "the host's environment was read"
    );
    assert!(!log.contains("step10-exec"), "the host's program was seen");
}

#[test]
fn a_terminal_inside() {
    let dock = Dock::new();
    dock.start(&["--name", "box"], &["sleep", "1000"]);
    let command = PtyCommand::new(crate::stage::step(crate::stage::dock::STEP))
        .args(["exec", "-it", "box", "sh"])
        .env("TEN_STEPS_STATE", &dock.state);
    let mut terminal = AtTerminal::start(command, "# ").unwrap();
    terminal.write("tty; echo $TERM\n").unwrap();
    terminal.read_until("/dev/pts/").unwrap();
    terminal.read_until("xterm").unwrap();
    // Ctrl-C ends what runs in there, and nothing else.
    terminal.write("sleep 1000\n").unwrap();
    let sleeps = || dock.ok(&["top", "box"]).matches("sleep 1000").count() == 2;
    eventually(|| sleeps().then_some(())).unwrap();
    terminal.write("\x03").unwrap();
    eventually(|| (!sleeps()).then_some(())).unwrap();
    terminal.write("exit 5\n").unwrap();
    let ended = eventually(|| terminal.program.try_wait().unwrap()).unwrap();
    assert_eq!(ended.code(), Some(5));
    dock.fails(&["exec", "-it", "box", "sh"])
        .complains("standard input is no terminal");
}

/// What was started by exec ends with the container, and with -d only with that.
#[test]
fn it_dies_with_the_container() {
    let dock = Dock::new();
    let id = dock.start(&["--name", "box"], &["sleep", "1000"]);
    let inside = dock.foreground(&["exec", "box", "sh", "-c", "echo ready; exec sleep 1000"]);
    let first = inside.first_process();
    assert_eq!(dock.ok(&["exec", "-d", "box", "sleep", "2000"]), "");
    let detached = || dock.ok(&["top", "box"]).contains("sleep 2000");
    // It is called so when it has become the command, which takes it a moment longer.
    eventually(|| detached().then_some(())).unwrap();
    // The caller of the first is killed, and that one with it; the second goes on.
    kill(inside.program().0, Signal::SIGKILL).unwrap();
    eventually(|| (!dock.ok(&["top", "box"]).contains("sh -c")).then_some(())).unwrap();
    eventually(|| (!first.file("stat").exists()).then_some(())).unwrap();
    assert!(detached());
    let inside = dock.foreground(&["exec", "box", "sh", "-c", "echo ready; exec sleep 1000"]);
    dock.ok(&["stop", "-t", "0", "box"]);
    assert_eq!(inside.ended().unwrap().code, 137);
    assert_eq!(dock.status(&id).0, "exited");
    dock.fails(&["exec", "-d", "box", "true"]);
}

#[test]
fn bytes_go_in_and_out() {
    let dock = Dock::new();
    dock.start(&["--name", "box"], &["sleep", "1000"]);
    let bytes: Vec<u8> = (0..300_000_u32)
        .map(|number| (number % 251) as u8)
        .collect();
    let (from, to) = (
        dock.folder.path().join("from"),
        dock.folder.path().join("to"),
    );
    fs::write(&from, &bytes).unwrap();
    let mut command = dock.command(&["exec", "-i", "box", "cat"]);
    command
        .stdin(File::open(&from).unwrap())
        .stdout(File::create(&to).unwrap());
    command.assert().success();
    assert!(fs::read(&to).unwrap() == bytes);
}

#[test]
fn privileged_is_said_so() {
    let dock = Dock::new();
    dock.start(&["--name", "box"], &["sleep", "1000"]);
    let status = |flags: &[&str]| {
        dock.ok(&[&["exec"], flags, &["box", "cat", "/proc/self/status"]].concat())
    };
    assert!(status(&[]).contains("\nCapEff:\t00000000a80425fb\n"));
    let privileged = status(&["--privileged"]);
    assert!(privileged.contains("\nSeccomp:\t0\n"), "{privileged}");
    let effective = privileged
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:\t"))
        .unwrap();
    assert!(
        u64::from_str_radix(effective, 16).unwrap() & 1 << 21 != 0,
        "no CAP_SYS_ADMIN: {effective}"
    );
}

/// A container that is ending and somebody who comes in: one of them wins, in plain words.
#[test]
fn whoever_comes_too_late_is_told() {
    let dock = Dock::new();
    let root = armed_root(dock.folder.path(), &[]);
    let turns = if crate::stage::inside() { 10 } else { 30 };
    for _ in 0..turns {
        let words = [
            "run",
            "-d",
            "--image",
            root.to_str().unwrap(),
            "sleep",
            "0.03",
        ];
        let id = dock.ok(&words).trim().to_owned();
        loop {
            let ran = dock.run(&["exec", &id, "true"]);
            match exit_code(ran.get_output().status) {
                0 => continue,
                125 => {
                    let errors = ran.errors();
                    let words = ["isn't running", "has just ended", "no such container"];
                    assert!(words.iter().any(|word| errors.contains(word)), "{ran}");
                }
                // It was killed with the container.
                137 => {}
                _ => panic!("{ran}"),
            }
            break;
        }
        dock.ok(&["rm", "-f", &id]);
    }
    dock.is_empty();
}

#[test]
fn a_rootfs_of_ones_own() {
    let dock = Dock::new();
    let root = dock.folder.path().join("root");
    dock.root.copy(&root);
    let root = root.display().to_string();
    dock.ok(&[
        "run", "-d", "--name", "box", "--rootfs", &root, "sleep", "1000",
    ]);
    dock.ok(&["exec", "box", "sh", "-c", "echo x >/x"]);
    assert_eq!(fs::read_to_string(format!("{root}/x")).unwrap(), "x\n");
    dock.fails(&["diff", "box"])
        .complains("writes into its --rootfs itself");
    dock.ok(&["stop", "-t", "0", "box"]);
    dock.ok(&[
        "cp",
        "box:/x",
        &dock.folder.path().join("out").display().to_string(),
    ]);
    let archive = dock.folder.path().join("a.tar").display().to_string();
    dock.ok(&["commit", "box", &archive]);
    dock.ok(&["rm", "box"]);
    dock.is_empty();
}

/// A device that the container's root has put where exec finds /dev/null isn't opened.
#[test]
fn no_device_is_opened_for_the_container() {
    let _attack = tried("CVE-2025-52565");
    let dock = Dock::new();
    dock.start(&["--name", "box"], &["sleep", "1000"]);
    // Memory of the kernel's, for an example that harms nobody; the rules let nobody in there open it.
    dock.ok(&[
        "exec",
        "box",
        "sh",
        "-c",
        "rm /dev/null; mknod /dev/null c 1 11",
    ]);
    for flags in [&[][..], &["-d"]] {
        let words = [&["exec"], flags, &["box", "sleep", "0"]].concat();
        dock.fails(&words)
            .complains("/dev/null in the container is something else");
    }
    dock.ok(&["exec", "-i", "box", "true"]);
}

/// The host's program, which the container makes us execute in there, can't be written to.
#[test]
fn the_hosts_program_stays_as_it_is() {
    let _attack = tried("CVE-2019-5736");
    let dock = Dock::new();
    let program = dock.folder.path().join("other");
    copy_program(step(STEP), &program);
    let before = fs::read(&program).unwrap();
    let script = "printf '#!/proc/self/exe\\n' >/bin/trap; chmod 755 /bin/trap; echo ready; \
        while :; do for p in /proc/[0-9]*; do [ $p = /proc/1 ] || echo OWNED >>$p/exe; done; done 2>/dev/null";
    let id = dock.start(&["--name", "box"], &["sh", "-c", script]);
    dock.until_it_says("box", "ready");
    // Another file than the one that the container's monitor keeps busy.
    let exec = |command: &str| {
        Command::new(&program)
            .args(["exec", "box", command])
            .env("TEN_STEPS_STATE", &dock.state)
            .assert()
    };
    for _ in 0..40 {
        exec("trap").failure();
        assert!(
            fs::read(&program).unwrap() == before,
            "the container has written to it"
        );
    }
    exec("true").success();
    // And the monitor itself, of which PID 1 was a copy, is on a mount for reading only.
    let monitor = dock.process(&id, "monitor").file("exe");
    let flags = nix::sys::statvfs::statvfs(&monitor).unwrap().flags();
    assert!(flags.contains(nix::sys::statvfs::FsFlags::ST_RDONLY));
}

/// Somebody who doesn't see the control groups joins none, and nothing.
#[test]
fn who_sees_no_groups_does_not_come_in() {
    let _attack = tried("");
    let dock = Dock::new();
    dock.start(&["--name", "box"], &["sleep", "1000"]);
    let script = "umount -l /sys/fs/cgroup; exec \"$0\" exec box true";
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh", "-c", script])
        .arg(step(STEP))
        .env("TEN_STEPS_STATE", &dock.state);
    ended(&mut command).code(125).complains("control groups");
}

/// What was started in the background goes on, and exec doesn't wait for it.
#[test]
fn exec_ends_with_its_command() {
    let dock = Dock::new();
    dock.start(&["--name", "box"], &["sleep", "1000"]);
    let said = dock.ok(&["exec", "box", "sh", "-c", "sleep 1000 & echo said"]);
    assert_eq!(said, "said\n");
    let both = || dock.ok(&["top", "box"]).matches("sleep 1000").count() == 2;
    eventually(|| both().then_some(())).expect("one is gone");
    // A second terminal is as good as the first.
    for _ in 0..2 {
        let ran = dock.run(&["exec", "-t", "box", "tty"]);
        assert!(ran.printed().starts_with("/dev/pts/"), "{ran}");
    }
}

/// A container that has made groups of its own, as an init system does: in version 2 its topmost takes nobody then.
#[test]
fn who_has_groups_of_his_own() {
    let dock = Dock::new();
    let line = "[ -e /sys/fs/cgroup/cgroup.controllers ] || exec sleep 1000
        mount -o remount,rw /sys/fs/cgroup && cd /sys/fs/cgroup && mkdir init other && echo 0 >init/cgroup.procs &&
        echo +pids >cgroup.subtree_control && exec sleep 1000";
    let root = armed_root(dock.folder.path(), &[]);
    let image = root.to_str().unwrap();
    let words = [
        "run",
        "-d",
        "--privileged",
        "--image",
        image,
        "sh",
        "-c",
        line,
    ];
    let id = dock.ok(&words).trim().to_owned();
    let first = dock.process(&id, "process");
    let is_ready = || {
        first
            .strings("cmdline")
            .is_ok_and(|words| words.first().is_some_and(|word| word == "sleep"))
            .then_some(())
    };
    eventually(is_ready).unwrap_or_else(|| panic!("{}", dock.run(&["logs", &id])));
    let groups = |text: &str| {
        text.lines()
            .find(|line| line.starts_with("0::"))
            .map(str::to_owned)
    };
    let theirs = groups(&fs::read_to_string(first.file("cgroup")).unwrap());
    let mut program = dock.command(&["exec", "-i", &id, "cat"]);
    let mut program = program
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let joined = eventually(|| {
        let children = format!("/proc/{0}/task/{0}/children", program.id());
        let child = fs::read_to_string(children).ok()?;
        let cgroup =
            fs::read_to_string(format!("/proc/{}/cgroup", child.split_whitespace().next()?))
                .ok()?;
        (groups(&cgroup) == theirs).then_some(())
    });
    drop(program.stdin.take());
    let status = program.wait().unwrap();
    assert!(
        joined.is_some() && status.success(),
        "{status:?}, PID 1 is in {theirs:?}"
    );
    dock.ok(&["rm", "-f", &id]);
    dock.is_empty();
}

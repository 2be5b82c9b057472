//! Step 10: looking in from outside.

use crate::dock::{Dock, STEP};
use crate::stage::{armed_root, copy_program, have, step};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use progress::checks::step05::AtTerminal;
use progress::container::{eventually, run_with};
use pty_process::blocking::Command as PtyCommand;
use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;
use step08_overlay::attributes::{attributes, set_attribute};

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
        let outcome = dock.run(&[&["exec", "box"], command].concat());
        assert_eq!(outcome.code, code, "{command:?}: {}", outcome.errors);
    }
    let outcome = dock.run(&["exec", "box", "slep"]);
    assert!(
        outcome.errors.contains("did you mean sleep?"),
        "{}",
        outcome.errors
    );
    assert!(
        dock.fails(&["exec", "-w", "/no/such", "box", "true"])
            .contains("help: name a directory")
    );
    assert!(
        dock.fails(&["exec", "-u", "nobody-here", "box", "true"])
            .contains("has no user nobody-here")
    );
    assert!(
        dock.fails(&["exec", "nobody", "true"])
            .contains("no such container: nobody")
    );
    dock.ok(&["stop", "-t", "0", "box"]);
    let why = dock.fails(&["exec", "box", "true"]);
    assert!(
        why.contains("container box isn't running") && why.contains("help: `start box`"),
        "{why}"
    );
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
    assert!(command.status().unwrap().success());
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
    let command = PtyCommand::new(crate::stage::step(crate::dock::STEP))
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
    assert!(
        dock.fails(&["exec", "-it", "box", "sh"])
            .contains("standard input is no terminal")
    );
}

/// What was started by exec ends with the container, and with -d only with that.
#[test]
fn it_dies_with_the_container() {
    let dock = Dock::new();
    let id = dock.start(&["--name", "box"], &["sleep", "1000"]);
    let inside = dock.foreground(&["exec", "box", "sh", "-c", "echo ready; exec sleep 1000"]);
    let first = inside.first_process();
    let outcome = dock.run(&["exec", "-d", "box", "sleep", "2000"]);
    assert_eq!((outcome.code, outcome.output.as_str()), (0, ""));
    let detached = || dock.ok(&["top", "box"]).contains("sleep 2000");
    assert!(detached());
    // The caller of the first is killed, and that one with it; the second goes on.
    kill(inside.program().0, Signal::SIGKILL).unwrap();
    eventually(|| (!dock.ok(&["top", "box"]).contains("sh -c")).then_some(())).unwrap();
    eventually(|| (!first.file("stat").exists()).then_some(())).unwrap();
    assert!(detached());
    let inside = dock.foreground(&["exec", "box", "sh", "-c", "echo ready; exec sleep 1000"]);
    dock.ok(&["stop", "-t", "0", "box"]);
    assert_eq!(inside.ended().unwrap().code, 137);
    assert_eq!(dock.status(&id).0, "exited");
    assert_eq!(dock.run(&["exec", "-d", "box", "true"]).code, 125);
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
    assert!(command.status().unwrap().success());
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

#[test]
fn top_and_stats() {
    let dock = Dock::new();
    let id = dock.start(
        &["--name", "busy", "-m", "64m"],
        &["sh", "-c", "sleep 1000 & while :; do :; done"],
    );
    let top = dock.ok(&["top", "busy"]);
    let first = dock.process(&id, "process").0.to_string();
    let line = top
        .lines()
        .find(|line| line.split_whitespace().nth(1) == Some(&first))
        .unwrap();
    let fields: Vec<&str> = line.split_whitespace().collect();
    assert_eq!((fields[0], fields[3], fields[4]), ("0", "1", "R"), "{top}");
    assert!(top.contains("sleep 1000"), "{top}");
    let stats = dock.ok(&["stats", "--no-stream", "--format", "json", "busy"]);
    let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
    let cpu: f64 = stats["CPUPerc"]
        .as_str()
        .unwrap()
        .trim_end_matches('%')
        .parse()
        .unwrap();
    assert!(cpu > 5.0 && cpu < 250.0, "{stats}");
    assert_eq!(stats["PIDs"], "2");
    assert!(
        stats["MemUsage"].as_str().unwrap().ends_with(" / 64.0 MiB"),
        "{stats}"
    );
    let table = dock.ok(&["stats", "--no-stream"]);
    assert!(table.starts_with("CONTAINER ID   NAME   CPU %"), "{table}");
    // It ends when the container does.
    let watching = dock.foreground(&["stats", "busy"]);
    dock.ok(&["rm", "-f", "busy"]);
    assert_eq!(watching.ended().unwrap().code, 0);
    assert!(dock.fails(&["stats", "busy"]).contains("no such container"));
}

#[test]
fn diff_tells_of_every_change() {
    let dock = Dock::new();
    dock.run_in(&["--name", "quiet"], &["true"]);
    assert_eq!(dock.ok(&["diff", "quiet"]), "");
    let script = "echo x >/new; mkdir -p /a/b; echo x >/a/b/c; rm /etc/passwd; echo x >>/etc/group; \
        rm -r /usr/lib*/terminfo /etc/terminfo /lib/terminfo 2>/dev/null; chmod 701 /root";
    dock.run_in(&["--name", "box"], &["sh", "-c", script]);
    let diff = dock.ok(&["diff", "box"]);
    for line in [
        "A /new",
        "A /a",
        "A /a/b",
        "A /a/b/c",
        "C /etc",
        "D /etc/passwd",
        "C /etc/group",
        "C /root",
    ] {
        assert!(
            diff.lines().any(|other| other == line),
            "{line} isn't there: {diff}"
        );
    }
    assert!(
        !diff.contains("/etc/hosts") && !diff.contains("/proc"),
        "{diff}"
    );
    // A directory that took the place of another.
    dock.run_in(
        &["--name", "opaque"],
        &["sh", "-c", "rm -r /etc; mkdir /etc; echo x >/etc/only"],
    );
    let diff = dock.ok(&["diff", "opaque"]);
    for line in ["C /etc", "A /etc/only", "D /etc/passwd"] {
        assert!(
            diff.lines().any(|other| other == line),
            "{line} isn't there: {diff}"
        );
    }
}

/// Docker's rules: to a name, into a directory, what is in one.
#[test]
fn cp_both_ways() {
    let dock = Dock::new();
    let id = dock.start(&["--name", "box"], &["sleep", "1000"]);
    let folder = dock.folder.path().join("host");
    fs::create_dir_all(folder.join("tree/below")).unwrap();
    fs::write(folder.join("tree/file"), "text\n").unwrap();
    fs::write(folder.join("tree/below/deep"), "deep\n").unwrap();
    symlink("file", folder.join("tree/link")).unwrap();
    fs::set_permissions(folder.join("tree/file"), fs::Permissions::from_mode(0o4750)).unwrap();
    let host = |name: &str| folder.join(name).display().to_string();
    let inside = |script: &str| dock.ok(&["exec", "box", "sh", "-c", script]);

    dock.ok(&["cp", &host("tree/file"), "box:/tmp/name"]);
    assert_eq!(
        inside("cat /tmp/name; stat -c '%a %u %g' /tmp/name"),
        "text\n4750 0 0\n"
    );
    dock.ok(&["cp", &host("tree/file"), "box:/tmp"]);
    dock.ok(&["cp", &host("tree"), "box:/tmp"]);
    dock.ok(&["cp", &host("tree"), "box:/new"]);
    dock.ok(&["cp", &host("tree/."), "box:/tmp"]);
    assert_eq!(
        inside(
            "cat /tmp/file /tmp/tree/below/deep /new/below/deep /tmp/below/deep; readlink /new/link"
        ),
        "text\ndeep\ndeep\ndeep\nfile\n"
    );
    inside("printf over >/tmp/name");
    dock.ok(&["cp", "box:/tmp/name", &host("back")]);
    let back = fs::metadata(host("back")).unwrap();
    assert_eq!(fs::read_to_string(host("back")).unwrap(), "over");
    assert_eq!(
        (back.mode() & 0o7777, back.uid()),
        (0o750, 0),
        "setuid stays inside"
    );
    dock.ok(&["cp", "box:/new", &folder.display().to_string()]);
    dock.ok(&["cp", "box:/new/.", &host("contents")]);
    assert_eq!(
        fs::read_to_string(host("new/below/deep")).unwrap(),
        "deep\n"
    );
    assert_eq!(
        fs::read_to_string(host("contents/below/deep")).unwrap(),
        "deep\n"
    );
    assert_eq!(
        fs::read_link(host("contents/link")).unwrap(),
        Path::new("file")
    );
    dock.ok(&["cp", "-L", "box:/new/link", &host("followed")]);
    assert!(fs::symlink_metadata(host("followed")).unwrap().is_file());

    assert!(
        dock.fails(&["cp", "box:/nothing", &host("x")])
            .contains("there is no such file")
    );
    assert!(
        dock.fails(&["cp", &host("tree"), "box:/tmp/name"])
            .contains("it is no directory")
    );
    assert!(
        dock.fails(&["cp", &host("back"), "box:/no/such/place"])
            .contains("No such file")
    );
    assert!(
        dock.fails(&["cp", &host("back"), "box:/nowhere/"])
            .contains("no such directory")
    );
    assert!(
        dock.fails(&["cp", &host("a"), &host("b")])
            .contains("neither of the two")
    );
    assert!(
        dock.fails(&["cp", "box:/a", "box:/b"])
            .contains("both are in containers")
    );

    // It needn't run.
    dock.ok(&["stop", "-t", "0", "box"]);
    dock.ok(&["cp", &host("back"), "box:/later"]);
    dock.ok(&["cp", "box:/tmp/below/deep", &host("deep")]);
    dock.ok(&["start", "box"]);
    assert_eq!(inside("cat /later"), "over");
    assert!(dock.process(&id, "process").file("stat").exists());
}

/// A root full of traps leads nowhere else.
#[test]
fn cp_is_not_led_out() {
    let dock = Dock::new();
    let canary = dock.folder.path().join("canary");
    fs::create_dir(&canary).unwrap();
    fs::write(canary.join("secret"), "of the host\n").unwrap();
    let host = canary.display().to_string();
    dock.start(&["--name", "box", "--cap-add", "MKNOD"], &["sleep", "1000"]);
    let script = format!(
        "ln -s {host} /way; ln -s {host}/secret /file; ln -s /proc/1/root /root/one; mkdir -p /tree; \
         ln -s ../../../../../../../..{host} /tree/up; mknod /tree/pipe p; mknod /tree/zero c 1 5; \
         cp /bin/cat /tree/setuid; chmod 6755 /tree/setuid"
    );
    dock.ok(&["exec", "box", "sh", "-c", &script]);
    let target = dock.folder.path().join("target");
    fs::create_dir(&target).unwrap();
    let to = target.display().to_string();
    // Links mean what they mean in there: nothing.
    for source in [
        "box:/way/secret",
        "box:/tree/up/secret",
        "box:/way/../way/secret",
    ] {
        let why = dock.fails(&["cp", source, &to]);
        assert!(
            why.contains("no such file") || why.contains("No such file"),
            "{why}"
        );
    }
    dock.fails(&["cp", "-L", "box:/file", &to]);
    let outcome = dock.run(&["cp", "box:/tree", &to]);
    assert_eq!(outcome.code, 0, "{}", outcome.errors);
    assert!(
        outcome.errors.contains("left out: it is no file"),
        "{}",
        outcome.errors
    );
    let tree = target.join("tree");
    assert!(fs::symlink_metadata(tree.join("up")).unwrap().is_symlink());
    let pipe = fs::symlink_metadata(tree.join("pipe")).unwrap();
    assert!(pipe.file_type().is_fifo(), "not opened, but made");
    assert!(!tree.join("zero").exists());
    assert_eq!(
        fs::metadata(tree.join("setuid")).unwrap().mode() & 0o7777,
        0o755
    );
    // And nothing is written through them.
    let bait = dock.folder.path().join("bait");
    fs::write(&bait, "bait\n").unwrap();
    let bait = bait.display().to_string();
    dock.fails(&["cp", &bait, "box:/way/"]);
    dock.run(&["cp", &bait, "box:/file"]);
    dock.run(&["cp", &bait, "box:/tree/up/bait"]);
    assert_eq!(
        fs::read_to_string(canary.join("secret")).unwrap(),
        "of the host\n"
    );
    assert_eq!(fs::read_dir(&canary).unwrap().count(), 1);
}

/// Somebody in there swaps a directory for a link while we copy.
#[test]
fn cp_in_a_race() {
    let dock = Dock::new();
    let canary = dock.folder.path().join("canary");
    fs::create_dir(&canary).unwrap();
    fs::write(canary.join("file"), "of the host\n").unwrap();
    let script = format!(
        "mkdir -p /real /spin; echo inside >/real/file; ln -s {} /link; ln -s /real /here; \
         echo up; while :; do ln -sfn /real /here; ln -sfn /link /here; done",
        canary.display()
    );
    dock.start(&["--name", "box"], &["sh", "-c", &script]);
    dock.until_it_says("box", "up");
    let to = dock.folder.path().join("to");
    for _ in 0..100 {
        dock.run(&["cp", "box:/here/file", to.to_str().unwrap()]);
        if let Ok(text) = fs::read_to_string(&to) {
            assert_eq!(text, "inside\n");
        }
    }
}

#[test]
fn shells_complete() {
    let dock = Dock::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = dock.ok(&["completions", shell]);
        assert!(
            script.contains("step10-exec") && script.contains("unpause"),
            "{shell}"
        );
        let checked = match have(shell, shell) {
            false => continue,
            true => dock.folder.path().join(shell),
        };
        fs::write(&checked, script).unwrap();
        let output = std::process::Command::new(shell)
            .arg("-n")
            .arg(&checked)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{shell}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// A container that is ending and somebody who comes in: one of them wins, in plain words.
#[test]
fn whoever_comes_too_late_is_told() {
    let dock = Dock::new();
    let root = armed_root(dock.folder.path(), &[]);
    for _ in 0..30 {
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
            let outcome = dock.run(&["exec", &id, "true"]);
            match outcome.code {
                0 => continue,
                125 => {
                    let words = ["isn't running", "has just ended", "no such container"];
                    assert!(
                        words.iter().any(|word| outcome.errors.contains(word)),
                        "{}",
                        outcome.errors
                    );
                }
                // It was killed with the container.
                137 => {}
                other => panic!("{other}: {}", outcome.errors),
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
    assert!(
        dock.fails(&["diff", "box"])
            .contains("writes into its --rootfs itself")
    );
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
        let why = dock.fails(&words);
        assert!(
            why.contains("/dev/null in the container is something else"),
            "{why}"
        );
    }
    dock.ok(&["exec", "-i", "box", "true"]);
}

/// The host's program, which the container makes us execute in there, can't be written to.
#[test]
fn the_hosts_program_stays_as_it_is() {
    let dock = Dock::new();
    let program = dock.folder.path().join("other");
    copy_program(step(STEP), &program);
    let before = fs::read(&program).unwrap();
    let script = "printf '#!/proc/self/exe\\n' >/bin/trap; chmod 755 /bin/trap; echo ready; \
        while :; do for p in /proc/[0-9]*; do [ $p = /proc/1 ] || echo OWNED >>$p/exe; done; done 2>/dev/null";
    let id = dock.start(&["--name", "box"], &["sh", "-c", script]);
    dock.until_it_says("box", "ready");
    for _ in 0..40 {
        // Another file than the one that the container's monitor keeps busy.
        let mut command = std::process::Command::new(&program);
        command
            .args(["exec", "box", "trap"])
            .env("TEN_STEPS_STATE", &dock.state);
        let output = command.output().unwrap();
        assert!(!output.status.success());
        assert!(
            fs::read(&program).unwrap() == before,
            "the container has written to it"
        );
    }
    let mut command = std::process::Command::new(&program);
    command
        .args(["exec", "box", "true"])
        .env("TEN_STEPS_STATE", &dock.state);
    assert!(command.status().unwrap().success());
    // And the monitor itself, of which PID 1 was a copy, is on a mount for reading only.
    let monitor = dock.process(&id, "monitor").file("exe");
    let flags = nix::sys::statvfs::statvfs(&monitor).unwrap().flags();
    assert!(flags.contains(nix::sys::statvfs::FsFlags::ST_RDONLY));
}

/// Somebody who doesn't see the control groups joins none, and nothing.
#[test]
fn who_sees_no_groups_does_not_come_in() {
    let dock = Dock::new();
    dock.start(&["--name", "box"], &["sleep", "1000"]);
    let script = "umount -l /sys/fs/cgroup; exec \"$0\" exec box true";
    let mut command = std::process::Command::new("unshare");
    command
        .args(["-m", "sh", "-c", script])
        .arg(crate::stage::step(crate::dock::STEP));
    let outcome = crate::dock::outcome_of(command.env("TEN_STEPS_STATE", &dock.state));
    assert_eq!(outcome.code, 125, "{}", outcome.errors);
    assert!(
        outcome.errors.contains("control groups"),
        "{}",
        outcome.errors
    );
}

/// What was started in the background goes on, and exec doesn't wait for it.
#[test]
fn exec_ends_with_its_command() {
    let dock = Dock::new();
    dock.start(&["--name", "box"], &["sleep", "1000"]);
    let outcome = dock.run(&["exec", "box", "sh", "-c", "sleep 1000 & echo said"]);
    assert_eq!((outcome.code, outcome.output.as_str()), (0, "said\n"));
    assert!(dock.ok(&["top", "box"]).matches("sleep 1000").count() == 2);
    // A second terminal is as good as the first.
    for _ in 0..2 {
        let outcome = dock.run(&["exec", "-t", "box", "tty"]);
        assert!(
            outcome.output.starts_with("/dev/pts/"),
            "{} {}",
            outcome.output,
            outcome.errors
        );
    }
}

/// The whole root of a container that runs, with what is mounted in there but not what the kernel makes up.
#[test]
fn cp_of_a_whole_root() {
    let dock = Dock::new();
    dock.start(
        &["--name", "box", "--tmpfs", "/mnt"],
        &["sh", "-c", "echo x >/mnt/file; exec sleep 1000"],
    );
    eventually(|| {
        dock.ok(&["exec", "box", "ls", "/mnt"])
            .contains("file")
            .then_some(())
    })
    .unwrap();
    let out = dock.folder.path().join("out");
    let outcome = dock.run(&["cp", "box:/.", &out.display().to_string()]);
    assert_eq!(outcome.code, 0, "{}", outcome.errors);
    assert!(
        outcome.errors.contains("it is the kernel's"),
        "{}",
        outcome.errors
    );
    assert_eq!(fs::read_to_string(out.join("mnt/file")).unwrap(), "x\n");
    assert!(out.join("etc/hostname").exists() && !out.join("proc/self").exists());
}

/// FIFOs, what is noted on a file, and capabilities, which go in, and out only when that is asked for.
#[test]
fn cp_keeps_what_there_is() {
    let dock = Dock::new();
    dock.start(&["--name", "box"], &["sleep", "1000"]);
    let folder = dock.folder.path().join("host");
    fs::create_dir(&folder).unwrap();
    let host = |name: &str| folder.join(name).display().to_string();
    nix::unistd::mkfifo(&folder.join("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    fs::set_permissions(folder.join("fifo"), fs::Permissions::from_mode(0o642)).unwrap();
    fs::write(folder.join("file"), "text\n").unwrap();
    let own = File::open(&folder).unwrap();
    // CAP_NET_RAW, permitted and effective: struct vfs_cap_data in linux/capability.h.
    let net_raw: Vec<u8> = [0x0200_0001_u32, 1 << 13, 0, 0, 0]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    let notes = [
        ("user.note", &b"kept"[..]),
        ("security.capability", &net_raw),
    ];
    for (key, value) in notes {
        match set_attribute(&own, "file".as_ref(), key.as_ref(), value) {
            // A tmpfs has no notes before Linux 6.6.
            Err(Errno::ENOTSUP) if key == "user.note" => {}
            set => set.unwrap(),
        }
    }
    let noted = |path: &Path| {
        let mut keys: Vec<_> = attributes(path).unwrap().into_iter().collect();
        keys.sort();
        keys
    };
    let inside = |name: &str| {
        let pid = dock.ok(&["inspect", "-f", "{{.State.Pid}}", "box"]);
        Path::new("/proc").join(pid.trim()).join("root").join(name)
    };
    dock.ok(&["cp", &folder.display().to_string(), "box:/tree"]);
    let fifo = fs::metadata(inside("tree/fifo")).unwrap();
    assert!(fifo.file_type().is_fifo());
    assert_eq!(fifo.mode() & 0o7777, 0o642);
    assert_eq!(noted(&inside("tree/file")), noted(&folder.join("file")));
    dock.ok(&["cp", "box:/tree", &host("out")]);
    let keys = |path: &Path| {
        noted(path)
            .into_iter()
            .map(|(key, _)| key)
            .collect::<Vec<_>>()
    };
    let mut notes = keys(&folder.join("file"));
    notes.retain(|key| key != "security.capability");
    assert_eq!(keys(&folder.join("out/file")), notes);
    assert!(
        fs::metadata(folder.join("out/fifo"))
            .unwrap()
            .file_type()
            .is_fifo()
    );
    dock.ok(&["cp", "-a", "box:/tree", &host("all")]);
    assert_eq!(noted(&folder.join("all/file")), noted(&folder.join("file")));
}

/// Where a container that doesn't run would have a volume, `cp` has it, too.
#[test]
fn cp_knows_volumes() {
    let dock = Dock::new();
    let volume = dock.folder.path().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("old"), "old\n").unwrap();
    let flag = format!("{}:/data", volume.display());
    let id = dock.start(&["--name", "box", "-v", &flag], &["sleep", "1000"]);
    dock.ok(&["stop", "-t", "0", "box"]);
    let host = |name: &str| dock.folder.path().join(name).display().to_string();
    dock.ok(&["cp", "box:/data/old", &host("copy")]);
    assert_eq!(fs::read_to_string(host("copy")).unwrap(), "old\n");
    dock.ok(&["cp", &host("copy"), "box:/data/new"]);
    assert_eq!(fs::read_to_string(volume.join("new")).unwrap(), "old\n");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&id), "{mounts}");
    dock.ok(&["rm", "box"]);
    assert!(volume.join("old").exists());
    dock.is_empty();
}

#[test]
fn cp_leaves_alone_what_is_no_file() {
    let dock = Dock::new();
    let volume = dock.folder.path().join("volume");
    fs::write(&volume, "old\n").unwrap();
    let flag = format!("{}:/vol", volume.display());
    dock.start(&["--name", "box", "-v", &flag], &["sleep", "1000"]);
    let host = |name: &str| dock.folder.path().join(name).display().to_string();
    fs::write(host("new"), "new\n").unwrap();
    // A file that something is mounted on stays mounted.
    dock.ok(&["cp", &host("new"), "box:/vol"]);
    assert_eq!(fs::read_to_string(&volume).unwrap(), "new\n");
    assert!(
        dock.ok(&["exec", "box", "cat", "/proc/self/mountinfo"])
            .contains(" /vol ")
    );
    let node = host("node");
    nix::unistd::mkfifo(node.as_str(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(
        dock.fails(&["cp", "box:/vol", &node])
            .contains("stays as it is")
    );
    symlink(host("new"), host("link")).unwrap();
    assert!(
        dock.fails(&["cp", "box:/etc/hostname", &host("link")])
            .contains("that is a link")
    );
    // Names with colons, and without slashes.
    fs::create_dir(host("d")).unwrap();
    fs::write(host("a:b"), "colon\n").unwrap();
    dock.ok(&["cp", &host("a:b"), "box:/tmp/"]);
    assert_eq!(dock.ok(&["exec", "box", "cat", "/tmp/a:b"]), "colon\n");
    dock.ok(&["cp", "box:etc", &host("d")]);
    assert!(Path::new(&host("d/etc/hostname")).exists());
    // Nobody reads what it says: its /work is still there.
    dock.ok(&[
        "exec",
        "box",
        "sh",
        "-c",
        "mkdir /work /t; echo x >/work/thesis; mknod /t/n c 1 3; echo y >/t/y",
    ]);
    dock.ok(&["stop", "-t", "0", "box"]);
    let mut command = dock.command(&["cp", "box:/t/.", &host("out")]);
    let (read, write) = nix::unistd::pipe().unwrap();
    drop(read);
    assert!(
        command
            .stderr(Stdio::from(write))
            .status()
            .unwrap()
            .success()
    );
    dock.ok(&["start", "box"]);
    assert_eq!(dock.ok(&["exec", "box", "cat", "/work/thesis"]), "x\n");
}

/// Layers on layers: nothing is asked of the host, and what is new is new.
#[test]
fn diff_of_several_layers() {
    let dock = Dock::new();
    let folder = dock.folder.path();
    let (low, high) = (folder.join("low"), folder.join("high"));
    fs::create_dir_all(low.join("opt/app/old")).unwrap();
    fs::create_dir_all(high.join("opt")).unwrap();
    fs::write(high.join("opt/app"), "a file now").unwrap();
    symlink("/etc", high.join("opt/hosts-etc")).unwrap();
    let image = |path: &Path| path.display().to_string();
    let (base, low, high) = (image(&dock.root.path()), image(&low), image(&high));
    let images = ["--image", &high, "--image", &low, "--image", &base];
    let script = "rm /opt/app /opt/hosts-etc; mkdir -p /opt/app/old /opt/hosts-etc; \
        echo x >/opt/app/old/x; echo x >/opt/hosts-etc/passwd";
    dock.ok(&[
        &["run", "--name", "box"],
        &images[..],
        &["sh", "-c", script],
    ]
    .concat());
    let diff = dock.ok(&["diff", "box"]);
    let wanted = "C /opt\nC /opt/app\nA /opt/app/old\nA /opt/app/old/x\nC /opt/hosts-etc\nA /opt/hosts-etc/passwd\n";
    assert_eq!(diff, wanted);
}

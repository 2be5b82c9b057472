//! Step 5: the container's terminal and its /dev.

use crate::attacks::tried;
use crate::stage::{DIRECT, Printed, Root, folder, have, run, script, step};
use crate::steps::groups::in_root;
use assert_cmd::assert::OutputAssertExt;
use nix::pty::Winsize;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{major, minor};
use progress::checks::step05::AtTerminal;
use progress::host::container::{Container, eventually, in_a_while, run as run_program};
use pty_process::blocking::Command as PtyCommand;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

/// The steps that have terminals.
fn steps() -> &'static [&'static str] {
    &DIRECT[4..]
}

fn at_terminal(package: &str, root: &Path, flags: &[&str], text: &str) -> AtTerminal {
    let command = PtyCommand::new(step(package))
        .arg("--rootfs")
        .arg(root)
        .args(flags);
    AtTerminal::start(command, text).unwrap()
}

/// The exit code with which the program ends by itself.
#[track_caller]
fn code(terminal: &mut AtTerminal) -> u8 {
    let ended = eventually(|| terminal.program.try_wait().unwrap());
    progress::host::exit_code(ended.expect("it doesn't end"))
}

fn until(terminal: &mut AtTerminal, text: &str) {
    terminal.read_until(text).unwrap();
    terminal.said.clear();
}

/// A shell with job control: Ctrl-C ends the foreground job only, Ctrl-Z stops it, `fg` goes on, the
/// size follows, and Ctrl-D ends it with its own exit code and no complaint.
#[test]
fn a_shell_at_a_terminal() {
    let folder = folder();
    let root = folder.path().join("root");
    run(script("from-host.sh")
        .arg(&root)
        .args(["bash", "sleep", "stty", "tty", "cat", "true"]));
    for package in steps() {
        for init in [&[][..], &["--init"]] {
            let flags = [&["-it", "-e", "PS1=@> "], init, &["bash", "--norc", "-i"]].concat();
            let mut shell = at_terminal(package, &root, &flags, "@> ");
            shell.write("tty\n").unwrap();
            until(&mut shell, "/dev/pts/0\r\n");
            shell.write("sleep 1000\n").unwrap();
            until(&mut shell, "sleep 1000\r\n");
            wait_for_foreground(&shell, "sleep");
            shell.write("\x03").unwrap();
            until(&mut shell, "^C");
            shell.write("echo code $?\n").unwrap();
            until(&mut shell, "code 130\r\n");
            shell.write("sleep 1001\n").unwrap();
            until(&mut shell, "sleep 1001\r\n");
            wait_for_foreground(&shell, "sleep");
            shell.write("\x1a").unwrap();
            until(&mut shell, "Stopped");
            shell.write("kill %1; fg\n").unwrap();
            until(&mut shell, "Terminated");
            let size = pty_process::Size::new(31, 97);
            shell.pty.resize(size).unwrap();
            // The signal has to arrive before the shell is asked.
            eventually(|| {
                let seen = window(&shell)?;
                (seen.ws_row == 31 && seen.ws_col == 97).then_some(())
            })
            .expect("the size doesn't follow");
            shell.write("stty size\n").unwrap();
            until(&mut shell, "31 97\r\n");
            shell.write("exit 7\n").unwrap();
            assert_eq!(code(&mut shell), 7, "{package}");
        }
    }
}

/// Waits until a job of the shell's is in the foreground: what is typed before goes to the shell.
fn wait_for_foreground(shell: &AtTerminal, name: &str) {
    let all = || shell.process().tree();
    let found = || {
        all()
            .into_iter()
            .find(|process| process.status("Name").is_ok_and(|is| is == name))
    };
    eventually(|| {
        let job = found()?;
        let stat = fs::read_to_string(job.file("stat")).ok()?;
        let fields: Vec<i32> = stat
            .rsplit_once(") ")?
            .1
            .split(' ')
            .skip(2)
            .take(4)
            .filter_map(|field| field.parse().ok())
            .collect();
        (fields[0] == fields[3]).then_some(())
    })
    .expect("the job is in the foreground");
}

/// The size of the container's own terminal.
fn window(shell: &AtTerminal) -> Option<Winsize> {
    let terminal = fs::File::open(shell.first_process().ok()?.file("root/dev/pts/0")).ok()?;
    use std::os::fd::AsRawFd;
    // SAFETY: the kernel writes one winsize.
    unsafe {
        let mut size: Winsize = std::mem::zeroed();
        let result = libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size);
        (result == 0).then_some(size)
    }
}

/// However the body ends: with a value, an error, or a panic.
#[test]
fn a_panic_puts_the_terminal_right() {
    use nix::sys::termios::tcgetattr;
    use std::os::fd::AsFd;
    let (_pty, terminal) = pty_process::blocking::open().unwrap();
    let before = tcgetattr(&terminal).unwrap();
    let raw = || {
        assert_ne!(
            tcgetattr(&terminal).unwrap().local_flags,
            before.local_flags
        )
    };
    let ended = std::panic::catch_unwind(|| {
        step05_tty::raw_mode(terminal.as_fd(), || -> anyhow::Result<()> {
            raw();
            panic!("on purpose")
        })
    });
    assert!(ended.is_err());
    assert_eq!(tcgetattr(&terminal).unwrap(), before);
    let failed = step05_tty::raw_mode(terminal.as_fd(), || -> anyhow::Result<()> {
        raw();
        anyhow::bail!("on purpose")
    });
    assert!(failed.is_err());
    assert_eq!(tcgetattr(&terminal).unwrap(), before);
}

/// What a program without another terminal writes to /dev/console comes to this one.
#[test]
fn the_console_is_the_terminal() {
    let root = Root::shared();
    for package in steps() {
        let flags = [
            "-it",
            "sh",
            "-c",
            "echo to the console >/dev/console; echo done; read end",
        ];
        let shell = at_terminal(package, &root.path(), &flags, "done");
        assert!(shell.said.contains("to the console"), "{}", shell.said);
        let console =
            fs::metadata(shell.first_process().unwrap().file("root/dev/console")).unwrap();
        assert_eq!(
            (major(console.rdev()), minor(console.rdev())),
            (136, 0),
            "{package}"
        );
    }
}

/// Programs that take the whole screen.
#[test]
fn less_and_vi_work() {
    if !have("less", "less") || !have("vi", "vim-tiny") {
        return;
    }
    let folder = folder();
    let root = folder.path().join("root");
    run(script("from-host.sh").arg(&root).args(["less", "vi", "sh"]));
    let text: String = (1..=500).map(|number| format!("line {number}\n")).collect();
    fs::write(root.join("text"), text).unwrap();
    let mut less = at_terminal(
        "step08-overlay",
        &root,
        &["-it", "less", "/text"],
        "line 2\r\n",
    );
    less.write("G").unwrap();
    until(&mut less, "line 500");
    less.write("q").unwrap();
    assert_eq!(code(&mut less), 0);
    let mut vi = at_terminal(
        "step05-tty",
        &root,
        &["-it", "vi", "-u", "NONE", "/text"],
        "line 2",
    );
    vi.write("ddiedited \x1b:wq\r").unwrap();
    assert_eq!(code(&mut vi), 0);
    let text = fs::read_to_string(root.join("text")).unwrap();
    assert!(text.starts_with("edited line 2\n"), "{}", &text[..20]);
}

/// Much in both directions, byte for byte, and the end is passed on.
#[test]
fn nothing_is_lost_on_the_way() {
    let root = Root::shared();
    for package in steps() {
        // Through the terminal, which turns a newline into two bytes.
        let script = "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo end";
        let ran = Command::new(step(package))
            .arg("--rootfs")
            .arg(root.path())
            .args(["-t", "sh", "-c", script])
            .stdin(Stdio::null())
            .assert()
            .success()
            .stderr("");
        let printed = &ran.get_output().stdout;
        assert_eq!(printed.len(), 3_000_000 + 2 + 5, "{ran}");
        assert!(printed.ends_with(b"x\r\nend\r\n"), "{ran}");
        // Typed, while as much comes back.
        let mut shell = at_terminal(
            package,
            &root.path(),
            &["-it", "sh", "-c", "stty -echo; echo ready; wc -c"],
            "ready",
        );
        for _ in 0..2000 {
            shell.write(&format!("{}\n", "y".repeat(99))).unwrap();
        }
        shell.write("\x04").unwrap();
        until(&mut shell, "200000\r\n");
        assert_eq!(code(&mut shell), 0);
    }
}

/// Where standard input or output is a terminal and `-t` isn't asked for, a pipe stands between, with an
/// end when the terminal says so.
#[test]
fn without_t_the_hosts_terminal_stays_outside() {
    let _attack = tried("");
    let root = Root::shared();
    for package in steps() {
        let flags = ["-i", "sh", "-c", "echo ready; cat; echo got the end"];
        let mut shell = at_terminal(package, &root.path(), &flags, "ready");
        let first = shell.first_process().unwrap();
        for number in 0..3 {
            let target = fs::read_link(first.file(&format!("fd/{number}"))).unwrap();
            assert!(
                target.to_string_lossy().starts_with("pipe:"),
                "{package}: {}",
                target.display()
            );
        }
        shell.write("a line\n").unwrap();
        // Echoed by the terminal, then by cat.
        shell.read_until("a line\r\na line\r\n").unwrap();
        shell.write("\x04").unwrap();
        until(&mut shell, "got the end");
        assert_eq!(code(&mut shell), 0);
    }
}

/// Without `-i` a command reads nothing; with it, a file or a pipe up to its end.
#[test]
fn input_is_passed_on_when_it_is_asked_for() {
    let root = Root::shared();
    for package in steps() {
        for (flags, wanted) in [(&["-i"][..], "hello"), (&[], "")] {
            assert_cmd::Command::new(step(package))
                .arg("--rootfs")
                .arg(root.path())
                .args(flags)
                .arg("cat")
                .write_stdin("hello")
                .assert()
                .stdout(wanted);
        }
        let root = root.path();
        let outcome = run_program(
            step(package),
            &["--rootfs", root.to_str().unwrap(), "-it", "true"],
        )
        .unwrap();
        assert_eq!(outcome.code, 125, "{package}");
        assert!(
            outcome
                .errors
                .contains("-it: standard input is no terminal"),
            "{}",
            outcome.errors
        );
    }
}

/// A terminal that goes takes the container with it.
#[test]
fn a_hang_up_ends_the_container() {
    let root = Root::shared();
    for package in steps() {
        for command in [
            ["sh", "-c", "echo ready; sleep 1000"],
            ["sh", "-c", "trap '' HUP; echo ready; read line; read line"],
        ] {
            let flags = [&["-it"][..], &command].concat();
            let mut shell = at_terminal(package, &root.path(), &flags, "ready");
            let first = shell.first_process().unwrap();
            let namespace = first.namespace("pid").unwrap();
            // Our end is the screen and the keyboard.
            let other = pty_process::blocking::open().unwrap().0;
            drop(std::mem::replace(&mut shell.pty, other));
            let gone = in_a_while(|| match first.namespace("pid") {
                Ok(own) if own == namespace => None,
                _ => Some(()),
            });
            assert!(gone.is_some(), "{package}: {command:?}");
        }
    }
}

/// Signals that somebody sends to the program reach the command, which is in another session.
#[test]
fn signals_reach_the_command() {
    let root = Root::shared();
    for package in steps() {
        let trap = "trap 'echo got USR1' USR1; trap 'echo got INT; exit 5' INT; echo ready; while :; do sleep 1 & wait; done";
        let arguments =
            ["--rootfs", root.path().to_str().unwrap(), "sh", "-c", trap].map(str::to_owned);
        let mut container = Container::start(step(package), &arguments).unwrap();
        container.signal(Signal::SIGUSR1).unwrap();
        container.read_until("got USR1").unwrap();
        container.signal(Signal::SIGINT).unwrap();
        container.read_until("got INT").unwrap();
        assert_eq!(container.ended().unwrap().code, 5, "{package}");
        // And from a terminal, by its keys.
        let flags = ["-i", "sh", "-c", trap];
        let mut shell = at_terminal(package, &root.path(), &flags, "ready");
        shell.write("\x03").unwrap();
        until(&mut shell, "got INT");
        assert_eq!(code(&mut shell), 5);
    }
}

/// /dev is the container's own, whatever the root has there.
#[test]
fn a_root_with_links_in_its_dev_gets_nothing_written_through_them() {
    let _attack = tried("");
    let folder = folder();
    let root = folder.path().join("root");
    Root::shared().copy(&root);
    fs::create_dir(root.join("elsewhere")).unwrap();
    for package in steps() {
        fs::remove_dir_all(root.join("dev")).unwrap();
        fs::create_dir(root.join("dev")).unwrap();
        symlink("/elsewhere", root.join("dev/pts")).unwrap();
        symlink("/elsewhere/null", root.join("dev/null")).unwrap();
        fs::write(root.join("elsewhere/shm"), "").unwrap();
        symlink("/elsewhere/shm", root.join("dev/shm")).unwrap();
        let outcome = run_program(
            step(package),
            &["--rootfs", root.to_str().unwrap(), "ls", "-l", "/dev/null"],
        )
        .unwrap();
        assert_eq!(outcome.code, 0, "{package}: {}", outcome.errors);
        assert!(
            outcome.output.starts_with("crw-rw-rw-"),
            "{}",
            outcome.output
        );
        let names: Vec<_> = fs::read_dir(root.join("elsewhere"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["shm"], "{package}");
        assert_eq!(fs::metadata(root.join("elsewhere/shm")).unwrap().len(), 0);

        fs::remove_dir_all(root.join("dev")).unwrap();
        symlink("/elsewhere", root.join("dev")).unwrap();
        let outcome =
            run_program(step(package), &["--rootfs", root.to_str().unwrap(), "true"]).unwrap();
        assert_eq!(outcome.code, 125, "{package}");
        assert!(
            outcome.errors.contains("dev is a link to /elsewhere"),
            "{}",
            outcome.errors
        );
        assert_eq!(fs::read_dir(root.join("elsewhere")).unwrap().count(), 1);
        fs::remove_file(root.join("dev")).unwrap();
        fs::create_dir(root.join("dev")).unwrap();
    }
}

/// What is mounted for devices, by the mount table, and the links, by where they lead.
#[test]
fn dev_has_what_programs_count_on() {
    let root = Root::shared();
    for package in steps() {
        let arguments = [
            "--rootfs",
            root.path().to_str().unwrap(),
            "-i",
            "sh",
            "-c",
            "echo ready; read end",
        ]
        .map(str::to_owned);
        let container = Container::start(step(package), &arguments).unwrap();
        let first = container.first_process();
        let mounts = first.mounts().unwrap();
        for (target, filesystem, options, special) in [
            ("/dev", "tmpfs", "rw,nosuid", "mode=755"),
            (
                "/dev/pts",
                "devpts",
                "rw,nosuid,noexec",
                "gid=5,mode=620,ptmxmode=666",
            ),
            ("/dev/shm", "tmpfs", "rw,nosuid,nodev,noexec", "size=65536k"),
            ("/dev/mqueue", "mqueue", "rw,nosuid,nodev,noexec", ""),
        ] {
            let mount = mounts
                .iter()
                .find(|mount| mount.target == Path::new(target))
                .unwrap();
            assert_eq!(mount.filesystem, filesystem, "{package}: {target}");
            assert!(
                mount.options.starts_with(options),
                "{package}: {target}: {}",
                mount.options
            );
            assert!(
                mount.super_options.contains(special),
                "{package}: {target}: {}",
                mount.super_options
            );
        }
        let at = |name: &str| first.file("root/dev").join(name);
        assert_eq!(
            fs::metadata(at("shm")).unwrap().mode() & 0o7777,
            0o1777,
            "{package}"
        );
        for (name, target) in [
            ("ptmx", "pts/ptmx"),
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
        ] {
            assert_eq!(
                fs::read_link(at(name)).unwrap(),
                Path::new(target),
                "{package}"
            );
        }
        // An instance of its own, with a ptmx and no terminal yet.
        let names: Vec<_> = fs::read_dir(at("pts"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["ptmx"], "{package}");
    }
}

/// The files by which a container knows its name: made where they are missing, through links that stay
/// inside, and never in the root itself.
#[test]
fn names_are_bound_in() {
    let folder = folder();
    let root = folder.path().join("root");
    Root::shared().copy(&root);
    for package in steps() {
        let _ = fs::remove_dir_all(root.join("etc/run"));
        for name in ["hosts", "hostname", "resolv.conf"] {
            let _ = fs::remove_file(root.join("etc").join(name));
        }
        fs::write(root.join("etc/hosts"), "the root's own\n").unwrap();
        // As Debian has it; and it dangles here.
        symlink(
            "../run/systemd/resolve/stub-resolv.conf",
            root.join("etc/resolv.conf"),
        )
        .unwrap();
        let root = root.to_str().unwrap();
        let arguments = [
            "--rootfs",
            root,
            "--hostname",
            "box",
            "sh",
            "-c",
            "cat /etc/hostname /etc/hosts; cat /etc/resolv.conf >/dev/null",
        ];
        let outcome = run_program(step(package), &arguments).unwrap();
        assert_eq!(outcome.code, 0, "{package}: {}", outcome.errors);
        assert!(
            outcome.output.starts_with("box\n127.0.0.1\tlocalhost\n"),
            "{}",
            outcome.output
        );
        assert!(
            outcome.output.ends_with("127.0.1.1\tbox\n"),
            "{}",
            outcome.output
        );
        let hosts = fs::read_to_string(Path::new(root).join("etc/hosts")).unwrap();
        assert_eq!(hosts, "the root's own\n");
        // A link in a circle is an error, and nothing is left of the container.
        fs::remove_file(Path::new(root).join("etc/hosts")).unwrap();
        symlink("hosts", Path::new(root).join("etc/hosts")).unwrap();
        let outcome = run_program(step(package), &["--rootfs", root, "true"]).unwrap();
        assert_eq!(outcome.code, 125, "{package}: {}", outcome.errors);
        assert!(
            outcome.errors.contains("/etc/hosts in the container"),
            "{}",
            outcome.errors
        );
        // One that leads out of the root leads nowhere.
        fs::remove_file(Path::new(root).join("etc/hosts")).unwrap();
        let outside = folder.path().join("outside");
        symlink(
            Path::new("/../../../").join(outside.strip_prefix("/").unwrap()),
            Path::new(root).join("etc/hosts"),
        )
        .unwrap();
        let outcome = run_program(step(package), &["--rootfs", root, "cat", "/etc/hosts"]).unwrap();
        assert_eq!(outcome.code, 0, "{package}: {}", outcome.errors);
        assert!(!outside.exists());
        fs::remove_file(Path::new(root).join("etc/hosts")).unwrap();
        fs::remove_dir_all(Path::new(root).join("tmp")).unwrap();
        fs::create_dir(Path::new(root).join("tmp")).unwrap();
    }
}

/// A lone shell is one to type in.
#[test]
fn a_shell_without_flags_reads_what_there_is() {
    let root = Root::shared();
    for package in steps() {
        assert_cmd::Command::new(step(package))
            .arg("--rootfs")
            .arg(root.path())
            .write_stdin("echo from the shell; exit 4\n")
            .assert()
            .stdout("from the shell\n")
            .code(4);
        let mut shell = at_terminal(package, &root.path(), &[], "# ");
        shell.write("tty; exit 3\n").unwrap();
        until(&mut shell, "/dev/pts/0");
        assert_eq!(code(&mut shell), 3);
    }
}

/// The terminal is the user's own, and so are the pipes: by /dev/stdout he writes to them.
#[test]
fn another_user_may_open_his_own_output() {
    let root = Root::shared();
    for package in &DIRECT[5..] {
        let mut shell = at_terminal(
            package,
            &root.path(),
            &[
                "-it",
                "-u",
                "4711",
                "sh",
                "-c",
                "echo one >/dev/stdout; echo two >/dev/tty; echo ready; read end",
            ],
            "ready",
        );
        assert!(shell.said.contains("one\r\ntwo\r\n"), "{}", shell.said);
        let terminal = fs::metadata(shell.first_process().unwrap().file("root/dev/pts/0")).unwrap();
        assert_eq!(
            (terminal.uid(), terminal.gid(), terminal.mode() & 0o777),
            (4711, 5, 0o620)
        );
        assert_eq!((major(terminal.rdev()), minor(terminal.rdev())), (136, 0));
        shell.write("\n").unwrap();
        assert_eq!(code(&mut shell), 0);
        let mut shell = at_terminal(
            package,
            &root.path(),
            &["-u", "4711", "sh", "-c", "echo one >/dev/stdout"],
            "one",
        );
        assert_eq!(code(&mut shell), 0);
    }
}

/// Somebody who closes the terminal and opens it again later, as a daemon does, is still heard.
#[test]
fn a_terminal_may_be_closed_and_opened_again() {
    let root = Root::shared();
    for package in steps() {
        let script = "echo before; exec </dev/null >/dev/null 2>&1; sleep 0.2; head -c 60000 /dev/zero | tr '\\0' x >/dev/tty; echo after >/dev/tty";
        let ran = Command::new(step(package))
            .arg("--rootfs")
            .arg(root.path())
            .args(["-t", "sh", "-c", script])
            .stdin(Stdio::null())
            .assert();
        let said = ran.printed();
        assert!(
            said.starts_with("before\r\n") && said.ends_with("xafter\r\n"),
            "{} bytes\n{ran}",
            said.len()
        );
    }
}

/// While somebody reads slowly, or not at all, keys and signals go on to work.
#[test]
fn a_slow_reader_holds_nobody_up() {
    let _attack = tried("");
    let root = Root::shared();
    for package in steps() {
        let mut program = Command::new(step(package));
        program
            .arg("--rootfs")
            .arg(root.path())
            .args(["-t", "yes"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = program.spawn().unwrap();
        let process =
            progress::host::evidence::Process(nix::unistd::Pid::from_raw(child.id() as i32));
        // The pipe is full when nothing moves any more.
        eventually(|| {
            let first = *process.children().first()?;
            let waits = fs::read_to_string(first.file("wchan")).ok()?;
            (waits.contains("tty") || waits.contains("n_tty") || waits.contains("wait_woken"))
                .then_some(())
        });
        for _ in 0..3 {
            kill(process.0, Signal::SIGTERM).unwrap();
            eventually(|| (process.status("ShdPnd").ok()? == "0".repeat(16)).then_some(()));
        }
        let first = eventually(|| process.children().is_empty().then_some(()));
        assert!(
            first.is_some(),
            "{package}: the third SIGTERM didn't kill it"
        );
        kill(process.0, Signal::SIGTERM).unwrap();
        let ended = eventually(|| child.try_wait().unwrap());
        let _ = child.kill();
        assert_eq!(
            progress::host::exit_code(ended.expect("it ends")),
            137,
            "{package}"
        );
    }
}

/// However much is narrated before the command starts, nobody waits for each other.
#[test]
fn narration_fills_no_terminal() {
    let root = Root::shared();
    for package in steps() {
        let long = "x".repeat(20_000);
        let flags = ["--verbose", "-t", "true", &long];
        let mut shell = at_terminal(package, &root.path(), &flags, "waitpid");
        assert_eq!(code(&mut shell), 0);
    }
}

/// A reader that has gone ends a command that writes through the terminal, as it would without.
#[test]
fn a_reader_that_goes_is_noticed() {
    let root = Root::shared();
    for package in steps() {
        let shell = format!(
            "{} --rootfs {} -t sh -c 'while :; do echo y; done' </dev/null | head -c 10 | wc -c",
            step(package).display(),
            root.path().display()
        );
        let said = run(Command::new("sh").args(["-c", &shell]));
        assert_eq!(said.trim(), "10", "{package}");
    }
}

/// SIGKILL is the one way out on which nobody can put a terminal right; all else goes, too.
#[test]
fn a_killed_program_leaves_no_container() {
    let root = Root::shared();
    for package in steps() {
        let shell = at_terminal(
            package,
            &root.path(),
            &["-it", "sh", "-c", "echo ready; read end"],
            "ready",
        );
        let first = shell.first_process().unwrap();
        let namespace = first.namespace("pid").unwrap();
        kill(shell.process().0, Signal::SIGKILL).unwrap();
        let gone = eventually(|| match first.namespace("pid") {
            Ok(own) if own == namespace => None,
            _ => Some(()),
        });
        assert!(gone.is_some(), "{package}");
        // What SIGKILL leaves, the next one removes.
        let next = in_root(package, &root.path(), &["true"]);
        assert_eq!(next.code, 0, "{package}: {}", next.errors);
    }
}

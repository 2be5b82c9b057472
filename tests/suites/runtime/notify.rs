//! A service manager that is to hear when a container is ready: sd_notify(3).

use crate::stage::quay::Quay;
use nix::unistd::Pid;
use progress::host::container::eventually;
use progress::host::evidence::Process;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Command, Stdio};

const SLEEP: &str = "exec sleep 1000";

/// What a manager has heard; nothing, when nobody has said anything yet.
fn heard(manager: &UnixDatagram) -> Option<String> {
    let mut message = [0; 4096];
    match manager.recv(&mut message) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        length => Some(String::from_utf8(message[..length.unwrap()].to_vec()).unwrap()),
    }
}

/// How many bytes that were sent nobody has read yet: SIOCOUTQ, which has the number of TIOCOUTQ.
fn unread(socket: &UnixDatagram) -> i32 {
    let mut bytes = 0;
    // SAFETY: the kernel writes one int.
    let asked = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    assert_eq!(asked, 0);
    bytes
}

/// `start` ends when the command has said that it is ready, and not before; the manager hears it from `start`.
#[test]
fn a_manager_hears_that_a_container_is_ready() {
    let quay = Quay::new();
    quay.bundle("box", SLEEP, |_| {});
    let path = quay.path("manager.sock");
    let by_path = UnixDatagram::bind(&path).unwrap();
    let name = quay.groups_path("manager");
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let by_name = UnixDatagram::bind_addr(&address).unwrap();
    let managers = [
        (path.display().to_string(), by_path),
        (format!("@{name}"), by_name),
    ];
    for (socket, manager) in managers {
        manager.set_nonblocking(true).unwrap();
        let with = |command: &mut Command| {
            command.env("NOTIFY_SOCKET", &socket).stdin(Stdio::null());
            command
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        };
        let made = with(&mut quay.on_bundle(&["create"], "box"))
            .wait()
            .unwrap();
        assert!(made.success(), "{socket}: {made}");
        let first = quay.process("box");
        let mut start = with(&mut quay.command(&["start", "box"]));
        let is_sleep = || {
            let line = std::fs::read(first.file("cmdline")).ok()?;
            line.starts_with(b"sleep").then_some(())
        };
        eventually(is_sleep).expect("it starts");
        let environment = std::fs::read(first.file("environ")).unwrap();
        let mut variables = environment.split(|byte| *byte == 0);
        assert!(variables.any(|variable| variable == b"NOTIFY_SOCKET=/run/notify/notify.sock"));
        let mounts = first.mounts().unwrap();
        let mount = mounts
            .iter()
            .find(|mount| mount.target.ends_with("run/notify"))
            .unwrap();
        for option in ["ro", "nosuid", "nodev", "noexec"] {
            assert!(
                mount.options.split(',').any(|each| each == option),
                "{}",
                mount.options
            );
        }
        assert_eq!((start.try_wait().unwrap(), heard(&manager)), (None, None));
        // As the command would say it: by its own path, in its own root.
        let container = first.file("root/run/notify/notify.sock");
        let said = UnixDatagram::unbound().unwrap();
        said.send_to(b"STATUS=nearly\nREADY=0", &container).unwrap();
        // Once that is read, `start` waits again.
        let waiting = Process(Pid::from_raw(start.id() as i32));
        let state = || waiting.status("State").unwrap();
        let rests = || (unread(&said) == 0 && state().starts_with(['S', 'Z'])).then(state);
        let state = eventually(rests).expect("it reads");
        assert!(state.starts_with('S'), "{state}");
        said.send_to(b"STATUS=now\nREADY=1", &container).unwrap();
        let ended = eventually(|| start.try_wait().unwrap()).expect("start ends");
        assert!(ended.success(), "{ended}");
        let wanted = format!("READY=1\nMAINPID={}", first.0);
        assert_eq!(heard(&manager), Some(wanted));
        assert_eq!(heard(&manager), None);
        quay.ok(&["delete", "--force", "box"]);
        quay.is_empty();
    }
}

/// A command that ends without a word holds `start` up no longer, and nobody is told that it is ready.
#[test]
fn a_command_that_says_nothing() {
    let quay = Quay::new();
    quay.bundle("box", "exit 3", |_| {});
    let path = quay.path("manager.sock");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_nonblocking(true).unwrap();
    for command in [
        &mut quay.on_bundle(&["create"], "box"),
        &mut quay.command(&["start", "box"]),
    ] {
        let command = command.env("NOTIFY_SOCKET", &path);
        let mut running = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let ended = eventually(|| running.try_wait().unwrap()).expect("it ends");
        assert!(ended.success(), "{ended}");
    }
    assert_eq!(heard(&manager), None);
    quay.ok(&["delete", "--force", "box"]);
    quay.is_empty();
}

//! A child stands still at each gate while its parent acts, and nothing of it is left when one of them dies there.
//!
//! A program of its own, as `halves` is.

use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::CloneFlags;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid, pause, pipe2, sethostname, setresuid};
use std::convert::Infallible;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use step01_uts::program::Ended;
use step01_uts::{call, exec};
use step02_pid::birth::pidfd_open;
use step02_pid::gate::{Act, Gate, IdMap, Namespaces, map_ids, spawn_gated};
use step02_pid::{Child, die_with_parent, fork, leave};

/// What /proc says of a process.
fn read(pid: Pid, file: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap()
}

fn line(pid: Pid, key: &str) -> String {
    let status = read(pid, "status");
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.unwrap().trim().to_owned()
}

fn is_gone(pid: Pid) -> bool {
    kill(pid, None) == Err(Errno::ESRCH)
}

/// Runs `script` in a shell of the child's.
fn shell(script: &str) -> Result<Infallible> {
    let words = ["sh", "-c", script].map(String::from);
    exec(&words, &["PATH=/usr/sbin:/usr/bin:/sbin:/bin".to_owned()])
}

/// A user namespace that is mapped at the first gate, and an interface that comes at the second.
fn what_is_not_done_yet() {
    let (inside, name) = (0, "gate");
    let mut seen = Vec::new();
    let mut at_first = |child: &Child| {
        // It has done nothing yet, and nobody's user has a number in there.
        seen.push(format!("{:?}", read(child.pid, "uid_map")));
        assert_eq!(line(child.pid, "Name:"), line(getpid(), "Name:"));
        let map = [IdMap {
            inside,
            outside: 100_000,
            count: 10,
        }];
        map_ids(child, &map, &map)?;
        seen.push(
            read(child.pid, "uid_map")
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" "),
        );
        // Each map is written once.
        let again = map_ids(child, &map, &map).unwrap_err().to_string();
        assert!(again.contains("uid_map"), "{again}");
        Ok(())
    };
    let mut at_second = |child: &Child| {
        // It has set itself up, and isn't its command yet.
        assert!(line(child.pid, "Uid:").starts_with("100000\t"));
        assert_eq!(line(child.pid, "Name:"), line(getpid(), "Name:"));
        assert!(
            !read(child.pid, "net/dev").contains("inner"),
            "{}",
            read(child.pid, "net/dev")
        );
        let pid = child.pid.to_string();
        let words = [
            "link", "add", "outer", "type", "veth", "peer", "name", "inner", "netns", &pid,
        ];
        let made = Command::new("ip").args(words).status()?;
        assert!(made.success(), "ip {words:?}: {made}");
        assert!(read(child.pid, "net/dev").contains("inner"));
        Ok(())
    };
    let namespaces = Namespaces {
        new: CloneFlags::CLONE_NEWUSER
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWPID,
        joined: &[],
    };
    let command = format!("[ $(hostname) = {name} ] && grep -q inner /proc/net/dev && exit 7");
    let acts: &mut [Act] = &mut [&mut at_first, &mut at_second];
    let child = spawn_gated(&namespaces, acts, |gate: &Gate| {
        call!(sethostname(name))?;
        setresuid(inside.into(), inside.into(), inside.into())?;
        // Another user would be let off.
        die_with_parent()?;
        gate.wait()?;
        shell(&command)
    });
    assert_eq!(child.unwrap().wait().unwrap(), 7);
    assert_eq!(seen, ["\"\"", "0 100000 10"]);
}

/// Namespaces of somebody else's, joined by their files, its user namespace first.
fn joined_by_their_files() {
    let mut nothing = |_: &Child| Ok(());
    let mut maps = |child: &Child| {
        let map = [IdMap {
            inside: 0,
            outside: 0,
            count: 1,
        }];
        map_ids(child, &map, &map)
    };
    let namespaces = Namespaces {
        new: CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWPID,
        joined: &[],
    };
    let first = spawn_gated(&namespaces, &mut [&mut maps as Act], |_: &Gate| {
        die_with_parent()?;
        call!(sethostname("theirs"))?;
        shell("sleep 1000")
    });
    let first = first.unwrap();
    let open = |name| OwnedFd::from(File::open(format!("/proc/{}/ns/{name}", first.pid)).unwrap());
    let files = ["user", "uts", "pid"].map(open);
    let namespace = |pid: Pid, name: &str| fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
    let ours = ["user", "uts", "pid", "net"].map(|name| namespace(getpid(), name));
    let namespaces = Namespaces {
        new: CloneFlags::CLONE_NEWNET,
        joined: &files,
    };
    let mut look = |child: &Child| {
        for name in ["user", "uts", "pid"] {
            assert_eq!(
                namespace(child.pid, name),
                namespace(first.pid, name),
                "{name}"
            );
        }
        assert_ne!(namespace(child.pid, "net"), ours[3]);
        // In there it isn't PID 1.
        assert!(
            line(child.pid, "NSpid:").ends_with("\t2")
                || line(child.pid, "NSpid:").ends_with("\t3")
        );
        Ok(())
    };
    let acts: &mut [Act] = &mut [&mut look, &mut nothing];
    let second = spawn_gated(&namespaces, acts, |gate: &Gate| {
        die_with_parent()?;
        gate.wait()?;
        shell("[ $(hostname) = theirs ] && exit 5")
    });
    assert_eq!(second.unwrap().wait().unwrap(), 5);
    // Who called has stayed where he was.
    assert_eq!(
        ours,
        ["user", "uts", "pid", "net"].map(|name| namespace(getpid(), name))
    );
    kill(first.pid, Signal::SIGKILL).unwrap();
    assert_eq!(first.wait().unwrap(), 137);
}

/// A child that dies at a gate, or fails between two, is told as what it is; one whose parent fails has to go.
fn what_goes_wrong() {
    let namespaces = Namespaces {
        new: CloneFlags::CLONE_NEWPID,
        joined: &[],
    };
    let mut pid = Pid::this();
    let body = |gate: &Gate| {
        gate.wait()?;
        bail!("what went wrong inside")
    };
    let mut kills = |child: &Child| {
        pid = child.pid;
        Ok(kill(child.pid, Signal::SIGKILL)?)
    };
    let mut nothing = |_: &Child| Ok(());
    let killed = spawn_gated(&namespaces, &mut [&mut kills as Act, &mut nothing], body);
    let error = killed.err().unwrap();
    assert_eq!(error.downcast_ref::<Ended>().unwrap().code, 137);
    assert!(
        error
            .to_string()
            .contains("before it came to the last gate"),
        "{error}"
    );
    assert!(is_gone(pid));

    let (mut first, mut second) = (|_: &Child| Ok(()), |_: &Child| Ok(()));
    let failed = spawn_gated(&namespaces, &mut [&mut first as Act, &mut second], body);
    assert_eq!(failed.err().unwrap().to_string(), "what went wrong inside");

    // It fails where a gate was to come.
    let (mut first, mut second) = (
        |_: &Child| Ok(()),
        |_: &Child| panic!("it never comes to this gate"),
    );
    let failed = spawn_gated(
        &namespaces,
        &mut [&mut first as Act, &mut second],
        |_: &Gate| bail!("too soon"),
    );
    assert_eq!(failed.err().unwrap().to_string(), "too soon");

    // It becomes its command before the last gate, or asks for one more: neither goes unnoticed.
    let (mut first, mut second) = (
        |_: &Child| Ok(()),
        |_: &Child| panic!("it never comes to this gate"),
    );
    let early = spawn_gated(
        &namespaces,
        &mut [&mut first as Act, &mut second],
        |_: &Gate| shell("sleep 1000"),
    );
    assert!(
        early
            .err()
            .unwrap()
            .to_string()
            .contains("before it came to the last gate")
    );
    let mut first = |_: &Child| Ok(());
    let late = spawn_gated(&namespaces, &mut [&mut first as Act], body);
    assert_eq!(late.err().unwrap().to_string(), "nobody opens this gate");
    let ungated = spawn_gated(&namespaces, &mut [], |_: &Gate| shell("exit 3"));
    assert_eq!(ungated.unwrap().wait().unwrap(), 3);

    // What it reports may be more than a pipe holds.
    let (mut first, mut second) = (|_: &Child| Ok(()), |_: &Child| Ok(()));
    let failed = spawn_gated(
        &namespaces,
        &mut [&mut first as Act, &mut second],
        |_: &Gate| bail!("x".repeat(300_000)),
    );
    assert_eq!(failed.err().unwrap().to_string().len(), 300_000);

    // But not more than anybody reads.
    let (mut first, mut second) = (|_: &Child| Ok(()), |_: &Child| Ok(()));
    let failed = spawn_gated(
        &namespaces,
        &mut [&mut first as Act, &mut second],
        |_: &Gate| bail!("x".repeat(3_000_000)),
    );
    let said = failed.err().unwrap().to_string();
    assert!(said.contains("more than 1048576 bytes"), "{said}");

    // Somebody asks this process to end while the child is on its way from one gate to the next.
    let mut asked = |child: &Child| {
        pid = child.pid;
        Ok(kill(getpid(), Signal::SIGTERM)?)
    };
    let mut never = |_: &Child| panic!("it never comes to this gate");
    let ended = spawn_gated(
        &namespaces,
        &mut [&mut asked as Act, &mut never],
        |_: &Gate| {
            pause();
            bail!("a signal has come")
        },
    );
    assert_eq!(ended.err().unwrap().downcast::<Ended>().unwrap().code, 143);
    assert!(is_gone(pid));

    let mut fails = |child: &Child| {
        pid = child.pid;
        bail!("what went wrong outside")
    };
    let failed = spawn_gated(&namespaces, &mut [&mut fails as Act], body);
    assert_eq!(failed.err().unwrap().to_string(), "what went wrong outside");
    assert!(is_gone(pid));
    assert_eq!(nix::sys::wait::wait(), Err(Errno::ECHILD));
}

/// A parent that dies while the child stands at a gate: the child goes, too, also one that didn't ask to die with it.
fn a_parent_that_dies() {
    let (reader, writer) = pipe2(OFlag::empty()).unwrap();
    let Some(parent) = fork().unwrap() else {
        let mut dies = |child: &Child| {
            nix::unistd::write(&writer, &child.pid.as_raw().to_ne_bytes())?;
            kill(getpid(), Signal::SIGKILL)?;
            Ok(())
        };
        let namespaces = Namespaces {
            new: CloneFlags::CLONE_NEWPID,
            joined: &[],
        };
        let _ = spawn_gated(&namespaces, &mut [&mut dies as Act], |_: &Gate| {
            shell("sleep 1000")
        });
        leave(0)
    };
    drop(writer);
    let mut reader = File::from(reader);
    let mut pid = [0; 4];
    reader.read_exact(&mut pid).unwrap();
    // The child has the other end, until it has ended.
    assert_eq!(reader.read(&mut pid.clone()).unwrap(), 0);
    nix::sys::wait::waitpid(parent, None).unwrap();
    let child = Pid::from_raw(i32::from_ne_bytes(pid));
    // It isn't ours to reap: but it ends.
    match pidfd_open(child.as_raw()) {
        Err(errno) => assert_eq!(errno, Errno::ESRCH),
        Ok(pidfd) => {
            let mut polled = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
            while poll(&mut polled, PollTimeout::NONE) == Err(Errno::EINTR) {}
        }
    }
}

fn main() {
    what_is_not_done_yet();
    joined_by_their_files();
    what_goes_wrong();
    a_parent_that_dies();
    println!("test gates ... ok");
}

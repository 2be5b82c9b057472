//! What was tried once and held, so that it goes on holding.

use super::{compile, exchanging, tried};
use crate::stage::dock::{Dock, STEP};
use crate::stage::{Printed, armed_root, have, run, step};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, send, socket,
};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::Pid;
use progress::host::container::{eventually, in_a_while};
use progress::host::evidence::Process;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

/// What a shell in a container may not do, whatever it is root of: each line is to fail. With the number that it is
/// known as.
const LINES: &[(&str, &str)] = &[
    (
        "CVE-2022-0492",
        "mkdir /tmp/g && mount -t cgroup -o rdma c /tmp/g",
    ),
    (
        "CVE-2022-0492",
        "mkdir -p /tmp/g && mount -t cgroup2 c /tmp/g",
    ),
    ("CVE-2022-0492", "echo /x >/sys/fs/cgroup/release_agent"),
    (
        "",
        "for f in /sys/fs/cgroup/*/release_agent; do echo /x >$f && exit 0; done; exit 1",
    ),
    (
        "",
        "for f in /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/cgroup.procs; do echo 0 >$f && exit 0; done; exit 1",
    ),
    (
        "",
        "for f in /sys/fs/cgroup/*/ /sys/fs/cgroup/; do mkdir $f/x && exit 0; done; exit 1",
    ),
    (
        "",
        "for f in /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max; do echo 1g >$f && exit 0; done; exit 1",
    ),
    ("", "mount -o remount,rw /sys"),
    ("", "mount -o remount,rw /proc/sys"),
    ("", "mount --bind /proc /tmp"),
    ("", "umount /proc/kcore"),
    ("", "umount /proc/sys"),
    ("", "umount /dev"),
    ("", "umount /dev/pts"),
    ("", "rmdir /dev/pts"),
    ("", "mv /dev/pts /dev/gone"),
    ("", "mount -t devpts none /dev/pts"),
    (
        "CVE-2025-52881",
        "echo '|/x' >/proc/sys/kernel/core_pattern",
    ),
    ("", "echo /x >/proc/sys/kernel/modprobe"),
    ("", "echo /x >/proc/sys/kernel/hotplug"),
    ("", "echo c >/proc/sysrq-trigger"),
    ("", "echo 1 >/proc/sys/kernel/randomize_va_space"),
    (
        "",
        "echo 0 >/proc/1/oom_score_adj && echo -1000 >/proc/1/oom_score_adj",
    ),
    ("", "[ -s /proc/kcore ]"),
    ("", "[ -s /proc/keys ]"),
    ("", "[ -s /proc/timer_list ]"),
    ("", "[ -n \"$(ls /sys/firmware)\" ]"),
    ("", "[ -n \"$(ls /proc/scsi 2>/dev/null)\" ]"),
    ("", "unshare -Ur true"),
    ("", "unshare -m true"),
    ("", "nsenter -t 1 -m true"),
    (
        "CVE-2022-29162",
        "grep -q 'CapInh:.*[1-9a-f]' /proc/self/status",
    ),
    (
        "CVE-2022-29162",
        "grep -q 'CapAmb:.*[1-9a-f]' /proc/self/status",
    ),
    ("", "grep -q 'NoNewPrivs:.*0' /proc/self/status"),
    ("", "grep -q 'Seccomp:.*0' /proc/self/status"),
    ("", "ls -d /proc/self/fd/[3-9]* | grep -v 'self/fd/3$'"),
    ("", "ls /proc/1/root/../../../host-canary"),
];

/// Devices that a container may make and mustn't open: disks, memory, consoles, tapes, watchdogs, and what makes others.
const DEVICES: &[(char, u32, u32)] = &[
    ('c', 1, 1),
    ('c', 1, 2),
    ('c', 1, 4),
    ('c', 1, 11),
    ('c', 4, 0),
    ('c', 4, 64),
    ('c', 5, 1),
    ('c', 7, 0),
    ('c', 10, 1),
    ('c', 10, 130),
    ('c', 10, 183),
    ('c', 10, 200),
    ('c', 10, 229),
    ('c', 10, 232),
    ('c', 10, 237),
    ('c', 13, 63),
    ('c', 21, 0),
    ('c', 29, 0),
    ('c', 108, 0),
    ('c', 202, 0),
    ('c', 203, 0),
    ('b', 1, 0),
    ('b', 7, 0),
    ('b', 8, 0),
    ('b', 253, 0),
    ('b', 254, 0),
];

#[test]
fn lines_that_are_refused() {
    let dock = Dock::new();
    let programs = ["umount", "unshare", "chroot", "nsenter", "rmdir", "mv"];
    let root = armed_root(dock.folder.path(), &programs);
    let image = root.to_str().unwrap();
    let id = dock.ok(&["run", "-d", "--image", image, "sleep", "1000"]);
    let id = id.trim();
    for (known_as, line) in LINES {
        let _attack = tried(known_as);
        for words in [&["exec", id][..], &["run", "--rm", "--image", image]] {
            let ran = dock.run(&[words, &["sh", "-c", line]].concat());
            let code = ran.get_output().status.code();
            assert_ne!(code, Some(0), "{line}: {ran}");
            assert!(code < Some(125), "{line} wasn't tried: {ran}");
        }
    }
    for (kind, major, minor) in DEVICES {
        let _attack = tried("");
        let line = format!(
            "rm -f /tmp/dev; mknod /tmp/dev {kind} {major} {minor} || exit 1; : </tmp/dev || exit 2"
        );
        let ran = dock.run(&["exec", id, "sh", "-c", &line]).failure();
        ran.complains("not permitted");
    }
    dock.ok(&["rm", "-f", id]);
    dock.is_empty();
}

/// Doors to the host's directories, by the one who starts a command and by the one who comes in.
#[test]
fn no_door_stays_open() {
    let dock = Dock::new();
    let root = armed_root(dock.folder.path(), &["sleep", "readlink"]);
    fs::write(dock.folder.path().join("canary"), "").unwrap();
    for number in 0..12 {
        symlink(
            format!("/proc/self/fd/{number}"),
            root.join(format!("door{number}")),
        )
        .unwrap();
    }
    let image = root.to_str().unwrap();
    let id = dock.ok(&["run", "-d", "--image", image, "sleep", "1000"]);
    let id = id.trim();
    // Where one comes out, seen from a directory of the host that is open as each of the numbers.
    let look = "[ ! -e ../canary ] && [ ! -e ../../../../canary ] && [ \"$(readlink /proc/self/cwd)\" = / -o -d . ]";
    for number in 0..12 {
        for way in [
            format!("/proc/self/fd/{number}"),
            format!("/door{number}"),
            format!("/proc/self/fd/{number}/../.."),
        ] {
            let _attack = tried("CVE-2024-21626");
            for words in [
                &["exec", "-w", &way, id][..],
                &["run", "--rm", "--image", image, "-w", &way],
            ] {
                let mut command = dock.command(&[words, &["sh", "-c", look]].concat());
                command.current_dir(dock.folder.path());
                // The host's root, as a directory on standard input.
                command.stdin(File::open("/").unwrap());
                let out = command.output().unwrap();
                let said = String::from_utf8_lossy(&out.stderr);
                assert!(
                    matches!(out.status.code(), Some(0 | 125 | 126 | 127)),
                    "{way}: {:?}: {said}",
                    out.status
                );
            }
        }
    }
    dock.ok(&["rm", "-f", id]);
    dock.is_empty();
}

/// Places of ours in an image that are links, or what they mustn't be: nothing is mounted where they lead.
#[test]
fn places_that_are_links() {
    let dock = Dock::new();
    let outside = dock.folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    for (known_as, place) in [
        ("CVE-2019-19921", "proc"),
        ("CVE-2023-27561", "proc"),
        ("CVE-2023-28642", "sys"),
        ("CVE-2021-30465", "dev"),
        ("", "etc/hosts"),
        ("", "etc/hostname"),
        ("", "etc/resolv.conf"),
    ] {
        let _attack = tried(known_as);
        let root = dock.folder.path().join("linked");
        dock.root.copy(&root);
        let at = root.join(place);
        let _ = fs::remove_dir_all(&at);
        let _ = fs::remove_file(&at);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        symlink(&outside, &at).unwrap();
        let ran = dock.run(&["run", "--rm", "--image", root.to_str().unwrap(), "true"]);
        let code = ran.get_output().status.code();
        assert!(matches!(code, Some(0 | 125)), "{place}: {ran}");
        assert_eq!(
            fs::read_dir(&outside).unwrap().count(),
            0,
            "{place}: something is made outside"
        );
        fs::remove_dir_all(&root).unwrap();
    }
    // A volume over what the container knows itself by, however it is spelt.
    let volume = dock.folder.path().join("volume");
    fs::create_dir(&volume).unwrap();
    let linked = dock.folder.path().join("lead");
    dock.root.copy(&linked);
    symlink("/proc", linked.join("p")).unwrap();
    symlink("proc/self", linked.join("q")).unwrap();
    for target in [
        "/proc",
        "/proc/",
        "/proc/sys",
        "//proc",
        "/./proc",
        "/proc/self/attr",
        "/p",
        "/p/sys",
        "/q/attr",
        "/q/../sys",
    ] {
        let _attack = tried("CVE-2019-16884");
        let flag = format!("{}:{target}", volume.display());
        let words = [
            "run",
            "--rm",
            "--image",
            linked.to_str().unwrap(),
            "-v",
            &flag,
            "true",
        ];
        let ran = dock.run(&words);
        assert_ne!(ran.get_output().status.code(), Some(0), "{target}: {ran}");
    }
    dock.is_empty();
}

/// A /dev/null of the image's own, of eight kinds: what masks is the kernel's.
#[test]
fn false_null_devices() {
    let dock = Dock::new();
    let root = dock.folder.path().join("false");
    dock.root.copy(&root);
    let null = root.join("dev/null");
    fs::create_dir_all(root.join("dev")).unwrap();
    fs::write(root.join("plain"), "plain").unwrap();
    let mode = Mode::from_bits_truncate(0o666);
    type Make = fn(&Path, Mode);
    let kinds: [(&str, Make); 8] = [
        ("none", |_, _| {}),
        ("a file", |at, _| fs::write(at, "text").unwrap()),
        ("a directory", |at, _| fs::create_dir(at).unwrap()),
        ("a link to a file", |at, _| symlink("/plain", at).unwrap()),
        ("a link to the host", |at, _| {
            symlink("/proc/sys/kernel/core_pattern", at).unwrap()
        }),
        ("a fifo", |at, mode| nix::unistd::mkfifo(at, mode).unwrap()),
        ("another device", |at, mode| {
            mknod(at, SFlag::S_IFCHR, mode, makedev(1, 5)).unwrap()
        }),
        ("a disk", |at, mode| {
            mknod(at, SFlag::S_IFBLK, mode, makedev(7, 0)).unwrap()
        }),
    ];
    let look = "[ ! -s /proc/kcore ] && [ ! -s /proc/keys ] && [ -c /dev/null ] && echo x >/dev/null && [ -z \"$(cat /dev/null)\" ]";
    for (what, make) in kinds {
        let _attack = tried("CVE-2025-31133");
        let _ = fs::remove_dir_all(&null);
        let _ = fs::remove_file(&null);
        make(&null, mode);
        let ran = dock.run(&[
            "run",
            "--rm",
            "--image",
            root.to_str().unwrap(),
            "sh",
            "-c",
            look,
        ]);
        let code = ran.get_output().status.code();
        assert_eq!(code, Some(0), "{what}: {ran}");
    }
    dock.is_empty();
}

/// Copying, raced: a directory of the container's is exchanged with a link to the host's.
#[test]
fn copies_stay_inside() {
    let dock = Dock::new();
    let root = dock.folder.path().join("root");
    dock.root.copy(&root);
    let outside = dock.folder.path().join("outside");
    fs::create_dir_all(outside.join("below")).unwrap();
    fs::write(outside.join("below/canary"), "of the host\n").unwrap();
    fs::create_dir_all(root.join("srv/way/below")).unwrap();
    symlink(&outside, root.join("srv/link")).unwrap();
    let image = root.to_str().unwrap();
    dock.ok(&[
        "run", "-d", "--name", "box", "--rootfs", image, "sleep", "1000",
    ]);
    let (source, out) = (
        dock.folder.path().join("source"),
        dock.folder.path().join("out"),
    );
    fs::write(&source, "ours\n").unwrap();
    let (way, link) = (root.join("srv/way"), root.join("srv/link"));
    let _attack = [(); 2].map(|()| tried("CVE-2018-15664"));
    exchanging(&way, &link, || {
        for turn in 0..150 {
            dock.run(&["cp", source.to_str().unwrap(), "box:/srv/way/below/mine"]);
            let to = out.join(turn.to_string());
            fs::create_dir_all(&to).unwrap();
            dock.run(&["cp", "box:/srv/way", to.to_str().unwrap()]);
            let taken = run(Command::new("find").arg(&to).args(["-name", "canary"]));
            assert_eq!(taken, "", "a file of the host's was copied");
        }
    });
    assert!(
        !outside.join("below/mine").exists(),
        "a file was written on the host"
    );
    for path in [
        "box:/proc/1/root/etc",
        "box:/../../../../etc",
        "box:/srv/way/../../../../etc",
    ] {
        let _attack = tried("CVE-2019-14271");
        let to = out.join("etc");
        let _ = fs::remove_dir_all(&to);
        dock.run(&["cp", path, to.to_str().unwrap()]);
        let theirs = fs::read_to_string(to.join("shadow")).unwrap_or_default();
        assert!(
            theirs.is_empty() || theirs != fs::read_to_string("/etc/shadow").unwrap_or_default()
        );
    }
    dock.ok(&["rm", "-f", "box"]);
    dock.is_empty();
}

/// The way to a volume, raced: nothing is made on the host.
#[test]
fn directories_are_made_inside() {
    let _attack = tried("CVE-2024-45310");
    let dock = Dock::new();
    let root = dock.folder.path().join("root");
    dock.root.copy(&root);
    let (outside, volume) = (
        dock.folder.path().join("outside"),
        dock.folder.path().join("volume"),
    );
    fs::create_dir(&outside).unwrap();
    fs::create_dir(&volume).unwrap();
    fs::create_dir_all(root.join("srv/way")).unwrap();
    symlink(&outside, root.join("srv/link")).unwrap();
    let (way, link) = (root.join("srv/way"), root.join("srv/link"));
    exchanging(&way, &link, || {
        for turn in 0..60 {
            let flag = format!("{}:/srv/way/{turn}/b", volume.display());
            dock.run(&[
                "run",
                "--rm",
                "--rootfs",
                root.to_str().unwrap(),
                "-v",
                &flag,
                "true",
            ]);
        }
    });
    assert_eq!(
        fs::read_dir(&outside).unwrap().count(),
        0,
        "something was made on the host"
    );
    dock.is_empty();
}

/// What lies in the state folder is nobody else's: another user can't read it, nor speak with a monitor; and neither can
/// who is inside, whatever he says.
#[test]
fn the_state_folder_is_roots_own() {
    let dock = Dock::new();
    let id = dock.start(&["-e", "SECRET=1"], &["sleep", "1000"]);
    for path in ["containers", "names", "run"] {
        let _attack = tried("");
        let mut nobody = Command::new("setpriv");
        nobody
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "ls"])
            .arg(dock.state.join(path));
        assert!(!nobody.output().unwrap().status.success(), "{path}");
        let mode = fs::metadata(dock.state.join(path))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o077, 0, "{path}");
    }
    let _attack = [(); 2].map(|()| tried(""));
    let folder = File::open(dock.state.join("run")).unwrap();
    let path = format!("/proc/self/fd/{}/{id}.sock", folder.as_raw_fd());
    let junk = [
        &b"\xff\xfe"[..],
        &[b'0'; 4097],
        b"{\"Ended\":{}}",
        b"[]",
        b"\"Looked\"",
        b"\"Still\"",
    ];
    for _ in 0..40 {
        for words in junk {
            let ours = socket(
                AddressFamily::Unix,
                SockType::SeqPacket,
                SockFlag::SOCK_CLOEXEC,
                None,
            )
            .unwrap();
            connect(ours.as_raw_fd(), &UnixAddr::new(path.as_str()).unwrap()).unwrap();
            let _ = send(ours.as_raw_fd(), words, MsgFlags::MSG_NOSIGNAL);
        }
    }
    dock.ok(&["exec", &id, "true"]);
    assert_eq!(dock.status(&id).0, "running");
    dock.ok(&["rm", "-f", &id]);
    dock.is_empty();
}

/// Who is in there learns nothing of the host by the one who stays PID 1, or by the one who comes in.
#[test]
fn nothing_is_learnt_by_command_lines() {
    let _attack = [(); 2].map(|()| tried(""));
    let dock = Dock::new();
    let root = armed_root(dock.folder.path(), &["tr"]);
    let image = root.to_str().unwrap();
    let state = dock.state.to_str().unwrap();
    for words in [
        &[
            "run",
            "--rm",
            "--init",
            "--image",
            image,
            "cat",
            "/proc/1/cmdline",
        ][..],
        &[
            "run",
            "--rm",
            "--init",
            "--image",
            image,
            "cat",
            "/proc/1/environ",
        ],
        &[
            "run",
            "--rm",
            "--init",
            "--image",
            image,
            "sh",
            "-c",
            "cat /proc/1/maps /proc/1/mountinfo",
        ],
    ] {
        let said = dock.run(words).printed();
        assert!(!said.contains(state), "{words:?}: {said}");
        assert!(!said.contains("ten-steps-monitor"), "{words:?}: {said}");
    }
    // And by a step that has no monitor.
    let mut older = Command::new(step("step08-overlay"));
    older.args([
        "--init",
        "--state-dir",
        state,
        "--image",
        image,
        "cat",
        "/proc/1/cmdline",
    ]);
    let said = run(&mut older);
    assert!(!said.contains(state) && said.starts_with("init"), "{said}");
    // While somebody comes in, those who are there read the command lines of all.
    let watch = "while :; do cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'; done | grep -m 1 exec-[c]anary >/found";
    dock.ok(&[
        "run", "-d", "--name", "box", "--image", image, "sh", "-c", watch,
    ]);
    let first = dock.process(&dock.id("box"), "process");
    for _ in 0..100 {
        let mut command = Command::new(step(STEP));
        command
            .env("TEN_STEPS_STATE", state)
            .args(["exec", "-e", "A=exec-canary", "box", "true"]);
        assert!(command.stdin(Stdio::null()).status().unwrap().success());
    }
    let found = fs::read_to_string(first.file("root/found")).unwrap_or_default();
    assert_eq!(found, "", "they have read it");
    dock.ok(&["rm", "-f", "box"]);
    dock.is_empty();
}

/// The numbers of a container's processes are another process's by now: whoever ends the container ends nobody else.
#[test]
fn a_number_that_is_somebody_elses() {
    let _attack = tried("");
    let dock = Dock::new();
    let mut bystander = Command::new("sleep").arg("1000").spawn().unwrap();
    for words in [
        &["stop", "-t", "0"][..],
        &["kill"],
        &["pause"],
        &["exec"],
        &["rm", "-f"],
    ] {
        let id = dock.start(&[], &["sleep", "1000"]);
        let processes = ["monitor", "process"].map(|which| dock.process(&id, which));
        for process in &processes {
            kill(process.0, Signal::SIGKILL).unwrap();
            eventually(|| process.is_ending().then_some(())).unwrap();
        }
        let mut record = dock.record(&id);
        for which in ["monitor", "process"] {
            record["state"][which]["pid"] = bystander.id().into();
        }
        fs::write(dock.container(&id).join("config.json"), record.to_string()).unwrap();
        let command = if words == ["exec"] {
            &["true"][..]
        } else {
            &[]
        };
        dock.run(&[words, &[&id], command].concat());
        let state = Process(Pid::from_raw(bystander.id() as i32)).status("State");
        assert!(state.unwrap().starts_with('S'), "{words:?} has reached it");
        assert_eq!(
            bystander.try_wait().unwrap(),
            None,
            "{words:?} has ended it"
        );
        dock.run(&["rm", "-f", &id]);
    }
    bystander.kill().unwrap();
    bystander.wait().unwrap();
    dock.ok(&["prune", "-f"]);
    dock.is_empty();
}

/// Output without a line's end, as much as there is: the monitor keeps none of it, and the log no more than it may.
#[test]
fn a_line_without_an_end() {
    let _attack = tried("");
    let dock = Dock::new();
    let line = "head -c 100000000 /dev/zero; exec sleep 1000";
    let id = dock.start(&["--log-max-size", "1m"], &["sh", "-c", line]);
    let first = dock.process(&id, "process");
    let is_through = || (first.status("Name").ok()? == "sleep").then_some(());
    in_a_while(is_through).expect("its output waits");
    let most = dock.process(&id, "monitor").status("VmHWM").unwrap();
    let most: u64 = most.trim_end_matches(" kB").parse().unwrap();
    assert!(most < 32 << 10, "the monitor has taken {most} kB");
    let logs = fs::read_dir(dock.container(&id)).unwrap().flatten();
    let logs = logs.filter(|entry| entry.file_name().to_string_lossy().contains(".log"));
    let length: u64 = logs.map(|entry| entry.metadata().unwrap().len()).sum();
    assert!(length < 16 << 20, "the logs have {length} bytes");
    dock.ok(&["rm", "-f", &id]);
    dock.is_empty();
}

/// A library of the image's, which the C library loads to find out who is who: nobody of ours loads it.
#[test]
fn no_library_of_the_image_is_ours() {
    if !have("gcc", "gcc") {
        return;
    }
    let dock = Dock::new();
    let root = armed_root(dock.folder.path(), &["sleep"]);
    let source = "#include <fcntl.h>
        __attribute__((constructor)) static void begin(void) { open(\"/was-here\", O_CREAT | O_WRONLY, 0600); }";
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0::/:/bin/sh\nada:x:7:7::/:/bin/sh\n",
    )
    .unwrap();
    for file in ["nsswitch.conf", "group"] {
        fs::write(root.join("etc").join(file), "passwd: evil\ngroup: evil\n").unwrap();
    }
    let evil = dock.folder.path().join("libnss_evil.so.2");
    compile(source, &["-shared", "-fPIC"], &evil);
    let libraries = run(Command::new("find").arg(&root).args(["-name", "libc.so.6"]));
    let folders = libraries
        .lines()
        .map(|path| Path::new(path).parent().unwrap());
    for folder in folders.chain([root.join("usr/lib").as_path(), &root.join("lib")]) {
        fs::create_dir_all(folder).unwrap();
        fs::copy(&evil, folder.join("libnss_evil.so.2")).unwrap();
    }
    let rootfs = root.to_str().unwrap();
    let here = root.join("was-here");
    // The control: a program in there that asks for a name.
    dock.run(&["run", "--rm", "--rootfs", rootfs, "id", "grace"]);
    assert!(here.exists(), "the control has loaded nothing");
    fs::remove_file(&here).unwrap();
    let words = ["run", "-d", "--name", "box", "--rootfs", rootfs];
    dock.ok(&[&words[..], &["-u", "ada", "sleep", "1000"]].concat());
    let (file, to) = (
        dock.folder.path().join("file"),
        dock.folder.path().join("to"),
    );
    fs::write(&file, "").unwrap();
    for words in [
        &["exec", "-u", "ada", "box", "true"][..],
        &["exec", "-u", "nobody-of-that-name", "box", "true"],
        &[
            "exec",
            "--privileged",
            "-u",
            "ada:nobody-of-that-name",
            "box",
            "true",
        ],
        &["cp", file.to_str().unwrap(), "box:/tmp/file"],
        &["cp", "box:/etc/passwd", to.to_str().unwrap()],
        &["diff", "box"],
        &["top", "box"],
        &["stop", "-t", "0", "box"],
        &["rm", "box"],
    ] {
        let _attack = tried("CVE-2019-14271");
        dock.run(words);
        assert!(!here.exists(), "{words:?} has loaded it");
    }
    assert!(!Path::new("/was-here").exists());
    dock.is_empty();
}

/// More processes than anybody looks at, which all want to live.
#[test]
fn many_that_do_not_want_to_go() {
    let _attack = tried("");
    let dock = Dock::new();
    let line = "trap '' TERM INT HUP; i=0; while [ $i -lt 1000 ]; do sleep 100000 & i=$((i+1)); done; echo up; wait";
    for words in [&["stop", "-t", "0"][..], &["rm", "-f"]] {
        let id = dock.start(&[], &["sh", "-c", line]);
        let said = in_a_while(|| dock.logs(&id).contains("up").then_some(()));
        said.expect("it can't begin them");
        let first = dock.process(&id, "process");
        let all = first.children();
        assert_eq!(all.len(), 1000);
        dock.ok(&["exec", &id, "true"]);
        dock.ok(&[words, &[&id]].concat());
        assert!(first.is_ending());
        let left = all.iter().filter(|child| !child.is_ending()).count();
        assert_eq!(left, 0, "{words:?}");
        dock.run(&["rm", &id]);
    }
    dock.is_empty();
}

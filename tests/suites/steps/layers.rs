//! Step 8: layers and volumes. What becomes of archives is in `archives`, and of commits in `commits`.

use crate::stage::bench::{Bench, STEP, layer};
use crate::stage::{Printed, have, run, script, step};
use assert_cmd::assert::OutputAssertExt;
use nix::sys::signal::Signal;
use progress::host::container::{Container, eventually};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

#[test]
fn a_hundred_layers_and_odd_names() {
    let bench = Bench::new();
    let mut flags = Vec::new();
    for number in 0..100 {
        let path = bench.path(&format!("layer {number}:with,odd\\{number}\"name"));
        layer(
            &path,
            &[
                ("srv/top", &format!("{number}\n")),
                (&format!("srv/{number}"), "x"),
            ],
        );
        flags.extend(["--image".to_owned(), path.to_str().unwrap().to_owned()]);
    }
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let outcome = bench.run(&flags, "cat /srv/top; ls /srv | wc -l");
    assert_eq!(
        (outcome.output.as_str(), outcome.code),
        ("0\n101\n", 0),
        "{}",
        outcome.errors
    );
    bench.is_clean();
}

/// Many volumes: files and directories, below each other, made where they are missing, never through a
/// link out of the root.
#[test]
fn volumes() {
    let bench = Bench::new();
    layer(
        &bench.path("a"),
        &[("file", "a\n"), ("below/x", "covered\n")],
    );
    layer(&bench.path("b"), &[("file", "b\n")]);
    let (a, b) = (bench.path("a"), bench.path("b"));
    let image = bench.path("image");
    layer(&image, &[("etc/x", "")]);
    let outside = bench.path("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, image.join("link")).unwrap();
    symlink(
        "/../../../../../../../..".to_owned() + outside.to_str().unwrap(),
        image.join("climb"),
    )
    .unwrap();
    symlink("/proc/1/root", image.join("magic")).unwrap();
    let flag = |source: &Path, target: &str| format!("{}:{target}", source.display());
    let volumes = [
        // The deeper one is named first.
        flag(&b, "/data/below"),
        flag(&a, "/data"),
        flag(&a.join("file"), "/very/deep/down/file:ro"),
        flag(&b, "/link/inside"),
        flag(&b, "/climb/inside"),
    ];
    let mut flags: Vec<&str> = volumes
        .iter()
        .flat_map(|volume| ["-v", volume.as_str()])
        .collect();
    flags.extend(["--image", image.to_str().unwrap()]);
    let line = "cat /data/file /data/below/file /very/deep/down/file /link/inside/file /climb/inside/file; \
                echo more >>/data/below/file; echo spoilt >/very/deep/down/file";
    let outcome = bench.run(&flags, line);
    assert_eq!(outcome.output, "a\nb\na\nb\nb\n", "{}", outcome.errors);
    assert!(
        outcome.errors.contains("Read-only file system"),
        "{}",
        outcome.errors
    );
    assert_eq!(fs::read_to_string(b.join("file")).unwrap(), "b\nmore\n");
    assert_eq!(fs::read_to_string(a.join("file")).unwrap(), "a\n");
    assert_eq!(
        fs::read_dir(&outside).unwrap().count(),
        0,
        "a volume led out of the root"
    );
    // A magic link is read like any other, and leads to the container's root.
    let magic = flag(&b, "/magic/x");
    let outcome = bench.run(&["-v", &magic, "--image", image.to_str().unwrap()], "ls /x");
    assert_eq!(outcome.output, "file\n", "{}", outcome.errors);
    for (target, words) in [
        (flag(&b, "/etc/passwd"), "no directory"),
        (flag(&a.join("file"), "/etc"), "a directory"),
    ] {
        let outcome = bench.run(&["-v", &target, "--image", image.to_str().unwrap()], "true");
        assert_eq!(outcome.code, 125, "{target}: {}", outcome.errors);
        assert!(
            outcome.errors.contains(words),
            "{target}: {}",
            outcome.errors
        );
    }
    bench.is_clean();
}

/// A mount that the host makes later is seen through an rslave or rshared volume, and not otherwise; one that
/// the container makes is seen by the host through rshared only.
#[test]
fn propagation_means_what_it_says() {
    let bench = Bench::new();
    for (option, sees, is_seen) in [
        ("", false, false),
        (":rslave", true, false),
        (":rshared", true, true),
    ] {
        let line = "set -e; mount -t tmpfs v \"$1\"; mount --make-shared \"$1\"; mkdir \"$1/theirs\" \"$1/ours\"
            mkfifo \"$1/go\" \"$1/done\"
            \"$2\" --privileged --state-dir \"$3\" --image \"$4\" -v \"$1:/v$5\" sh -c 'echo ready >/v/done; read go </v/go; \
            if [ -e /v/theirs/x ]; then echo sees; fi; mount -t tmpfs t /v/ours && touch /v/ours/x; echo done >/v/done; read go </v/go' &
            read ready <\"$1/done\"; mount -t tmpfs t \"$1/theirs\"; touch \"$1/theirs/x\"; echo go >\"$1/go\"
            read ready <\"$1/done\"; if [ -e \"$1/ours/x\" ]; then echo is seen; fi; echo go >\"$1/go\"; wait $!";
        let place = bench.path("v");
        fs::create_dir_all(&place).unwrap();
        let said = Command::new("unshare")
            .args(["-m", "sh", "-c", line, "sh"])
            .args([&place, step(STEP), &bench.path("state"), &bench.root.path()])
            .arg(option)
            .assert()
            .success()
            .printed();
        assert_eq!(
            (said.contains("sees"), said.contains("is seen")),
            (sees, is_seen),
            "{option}: {said}"
        );
    }
    bench.is_clean();
}

#[test]
fn tmpfs_and_read_only() {
    let bench = Bench::new();
    let flags = [
        "--read-only",
        "--tmpfs",
        "/run/x:size=64k,mode=700",
        "--tmpfs",
        "/fast:exec",
    ];
    let outcome = bench.run(&flags, "cut -d ' ' -f 5,6 /proc/self/mountinfo | grep -E '^(/|/run/x|/fast) ' | sort; echo x >/x; head -c 100000 /dev/zero >/run/x/y; echo x >/dev/shm/x");
    let lines: Vec<_> = outcome.output.lines().collect();
    assert_eq!(lines.len(), 3, "{}", outcome.output);
    assert!(lines[0].starts_with("/ ro"), "{}", lines[0]);
    assert_eq!(lines[2], "/run/x rw,nosuid,nodev,noexec,relatime");
    assert_eq!(lines[1], "/fast rw,nosuid,nodev,relatime");
    assert!(
        outcome.errors.contains("/x: Read-only"),
        "{}",
        outcome.errors
    );
    assert!(
        outcome.errors.contains("No space left"),
        "{}",
        outcome.errors
    );
    assert!(!outcome.errors.contains("/dev/shm"), "{}", outcome.errors);
    bench.is_clean();
}

/// What was kept is there the next time, removals too, and the work directory has gone.
#[test]
fn changes_are_kept_on_demand() {
    let bench = Bench::new();
    let kept = bench.path("kept");
    let keep = ["--keep", kept.to_str().unwrap()];
    assert_eq!(
        bench
            .run(&keep, "echo one >/one; rm /etc/group; mkdir /new")
            .code,
        0
    );
    let outcome = bench.run(
        &keep,
        "cat /one; ls /etc/group; ls -d /new; echo two >>/one",
    );
    assert_eq!(outcome.output, "one\n/new\n", "{}", outcome.errors);
    assert_eq!(fs::read_to_string(kept.join("one")).unwrap(), "one\ntwo\n");
    let names: Vec<_> = fs::read_dir(bench.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(names.iter().all(|name| !name.contains("work")), "{names:?}");
    // Without it nothing stays.
    assert_eq!(bench.run(&[], "ls /one").code, 2);
    bench.is_clean();
}

/// What SIGKILL leaves, the next run removes, but not what somebody uses.
#[test]
fn the_next_run_sweeps() {
    let bench = Bench::new();
    let root = bench.root.path();
    let started = || {
        let flags = ["-i", "--image", root.to_str().unwrap()];
        Container::start(
            step(STEP),
            &bench.arguments(
                &flags,
                &[
                    "sh",
                    "-c",
                    "echo ready; read end; cat /etc/passwd >/dev/null && echo whole",
                ],
            ),
        )
        .unwrap()
    };
    let killed = started();
    let mut other = started();
    let containers = || fs::read_dir(bench.path("state/running")).unwrap().count();
    assert_eq!(containers(), 2);
    let first = killed.first_process();
    let namespace = first.namespace("pid").unwrap();
    killed.signal(Signal::SIGKILL).unwrap();
    drop(killed);
    eventually(|| match first.namespace("pid") {
        Ok(own) if own == namespace => None,
        _ => Some(()),
    })
    .expect("it is gone");
    assert_eq!(bench.run(&[], "true").code, 0);
    assert_eq!(containers(), 1, "one was left, and one is in use");
    other.write_line("").unwrap();
    assert_eq!(other.finish().unwrap().output, "ready\nwhole\n");
    bench.is_clean();
}

/// Everything that steps 5 to 8 do, at once, on a root of one static program, and with a directory of the
/// host's in it.
#[test]
fn all_of_it_on_busybox() {
    if !have("busybox", "busybox-static") {
        return;
    }
    let bench = Bench::new();
    let root = bench.path("busybox");
    run(script("busybox.sh").arg(&root));
    let line = "id -u && hostname && cat /proc/self/cgroup | wc -l && mount | grep -c overlay && cat /data/file && grep CapEff /proc/self/status";
    let data = bench.path("data");
    layer(&data, &[("file", "data\n")]);
    let volume = format!("{}:/data:ro", data.display());
    for (flags, uid, capabilities) in [
        (&[][..], "0", "00000000a80425fb"),
        (&["-u", "65534"], "65534", "0000000000000000"),
    ] {
        let all = [
            flags,
            &[
                "--image",
                root.to_str().unwrap(),
                "-v",
                &volume,
                "-m",
                "64m",
                "--cpus",
                "0.5",
                "--pids-limit",
                "20",
                "--init",
                "--read-only",
                "--tmpfs",
                "/tmp",
                "-t",
            ],
        ]
        .concat();
        let outcome = bench.bare(&all, &["sh", "-c", line]);
        assert_eq!(outcome.code, 0, "{} {}", outcome.output, outcome.errors);
        let lines: Vec<_> = outcome.output.lines().map(str::trim_end).collect();
        assert_eq!(
            (lines[0], lines[1], lines[3], lines[4]),
            (uid, "container", "1", "data"),
            "{}",
            outcome.output
        );
        assert!(
            lines[5].ends_with(capabilities) || crate::stage::inside(),
            "{}",
            lines[5]
        );
    }
    bench.is_clean();
}

/// The container's root is like its image's, whatever the caller's umask; its state may be named from where one
/// stands, or by a link; and nobody needs to be root to ask why.
#[test]
fn callers_of_all_kinds() {
    let bench = Bench::new();
    let image = bench.path("image");
    bench.root.copy(&image);
    let shell = "chmod 1777 \"$2\"; chown 12:34 \"$2\"; cd \"$3\"; umask 077
        \"$1\" --state-dir state --image image -u 4711 sh -c 'stat -c \"%a %u:%g\" /; cat /etc/hosts >/dev/null && echo hosts'
        ln -s state link; \"$1\" --state-dir link --image image --commit out.tar sh -c 'echo x >/x'; echo $?; ls state/running
        \"$1\" --state-dir state --image out.tar -u 4711 stat -c '%a %u:%g' / /x";
    Command::new("sh")
        .args(["-c", shell, "sh"])
        .args([step(STEP), &image, bench.folder.path()])
        .assert()
        .stdout("1777 12:34\nhosts\n0\n1777 12:34\n644 0:0\n");
    bench.is_clean();
    let copy = crate::stage::copy_of(STEP, bench.folder.path());
    run(crate::stage::as_nobody(&copy)
        .args(["--why", "--state-dir"])
        .arg(bench.path("state"))
        .arg("--image")
        .arg(&image)
        .arg("ls"));
}

/// One container at a time changes a directory that is kept, and what a crash has left beside it goes.
#[test]
fn a_kept_directory_is_one_containers() {
    let bench = Bench::new();
    let (root, kept) = (bench.root.path(), bench.path("kept"));
    let flags = [
        "-i",
        "--image",
        root.to_str().unwrap(),
        "--keep",
        kept.to_str().unwrap(),
    ];
    let started = || {
        Container::start(
            step(STEP),
            &bench.arguments(&flags, &["sh", "-c", "echo ready; read end"]),
        )
        .unwrap()
    };
    let first = started();
    let outcome = bench.bare(&flags, &["true"]);
    assert_eq!(outcome.code, 125);
    assert!(
        outcome.errors.contains("another container is using it"),
        "{}",
        outcome.errors
    );
    let process = first.first_process();
    let namespace = process.namespace("pid").unwrap();
    first.signal(Signal::SIGKILL).unwrap();
    drop(first);
    eventually(|| match process.namespace("pid") {
        Ok(own) if own == namespace => None,
        _ => Some(()),
    });
    assert_eq!(bench.bare(&flags, &["true"]).code, 0);
    let names: Vec<_> = fs::read_dir(bench.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        names.iter().all(|name| !name.contains(".work-")),
        "{names:?}"
    );
    bench.is_clean();
}

/// Volumes and tmpfs together, each below what it is below; and a link of the root's that leads to /proc.
#[test]
fn mounts_go_from_the_top_down() {
    let bench = Bench::new();
    layer(&bench.path("v"), &[("file", "v\n")]);
    let volume = format!("{}:/data/sub", bench.path("v").display());
    let outcome = bench.run(
        &[
            "-v", &volume, "--tmpfs", "/a/b", "--tmpfs", "/data", "--tmpfs", "/a",
        ],
        "cat /data/sub/file; cut -d ' ' -f 5 /proc/self/mountinfo | grep -E '^/(a|data)' | sort",
    );
    assert_eq!(
        outcome.output, "v\n/a\n/a/b\n/data\n/data/sub\n",
        "{}",
        outcome.errors
    );
    let image = bench.path("image");
    layer(&image, &[("x", "")]);
    symlink("/proc", image.join("way")).unwrap();
    let through = format!("{}:/way", bench.path("v").display());
    for flag in [["-v", through.as_str()], ["--tmpfs", "/way"]] {
        let outcome = bench.run(
            &[&flag[..], &["--image", image.to_str().unwrap()]].concat(),
            "true",
        );
        assert_eq!(outcome.code, 125);
        assert!(
            outcome.errors.contains("leads to /proc"),
            "{}",
            outcome.errors
        );
    }
    bench.is_clean();
}

/// A state folder that can't be written is said to be so, at once.
#[test]
fn a_state_folder_that_is_full_or_read_only() {
    let bench = Bench::new();
    let place = bench.path("state");
    fs::create_dir(&place).unwrap();
    let line = "mount -t tmpfs -o nr_inodes=3 s \"$1\" && mkdir \"$1/running\" \"$1/images\"; timeout 20 \"$2\" --state-dir \"$1\" --image \"$3\" true; echo $?
        mount -o remount,ro \"$1\"; timeout 20 \"$2\" --state-dir \"$1\" --image \"$3\" true; echo $?";
    Command::new("unshare")
        .args(["-m", "sh", "-c", line, "sh"])
        .args([&place, step(STEP), &bench.root.path()])
        .assert()
        .stdout("125\n125\n")
        .complains("No space left")
        .complains("Read-only");
}

#[test]
fn what_cannot_be_is_said_in_a_line() {
    let bench = Bench::new();
    for (arguments, words) in [
        (
            &["-v", "/no/such/place:/x"][..],
            &["-v /no/such/place:/x", "mkdir -p"][..],
        ),
        (&["-v", "/etc"], &["--volume", "SRC:DST"]),
        (&["-v", "/etc:x"], &["--volume", "absolute"]),
        (&["-v", "/etc:/"], &["--volume", "the root itself"]),
        (&["-v", "/etc:/x:rx"], &["--volume", "rx", "rprivate"]),
        (&["-v", "/etc:/proc/sys"], &["--volume", "/proc"]),
        (&["--tmpfs", "x"], &["--tmpfs", "absolute"]),
        (
            &["--tmpfs", "/x:colour=red"],
            &["--tmpfs", "colour=red", "size"],
        ),
        (&["--tmpfs", "/x:size=lots"], &["--tmpfs /x", "EINVAL"]),
        (&["--image", "/no/such/image"], &["--image /no/such/image"]),
        (&["--image", "/dev/null"], &["--image /dev/null", "neither"]),
        (&["--image", "/"], &["--image /", "own root"]),
        (&["--commit", "x.zip"], &["--commit", ".tar.zst"]),
        (
            &["--image", "/etc", "--rootfs", "/etc"],
            &["--image", "--rootfs"],
        ),
    ] {
        let outcome = bench.bare(arguments, &["true"]);
        assert_eq!(outcome.code, 125, "{arguments:?}: {}", outcome.errors);
        for word in words {
            assert!(
                outcome.errors.contains(word),
                "{arguments:?}: {}",
                outcome.errors
            );
        }
        bench.is_clean();
    }
}

/// `--why` looks through layers as it does into a directory, and leaves nothing.
#[test]
fn why_sees_all_layers() {
    let bench = Bench::new();
    let image = bench.path("script");
    layer(&image, &[("bin/odd", "#!/no/such/interpreter\n")]);
    fs::set_permissions(image.join("bin/odd"), fs::Permissions::from_mode(0o755)).unwrap();
    let root = bench.root.path();
    let flags = [
        "--why",
        "--image",
        image.to_str().unwrap(),
        "--image",
        root.to_str().unwrap(),
    ];
    let outcome = bench.bare(&flags, &["/bin/odd"]);
    assert_eq!(outcome.code, 127);
    assert!(
        outcome.output.contains("install /no/such/interpreter"),
        "{}",
        outcome.output
    );
    assert_eq!(bench.bare(&flags, &["ls"]).code, 0);
    let outcome = bench.bare(&flags[1..], &["/bin/odd"]);
    assert!(
        outcome.errors.contains("install /no/such/interpreter"),
        "{}",
        outcome.errors
    );
    bench.is_clean();
}

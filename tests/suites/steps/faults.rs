//! Bad input and faults: an error that names the thing and the way out, and nothing left behind.

use crate::stage::dock::{Dock, ended, groups_of, monitors};
use crate::stage::redaction::{redact, transcript};
use crate::stage::{
    DIRECT, Printed, Root, as_nobody, copy_of, folder, nested, on_host, progress, run, script,
    step, step04, usual, write_program,
};
use assert_cmd::assert::{Assert, OutputAssertExt};
use progress::host::Propagation;
use progress::host::container::eventually;
use progress::host::points::Struck;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// Runs a step on a pretend host that must not be changed by it, and tells what it printed.
fn on_unchanged_host(package: &str, arguments: &[&str]) -> String {
    let program = step(package).to_str().unwrap();
    let words = [&[program], arguments].concat();
    let title = format!("{package} {}", arguments.join(" "));
    let [shared, private] = [Propagation::Shared, Propagation::Private]
        .map(|propagation| transcript(&title, &on_host(propagation, "exec \"$@\"", &words)));
    assert_eq!(shared, private);
    shared
}

#[test]
fn a_root_that_is_none() {
    let whole = Root::shared();
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("empty")).unwrap();
    fs::write(at("archive.tar"), "").unwrap();
    whole.copy(&at("linked"));
    fs::remove_dir(at("linked/proc")).unwrap();
    symlink("/etc", at("linked/proc")).unwrap();
    whole.copy(&at("filed"));
    fs::remove_dir(at("filed/sys")).unwrap();
    fs::write(at("filed/sys"), "").unwrap();
    let mut told = String::new();
    for name in ["absent", "archive.tar", "empty", "linked", "filed"] {
        let root = at(name);
        told += &on_unchanged_host(
            "step04-pivot-root",
            &["--rootfs", root.to_str().unwrap(), "id"],
        );
    }
    told += &on_unchanged_host("step04-pivot-root", &["--rootfs", "/", "id"]);
    insta::assert_snapshot!(redact(&told, &[(folder.path(), "FOLDER")]));
    // Nothing was mounted through the link, or made in place of what is missing.
    assert!(!at("empty/proc").exists());
}

#[test]
fn arguments_that_make_no_sense() {
    let root = Root::shared();
    let root = root.path();
    let root = root.to_str().unwrap();
    let long = "x".repeat(65);
    let mut told = String::new();
    for (package, arguments) in [
        ("step01-uts", &["--hostname", &long, "id"][..]),
        ("step01-uts", &["--hostname", "", "id"]),
        ("step01-uts", &[""]),
        ("step02-pid", &["--no-such-flag"]),
        ("step03-mount", &["--hostname"]),
        (
            "step04-pivot-root",
            &["--rootfs", root, "-w", "/no/such/directory", "id"],
        ),
        (
            "step04-pivot-root",
            &["--rootfs", root, "-w", "relative", "id"],
        ),
        (
            "step04-pivot-root",
            &["--rootfs", root, "-e", "=value", "id"],
        ),
    ] {
        told += &on_unchanged_host(package, arguments);
    }
    insta::assert_snapshot!(redact(&told, &[(Path::new(root), "ROOT")]));
}

/// A hostname of 64 bytes is the longest there is, and is taken.
#[test]
fn the_longest_hostname() {
    let name = "x".repeat(64);
    let told = run(Command::new(step("step01-uts")).args(["--hostname", &name, "uname", "-n"]));
    assert_eq!(told.trim(), name);
}

#[test]
fn commands_that_end_badly_leave_the_host_as_it_was() {
    let root = Root::shared();
    for package in DIRECT {
        let flags = usual(package, &root.path());
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        for command in [
            &["no-such-program"][..],
            &["/etc/passwd"],
            &["sh", "-c", "exit 3"],
            // Left running in the container, they end with it.
            &["sh", "-c", "sleep 1000 & sleep 1000 & exit 4"],
        ] {
            if *package == "step01-uts" && command[0] == "sh" {
                continue;
            }
            on_unchanged_host(package, &[&flags[..], command].concat());
        }
    }
    // The first step has no processes of its own that could end with it, and no child.
    on_unchanged_host("step01-uts", &["sh", "-c", "exit 3"]);
}

/// A container may do to its own what it likes.
#[test]
fn what_a_container_changes_is_its_own() {
    let root = Root::shared();
    let root = root.path();
    let script =
        "hostname mine; mount -t tmpfs mine /tmp; ip link add mine type dummy; mkdir /tmp/x";
    for package in ["step03-mount", "step04-pivot-root"] {
        let rootfs = ["--rootfs", root.to_str().unwrap()];
        let rootfs = if package == "step04-pivot-root" {
            &rootfs[..]
        } else {
            &[]
        };
        on_unchanged_host(package, &[rootfs, &["sh", "-c", script]].concat());
    }
}

fn run_as_nobody(package: &str, arguments: &[&str]) -> Assert {
    let folder = folder();
    as_nobody(&copy_of(package, folder.path()))
        .args(arguments)
        .assert()
}

#[test]
fn without_privilege_the_way_out_is_named() {
    let root = Root::shared();
    let root = root.path();
    let mut told = String::new();
    for package in DIRECT {
        let flags = usual(package, root.as_path());
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        let ran = run_as_nobody(package, &[&flags[..], &["true"]].concat());
        if *package >= "step07" {
            // Which folder it couldn't make, depends on the machine.
            ran.code(125).complains("help: control groups take a root");
            continue;
        }
        told += &transcript(&format!("{package} true"), &ran);
    }
    insta::assert_snapshot!(redact(&told, &[(&root, "ROOT")]));
}

#[test]
fn a_default_root_that_cannot_be_made_is_named() {
    let ran = run_as_nobody(
        "step04-pivot-root",
        &["--state-dir", "/proc/nowhere", "true"],
    );
    let told = transcript("step04-pivot-root --state-dir /proc/nowhere true", &ran);
    insta::assert_snapshot!(told);
}

/// The user namespace's own limits: in one of ours we may set them to 0.
#[test]
fn namespaces_that_are_used_up() {
    let mut told = String::new();
    for (package, limit) in [
        ("step01-uts", "uts"),
        ("step02-pid", "pid"),
        ("step03-mount", "net"),
    ] {
        let script = "echo 0 > /proc/sys/user/max_$1_namespaces && exec \"$2\" true";
        let ran = Command::new("unshare")
            .args(["--user", "--map-root-user", "sh", "-c", script, "sh", limit])
            .arg(step(package))
            .env_remove("RUST_BACKTRACE")
            .assert();
        told += &transcript(
            &format!("{package} true # max_{limit}_namespaces is 0"),
            &ran,
        );
    }
    insta::assert_snapshot!(told);
}

/// The parent killed at any moment: the container goes with it, and the host is as it was.
#[test]
fn a_killed_parent_leaves_nothing() {
    let root = Root::shared();
    let root = root.path();
    // Each round a little later on the container's way; none waits for it to get anywhere.
    let shell = "for round in $(seq 30); do
            \"$1\" --rootfs \"$2\" sleep 1000 & parent=$!
            for delay in $(seq $((round * 3))); do :; done
            kill -KILL $parent
            wait $parent 2>/dev/null
        done
        # Orphans are reaped by the host's init; those that live on are the leak.
        for patience in $(seq 2000); do
            left=$(pgrep 'sleep|step04') || break
        done
        [ -z \"$left\" ]";
    for propagation in [Propagation::Shared, Propagation::Private] {
        let arguments = [step04().to_str().unwrap(), root.to_str().unwrap()];
        on_host(propagation, shell, &arguments).success();
    }
}

#[test]
fn a_script_that_fails_leaves_nothing_half_made() {
    let folder = folder();
    let root = folder.path().join("root");
    for (name, arguments) in [
        ("from-host.sh", &["no-such-program"][..]),
        ("docker-export.sh", &[]),
        ("debian.sh", &[]),
    ] {
        let mut command = script(name);
        match name {
            "docker-export.sh" => command.env("DOCKER", "false").arg("image"),
            "debian.sh" => command.args(["--suite", "no-such-suite"]),
            _ => &mut command,
        };
        let ran = command.arg(&root).args(arguments).assert().failure();
        assert!(!ran.errors().is_empty(), "{name} says nothing");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "{name}");
    }
}

/// A root is made of a container image even where links can't be kept; but not in silence.
#[test]
fn an_export_to_a_file_system_without_links_is_warned_of() {
    let folder = folder();
    let bin = folder.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let stub = |name: &str, text: &str| {
        write_program(&bin.join(name), format!("#!/bin/sh\n{text}\n"));
    };
    // What a shared Windows folder makes of a link: a copy.
    stub(
        "ln",
        "exec cp \"$2\" \"$3\" 2>/dev/null || exec cp \"${3%/*}/$2\" \"$3\"",
    );
    stub(
        "engine",
        "case $1 in create) echo 1234 ;; export) tar -C \"$SOURCE\" -c . ;; rm) : ;; esac",
    );
    let source = folder.path().join("source");
    fs::create_dir_all(source.join("etc")).unwrap();
    script("docker-export.sh")
        .arg("image")
        .arg(folder.path().join("root"))
        .env(
            "PATH",
            format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()),
        )
        .env("DOCKER", bin.join("engine"))
        .env("SOURCE", &source)
        .assert()
        .success()
        .complains("can't hold links and modes");
    assert!(folder.path().join("root/etc").is_dir());
}

/// What is done to containers, and what it takes to do it again.
struct Scene {
    words: &'static [&'static str],
    /// Whether there is a container `box`, and whether it runs.
    prepared: Option<bool>,
    /// How many processes take part: caller, monitor, and those in the container.
    roles: usize,
}

const SCENES: [Scene; 6] = [
    Scene {
        words: &["run", "-d", "--name", "box"],
        prepared: None,
        roles: 3,
    },
    Scene {
        words: &["start", "box"],
        prepared: Some(false),
        roles: 3,
    },
    Scene {
        words: &["stop", "-t", "0", "box"],
        prepared: Some(true),
        roles: 1,
    },
    Scene {
        words: &["exec", "box", "true"],
        prepared: Some(true),
        roles: 2,
    },
    Scene {
        words: &["rm", "box"],
        prepared: Some(false),
        roles: 1,
    },
    Scene {
        words: &["rename", "box", "other"],
        prepared: Some(false),
        roles: 1,
    },
];

/// Plays a scene with a fault at a point, and looks whether all that is left can be put right.
fn play(dock: &Dock, scene: &Scene, role: usize, point: u64, errno: i32) -> Struck {
    let image = dock.root.path().display().to_string();
    if let Some(runs) = scene.prepared {
        let how = if runs {
            &["run", "-d"][..]
        } else {
            &["create"]
        };
        dock.ok(&[how, &["--name", "box", "--image", &image, "sleep", "1000"]].concat());
    }
    let mut words = scene.words.to_vec();
    if scene.words[0] == "run" {
        words.extend(["--image", &image, "sleep", "1000"]);
    }
    let program = step(crate::stage::dock::STEP).display().to_string();
    let (role_text, point_text, errno_text) =
        (role.to_string(), point.to_string(), errno.to_string());
    let state = dock.state.display().to_string();
    let mut harness = Command::new(progress());
    harness
        .args([
            "strike-at",
            &role_text,
            &point_text,
            &errno_text,
            &state,
            "--",
            &program,
        ])
        .args(&words)
        .env("TEN_STEPS_STATE", &dock.state)
        .env("RUST_BACKTRACE", "0");
    let ran = ended(&mut harness);
    let (told, errors) = (ran.printed(), ran.errors());
    let told = told.lines().last().unwrap_or_default();
    let struck: Struck = serde_json::from_str(told).unwrap_or_else(|_| panic!("{ran}"));
    let shown =
        format!("{words:?}, role {role}, point {point}, errno {errno}: {struck:?} {errors}");
    if errno != 0 {
        assert!([0, 125].contains(&struck.code), "{shown}");
        assert!(struck.code == 0 || !errors.is_empty(), "{shown}");
    }

    let mut ids = Vec::new();
    for entry in fs::read_dir(dock.state.join("containers"))
        .unwrap()
        .flatten()
    {
        let name = entry.file_name().into_string().unwrap();
        let record = entry.path().join("config.json");
        // One that is being made or removed is nobody's.
        if !name.starts_with('.') && record.exists() {
            let text = fs::read(&record).unwrap();
            let whole = serde_json::from_slice::<serde_json::Value>(&text);
            assert!(
                whole.is_ok_and(|record| record["id"] == name),
                "{shown}: half a record"
            );
        }
        ids.push(name.rsplit('-').next().unwrap().to_owned());
    }
    let listed = dock.run(&["ps", "-aq", "--no-trunc"]);
    let listed = listed.append_context("after", shown.clone());
    let listed = listed.success().stderr("").printed();
    let outlives_a_kill = scene.words[0] != "rm" && scene.prepared.is_some();
    assert!(
        !outlives_a_kill || listed.lines().count() == 1,
        "{shown}: a container is lost"
    );
    let clean = eventually(|| {
        // A monitor whose caller was killed goes on, and its container may begin only now.
        for id in dock.ok(&["ps", "-q", "--no-trunc"]).lines() {
            dock.run(&["stop", "-t", "0", id]);
        }
        dock.ok(&["prune", "-f"]);
        let groups = ids.iter().any(|id| !groups_of(id).is_empty());
        let monitors = !monitors(&dock.state).is_empty();
        // A monitor that was about to leave has kept its container from being removed.
        let left = fs::read_dir(dock.state.join("containers")).unwrap().count();
        (!groups && !monitors && left == 0).then_some(())
    });
    assert!(clean.is_some(), "{shown}: groups or monitors are left");
    dock.is_empty();
    struck
}

/// Plays all scenes with a fault at each point, or at every `stride`-th, and returns how many points there were.
fn play_all(errno: i32, stride: usize) -> Vec<(String, usize, u64)> {
    let mut told = Vec::new();
    let dock = Dock::new();
    dock.run_in(&["--rm"], &["true"]);
    for scene in &SCENES {
        for role in 0..scene.roles {
            let mut points = 0;
            for point in (0..).step_by(stride) {
                if play(&dock, scene, role, point, errno).call.is_none() {
                    break;
                }
                points += 1;
            }
            told.push((scene.words.join(" "), role, points));
        }
    }
    told
}

/// One of caller, monitor and child is killed at every system call that changes something: what is left is put
/// right by `prune`.
#[test]
fn a_kill_at_every_call() {
    let stride = if nested() { 25 } else { 1 };
    let told = play_all(0, stride);
    println!("points tried, for each command and process: {told:?}");
    let all: u64 = told.iter().map(|(_, _, points)| points).sum();
    println!("{all} points tried");
    assert!(told.iter().all(|(_, _, points)| *points > 0), "{told:?}");
}

/// The disk is full, or broken, at every write to the state folder: no record is lost or half written.
#[test]
#[cfg(target_arch = "x86_64")]
fn an_error_at_every_write() {
    use nix::errno::Errno;
    let stride = if nested() { 10 } else { 1 };
    for errno in [Errno::ENOSPC, Errno::EIO] {
        let told = play_all(errno as i32, stride);
        println!("writes that failed with {errno:?}, for each command and process: {told:?}");
        let all: u64 = told.iter().map(|(_, _, points)| points).sum();
        assert!(all > 10, "{told:?}");
    }
}

//! Bad input and faults: an error that names the thing and the way out, and nothing left behind.

use crate::stage::{
    DIRECT, Root, as_nobody, copy_of, folder, on_host, redact, run, script, step, step04,
    transcript, usual,
};
use progress::host::{CHANGED, Propagation, exit_code};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

/// Runs a step on a pretend host that must not be changed by it, and tells what it printed.
fn on_unchanged_host(package: &str, arguments: &[&str]) -> String {
    let program = step(package).to_str().unwrap();
    let outputs = [Propagation::Shared, Propagation::Private].map(|propagation| {
        let output = on_host(
            propagation,
            "exec \"$@\"",
            &[&[program], arguments].concat(),
        );
        let said = String::from_utf8_lossy(&output.stderr);
        assert_ne!(
            exit_code(output.status),
            CHANGED,
            "{package} {arguments:?}: {said}"
        );
        output
    });
    let title = format!("{package} {}", arguments.join(" "));
    let [shared, private] = outputs.map(|output| transcript(&title, &output));
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

fn run_as_nobody(package: &str, arguments: &[&str]) -> Output {
    let folder = folder();
    as_nobody(&copy_of(package, folder.path()))
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn without_privilege_the_way_out_is_named() {
    let root = Root::shared();
    let root = root.path();
    let mut told = String::new();
    for package in DIRECT {
        let flags = usual(package, root.as_path());
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        let output = run_as_nobody(package, &[&flags[..], &["true"]].concat());
        if *package >= "step07" {
            // Which folder it couldn't make, depends on the machine.
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(125), "{said}");
            assert!(said.contains("help: control groups take a root"), "{said}");
            continue;
        }
        told += &transcript(&format!("{package} true"), &output);
    }
    insta::assert_snapshot!(redact(&told, &[(&root, "ROOT")]));
}

#[test]
fn a_default_root_that_cannot_be_made_is_named() {
    let output = run_as_nobody(
        "step04-pivot-root",
        &["--state-dir", "/proc/nowhere", "true"],
    );
    let told = transcript("step04-pivot-root --state-dir /proc/nowhere true", &output);
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
        let output = Command::new("unshare")
            .args(["--user", "--map-root-user", "sh", "-c", script, "sh", limit])
            .arg(step(package))
            .env_remove("RUST_BACKTRACE")
            .output()
            .unwrap();
        told += &transcript(
            &format!("{package} true # max_{limit}_namespaces is 0"),
            &output,
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
            left=$(pgrep -x sleep) || break
        done
        [ -z \"$left\" ]";
    for propagation in [Propagation::Shared, Propagation::Private] {
        let arguments = [step04().to_str().unwrap(), root.to_str().unwrap()];
        let output = on_host(propagation, shell, &arguments);
        assert_eq!(exit_code(output.status), 0, "{output:?}");
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
        let output = command.arg(&root).args(arguments).output().unwrap();
        assert!(!output.status.success(), "{name}");
        assert!(!output.stderr.is_empty(), "{name} says nothing");
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
        fs::write(bin.join(name), format!("#!/bin/sh\n{text}\n")).unwrap();
        run(Command::new("chmod").arg("755").arg(bin.join(name)));
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
    let output = script("docker-export.sh")
        .arg("image")
        .arg(folder.path().join("root"))
        .env(
            "PATH",
            format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()),
        )
        .env("DOCKER", bin.join("engine"))
        .env("SOURCE", &source)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("can't hold links and modes"),
        "{said}"
    );
    assert!(folder.path().join("root/etc").is_dir());
}

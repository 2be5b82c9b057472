//! Step 9: what is left after kills, a failing disk and a power failure, and that it is told as it is.

use crate::attacks::tried;
use crate::stage::dock::{Dock, groups_of, monitors};
use crate::stage::{Printed, run};
use assert_cmd::assert::OutputAssertExt;
use nix::sys::signal::{Signal, kill};
use progress::host::container::eventually;
use serde_json::json;
use std::fs::{self, File};
use std::io::Write;
use std::process::Command;

/// A reboot: nothing runs, and what asked for it is started.
#[test]
fn boot_starts_what_asked_for_it() {
    let dock = Dock::new();
    let mut ids = Vec::new();
    for (name, policy) in [
        ("never", "no"),
        ("always", "always"),
        ("unless", "unless-stopped"),
        ("stopped", "unless-stopped"),
    ] {
        ids.push(dock.start(&["--name", name, "--restart", policy], &["sleep", "1000"]));
    }
    dock.ok(&["stop", "-t", "0", "stopped"]);
    // The power fails.
    for id in &ids {
        if dock.status(id).0 == "running" {
            kill(dock.process(id, "monitor").0, Signal::SIGKILL).unwrap();
        }
    }
    let all_down = || dock.ok(&["ps", "-q"]).is_empty().then_some(());
    eventually(all_down).unwrap();
    let booted = dock.ok(&["boot"]);
    let mut names: Vec<_> = booted.lines().collect();
    names.sort();
    assert_eq!(names, ["always", "unless"]);
    assert_eq!(dock.status("always").0, "running");
    assert_eq!(dock.status("stopped").0, "exited");
    // One that can't be started, and one of which nothing is known, keep no other from it.
    let [_, always, unless, _] = &ids[..] else {
        unreachable!()
    };
    for id in [always, unless] {
        kill(dock.process(id, "monitor").0, Signal::SIGKILL).unwrap();
    }
    eventually(all_down).unwrap();
    fs::write(dock.container(always).join("config.json"), "{}").unwrap();
    let booted = dock.run(&["boot"]).stdout("unless\n");
    booted.complains(&always[..12]);
    let unit = dock.ok(&["boot", "--unit"]);
    assert!(
        unit.contains("\nExecStart=\"/") && unit.contains(" boot --state-dir "),
        "{unit}"
    );
    assert!(unit.contains("\nWantedBy=multi-user.target\n"), "{unit}");
}

/// A state folder that was copied in mid-flight, onto a machine that was started since.
#[test]
fn after_a_power_failure_all_is_put_right() {
    let dock = Dock::new();
    let id = dock.start(
        &["--name", "box"],
        &["sh", "-c", "echo mine >/mine; echo said; exec sleep 1000"],
    );
    dock.until_it_says("box", "said");
    let copy = Dock::new();
    run(Command::new("cp")
        .arg("-a")
        .arg(&dock.state)
        .arg(&copy.state));
    fs::remove_dir_all(copy.state.join("run")).unwrap();
    let path = copy.container(&id).join("config.json");
    let text = fs::read_to_string(&path).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    fs::write(
        &path,
        text.replace(boot.trim(), "00000000-0000-4000-8000-000000000000"),
    )
    .unwrap();
    // Half a line, half a container, and a name that leads to nothing.
    let mut log = File::options()
        .append(true)
        .open(copy.container(&id).join("container.log"))
        .unwrap();
    log.write_all(b"2026-11-22T21:4").unwrap();
    fs::create_dir(copy.state.join("containers/.new-0123")).unwrap();
    std::os::unix::fs::symlink("0123", copy.state.join("names/ghost")).unwrap();

    assert_eq!(
        copy.status("box"),
        ("exited".into(), "Exited (unknown)".into())
    );
    copy.fails(&["wait", "box"])
        .complains("nobody knows how container box ended");
    assert_eq!(copy.logs("box"), "said\n");
    // The first one runs all the while, in groups of the same name: it is another.
    assert_eq!(dock.status("box").0, "running");
    dock.ok(&["rm", "-f", "box"]);
    copy.ok(&["start", "box"]);
    assert_eq!(copy.ok(&["exec", "box", "cat", "/mine"]), "mine\n");
    copy.ok(&["rm", "-f", "box"]);
    copy.ok(&["prune", "-f"]);
    copy.is_empty();
}

#[test]
fn the_truth_after_a_kill() {
    let dock = Dock::new();
    let id = dock.start(
        &["--name", "box"],
        &["sh", "-c", "echo x >>/mine; echo up; exec sleep 1000"],
    );
    dock.until_it_says("box", "up");
    // The command.
    kill(dock.process(&id, "process").0, Signal::SIGKILL).unwrap();
    assert_eq!(dock.ok(&["wait", "box"]), "137\n");
    let has_begun = |lives: &str| {
        let begun = || (dock.ok(&["exec", "box", "cat", "/mine"]) == lives).then_some(());
        eventually(begun).expect("it doesn't begin");
    };
    dock.ok(&["start", "box"]);
    has_begun("x\nx\n");
    // Its monitor.
    let first = dock.process(&id, "process");
    kill(dock.process(&id, "monitor").0, Signal::SIGKILL).unwrap();
    eventually(|| (dock.status("box").0 == "exited").then_some(())).unwrap();
    eventually(|| (!first.file("stat").exists()).then_some(())).unwrap();
    dock.fails(&["wait", "box"]).complains("nobody knows");
    dock.ok(&["stop", "box"]);
    dock.ok(&["start", "box"]);
    has_begun("x\nx\nx\n");
    kill(dock.process(&id, "monitor").0, Signal::SIGKILL).unwrap();
    eventually(|| (dock.status("box").0 == "exited").then_some(())).unwrap();
    dock.ok(&["rm", "box"]);
    dock.ok(&["prune", "-f"]);
    // Somebody else who makes groups may be about to remove these.
    eventually(|| groups_of(&id).is_empty().then_some(()))
        .unwrap_or_else(|| panic!("{:?}", groups_of(&id)));
    dock.is_empty();
}

/// So can one whose record can't be read while it runs: its monitor needs none.
#[test]
fn a_damaged_record_of_one_that_runs() {
    let _attack = tried("");
    let dock = Dock::new();
    let id = dock.start(
        &["--name", "box", "--restart", "always"],
        &["sleep", "1000"],
    );
    let process = dock.process(&id, "process");
    dock.ok(&["pause", "box"]);
    fs::write(dock.container(&id).join("config.json"), "{}").unwrap();
    dock.fails(&["stop", &id]).complains("rm -f");
    dock.ok(&["rm", "-f", &id]);
    assert!(!process.file("stat").exists());
    dock.ok(&["prune", "-f"]);
    dock.is_empty();
}

/// A damaged record is told of, and can be removed; nothing else suffers.
#[test]
fn a_damaged_record() {
    let _attack = tried("");
    let dock = Dock::new();
    dock.run_in(&["--name", "good"], &["true"]);
    dock.run_in(&["--name", "bad"], &["true"]);
    let id = dock.id("bad");
    for damage in [&b""[..], b"{\"id\": 7}", b"\xff\xfe"] {
        fs::write(dock.container(&id).join("config.json"), damage).unwrap();
        let listed = dock.run(&["ps", "-a"]).success();
        listed.prints("good");
        assert!(!listed.printed().contains("bad"), "{listed}");
        listed.complains("`rm -f").complains(&id[..12]);
    }
    dock.ok(&["rm", "-f", &id]);
    dock.run_in(&["--rm", "--name", "bad"], &["true"]).success();
    dock.ok(&["prune", "-f"]);
    dock.is_empty();
}

/// Containers that an older program has made, one of which runs: their records are of before there were versions.
#[test]
fn records_of_an_older_program() {
    let dock = Dock::new();
    let runs = dock.start(
        &["--name", "runs"],
        &[
            "sh",
            "-c",
            "echo said; trap 'exit 7' TERM; while :; do sleep 0.1; done",
        ],
    );
    dock.until_it_says("runs", "said");
    dock.run_in(&["--name", "ended"], &["sh", "-c", "echo over; exit 3"])
        .code(3);
    let ended = dock.id("ended");
    let made = dock.ok(&[
        "create",
        "--name",
        "made",
        "--rootfs",
        dock.root.path().to_str().unwrap(),
        "sh",
        "-c",
        "echo made",
    ]);
    let made = made.trim().to_owned();
    for id in [&runs, &ended, &made] {
        let mut record = dock.record(id);
        let mut plan = record.as_object_mut().unwrap().remove("plan").unwrap();
        plan.as_object_mut().unwrap().remove("version");
        // What wasn't said had its usual value.
        plan["hostname"] = id[..12].into();
        plan["stop_signal"] = 15.into();
        plan["env"]["workdir"] = "/".into();
        plan["layers"]["image_limit"] = (16_u64 << 30).into();
        plan["network"] = json!({ "network": plan["network"].take() });
        record["arguments"] = plan;
        fs::write(dock.container(id).join("config.json"), record.to_string()).unwrap();
    }
    let listed = dock.ok(&["ps", "-aq"]);
    assert_eq!(listed.lines().count(), 3, "{listed}");
    let format = "{{.State.Status}} {{.Config.StopSignal}} {{.HostConfig.NetworkMode}} {{.Config.WorkingDir}}";
    let inspected = dock.ok(&["inspect", "-f", format, "runs", "ended", "made"]);
    let lines: Vec<_> = inspected.lines().collect();
    assert_eq!(
        lines,
        [
            "running SIGTERM none /",
            "exited SIGTERM none /",
            "created SIGTERM none /"
        ]
    );
    assert_eq!(dock.logs("runs"), "said\n");
    // Its monitor could read nothing that is written today.
    dock.fails(&["rename", "runs", "other"])
        .complains("older program");
    dock.run(&["exec", "runs", "sh", "-c", "echo inside"])
        .success()
        .prints("inside");
    dock.ok(&["stop", "runs"]);
    assert_eq!(dock.record(&runs)["state"]["exit_code"], 7);
    dock.run(&["start", "-a", "ended"]).code(3).prints("over");
    dock.run(&["start", "-a", "made"]).success().prints("made");
    dock.ok(&["start", "runs"]);
    // It is written as of today.
    for id in [&runs, &ended, &made] {
        let record = dock.record(id);
        assert!(
            record["plan"]["version"].is_u64() && record["arguments"].is_null(),
            "{record}"
        );
    }
    dock.ok(&["rm", "-f", "runs", "ended", "made"]);
    dock.is_empty();
}

/// A command that has changed its user outlives a monitor that is killed. It isn't forgotten.
#[test]
fn an_orphan_is_not_forgotten() {
    let dock = Dock::new();
    let script = "exec setpriv --reuid 1234 --regid 1234 --clear-groups sleep 1000";
    let root = crate::stage::armed_root(dock.folder.path(), &["setpriv"]);
    let root = root.to_str().unwrap();
    dock.ok(&[
        "run", "-d", "--name", "box", "--image", root, "sh", "-c", script,
    ]);
    let id = dock.id("box");
    let first = dock.process(&id, "process");
    eventually(|| (first.status("Uid").ok()?.starts_with("1234")).then_some(())).unwrap();
    kill(dock.process(&id, "monitor").0, Signal::SIGKILL).unwrap();
    eventually(|| monitors(&dock.state).is_empty().then_some(())).unwrap();
    assert_eq!(dock.status("box").0, "running");
    dock.fails(&["rm", "box"])
        .complains("its monitor was killed");
    dock.ok(&["prune", "-f"]);
    assert_eq!(dock.status("box").0, "running");
    // To start it is to start it anew, once.
    dock.ok(&["start", "box"]);
    assert_ne!(dock.process(&id, "process"), first);
    eventually(|| (!first.file("stat").exists()).then_some(())).unwrap();
    dock.ok(&["rm", "-f", "box"]);
    dock.is_empty();
}

/// The state folder by another name is the same one.
#[test]
fn a_state_folder_behind_a_link() {
    let dock = Dock::new();
    dock.start(&["--name", "box"], &["sleep", "1000"]);
    let link = dock.folder.path().join("link");
    std::os::unix::fs::symlink(&dock.state, &link).unwrap();
    let mut command = dock.command(&["stop", "-t", "0", "box"]);
    command.env("TEN_STEPS_STATE", &link).assert().success();
    assert_eq!(dock.status("box").0, "exited");
}

/// Whoever removes a container whose monitor was killed removes its control groups, too, and doesn't wait for the next
/// container to do so.
#[test]
fn no_groups_of_a_killed_monitor() {
    let dock = Dock::new();
    for words in [&["rm"][..], &["rm", "-f"]] {
        let id = dock.start(&[], &["sleep", "1000"]);
        let first = dock.process(&id, "process");
        kill(dock.process(&id, "monitor").0, Signal::SIGKILL).unwrap();
        eventually(|| first.is_ending().then_some(())).unwrap();
        eventually(|| (dock.status(&id).0 == "exited").then_some(())).unwrap();
        dock.ok(&[words, &[&id]].concat());
        assert_eq!(
            groups_of(&id),
            Vec::<std::path::PathBuf>::new(),
            "{words:?}"
        );
    }
    dock.is_empty();
}

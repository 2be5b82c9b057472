//! The words by which engines know what went wrong, and what follows them.

use crate::stage::bundle::Bundle;
use crate::stage::dock::ended;
use crate::stage::{Printed, run, script};
use progress::host::container::eventually;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;

#[test]
fn of_containers_that_are_not_there() {
    let bundle = Bundle::new();
    for words in [
        &["state", "nobody"][..],
        &["start", "nobody"],
        &["kill", "nobody"],
        &["kill", "--all", "nobody", "KILL"],
        &["delete", "nobody"],
        &["ps", "nobody"],
        &["pause", "nobody"],
        &["resume", "nobody"],
        &["update", "--pids-limit", "5", "nobody"],
        &["events", "--stats", "nobody"],
    ] {
        bundle.fails(words).complains("container does not exist");
    }
    let exec = bundle.run(&["exec", "nobody", "true"]).code(255);
    exec.complains("container does not exist");
    for id in ["a/b", "../x", "..", ".", "", "a b", "ä", &"x".repeat(2000)] {
        for words in [
            &["create", id][..],
            &["state", id],
            &["delete", "--force", id],
        ] {
            bundle.fails(words).complains("invalid container ID format");
        }
    }
    bundle.is_clean();
}

/// Each word of a container's own state, in the order in which it lives.
#[test]
fn of_containers_in_the_wrong_state() {
    let bundle = Bundle::new();
    let id = &*bundle.id;
    bundle.create(id);
    bundle
        .fails(&["create", id])
        .complains("container with given ID already exists");
    bundle
        .fails(&["run", id])
        .complains("container with given ID already exists");
    bundle
        .fails(&["resume", id])
        .complains("container not paused");
    bundle.ok(&["start", id]);
    bundle
        .fails(&["start", id])
        .complains("cannot start an already running container");
    bundle
        .fails(&["resume", id])
        .complains("container not paused");
    let deleted = bundle.fails(&["delete", id]);
    deleted.complains(&format!(
        "cannot delete container {id} that is not stopped: running"
    ));
    bundle.ok(&["pause", id]);
    let paused = bundle.run(&["exec", id, "true"]).code(255);
    paused.complains("cannot exec in a paused container (use --ignore-paused to override)");
    bundle
        .fails(&["start", id])
        .complains("cannot start an already running container");
    let deleted = bundle.fails(&["delete", id]);
    deleted.complains(&format!(
        "cannot delete container {id} that is not stopped: paused"
    ));
    bundle.ok(&["resume", id]);
    bundle.ok(&["kill", id, "KILL"]);
    let stopped = || (bundle.status(id) == "stopped").then_some(());
    eventually(stopped).expect("it has stopped");
    for words in [
        &["kill", id][..],
        &["pause", id],
        &["update", "--pids-limit", "5", id],
        &["events", "--stats", id],
    ] {
        bundle.fails(words).complains("container not running");
    }
    bundle
        .fails(&["start", id])
        .complains("cannot start a container that has stopped");
    bundle
        .run(&["exec", id, "true"])
        .code(255)
        .complains("cannot exec in a stopped container");
    bundle
        .fails(&["resume", id])
        .complains("container not paused");
    bundle.ok(&["delete", id]);
    bundle.is_clean();
}

/// A command that can't be executed, whoever is asked to: `create`, `start` or `run` for the first process, `exec` for
/// another one.
#[test]
fn of_commands_that_cannot_be_executed() {
    let bundle = Bundle::new();
    let root = bundle.path("rootfs");
    let programs: [(&str, &[u8], u32); 3] = [
        ("forbidden", b"#!/bin/sh\n", 0o644),
        ("noise", b"\x00\x01 no program", 0o755),
        ("script", b"#!/no/such/interpreter\n", 0o755),
    ];
    for (name, bytes, mode) in programs {
        fs::write(root.join(name), bytes).unwrap();
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let cases = [
        (
            "slep",
            "exec: \"slep\": executable file not found in $PATH",
            "did you mean sleep?",
        ),
        (
            "/no/such",
            "exec: \"/no/such\": no such file or directory",
            "isn't there",
        ),
        (
            "/forbidden",
            "exec: \"/forbidden\": permission denied",
            "mode 0644",
        ),
        ("/noise", "exec: \"/noise\": exec format error", ""),
        (
            "/script",
            "exec: \"/script\": no such file or directory",
            "/no/such/interpreter",
        ),
        (
            "/etc/passwd/x",
            "exec: \"/etc/passwd/x\": not a directory",
            "",
        ),
        ("/etc", "exec: \"/etc\": ", "directory"),
        ("etc", "executable file not found in $PATH", ""),
    ];
    for (name, words, reason) in cases {
        bundle.write(|config| config["process"]["args"] = json!([name, "argument"]));
        let mut created = bundle.run(&["create", &bundle.id]);
        if created.get_output().status.success() {
            assert_eq!(bundle.status(&bundle.id), "created");
            created = bundle.run(&["start", &bundle.id]);
            let stopped = || (bundle.status(&bundle.id) == "stopped").then_some(());
            eventually(stopped).expect("it has stopped");
            bundle.ok(&["delete", &bundle.id]);
        }
        let created = created.code(1);
        created.complains(words);
        created.complains(reason);
        bundle.is_clean();
        let ran = bundle.fails(&["run", &bundle.id]);
        ran.complains(words);
        ran.complains(reason);
        bundle.is_clean();
    }
    bundle.begin(|_| {});
    for (name, words, reason) in cases {
        let joined = bundle
            .run(&["exec", &bundle.id, name, "argument"])
            .code(255);
        joined.complains(words);
        joined.complains(reason);
    }
    let nowhere = bundle
        .run(&["exec", "--cwd", "/etc/passwd", &bundle.id, "true"])
        .code(255);
    nowhere.complains("process.cwd");
    nowhere.complains("not a directory");
    bundle.end();
}

/// A program whose loader is missing is found by `create`, and only `start` learns that it can't be executed.
#[test]
fn of_a_program_without_its_loader() {
    let bundle = Bundle::new();
    let root = bundle.path("rootfs");
    fs::remove_dir_all(&root).unwrap();
    run(script("from-host.sh").arg(&root).arg("ls"));
    run(script("break.sh").arg("missing-loader").arg(&root));
    bundle.write(|config| config["process"]["args"] = json!(["ls"]));
    bundle.create(&bundle.id);
    assert_eq!(bundle.status(&bundle.id), "created");
    let failed = bundle.fails(&["start", &bundle.id]);
    failed.complains("exec: \"/usr/bin/ls\": ");
    failed.complains("no such file or directory");
    failed.complains("loader");
    failed.complains("help: ");
    let stopped = || (bundle.status(&bundle.id) == "stopped").then_some(());
    eventually(stopped).expect("it has stopped");
    bundle
        .fails(&["start", &bundle.id])
        .complains("cannot start a container that has stopped");
    bundle.ok(&["delete", &bundle.id]);
    bundle.is_clean();
    bundle
        .fails(&["run", "--detach", &bundle.id])
        .complains("loader");
    bundle.is_clean();
}

/// Where the kernel refuses something to ourselves its text begins with a small letter.
#[test]
fn of_the_kernel() {
    let bundle = Bundle::new();
    let nowhere =
        json!({"destination": "/srv/x", "type": "none", "source": "nowhere", "options": ["bind"]});
    bundle.refuses(
        |config| config["mounts"].as_array_mut().unwrap().push(nowhere),
        &["].source", "nowhere: ", "no such file or directory"],
    );
    bundle.refuses(
        |config| config["linux"]["namespaces"][0]["path"] = json!("/no/such/namespace"),
        &[
            "linux.namespaces[0].path: /no/such/namespace",
            "no such file or directory",
        ],
    );
    bundle.write(|_| {});
    let words = ["create", "--console-socket", "/no/such/socket", &bundle.id];
    bundle.write(|config| config["process"]["terminal"] = json!(true));
    let refused = bundle.fails(&words);
    refused.complains("--console-socket");
    refused.complains("no such file or directory");
    bundle.is_clean();
    bundle.write(|_| {});
    let by = ["setpriv", "--bounding-set=-sys_admin", "--"];
    let refused = ended(&mut bundle.command_by(&by, &["create", &bundle.id])).code(1);
    refused.complains("operation not permitted");
    bundle.is_clean();
}

/// An engine reads the last line of the log: level error, with the whole message. A person reads standard error.
#[test]
fn in_the_log() {
    let bundle = Bundle::new();
    let log = bundle.text("log.json");
    let flags = ["--log", &log, "--log-format", "json"];
    let last = || -> Value {
        let text = fs::read_to_string(&log).unwrap();
        serde_json::from_str(text.lines().last().unwrap()).unwrap()
    };
    let twice = |words: &[&str], code: i32, said: &[&str]| {
        for debug in [&[][..], &["--debug"]] {
            let ran = bundle.run(&[&flags, debug, words].concat()).code(code);
            let line = last();
            assert_eq!(line["level"], "error", "{line}");
            for said in said {
                ran.complains(said);
                assert!(line["msg"].as_str().unwrap().contains(said), "{line}");
            }
        }
    };
    twice(&["state", "nobody"], 1, &["container does not exist"]);
    twice(
        &["exec", "nobody", "true"],
        255,
        &["container does not exist"],
    );
    bundle.write(|config| config["process"]["args"] = json!(["slep"]));
    twice(
        &["create", &bundle.id],
        1,
        &[
            "exec: \"slep\": executable file not found in $PATH",
            "did you mean sleep?",
        ],
    );
    twice(
        &["run", &bundle.id],
        1,
        &["exec: \"slep\": executable file not found in $PATH"],
    );
    bundle.write(|config| config["linux"]["namespaces"] = json!([{"type": "dream"}]));
    twice(
        &["create", &bundle.id],
        1,
        &["linux.namespaces[0].type", "dream"],
    );
    let all = fs::read_to_string(&log).unwrap();
    for line in all.lines() {
        let line: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(
            line["msg"].is_string() && line["level"].is_string(),
            "{line}"
        );
    }
    assert!(
        all.lines().any(|line| line.contains("\"debug\"")),
        "--debug says nothing"
    );
    // As text.
    let log = bundle.text("log.text");
    bundle.fails(&["--log", &log, "state", "nobody"]);
    let text = fs::read_to_string(log).unwrap();
    assert!(text.contains("container does not exist"), "{text}");
    bundle.is_clean();
}

//! Hooks: when they run, where, and with what; and what becomes of a container whose hook fails.

use crate::stage::Printed;
use crate::stage::bundle::{Bundle, push};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::MetadataExt;

/// The moments in their order.
const MOMENTS: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

/// A hook that is a shell with `line` to do.
fn shell(line: &str) -> Value {
    json!({"path": "/bin/sh", "args": ["sh", "-c", line], "env": [format!("PATH={}", step01_uts::PATH)]})
}

/// Shares the bundle's folder `log` with the container, by the same path.
fn share_log(bundle: &Bundle, config: &mut Value) {
    let log = bundle.text("log");
    let _ = fs::create_dir(&log);
    let mount = json!({"destination": log, "type": "none", "source": log, "options": ["bind"]});
    push(&mut config["mounts"], mount);
}

/// Lines that were written to the log.
fn lines(bundle: &Bundle) -> Vec<String> {
    let text = fs::read_to_string(bundle.path("log/log")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn each_at_its_moment() {
    let bundle = Bundle::new();
    let log = bundle.text("log/log");
    bundle.write(|config| {
        share_log(&bundle, config);
        for moment in MOMENTS {
            // Two of each, of which the first one tells all.
            let line = format!(
                "{{ echo {moment} $(stat -Lc %i /proc/self/ns/mnt) $(stat -Lc %i /proc/self/ns/pid) $(stat -c %d:%i /.) $PPID; cat; echo; }} >>{log}"
            );
            push(&mut config["hooks"][moment], shell(&line));
            push(&mut config["hooks"][moment], shell(&format!("echo again {moment} >>{log}")));
        }
        let line = format!("echo command >>{log}; sleep 1000000");
        config["process"]["args"] = json!(["sh", "-c", line]);
        config["annotations"] = json!({"a": "note"});
    });
    let first = bundle.create(&bundle.id);
    let created = lines(&bundle);
    bundle.ok(&["start", &bundle.id]);
    // The command, and the hooks behind it, write beside each other.
    let command = || {
        lines(&bundle)
            .iter()
            .any(|line| line == "command")
            .then_some(())
    };
    progress::host::container::eventually(command).expect("the command runs");
    let namespace = |path: &str| fs::metadata(path).unwrap().ino().to_string();
    let of = |name: &str| namespace(first.file(&format!("ns/{name}")).to_str().unwrap());
    let (inside, pids_inside) = (of("mnt"), of("pid"));
    let (outside, pids_outside) = (
        namespace("/proc/self/ns/mnt"),
        namespace("/proc/self/ns/pid"),
    );
    let root = fs::metadata(bundle.path("rootfs")).unwrap();
    let roots = (format!("{}:{}", root.dev(), root.ino()), {
        let root = fs::metadata("/").unwrap();
        format!("{}:{}", root.dev(), root.ino())
    });
    let pid = first.0.as_raw();
    bundle.end();
    let all = lines(&bundle);
    let mut order: Vec<_> = all.iter().filter(|line| !line.starts_with('{')).collect();
    order.retain(|line| *line != "command");
    let mut order = order.into_iter();
    for moment in MOMENTS {
        let words: Vec<_> = order.next().unwrap().split(' ').collect();
        assert_eq!(words[0], moment, "{all:#?}");
        assert_eq!(order.next().unwrap(), &format!("again {moment}"));
        let is_inside = ["createContainer", "startContainer"].contains(&moment);
        let (mounts, pids) = match is_inside {
            true => (&inside, &pids_inside),
            false => (&outside, &pids_outside),
        };
        assert_eq!((words[1], words[2]), (&mounts[..], &pids[..]), "{moment}");
        // The root is entered between the two hooks of the container's namespaces.
        let root = if moment == "startContainer" {
            &roots.0
        } else {
            &roots.1
        };
        assert_eq!(words[3], root, "{moment}");
    }
    assert_eq!(order.next(), None);
    // By the end of `create` three moments have gone by, and the command hasn't begun.
    assert!(
        created.iter().any(|line| line == "again createContainer"),
        "{created:#?}"
    );
    assert!(
        !created
            .iter()
            .any(|line| line == "command" || line.starts_with("startContainer"))
    );
    let place = |text: &str| all.iter().position(|line| line == text).unwrap();
    assert!(place("again startContainer") < place("command"));

    let states = all.iter().filter(|line| line.starts_with('{'));
    let states: Vec<Value> = states
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for (moment, state) in MOMENTS.into_iter().zip(&states) {
        assert_eq!(state["id"], json!(bundle.id), "{moment}");
        assert_eq!(state["ociVersion"], json!("1.2.0"), "{moment}");
        assert_eq!(state["annotations"], json!({"a": "note"}), "{moment}");
        assert_eq!(
            state["bundle"],
            json!(fs::canonicalize(bundle.folder.path()).unwrap()),
            "{moment}"
        );
        // As each of them sees the process.
        let (status, number) = match moment {
            "prestart" | "createRuntime" => ("creating", pid),
            "createContainer" => ("creating", 1),
            "startContainer" => ("created", 1),
            "poststart" => ("running", pid),
            _ => ("stopped", 0),
        };
        assert_eq!(state["status"], json!(status), "{moment}");
        if moment != "poststop" {
            assert_eq!(state["pid"], json!(number), "{moment}");
        }
    }
    assert_eq!(states.len(), MOMENTS.len());
}

/// A hook has its own words and environment, and nothing of ours.
#[test]
fn words_and_environment_of_a_hook() {
    let bundle = Bundle::new();
    let log = bundle.text("said");
    let line =
        format!("echo \"$0 $1\" >{log}; env | sort >>{log}; ls -l /proc/self/fd | wc -l >>{log}");
    bundle.write(|config| {
        config["hooks"]["createRuntime"] = json!([{
            "path": "/bin/bash",
            "args": ["of mine", "-c", line, "zero", "one two"],
            "env": ["PATH=/usr/bin:/bin", "KEY=a = b", "EMPTY="],
        }]);
    });
    let mut command = bundle.command(&["create", &bundle.id]);
    crate::stage::dock::ended(command.env("SECRET", "canary")).success();
    let said = fs::read_to_string(&log).unwrap();
    let mut said: Vec<&str> = said.lines().collect();
    let open = said.pop().unwrap();
    said.retain(|line| {
        !["PWD=", "SHLVL=", "_="]
            .iter()
            .any(|shells| line.starts_with(shells))
    });
    assert_eq!(
        said,
        ["zero one two", "EMPTY=", "KEY=a = b", "PATH=/usr/bin:/bin"]
    );
    // "total 0", three descriptors, and the directory that ls itself reads.
    assert_eq!(open, "5");
    bundle.end();
}

/// A hook that fails, hangs or isn't there: the container is undone, those behind it don't run, and the error has its
/// name and its words.
#[test]
fn a_hook_that_fails_at_creation() {
    let bundle = Bundle::new();
    fs::create_dir(bundle.path("log")).unwrap();
    let log = bundle.text("log/log");
    for moment in &MOMENTS[..3] {
        let mut slow = shell("echo patience; exec sleep 1000000");
        slow["timeout"] = json!(1);
        let mut never = shell("true");
        never["timeout"] = json!(0);
        let cases = [
            (
                shell("echo it is full >&2; exit 3"),
                &["it is full", "3"][..],
            ),
            (shell("kill -KILL $$"), &["9"]),
            (
                json!({"path": "/no/such/hook"}),
                &["/no/such/hook", "no such file"],
            ),
            (json!({"path": "bin/sh"}), &["absolute"]),
            (slow, &["1 s", "patience"]),
            (never, &["timeout"]),
        ];
        for (hook, words) in cases {
            let named = format!("hooks.{moment}[1]");
            let named = [&[&*named], words].concat();
            bundle.refuses(
                |config| {
                    let behind = shell(&format!("echo behind >>{log}"));
                    config["hooks"][moment] = json!([shell("true"), hook, behind]);
                },
                &named,
            );
        }
    }
    let all = lines(&bundle);
    assert!(!all.iter().any(|line| line == "behind"), "{all:#?}");
}

/// The container was there, and is gone: runtime.md, step 3 and so on to 12 and 13.
#[test]
fn what_follows_a_failed_creation() {
    let bundle = Bundle::new();
    fs::create_dir(bundle.path("log")).unwrap();
    let log = bundle.text("log/log");
    for moment in &MOMENTS[..3] {
        bundle.refuses(
            |config| {
                config["hooks"][moment] = json!([shell("false")]);
                let told = shell(&format!("echo poststop {moment} >>{log}"));
                config["hooks"]["poststop"] = json!([told]);
            },
            &[moment],
        );
    }
    assert_eq!(
        lines(&bundle),
        MOMENTS[..3]
            .iter()
            .map(|moment| format!("poststop {moment}"))
            .collect::<Vec<_>>()
    );
}

/// Where `start` fails, the command hasn't run, and the container has stopped.
#[test]
fn a_hook_that_fails_at_start() {
    let bundle = Bundle::new();
    let log = bundle.text("log/log");
    bundle.write(|config| {
        share_log(&bundle, config);
        config["process"]["args"] = json!(["sh", "-c", format!("echo command >>{log}")]);
        config["hooks"]["startContainer"] = json!([shell("echo it is full >&2; exit 3")]);
    });
    bundle.create(&bundle.id);
    let failed = bundle.fails(&["start", &bundle.id]);
    failed.complains("hooks.startContainer[0]");
    failed.complains("it is full");
    let stopped = || (bundle.status(&bundle.id) == "stopped").then_some(());
    progress::host::container::eventually(stopped).expect("it has stopped");
    bundle.ok(&["delete", &bundle.id]);
    bundle.is_clean();
    // `run` removes it itself.
    bundle
        .fails(&["run", &bundle.id])
        .complains("hooks.startContainer[0]");
    bundle.is_clean();
    bundle
        .fails(&["run", "--detach", &bundle.id])
        .complains("hooks.startContainer[0]");
    bundle.is_clean();
    assert_eq!(lines(&bundle), [""; 0]);
}

/// Until version 1.2 of the specification such a failure is a warning; since then it is an error that stops the container.
#[test]
fn a_hook_that_fails_behind_the_start() {
    let bundle = Bundle::new();
    fs::create_dir(bundle.path("log")).unwrap();
    let log = bundle.text("log/log");
    for (version, code) in [("1.0.2", 0), ("1.2.0", 0), ("1.3.0", 1)] {
        bundle.write(|config| {
            config["ociVersion"] = json!(version);
            let behind = shell(&format!("echo behind >>{log}"));
            config["hooks"]["poststart"] = json!([shell("echo it is full; exit 3"), behind]);
        });
        let first = bundle.create(&bundle.id);
        let started = bundle.run(&["start", &bundle.id]);
        started.complains("hooks.poststart[0]");
        started.complains("it is full");
        assert_eq!(
            started.get_output().status.code(),
            Some(code),
            "{version}: {started}"
        );
        match code {
            0 => assert_eq!(bundle.status(&bundle.id), "running"),
            _ => assert!(first.is_ending(), "{version}"),
        }
        let behind: &[&str] = if code == 0 { &["behind"] } else { &[] };
        assert_eq!(lines(&bundle), behind, "{version}");
        let _ = fs::remove_file(&log);
        bundle.ok(&["delete", "--force", &bundle.id]);
        bundle.is_clean();
    }
}

/// A failure at the very end is a warning: the container is gone, and the other hooks run.
#[test]
fn a_hook_that_fails_at_the_end() {
    let bundle = Bundle::new();
    fs::create_dir(bundle.path("log")).unwrap();
    let log = bundle.text("log/log");
    let failing = |config: &mut Value| {
        let behind = shell(&format!("echo behind >>{log}"));
        config["hooks"]["poststop"] = json!([shell("echo it is full; exit 3"), behind]);
    };
    bundle.begin(failing);
    bundle.ok(&["kill", &bundle.id, "KILL"]);
    let stopped = || (bundle.status(&bundle.id) == "stopped").then_some(());
    progress::host::container::eventually(stopped).expect("it has stopped");
    let deleted = bundle.run(&["delete", &bundle.id]).success();
    deleted.complains("hooks.poststop[0]");
    deleted.complains("it is full");
    bundle.is_clean();
    assert_eq!(lines(&bundle), ["behind"]);
}

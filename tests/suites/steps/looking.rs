//! Step 10: what is seen of a container from outside, and what a shell completes.

use crate::stage::dock::Dock;
use crate::stage::{Printed, have, run};
use assert_cmd::assert::OutputAssertExt;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

#[test]
fn top_and_stats() {
    let dock = Dock::new();
    let id = dock.start(
        &["--name", "busy", "-m", "64m"],
        &["sh", "-c", "sleep 1000 & while :; do :; done"],
    );
    let top = dock.ok(&["top", "busy"]);
    let first = dock.process(&id, "process").0.to_string();
    let line = top
        .lines()
        .find(|line| line.split_whitespace().nth(1) == Some(&first))
        .unwrap();
    let fields: Vec<&str> = line.split_whitespace().collect();
    assert_eq!((fields[0], fields[3], fields[4]), ("0", "1", "R"), "{top}");
    assert!(top.contains("sleep 1000"), "{top}");
    let stats = dock.ok(&["stats", "--no-stream", "--format", "json", "busy"]);
    let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
    let cpu: f64 = stats["CPUPerc"]
        .as_str()
        .unwrap()
        .trim_end_matches('%')
        .parse()
        .unwrap();
    assert!(cpu > 5.0 && cpu < 250.0, "{stats}");
    assert_eq!(stats["PIDs"], "2");
    assert!(
        stats["MemUsage"].as_str().unwrap().ends_with(" / 64.0 MiB"),
        "{stats}"
    );
    let table = dock.ok(&["stats", "--no-stream"]);
    assert!(table.starts_with("CONTAINER ID   NAME   CPU %"), "{table}");
    // It ends when the container does.
    let watching = dock.foreground(&["stats", "busy"]);
    dock.ok(&["rm", "-f", "busy"]);
    assert_eq!(watching.ended().unwrap().code, 0);
    dock.fails(&["stats", "busy"])
        .complains("no such container");
}

#[test]
fn diff_tells_of_every_change() {
    let dock = Dock::new();
    dock.run_in(&["--name", "quiet"], &["true"]);
    assert_eq!(dock.ok(&["diff", "quiet"]), "");
    let script = "echo x >/new; mkdir -p /a/b; echo x >/a/b/c; rm /etc/passwd; echo x >>/etc/group; \
        rm -r /usr/lib*/terminfo /etc/terminfo /lib/terminfo 2>/dev/null; chmod 701 /root";
    dock.run_in(&["--name", "box"], &["sh", "-c", script]);
    let diff = dock.ok(&["diff", "box"]);
    for line in [
        "A /new",
        "A /a",
        "A /a/b",
        "A /a/b/c",
        "C /etc",
        "D /etc/passwd",
        "C /etc/group",
        "C /root",
    ] {
        assert!(
            diff.lines().any(|other| other == line),
            "{line} isn't there: {diff}"
        );
    }
    assert!(
        !diff.contains("/etc/hosts") && !diff.contains("/proc"),
        "{diff}"
    );
    // A directory that took the place of another.
    dock.run_in(
        &["--name", "opaque"],
        &["sh", "-c", "rm -r /etc; mkdir /etc; echo x >/etc/only"],
    );
    let diff = dock.ok(&["diff", "opaque"]);
    for line in ["C /etc", "A /etc/only", "D /etc/passwd"] {
        assert!(
            diff.lines().any(|other| other == line),
            "{line} isn't there: {diff}"
        );
    }
}

/// Who has nowhere to write what was asked for says so, and doesn't panic.
#[test]
fn an_output_that_is_full_is_named() {
    let dock = Dock::new();
    let script = "touch /new; echo something; sleep 1000";
    dock.start(&["--name", "box"], &["sh", "-c", script]);
    dock.until_it_says("box", "something");
    for words in [
        &["ps"][..],
        &["ps", "-q"],
        &["ps", "--format", "json"],
        &["inspect", "box"],
        &["inspect", "--format", "{{.Name}}", "box"],
        &["top", "box"],
        &["stats", "--no-stream"],
        &["stats", "--no-stream", "--format", "json"],
        &["diff", "box"],
        &["logs", "box"],
        &["boot", "--unit"],
        &["completions", "bash"],
        &["pause", "box"],
        &["rm", "-f", "box"],
    ] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let ran = dock.command(words).stdout(full).assert().code(125);
        ran.complains("standard output: No space left on device");
        assert_eq!(ran.errors().lines().count(), 1, "{ran}");
    }
}

#[test]
fn shells_complete() {
    let dock = Dock::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = dock.ok(&["completions", shell]);
        assert!(
            script.contains("step10-exec") && script.contains("unpause"),
            "{shell}"
        );
        let checked = match have(shell, shell) {
            false => continue,
            true => dock.folder.path().join(shell),
        };
        fs::write(&checked, script).unwrap();
        run(Command::new(shell).arg("-n").arg(&checked));
    }
}

/// Layers on layers: nothing is asked of the host, and what is new is new.
#[test]
fn diff_of_several_layers() {
    let dock = Dock::new();
    let folder = dock.folder.path();
    let (low, high) = (folder.join("low"), folder.join("high"));
    fs::create_dir_all(low.join("opt/app/old")).unwrap();
    fs::create_dir_all(high.join("opt")).unwrap();
    fs::write(high.join("opt/app"), "a file now").unwrap();
    symlink("/etc", high.join("opt/hosts-etc")).unwrap();
    let image = |path: &Path| path.display().to_string();
    let (base, low, high) = (image(&dock.root.path()), image(&low), image(&high));
    let images = ["--image", &high, "--image", &low, "--image", &base];
    let script = "rm /opt/app /opt/hosts-etc; mkdir -p /opt/app/old /opt/hosts-etc; \
        echo x >/opt/app/old/x; echo x >/opt/hosts-etc/passwd";
    dock.ok(&[
        &["run", "--name", "box"],
        &images[..],
        &["sh", "-c", script],
    ]
    .concat());
    let diff = dock.ok(&["diff", "box"]);
    let wanted = "C /opt\nC /opt/app\nA /opt/app/old\nA /opt/app/old/x\nC /opt/hosts-etc\nA /opt/hosts-etc/passwd\n";
    assert_eq!(diff, wanted);
}

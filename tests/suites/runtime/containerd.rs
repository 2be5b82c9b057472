//! containerd, whose shim calls step 12 for every container.

use crate::runtime::{is_frozen, limit};
use crate::stage::clients::{Client, Containerd};
use crate::stage::{Printed, folder};
use progress::host::container::eventually;
use std::fs;

/// A container from its start to its end, with all that its task is asked for.
#[test]
fn tasks() {
    let Some(containerd) = Containerd::start() else {
        return;
    };
    let status = |name: &str| {
        let listed = containerd.ok(&["task", "ls"]);
        let line = listed.lines().find(|line| line.starts_with(name));
        let words = line.unwrap_or_default().split_whitespace();
        words.last().unwrap_or_default().to_owned()
    };
    let line = "trap 'exit 5' TERM; while :; do sleep 1000 & wait; done";
    let flags = ["--memory-limit", "67108864", "--cpus", "0.5"];
    let process = containerd.begin(&flags, "box", &["sh", "-c", line]);
    assert_eq!(
        limit(process, "memory", "memory.limit_in_bytes", "memory.max"),
        "67108864"
    );
    assert_eq!(
        limit(process, "cpu", "cpu.cfs_quota_us", "cpu.max"),
        "50000"
    );
    assert_eq!(status("box"), "RUNNING");
    let exec = |name: &'static str, command: &[&str]| {
        containerd.run(&[&["task", "exec", "--exec-id", name, "box"], command].concat())
    };
    exec("one", &["sh", "-c", "echo out; exit 6"])
        .code(6)
        .stdout("out\n");
    exec("two", &["nothing"]).failure().complains("\"nothing\"");
    let mut second =
        containerd.at_terminal(&["task", "exec", "-t", "--exec-id", "three", "box", "sh"]);
    second.until("# ");
    second.types("tty; exit 8\n");
    second.until("/dev/pts/0\r");
    assert_eq!(second.code(), 8);
    let listed = containerd.ok(&["task", "ps", "box"]);
    assert!(listed.contains(&process.0.to_string()), "{listed}");
    let metrics = containerd.ok(&["task", "metrics", "box"]);
    assert!(
        metrics.contains("memory") && metrics.contains("pids.current"),
        "{metrics}"
    );
    containerd.ok(&["task", "pause", "box"]);
    assert_eq!(status("box"), "PAUSED");
    assert!(is_frozen(process));
    containerd.ok(&["task", "resume", "box"]);
    assert!(!is_frozen(process));
    containerd.ok(&["task", "kill", "-s", "SIGTERM", "box"]);
    eventually(|| (status("box") == "STOPPED").then_some(())).expect("it doesn't stop");
    // Its code is the command's.
    containerd
        .run(&["task", "delete", "box"])
        .complains("exit code 5");
    containerd.ok(&["container", "delete", "box"]);

    // A task is killed with all that it has.
    let process = containerd.begin(&[], "box", &["sleep", "1000"]);
    containerd.ok(&["task", "rm", "-f", "box"]);
    assert!(process.is_ending());
    containerd.ok(&["container", "delete", "box"]);
}

/// What is typed after `ctr run`.
#[test]
fn runs() {
    let Some(containerd) = Containerd::start() else {
        return;
    };
    let folder = folder();
    fs::write(folder.path().join("file"), "from the host\n").unwrap();
    let mount = format!(
        "type=bind,src={},dst=/data,options=rbind:ro",
        folder.path().display()
    );
    let flags = [
        "--env",
        "KEY=value",
        "--cwd",
        "/tmp",
        "--mount",
        &mount,
        "--read-only",
    ];
    let line = "echo $KEY; pwd; cat /data/file; touch /data/x; touch /tmp/x; exit 3";
    let ran = containerd
        .run_in(&flags, "box", &["sh", "-c", line])
        .code(3);
    ran.complains("/data/x: Read-only file system")
        .complains("/tmp/x: Read-only file system");
    ran.stdout("value\n/tmp\nfrom the host\n");
    let words = containerd.words(&["--rm"], "fed", &["head", "-n", "1"]);
    containerd
        .fed("typed\n", &words)
        .success()
        .stdout("typed\n");
    containerd
        .run_in(&[], "missing", &["nothing"])
        .failure()
        .complains("\"nothing\"");
    containerd
        .run_in(&[], "plain", &["/etc/plain"])
        .failure()
        .complains("permission denied");
    let seccomp = ["grep", "^Seccomp:", "/proc/self/status"];
    containerd
        .run_in(&[], "free", &seccomp)
        .success()
        .stdout("Seccomp:\t0\n");
    containerd
        .run_in(&["--seccomp"], "bound", &seccomp)
        .success()
        .stdout("Seccomp:\t2\n");
    let mut shell = containerd.at_terminal(&containerd.words(&["--rm", "-t"], "terminal", &["sh"]));
    shell.until("# ");
    shell.types("tty; exit 7\n");
    shell.until("/dev/pts/0\r");
    assert_eq!(shell.code(), 7);

    // Namespaces by their paths.
    let process = containerd.begin(&[], "box", &["sleep", "1000"]);
    let path = |name: &str| format!("{name}:{}", process.file(&format!("ns/{name}")).display());
    let paths = ["pid", "ipc", "uts"].map(path).to_vec();
    let paths = [
        paths,
        vec![format!("network:{}", process.file("ns/net").display())],
    ]
    .concat();
    let flags: Vec<&str> = paths.iter().flat_map(|path| ["--with-ns", path]).collect();
    let guest = containerd.begin(&flags, "guest", &["sleep", "1000"]);
    for name in ["pid", "ipc", "uts", "net"] {
        assert_eq!(
            guest.namespace(name).unwrap(),
            process.namespace(name).unwrap()
        );
    }
    for name in ["guest", "box"] {
        containerd.ok(&["task", "rm", "-f", name]);
        containerd.ok(&["container", "delete", name]);
    }
}

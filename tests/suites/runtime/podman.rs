//! Podman, whose monitor calls step 12 for every container.

use crate::runtime::{is_frozen, limit};
use crate::stage::Printed;
use crate::stage::clients::{Client, IMAGE, Podman, Terminal};
use nix::unistd::Pid;
use progress::host::container::eventually;
use progress::host::evidence::Process;

fn process(podman: &Podman, name: &str) -> Process {
    let pid = podman.ok(&["inspect", "-f", "{{.State.Pid}}", name]);
    Process(Pid::from_raw(pid.trim().parse().unwrap()))
}

/// Commands in the foreground, and how they end.
#[test]
fn runs() {
    let Some(podman) = Podman::new() else {
        return;
    };
    let line = "echo $KEY; pwd; hostname; id -u; grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status; touch /x; \
        touch /t/x && echo written";
    let flags = [
        "-e",
        "KEY=value",
        "-w",
        "/tmp",
        "--hostname",
        "box",
        "--user",
        "1234",
        "--read-only",
        "--read-only-tmpfs=false",
        "--tmpfs",
        "/t:mode=1777",
        "--cap-drop",
        "ALL",
        "--security-opt",
        "no-new-privileges",
    ];
    let ran = podman.run_in(&flags, &["sh", "-c", line]).success();
    ran.complains("/x: Read-only file system");
    ran.stdout(
        "value\n/tmp\nbox\n1234\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\nwritten\n",
    );
    let ends: [(&[&str], i32, &str); 4] = [
        (&["sh", "-c", "exit 3"], 3, ""),
        (&["/etc/plain"], 126, "permission denied"),
        (&["nothing"], 127, "nothing"),
        (&["/bin/nothing"], 127, "/bin/nothing"),
    ];
    for (command, code, words) in ends {
        podman.run_in(&[], command).code(code).complains(words);
    }
    let words = podman.words(&["--rm", "-i"], &["cat"]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    podman.fed("typed", &words).success().stdout("typed");
    podman
        .run_in(
            &["--init", "--init-path", "/usr/bin/tini-static"],
            &["cat", "/proc/1/comm"],
        )
        .success()
        .stdout("podman-init\n");
    // Nobody but the runtime brings up the loopback.
    podman
        .run_in(&[], &["ip", "address", "show", "lo"])
        .success()
        .prints("127.0.0.1");
    let map = [
        "--uidmap",
        "0:100000:65536",
        "--gidmap",
        "0:100000:65536",
        "--user",
        "7",
    ];
    let line = "id -u; stat -c %u /etc; tr -s ' ' </proc/self/uid_map";
    podman
        .run_in(&map, &["sh", "-c", line])
        .success()
        .stdout("7\n0\n 0 100000 65536\n");
    // A descriptor more, which the shell opens.
    let words = podman.words(
        &["--rm", "--preserve-fds", "1"],
        &["cat", "/proc/self/fd/3"],
    );
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let script = "printf three >three; exec \"$@\" 3<three";
    podman.by_shell(script, &words).success().stdout("three");

    let words = podman.words(&["--rm", "-it", "-e", "PS1=@> "], &["sh"]);
    let mut shell = Terminal::start(podman.command(&[]).args(words));
    shell.until("@> ");
    shell.resize(31, 97);
    shell.types("tty; until [ \"$(stty size)\" = '31 97' ]; do :; done; echo re''sized\n");
    shell.until("/dev/pts/0\r\n");
    shell.until("resized\r\n");
    shell.types("exit 7\n");
    assert_eq!(shell.code(), 7);
}

/// A container in the background, from its start to its end.
#[test]
fn in_the_background() {
    let Some(podman) = Podman::new() else {
        return;
    };
    let line = "trap 'echo got it' USR1; trap 'exit 5' TERM; echo out; while :; do sleep 1000 & wait; done";
    let flags = [
        "--name",
        "box",
        "-m",
        "64m",
        "--pids-limit",
        "30",
        "--health-cmd",
        "test -e /tmp/well",
        "--health-interval",
        "disable",
    ];
    podman.begin(&flags, &["sh", "-c", line]);
    let process = process(&podman, "box");
    let memory = || limit(process, "memory", "memory.limit_in_bytes", "memory.max");
    assert_eq!(memory(), "67108864");
    podman.until(&["logs", "box"], "out");
    let line = "echo $B; pwd; id -u; cat; exit 6";
    let words = [
        "exec", "-i", "-e", "B=b", "-w", "/tmp", "-u", "1234", "box", "sh", "-c", line,
    ];
    podman
        .fed("typed", &words)
        .code(6)
        .stdout("b\n/tmp\n1234\ntyped");
    podman
        .run(&["exec", "box", "nothing"])
        .code(127)
        .complains("nothing");
    podman
        .run(&["exec", "box", "/etc/plain"])
        .code(126)
        .complains("permission denied");
    let mut second = podman.at_terminal(&["exec", "-it", "box", "sh"]);
    second.types("tty; exit 8\n");
    second.until("/dev/pts/0\r\n");
    assert_eq!(second.code(), 8);
    eventually(|| {
        podman
            .ok(&["top", "box", "pid", "comm"])
            .contains("sleep")
            .then_some(())
    })
    .expect("`top` lacks a process");
    let stats = podman.ok(&[
        "stats",
        "--no-stream",
        "--no-reset",
        "--format",
        "{{.PIDS}} {{.MemUsage}}",
        "box",
    ]);
    assert!(
        stats.starts_with("2 ") && stats.trim().ends_with("67.11MB"),
        "{stats}"
    );
    podman.ok(&["update", "--memory", "48m", "--memory-swap", "48m", "box"]);
    assert_eq!(memory(), "50331648");
    podman.run(&["healthcheck", "run", "box"]).failure();
    podman.ok(&["exec", "box", "touch", "/tmp/well"]);
    podman.ok(&["healthcheck", "run", "box"]);
    podman.ok(&["kill", "-s", "USR1", "box"]);
    eventually(|| podman.ok(&["logs", "box"]).contains("got it").then_some(())).unwrap();
    podman.ok(&["pause", "box"]);
    assert!(is_frozen(process));
    podman.ok(&["unpause", "box"]);
    assert!(!is_frozen(process));
    podman.ok(&["stop", "-t", "60", "box"]);
    podman.until(
        &[
            "inspect",
            "-f",
            "{{.State.Status}} {{.State.ExitCode}}",
            "box",
        ],
        "exited 5",
    );
    podman.ok(&["start", "box"]);
    podman.ok(&["kill", "box"]);
    assert_eq!(podman.ok(&["wait", "box"]), "137\n");
    podman.ok(&["rm", "box"]);
}

/// Two containers that share all that a pod's containers share.
#[test]
fn pods() {
    let Some(podman) = Podman::new() else {
        return;
    };
    let create = [
        "pod",
        "create",
        "--name",
        "pod",
        "--network",
        "none",
        "--infra-image",
        IMAGE,
        "--infra-command",
        "sleep 1000",
        "--share",
        "ipc,net,uts",
    ];
    podman.ok(&create);
    podman.ok(&[
        "run", "-d", "--pod", "pod", "--name", "one", IMAGE, "httpd", "-f", "-p", "80", "-h",
        "/etc",
    ]);
    podman.ok(&[
        "run", "-d", "--pod", "pod", "--name", "two", IMAGE, "sleep", "1000",
    ]);
    let [one, two] = ["one", "two"].map(|name| process(&podman, name));
    for name in ["ipc", "net", "uts"] {
        assert_eq!(one.namespace(name).unwrap(), two.namespace(name).unwrap());
    }
    for name in ["mnt", "pid"] {
        assert_ne!(one.namespace(name).unwrap(), two.namespace(name).unwrap());
    }
    let line = "until wget -qO- http://127.0.0.1/plain; do :; done";
    assert_eq!(
        podman.ok(&["exec", "two", "sh", "-c", line]),
        "echo never\n"
    );
    podman.ok(&["pod", "rm", "-f", "-t", "0", "pod"]);
}

//! Docker, whose engine runs every container by step 12.

use crate::runtime::{is_frozen, limit};
use crate::stage::clients::{Client, Docker, IMAGE};
use crate::stage::dock::ended;
use crate::stage::{Printed, folder, have, nested};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{major, minor};
use progress::checks::step07::group;
use progress::desk::xray::CAPABILITIES;
use progress::host::container::eventually;
use progress::host::evidence::Process;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

/// What is typed reaches the command, what it prints comes back, and so does the code that it ends with.
#[test]
fn commands_and_their_ends() {
    let Some(docker) = Docker::shared() else {
        return;
    };
    let line = "echo out; echo err >&2; echo $KEY; pwd; hostname; id -u; id -g; id -G";
    let flags = [
        "-e",
        "KEY=value",
        "-w",
        "/made/for/this",
        "--hostname",
        "box",
        "--user",
        "1234:567",
        "--group-add",
        "89",
    ];
    docker
        .run_in(&flags, &["sh", "-c", line])
        .success()
        .stdout("out\nvalue\n/made/for/this\nbox\n1234\n567\n567 89\n")
        .stderr("err\n");
    docker
        .fed("typed", &["run", "--rm", "-i", IMAGE, "cat"])
        .success()
        .stdout("typed");
    let ends: [(&[&str], i32, &str); 5] = [
        (&["sh", "-c", "exit 3"], 3, ""),
        (&["/etc/plain"], 126, "permission denied"),
        (&["/etc"], 126, "/etc"),
        (&["nothing"], 127, "\"nothing\""),
        (&["/bin/nothing"], 127, "/bin/nothing"),
    ];
    for (command, code, words) in ends {
        docker.run_in(&[], command).code(code).complains(words);
    }
}

/// Who can't start is told why.
#[test]
fn a_failed_start_tells_why() {
    let Some(docker) = Docker::shared() else {
        return;
    };
    let ran = docker.run_in(&[], &["/bin/dynamic"]).code(127);
    ran.complains("no such file or directory: the loader that it asks for isn't there");
}

/// A shell at a terminal, with job control and of the right size; and a second one beside it.
#[test]
fn terminals() {
    let Some(docker) = Docker::shared() else {
        return;
    };
    let name = "at-terminal";
    let words = [
        "run", "--rm", "-it", "--name", name, "-e", "PS1=@> ", IMAGE, "sh",
    ];
    let mut shell = docker.at_terminal(&words);
    shell.until("@> ");
    shell.types("tty; ls -l /dev/console | cut -c1\n");
    shell.until("/dev/pts/0\r\nc\r\n");
    shell.resize(31, 97);
    shell.types("until [ \"$(stty size)\" = '31 97' ]; do :; done; echo re''sized\n");
    shell.until("resized\r\n");
    // From then on the shell reads nothing, and what is typed comes twice.
    shell.types("echo re''ady; cat\n");
    shell.until("ready\r\n");
    shell.types("typed\n");
    shell.until("typed\r\n");
    shell.until("typed\r\n");
    shell.types("\x03");
    // Not before the shell reads again: `cat` would still take a line that comes before it has ended.
    shell.until("^C");
    shell.until("@> ");
    shell.types("echo code $?\n");
    shell.until("code 130\r\n");
    let mut second = docker.at_terminal(&["exec", "-it", "-e", "PS1=#> ", name, "sh"]);
    second.until("#> ");
    second.types("test -t 0 && test -t 1 && test -t 2 && tty; exit 8\n");
    second.until("/dev/pts/1\r\n");
    assert_eq!(second.code(), 8);
    shell.types("exit 7\n");
    assert_eq!(shell.code(), 7);
}

/// A container in the background: its log, other commands beside its own, signals, and its end.
#[test]
fn in_the_background() {
    let Some(docker) = Docker::shared() else {
        return;
    };
    let line = "trap 'echo got it' USR1; trap 'exit 5' TERM; echo out; echo err >&2; while :; do sleep 1000 & wait; done";
    let id = docker.begin(&["--name", "box", "-e", "A=a"], &["sh", "-c", line]);
    let logs = |docker: &Docker| {
        let logs = docker.run(&["logs", "box"]).success();
        logs.printed() + "|" + &logs.errors()
    };
    docker.until(&["logs", "box"], "out");
    eventually(|| (logs(&docker) == "out\n|err\n").then_some(())).unwrap();

    let line = "echo $A $B; pwd; id -u; cat; exit 6";
    let words = [
        "exec", "-i", "-e", "B=b", "-w", "/tmp", "-u", "1234", "box", "sh", "-c", line,
    ];
    docker
        .fed("typed", &words)
        .code(6)
        .stdout("a b\n/tmp\n1234\ntyped");
    let ran = docker.run(&["exec", "box", "nothing"]);
    // Which of the two it is depends on Docker's version.
    assert!(
        matches!(ran.get_output().status.code(), Some(126 | 127)),
        "{ran}"
    );
    assert!(
        (ran.printed() + &ran.errors()).contains("\"nothing\""),
        "{ran}"
    );
    docker.ok(&["exec", "-d", "box", "sh", "-c", "echo left >/tmp/left"]);
    docker.until(&["exec", "box", "cat", "/tmp/left"], "left");
    // It is in the container's groups and namespaces, and root's child as anybody else.
    let seen = docker.ok(&["exec", "box", "sh", "-c", "cat /proc/self/cgroup"]);
    let process = docker.process("box");
    assert_eq!(seen, fs::read_to_string(process.file("cgroup")).unwrap());
    assert!(seen.contains(&id), "{seen}");
    let seen = docker.ok(&[
        "exec",
        "box",
        "sh",
        "-c",
        "for each in /proc/self/ns/*; do readlink $each; done",
    ]);
    let own = docker.ok(&[
        "exec",
        "box",
        "sh",
        "-c",
        "for each in /proc/1/ns/*; do readlink $each; done",
    ]);
    assert_eq!(seen, own);

    eventually(|| {
        let top = docker.ok(&["top", "box"]);
        (top.contains(&process.0.to_string()) && top.contains("sleep 1000")).then_some(())
    })
    .expect("`top` lacks a process");
    docker.ok(&["kill", "-s", "USR1", "box"]);
    eventually(|| logs(&docker).contains("got it").then_some(())).unwrap();
    docker.ok(&["pause", "box"]);
    assert_eq!(docker.inspect("box", "{{.State.Status}}"), "paused");
    assert!(is_frozen(process));
    docker.ok(&["unpause", "box"]);
    assert!(!is_frozen(process));
    docker.ok(&["stop", "-t", "60", "box"]);
    assert_eq!(docker.inspect("box", "{{.State.ExitCode}}"), "5");
    // What was stopped is started again, and killed, also while it is paused.
    docker.ok(&["start", "box"]);
    docker.ok(&["pause", "box"]);
    docker.ok(&["kill", "box"]);
    assert_eq!(docker.ok(&["wait", "box"]), "137\n");
    docker.ok(&["restart", "-t", "0", "box"]);
    docker.ok(&["rm", "-f", "box"]);
    assert!(
        docker
            .run(&["inspect", "box"])
            .failure()
            .errors()
            .contains("box")
    );
}

/// What a container may use up, when it is made and when that is changed.
#[test]
fn limits() {
    let Some(docker) = Docker::shared() else {
        return;
    };
    let flags = [
        "--name",
        "limited",
        "-m",
        "64m",
        "--memory-swap",
        "64m",
        "--cpus",
        "0.5",
        "--pids-limit",
        "30",
        "--cpuset-cpus",
        "0",
        "--ulimit",
        "nofile=100:200",
        "--oom-score-adj",
        "77",
    ];
    let line = "ulimit -n; ulimit -Hn; exec sleep 1000";
    docker.begin(&flags, &["sh", "-c", line]);
    docker.until(&["logs", "limited"], "100\n200");
    let process = docker.process("limited");
    let memory = || limit(process, "memory", "memory.limit_in_bytes", "memory.max");
    let cpu = || limit(process, "cpu", "cpu.cfs_quota_us", "cpu.max");
    let pids = || limit(process, "pids", "pids.max", "pids.max");
    assert_eq!(
        (memory(), cpu(), pids()),
        ("67108864".into(), "50000".into(), "30".into())
    );
    assert_eq!(limit(process, "cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
    assert_eq!(
        fs::read_to_string(process.file("oom_score_adj")).unwrap(),
        "77\n"
    );
    let stats = docker.ok(&[
        "stats",
        "--no-stream",
        "--format",
        "{{.PIDs}} {{.MemUsage}}",
        "limited",
    ]);
    assert!(
        stats.starts_with("1 ") && stats.trim().ends_with("/ 64MiB"),
        "{stats}"
    );
    let changes = [
        "update",
        "-m",
        "48m",
        "--memory-swap",
        "48m",
        "--cpus",
        "0.25",
        "--pids-limit",
        "20",
        "limited",
    ];
    docker.ok(&changes);
    assert_eq!(
        (memory(), cpu(), pids()),
        ("50331648".into(), "25000".into(), "20".into())
    );
    // Other limits stay as they were.
    assert_eq!(limit(process, "cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
    let fork = "for each in $(seq 40); do sleep 1000 & done";
    let forked = docker.run(&["exec", "limited", "sh", "-c", fork]);
    forked.complains("can't fork");
    docker.ok(&["rm", "-f", "limited"]);

    // The kernel ends who takes too much, and Docker knows whom.
    let take = "sh -c 'x=xxxxxxxx; while :; do x=$x$x; done'; echo ended $?; exec sleep 1000";
    let flags = ["--name", "greedy", "-m", "16m", "--memory-swap", "16m"];
    let id = docker.begin(&flags, &["sh", "-c", take]);
    docker.until(&["logs", "greedy"], "ended 137");
    let events = [
        "events",
        "--since",
        "0",
        "--until",
        "0s",
        "--filter",
        "event=oom",
        "--format",
        "{{.ID}}",
    ];
    eventually(|| docker.ok(&events).contains(&id).then_some(()))
        .expect("nobody was told that memory ran out");
    docker.ok(&["kill", "greedy"]);
    assert_eq!(
        docker.inspect("greedy", "{{.State.OOMKilled}} {{.State.ExitCode}}"),
        "true 137"
    );
    docker.ok(&["rm", "greedy"]);
}

/// The mask of a set of capabilities.
fn mask(names: impl IntoIterator<Item = &'static str>) -> String {
    let bit = |name: &str| {
        CAPABILITIES
            .iter()
            .position(|each| each.eq_ignore_ascii_case(name))
            .unwrap()
    };
    let mask = names
        .into_iter()
        .fold(0_u64, |mask, name| mask | 1 << bit(name));
    format!("{mask:016x}")
}

/// What Docker gives to everybody.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// Capabilities, users, new privileges, system calls, and files of the kernel's.
#[test]
fn privileges() {
    let Some(docker) = Docker::shared() else {
        return;
    };
    let status = |flags: &[&str]| -> [String; 5] {
        let printed = docker
            .run_in(flags, &["cat", "/proc/self/status"])
            .success()
            .printed();
        ["CapEff", "CapBnd", "NoNewPrivs", "Seccomp", "Uid"].map(|key| {
            let line = printed
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            line.unwrap().split_whitespace().next().unwrap().to_owned()
        })
    };
    let none = mask([]);
    let usual = mask(DEFAULT);
    let more = mask(DEFAULT.into_iter().chain(["NET_ADMIN"]));
    assert_eq!(status(&[]), [&*usual, &usual, "0", "2", "0"]);
    assert_eq!(
        status(&["--cap-drop", "ALL"]),
        [&*none, &none, "0", "2", "0"]
    );
    assert_eq!(
        status(&["--cap-add", "NET_ADMIN"]),
        [&*more, &more, "0", "2", "0"]
    );
    assert_eq!(
        status(&["--user", "nobody"]),
        [&*none, &usual, "0", "2", "65534"]
    );
    let flags = [
        "--security-opt",
        "no-new-privileges",
        "--security-opt",
        "seccomp=unconfined",
    ];
    assert_eq!(status(&flags), [&*usual, &usual, "1", "0", "0"]);

    // By Docker's own profile nobody makes a user namespace, which otherwise everybody may.
    let unshare = ["unshare", "-U", "true"];
    docker
        .run_in(&[], &unshare)
        .failure()
        .complains("Operation not permitted");
    docker
        .run_in(&["--security-opt", "seccomp=unconfined"], &unshare)
        .success();
    let folder = folder();
    let profile = folder.path().join("profile.json");
    let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]}"#;
    fs::write(&profile, text).unwrap();
    let option = format!("seccomp={}", profile.display());
    docker
        .run_in(&["--security-opt", &option], &["mkdir", "/tmp/made"])
        .failure()
        .complains("No space left on device");

    // What tells of the whole machine is empty, as far as the kernel has it, and what changes it can't be written.
    let look = "cat /proc/kcore /proc/keys /proc/timer_list 2>/dev/null | wc -c; \
        (ls -A /proc/acpi; ls -A /sys/firmware) 2>/dev/null | wc -l; echo 1 >/proc/sys/kernel/shm_rmid_forced";
    docker
        .run_in(&[], &["sh", "-c", look])
        .failure()
        .stdout("0\n0\n")
        .complains("Read-only file system");
}

/// All that there is to have, as far as this machine has it.
#[test]
fn privileged() {
    let Some(docker) = Docker::shared() else {
        return;
    };
    let line = "mount -t tmpfs none /tmp && echo mounted; \
        echo 1 >/proc/sys/kernel/shm_rmid_forced && cat /proc/sys/kernel/shm_rmid_forced; \
        grep -E '^(Seccomp|CapEff):' /proc/self/status; test -e /dev/loop-control && echo devices; true";
    let printed = docker
        .run_in(&["--privileged"], &["sh", "-c", line])
        .success()
        .printed();
    let capabilities = |words: &str| u64::from_str_radix(words, 16).unwrap();
    let own = Process(nix::unistd::getpid()).status("CapBnd").unwrap();
    let (before, rest) = printed.split_once("CapEff:\t").unwrap();
    let (given, rest) = rest.split_once('\n').unwrap();
    // An old Docker knows no more of them.
    let known = (1 << 38) - 1;
    assert_eq!(
        capabilities(given) & known,
        capabilities(&own) & known,
        "{printed}"
    );
    assert_eq!(before, "mounted\n1\n");
    let devices = if fs::exists("/dev/loop-control").unwrap() {
        "devices\n"
    } else {
        ""
    };
    assert_eq!(rest, format!("Seccomp:\t0\n{devices}"));
}

/// The root and what is mounted on it; devices, the kernel's settings, and PID 1.
#[test]
fn files_and_devices() {
    let Some(docker) = Docker::shared() else {
        return;
    };
    let folder = folder();
    let host = folder.path().display().to_string();
    fs::write(folder.path().join("file"), "from the host\n").unwrap();
    let volumes = [
        format!("{host}:/data"),
        format!("{host}:/kept:ro"),
        format!("{host}/file:/etc/one"),
    ];
    let line = "cat /data/file /etc/one; echo more >/data/more; touch /kept/x; touch /x; touch /t/x && stat -c %a /t; \
        df -k /dev/shm /t | awk '{print $2}'";
    let flags = [
        "--read-only",
        "--tmpfs",
        "/t:size=1m,mode=700",
        "--shm-size",
        "2m",
        "-v",
        &volumes[0],
        "-v",
        &volumes[1],
        "-v",
        &volumes[2],
    ];
    let ran = docker.run_in(&flags, &["sh", "-c", line]).success();
    ran.complains("/kept/x: Read-only file system")
        .complains("/x: Read-only file system");
    ran.stdout("from the host\nfrom the host\n700\n1K-blocks\n2048\n1024\n");
    assert_eq!(
        fs::read_to_string(folder.path().join("more")).unwrap(),
        "more\n"
    );
    docker
        .run_in(
            &["-v", "kept:/kept"],
            &["sh", "-c", "echo kept >/kept/file"],
        )
        .success();
    docker
        .run_in(
            &["--mount", "source=kept,destination=/k,readonly"],
            &["cat", "/k/file"],
        )
        .success()
        .stdout("kept\n");
    docker.ok(&["volume", "rm", "kept"]);

    let flags = [
        "--sysctl",
        "net.core.somaxconn=77",
        "--sysctl",
        "kernel.msgmax=4242",
        "--init",
    ];
    let line = "cat /proc/sys/net/core/somaxconn /proc/sys/kernel/msgmax /proc/1/comm";
    docker
        .run_in(&flags, &["sh", "-c", line])
        .success()
        .stdout("77\n4242\ndocker-init\n");

    // A device that nobody has who wasn't given it.
    let device = ["/dev/fuse", "/dev/loop-control", "/dev/kmsg"]
        .into_iter()
        .find(|path| fs::metadata(path).is_ok());
    let device = device.unwrap();
    let number = fs::metadata(device).unwrap().rdev();
    let number = format!("{} {}", major(number), minor(number));
    let given = format!("{device}:/dev/given:r");
    let line = format!(
        "stat -c '%F %t %T' /dev/given | cut -d' ' -f1,2; (: </dev/given) && echo read; (: >>/dev/given) || echo not written; \
         mknod /dev/other c {number}; (: </dev/other) && echo other; true"
    );
    docker
        .run_in(&["--device", &given], &["sh", "-c", &line])
        .success()
        .stdout("character special\nread\nnot written\nother\n");
    let rule = format!("c {} r", number.replace(' ', ":"));
    let line = format!("mknod /dev/other c {number}; (: </dev/other) && echo other");
    docker
        .run_in(&["--device-cgroup-rule", &rule], &["sh", "-c", &line])
        .success()
        .stdout("other\n");
    let line = format!("mknod /dev/other c {number}; (: </dev/other) || echo not read");
    docker
        .run_in(&[], &["sh", "-c", &line])
        .success()
        .stdout("not read\n");
    let line = "for each in null zero full random urandom tty; do test -c /dev/$each || echo no $each; done; \
        echo gone >/dev/null; head -c 3 /dev/zero | wc -c; for each in fd stdin stdout stderr ptmx; do readlink /dev/$each; done";
    docker
        .run_in(&[], &["sh", "-c", line])
        .success()
        .stdout("3\n/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n");
}

/// An interface of its own, which a hook brings; and the namespaces of another container, or of nobody.
#[test]
fn networks_and_namespaces() {
    let Some(docker) = Docker::shared() else {
        return;
    };
    docker.ok(&["network", "create", "net"]);
    let serve = ["httpd", "-f", "-p", "80", "-h", "/etc"];
    docker.begin(
        &["--name", "server", "--network", "net", "--ipc", "shareable"],
        &serve,
    );
    let address = docker.inspect("server", "{{.NetworkSettings.Networks.net.IPAddress}}");
    let interfaces = docker.ok(&["exec", "server", "ip", "address"]);
    assert!(
        interfaces.contains("eth0") && interfaces.contains(&format!("inet {address}/")),
        "{interfaces}"
    );
    let wget = format!("until wget -qO- http://{address}/plain; do :; done");
    docker
        .run_in(&["--network", "net"], &["sh", "-c", &wget])
        .success()
        .stdout("echo never\n");
    docker
        .run_in(&[], &["ls", "/sys/class/net"])
        .success()
        .stdout("lo\n");

    let same = |one: Process, other: Process| -> String {
        let names = ["cgroup", "ipc", "mnt", "net", "pid", "uts"];
        let same = |name: &&str| one.namespace(name).unwrap() == other.namespace(name).unwrap();
        names.into_iter().filter(same).collect::<Vec<_>>().join(" ")
    };
    let server = docker.process("server");
    let flags = [
        "--name",
        "guest",
        "--network",
        "container:server",
        "--ipc",
        "container:server",
        "--pid",
        "container:server",
    ];
    docker.begin(&flags, &["sleep", "1000"]);
    let guest = docker.process("guest");
    assert_eq!(same(guest, server), "cgroup ipc net pid");
    assert!(docker.ok(&["exec", "guest", "ps"]).contains("httpd"));
    let flags = [
        "--name",
        "open",
        "--network",
        "host",
        "--ipc",
        "host",
        "--pid",
        "host",
        "--uts",
        "host",
    ];
    docker.begin(&flags, &["sleep", "1000"]);
    let open = docker.process("open");
    assert_eq!(same(open, docker.daemon()), "cgroup ipc net pid uts");
    docker.begin(
        &["--name", "closed", "--cgroupns", "private"],
        &["sleep", "1000"],
    );
    assert_eq!(same(docker.process("closed"), docker.daemon()), "");
    docker.ok(&["rm", "-f", "server", "guest", "open", "closed"]);
    // With its PID namespace gone, or without one, nobody is left.
    for process in [server, guest, open] {
        eventually(|| process.is_ending().then_some(())).expect("somebody outlives the container");
    }
    docker.ok(&["network", "rm", "net"]);
}

/// A command that looks whether all is well, and containers that are started again.
#[test]
fn health_and_restarts() {
    let Some(docker) = Docker::shared() else {
        return;
    };
    let flags = [
        "--name",
        "patient",
        "--health-cmd",
        "test -e /tmp/well",
        "--health-interval",
        "50ms",
        "--health-retries",
        "1",
    ];
    docker.begin(&flags, &["sleep", "1000"]);
    let health = ["inspect", "-f", "{{.State.Health.Status}}", "patient"];
    docker.until(&health, "unhealthy");
    docker.ok(&["exec", "patient", "touch", "/tmp/well"]);
    docker.until(&health, "healthy");
    docker.begin(
        &["--name", "again", "--restart", "on-failure:2"],
        &["sh", "-c", "echo tried; exit 3"],
    );
    let state = "{{.State.Status}} {{.RestartCount}} {{.State.ExitCode}}";
    docker.until(&["inspect", "-f", state, "again"], "exited 2 3");
    assert_eq!(docker.ok(&["logs", "again"]), "tried\ntried\ntried\n");
    docker.ok(&["rm", "-f", "patient", "again"]);
}

/// Images that are made by commands in containers.
#[test]
fn builds() {
    let Some(docker) = Docker::shared() else {
        return;
    };
    let folder = folder();
    let file = folder.path().join("Dockerfile");
    let here = folder.path().display().to_string();
    let text = format!(
        "FROM {IMAGE}\nRUN echo made >/made\nUSER nobody\nRUN [\"sh\", \"-c\", \"id -u >/tmp/user\"]\n"
    );
    fs::write(&file, &text).unwrap();
    docker.ok(&["build", "--force-rm", "-t", "built", &here]);
    let ran = docker.run(&["run", "--rm", "built", "cat", "/made", "/tmp/user"]);
    ran.success().stdout("made\n65534\n");
    fs::write(&file, text + "RUN exit 9\n").unwrap();
    let ran = docker.run(&["build", "--force-rm", &here]).failure();
    ran.complains("returned a non-zero code: 9");
    docker.ok(&["image", "rm", "built"]);
}

/// Three services, of which one looks at another.
#[test]
fn compose() {
    if nested() || !have("docker-compose", "docker-compose") {
        return;
    }
    let Some(docker) = Docker::shared() else {
        return;
    };
    let folder = folder();
    let text = format!(
        r#"
version: '2.4'
services:
  web:
    image: {IMAGE}
    command: httpd -f -p 80 -h /etc
    healthcheck: {{test: wget -qO- http://127.0.0.1/plain, interval: 100ms, retries: 1000}}
    mem_limit: 32m
    read_only: true
  probe:
    image: {IMAGE}
    network_mode: service:web
    command: sh -c 'wget -qO- http://127.0.0.1/plain; exec sleep 1000'
    depends_on: {{web: {{condition: service_healthy}}}}
    init: true
  other:
    image: {IMAGE}
    command: sleep 1000
    user: nobody
    cap_drop: [ALL]
    tmpfs: /tmp
"#
    );
    fs::write(folder.path().join("docker-compose.yml"), text).unwrap();
    let compose = |words: &[&str]| {
        let mut compose = Command::new("docker-compose");
        compose
            .current_dir(folder.path())
            .args(["-p", "three"])
            .args(words);
        ended(docker.with(&mut compose)).success().printed()
    };
    compose(&["up", "-d"]);
    let services = compose(&["ps", "--services", "--filter", "status=running"]);
    assert_eq!(services.lines().count(), 3, "{services}");
    eventually(|| {
        compose(&["logs", "--no-color", "probe"])
            .contains("| echo never")
            .then_some(())
    })
    .expect("the probe sees the other service");
    let line = "id -u; grep CapEff /proc/self/status; touch /tmp/x && echo written";
    let said = compose(&["exec", "-T", "other", "sh", "-c", line]);
    assert_eq!(said, "65534\nCapEff:\t0000000000000000\nwritten\n");
    compose(&["up", "-d", "--scale", "other=2"]);
    assert_eq!(compose(&["ps", "-q", "other"]).lines().count(), 2);
    compose(&["stop", "-t", "0"]);
    compose(&["down"]);
}

/// The daemon goes and comes again, and a container goes on; another one has ended meanwhile.
#[test]
fn the_daemon_comes_again() {
    let Some(mut docker) = Docker::start(&["--live-restore"]) else {
        return;
    };
    let line = "trap 'echo got it' USR1; trap 'exit 5' TERM; echo ready; while :; do sleep 1000 & wait; done";
    docker.begin(&["--name", "box"], &["sh", "-c", line]);
    docker.until(&["logs", "box"], "ready");
    docker.begin(&["--name", "brief"], &["sleep", "1000"]);
    let process = docker.process("box");
    let brief = docker.process("brief");
    docker.stop();
    assert!(!process.is_ending() && !brief.is_ending());
    kill(brief.0, Signal::SIGKILL).unwrap();
    docker.go_on();
    assert_eq!(docker.process("box"), process);
    docker.until(
        &[
            "inspect",
            "-f",
            "{{.State.Status}} {{.State.ExitCode}}",
            "brief",
        ],
        "exited 137",
    );
    let namespace = docker.ok(&["exec", "box", "readlink", "/proc/self/ns/pid"]);
    assert_eq!(namespace.trim(), process.namespace("pid").unwrap());
    docker.ok(&["kill", "-s", "USR1", "box"]);
    docker.until(&["logs", "box"], "ready\ngot it");
    docker.ok(&["stop", "-t", "60", "box"]);
    assert_eq!(docker.inspect("box", "{{.State.ExitCode}}"), "5");
    docker.ok(&["start", "box", "brief"]);
    docker.ok(&["rm", "-f", "box", "brief"]);
}

/// An engine whose containers' root is nobody in particular on the host.
#[test]
fn a_user_namespace() {
    let Some(docker) = Docker::start(&["--userns-remap=nobody:nogroup"]) else {
        return;
    };
    let id = docker.begin(&["--name", "box"], &["sleep", "1000"]);
    let process = docker.process("box");
    assert_eq!(
        process.status("Uid").unwrap(),
        "100000\t100000\t100000\t100000"
    );
    let map = fs::read_to_string(process.file("gid_map")).unwrap();
    assert_eq!(
        map.split_whitespace().collect::<Vec<_>>(),
        ["0", "100000", "65536"]
    );
    let line = "id -u; stat -c %u /proc/1 /etc /dev/null; echo mine >/file; chown 7 /file; cat /file; readlink /proc/self/ns/user";
    let namespace = process.namespace("user").unwrap();
    docker
        .run(&["exec", "box", "sh", "-c", line])
        .success()
        .stdout(format!("0\n0\n0\n65534\nmine\n{namespace}\n"));
    let file = process.file("root/file");
    assert_eq!(fs::metadata(file).unwrap().uid(), 100_007);
    assert!(group(process, "pids").unwrap().0.ends_with(&id));
    let mut shell = docker.at_terminal(&[
        "run", "--rm", "-it", "--user", "1234", "-e", "PS1=@> ", IMAGE, "sh",
    ]);
    shell.until("@> ");
    shell.types("tty; id -u; exit 7\n");
    shell.until("/dev/pts/0\r\n1234\r\n");
    assert_eq!(shell.code(), 7);
    docker.ok(&["rm", "-f", "box"]);
}

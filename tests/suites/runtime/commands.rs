//! The command line that engines type: runc's.

use crate::stage::bundle::{Bundle, STEP, give_directories, part, process_of, push};
use crate::stage::dock::ended;
use crate::stage::{Printed, as_nobody, copy_of, folder, have, skip, step};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::MsgFlags;
use nix::sys::statvfs::FsFlags;
use progress::checks::step05::AtTerminal;
use progress::checks::step07::group;
use progress::host::container::eventually;
use progress::host::evidence::Process;
use pty_process::blocking::Command as PtyCommand;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use step04_pivot_root::descriptors::receive_with;
use step07_cgroups::Version;

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// `process` has these descriptors open, and no others, as soon as its loader has closed what it has read.
#[track_caller]
fn has_open(process: Process, wanted: &[i32]) {
    let open = || {
        let entries = fs::read_dir(process.file("fd")).unwrap().flatten();
        let number = |entry: fs::DirEntry| entry.file_name().to_string_lossy().parse().unwrap();
        let mut open: Vec<i32> = entries.map(number).collect();
        open.sort_unstable();
        open
    };
    let settled = eventually(|| (open() == wanted).then_some(()));
    assert!(settled.is_some(), "{:?}, and not {wanted:?}", open());
}

/// Waits until the container is as it is to be.
#[track_caller]
fn until(bundle: &Bundle, status: &str) {
    let is = || (bundle.status(&bundle.id) == status).then_some(());
    assert!(eventually(is).is_some(), "it isn't {status}");
}

fn is_there(process: Process) -> bool {
    !process.is_ending()
}

/// From `create` to `delete`, by what the kernel says: one process, and none of ours beside it.
#[test]
fn the_life_of_a_container() {
    let bundle = Bundle::new();
    let id = &*bundle.id;
    let first = bundle.create(id);
    assert_eq!(bundle.status(id), "created");
    assert_eq!(bundle.processes(), [first]);
    // The command hasn't begun: the process is still the runtime.
    let sleeps = |process: Process| process.executable().unwrap().ends_with("sleep");
    assert!(!sleeps(first));
    bundle.ok(&["start", id]);
    assert!(sleeps(first));
    assert_eq!(bundle.status(id), "running");
    assert_eq!(bundle.processes(), [first]);
    has_open(first, &[0, 1, 2]);
    let state = json_of(&bundle.ok(&["state", id]));
    assert_eq!(state["pid"], json!(first.0.as_raw()));
    assert_eq!(
        state["rootfs"],
        json!(bundle.path("rootfs").canonicalize().unwrap())
    );
    bundle.ok(&["kill", id, "KILL"]);
    until(&bundle, "stopped");
    assert_eq!(json_of(&bundle.ok(&["state", id]))["pid"], json!(0));
    assert_eq!(bundle.kept(), [id]);
    bundle.ok(&["delete", id]);
    bundle.is_clean();
    // One that was never started.
    bundle.create(id);
    bundle.ok(&["delete", id]);
    bundle.is_clean();
    bundle.begin(|_| {});
    bundle.ok(&["delete", "--force", id]);
    bundle.is_clean();
    bundle.ok(&["delete", "--force", id]);
    bundle.ok(&["delete", "-f", "nobody"]);
    bundle.fails(&["delete", id]);
    // Another bundle than the working directory.
    let mut elsewhere = bundle.command(&["create", "--bundle", &bundle.text(""), id]);
    ended(elsewhere.current_dir("/")).success();
    assert_eq!(bundle.status(id), "created");
    bundle.end();
}

/// Whoever goes near a container is executed a second time before Rust's own begin, and in a static program before the C
/// library's, which both take their time.
#[test]
fn the_second_execution_comes_first() {
    if !have("strace", "strace") {
        return;
    }
    let flags = nix::sys::statvfs::statvfs(step(STEP)).unwrap().flags();
    if flags.contains(FsFlags::ST_RDONLY) {
        return skip("the programs are on a mount for reading only, and executed once");
    }
    let folder = folder();
    let log = folder.path().join("calls");
    for command in ["create", "run", "exec"] {
        let mut traced = Command::new("strace");
        traced.arg("-o").arg(&log).arg(step(STEP));
        ended(traced.args([command, "nobody"])).failure();
        let calls = fs::read_to_string(&log).unwrap();
        let lacks = |line: &str| line.starts_with("mount_setattr") && line.contains("ENOSYS");
        if calls.lines().any(lacks) {
            return skip("this kernel clones no mount for reading only: Linux before 5.12");
        }
        let calls: Vec<&str> = calls
            .lines()
            .filter_map(|line| Some(line.split_once('(')?.0))
            .collect();
        let second = calls.iter().position(|call| *call == "execveat");
        let (first, second) = calls.split_at(second.expect("it is executed once"));
        // The loader's come before.
        assert!(
            first.ends_with(&["statfs", "open_tree", "mount_setattr"]),
            "{first:?}"
        );
        // Rust asks for the standard descriptors, and for a stack of its own.
        let begins = |call: &&str| ["poll", "ppoll", "sigaltstack"].contains(call);
        assert!(!first.iter().any(begins), "{first:?}");
        assert!(second.iter().any(begins), "{second:?}");
    }
}

/// Nothing that the caller has open stays open: it may wait for the end of a pipe.
#[test]
fn descriptors_of_the_caller() {
    let bundle = Bundle::new();
    let pipe = bundle.path("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let open = || {
        File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&pipe)
            .unwrap()
    };
    let is_at_its_end = |mut reader: &File| matches!(reader.read(&mut [0]), Ok(0));
    let (file, other) = (bundle.path("a"), bundle.path("b"));
    for path in [&file, &other] {
        fs::write(path, "").unwrap();
    }
    let script = "exec 3<a 4<b 7>pipe; exec \"$@\"";
    let by = ["sh", "-c", script, "sh"];
    let reader = open();
    let pid = bundle.text("pid");
    for (flags, kept) in [
        (&[][..], &[0, 1, 2][..]),
        (&["--preserve-fds", "1"], &[0, 1, 2, 3]),
        (&["--preserve-fds", "2"], &[0, 1, 2, 3, 4]),
    ] {
        let words = [&["create", "--pid-file", &pid][..], flags, &[&bundle.id]].concat();
        ended(&mut bundle.command_by(&by, &words)).success();
        assert!(
            is_at_its_end(&reader),
            "the pipe is open after create {flags:?}"
        );
        let first = process_of(Path::new(&pid));
        ended(&mut bundle.command_by(&by, &["start", &bundle.id])).success();
        assert!(
            is_at_its_end(&reader),
            "the pipe is open after start {flags:?}"
        );
        has_open(first, kept);
        for (number, path) in [(3, &file), (4, &other)] {
            if kept.contains(&number) {
                let seen = fs::read_link(first.file(&format!("fd/{number}"))).unwrap();
                assert_eq!(&seen, path);
            }
        }
        let words = [
            &["exec", "--detach", "--pid-file", &pid][..],
            flags,
            &[&bundle.id, "sleep", "1000000"],
        ];
        ended(&mut bundle.command_by(&by, &words.concat())).success();
        assert!(
            is_at_its_end(&reader),
            "the pipe is open after exec {flags:?}"
        );
        has_open(process_of(Path::new(&pid)), kept);
        bundle.end();
    }
    // Sockets of a service manager, and descriptors behind them.
    bundle.write(|config| config["process"]["env"] = json!(["PATH=/usr/bin:/bin", "HOME=/"]));
    let words = [
        "create",
        "--preserve-fds",
        "1",
        "--pid-file",
        &pid,
        &bundle.id,
    ];
    ended(bundle.command_by(&by, &words).env("LISTEN_FDS", "1")).success();
    bundle.ok(&["start", &bundle.id]);
    let first = process_of(Path::new(&pid));
    has_open(first, &[0, 1, 2, 3, 4]);
    let mut variables = first.strings("environ").unwrap();
    variables.sort();
    assert_eq!(
        variables,
        [
            "HOME=/",
            "LISTEN_FDS=1",
            "LISTEN_PID=1",
            "PATH=/usr/bin:/bin"
        ]
    );
    bundle.end();
    let words = ["create", "--preserve-fds", "3", &bundle.id];
    let refused = ended(&mut bundle.command_by(&by, &words)).code(1);
    refused.complains("--preserve-fds");
    refused.complains("5 isn't open");
    bundle.is_clean();
}

/// A descriptor for the process, for an engine that wants to be sure of it.
#[test]
fn a_descriptor_for_the_process() {
    let bundle = Bundle::new();
    let socket = bundle.text("pidfd.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let received = || {
        let (connection, _) = listener.accept().unwrap();
        let (_, mut descriptors) =
            receive_with(&connection.into(), &mut [0; 100], MsgFlags::empty()).unwrap();
        use std::os::fd::AsRawFd;
        let pidfd = descriptors.pop().expect("a descriptor comes along");
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).unwrap();
        let pid = info
            .lines()
            .find_map(|line| line.strip_prefix("Pid:"))
            .unwrap();
        pid.trim().to_owned()
    };
    let pid = bundle.text("pid");
    bundle.ok(&[
        "create",
        "--pidfd-socket",
        &socket,
        "--pid-file",
        &pid,
        &bundle.id,
    ]);
    assert_eq!(received(), fs::read_to_string(&pid).unwrap().trim());
    bundle.ok(&["start", &bundle.id]);
    let words = [
        "exec",
        "--detach",
        "--pidfd-socket",
        &socket,
        "--pid-file",
        &pid,
        &bundle.id,
    ];
    bundle.ok(&[&words[..], &["sleep", "1000000"]].concat());
    assert_eq!(received(), fs::read_to_string(&pid).unwrap().trim());
    bundle.end();
}

#[test]
fn run_ends_as_its_command_does() {
    let bundle = Bundle::new();
    for (line, code) in [
        ("exit 0", 0),
        ("exit 42", 42),
        ("sh -c 'kill -TERM $$'", 143),
        ("no-such-program", 127),
    ] {
        let ran = bundle.runs(line, |_| {});
        assert_eq!(ran.get_output().status.code(), Some(code), "{ran}");
        bundle.is_clean();
    }
    // Its input, output and errors are the caller's.
    bundle.write(|config| config["process"]["args"] = json!(["sh", "-c", "cat; echo errors >&2"]));
    let mut command = assert_cmd::Command::from(bundle.command(&["run", &bundle.id]));
    let ran = command.write_stdin("canary").assert().success();
    assert_eq!(
        (ran.printed(), ran.errors()),
        ("canary".to_owned(), "errors\n".to_owned())
    );
    // What is kept of it.
    bundle.write(|config| config["process"]["args"] = json!(["sh", "-c", "exit 3"]));
    bundle.run(&["run", "--keep", &bundle.id]).code(3);
    assert_eq!(bundle.status(&bundle.id), "stopped");
    bundle.end();
    // Without waiting.
    bundle.write(|_| {});
    let pid = bundle.text("pid");
    bundle.ok(&["run", "--detach", "--pid-file", &pid, &bundle.id]);
    let first = process_of(Path::new(&pid));
    assert_eq!(first.executable().unwrap().file_name().unwrap(), "sleep");
    assert_eq!(bundle.processes(), [first]);
    assert_eq!(bundle.status(&bundle.id), "running");
    bundle.end();
}

#[test]
fn lists() {
    let bundle = Bundle::new();
    assert_eq!(bundle.ok(&["list", "--quiet"]), "");
    assert_eq!(
        json_of(&bundle.ok(&["list", "--format", "json"])),
        json!([])
    );
    let first = bundle.begin(|config| config["annotations"] = json!({"a": "note"}));
    let other = format!("{}-other", bundle.id);
    let second = bundle.create(&other);
    assert_eq!(
        bundle.ok(&["list", "-q"]),
        format!("{}\n{other}\n", bundle.id)
    );
    let all = json_of(&bundle.ok(&["list", "-f", "json"]));
    for (place, process, status) in [(0, first, "running"), (1, second, "created")] {
        let each = &all[place];
        assert_eq!(each["pid"], json!(process.0.as_raw()));
        assert_eq!(each["status"], json!(status));
        assert_eq!(
            each["bundle"],
            json!(bundle.folder.path().canonicalize().unwrap())
        );
        assert_eq!(each["owner"], json!("root"));
        let created = each["created"].as_str().unwrap();
        assert!(
            created.starts_with("20") && created.ends_with('Z'),
            "{created}"
        );
    }
    assert_eq!(all[0]["annotations"], json!({"a": "note"}));
    let table = bundle.ok(&["list"]);
    let mut lines = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let heading = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"];
    assert_eq!(lines.next().unwrap(), heading);
    let row = lines.next().unwrap();
    assert_eq!(row[..3], [&*bundle.id, &first.0.to_string(), "running"]);
    assert_eq!(lines.next().unwrap()[2], "created");
    assert_eq!(lines.next(), None);
    bundle.ok(&["delete", "--force", &other]);
    bundle.end();
}

/// Each flag of `exec`, as the kernel sees the process.
#[test]
fn exec_by_flags() {
    let bundle = Bundle::new();
    let first = bundle.begin(|config| {
        config["process"]["env"] = json!(["PATH=/usr/bin:/bin", "HOME=/", "A=1"]);
        config["process"]["noNewPrivileges"] = json!(false);
        config["process"]["capabilities"] = json!({
            "bounding": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"],
        });
        config["process"]["oomScoreAdj"] = json!(700);
        config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW"});
    });
    let id = &*bundle.id;
    let pid = bundle.text("pid");
    fs::create_dir_all(bundle.path("rootfs/srv/there")).unwrap();
    let joined = |flags: &[&str]| {
        let words = [
            &["exec", "--detach", "--pid-file", &pid],
            flags,
            &[id, "sleep", "1000000"],
        ];
        bundle.ok(&words.concat());
        process_of(Path::new(&pid))
    };
    let status = |process: Process, key: &str| process.status(key).unwrap().replace('\t', " ");
    // As the first one.
    let plain = joined(&[]);
    for name in ["mnt", "pid", "net", "ipc", "uts", "cgroup", "user"] {
        assert_eq!(
            plain.namespace(name).unwrap(),
            first.namespace(name).unwrap(),
            "{name}"
        );
    }
    for file in ["cgroup", "oom_score_adj", "environ", "cmdline"] {
        let text = |process: Process| fs::read(process.file(file)).unwrap();
        assert_eq!(text(plain), text(first), "{file}");
    }
    for key in [
        "CapBnd",
        "CapPrm",
        "CapEff",
        "CapInh",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
        "Uid",
        "Gid",
        "Groups",
        "Umask",
    ] {
        assert_eq!(status(plain, key), status(first, key), "{key}");
    }
    has_open(plain, &[0, 1, 2]);
    let all = joined(&[
        "--cwd",
        "/srv/there",
        "--env",
        "A=2",
        "-e",
        "B=with = sign",
        "--user",
        "1234:5678",
        "--additional-gids",
        "42",
        "-g",
        "43",
        "--cap",
        "CAP_KILL",
        "--no-new-privs",
    ]);
    assert_eq!(status(all, "Uid"), "1234 1234 1234 1234");
    assert_eq!(status(all, "Gid"), "5678 5678 5678 5678");
    assert_eq!(status(all, "Groups"), "42 43");
    assert_eq!(status(all, "NoNewPrivs"), "1");
    assert_eq!(status(all, "CapBnd"), format!("{:016x}", 1 | 1 << 5));
    let variables = all.strings("environ").unwrap();
    let last = variables
        .iter()
        .rfind(|variable| variable.starts_with("A="));
    assert_eq!(last.map(String::as_str), Some("A=2"), "{variables:?}");
    assert!(variables.contains(&"B=with = sign".to_owned()));
    use std::os::unix::fs::MetadataExt;
    let place = |path: PathBuf| fs::metadata(path).map(|found| found.ino()).unwrap();
    assert_eq!(
        place(all.file("cwd")),
        place(bundle.path("rootfs/srv/there"))
    );
    let capable = joined(&["--cap", "CAP_KILL", "--user", "0"]);
    assert_eq!(status(capable, "CapEff"), format!("{:016x}", 1 | 1 << 5));
    let members = [first, plain, all, capable];
    let mut processes = bundle.processes();
    processes.sort_by_key(|process| process.0);
    assert_eq!(processes, members);
    // Who isn't detached has the exit code, and the streams, of the command.
    for (line, code) in [("exit 9", 9), ("kill -TERM $$", 143)] {
        bundle.run(&["exec", id, "sh", "-c", line]).code(code);
    }
    let said = bundle.run(&[
        "exec",
        "--pid-file",
        &pid,
        id,
        "sh",
        "-c",
        "echo out; echo err >&2",
    ]);
    assert_eq!(
        (said.printed(), said.errors()),
        ("out\n".to_owned(), "err\n".to_owned())
    );
    assert!(
        fs::read_to_string(&pid)
            .unwrap()
            .trim()
            .parse::<u32>()
            .is_ok()
    );
    for (words, said) in [
        (&["exec", "--cap", "CAP_NO_SUCH", id, "true"][..], ""),
        (&["exec", id], "process.args"),
        (&["exec", "--env", "WITHOUT", id, "true"], "WITHOUT"),
        (&["exec", "--cwd", "relative", id, "true"], "process.cwd"),
        (&["exec", "--cgroup", "missing", id, "true"], "--cgroup"),
        (&["exec", "--process", "/no/such/file", id], "/no/such/file"),
        (
            &["exec", "--pid-file", "/no/such/folder/pid", id, "true"],
            "/no/such/folder",
        ),
    ] {
        let ran = bundle.run(words);
        let code = if said.is_empty() { 0 } else { 255 };
        assert_eq!(ran.get_output().status.code(), Some(code), "{ran}");
        ran.complains(said);
    }
    // No process was left by those that failed.
    let left = || {
        let mut left = bundle.processes();
        left.sort_by_key(|process| process.0);
        left
    };
    let gone = eventually(|| (left() == members).then_some(()));
    assert!(gone.is_some(), "{:?}, and not {members:?}", left());
    bundle.end();
}

/// A process as JSON says for itself all that it is.
#[test]
fn exec_by_a_file() {
    let bundle = Bundle::new();
    bundle.begin(|_| {});
    let (file, pid) = (bundle.text("process.json"), bundle.text("pid"));
    let write = |process: Value| fs::write(&file, process.to_string()).unwrap();
    write(json!({
        "args": ["sleep", "1000000"], "env": ["PATH=/usr/bin:/bin", "HOME=/x"], "cwd": "/etc",
        "user": {"uid": 1, "gid": 2, "umask": 0o077, "additionalGids": [3]},
        "noNewPrivileges": true, "oomScoreAdj": 800,
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 50, "hard": 60}],
        "capabilities": {"bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"],
            "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"], "effective": ["CAP_KILL"]},
    }));
    bundle.ok(&[
        "exec",
        "--process",
        &file,
        "--detach",
        "--pid-file",
        &pid,
        &bundle.id,
    ]);
    let joined = process_of(Path::new(&pid));
    let bit = format!("{:016x}", 1 << 5);
    for (key, wanted) in [
        ("Uid", "1 1 1 1"),
        ("Gid", "2 2 2 2"),
        ("Groups", "3"),
        ("Umask", "0077"),
        ("NoNewPrivs", "1"),
        ("CapBnd", &bit),
        ("CapEff", &bit),
        ("CapAmb", &bit),
    ] {
        assert_eq!(
            joined.status(key).unwrap().replace('\t', " "),
            wanted,
            "{key}"
        );
    }
    assert_eq!(
        joined.strings("environ").unwrap(),
        ["PATH=/usr/bin:/bin", "HOME=/x"]
    );
    let score = fs::read_to_string(joined.file("oom_score_adj")).unwrap();
    assert_eq!(score.trim(), "800");
    let limits = fs::read_to_string(joined.file("limits")).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    assert_eq!(
        line.split_whitespace().collect::<Vec<_>>()[3..5],
        ["50", "60"]
    );
    for (text, said) in [
        ("{", "line 1 column 1"),
        ("{\"args\": [], \"cwd\": \"/\"}", "process.args"),
        ("{\"args\": [\"true\"]}", "process.cwd"),
        (
            "{\"args\": [\"true\"], \"cwd\": \"/\", \"terminal\": true}",
            "process.terminal",
        ),
    ] {
        fs::write(&file, text).unwrap();
        let words = ["exec", "--process", &file, "--detach", &bundle.id];
        bundle.run(&words).code(255).complains(said);
    }
    bundle.end();
}

/// Another process's terminal: here, or at an engine's.
#[test]
fn exec_at_a_terminal() {
    let bundle = Bundle::new();
    bundle.begin(|_| {});
    let command = PtyCommand::new(step(STEP))
        .arg("--root")
        .arg(bundle.path("state"));
    let line = "tty; echo ready; read word; exit $word";
    let command = command.args(["exec", "--tty", &bundle.id, "sh", "-c", line]);
    let mut terminal = AtTerminal::start(command, "ready").unwrap();
    assert!(
        terminal.said.contains("/dev/pts/0\r\n"),
        "{}",
        terminal.said
    );
    terminal.write("7\n").unwrap();
    let ended = eventually(|| terminal.program.try_wait().unwrap()).expect("it ends");
    assert_eq!(ended.code(), Some(7));
    let (socket, pid) = (bundle.text("console.sock"), bundle.text("pid"));
    let listener = UnixListener::bind(&socket).unwrap();
    let words = [
        "exec",
        "--tty",
        "--detach",
        "--console-socket",
        &socket,
        "--pid-file",
        &pid,
    ];
    bundle.ok(&[&words[..], &[&bundle.id, "sleep", "1000000"]].concat());
    let (connection, _) = listener.accept().unwrap();
    let (_, descriptors) =
        receive_with(&connection.into(), &mut [0; 100], MsgFlags::empty()).unwrap();
    assert_eq!(descriptors.len(), 1);
    let joined = process_of(Path::new(&pid));
    let seen = fs::read_link(joined.file("fd/0")).unwrap();
    assert!(seen.starts_with("/dev/pts"), "{seen:?}");
    has_open(joined, &[0, 1, 2]);
    // Nobody gets a console for it: that is the first process's.
    assert!(fs::symlink_metadata(bundle.path("rootfs/dev/console")).is_err());
    bundle.end();
}

/// A group below the container's own.
#[test]
fn exec_into_a_group_below() {
    let bundle = Bundle::new();
    bundle.begin(|_| {});
    for group in bundle.groups() {
        let below = group.join("below");
        fs::create_dir(&below).unwrap();
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(text) = fs::read(group.join(file)) {
                let _ = fs::write(below.join(file), text);
            }
        }
    }
    let pid = bundle.text("pid");
    for flag in ["below", "/below", "memory:below"] {
        let words = ["exec", "--detach", "--pid-file", &pid, "--cgroup", flag];
        bundle.ok(&[&words[..], &[&bundle.id, "sleep", "1000000"]].concat());
        let (folder, _) = group(process_of(Path::new(&pid)), "memory").unwrap();
        assert!(
            folder.ends_with(format!("{}/below", bundle.id)),
            "{flag}: {folder:?}"
        );
    }
    // They are the container's all the same.
    let all = json_of(&bundle.ok(&["ps", "--format", "json", &bundle.id]));
    assert_eq!(all.as_array().unwrap().len(), 4);
    bundle.end();
}

/// A shell that writes down which signals it gets.
const LISTENS: &str = "for each in TERM USR1 USR2 HUP 40; do trap \"echo $each >>/said\" $each; done; echo ready >>/said; \
    while :; do sleep 1000000 & wait $!; done";

fn listener(bundle: &Bundle) -> Process {
    let first = bundle.begin(|config| config["process"]["args"] = json!(["bash", "-c", LISTENS]));
    says(bundle, "ready");
    first
}

#[track_caller]
fn says(bundle: &Bundle, word: &str) {
    let said = || fs::read_to_string(bundle.path("rootfs/said")).unwrap_or_default();
    let has = || said().lines().any(|line| line == word).then_some(());
    assert!(eventually(has).is_some(), "{word}: {}", said());
    let _ = fs::write(bundle.path("rootfs/said"), "");
}

#[test]
fn signals() {
    let bundle = Bundle::new();
    let first = listener(&bundle);
    let id = &*bundle.id;
    let rt = libc::SIGRTMIN() + 6;
    assert_eq!(rt, 40);
    for (signal, said) in [
        (&[][..], "TERM"),
        (&["TERM"], "TERM"),
        (&["SIGUSR1"], "USR1"),
        (&["usr2"], "USR2"),
        (&["1"], "HUP"),
        (&["RTMIN+6"], "40"),
        (&["40"], "40"),
    ] {
        bundle.ok(&[&["kill", id], signal].concat());
        says(&bundle, said);
    }
    // All processes get it, not only the first.
    let pid = bundle.text("pid");
    bundle.ok(&[
        "exec",
        "--detach",
        "--pid-file",
        &pid,
        id,
        "sleep",
        "1000000",
    ]);
    let other = process_of(Path::new(&pid));
    bundle.ok(&["kill", id, "HUP"]);
    says(&bundle, "HUP");
    assert!(is_there(other));
    bundle.ok(&["kill", "--all", id, "USR2"]);
    says(&bundle, "USR2");
    eventually(|| (!is_there(other)).then_some(())).expect("the other one ends");
    assert!(is_there(first));
    bundle.ok(&["kill", id, "KILL"]);
    until(&bundle, "stopped");
    // Nobody is left, and nothing is wrong.
    bundle.ok(&["kill", "--all", id, "KILL"]);
    bundle.end();
}

/// Where the PID namespace is others', too, the container ends with all of its processes.
#[test]
fn the_end_of_a_container_among_others() {
    let bundle = Bundle::new();
    let without = |config: &mut Value| {
        part(config, &["ipc", "uts", "network", "cgroup"]);
        config["process"]["args"] = json!(["sh", "-c", "sleep 1000000 & echo ready >/said; wait"]);
    };
    for way in [
        &["kill", &bundle.id, "KILL"][..],
        &["delete", "--force", &bundle.id],
    ] {
        let first = bundle.begin(without);
        says(&bundle, "ready");
        let child = first.children()[0];
        bundle.ok(way);
        for process in [first, child] {
            eventually(|| (!is_there(process)).then_some(())).expect("it ends");
        }
        bundle.ok(&["delete", "--force", &bundle.id]);
        bundle.is_clean();
    }
    // The first one alone has ended: the others are the container's still.
    let first = bundle.begin(without);
    says(&bundle, "ready");
    let child = first.children()[0];
    kill(first.0, Signal::SIGKILL).unwrap();
    until(&bundle, "stopped");
    assert!(is_there(child));
    bundle.ok(&["delete", &bundle.id]);
    assert!(!is_there(child));
    bundle.is_clean();
}

/// Whether the kernel has stopped the group of `process`.
fn is_frozen(process: Process) -> bool {
    let (folder, version) = group(process, "freezer").unwrap();
    match version {
        Version::V1 => {
            fs::read_to_string(folder.join("freezer.state"))
                .unwrap()
                .trim()
                == "FROZEN"
        }
        Version::V2 => {
            let events = fs::read_to_string(folder.join("cgroup.events")).unwrap();
            events.lines().any(|line| line == "frozen 1")
        }
    }
}

#[test]
fn pause_and_resume() {
    let bundle = Bundle::new();
    let first = listener(&bundle);
    let id = &*bundle.id;
    bundle.ok(&["pause", id]);
    assert!(is_frozen(first));
    assert_eq!(bundle.status(id), "paused");
    bundle.ok(&["pause", id]);
    // Who joins all the same stands still with the others, and goes on with them.
    let (folder, _) = group(first, "freezer").unwrap();
    let members = || {
        fs::read_to_string(folder.join("cgroup.procs"))
            .unwrap()
            .lines()
            .count()
    };
    let before = members();
    let mut joins = bundle.command(&["exec", "--ignore-paused", id, "sh", "-c", "exit 5"]);
    let joins = Killed(joins.stdin(Stdio::null()).spawn().unwrap());
    eventually(|| (members() > before).then_some(())).expect("it joins");
    bundle.ok(&["kill", id, "USR1"]);
    let said = fs::read_to_string(bundle.path("rootfs/said")).unwrap();
    assert!(!said.contains("USR1"));
    bundle.ok(&["resume", id]);
    assert!(!is_frozen(first));
    assert_eq!(bundle.status(id), "running");
    says(&bundle, "USR1");
    assert_eq!(joins.code(), Some(5));
    // Who stands still can be ended.
    for way in [
        &["kill", id, "KILL"][..],
        &["kill", "--all", id, "KILL"],
        &["delete", "--force", id],
    ] {
        if bundle.kept().is_empty() {
            bundle.begin(|_| {});
        }
        bundle.ok(&["pause", id]);
        bundle.ok(way);
        if way[0] == "kill" {
            until(&bundle, "stopped");
            bundle.ok(&["delete", id]);
        }
        bundle.is_clean();
    }
    // One that waits for `start` can stand still, too.
    bundle.create(id);
    bundle.ok(&["pause", id]);
    assert_eq!(bundle.status(id), "paused");
    bundle.ok(&["resume", id]);
    assert_eq!(bundle.status(id), "created");
    bundle.end();
}

/// A program that runs beside the test, and ends with it.
struct Killed(Child);

impl Killed {
    /// The code with which it ends by itself.
    fn code(mut self) -> Option<i32> {
        eventually(|| self.0.try_wait().unwrap())
            .expect("it ends")
            .code()
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// New limits, by flags and as JSON, with memory's limits in both directions.
#[test]
fn updates() {
    let bundle = Bundle::new();
    let first = bundle.begin(|config| {
        config["linux"]["resources"]["memory"] = json!({"limit": 67108864, "swap": 67108864});
        config["linux"]["resources"]["cpu"] = json!({"quota": 50000, "period": 100000});
    });
    let id = &*bundle.id;
    let said = |controller: &str, v1: &str, v2: &str| {
        let (folder, version) = group(first, controller).unwrap();
        let file = if version == Version::V1 { v1 } else { v2 };
        fs::read_to_string(folder.join(file))
            .unwrap()
            .trim()
            .to_owned()
    };
    let memory = || said("memory", "memory.limit_in_bytes", "memory.max");
    let v1 = group(first, "memory").unwrap().1 == Version::V1;
    for (flags, limit) in [
        (
            &["--memory", "134217728", "--memory-swap", "268435456"][..],
            "134217728",
        ),
        (
            &["--memory", "33554432", "--memory-swap", "33554432"],
            "33554432",
        ),
        (&["--memory", "64m", "--memory-swap", "96m"], "67108864"),
    ] {
        bundle.ok(&[&["update"], flags, &[id]].concat());
        assert_eq!(memory(), limit);
    }
    let both = said("memory", "memory.memsw.limit_in_bytes", "memory.swap.max");
    assert_eq!(both, if v1 { "100663296" } else { "33554432" });
    for (flags, controller, file_1, file_2, value_1, value_2) in [
        (
            &["--memory-reservation", "16m"][..],
            "memory",
            "memory.soft_limit_in_bytes",
            "memory.low",
            "16777216",
            "16777216",
        ),
        (
            &["--pids-limit", "77"],
            "pids",
            "pids.max",
            "pids.max",
            "77",
            "77",
        ),
        (
            &["--pids-limit", "-1"],
            "pids",
            "pids.max",
            "pids.max",
            "max",
            "max",
        ),
        (
            &["--cpu-share", "2048"],
            "cpu",
            "cpu.shares",
            "cpu.weight",
            "2048",
            "174",
        ),
        (
            &["--cpu-shares", "1024"],
            "cpu",
            "cpu.shares",
            "cpu.weight",
            "1024",
            "100",
        ),
        // A smaller period first, or last, as the quota allows.
        (
            &["--cpu-quota", "200000", "--cpu-period", "200000"],
            "cpu",
            "cpu.cfs_quota_us",
            "cpu.max",
            "200000",
            "200000 200000",
        ),
        (
            &["--cpu-quota", "10000", "--cpu-period", "20000"],
            "cpu",
            "cpu.cfs_period_us",
            "cpu.max",
            "20000",
            "10000 20000",
        ),
        (
            &["--cpu-burst", "1000"],
            "cpu",
            "cpu.cfs_burst_us",
            "cpu.max.burst",
            "1000",
            "1000",
        ),
        (
            &["--cpu-quota", "-1"],
            "cpu",
            "cpu.cfs_quota_us",
            "cpu.max",
            "-1",
            // What is named by no flag stays, though it shares a file with what is.
            "max 20000",
        ),
        (
            &["--cpuset-cpus", "0"],
            "cpuset",
            "cpuset.cpus",
            "cpuset.cpus",
            "0",
            "0",
        ),
        (
            &["--cpuset-mems", "0"],
            "cpuset",
            "cpuset.mems",
            "cpuset.mems",
            "0",
            "0",
        ),
    ] {
        bundle.ok(&[&["update"], flags, &[id]].concat());
        let wanted = match group(first, controller).unwrap().1 {
            Version::V1 => value_1,
            Version::V2 => value_2,
        };
        assert_eq!(said(controller, file_1, file_2), wanted, "{flags:?}");
    }
    assert_eq!(memory(), "67108864", "what nobody names stays");
    // As JSON, from standard input and from a file.
    let by_input = |text: &str| {
        let mut command =
            assert_cmd::Command::from(bundle.command(&["update", "--resources", "-", id]));
        command.write_stdin(text).assert()
    };
    by_input("{\"pids\": {\"limit\": 88}, \"memory\": {\"limit\": 50331648}}").success();
    let pids = || said("pids", "pids.max", "pids.max");
    assert_eq!((pids().as_str(), memory().as_str()), ("88", "50331648"));
    let file = bundle.text("resources.json");
    fs::write(&file, "{\"pids\": {\"limit\": 99}}").unwrap();
    bundle.ok(&["update", "-r", &file, id]);
    assert_eq!(pids(), "99");
    let broken = by_input("{\n \"pids\": 1}").code(1);
    broken.complains("--resources");
    broken.complains("pids");
    by_input("{\n \"pids\": ").code(1).complains("line 2");
    // What can't be is an error with the file's name, and the rest holds.
    let refused = bundle.fails(&["update", "--cpuset-cpus", "4095", id]);
    refused.complains("cpuset.cpus");
    let used = by_input("{\"memory\": {\"limit\": 4096, \"checkBeforeUpdate\": true}}").code(1);
    used.complains("memory.");
    bundle
        .fails(&["update", "--l3-cache-schema", "x", id])
        .complains("--l3-cache-schema");
    assert_eq!(memory(), "50331648");
    // The container goes on.
    assert!(is_there(first));
    bundle.end();
}

#[test]
fn processes_of_a_container() {
    let bundle = Bundle::new();
    let first = bundle.begin(|_| {});
    let pid = bundle.text("pid");
    bundle.ok(&[
        "exec",
        "--detach",
        "--pid-file",
        &pid,
        &bundle.id,
        "sleep",
        "2000000",
    ]);
    let other = process_of(Path::new(&pid));
    let mut pids = [first, other].map(|process| process.0.as_raw());
    pids.sort_unstable();
    let id = &*bundle.id;
    assert_eq!(
        json_of(&bundle.ok(&["ps", "--format", "json", id])),
        json!(pids)
    );
    let table = bundle.ok(&["ps", id]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    assert!(
        lines[0].contains("PID") && lines[0].contains("CMD"),
        "{table}"
    );
    assert!(
        table.contains("sleep 1000000") && table.contains("sleep 2000000"),
        "{table}"
    );
    let chosen = bundle.ok(&["ps", id, "-o", "pid,args"]);
    let lines: Vec<&str> = chosen.lines().collect();
    assert_eq!(lines.len(), 3, "{chosen}");
    let refused = bundle.fails(&["ps", id, "-o", "args"]);
    refused.complains("PID");
    bundle
        .fails(&["ps", id, "-o", "no_such_column"])
        .complains("no_such_column");
    bundle.ok(&["kill", id, "KILL"]);
    until(&bundle, "stopped");
    assert_eq!(
        json_of(&bundle.ok(&["ps", "--format", "json", id])),
        json!([])
    );
    bundle.end();
}

/// The numbers are the kernel's.
#[test]
fn statistics() {
    let bundle = Bundle::new();
    let first = bundle.begin(|config| {
        config["linux"]["resources"]["memory"] = json!({"limit": 67108864});
        config["linux"]["resources"]["pids"] = json!({"limit": 55});
    });
    let line = bundle.ok(&["events", "--stats", &bundle.id]);
    let stats = json_of(&line);
    assert_eq!(line.lines().count(), 1);
    assert_eq!(
        (&stats["type"], &stats["id"]),
        (&json!("stats"), &json!(bundle.id))
    );
    let data = &stats["data"];
    assert_eq!(data["pids"], json!({"current": 1, "limit": 55}));
    assert_eq!(data["memory"]["usage"]["limit"], json!(67108864));
    let number = |pointer: &str| data.pointer(pointer).and_then(Value::as_u64).unwrap();
    assert!(
        number("/memory/usage/usage") > 0 && number("/cpu/usage/total") > 0,
        "{data}"
    );
    let (folder, version) = group(first, "memory").unwrap();
    if version == Version::V1 {
        // It sleeps: what it has used doesn't change any more.
        let (cpu, _) = group(first, "cpuacct").unwrap();
        let read = |folder: &Path, file: &str| fs::read_to_string(folder.join(file)).unwrap();
        let total: u64 = read(&cpu, "cpuacct.usage").trim().parse().unwrap();
        assert_eq!(number("/cpu/usage/total"), total);
        let stat = read(&folder, "memory.stat");
        for line in stat.lines() {
            let (key, _) = line.split_once(' ').unwrap();
            assert!(data["memory"]["raw"][key].is_u64(), "{key}");
        }
    }
    // Until its end.
    let mut events = bundle.command(&["events", "--interval", "1000000s", &bundle.id]);
    let mut events = Killed(
        events
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    events
        .0
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut [0; 16])
        .unwrap();
    bundle.ok(&["kill", &bundle.id, "KILL"]);
    assert_eq!(events.code(), Some(0));
    bundle.end();
}

/// What it says that it can do it does, as far as that is told by words.
#[test]
fn features() {
    let bundle = Bundle::new();
    let features = json_of(&bundle.ok(&["features"]));
    assert_eq!(features["ociVersionMin"], json!("1.0.0"));
    assert!(
        features["ociVersionMax"]
            .as_str()
            .unwrap()
            .starts_with("1.")
    );
    let has = |pointer: &str, word: &str| {
        let list = features.pointer(pointer).and_then(Value::as_array);
        list.unwrap_or_else(|| panic!("{pointer}"))
            .contains(&json!(word))
    };
    for (pointer, words) in [
        (
            "/hooks",
            &[
                "prestart",
                "createRuntime",
                "createContainer",
                "startContainer",
                "poststart",
                "poststop",
            ][..],
        ),
        (
            "/mountOptions",
            &[
                "bind",
                "rbind",
                "ro",
                "rro",
                "rprivate",
                "shared",
                "nosymfollow",
                "rnosymfollow",
                "tmpcopyup",
                "strictatime",
            ],
        ),
        (
            "/linux/namespaces",
            &[
                "cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts",
            ],
        ),
        (
            "/linux/capabilities",
            &["CAP_CHOWN", "CAP_CHECKPOINT_RESTORE"],
        ),
        (
            "/linux/seccomp/actions",
            &["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS"],
        ),
        (
            "/linux/seccomp/operators",
            &["SCMP_CMP_EQ", "SCMP_CMP_MASKED_EQ"],
        ),
        ("/linux/seccomp/knownFlags", &["SECCOMP_FILTER_FLAG_LOG"]),
    ] {
        for word in words {
            assert!(has(pointer, word), "{pointer}: {word}");
        }
    }
    // Each option is an option: as one of a filesystem no kernel would know it.
    let options = features["mountOptions"].as_array().unwrap();
    assert!(options.len() > 40);
    let one = |word: &Value| {
        let propagates = ["private", "shared", "slave", "unbindable"];
        let text = word.as_str().unwrap();
        !(text == "remount"
            || text.contains("bind") && !text.contains("unbindable")
            || propagates.contains(&text))
    };
    let mounts: Vec<Value> = options
        .iter()
        .filter(|word| one(word))
        .map(|word| json!({"destination": format!("/srv/{}", word.as_str().unwrap()), "type": "tmpfs", "source": "tmpfs", "options": [word]}))
        .collect();
    let count = mounts.len();
    let first = bundle.begin(|config| {
        mounts
            .into_iter()
            .for_each(|mount| push(&mut config["mounts"], mount))
    });
    let made = first.mounts().unwrap();
    let made = made.iter().filter(|mount| mount.target.starts_with("/srv"));
    assert_eq!(made.count(), count);
    bundle.end();
    assert_eq!(features["linux"]["cgroup"]["systemd"], json!(false));
    assert_eq!(features["linux"]["intelRdt"]["enabled"], json!(false));
}

/// What `spec` writes is a bundle as it stands, and nothing is overwritten.
#[test]
fn a_bundle_to_begin_with() {
    let bundle = Bundle::new();
    let file = bundle.path("config.json");
    fs::write(&file, "mine").unwrap();
    let refused = bundle.fails(&["spec"]);
    refused.complains("config.json");
    refused.complains("help: ");
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    fs::remove_file(&file).unwrap();
    bundle.ok(&["spec"]);
    assert_eq!(
        json_of(&fs::read_to_string(&file).unwrap())["ociVersion"],
        json!("1.2.0")
    );
    let command = PtyCommand::new(step(STEP))
        .arg("--root")
        .arg(bundle.path("state"));
    let command = command.args(["run", "--bundle", &bundle.text(""), &bundle.id]);
    let mut shell = AtTerminal::start(command, "# ").unwrap();
    shell
        .write("cat /proc/sys/kernel/hostname; touch /x; exit 3\n")
        .unwrap();
    shell.read_until("Read-only file system").unwrap();
    assert!(shell.said.contains("box\r\n"), "{}", shell.said);
    let ended = eventually(|| shell.program.try_wait().unwrap()).expect("it ends");
    assert_eq!(ended.code(), Some(3));
    drop(shell);
    bundle.is_clean();
    bundle
        .fails(&["spec", "--bundle", "/no/such/folder"])
        .complains("/no/such/folder");
}

/// An ordinary user has a container of their own, in which they are root.
#[test]
fn an_ordinary_users_container() {
    const NOBODY: u32 = 65534;
    let bundle = Bundle::new();
    let home = folder();
    let program = copy_of(STEP, home.path());
    fs::remove_file(bundle.path("config.json")).unwrap();
    chown(bundle.folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    give_directories(&bundle.path("rootfs"), NOBODY);
    let state = bundle.path("theirs");
    let nobody = |words: &[&str]| {
        let mut command = as_nobody(&program);
        command
            .arg("--root")
            .arg(&state)
            .args(words)
            .current_dir(bundle.folder.path());
        command
    };
    ended(&mut nobody(&["spec", "--rootless"])).success();
    let text = fs::read_to_string(bundle.path("config.json")).unwrap();
    let mut config = json_of(&text);
    config["process"]["terminal"] = json!(false);
    let write = |config: &Value| fs::write(bundle.path("config.json"), config.to_string()).unwrap();
    config["process"]["args"] = json!([
        "sh",
        "-c",
        "id -u; cat /proc/self/uid_map; cat /proc/sys/kernel/hostname"
    ]);
    write(&config);
    let ran = ended(&mut nobody(&["run", "theirs"])).success();
    let words: Vec<String> = ran
        .printed()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    assert_eq!(words, ["0", "0", "65534", "1", "box"], "{ran}");
    let ran = ended(&mut nobody(&["--rootless=true", "run", "theirs"])).success();
    ran.prints("box");
    // By itself it is known that nobody has no groups; who says otherwise is told what is missing.
    let refused = ended(&mut nobody(&["--rootless=false", "run", "theirs"])).code(1);
    refused.complains("linux.cgroupsPath");
    assert_eq!(fs::read_dir(&state).unwrap().count(), 0);
    config["process"]["args"] = json!(["sleep", "1000000"]);
    write(&config);
    let pid = bundle.text("pid");
    ended(&mut nobody(&[
        "run",
        "--detach",
        "--pid-file",
        &pid,
        "theirs",
    ]))
    .success();
    let first = process_of(Path::new(&pid));
    assert_eq!(first.status("Uid").unwrap(), "65534\t65534\t65534\t65534");
    let said = ended(&mut nobody(&["exec", "theirs", "id", "-u"]))
        .success()
        .printed();
    assert_eq!(said, "0\n");
    let listed = ended(&mut nobody(&["list", "-q"])).success().printed();
    assert_eq!(listed, "theirs\n");
    ended(&mut nobody(&["kill", "theirs", "KILL"])).success();
    ended(&mut nobody(&["delete", "--force", "theirs"])).success();
    assert_eq!(fs::read_dir(&state).unwrap().count(), 0);
    assert!(!is_there(first));
    // A limit isn't forgotten for want of a right to it.
    config["linux"]["resources"] = json!({"pids": {"limit": 10}});
    write(&config);
    let refused = ended(&mut nobody(&["create", "theirs"])).code(1);
    refused.complains("linux.resources");
    assert_eq!(fs::read_dir(&state).unwrap().count(), 0);
    bundle.is_clean();
}

/// Root that may make no groups does without them when it says so, and not by itself.
#[test]
fn root_without_groups() {
    let bundle = Bundle::new();
    bundle.write(|config| {
        config["process"]["args"] = json!(["sh", "-c", "echo within"]);
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["type"] != "cgroup");
    });
    // A folder in which nothing can be made lies over all hierarchies.
    let script = "mount -t tmpfs -o ro none /sys/fs/cgroup && exec \"$@\"";
    let by = ["unshare", "--mount", "sh", "-c", script, "sh"];
    let without = |rootless| ended(&mut bundle.command_by(&by, &[rootless, "run", &bundle.id]));
    without("--rootless=true").success().prints("within");
    for by_itself in ["--rootless=auto", "--rootless=false"] {
        let refused = without(by_itself).code(1);
        refused.complains("linux.cgroupsPath");
        bundle.is_clean();
    }
}

#[test]
fn what_is_refused_and_what_is_printed() {
    let bundle = Bundle::new();
    let version = bundle.ok(&["--version"]);
    assert!(version.starts_with(&format!("{STEP} ")), "{version}");
    assert!(
        version.lines().any(|line| line.starts_with("spec: 1.")),
        "{version}"
    );
    let help = bundle.ok(&["--help"]);
    for word in [
        "create",
        "start",
        "state",
        "kill",
        "delete",
        "--root",
        "--log-format",
    ] {
        assert!(help.contains(word), "{word}");
    }
    let nothing = bundle.run(&[]);
    assert_ne!(nothing.get_output().status.code(), Some(0));
    let id = &*bundle.id;
    for words in [&["create", id][..], &["run", id], &["run", "--detach", id]] {
        let refused = bundle.fails(&[&["--systemd-cgroup"], words].concat());
        for word in ["--systemd-cgroup", "help: ", "cgroupfs"] {
            refused.complains(word);
        }
        bundle.is_clean();
    }
    bundle.begin(|_| {});
    for words in [
        &["checkpoint", "--image-path", "x", id][..],
        &["restore", id],
        &["checkpoint", id],
    ] {
        bundle.fails(words).complains("checkpoint");
    }
    // Engines say so to other commands, too.
    bundle.ok(&["--systemd-cgroup", "state", id]);
    bundle.ok(&[
        "--criu",
        "/no/such/program",
        "--rootless",
        "auto",
        "state",
        id,
    ]);
    bundle.end();
}

/// Two commands on one container: each has a plain outcome, and nothing is left.
#[test]
fn commands_beside_each_other() {
    let bundle = Bundle::new();
    let id = &*bundle.id;
    bundle.write(|_| {});
    let beside = |words: &[&str]| -> Vec<Option<i32>> {
        let spawn = |_| {
            let mut command = bundle.command(words);
            let quiet = command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            Killed(quiet.spawn().unwrap())
        };
        let all: Vec<_> = (0..4).map(spawn).collect();
        all.into_iter().map(Killed::code).collect()
    };
    let one_succeeds = |codes: &[Option<i32>]| {
        let succeeded = codes.iter().filter(|code| **code == Some(0)).count();
        let failed = codes.iter().filter(|code| **code == Some(1)).count();
        (succeeded, failed) == (1, 3)
    };
    for _ in 0..3 {
        let created = beside(&["create", id]);
        assert!(one_succeeds(&created), "{created:?}");
        let started = beside(&["start", id]);
        assert!(one_succeeds(&started), "{started:?}");
        assert_eq!(bundle.status(id), "running");
        let deleted = beside(&["delete", "--force", id]);
        assert_eq!(deleted, [Some(0); 4]);
        bundle.is_clean();
    }
    // A runtime that is killed leaves what `delete --force` removes.
    for _ in 0..5 {
        let mut creates = bundle.command(&["create", id]);
        let quiet = creates
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut creates = quiet.spawn().unwrap();
        eventually(|| (!bundle.kept().is_empty()).then_some(())).expect("it begins");
        creates.kill().unwrap();
        creates.wait().unwrap();
        bundle.ok(&["delete", "--force", id]);
        bundle.is_clean();
    }
}

/// The state folder is the user's own where nobody says another.
#[test]
fn where_containers_are_written_down() {
    let bundle = Bundle::new();
    bundle.create(&bundle.id);
    let kept = bundle.path("state");
    use std::os::unix::fs::MetadataExt;
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(&kept), 0o700);
    assert_eq!(mode(&kept.join(&bundle.id)), 0o700);
    bundle.end();
    let home = folder();
    chown(home.path(), Some(65534), Some(65534)).unwrap();
    let elsewhere = folder();
    let program = copy_of(STEP, elsewhere.path());
    let mut list = as_nobody(&program);
    let listed = ended(
        list.args(["list", "-q"])
            .env("XDG_RUNTIME_DIR", home.path()),
    )
    .success();
    assert_eq!(listed.printed(), "");
}

//! What config.json says of the process, the root and the namespaces is what the kernel says of the container's process.

use crate::stage::bundle::{
    Bundle, STEP, give_directories, has, inside, mount_at, part, process_of, push,
};
use crate::stage::dock::ended;
use crate::stage::{Printed, have, mount_apart, on_host, run, step};
use nix::mount::{MsFlags, mount, umount};
use nix::sys::stat::{major, minor};
use progress::checks::step05::AtTerminal;
use progress::host::Propagation;
use progress::host::container::{eventually, wait_for};
use progress::host::evidence::{Mount, Process};
use pty_process::blocking::Command as PtyCommand;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use step04_pivot_root::descriptors::receive_with;

/// The text of a file of the process's folder, without blanks at its ends.
#[track_caller]
fn said_of(process: Process, name: &str) -> String {
    let file = process.file(name);
    let text = fs::read_to_string(&file);
    let text = text.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    text.trim().to_owned()
}

fn statuses<const N: usize>(process: Process, keys: [&str; N]) -> [String; N] {
    keys.map(|key| process.status(key).unwrap().replace('\t', " "))
}

#[test]
fn user_words_environment_and_place() {
    let bundle = Bundle::new();
    let words = [
        "sh",
        "-c",
        "sleep 1000000; :",
        "two words",
        "",
        "line\nbreak",
        "ümlaut",
    ];
    let variables = [
        "PATH=/usr/bin:/bin",
        "HOME=/of/mine",
        "EMPTY=",
        "SIGN=a = b",
        "LINES=1\n2",
    ];
    let first = bundle.begin(|config| {
        let process = &mut config["process"];
        process["user"] =
            json!({"uid": 1234, "gid": 5678, "umask": 0o027, "additionalGids": [42, 4711]});
        process["args"] = json!(words);
        process["env"] = json!(variables);
        process["cwd"] = json!("/made/for/it");
        process["noNewPrivileges"] = json!(true);
        process["oomScoreAdj"] = json!(777);
        config["linux"]["personality"] = json!({"domain": "LINUX32"});
    });
    assert_eq!(
        statuses(first, ["Uid", "Gid", "Groups", "Umask", "NoNewPrivs"]),
        [
            "1234 1234 1234 1234",
            "5678 5678 5678 5678",
            "42 4711",
            "0027",
            "1"
        ]
    );
    assert_eq!(first.strings("cmdline").unwrap(), words);
    assert_eq!(first.strings("environ").unwrap(), variables);
    let place = |path: PathBuf| {
        let found = fs::metadata(path).unwrap();
        (found.dev(), found.ino(), found.mode() & 0o7777)
    };
    let cwd = place(first.file("cwd"));
    assert_eq!(cwd, place(bundle.path("rootfs/made/for/it")));
    assert_eq!(cwd.2, 0o755);
    assert_eq!(said_of(first, "oom_score_adj"), "777");
    assert_eq!(said_of(first, "personality"), "00000008");
    bundle.end();

    // What isn't said stays as it is for whoever starts the runtime, or is what every program expects.
    let first = bundle.begin(|config| {
        config["process"]["noNewPrivileges"] = json!(false);
        config["process"]["env"] = json!([format!("PATH={}", step01_uts::PATH)]);
    });
    assert_eq!(
        statuses(first, ["Uid", "Gid", "Groups", "Umask", "NoNewPrivs"]),
        ["0 0 0 0", "0 0 0 0", "", "0022", "0"]
    );
    let path = format!("PATH={}", step01_uts::PATH);
    assert_eq!(first.strings("environ").unwrap(), [&path[..], "HOME=/root"]);
    let this = Process(nix::unistd::getpid());
    for file in ["oom_score_adj", "personality"] {
        assert_eq!(said_of(first, file), said_of(this, file), "{file}");
    }
    bundle.end();
}

#[test]
fn limits_of_the_process() {
    let bundle = Bundle::new();
    let limits = [
        ("AS", "Max address space", 1u64 << 34, 1u64 << 35),
        ("CORE", "Max core file size", 0, 0),
        ("CPU", "Max cpu time", 1000, 2000),
        ("DATA", "Max data size", 1 << 34, 1 << 35),
        ("FSIZE", "Max file size", 1 << 30, 1 << 31),
        ("LOCKS", "Max file locks", 100, 101),
        ("MEMLOCK", "Max locked memory", 4096, 8192),
        ("MSGQUEUE", "Max msgqueue size", 4096, 8192),
        ("NICE", "Max nice priority", 0, 0),
        ("NOFILE", "Max open files", 100, 200),
        ("NPROC", "Max processes", 100, 101),
        ("RSS", "Max resident set", 1 << 30, 1 << 31),
        ("RTPRIO", "Max realtime priority", 0, 0),
        ("RTTIME", "Max realtime timeout", 100_000, 200_000),
        ("SIGPENDING", "Max pending signals", 10, 20),
        ("STACK", "Max stack size", 1 << 22, 1 << 23),
    ];
    let first = bundle.begin(|config| {
        let spec = limits.map(|(name, _, soft, hard)| {
            json!({"type": format!("RLIMIT_{name}"), "soft": soft, "hard": hard})
        });
        config["process"]["rlimits"] = json!(spec);
    });
    let text = said_of(first, "limits");
    for (name, shown, soft, hard) in limits {
        let line = text.lines().find_map(|line| line.strip_prefix(shown));
        let line = line.unwrap_or_else(|| panic!("{shown}: {text}"));
        let values: Vec<&str> = line.split_whitespace().take(2).collect();
        assert_eq!(values, [soft.to_string(), hard.to_string()], "{name}");
    }
    bundle.end();

    let limit =
        |kind: &str, soft: u64, hard: u64| json!({"type": kind, "soft": soft, "hard": hard});
    let twice = [limit("RLIMIT_NOFILE", 1, 2), limit("RLIMIT_NOFILE", 1, 2)];
    for (limits, said) in [
        (json!([limit("RLIMIT_NOTHING", 1, 1)]), "RLIMIT_NOTHING"),
        (json!([limit("NOFILE", 1, 1)]), "\"NOFILE\""),
        (json!(twice), "process.rlimits[1]"),
        (json!([limit("RLIMIT_NOFILE", 2, 1)]), "RLIMIT_NOFILE"),
    ] {
        let change = |config: &mut Value| config["process"]["rlimits"] = limits;
        bundle.refuses(change, &["process.rlimits[", said]);
    }
    // Above what whoever starts the runtime may give.
    bundle
        .write(|config| config["process"]["rlimits"] = json!([limit("RLIMIT_NOFILE", 1000, 2000)]));
    let script = "ulimit -n 1000; exec setpriv --bounding-set=-sys_resource -- \"$@\"";
    let by = ["bash", "-c", script, "bash"];
    let refused = ended(&mut bundle.command_by(&by, &["create", &bundle.id])).code(1);
    for word in ["process.rlimits[0]", "RLIMIT_NOFILE", "2000", "1000"] {
        refused.complains(word);
    }
    bundle.is_clean();
}

/// The bits of capabilities by their names, as /proc/PID/status shows them.
fn bits(names: &[&str]) -> String {
    let number = |name: &&str| match *name {
        "CAP_CHOWN" => 0,
        "CAP_KILL" => 5,
        "CAP_NET_RAW" => 13,
        other => panic!("{other}"),
    };
    let set = names
        .iter()
        .map(number)
        .fold(0u64, |set, bit| set | 1 << bit);
    format!("{set:016x}")
}

/// The five sets are seen through execve(2), which makes new ones of them: capabilities(7).
#[test]
fn capabilities_in_five_sets() {
    let bundle = Bundle::new();
    const ALL: &[&str] = &["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"];
    let sets = json!({
        "bounding": ALL,
        "permitted": ["CAP_CHOWN", "CAP_KILL"],
        "effective": ["CAP_CHOWN"],
        "inheritable": ["CAP_KILL", "CAP_NET_RAW"],
        "ambient": ["CAP_KILL"],
    });
    let (two, inheritable, one) = (&ALL[..2], &ALL[1..], &ALL[1..2]);
    let none: &[&str] = &[];
    for (uid, no_more, sets, wanted) in [
        // Root may have all of the bounding set, or with no_new_privs what it had.
        (0, false, &sets, [inheritable, ALL, ALL, ALL, one]),
        (0, true, &sets, [inheritable, two, two, ALL, one]),
        // Another user keeps the ambient ones.
        (1000, false, &sets, [inheritable, one, one, ALL, one]),
        (1000, true, &sets, [inheritable, one, one, ALL, one]),
        (0, false, &Value::Null, [none; 5]),
    ] {
        let first = bundle.begin(|config| {
            config["process"]["user"] = json!({"uid": uid, "gid": uid});
            config["process"]["noNewPrivileges"] = json!(no_more);
            config["process"]["capabilities"] = sets.clone();
        });
        let seen = statuses(first, ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]);
        assert_eq!(seen, wanted.map(bits), "user {uid}, {no_more}, {sets}");
        bundle.ok(&["delete", "--force", &bundle.id]);
    }
    bundle.is_clean();
}

/// A capability that can't be granted is left out, and the log says so.
#[test]
fn capabilities_that_cannot_be_granted() {
    let bundle = Bundle::new();
    bundle.write(|config| {
        let names = ["CAP_CHOWN", "CAP_SYS_TIME", "CAP_NO_SUCH"];
        config["process"]["capabilities"] =
            json!({"bounding": names, "permitted": names, "effective": names});
    });
    let (log, pid) = (bundle.text("log"), bundle.text("pid"));
    let words = [
        &["--log", &log, "--log-format", "json"][..],
        &["create", "--pid-file", &pid, &bundle.id],
    ];
    let by = ["setpriv", "--bounding-set=-sys_time", "--"];
    ended(&mut bundle.command_by(&by, &words.concat())).success();
    bundle.ok(&["start", &bundle.id]);
    let first = process_of(Path::new(&pid));
    assert_eq!(
        statuses(first, ["CapBnd", "CapEff"]),
        [(); 2].map(|()| bits(&["CAP_CHOWN"]))
    );
    let said = fs::read_to_string(log).unwrap();
    let warns = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let text = line["msg"].as_str().unwrap_or_default().to_owned();
        line["level"] == "warning" && text.contains("CAP_SYS_TIME") && text.contains("CAP_NO_SUCH")
    };
    assert!(said.lines().any(warns), "{said}");
    bundle.end();
}

/// An engine holds the other end of the terminal.
#[test]
fn a_terminal_by_a_socket() {
    let bundle = Bundle::new();
    let socket = bundle.text("console.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    bundle.write(|config| {
        let process = &mut config["process"];
        process["terminal"] = json!(true);
        process["consoleSize"] = json!({"height": 31, "width": 97});
        process["user"] = json!({"uid": 1234, "gid": 5678});
        process["args"] = json!(["sh", "-c", "read word; echo got $word; sleep 1000000"]);
    });
    let pid = bundle.text("pid");
    let words = ["create", "--console-socket", &socket, "--pid-file", &pid];
    bundle.ok(&[&words[..], &[&bundle.id]].concat());
    let (connection, _) = listener.accept().unwrap();
    let (_, mut descriptors) = receive_with(
        &connection.into(),
        &mut [0; 100],
        nix::sys::socket::MsgFlags::empty(),
    )
    .unwrap();
    let mut master = File::from(descriptors.pop().expect("a descriptor comes along"));
    // SAFETY: the kernel writes one winsize.
    let size = unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        assert_eq!(
            libc::ioctl(master.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size),
            0
        );
        size
    };
    assert_eq!((size.ws_row, size.ws_col), (31, 97));
    bundle.ok(&["start", &bundle.id]);
    let first = process_of(Path::new(&pid));
    // Its loader may have a library open.
    let wanted = [0, 1, 2].map(|number| (number, PathBuf::from("/dev/pts/0")));
    let settled = || (descriptors_of(first) == wanted).then_some(());
    let settled = eventually(settled);
    assert!(settled.is_some(), "{:?}", descriptors_of(first));
    // It is the controlling terminal of a session that the process leads: fields 4 to 7 of proc_pid_stat(5).
    let stat = said_of(first, "stat");
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    assert_eq!(fields[3], first.0.to_string(), "the session");
    assert_eq!(fields[4], (136 << 8).to_string(), "its terminal");
    for path in ["/dev/pts/0", "/dev/console"] {
        let found = fs::metadata(inside(first, path)).unwrap();
        let number = (major(found.rdev()), minor(found.rdev()));
        assert_eq!((number, found.uid()), ((136, 0), 1234), "{path}");
    }
    master.write_all(b"canary\n").unwrap();
    let mut said = String::new();
    while !said.contains("got canary") {
        wait_for(&master, first).unwrap();
        let mut buffer = [0; 1000];
        let read = master.read(&mut buffer).unwrap();
        said += &String::from_utf8_lossy(&buffer[..read]);
    }
    bundle.end();
}

/// What `process` has open, by number.
fn descriptors_of(process: Process) -> Vec<(i32, PathBuf)> {
    let entries = fs::read_dir(process.file("fd")).unwrap().flatten();
    let mut open: Vec<_> = entries
        .map(|entry| {
            let number = entry.file_name().to_string_lossy().parse().unwrap();
            (number, fs::read_link(entry.path()).unwrap())
        })
        .collect();
    open.sort();
    open
}

/// `run` in the foreground carries the bytes itself.
#[test]
fn a_terminal_in_the_foreground() {
    let bundle = Bundle::new();
    bundle.write(|config| {
        config["process"]["terminal"] = json!(true);
        config["process"]["args"] = json!([
            "sh",
            "-c",
            "tty; echo size $(stty size); read word; exit $word"
        ]);
    });
    let command = PtyCommand::new(step(STEP))
        .arg("--root")
        .arg(bundle.path("state"))
        .args(["run", "--bundle", &bundle.text(""), &bundle.id]);
    let mut terminal = AtTerminal::start(command, "size ").unwrap();
    assert!(
        terminal.said.contains("/dev/pts/0\r\n"),
        "{}",
        terminal.said
    );
    terminal.write("7\n").unwrap();
    let ended = eventually(|| terminal.program.try_wait().unwrap()).expect("it ends");
    assert_eq!(ended.code(), Some(7));
    drop(terminal);
    bundle.is_clean();
}

#[test]
fn names_of_the_host() {
    let bundle = Bundle::new();
    let files = "cat /proc/sys/kernel/hostname /proc/sys/kernel/domainname";
    let names =
        || ["hostname", "domainname"].map(|name| fs::read(format!("/proc/sys/kernel/{name}")));
    let before = names().map(Result::unwrap);
    let said = bundle.says(files, |config| {
        config["hostname"] = json!("a-box");
        config["domainname"] = json!("of.mine");
    });
    assert_eq!(said, "a-box\nof.mine\n");
    assert_eq!(names().map(Result::unwrap), before);
}

/// The types of namespaces, with the name of each in /proc/PID/ns.
const KINDS: [(&str, &str); 6] = [
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("cgroup", "cgroup"),
    ("time", "time"),
];

/// Those namespaces are new that are named, and no others.
#[test]
fn new_namespaces() {
    let bundle = Bundle::new();
    let this = Process(nix::unistd::getpid());
    let names = KINDS.map(|(_, name)| name);
    for (kind, name) in KINDS.into_iter().chain([("", "mnt")]) {
        let kinds: Vec<_> = [kind].into_iter().filter(|kind| !kind.is_empty()).collect();
        let first = bundle.begin(|config| part(config, &kinds));
        for each in names.into_iter().chain(["mnt", "user"]) {
            let (inside, outside) = (
                first.namespace(each).unwrap(),
                this.namespace(each).unwrap(),
            );
            let is_new = each == name || each == "mnt";
            assert_eq!(inside != outside, is_new, "{kind:?}: {each}");
        }
        bundle.ok(&["delete", "--force", &bundle.id]);
    }
    bundle.is_clean();
}

/// A namespace by its path is joined, each type for itself and all together.
#[test]
fn joined_namespaces() {
    let bundle = Bundle::new();
    let holder = bundle.begin(|config| part(config, &KINDS.map(|(kind, _)| kind)));
    let other = format!("{}-other", bundle.id);
    let each = KINDS.map(|kind| vec![kind]);
    for kinds in each.into_iter().chain([KINDS.to_vec()]) {
        let first = bundle.begin_as(&other, |config| {
            part(config, &[]);
            for (kind, name) in &kinds {
                let path = holder.file(&format!("ns/{name}"));
                push(
                    &mut config["linux"]["namespaces"],
                    json!({"type": kind, "path": path}),
                );
            }
        });
        for (kind, name) in KINDS {
            let is_joined = kinds.contains(&(kind, name));
            let same = first.namespace(name).unwrap() == holder.namespace(name).unwrap();
            assert_eq!(same, is_joined, "{kinds:?}: {name}");
            if kind == "pid" && is_joined {
                // Not its first process.
                assert!(first.pids().unwrap()[1] > 1, "{:?}", first.pids());
            }
        }
        bundle.ok(&["delete", "--force", &other]);
    }
    bundle.end();
}

/// A process that holds new namespaces: `unshare` with `flags`.
struct Holder(Child);

impl Holder {
    fn new(flags: &[&str]) -> Holder {
        let mut command = Command::new("unshare");
        command
            .args(flags)
            .args(["sh", "-c", "echo ready; read end"]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = child.spawn().unwrap();
        let output = child.stdout.as_mut().unwrap();
        output.read_exact(&mut [0; 6]).unwrap();
        Holder(child)
    }

    fn process(&self) -> Process {
        Process(nix::unistd::Pid::from_raw(self.0.id() as i32))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_joined_mount_namespace() {
    let bundle = Bundle::new();
    let holder = Holder::new(&["--mount", "--propagation", "private"]);
    let first = bundle.begin(|config| {
        part(config, &["pid", "ipc", "uts"]);
        config["linux"]["namespaces"][3]["path"] = json!(holder.process().file("ns/mnt"));
    });
    let mounts = |process: Process| process.namespace("mnt").unwrap();
    assert_eq!(mounts(first), mounts(holder.process()));
    drop(holder);
    bundle.end();
}

const SHIFT: u32 = 100_000;

fn shifted(config: &mut Value) {
    part(config, &["user", "pid", "network", "ipc", "uts", "cgroup"]);
    let map = json!([{"containerID": 0, "hostID": SHIFT, "size": 5000},
        {"containerID": 60000, "hostID": 300_000, "size": 10},
        {"containerID": 65534, "hostID": 400_000, "size": 1}]);
    config["linux"]["uidMappings"] = map.clone();
    config["linux"]["gidMappings"] = map;
}

/// Whoever is root in there is somebody else outside, also for a container that joins the user namespace.
#[test]
fn user_namespaces() {
    let bundle = Bundle::new();
    give_directories(&bundle.path("rootfs"), SHIFT);
    let first = bundle.begin(|config| {
        shifted(config);
        let capabilities = json!(["CAP_SYS_ADMIN"]);
        config["process"]["capabilities"] =
            json!({"bounding": capabilities, "permitted": capabilities, "effective": capabilities});
    });
    for file in ["uid_map", "gid_map"] {
        let words: Vec<String> = said_of(first, file)
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        assert_eq!(
            words.join(" "),
            "0 100000 5000 60000 300000 10 65534 400000 1",
            "{file}"
        );
    }
    let all = |id: u32| [id; 4].map(|id| id.to_string()).join(" ");
    assert_eq!(
        statuses(first, ["Uid", "Gid", "CapEff"]),
        [all(SHIFT), all(SHIFT), format!("{:016x}", 1 << 21)]
    );
    // Devices are the host's own files, since nobody in there can make any.
    let null = fs::metadata(inside(first, "/dev/null")).unwrap();
    assert_eq!((major(null.rdev()), minor(null.rdev())), (1, 3));
    assert_eq!(mount_at(first, "/dev/null").filesystem, "devtmpfs");

    // The number by which the kernel calls whoever has none in there is somebody's own here.
    let (pid_file, pid) = (bundle.path("nobody"), bundle.text("nobody"));
    bundle.ok(&[
        "exec",
        "--detach",
        "--pid-file",
        &pid,
        "--user",
        "65534:65534",
        &bundle.id,
        "sleep",
        "1000",
    ]);
    assert_eq!(
        statuses(process_of(&pid_file), ["Uid", "Gid"]),
        [all(400_000), all(400_000)]
    );

    let other = format!("{}-other", bundle.id);
    let second = bundle.begin_as(&other, |config| {
        part(config, &["pid", "network", "ipc", "uts"]);
        let path = first.file("ns/user");
        push(
            &mut config["linux"]["namespaces"],
            json!({"type": "user", "path": path}),
        );
        config["process"]["user"] = json!({"uid": 60001, "gid": 60002});
    });
    assert_eq!(
        second.namespace("user").unwrap(),
        first.namespace("user").unwrap()
    );
    assert_eq!(
        statuses(second, ["Uid", "Gid"]),
        [all(300_001), all(300_002)]
    );
    bundle.ok(&["delete", "--force", &other]);
    bundle.end();
    bundle.refuses(
        |config| {
            shifted(config);
            config["linux"]
                .as_object_mut()
                .unwrap()
                .remove("uidMappings");
        },
        &["linux.uidMappings"],
    );
}

/// The clocks of a time namespace are ahead of the host's for the command, not only for its children.
#[test]
fn clocks_with_offsets() {
    let bundle = Bundle::new();
    let offsets = |config: &mut Value| {
        part(config, &["time", "pid"]);
        config["linux"]["timeOffsets"] = json!({
            "monotonic": {"secs": 1_000_000_000, "nanosecs": 5},
            "boottime": {"secs": 2_000_000_000},
        });
    };
    let first = bundle.begin(offsets);
    let words: Vec<String> = said_of(first, "timens_offsets")
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    assert_eq!(
        words.join(" "),
        "monotonic 1000000000 5 boottime 2000000000 0"
    );
    bundle.end();
    // The shell itself reads, and none of its children.
    let uptime = bundle.says("read up rest </proc/uptime; echo ${up%.*}", offsets);
    assert!(
        uptime.trim().parse::<u64>().unwrap() > 2_000_000_000,
        "{uptime}"
    );
    let refused = |config: &mut Value| {
        offsets(config);
        part(config, &["pid"]);
    };
    bundle.refuses(refused, &["linux.timeOffsets", "time namespace"]);
}

#[test]
fn a_root_for_reading_only() {
    let bundle = Bundle::new();
    let first = bundle.begin(|config| {
        config["root"]["readonly"] = json!(true);
        config["process"]["cwd"] = json!("/made/before");
        let tmpfs = json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"});
        push(&mut config["mounts"], tmpfs);
    });
    assert!(has(&mount_at(first, "/"), "ro"));
    assert!(has(&mount_at(first, "/tmp"), "rw"));
    let error = fs::write(inside(first, "/file"), "").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    fs::write(inside(first, "/tmp/file"), "").unwrap();
    bundle.end();
    // An absolute path, and one to another directory than the usual.
    fs::rename(bundle.path("rootfs"), bundle.path("elsewhere")).unwrap();
    for path in ["elsewhere".to_owned(), bundle.text("elsewhere")] {
        let first = bundle.begin(|config| config["root"]["path"] = json!(path));
        assert!(has(&mount_at(first, "/"), "rw"));
        let found = fs::metadata(inside(first, "/")).unwrap();
        let wanted = fs::metadata(bundle.path("elsewhere")).unwrap();
        assert_eq!((found.dev(), found.ino()), (wanted.dev(), wanted.ino()));
        bundle.end();
    }
}

#[test]
fn devices() {
    let bundle = Bundle::new();
    let first = bundle.begin(|config| {
        config["linux"]["devices"] = json!([
            {"type": "c", "path": "/dev/below/null", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 12, "gid": 34},
            {"type": "u", "path": "/dev/unbuffered", "major": 1, "minor": 5},
            {"type": "b", "path": "/dev/disk", "major": 7, "minor": 1, "fileMode": 0o600},
            {"type": "p", "path": "/dev/pipe", "fileMode": 0o622},
            {"type": "c", "path": "/srv/outside", "major": 1, "minor": 7, "fileMode": 0o4755},
        ]);
    });
    let (c, b, p) = (libc::S_IFCHR, libc::S_IFBLK, libc::S_IFIFO);
    for (path, kind, number, mode, owner) in [
        ("/dev/below/null", c, (1, 3), 0o640, (12, 34)),
        ("/dev/unbuffered", c, (1, 5), 0o666, (0, 0)),
        ("/dev/disk", b, (7, 1), 0o600, (0, 0)),
        ("/dev/pipe", p, (0, 0), 0o622, (0, 0)),
        ("/srv/outside", c, (1, 7), 0o4755, (0, 0)),
        ("/dev/null", c, (1, 3), 0o666, (0, 0)),
        ("/dev/zero", c, (1, 5), 0o666, (0, 0)),
        ("/dev/full", c, (1, 7), 0o666, (0, 0)),
        ("/dev/random", c, (1, 8), 0o666, (0, 0)),
        ("/dev/urandom", c, (1, 9), 0o666, (0, 0)),
        ("/dev/tty", c, (5, 0), 0o666, (0, 0)),
    ] {
        let found = fs::symlink_metadata(inside(first, path)).unwrap();
        let numbers = (major(found.rdev()), minor(found.rdev()));
        let mode_and_kind = (found.mode() & libc::S_IFMT, found.mode() & 0o7777);
        assert_eq!(
            (mode_and_kind, numbers, (found.uid(), found.gid())),
            ((kind, mode), number, owner),
            "{path}"
        );
    }
    for (link, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
        ("/dev/ptmx", "pts/ptmx"),
    ] {
        let found = fs::read_link(inside(first, link)).unwrap();
        assert_eq!(found, Path::new(target));
    }
    assert!(fs::symlink_metadata(inside(first, "/dev/console")).is_err());
    bundle.end();

    // What is there already and is another thing stays, and is an error.
    let file = bundle.put("/srv/file", "canary");
    for (device, said) in [
        (
            json!({"type": "c", "path": "/srv/file", "major": 1, "minor": 7}),
            "/srv/file",
        ),
        (json!({"type": "c", "path": "/dev/x", "minor": 7}), "major"),
        (
            json!({"type": "x", "path": "/dev/x", "major": 1, "minor": 7}),
            "\"x\"",
        ),
        (
            json!({"type": "c", "path": "dev/x", "major": 1, "minor": 7}),
            "absolute",
        ),
    ] {
        bundle.refuses(
            |config| config["linux"]["devices"] = json!([device]),
            &["linux.devices", said],
        );
    }
    assert_eq!(fs::read_to_string(file).unwrap(), "canary");
}

#[test]
fn settings_of_the_kernel() {
    let bundle = Bundle::new();
    let settings = [
        ("net.core.somaxconn", "77"),
        ("net/ipv4/ip_default_ttl", "33"),
        ("kernel.shm_rmid_forced", "1"),
        ("kernel.msgmax", "8190"),
        ("fs.mqueue.msg_max", "7"),
        ("kernel.domainname", "by.sysctl"),
    ];
    let files = settings.map(|(name, _)| format!("/proc/sys/{}", name.replace('.', "/")));
    let on_host = || files.clone().map(|file| fs::read_to_string(file).ok());
    let before = on_host();
    let said = bundle.says(&format!("cat {}", files.join(" ")), |config| {
        for (name, value) in settings {
            config["linux"]["sysctl"][name] = json!(value);
        }
    });
    let values = settings.map(|(_, value)| value);
    assert_eq!(said.lines().collect::<Vec<_>>(), values);
    assert_eq!(on_host(), before);
    // What would change the host.
    for (name, missing) in [
        ("kernel.panic", ""),
        ("net.core.somaxconn", "network"),
        ("kernel.shm_rmid_forced", "ipc"),
        ("fs.mqueue.msg_max", "ipc"),
        ("kernel.domainname", "uts"),
        ("net.core/../../kernel.panic", ""),
        ("net.no_such_setting", ""),
    ] {
        let change = |config: &mut Value| {
            let kinds: Vec<_> = KINDS.map(|(kind, _)| kind).to_vec();
            part(config, &kinds);
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|namespace| namespace["type"] != missing);
            config.as_object_mut().unwrap().remove("hostname");
            config["linux"]["sysctl"][name] = json!("1");
        };
        bundle.refuses(change, &["linux.sysctl", name, missing]);
    }
    assert_eq!(on_host(), before);
}

/// Gives config.json a filter, which allows whatever no rule is about.
fn filter(config: &mut Value, rules: Value) {
    config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        "syscalls": rules,
    });
}

#[test]
fn a_filter_refuses_and_kills() {
    let bundle = Bundle::new();
    let mkdir = |action: &str, more: Value| {
        let mut rule = json!({"names": ["mkdir", "mkdirat", "no_such_call_yet"], "action": action});
        for (key, value) in more.as_object().into_iter().flatten() {
            rule[key] = value.clone();
        }
        json!([rule])
    };
    for (no_more, rules, code, said) in [
        (
            true,
            mkdir("SCMP_ACT_ERRNO", json!({"errnoRet": 28})),
            1,
            "No space left on device",
        ),
        (
            false,
            mkdir("SCMP_ACT_ERRNO", json!({})),
            1,
            "Operation not permitted",
        ),
        // 128 + SIGSYS
        (true, mkdir("SCMP_ACT_KILL_PROCESS", json!({})), 159, ""),
        (false, mkdir("SCMP_ACT_KILL", json!({})), 159, ""),
        (true, mkdir("SCMP_ACT_TRAP", json!({})), 159, ""),
        (true, mkdir("SCMP_ACT_LOG", json!({})), 0, ""),
    ] {
        let rules_as_text = rules.to_string();
        let ran = bundle.runs("mkdir /tmp/new; exit $?", |config| {
            config["process"]["noNewPrivileges"] = json!(no_more);
            filter(config, rules);
        });
        assert_eq!(
            ran.get_output().status.code(),
            Some(code),
            "{rules_as_text} {ran}"
        );
        ran.complains(said);
        let made = fs::remove_dir(bundle.path("rootfs/tmp/new")).is_ok();
        assert_eq!(made, code == 0, "{rules_as_text}");
    }
    // Everything is refused that isn't named, by another errno.
    let ran = bundle.runs("mkdir /tmp/new", |config| {
        filter(config, json!([]));
        let seccomp = &mut config["linux"]["seccomp"];
        seccomp["defaultAction"] = json!("SCMP_ACT_LOG");
        seccomp["defaultErrnoRet"] = json!(28);
        seccomp["flags"] = json!([
            "SECCOMP_FILTER_FLAG_LOG",
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
            "SECCOMP_FILTER_FLAG_TSYNC"
        ]);
    });
    ran.success();
    fs::remove_dir(bundle.path("rootfs/tmp/new")).unwrap();
    let first = bundle.begin(|config| filter(config, mkdir("SCMP_ACT_ERRNO", json!({}))));
    assert_eq!(statuses(first, ["Seccomp", "Seccomp_filters"]), ["2", "1"]);
    bundle.end();
    for (key, value) in [
        ("flags", json!(["SECCOMP_FILTER_FLAG_NO_SUCH"])),
        ("defaultAction", json!("SCMP_ACT_NO_SUCH")),
        (
            "syscalls",
            json!([{"names": ["mkdir"], "action": "SCMP_ACT_NO_SUCH"}]),
        ),
        (
            "syscalls",
            json!([{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO",
                "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_NO_SUCH"}]}]),
        ),
    ] {
        let change = |config: &mut Value| {
            filter(config, json!([]));
            config["linux"]["seccomp"][key] = value;
        };
        bundle.refuses(change, &["linux.seccomp", "NO_SUCH"]);
    }
}

/// Each comparison, with a signal's number for the second argument of kill(2).
#[test]
fn comparisons_of_a_filter() {
    let bundle = Bundle::new();
    let line = "trap '' 1 10 12; for n in 1 10 12; do kill -$n $$ 2>/dev/null || echo $n; done";
    for (op, value, two, refused) in [
        ("EQ", 10, 0, "10"),
        ("NE", 10, 0, "1 12"),
        ("GT", 10, 0, "12"),
        ("GE", 10, 0, "10 12"),
        ("LT", 10, 0, "1"),
        ("LE", 10, 0, "1 10"),
        // 10 is 0b1010, 12 is 0b1100.
        ("MASKED_EQ", 0b0110, 0b0010, "10"),
        ("MASKED_EQ", 0b1000, 0b1000, "10 12"),
    ] {
        let said = bundle.says(line, |config| {
            let condition =
                json!({"index": 1, "value": value, "valueTwo": two, "op": format!("SCMP_CMP_{op}")});
            filter(
                config,
                json!([{"names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [condition]}]),
            );
        });
        let seen: Vec<&str> = said.split_whitespace().collect();
        assert_eq!(seen.join(" "), refused, "{op} {value}");
    }
    // All conditions have to hold, but for two about one argument, of which one is enough.
    let both = |first: Value, second: Value| json!([{"names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [first, second]}]);
    let is = |index: u32, value: u32| json!({"index": index, "value": value, "op": "SCMP_CMP_EQ"});
    for (rules, refused) in [
        (both(is(0, 1), is(1, 10)), "10"),
        (both(is(0, 99), is(1, 10)), ""),
        (both(is(1, 1), is(1, 12)), "1 12"),
    ] {
        let said = bundle.says(line, |config| filter(config, rules));
        let seen: Vec<&str> = said.split_whitespace().collect();
        assert_eq!(seen.join(" "), refused);
    }
}

/// A 32-bit program's calls are under the same rules by their own numbers, and not made at all where the profile doesn't
/// name that architecture.
#[test]
fn architectures_of_a_filter() {
    if !cfg!(target_arch = "x86_64") || !have("gcc", "gcc") {
        return;
    }
    let bundle = Bundle::new();
    // mkdir is 39 there. The path has to be below 4 GiB.
    let source = "#include <sys/mman.h>\n#include <string.h>\n#include <stdio.h>
        int main(void) {
            char *path = mmap((void *)0x10000000, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
            strcpy(path, \"/tmp/new\");
            long r;
            __asm__ volatile(\"int $0x80\" : \"=a\"(r) : \"a\"(39L), \"b\"(path), \"c\"(0755L) : \"memory\");
            printf(\"%ld\\n\", r);
            return 0;
        }";
    fs::write(bundle.path("call.c"), source).unwrap();
    run(Command::new("gcc")
        .args(["-static", "-o"])
        .arg(bundle.path("rootfs/call"))
        .arg(bundle.path("call.c")));
    let refuse = json!([{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]);
    let made = || fs::remove_dir(bundle.path("rootfs/tmp/new")).is_ok();
    assert_eq!(bundle.says("exec /call", |_| {}), "0\n");
    assert!(made());
    let said = bundle.says("exec /call", |config| filter(config, refuse.clone()));
    assert_eq!((said.as_str(), made()), ("-28\n", false));
    let ran = bundle.runs("exec /call", |config| {
        filter(config, json!([]));
        config["linux"]["seccomp"]["architectures"] = json!(["SCMP_ARCH_X86_64"]);
    });
    assert!(!made(), "the call was made: {ran}");
    assert_ne!(ran.printed(), "0\n");
}

/// The words for propagation.
const WORDS: [&str; 9] = [
    "",
    "private",
    "rprivate",
    "slave",
    "rslave",
    "shared",
    "rshared",
    "unbindable",
    "runbindable",
];

/// How the root, and a mount below it, hear of new mounts, and who hears of theirs: never the host.
#[test]
fn propagation_of_the_root() {
    mount_apart();
    let bundle = Bundle::new();
    let none = None::<&str>;
    let below = bundle.path("rootfs/below");
    fs::create_dir(&below).unwrap();
    mount(Some("tmpfs"), &below, Some("tmpfs"), MsFlags::empty(), none).unwrap();
    mount(none, &below, none, MsFlags::MS_SHARED, none).unwrap();
    let later = below.join("later");
    fs::create_dir(&later).unwrap();
    let this = Process(nix::unistd::gettid());
    let group = mount_at(this, below.to_str().unwrap()).tags[0].clone();
    for word in WORDS {
        let first = bundle.begin(|config| config["linux"]["rootfsPropagation"] = json!(word));
        let tags = mount_at(first, "/").tags;
        for (kind, wanted) in [
            ("shared:", word.ends_with("shared")),
            ("unbindable", word.ends_with("unbindable")),
        ] {
            let is = tags.iter().any(|tag| tag.starts_with(kind));
            assert_eq!(is, wanted, "{word}: {tags:?}");
        }
        if ["rprivate", "rslave", "rshared", ""].contains(&word) {
            let tags = mount_at(first, "/below").tags;
            assert!(
                !tags.contains(&group),
                "{word}: shared with the host: {tags:?}"
            );
            mount(Some("tmpfs"), &later, Some("tmpfs"), MsFlags::empty(), none).unwrap();
            let mounts = first.mounts().unwrap();
            let at = |mount: &Mount| mount.target == Path::new("/below/later");
            let hears = mounts.iter().any(at);
            umount(&later).unwrap();
            if ["rprivate", "rslave"].contains(&word) {
                assert_eq!(hears, word == "rslave", "{word}: a mount of the host's");
            }
        }
        bundle.ok(&["delete", "--force", &bundle.id]);
    }
    umount(&below).unwrap();
    bundle.refuses(
        |config| config["linux"]["rootfsPropagation"] = json!("everywhere"),
        &["linux.rootfsPropagation", "everywhere"],
    );
}

/// Whatever the root hears, the host keeps its mounts, also where all are shared, as systemd leaves them.
#[test]
fn the_host_keeps_its_mounts() {
    let bundle = Bundle::new();
    for word in WORDS {
        bundle.write(|config| {
            config["linux"]["rootfsPropagation"] = json!(word);
            config["process"]["args"] = json!(["true"]);
        });
        let (program, state) = (step(STEP).display().to_string(), bundle.text("state"));
        let words = [
            &program,
            "--root",
            &state,
            "run",
            "--bundle",
            &bundle.text(""),
            &bundle.id,
        ];
        on_host(Propagation::Shared, "\"$@\"", &words).success();
    }
    bundle.is_clean();
}

#[test]
fn masked_and_read_only_paths() {
    let bundle = Bundle::new();
    for name in [
        "secret",
        "folder/secret",
        "kept",
        "held/file",
        "held/below/file",
    ] {
        bundle.put(&format!("srv/{name}"), "canary");
    }
    symlink("/srv/secret", bundle.path("rootfs/srv/link")).unwrap();
    let first = bundle.begin(|config| {
        let tmpfs = json!({"destination": "/srv/held/below", "type": "tmpfs", "source": "tmpfs"});
        push(&mut config["mounts"], tmpfs);
        config["linux"]["maskedPaths"] = json!([
            "/srv/secret",
            "/srv/folder",
            "/srv/none",
            "/proc/interrupts"
        ]);
        config["linux"]["readonlyPaths"] =
            json!(["/srv/held", "/srv/kept", "/srv/none", "/proc/sys"]);
    });
    let read = |path: &str| fs::read_to_string(inside(first, path));
    assert_eq!(read("/srv/secret").unwrap(), "");
    assert_eq!(read("/proc/interrupts").unwrap(), "");
    let entries = |path: &str| fs::read_dir(inside(first, path)).unwrap().count();
    assert_eq!(entries("/srv/folder"), 0);
    let refused = |path: &str| {
        let error = fs::write(inside(first, path), "x").unwrap_err();
        error.raw_os_error()
    };
    for path in [
        "/srv/folder/new",
        "/srv/held/new",
        "/srv/held/file",
        "/srv/held/below/new",
        "/srv/kept",
    ] {
        assert_eq!(refused(path), Some(libc::EROFS), "{path}");
    }
    for path in [
        "/srv/held",
        "/srv/held/below",
        "/srv/kept",
        "/proc/sys",
        "/srv/folder",
    ] {
        assert!(has(&mount_at(first, path), "ro"), "{path}");
    }
    for path in ["/srv/kept", "/srv/held/file"] {
        assert_eq!(read(path).unwrap(), "canary");
    }
    fs::write(inside(first, "/srv/new"), "").unwrap();
    assert!(fs::symlink_metadata(inside(first, "/srv/none")).is_err());
    bundle.end();
    // It stays hidden by another way, and on the host nothing is hidden.
    assert_eq!(
        bundle.says("cat /srv/link", |config| config["linux"]["maskedPaths"] =
            json!(["/srv/secret"])),
        ""
    );
    assert_eq!(
        fs::read_to_string(bundle.path("rootfs/srv/secret")).unwrap(),
        "canary"
    );
}

/// Notes are told to whoever asks, and properties that nobody knows are passed over.
#[test]
fn annotations_and_unknown_properties() {
    let bundle = Bundle::new();
    bundle.write(|config| {
        config["annotations"] = json!({"org.example.key": "a value", "empty": ""});
        config["linux"]["noSuchProperty"] = json!(1);
        config["windows"] = json!({});
        config["mounts"][0]["noSuchProperty"] = json!([]);
    });
    let first = bundle.create(&bundle.id);
    let state: Value = serde_json::from_str(&bundle.ok(&["state", &bundle.id])).unwrap();
    assert_eq!(
        state["annotations"],
        json!({"org.example.key": "a value", "empty": ""})
    );
    assert_eq!(state["id"], json!(bundle.id));
    assert_eq!(state["pid"], json!(first.0.as_raw()));
    assert_eq!(
        state["bundle"],
        json!(fs::canonicalize(bundle.folder.path()).unwrap())
    );
    assert_eq!(state["ociVersion"], json!("1.2.0"));
    assert_eq!(state["status"], json!("created"));
    // A change after `create` doesn't count.
    bundle.write(|config| config["process"]["args"] = json!(["false"]));
    bundle.ok(&["start", &bundle.id]);
    assert_eq!(first.strings("cmdline").unwrap()[0], "sleep");
    bundle.end();
    // What isn't known is told to those who want to know.
    bundle.write(|config| config["linux"]["noSuchProperty"] = json!(1));
    let told = bundle.run(&["--debug", "create", &bundle.id]).success();
    told.complains("linux.noSuchProperty");
    bundle.end();
}

type Change = Box<dyn Fn(&mut Value)>;

/// Properties that are known and not honoured are refused: nobody believes in a limit that isn't there.
#[test]
fn what_this_runtime_does_not_do() {
    let bundle = Bundle::new();
    let bind = json!({"destination": "/x", "type": "none", "source": "/", "options": ["bind"],
        "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]});
    let idmap =
        json!({"destination": "/x", "type": "none", "source": "/", "options": ["bind", "idmap"]});
    let changes: [(&str, Change); 8] = [
        (
            "linux.intelRdt",
            Box::new(|config| config["linux"]["intelRdt"] = json!({})),
        ),
        (
            "linux.netDevices",
            Box::new(|config| config["linux"]["netDevices"] = json!({"eth0": {}})),
        ),
        (
            "linux.memoryPolicy",
            Box::new(|config| config["linux"]["memoryPolicy"] = json!({"mode": "MPOL_DEFAULT"})),
        ),
        (
            "process.scheduler",
            Box::new(|config| config["process"]["scheduler"] = json!({"policy": "SCHED_IDLE"})),
        ),
        (
            "process.ioPriority",
            Box::new(|config| {
                config["process"]["ioPriority"] =
                    json!({"class": "IOPRIO_CLASS_IDLE", "priority": 1})
            }),
        ),
        (
            "linux.personality.domain",
            Box::new(|config| config["linux"]["personality"] = json!({"domain": "MINIX"})),
        ),
        (
            "uidMappings",
            Box::new(move |config| push(&mut config["mounts"], bind.clone())),
        ),
        (
            "idmap",
            Box::new(move |config| push(&mut config["mounts"], idmap.clone())),
        ),
    ];
    for (field, change) in changes {
        bundle.refuses(|config| change(config), &[field]);
    }
}

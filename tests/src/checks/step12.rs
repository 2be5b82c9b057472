//! Chapter 12: the runtime that others run on.

use crate::checks::step09::Innocent;
use crate::course::Exercise;
use crate::course::workbench::Workbench;
use crate::host::container::{RunOutcome, before_rest, run_apart, run_with};
use crate::host::evidence::{Photograph, Process};
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, getpid, mkfifo};
use probe::Claim;
use serde_json::{Value, json};
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use step07_cgroups::cgroup::places::Groups;

/// The exercises of chapter 12.
pub const EXERCISES: &[Exercise] = &[
    Exercise {
        name: "namespaces",
        heart: "a path is somebody's word",
        check: namespaces,
        scenes: &[],
        mistakes: &[],
        read: "namespaces(7), setns(2), ioctl_nsfs(2)",
        show: "ls -l /proc/self/ns; cargo progress run 12 -- spec; grep -A20 namespaces config.json",
        hints: [
            "What can be at a path that isn't a namespace of that type, and who knows what it is? May the path mean something \
             else when you come back to it?",
            "Look the type up in KINDS, bail if it isn't there or `all` contains it. No path, or an empty one: into `new`. Else \
             open with O_RDONLY | O_NONBLOCK | O_CLOEXEC, kind_of(&file) == Some(flag), and push the file, or insert it at 0. \
             Each error begins with linux.namespaces[N] and .type or .path.",
        ],
    },
    Exercise {
        name: "wait_for_start",
        heart: "whoever reports changes the listener",
        check: wait_for_start,
        scenes: &[],
        mistakes: &[],
        read: "accept(2), dup(2), fcntl_locking(2)",
        show: "cargo progress run 12 -- --debug run -b BUNDLE box",
        hints: [
            "How does `create` learn that it may end, and how `start` that the command failed? What must be true already when \
             `create` has ended?",
            "tell(Progress::Waits)?; report_to the door's socket, which nobody hears, so that create's pipe ends; accept, again \
             at EINTR; report_to the connection.",
        ],
    },
    Exercise {
        name: "status",
        heart: "evidence, in the right order",
        check: status,
        scenes: &[],
        mistakes: &[],
        read: "proc_pid_stat(5), fcntl_locking(2), cgroups(7)",
        show: "cargo progress run 12 -- list",
        hints: [
            "What is left to be seen of a process that was killed, and nobody was told? What can happen between two looks, and \
             which of the two is right afterwards?",
            "No process: Creating. progress_of(progress)? first, then is_frozen(), false where it can't be known, and is_running() \
             last. Not running: Stopped; frozen: Paused; then MadeReady: Creating, Waits: Created, Gone: Running.",
        ],
    },
];

/// The program with a folder for what it writes down, and one for each bundle.
pub struct Runtime<'a> {
    bench: &'a Workbench,
    folder: PathBuf,
}

/// The exit code of a runtime that has failed by itself.
const FAILED: u8 = 1;

impl Runtime<'_> {
    /// One whose folder is called `name`.
    pub fn new<'a>(bench: &'a Workbench, name: &str) -> Result<Runtime<'a>> {
        let folder = bench.scratch.join(name);
        fs::create_dir_all(&folder)?;
        Ok(Runtime { bench, folder })
    }

    /// The words of a command.
    fn words(&self, arguments: &[&str]) -> Vec<String> {
        let root = self.folder.join("state").display().to_string();
        let words = ["--root", &root]
            .into_iter()
            .chain(arguments.iter().copied());
        words.map(String::from).collect()
    }

    /// A command, ready to run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.bench.program);
        command.args(self.words(arguments));
        command
    }

    /// The same below strace, which writes the calls `traced` to the file of that name, and does `inject` to them.
    fn below_strace(&self, arguments: &[&str], options: &[&str]) -> Command {
        let mut strace = Command::new("strace");
        strace.env("PATH", step01_uts::PATH);
        strace.args(["-D", "-f", "-qq", "-y", "-e", "signal=none", "-o"]);
        strace.arg(self.folder.join("calls")).args(options);
        strace.arg(&self.bench.program).args(self.words(arguments));
        strace
    }

    /// What strace has written.
    fn calls(&self) -> Result<String> {
        Ok(fs::read_to_string(self.folder.join("calls"))?)
    }

    /// An ID of a container that no other check has: control groups are the machine's, also on a pretend host.
    fn id(&self, name: &str) -> String {
        let check = self.bench.scratch.file_name().unwrap_or_default();
        format!("{}-{name}", check.to_string_lossy().trim_matches('.'))
    }

    /// A bundle for a container, with `config` as its configuration: the words that name it, and its ID.
    pub fn bundle(&self, name: &str, config: &Value) -> Result<Vec<String>> {
        let bundle = self.folder.join(name);
        fs::create_dir_all(&bundle)?;
        fs::write(bundle.join("config.json"), config.to_string())?;
        let of = |file: &str| {
            self.folder
                .join(format!("{name}{file}"))
                .display()
                .to_string()
        };
        let words = ["-b", &of(""), "--pid-file", &of(".pid"), &self.id(name)];
        Ok(words.map(String::from).to_vec())
    }

    /// Makes a container.
    fn create(&self, name: &str, config: &Value) -> Result<RunOutcome> {
        let bundle = self.bundle(name, config)?;
        let words: Vec<&str> = ["create"]
            .into_iter()
            .chain(bundle.iter().map(|word| &**word))
            .collect();
        run_apart(
            &mut self.command(&words),
            &self.folder.join(format!("{name}.out")),
        )
    }

    /// The same, below strace.
    fn create_below_strace(
        &self,
        name: &str,
        config: &Value,
        options: &[&str],
    ) -> Result<RunOutcome> {
        let bundle = self.bundle(name, config)?;
        let words: Vec<&str> = ["create"]
            .into_iter()
            .chain(bundle.iter().map(|word| &**word))
            .collect();
        let mut strace = self.below_strace(&words, options);
        let output = self.folder.join(format!("{name}.out"));
        run_apart(&mut strace, &output).context("strace\nhelp: install it: apt-get install strace")
    }

    /// Makes one that has to be there for the check to go on.
    fn must_create(&self, name: &str, config: &Value) -> Result<Process> {
        let outcome = self.create(name, config)?;
        match outcome.code {
            0 => self.process(name),
            _ => bail!("create: {}", outcome.in_words()),
        }
    }

    /// The container's process.
    fn process(&self, name: &str) -> Result<Process> {
        let pid =
            fs::read_to_string(self.folder.join(format!("{name}.pid"))).context("--pid-file")?;
        Ok(Process(Pid::from_raw(pid.trim().parse()?)))
    }

    /// Runs a command on a container, which ends by itself.
    fn run(&self, command: &str, name: &str) -> Result<RunOutcome> {
        run_with(&mut self.command(&[command, &self.id(name)]))
    }

    fn must(&self, command: &str, name: &str) -> Result<()> {
        let outcome = self.run(command, name)?;
        match outcome.code {
            0 => Ok(()),
            _ => bail!("{command}: {}", outcome.in_words()),
        }
    }

    /// What `state` says that a container does.
    fn status(&self, name: &str) -> Result<String> {
        Ok(status_in(&self.run("state", name)?))
    }

    /// Ends what is left of a container.
    fn delete(&self, name: &str) {
        let _ = run_with(&mut self.command(&["delete", "-f", &self.id(name)]));
    }
}

impl Drop for Runtime<'_> {
    /// Whatever a check has left behind.
    fn drop(&mut self) {
        let listed = run_with(&mut self.command(&["list", "-q"]));
        for id in listed
            .map(|listed| listed.output)
            .unwrap_or_default()
            .lines()
        {
            let _ = run_with(&mut self.command(&["delete", "-f", id]));
        }
    }
}

/// The status in what `state` has printed; how it ended, when it has printed none.
fn status_in(outcome: &RunOutcome) -> String {
    let state: Value = serde_json::from_str(&outcome.output).unwrap_or_default();
    state["status"]
        .as_str()
        .map_or_else(|| outcome.in_words(), String::from)
}

/// A configuration that runs `args` in `root`.
pub fn config(root: &Path, args: &[&str]) -> Value {
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "args": args, "cwd": "/", "env": [format!("PATH={}", step01_uts::PATH)], "user": {"uid": 0, "gid": 0},
        },
        "root": {"path": root, "readonly": true},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]},
    })
}

const SLEEP: &[&str] = &["sleep", "1000"];

/// Waits until there is no such process any more.
fn gone(process: Process) -> Result<()> {
    let gone = before_rest(process, || (!process.file("stat").exists()).then_some(()));
    gone.context("it doesn't end")
}

/// Somebody with namespaces that others can join.
struct Holder(Child);

impl Holder {
    fn new(namespaces: CloneFlags) -> Result<Holder> {
        let mut command = Command::new("sleep");
        command
            .arg("infinity")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        // SAFETY: unshare is async-signal-safe.
        unsafe { command.pre_exec(move || Ok(unshare(namespaces)?)) };
        let holder = Holder(command.spawn().context("sleep, in namespaces of its own")?);
        if namespaces.contains(CloneFlags::CLONE_NEWUSER) {
            for map in ["uid_map", "gid_map"] {
                fs::write(holder.process().file(map), "0 0 65536")
                    .with_context(|| map.to_owned())?;
            }
        }
        Ok(holder)
    }

    fn process(&self) -> Process {
        Process(Pid::from_raw(self.0.id() as i32))
    }

    /// The file of one of its namespaces, by its name in /proc.
    fn path(&self, name: &str) -> String {
        format!("/proc/{}/ns/{name}", self.0.id())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The namespaces by their names in config.json, and in /proc.
const NAMES: [(&str, &str); 7] = [
    ("mount", "mnt"),
    ("pid", "pid"),
    ("uts", "uts"),
    ("ipc", "ipc"),
    ("network", "net"),
    ("cgroup", "cgroup"),
    ("user", "user"),
];

/// Where each namespace of a container is, in one word: `new`, `the runtime's`, or `joined`.
fn origins(process: Process, holder: Option<&Holder>) -> Result<String> {
    let host = Process(getpid());
    let mut words = Vec::new();
    for (name, file) in NAMES {
        let own = process.namespace(file)?;
        let joined = match holder {
            Some(holder) => holder.process().namespace(file)?,
            None => String::new(),
        };
        words.push(match own {
            own if own == host.namespace(file)? => format!("{name}: the runtime's"),
            own if own == joined => format!("{name}: joined"),
            _ => format!("{name}: new"),
        });
    }
    Ok(words.join(", "))
}

/// 12.1: what config.json names is made or joined, and what can't be is refused by the name of its property.
pub fn namespaces(bench: &Workbench) -> Result<Vec<Claim>> {
    let runtime = Runtime::new(bench, "namespaces")?;
    let root = bench.root()?;
    let with = |namespaces: Value| {
        let mut config = config(&root, SLEEP);
        config["linux"]["namespaces"] = namespaces;
        config
    };
    let kinds =
        |kinds: &[&str]| -> Value { kinds.iter().map(|kind| json!({"type": kind})).collect() };
    let mut claims = Vec::new();
    for (name, named, wanted) in [
        (
            "two",
            &["pid", "mount"] as &[&str],
            "mount: new, pid: new, uts: the runtime's, ipc: the runtime's, network: the runtime's, cgroup: the runtime's, \
             user: the runtime's",
        ),
        (
            "six",
            &["network", "uts", "ipc", "cgroup", "pid", "mount"],
            "mount: new, pid: new, uts: new, ipc: new, network: new, cgroup: new, user: the runtime's",
        ),
    ] {
        let made = runtime.must_create(name, &with(kinds(named)));
        claims.push(
            whose(&format!("without a path: {}", named.join(", ")), wanted, made, None)
                .because(Some("a namespace that is named without a path is made, and what isn't named is the runtime's".into())),
        );
        runtime.delete(name);
        // Who can't do the simplest is told of that alone.
        if claims.iter().any(|claim| !claim.holds) {
            return Ok(claims);
        }
    }
    claims.extend(joined(&runtime, &with)?);
    claims.extend(refused(&runtime, &with)?);
    Ok(claims)
}

/// A claim about the namespaces of a container that was made, or wasn't.
fn whose(named: &str, wanted: &str, made: Result<Process>, holder: Option<&Holder>) -> Claim {
    let seen = made.and_then(|process| origins(process, holder));
    let (seen, holds) = match seen {
        Ok(seen) => (format!("/proc/PID/ns: {seen}"), seen == wanted),
        Err(error) => (format!("{error:#}"), false),
    };
    Claim::new(format!("{named}; /proc/PID/ns: {wanted}"), seen, holds)
}

type With<'a> = &'a dyn Fn(Value) -> Value;

fn joined(runtime: &Runtime, with: With) -> Result<Vec<Claim>> {
    let others = CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWNET;
    let holder = Holder::new(others)?;
    // As `ip netns` has them: the file's name says nothing of what it is.
    let file = runtime.folder.join("box");
    File::create(&file)?;
    let none = None::<&str>;
    mount(
        Some(&*holder.path("net")),
        &file,
        none,
        MsFlags::MS_BIND,
        none,
    )
    .context("a namespace at a file")?;
    let link = runtime.folder.join("link");
    symlink(holder.path("uts"), &link)?;
    let config = with(json!([
        {"type": "mount"}, {"type": "network", "path": file}, {"type": "uts", "path": link},
        {"type": "pid"}, {"type": "ipc", "path": holder.path("ipc")},
    ]));
    let options = ["-e", "trace=setns,open,openat,openat2"];
    let outcome = runtime.create_below_strace("joined", &config, &options);
    let made = outcome.and_then(|outcome| match outcome.code {
        0 => runtime.process("joined"),
        _ => bail!("create: {}", outcome.in_words()),
    });
    umount2(&file, MntFlags::MNT_DETACH)?;
    let wanted = "mount: new, pid: new, uts: joined, ipc: joined, network: joined, cgroup: the runtime's, user: the runtime's";
    let why = "a namespace that is named with a path is joined, wherever its file is and whatever it is called, and none is \
               made in its place";
    let mut claims = vec![
        whose(
            "mount and pid without a path, and a path for network, uts and ipc",
            wanted,
            made,
            Some(&holder),
        )
        .because(Some(why.into())),
    ];
    let link = format!("\"{}\"", link.display());
    let opened = runtime
        .calls()?
        .lines()
        .filter(|line| line.contains(&link))
        .count();
    claims.push(
        Claim::new(
            "the path is opened once",
            format!("strace: openat(\"…/link\"): {opened} times"),
            opened == 1,
        )
        .because(Some(
            "between two looks at a path it may come to mean something else: the descriptor that was looked at is the one that \
             is joined"
                .into(),
        )),
    );
    runtime.delete("joined");

    let holder = Holder::new(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWUTS)?;
    let config = with(json!([
        {"type": "uts", "path": holder.path("uts")}, {"type": "mount"}, {"type": "pid"},
        {"type": "user", "path": holder.path("user")},
    ]));
    let outcome = runtime.create_below_strace("user", &config, &["-e", "trace=setns"]);
    let made = outcome.and_then(|outcome| match outcome.code {
        0 => runtime.process("user"),
        _ => bail!("create: {}", outcome.in_words()),
    });
    let wanted = "mount: new, pid: new, uts: joined, ipc: the runtime's, network: the runtime's, cgroup: the runtime's, \
                  user: joined";
    claims.push(
        whose(
            "a path for uts, and behind it one for user",
            wanted,
            made,
            Some(&holder),
        )
        .because(Some(why.into())),
    );
    let calls = runtime.calls()?;
    let joins: Vec<&str> = calls
        .lines()
        .filter_map(|line| {
            let (_, behind) = line.split_once("setns(")?;
            let (_, name) = behind.split_once('<')?;
            name.split([':', '>']).next()
        })
        .collect();
    claims.push(
        Claim::new(
            "the user namespace is joined before the other",
            format!("strace: setns of {}", joins.join(", ")),
            joins == ["user", "uts"],
        )
        .because(Some(
            "whoever has no right to the others may get it with the user namespace, so that one comes first, wherever it is \
             named"
                .into(),
        )),
    );
    runtime.delete("user");
    Ok(claims)
}

fn refused(runtime: &Runtime, with: With) -> Result<Vec<Claim>> {
    let folder = &runtime.folder;
    let fifo = folder.join("fifo");
    mkfifo(&fifo, Mode::S_IRWXU)?;
    // What people call such a file, without one being there.
    let file = folder.join("uts");
    fs::write(&file, "uts:[4026531838]")?;
    let own = |name: &str| format!("/proc/self/ns/{name}");
    let (made, asked) = (
        "there is no such type",
        "whether there is a namespace of that type is asked of the kernel, of the file that was opened",
    );
    let mut claims = Vec::new();
    for (what, third, field, why) in [
        ("the type netwerk", json!({"type": "netwerk"}), "type", made),
        (
            "the type mnt, which is the name in /proc",
            json!({"type": "mnt"}),
            "type",
            made,
        ),
        (
            "a type in capital letters",
            json!({"type": "UTS"}),
            "type",
            made,
        ),
        (
            "a type that is named twice",
            json!({"type": "pid"}),
            "type",
            "one container has one namespace of each type",
        ),
        (
            "a type that is named a second time, with a path",
            json!({"type": "pid", "path": own("pid")}),
            "type",
            "one container has one namespace of each type",
        ),
        (
            "a path at which there is nothing",
            json!({"type": "uts", "path": folder.join("nothing")}),
            "path",
            asked,
        ),
        (
            "a file that is only called uts",
            json!({"type": "uts", "path": file}),
            "path",
            asked,
        ),
        (
            "a namespace of another type",
            json!({"type": "uts", "path": own("ipc")}),
            "path",
            asked,
        ),
        (
            "a directory",
            json!({"type": "uts", "path": folder}),
            "path",
            asked,
        ),
        (
            "a device",
            json!({"type": "uts", "path": "/dev/null"}),
            "path",
            asked,
        ),
        (
            "a FIFO that nobody writes to",
            json!({"type": "uts", "path": fifo}),
            "path",
            "to open what isn't a namespace may wait for somebody who never comes: O_NONBLOCK in fifo(7)",
        ),
    ] {
        let config = with(json!([{"type": "mount"}, {"type": "pid"}, third]));
        let property = format!("linux.namespaces[2].{field}");
        let outcome = runtime.create("refused", &config);
        let (seen, holds) = match outcome {
            Ok(outcome) => {
                let names = outcome.errors.contains(&property);
                let left = fs::read_dir(folder.join("state")).map_or(0, Iterator::count);
                let seen = match (outcome.code, names) {
                    (0, _) => "create ended with exit code 0".to_owned(),
                    (code, true) => format!("create ended with exit code {code}, and named it"),
                    (code, false) => {
                        format!("create ended with exit code {code}, and didn't name it")
                    }
                };
                let seen = match left {
                    0 => seen,
                    _ => seen + "; the container is there",
                };
                (seen, outcome.code == FAILED && names && left == 0)
            }
            Err(hang) => (format!("{hang:#}"), false),
        };
        claims.push(
            Claim::new(
                format!("{what} is refused: create ends with exit code {FAILED}, names {property}, and leaves nothing"),
                seen,
                holds,
            )
            .because(Some(why.into())),
        );
        runtime.delete("refused");
    }
    Ok(claims)
}

/// Whether a process is its command now, `args`.
fn is_command(process: Process, args: &[&str]) -> bool {
    process.strings("cmdline").is_ok_and(|words| words == args)
}

/// 12.2: create ends when the process is at the door, and start hears what becomes of the command.
pub fn wait_for_start(bench: &Workbench) -> Result<Vec<Claim>> {
    let runtime = Runtime::new(bench, "wait")?;
    let root = bench.root()?;
    let sleep = config(&root, SLEEP);
    let before = Photograph::take()?;
    let mut claims = Vec::new();

    let why = "create reads its pipe until the end, and there is no end as long as the process at the door can report by it: it \
               has to report to somebody else from then on";
    let ended = runtime.create("box", &sleep);
    let (seen, is_there) = match &ended {
        Ok(outcome) => (outcome.in_words(), outcome.code == 0),
        Err(hang) => (format!("{hang:#}"), false),
    };
    claims.push(
        Claim::new(
            "create ends, with exit code 0, while the command waits",
            seen,
            is_there,
        )
        .because(Some(why.into())),
    );
    if !is_there {
        return Ok(claims);
    }
    let process = runtime.process("box")?;
    claims.push(company(&before, process, "behind create")?);
    claims.push(at_the_door(&runtime, "box", process)?);
    let started = runtime.run("start", "box")?;
    let is_it = becomes_command(process);
    claims.push(
        Claim::new(
            "start ends, with exit code 0, and the process becomes its command",
            format!(
                "start: {}; /proc/PID/cmdline is {}",
                started.in_words(),
                command_or_not(is_it)
            ),
            started.code == 0 && is_it,
        )
        .because(Some(
            "start finds the process at the door, and lets it on".into(),
        )),
    );
    // Who can't do the simplest is told of that alone.
    if claims.iter().any(|claim| !claim.holds) {
        return Ok(claims);
    }
    claims.push(company(&before, process, "behind start")?);
    let mut descriptors: Vec<i32> = fs::read_dir(process.file("fd"))?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    descriptors.sort_unstable();
    claims.push(Claim::equal(
        "the command has nothing of ours",
        "/proc/PID/fd",
        &descriptors,
        &vec![0, 1, 2],
    ));
    runtime.delete("box");

    let claim = stopped(&runtime, &sleep)?;
    let in_time = claim.holds;
    claims.push(claim);
    // A process that tells too late of itself may be found unready by any start.
    if !in_time {
        return Ok(claims);
    }
    claims.extend(failures(&runtime)?);
    claims.push(interrupted(&runtime, &sleep)?);
    Ok(claims)
}

/// Whether a process becomes `sleep 1000`.
fn becomes_command(process: Process) -> bool {
    before_rest(process, || is_command(process, SLEEP).then_some(())).is_some()
}

fn command_or_not(is_command: bool) -> &'static str {
    if is_command {
        "the command's"
    } else {
        "not the command's"
    }
}

/// A claim that there is the container's process, and nobody else who wasn't there `before`.
fn company(before: &Photograph, process: Process, when: &str) -> Result<Claim> {
    let others = || -> Result<Vec<Process>> {
        let now = Photograph::take()?.new_processes(before);
        Ok(now.into_iter().filter(|other| *other != process).collect())
    };
    // Whoever is about to end may still be seen.
    before_rest(Process(getpid()), || {
        others().ok()?.is_empty().then_some(())
    });
    let others = others()?;
    let names: Vec<String> = others
        .iter()
        .filter_map(|other| other.status("Name").ok())
        .collect();
    Ok(Claim::new(
        format!("{when} the container's process is alone: no process of ours keeps it company"),
        match &*names {
            [] => "/proc: the container's process, and no other new one".to_owned(),
            names => format!("/proc: also {}", names.join(", ")),
        },
        names.is_empty(),
    ))
}

/// A claim that the container waits, by its process and by what `state` says of it when that has come to rest: whether it
/// says so in time is judged where it is stopped.
fn at_the_door(runtime: &Runtime, name: &str, process: Process) -> Result<Claim> {
    before_rest(process, || {
        (runtime.status(name).ok()? == "created").then_some(())
    });
    let (status, is_it) = (runtime.status(name)?, is_command(process, SLEEP));
    Ok(Claim::new(
        "when create has ended, the process is at the door: state says created, and it isn't its command",
        format!("state says {status}; /proc/PID/cmdline is {}", command_or_not(is_it)),
        status == "created" && !is_it,
    )
    .because(Some(
        "whoever has seen create end may say start at once: by then the process must have told that it waits, by its lock \
         F_WRLCK"
            .into(),
    )))
}

/// What goes wrong behind the door is heard by start.
fn failures(runtime: &Runtime) -> Result<Vec<Claim>> {
    let root = runtime.folder.join("root");
    let copied = Command::new("cp")
        .arg("-a")
        .arg(runtime.bench.root()?)
        .arg(&root)
        .status()?;
    if !copied.success() {
        bail!("a copy of the root: {copied}");
    }
    // The kernel takes it for a program, and then doesn't.
    let bad = root.join("bad");
    fs::write(&bad, "\x7fELF, and nothing behind it\n")?;
    fs::set_permissions(&bad, Permissions::from_mode(0o755))?;
    let mut hooked = config(&root, SLEEP);
    hooked["hooks"] =
        json!({"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "exit 3"]}]});
    let mut claims = vec![waits_for_the_command(runtime, &root)?];
    for (name, what, config, words) in [
        (
            "bad",
            "a command that the kernel can't execute",
            config(&root, &["/bad"]),
            "exec format error",
        ),
        (
            "hooked",
            "a hook startContainer that fails",
            hooked,
            "hooks.startContainer[0]",
        ),
    ] {
        let created = runtime.create(name, &config)?;
        let process = runtime.process(name)?;
        let started = runtime.run("start", name)?;
        let ended =
            before_rest(process, || (!process.file("stat").exists()).then_some(())).is_some();
        let status = runtime.status(name)?;
        let says = started.errors.contains(words);
        claims.push(
            Claim::new(
                format!("{what}: create ends with exit code 0, start with {FAILED}, and says {words:?}; the process is gone"),
                format!(
                    "create: exit code {}; start: exit code {}, which {}; the process {}; state says {status}",
                    created.code,
                    started.code,
                    if says { "says that" } else { "doesn't say that" },
                    if ended { "is gone" } else { "is there" },
                ),
                created.code == 0 && started.code == FAILED && says && ended && status == "stopped",
            )
            .because(Some(
                "from the moment that start is there the process reports to its connection, and what it reported to before \
                 hears nothing any more"
                    .into(),
            )),
        );
        runtime.delete(name);
    }
    Ok(claims)
}

/// A claim that `start` ends when the process is its command, and not before: a hook is in between, and waits for us.
fn waits_for_the_command(runtime: &Runtime, root: &Path) -> Result<Claim> {
    let fifo = root.join("go");
    mkfifo(&fifo, Mode::S_IRWXU)?;
    let mut config = config(root, SLEEP);
    config["hooks"] =
        json!({"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "read line </go"]}]});
    let process = runtime.must_create("late", &config)?;
    let mut start = runtime.command(&["start", &runtime.id("late")]);
    let start = start
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut start = start.spawn()?;
    let program = Process(Pid::from_raw(start.id() as i32));
    let early = before_rest(program, || start.try_wait().ok().flatten());
    // The hook may be on its way to the FIFO still.
    let go = || {
        File::options()
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&fifo)
            .ok()
    };
    if let Some(mut go) = before_rest(process, go) {
        go.write_all(b"\n")?;
    }
    let ended = match early {
        Some(status) => Some(status),
        None => before_rest(program, || start.try_wait().ok().flatten()),
    };
    let is_it = is_command(process, SLEEP);
    if ended.is_none() {
        start.kill()?;
        start.wait()?;
    }
    let well = ended.is_some_and(|status| status.success());
    let claim = Claim::new(
        "start ends when the process has become its command, and not while a hook startContainer runs before that",
        match (early, ended) {
            (Some(_), _) => "start has ended while the hook runs".to_owned(),
            (None, None) => "start doesn't end when the hook has".to_owned(),
            (None, Some(_)) => format!(
                "start ended {}, when the hook had; /proc/PID/cmdline is {}",
                if well { "well" } else { "badly" },
                command_or_not(is_it)
            ),
        },
        early.is_none() && well && is_it,
    )
    .because(Some(
        "start reads the end of its connection when the process has become its command: until then the process has to keep it \
         open, for its reports"
            .into(),
    ));
    runtime.delete("late");
    Ok(claim)
}

/// A claim that the container waits, of a process that is stopped at the worst moment.
fn stopped(runtime: &Runtime, config: &Value) -> Result<Claim> {
    // Stopped as soon as create can end, and before its next instruction.
    let options = [
        "-e",
        "trace=dup2,dup3",
        "-e",
        "inject=dup2,dup3:signal=SIGSTOP:when=1",
    ];
    let created = runtime.create_below_strace("slow", config, &options);
    created.context("create, with the process stopped")?;
    let claim = at_the_door(runtime, "slow", runtime.process("slow")?)?;
    runtime.delete("slow");
    let expected = format!(
        "{}, also if it is stopped as soon as it reports to somebody else",
        claim.expected
    );
    Ok(Claim { expected, ..claim })
}

/// A claim that the container still waits when its call is interrupted once.
fn interrupted(runtime: &Runtime, config: &Value) -> Result<Claim> {
    let options = [
        "-e",
        "trace=accept,accept4",
        "-e",
        "inject=accept,accept4:error=EINTR:when=1",
    ];
    runtime.create_below_strace("interrupted", config, &options)?;
    let process = runtime.process("interrupted")?;
    let started = runtime.run("start", "interrupted")?;
    let is_it = started.code == 0 && becomes_command(process);
    runtime.delete("interrupted");
    Ok(Claim::new(
        "a process whose accept is interrupted once (EINTR) waits on: start ends with exit code 0, and the command runs",
        format!("start: {}; /proc/PID/cmdline is {}", started.in_words(), command_or_not(is_it)),
        started.code == 0 && is_it,
    )
    .because(Some("EINTR says that a signal came, and nothing of who is at the door: call again".into())))
}

/// 12.3: what state says is what the kernel says, whoever has been killed.
pub fn status(bench: &Workbench) -> Result<Vec<Claim>> {
    let runtime = Runtime::new(bench, "status")?;
    let root = bench.root()?;
    let sleep = config(&root, SLEEP);
    let mut claims = Vec::new();
    claims.extend(life(&runtime, &root)?);
    // Who can't do the simplest is told of that alone.
    if claims.iter().any(|claim| !claim.holds) {
        return Ok(claims);
    }
    claims.extend(ends(&runtime, &sleep)?);
    claims.extend(numbers(&runtime, &sleep)?);
    claims.extend(observers(&runtime, &sleep)?);
    Ok(claims)
}

/// A claim that `state` says `wanted` of a container of which something is true.
fn says(runtime: &Runtime, name: &str, what: &str, wanted: &str, why: &str) -> Result<Claim> {
    let said = runtime.status(name)?;
    Ok(Claim::new(
        format!("{what}: {wanted}"),
        format!("state says {said}"),
        said == wanted,
    )
    .because(Some(why.into())))
}

const LOCK: &str = "the lock tells how far the process is: F_RDLCK while it is made ready, F_WRLCK at the door, none behind it";
const FROZEN: &str =
    "whose control groups are frozen is paused, whoever has frozen them, and however far it is";

/// The life of a container that nobody disturbs.
fn life(runtime: &Runtime, root: &Path) -> Result<Vec<Claim>> {
    let mut config = config(root, SLEEP);
    let noted = runtime.folder.join("noted");
    let words = runtime.words(&["state", &runtime.id("box")]);
    let mut args = vec![
        "sh".to_owned(),
        "-c".into(),
        format!("\"$@\" >{}", noted.display()),
        "sh".into(),
    ];
    args.push(runtime.bench.program.display().to_string());
    args.extend(words);
    let path = [format!("PATH={}", step01_uts::PATH)];
    config["hooks"] = json!({"createRuntime": [{"path": "/bin/sh", "args": args, "env": path}]});
    let process = runtime.must_create("box", &config)?;
    let noted = RunOutcome {
        code: 0,
        output: fs::read_to_string(noted)?,
        errors: String::new(),
    };
    let noted = status_in(&noted);
    let mut claims = vec![
        Claim::new(
            "a hook looks while the process is made ready: creating",
            format!("state says {noted}"),
            noted == "creating",
        )
        .because(Some(LOCK.into())),
    ];
    let groups = Groups::at(Path::new(&runtime.id("box")))?;
    claims.push(says(
        runtime,
        "box",
        "create has ended: created",
        "created",
        LOCK,
    )?);
    groups.freeze(true)?;
    claims.push(says(
        runtime,
        "box",
        "frozen while it waits",
        "paused",
        FROZEN,
    )?);
    groups.freeze(false)?;
    claims.push(says(
        runtime,
        "box",
        "not frozen any more",
        "created",
        LOCK,
    )?);
    runtime.must("start", "box")?;
    claims.push(says(runtime, "box", "start has ended", "running", LOCK)?);
    groups.freeze(true)?;
    claims.push(says(
        runtime,
        "box",
        "frozen while it runs",
        "paused",
        FROZEN,
    )?);
    groups.freeze(false)?;
    claims.push(says(
        runtime,
        "box",
        "not frozen any more",
        "running",
        LOCK,
    )?);
    kill(process.0, Signal::SIGKILL)?;
    gone(process)?;
    let dead =
        "a process that isn't there any more has ended, and nobody need have written that down";
    claims.push(says(runtime, "box", "killed by kill -9", "stopped", dead)?);
    runtime.delete("box");
    // As a create leaves it that was killed before there was a process.
    let half = runtime.folder.join("state").join(runtime.id("half"));
    fs::create_dir(&half)?;
    fs::write(half.join("config.json"), config.to_string())?;
    claims.push(says(
        runtime,
        "half",
        "there is no process yet",
        "creating",
        "no process: that is what `process` says",
    )?);
    Ok(claims)
}

/// Ends that leave something behind.
fn ends(runtime: &Runtime, config: &Value) -> Result<Vec<Claim>> {
    let mut claims = Vec::new();
    // Killed at the door, and the group frozen: in version 1 and in version 2 an empty group can be.
    let process = runtime.must_create("door", config)?;
    kill(process.0, Signal::SIGKILL)?;
    gone(process)?;
    let why = "a process that has ended does nothing else, whatever its lock and its groups say";
    claims.push(says(
        runtime,
        "door",
        "killed while it waits",
        "stopped",
        why,
    )?);
    let groups = Groups::at(Path::new(&runtime.id("door")))?;
    groups.freeze(true)?;
    claims.push(says(
        runtime,
        "door",
        "killed, and its empty groups frozen",
        "stopped",
        why,
    )?);
    groups.freeze(false)?;
    groups.remove()?;
    let none = "groups that aren't there say nothing: then the process and its lock decide";
    claims.push(says(
        runtime,
        "door",
        "killed, and its groups removed",
        "stopped",
        none,
    )?);
    runtime.delete("door");

    // An engine that is slow to reap.
    set_child_subreaper(true)?;
    let made = runtime.must_create("zombie", config);
    set_child_subreaper(false)?;
    let process = made?;
    runtime.must("start", "zombie")?;
    kill(process.0, Signal::SIGKILL)?;
    let is_zombie = || process.status("State").ok()?.starts_with('Z').then_some(());
    before_rest(process, is_zombie).context("it doesn't become a zombie")?;
    let why = "a zombie has ended: it is only the note of that, for a parent who hasn't read it";
    claims.push(says(
        runtime,
        "zombie",
        "a zombie, by /proc/PID/status",
        "stopped",
        why,
    )?);
    while waitpid(process.0, None) == Err(Errno::EINTR) {}
    runtime.delete("zombie");
    Ok(claims)
}

/// The number of a process that has ended, in other hands.
fn numbers(runtime: &Runtime, config: &Value) -> Result<Vec<Claim>> {
    let process = runtime.must_create("number", config)?;
    runtime.must("start", "number")?;
    kill(process.0, Signal::SIGKILL)?;
    gone(process)?;
    let mut innocent = Innocent::with(process.0.as_raw())?;
    let why = "a number isn't a process: its start time and the machine's boot id make it one";
    let mut claims = vec![says(
        runtime,
        "number",
        "ended, and another process has its number",
        "stopped",
        why,
    )?];
    runtime.delete("number");
    claims.push(Claim::equal(
        "that other process lives",
        "waitpid: is it there",
        &innocent.lives(),
        &true,
    ));
    drop(innocent);

    runtime.must_create("boot", config)?;
    let state = runtime
        .folder
        .join("state")
        .join(runtime.id("boot"))
        .join("state.json");
    let text = fs::read_to_string(&state)?;
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    fs::write(
        &state,
        text.replace(boot.trim(), "00000000-0000-4000-8000-000000000000"),
    )?;
    claims.push(says(
        runtime,
        "boot",
        "of another boot of the machine",
        "stopped",
        why,
    )?);
    fs::write(&state, text)?;
    runtime.delete("boot");
    Ok(claims)
}

/// Whoever looks, and when.
fn observers(runtime: &Runtime, config: &Value) -> Result<Vec<Claim>> {
    let process = runtime.must_create("seen", config)?;
    let lock = runtime
        .folder
        .join("state")
        .join(runtime.id("seen"))
        .join("waits");
    let id = runtime.id("seen");
    let looked =
        run_with(&mut runtime.below_strace(&["state", &id], &["-e", "trace=fcntl,flock"]))?;
    let calls = runtime.calls()?;
    let of_lock = calls.lines().filter(|line| line.contains("/waits>"));
    let takes: Vec<&str> = of_lock
        .filter(|line| ["flock(", "SETLK"].iter().any(|call| line.contains(call)))
        .collect();
    let mut claims = vec![
        Claim::new(
            "whoever looks takes no lock, so that two who look at once don't see each other: created",
            match takes.len() {
                0 => format!("strace: the lock is only asked about; state says {}", status_in(&looked)),
                count => format!("strace: {count} calls that take or let go of the lock; state says {}", status_in(&looked)),
            },
            takes.is_empty() && status_in(&looked) == "created",
        )
        .because(Some(
            "who takes the lock to see whether it is free has it for a moment, and another one who looks then sees a process \
             that isn't there: F_OFD_GETLK asks, and takes nothing"
                .into(),
        )),
    ];

    // Stopped when it begins to ask about the lock; then the process ends, and with it its lock.
    let lock = lock.display().to_string();
    let inject = "inject=open,openat,openat2:signal=SIGSTOP:when=1";
    let options = [
        "-P",
        &lock,
        "-e",
        "trace=open,openat,openat2",
        "-e",
        inject,
        "-e",
        "signal=all",
    ];
    let output = runtime.folder.join("observer.out");
    let mut observer = runtime.below_strace(&["state", &id], &options);
    let observer = observer.stdin(Stdio::null()).stdout(File::create(&output)?);
    let mut observer = observer.stderr(Stdio::null()).spawn()?;
    let looks = Process(Pid::from_raw(observer.id() as i32));
    // Below strace a process stands still at every call: only strace knows by which signal.
    let is_stopped = || {
        runtime
            .calls()
            .ok()?
            .contains("stopped by SIGSTOP")
            .then_some(())
    };
    let looked = before_rest(looks, is_stopped).context("state doesn't look at the lock");
    let ended = looked.and_then(|()| {
        kill(process.0, Signal::SIGKILL)?;
        gone(process)?;
        kill(looks.0, Signal::SIGCONT)?;
        before_rest(looks, || observer.try_wait().ok().flatten()).context("state doesn't end")
    });
    if ended.is_err() {
        let _ = observer.kill();
        observer.wait()?;
    }
    ended?;
    let said = status_in(&RunOutcome {
        code: 0,
        output: fs::read_to_string(output)?,
        errors: String::new(),
    });
    claims.push(
        Claim::new(
            "a process that ends while somebody looks, before it was let on: stopped",
            format!("state says {said}"),
            said == "stopped",
        )
        .because(Some(
            "a process that is seen first may end before the lock is looked at, which is free then, as if the command ran: what \
             can end is looked at last"
                .into(),
        )),
    );
    runtime.delete("seen");
    Ok(claims)
}

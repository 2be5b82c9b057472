//! Clients of the runtime, as others made them: Docker, containerd, Podman and Buildah, each with a folder, a network
//! and control groups of its own.

use crate::stage::dock::ended;
use crate::stage::{Printed, folder, have, mount_apart, nested, run, script, step};
use assert_cmd::assert::Assert;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use progress::checks::step05::AtTerminal;
use progress::host::container::{eventually, in_a_while};
use progress::host::evidence::{Mount, Process};
use progress::host::exit_code;
use progress::host::registry::{archive, configuration, digest};
use pty_process::blocking::Command as PtyCommand;
use serde_json::json;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use tar::EntryType;
use tempfile::TempDir;

/// The runtime that all of them call.
pub fn runtime() -> &'static Path {
    step("step12-oci")
}

/// What containers of the image are called by.
pub const IMAGE: &str = "localhost/box:test";

/// A root of busybox alone, with a program in it that lacks its loader and a file that isn't one; and beside it the
/// archive of it.
fn packed(folder: &Path) -> PathBuf {
    let root = folder.join("root");
    run(script("busybox.sh").arg(&root));
    run(Command::new("cp")
        .args(["-L", "/bin/true"])
        .arg(root.join("usr/bin/dynamic")));
    fs::write(root.join("etc/plain"), "echo never\n").unwrap();
    let archive = folder.join("root.tar");
    run(Command::new("tar")
        .arg("-C")
        .arg(&root)
        .arg("-cf")
        .arg(&archive)
        .arg("."));
    archive
}

/// The tools that every client needs besides itself.
fn ready(tools: &[(&str, &str)]) -> bool {
    let all = [tools, &[("busybox", "busybox-static")]].concat();
    !nested() && all.iter().all(|(tool, package)| have(tool, package))
}

/// Gives this thread, and whatever it starts, a network and mounts of its own, where what clients write past the
/// folders that they are told comes to nothing: below /etc, /run and /var. See unshare(2) and mount(2).
fn apart(folder: &Path) {
    mount_apart();
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let none = MsFlags::empty();
    for place in ["/run", "/dev/shm"] {
        mount(Some("tmpfs"), place, Some("tmpfs"), none, None::<&str>).unwrap();
    }
    for place in ["/etc", "/var/cache", "/var/lib", "/var/log"] {
        let [upper, work] = ["upper", "work"].map(|kind| {
            let place = format!("{}/past/{kind}{place}", folder.display());
            fs::create_dir_all(&place).unwrap();
            place
        });
        let layers = format!("lowerdir={place},upperdir={upper},workdir={work}");
        mount(
            Some("overlay"),
            place,
            Some("overlay"),
            none,
            Some(layers.as_str()),
        )
        .unwrap();
    }
    // Whose namespaces begin where: see subuid(5).
    fs::write("/etc/subuid", "nobody:100000:65536\n").unwrap();
    fs::write("/etc/subgid", "nobody:100000:65536\n").unwrap();
    // Docker warns where packets don't go from one interface to another.
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
}

/// The control groups that hold all containers of a client, one in each hierarchy.
pub struct Groups(String);

impl Groups {
    pub fn new() -> Groups {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Groups(format!("ten-steps-{}-{number}", std::process::id()))
    }

    /// What a client's `--cgroup-parent` says.
    pub fn parent(&self) -> String {
        format!("/{}", self.0)
    }

    /// Those that are there.
    fn folders(&self) -> Vec<PathBuf> {
        let tops = fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten();
        tops.map(|entry| entry.path())
            .chain(["/sys/fs/cgroup".into()])
            .map(|top| top.join(&self.0))
            .filter(|folder| folder.is_dir())
            .collect()
    }

    /// Removes those that hold no process, and returns whether that was all.
    pub fn remove(&self) -> bool {
        fn remove(folder: &Path) {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    remove(&entry.path());
                }
            }
            let _ = fs::remove_dir(folder);
        }
        self.folders().iter().for_each(|folder| remove(folder));
        self.folders().is_empty()
    }

    /// The groups of containers: what a runtime makes and has to remove.
    fn containers(&self) -> Vec<PathBuf> {
        let folders = self.folders().into_iter();
        let entries = folders.flat_map(|folder| fs::read_dir(folder).into_iter().flatten());
        entries
            .flatten()
            .map(|entry| entry.path())
            // Podman keeps its own monitors there.
            .filter(|path| path.is_dir() && !path.ends_with("conmon"))
            .collect()
    }
}

/// What a client has: its folder and its groups. They go away with it, and so does every process that has to do with
/// them.
struct Place {
    folder: TempDir,
    groups: Groups,
}

impl Place {
    fn new() -> Place {
        // If need be it is built, which is better done where there is a network.
        runtime();
        Place {
            folder: folder(),
            groups: Groups::new(),
        }
    }

    fn at(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// The processes that name the folder: shims, monitors and helpers.
    fn processes(&self) -> Vec<Process> {
        let folder = self.folder.path().display().to_string();
        let names_it = |process: &Process| {
            let words = process.strings("cmdline").unwrap_or_default();
            words.iter().any(|word| word.contains(&folder))
        };
        Process::all().into_iter().filter(names_it).collect()
    }

    /// What is left when the client has removed all containers, and has ended.
    fn left(&self) -> String {
        let processes = || {
            let all = self.processes().into_iter();
            all.map(|process| process.strings("cmdline").unwrap_or_default().join(" "))
        };
        let none = || self.groups.containers().is_empty() && processes().next().is_none();
        if eventually(|| none().then_some(())).is_some() {
            return String::new();
        }
        format!(
            "{:?} {:?}",
            self.groups.containers(),
            processes().collect::<Vec<_>>()
        )
    }

    /// After a failure.
    fn end_all(&self) {
        for process in self.processes() {
            let _ = kill(process.0, Signal::SIGKILL);
        }
        for group in self.groups.containers() {
            let _ = fs::write(group.join("freezer.state"), "THAWED");
            let _ = fs::write(group.join("cgroup.freeze"), "0");
            let pids = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            for pid in pids.lines().filter_map(|pid| pid.parse().ok()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }

    /// Judges what is left, also of what the runtime kept in the folder `state`, and removes it.
    fn leave(&self, state: &str) {
        let kept = fs::read_dir(state).into_iter().flatten().flatten();
        let kept: Vec<PathBuf> = kept.map(|entry| entry.path()).collect();
        // This thread may be where the client mounted something.
        for mount in Mount::table(Path::new("/proc/thread-self/mountinfo")).unwrap() {
            if mount.target.starts_with(self.folder.path()) {
                let _ = umount2(&mount.target, MntFlags::MNT_DETACH);
            }
        }
        let left = self.left();
        if !left.is_empty() {
            self.end_all();
        }
        let removed = eventually(|| self.groups.remove().then_some(()));
        if !thread::panicking() {
            assert_eq!(left, "", "it is left behind");
            assert!(kept.is_empty(), "the runtime still has {kept:?}");
            assert!(removed.is_some(), "{:?}", self.groups.folders());
        }
    }
}

/// Ends a process that was told to end, by itself or not.
fn end(process: &mut Child) {
    if eventually(|| process.try_wait().unwrap()).is_none() {
        let _ = process.kill();
        let _ = process.wait();
    }
}

/// Runs a command for what becomes of it, without a word.
fn quietly(command: &mut Command) -> String {
    let mut output = tempfile::tempfile().unwrap();
    command
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(Stdio::null());
    if let Ok(mut process) = command.spawn() {
        end(&mut process);
    }
    let mut text = String::new();
    let _ = std::io::Seek::rewind(&mut output);
    let _ = output.read_to_string(&mut text);
    text
}

/// A daemon that a client talks to.
struct Daemon(Child);

impl Daemon {
    /// Starts it, and waits until it answers.
    fn start(command: &mut Command, log: &str, answers: &mut Command) -> Daemon {
        let log_file = File::options().create(true).append(true).open(log).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(log_file.try_clone().unwrap())
            .stderr(log_file);
        let mut daemon = Daemon(command.spawn().unwrap());
        let answer = in_a_while(|| {
            let ended = daemon.0.try_wait().unwrap();
            answers.stdout(Stdio::null()).stderr(Stdio::null());
            let answered = answers.status().unwrap().success();
            (answered || ended.is_some()).then_some(answered)
        });
        let said = || fs::read_to_string(log).unwrap();
        assert!(answer == Some(true), "it doesn't answer: {}", said());
        daemon
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        end(&mut self.0);
    }
}

/// Somebody at a terminal, in which a client runs.
pub struct Terminal(AtTerminal);

impl Terminal {
    pub fn start(command: &Command) -> Terminal {
        let variables = command
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?)));
        let command = PtyCommand::new(command.get_program())
            .args(command.get_args())
            .envs(variables);
        Terminal(AtTerminal::start(command, "").unwrap())
    }

    pub fn types(&mut self, text: &str) {
        self.0.write(text).unwrap();
    }

    pub fn resize(&self, rows: u16, columns: u16) {
        let size = pty_process::Size::new(rows, columns);
        self.0.pty.resize(size).unwrap();
    }

    /// Reads until `text` has come. Who works is a daemon, and how long it works isn't seen from here.
    #[track_caller]
    pub fn until(&mut self, text: &str) {
        let seen = eventually(|| {
            if let Some((_, rest)) = self.0.said.split_once(text) {
                self.0.said = rest.to_owned();
                return Some(true);
            }
            let ended = self.0.program.try_wait().unwrap().is_some();
            let mut pty = [PollFd::new(self.0.pty.as_fd(), PollFlags::POLLIN)];
            if poll(&mut pty, PollTimeout::ZERO).unwrap() == 0 {
                return ended.then_some(false);
            }
            let mut buffer = [0; 4096];
            let read = self.0.pty.read(&mut buffer).unwrap();
            self.0.said += &String::from_utf8_lossy(&buffer[..read]);
            None
        });
        assert!(seen == Some(true), "no {text:?}: {:?}", self.0.said);
    }

    /// Its exit code, when it has ended by itself.
    #[track_caller]
    pub fn code(&mut self) -> u8 {
        let ended = eventually(|| self.0.program.try_wait().unwrap());
        exit_code(ended.expect("it doesn't end"))
    }
}

/// What all clients have: words, and what becomes of them.
pub trait Client {
    /// A subcommand, ready to run.
    fn command(&self, words: &[&str]) -> Command;

    /// Runs it, with nothing to read.
    #[track_caller]
    fn run(&self, words: &[&str]) -> Assert {
        ended(&mut self.command(words))
    }

    /// Runs one that succeeds, and returns what it printed.
    #[track_caller]
    fn ok(&self, words: &[&str]) -> String {
        self.run(words).success().printed()
    }

    /// Runs it by a shell script, in which it is `"$@"`, in a folder of its own.
    #[track_caller]
    fn by_shell(&self, script: &str, words: &[&str]) -> Assert {
        let folder = folder();
        let command = self.command(words);
        let mut shell = Command::new("sh");
        shell
            .current_dir(folder.path())
            .args(["-ec", script, "sh"])
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            shell.env(name, value.unwrap_or_default());
        }
        ended(&mut shell)
    }

    /// Runs it with `text` to read.
    #[track_caller]
    fn fed(&self, text: &str, words: &[&str]) -> Assert {
        self.by_shell(&format!("printf '{text}' | \"$@\""), words)
    }

    /// Runs it at a terminal.
    fn at_terminal(&self, words: &[&str]) -> Terminal {
        Terminal::start(&self.command(words))
    }

    /// Runs it again and again, until it prints `text` and nothing else.
    #[track_caller]
    fn until(&self, words: &[&str], text: &str) {
        let mut printed = String::new();
        let came = eventually(|| {
            printed = self.run(words).printed();
            (printed.trim() == text).then_some(())
        });
        assert!(came.is_some(), "{words:?}: {printed}");
    }
}

/// A Docker engine, whose default runtime is ours.
pub struct Docker {
    daemon: Option<Daemon>,
    flags: Vec<String>,
    place: Place,
}

impl Docker {
    /// The engine that the tests have in common which run at the same time. The last of them ends it. `None`: there is
    /// none to be had.
    pub fn shared() -> Option<Arc<Docker>> {
        static SHARED: Mutex<Weak<Docker>> = Mutex::new(Weak::new());
        if !Docker::is_here() {
            return None;
        }
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(docker) = shared.upgrade() {
            return Some(docker);
        }
        // The test's own thread stays where it is.
        let started = thread::scope(|scope| scope.spawn(|| Docker::start(&[])).join());
        let docker = Arc::new(started.unwrap_or_else(|panic| resume_unwind(panic))?);
        *shared = Arc::downgrade(&docker);
        Some(docker)
    }

    fn is_here() -> bool {
        ready(&[("dockerd", "docker.io"), ("docker", "docker.io")])
    }

    /// Starts an engine of a test's own, from where this thread is from now on.
    pub fn start(flags: &[&str]) -> Option<Docker> {
        if !Docker::is_here() {
            return None;
        }
        let place = Place::new();
        apart(place.folder.path());
        let archive = packed(place.folder.path());
        let own = [
            ("--data-root", place.at("data")),
            ("--exec-root", place.at("exec")),
            ("--pidfile", place.at("pid")),
            ("--host", format!("unix://{}", place.at("sock"))),
            ("--cgroup-parent", place.groups.parent()),
            ("--add-runtime", format!("ours={}", runtime().display())),
            ("--default-runtime", "ours".into()),
        ];
        let mut all: Vec<String> = own.map(|(flag, value)| format!("{flag}={value}")).to_vec();
        all.extend(
            ["--iptables=false", "--ip6tables=false", "--bridge=none"]
                .iter()
                .chain(flags)
                .map(ToString::to_string),
        );
        let mut docker = Docker {
            daemon: None,
            flags: all,
            place,
        };
        docker.go_on();
        docker.ok(&["import", &archive.display().to_string(), IMAGE]);
        Some(docker)
    }

    /// Starts the daemon, the first time or again.
    pub fn go_on(&mut self) {
        let mut command = Command::new("dockerd");
        command.args(&self.flags);
        let mut answers = self.command(&["version"]);
        let log = self.place.at("log");
        self.daemon = Some(Daemon::start(&mut command, &log, &mut answers));
    }

    /// Ends the daemon, and nothing else.
    pub fn stop(&mut self) {
        drop(self.daemon.take());
    }

    /// The daemon.
    pub fn daemon(&self) -> Process {
        let daemon = self.daemon.as_ref().unwrap();
        Process(Pid::from_raw(daemon.0.id() as i32))
    }

    /// Has another client talk to this engine.
    pub fn with<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env("DOCKER_HOST", format!("unix://{}", self.place.at("sock")))
            .env("DOCKER_CONFIG", self.place.at("config"))
            .env("DOCKER_BUILDKIT", "0")
    }

    /// `run` of a container, which goes away with its command.
    #[track_caller]
    pub fn run_in(&self, flags: &[&str], command: &[&str]) -> Assert {
        self.run(&[&["run", "--rm"], flags, &[IMAGE], command].concat())
    }

    /// `run -d`: returns the ID.
    #[track_caller]
    pub fn begin(&self, flags: &[&str], command: &[&str]) -> String {
        let words = [&["run", "-d"], flags, &[IMAGE], command].concat();
        self.ok(&words).trim().to_owned()
    }

    pub fn inspect(&self, name: &str, template: &str) -> String {
        self.ok(&["inspect", "-f", template, name]).trim().into()
    }

    /// The first process of a container.
    pub fn process(&self, name: &str) -> Process {
        let pid = self.inspect(name, "{{.State.Pid}}").parse().unwrap();
        Process(Pid::from_raw(pid))
    }
}

impl Client for Docker {
    fn command(&self, words: &[&str]) -> Command {
        let mut docker = Command::new("docker");
        self.with(&mut docker).args(words);
        docker
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if self.daemon.is_some() {
            let all = quietly(&mut self.command(&["ps", "-aq"]));
            if !all.is_empty() {
                quietly(self.command(&["rm", "-f"]).args(all.lines()));
            }
        }
        drop(self.daemon.take());
        let state = self.place.at("exec/runtime-runc/moby");
        self.place.leave(&state);
    }
}

/// A containerd, and `ctr`, which has it run containers by our runtime.
pub struct Containerd {
    daemon: Option<Daemon>,
    place: Place,
}

impl Containerd {
    /// Starts one, from where this thread is from now on. `None`: there is none to be had.
    pub fn start() -> Option<Containerd> {
        if !ready(&[("containerd", "containerd"), ("ctr", "containerd")]) {
            return None;
        }
        let place = Place::new();
        apart(place.folder.path());
        let config = place.at("config.toml");
        let text = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = ['io.containerd.grpc.v1.cri']\n\
             [grpc]\naddress = {:?}\n",
            place.at("root.d"),
            place.at("state"),
            place.at("sock")
        );
        fs::write(&config, text).unwrap();
        let image = place.at("image.tar");
        fs::write(&image, saved(place.folder.path())).unwrap();
        let mut containerd = Containerd {
            daemon: None,
            place,
        };
        let mut command = Command::new("containerd");
        command.args(["--config", &config]);
        let mut answers = containerd.command(&["version"]);
        let log = containerd.place.at("log");
        containerd.daemon = Some(Daemon::start(&mut command, &log, &mut answers));
        containerd.ok(&["image", "import", &image]);
        Some(containerd)
    }

    /// `ctr run` of a container of this name.
    #[track_caller]
    pub fn run_in(&self, flags: &[&str], name: &str, command: &[&str]) -> Assert {
        self.run(&self.words(&[&["--rm"], flags].concat(), name, command))
    }

    /// `ctr run -d`: returns its first process.
    #[track_caller]
    pub fn begin(&self, flags: &[&str], name: &str, command: &[&str]) -> Process {
        let file = self.place.at("pid");
        let flags = [&["-d", "--pid-file", &file], flags].concat();
        self.ok(&self.words(&flags, name, command));
        let pid = fs::read_to_string(file).unwrap().trim().parse().unwrap();
        Process(Pid::from_raw(pid))
    }

    /// The words that run a container.
    pub fn words<'a>(&self, flags: &[&'a str], name: &'a str, command: &[&'a str]) -> Vec<&'a str> {
        let runtime = runtime().to_str().unwrap();
        let ours = ["run", "--runc-binary", runtime];
        [&ours, flags, &[IMAGE, name], command].concat()
    }
}

impl Client for Containerd {
    fn command(&self, words: &[&str]) -> Command {
        let mut ctr = Command::new("ctr");
        // Its namespace is the name of the control group, too.
        ctr.args(["-a", &self.place.at("sock"), "-n", &self.place.groups.0])
            .args(words);
        ctr
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if self.daemon.is_some() {
            for name in quietly(&mut self.command(&["task", "ls", "-q"])).lines() {
                quietly(&mut self.command(&["task", "rm", "-f", name]));
            }
        }
        drop(self.daemon.take());
        let state = format!("/run/containerd/runc/{}", self.place.groups.0);
        self.place.leave(&state);
    }
}

/// The image as `docker save` has it.
fn saved(folder: &Path) -> Vec<u8> {
    let layer = fs::read(packed(folder)).unwrap();
    let config = configuration(&[digest(&layer)], &json!({}));
    let manifest = json!([{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]);
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let file = EntryType::Regular;
    archive(&[
        ("config.json", file, &config),
        ("layer.tar", file, &layer),
        ("manifest.json", file, &manifest),
    ])
}

/// What Podman and Buildah have in common.
struct Daemonless {
    place: Place,
    archive: String,
}

impl Daemonless {
    fn new() -> Daemonless {
        let place = Place::new();
        apart(place.folder.path());
        let archive = packed(place.folder.path()).display().to_string();
        // More than this user may have themselves they can't give to others.
        let text = "[containers]\ndefault_ulimits = ['nofile=1024:2048', 'nproc=1024:2048']\n";
        fs::write(place.at("containers.conf"), text).unwrap();
        Daemonless { place, archive }
    }

    /// A program that keeps all it has in our folder.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .args(["--root", &self.place.at("storage")])
            .args(["--runroot", &self.place.at("run")])
            .args(["--storage-driver", "vfs"])
            .env("CONTAINERS_CONF", self.place.at("containers.conf"))
            .env("TMPDIR", self.place.folder.path());
        command
    }

    fn group(&self) -> String {
        self.place.groups.parent()
    }
}

/// Podman, whose runtime is ours.
pub struct Podman(Daemonless);

impl Podman {
    /// From where this thread is from now on. `None`: there is none to be had.
    pub fn new() -> Option<Podman> {
        if !ready(&[
            ("podman", "podman"),
            ("conmon", "conmon"),
            ("tini-static", "tini"),
        ]) {
            return None;
        }
        let podman = Podman(Daemonless::new());
        podman.ok(&["import", &podman.0.archive, IMAGE]);
        Some(podman)
    }

    /// The words that run a container.
    pub fn words(&self, flags: &[&str], command: &[&str]) -> Vec<String> {
        let group = self.0.group();
        let ours = ["run", "--network", "none", "--cgroup-parent", &group];
        let all = [&ours, flags, &[IMAGE], command].concat();
        all.into_iter().map(String::from).collect()
    }

    /// `run` of a container, which goes away with its command.
    #[track_caller]
    pub fn run_in(&self, flags: &[&str], command: &[&str]) -> Assert {
        let words = self.words(&[&["--rm"], flags].concat(), command);
        ended(self.command(&[]).args(words))
    }

    /// `run -d`.
    #[track_caller]
    pub fn begin(&self, flags: &[&str], command: &[&str]) -> String {
        let words = self.words(&[&["-d"], flags].concat(), command);
        ended(self.command(&[]).args(words)).success().printed()
    }
}

impl Client for Podman {
    fn command(&self, words: &[&str]) -> Command {
        let mut podman = self.0.command("podman");
        podman
            .args(["--log-level", "error", "--events-backend", "none"])
            .args(["--cgroup-manager", "cgroupfs"])
            .args(["--tmpdir", &self.0.place.at("tmp")])
            .arg("--runtime")
            .arg(runtime())
            .args(words);
        podman
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        quietly(&mut self.command(&["pod", "rm", "-fa", "-t", "0"]));
        quietly(&mut self.command(&["rm", "-fa", "-t", "0"]));
        self.0.place.leave("");
        // The parent of pods, which podman makes for all of them and leaves. Who is in it keeps it.
        Groups("libpod_parent".into()).remove();
    }
}

/// Buildah, whose runtime is ours.
pub struct Buildah(Daemonless);

impl Buildah {
    /// From where this thread is from now on. `None`: there is none to be had.
    pub fn new() -> Option<Buildah> {
        let here = ready(&[("buildah", "buildah")]);
        here.then(|| Buildah(Daemonless::new()))
    }

    /// The archive of the root.
    pub fn archive(&self) -> &str {
        &self.0.archive
    }

    /// Runs a subcommand that has containers run.
    #[track_caller]
    pub fn with_runtime(&self, subcommand: &str, words: &[&str]) -> Assert {
        let group = self.0.group() + "/one";
        let mut command = self.command(&[subcommand, "--isolation", "oci", "--network", "none"]);
        command.arg("--runtime").arg(runtime());
        if subcommand == "build" {
            command.args(["--cgroup-parent", &group]);
        }
        ended(command.args(words))
    }
}

impl Client for Buildah {
    fn command(&self, words: &[&str]) -> Command {
        let mut buildah = self.0.command("buildah");
        buildah.args(words);
        buildah
    }
}

impl Drop for Buildah {
    fn drop(&mut self) {
        self.0.place.leave("");
    }
}

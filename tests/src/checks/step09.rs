//! Chapter 9: outliving the caller.

use crate::course::Exercise;
use crate::course::workbench::Workbench;
use crate::host::container::{RunOutcome, before_rest, eventually, run_with};
use crate::host::evidence::Process;
use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use probe::Claim;
use serde_json::Value;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use step07_cgroups::cgroup::creation::sweep_all;
use step07_cgroups::cgroup::places::Groups;

/// The exercises of chapter 9.
pub const EXERCISES: &[Exercise] = &[
    Exercise {
        name: "detach",
        heart: "session and descriptors",
        check: detach,
        scenes: &[&[
            "run",
            "-d",
            "--state-dir",
            "{state}",
            "--image",
            "{root}",
            "true",
        ]],
        mistakes: &[],
        read: "setsid(2), credentials(7), daemon(7), pipe(7)",
        show: "cargo progress shell 9 -c 'step09-detach run -d --rm sleep 5 | cat; echo read to its end; step09-detach ps'",
        hints: [
            "Which processes does a terminal hang up, and which call takes a process out of their number? \
             What does it mean for others that somebody stands in a directory? And when does whoever reads \
             from a pipe read its end?",
            "call!(setsid())?, call!(chdir(\"/\"))?; then call!(close(number))? for each of \
             open_descriptors()? that is above 2 and not in keep; and at last open /dev/null for reading and \
             writing, and put it in the place of 0, 1 and 2 by dup2_stdin, dup2_stdout and dup2_stderr.",
        ],
    },
    Exercise {
        name: "save",
        heart: "rename",
        check: save,
        scenes: &[&[
            "create",
            "--state-dir",
            "{state}",
            "--image",
            "{root}",
            "true",
        ]],
        mistakes: &[],
        read: "rename(2), fsync(2), open(2) on O_TRUNC",
        show: "cargo progress shell 9 -c 'step09-detach create --name box true; ls -A /var/lib/ten-steps/containers/*'",
        hints: [
            "A file that is being written is half written for a while. Which call gives a name to a file \
             that is whole? Where must that file lie? And what has to be on the disk before its name is?",
            "The new file is path.with_extension(\"new\"). File::create it, write_all, sync_all if durable, \
             and only then fs::rename it to path. Do these in a closure, so that whatever fails is one result: \
             after an error remove the new file, and return the error.",
        ],
    },
    Exercise {
        name: "is_running",
        heart: "pid and start time",
        check: is_running,
        scenes: &[],
        mistakes: &[],
        read: "proc_pid_stat(5)",
        show: "cargo progress shell 9 -c 'step09-detach run -d --name box true; sleep 1; step09-detach ps -a'",
        hints: [
            "Two processes can have the same number, one after the other. What can't they have in common? And \
             two machines' lives?",
            "boot_id() first: if it can't be read, or is another than process.boot_id, the answer is false. Then \
             Stat::of(process.pid): an error says that there is none; otherwise its start_time has to be the \
             process's, and its state neither Z nor X.",
        ],
    },
    Exercise {
        name: "stop",
        heart: "wait, don't sleep",
        check: stop,
        scenes: &[
            &[
                "run",
                "-d",
                "--name",
                "box",
                "--state-dir",
                "{state}",
                "--image",
                "{root}",
                "sleep",
                "1000",
            ],
            &["stop", "-t", "0.2", "--state-dir", "{state}", "box"],
        ],
        mistakes: &[],
        read: "pidfd_open(2), pidfd_send_signal(2), poll(2)",
        show: "cargo progress shell 9 -c 'step09-detach run -d --name box sleep 1000; step09-detach stop -t 1 box; step09-detach ps -a'",
        hints: [
            "What stands for a process and never for another one? What tells that it has ended, at once and \
             without a look every second? What if it doesn't end? And what if it has ended before you came?",
            "let Some(pidfd) = process.open()? else return Ok(()). Then send(&pidfd, signal)?; and if \
             wait_for_end(&pidfd, patience)? is false, send SIGKILL in the same way and wait once more, \
             without a limit.",
        ],
    },
];

/// The program, and a state folder of its own.
pub struct Store<'a> {
    bench: &'a Workbench,
    state: PathBuf,
}

impl Store<'_> {
    /// One whose state folder is called `name`.
    pub fn new<'a>(bench: &'a Workbench, name: &str) -> Store<'a> {
        Store {
            state: bench.scratch.join(name),
            bench,
        }
    }

    /// A subcommand with its arguments, ready to run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.bench.program);
        command.args(arguments).env("TEN_STEPS_STATE", &self.state);
        command
    }

    /// Runs a subcommand.
    pub fn run(&self, arguments: &[&str]) -> Result<RunOutcome> {
        run_with(&mut self.command(arguments))
    }

    /// Runs one that has to succeed for the check to go on.
    pub fn must(&self, arguments: &[&str]) -> Result<RunOutcome> {
        let outcome = self.run(arguments)?;
        match outcome.code {
            0 => Ok(outcome),
            _ => bail!("{}: {}", arguments.join(" "), outcome.in_words()),
        }
    }

    /// Starts a container that runs `command`, and returns its ID.
    pub fn start(&self, flags: &[&str], command: &[&str]) -> Result<String> {
        let root = self.bench.root()?.display().to_string();
        let words = [&["run", "-d", "--image", &root], flags, command].concat();
        Ok(self.must(&words)?.output.trim().to_owned())
    }

    /// Its folder.
    pub fn folder(&self, id: &str) -> PathBuf {
        self.state.join("containers").join(id)
    }

    /// Its record.
    fn record(&self, id: &str) -> Result<Value> {
        let path = self.folder(id).join("config.json");
        let text = fs::read(&path).with_context(|| path.display().to_string())?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// A process by its name in the record: `process` or `monitor`.
    pub fn process(&self, id: &str, which: &str) -> Result<Process> {
        let record = self.record(id)?;
        let pid = record["state"][which]["pid"].as_i64();
        let pid = pid.with_context(|| format!("config.json has no {which}"))?;
        Ok(Process(Pid::from_raw(pid as i32)))
    }

    /// What `ps` says that it is doing.
    fn status(&self, id: &str) -> Result<String> {
        let listed = self.must(&["ps", "-a", "--no-trunc", "--format", "json"])?;
        for line in listed.output.lines() {
            let line: Value = serde_json::from_str(line)?;
            if line["ID"] == id {
                return Ok(line["State"].as_str().unwrap_or_default().to_owned());
            }
        }
        Ok("not listed".into())
    }
}

impl Drop for Store<'_> {
    /// Whatever a check has left behind.
    fn drop(&mut self) {
        let ids = self
            .run(&["ps", "-aq", "--no-trunc"])
            .map(|listed| listed.output);
        for id in ids.unwrap_or_default().lines() {
            let _ = self.run(&["rm", "-f", id]);
            // Who was killed with its monitor may still be on its way out when its groups are swept.
            eventually(|| {
                let are_gone = || Groups::of(id).is_ok_and(|groups| groups.is_empty());
                (are_gone() || (sweep_all().is_ok() && are_gone())).then_some(())
            });
        }
    }
}

/// 9.1: the monitor has nothing of the caller's.
pub fn detach(bench: &Workbench) -> Result<Vec<Claim>> {
    let store = Store::new(bench, "detach");
    let root = bench.root()?.display().to_string();
    let planted = File::open(&bench.scratch)?;
    let mut command = store.command(&["run", "-d", "--image", &root, "sleep", "1000"]);
    let output = bench.scratch.join("detach.output");
    command
        .process_group(0)
        .current_dir(&bench.scratch)
        .stdin(Stdio::null())
        .stdout(File::create(&output)?)
        .stderr(Stdio::piped());
    let number = planted.as_raw_fd();
    // SAFETY: dup2 is async-signal-safe.
    unsafe {
        command.pre_exec(move || match libc::dup2(number, PLANTED) {
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
    let mut caller = command.spawn()?;
    let group = Pid::from_raw(caller.id() as i32);
    let ended = before_rest(Process(group), || caller.try_wait().ok().flatten());
    let Some(status) = ended else {
        let _ = caller.kill();
        caller.wait()?;
        bail!("run -d doesn't come back");
    };
    if !status.success() {
        let mut said = String::new();
        std::io::Read::read_to_string(&mut caller.stderr.take().context("its errors")?, &mut said)?;
        bail!("run -d: {}", said.trim());
    }
    let id = fs::read_to_string(&output)?.trim().to_owned();
    let monitor = store.process(&id, "process")?;
    let monitor = Process(Pid::from_raw(monitor.status("PPid")?.parse()?));
    let stat = fs::read_to_string(monitor.file("stat"))?;
    let fields: Vec<&str> = stat
        .rsplit_once(") ")
        .context("stat")?
        .1
        .split(' ')
        .collect();
    let (session, terminal) = (fields[3].to_owned(), fields[4].to_owned());
    let descriptors: Vec<(i32, PathBuf)> = fs::read_dir(monitor.file("fd"))?
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            Some((number, fs::read_link(entry.path()).ok()?))
        })
        .collect();
    let leads = |to: &Path| descriptors.iter().any(|(_, target)| target == to);
    let standard: Vec<_> = (0..3)
        .map(|number| {
            let found = descriptors.iter().find(|(known, _)| *known == number);
            found.map_or("closed".into(), |(_, target)| target.display().to_string())
        })
        .collect();
    // The terminal hangs up: everybody who is still in the caller's group hears of it.
    let _ = killpg(group, Signal::SIGHUP);
    let _ = killpg(group, Signal::SIGKILL);
    let status = store.status(&id)?;
    Ok(vec![
        Claim::new(
            "the monitor leads a session of its own",
            format!("/proc/MONITOR/stat: pid {}, session {session}", monitor.0),
            session == monitor.0.to_string(),
        ),
        Claim::equal(
            "it has no terminal",
            "/proc/MONITOR/stat: tty_nr",
            &terminal.as_str(),
            &"0",
        ),
        Claim::equal(
            "it keeps nobody's directory busy",
            "/proc/MONITOR/cwd",
            &fs::read_link(monitor.file("cwd"))?,
            &PathBuf::from("/"),
        ),
        Claim::equal(
            "its standard descriptors lead nowhere",
            "/proc/MONITOR/fd/0, 1, 2",
            &standard,
            &vec!["/dev/null".to_owned(); 3],
        ),
        Claim::new(
            "it has let go of the caller's output: whoever reads that reads its end",
            format!(
                "/proc/MONITOR/fd: the output is {}",
                open_or_not(leads(&output))
            ),
            !leads(&output),
        ),
        Claim::new(
            "it has let go of what else the caller had open",
            format!(
                "/proc/MONITOR/fd: the directory that the check left open is {}",
                open_or_not(leads(&bench.scratch))
            ),
            !leads(&bench.scratch),
        ),
        Claim::new(
            "the container goes on when the caller's terminal hangs up",
            format!("ps says {status}"),
            status == "running",
        ),
    ])
}

/// A descriptor that nobody meant for the program.
const PLANTED: i32 = 77;

fn open_or_not(open: bool) -> &'static str {
    if open { "still open" } else { "closed" }
}

/// 9.2: the record is replaced, never written in its place; and it survives a full disk.
pub fn save(bench: &Workbench) -> Result<Vec<Claim>> {
    let mut claims = Vec::new();
    let root = bench.root()?.display().to_string();
    let state = bench.scratch.join("save");
    fs::create_dir_all(&state)?;
    let data = Some("size=256k,mode=755");
    mount(Some("small"), &state, Some("tmpfs"), MsFlags::empty(), data).context("a small disk")?;
    let checked = || -> Result<Vec<Claim>> {
        let store = Store::new(bench, "save");
        let id = store.must(&["create", "--name", "before", "--image", &root, "true"])?;
        let id = id.output.trim().to_owned();
        let folder = store.folder(&id);
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        inotify.add_watch(&folder, AddWatchFlags::IN_ALL_EVENTS)?;
        store.must(&["rename", "before", "after"])?;
        let (mut written, mut renamed) = (false, false);
        while let Ok(events) = inotify.read_events() {
            for event in events.iter() {
                let is_record = event
                    .name
                    .as_ref()
                    .is_some_and(|name| name == "config.json");
                let has = |flag| is_record && event.mask.contains(flag);
                written |= has(AddWatchFlags::IN_MODIFY) || has(AddWatchFlags::IN_CREATE);
                renamed |= has(AddWatchFlags::IN_MOVED_TO);
            }
            if events.is_empty() {
                break;
            }
        }
        claims.push(Claim::new(
            "the record is never open for writing under its name",
            match written {
                true => "inotify(7): config.json was created or modified",
                false => "inotify(7): config.json wasn't modified",
            },
            !written,
        ));
        claims.push(Claim::new(
            "another file takes its name, in one go",
            match renamed {
                true => "inotify(7): a file was renamed to config.json",
                false => "inotify(7): no file was renamed to config.json",
            },
            renamed,
        ));
        let record = fs::read(folder.join("config.json"))?;
        // Nothing more goes onto the disk.
        let mut filler = File::create(state.join("filler"))?;
        let _ = std::io::copy(&mut std::io::repeat(0), &mut filler);
        let outcome = store.run(&["rename", "after", "later"])?;
        let now = fs::read(folder.join("config.json")).unwrap_or_default();
        let left: Vec<OsString> = fs::read_dir(&folder)?
            .flatten()
            .map(|entry| entry.file_name())
            // A lock, which has been there from the beginning.
            .filter(|name| name != "still")
            .collect();
        drop(filler);
        fs::remove_file(state.join("filler"))?;
        claims.push(Claim::new(
            "on a full disk the old record stays",
            format!(
                "config.json has {} bytes, and is {}",
                now.len(),
                if now == record {
                    "as it was"
                } else {
                    "another"
                }
            ),
            now == record,
        ));
        claims.push(Claim::new(
            "and nothing else stays there",
            format!("the folder has {left:?}"),
            left == ["config.json"],
        ));
        claims.push(Claim::equal(
            "the failure is told",
            "rename's exit code on a full disk",
            &outcome.code,
            &125,
        ));
        Ok(claims)
    };
    let claims = checked();
    umount2(&state, MntFlags::MNT_DETACH)?;
    claims
}

/// A process that has the number of one that has ended.
pub struct Innocent(Child);

impl Innocent {
    /// Starts one with the number `pid`, which is free: the kernel gives out the next after the last.
    ///
    /// It begins in a later clock tick than the one that has ended: by /proc/PID/stat nobody can tell two apart
    /// that began in the same.
    pub fn with(pid: i32) -> Result<Innocent> {
        let tick = uptime()?;
        while uptime()? == tick {
            std::thread::yield_now();
        }
        for _ in 0..1000 {
            fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string())
                .context("/proc/sys/kernel/ns_last_pid")?;
            let mut command = Command::new("sleep");
            let command = command.arg("infinity").stdin(Stdio::null());
            let innocent = Innocent(command.stdout(Stdio::null()).spawn()?);
            if innocent.process().0.as_raw() == pid {
                return Ok(innocent);
            }
        }
        bail!("nobody got the number {pid}")
    }

    fn process(&self) -> Process {
        Process(Pid::from_raw(self.0.id() as i32))
    }

    /// Whether nobody has ended it.
    pub fn lives(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }
}

/// In clock ticks, of which a second has a hundred wherever Linux is: proc_uptime(5).
fn uptime() -> Result<String> {
    let text = fs::read_to_string("/proc/uptime").context("/proc/uptime")?;
    Ok(text.split(' ').next().unwrap_or_default().into())
}

impl Drop for Innocent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Kills the monitor of a container, and with it the container, so that the record tells of neither; returns
/// the number that the container's first process had.
pub fn make_record_lie(store: &Store, id: &str) -> Result<i32> {
    let (first, monitor) = (store.process(id, "process")?, store.process(id, "monitor")?);
    kill(monitor.0, Signal::SIGKILL)?;
    let gone = || before_rest(first, || (!first.file("stat").exists()).then_some(()));
    gone().context("the container doesn't end with its monitor")?;
    Ok(first.0.as_raw())
}

/// 9.3: what `ps` says is what the kernel says.
pub fn is_running(bench: &Workbench) -> Result<Vec<Claim>> {
    let store = Store::new(bench, "is_running");
    let id = store.start(&[], &["sleep", "1000"])?;
    let running = store.status(&id)?;
    let pid = make_record_lie(&store, &id)?;
    let gone = store.status(&id)?;
    let mut innocent = Innocent::with(pid)?;
    let recycled = store.status(&id)?;
    let lives = innocent.lives();
    // Another life of the machine, in which that number was the container's.
    let id_other = store.start(&[], &["sleep", "1000"])?;
    let path = store.folder(&id_other).join("config.json");
    let text = fs::read_to_string(&path)?;
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let other = text.replace(boot.trim(), "00000000-0000-4000-8000-000000000000");
    fs::write(&path, other)?;
    let elsewhere = store.status(&id_other)?;
    fs::write(&path, text)?;
    let equal = |expected: &str, seen: &String, wanted: &str| {
        Claim::equal(expected, "ps says", seen, &wanted.to_owned())
    };
    Ok(vec![
        equal("a container whose PID 1 is there runs", &running, "running"),
        equal(
            "one whose PID 1 was killed, with its monitor, doesn't",
            &gone,
            "exited",
        ),
        Claim::new(
            "another process has its number now",
            if lives { "it lives" } else { "it has ended" },
            lives,
        ),
        equal("and it doesn't run by that", &recycled, "exited"),
        equal(
            "nor does one of another life of the machine",
            &elsewhere,
            "exited",
        ),
    ])
}

/// 9.4: who is asked may take his time; who is deaf is killed; and nobody else is.
pub fn stop(bench: &Workbench) -> Result<Vec<Claim>> {
    let store = Store::new(bench, "stop");
    let mut claims = Vec::new();

    let polite = "trap 'echo asked; exit 3' TERM; echo ready; while :; do sleep 0.1; done";
    let id = store.start(&[], &["sh", "-c", polite])?;
    let first = store.process(&id, "process")?;
    let log = store.folder(&id).join("container.log");
    let said = |text: &str| fs::read_to_string(&log).is_ok_and(|log| log.contains(text));
    before_rest(first, || said("ready").then_some(())).context("the command doesn't begin")?;
    store.must(&["stop", "-t", "60", &id])?;
    claims.push(gone("when stop comes back, the process has ended", first));
    claims.push(Claim::new(
        "it was asked by SIGTERM, and had its time",
        match said("asked") {
            true => "its handler said so in its log",
            false => "its handler said nothing in its log",
        },
        said("asked"),
    ));

    // PID 1 has no handler: it is deaf.
    let id = store.start(&[], &["sleep", "1000"])?;
    let first = store.process(&id, "process")?;
    let outcome = store.run(&["stop", "-t", "1", &id])?;
    claims.push(gone("who doesn't hear is killed by stop -t 1", first));
    claims.push(Claim::equal(
        "and that is a success",
        "stop's exit code",
        &outcome.code,
        &0,
    ));

    let id = store.start(&[], &["sleep", "1000"])?;
    let pid = make_record_lie(&store, &id)?;
    let mut innocent = Innocent::with(pid)?;
    store.run(&["stop", "-t", "1", &id])?;
    store.run(&["kill", &id])?;
    let lives = innocent.lives();
    claims.push(Claim::new(
        "another process that has its number by now isn't touched",
        if lives { "it lives" } else { "it has ended" },
        lives,
    ));
    Ok(claims)
}

/// A claim that a process isn't there any more.
fn gone(expected: &str, process: Process) -> Claim {
    let state = process.status("State");
    let seen = match &state {
        Ok(state) => format!("/proc/PID/status: State: {state}"),
        Err(_) => "/proc/PID is gone".into(),
    };
    Claim::new(expected, seen, state.is_err())
}

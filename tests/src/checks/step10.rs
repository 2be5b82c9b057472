//! Chapter 10: looking in from outside.

use crate::checks::step09::Store;
use crate::course::Exercise;
use crate::course::workbench::Workbench;
use crate::host::container::{Container, run_with};
use crate::host::evidence::Process;
use anyhow::Result;
use probe::Claim;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;

/// The exercises of chapter 10.
pub const EXERCISES: &[Exercise] = &[
    Exercise {
        name: "join",
        heart: "setns(PID) moves the children",
        check: join,
        scenes: &[&["exec", "{box}", "true"]],
        mistakes: &[],
        read: "setns(2), pid_namespaces(7)",
        show: "cargo progress shell 10 -c 'step10-exec run -d --name box sleep 1000; step10-exec exec box sh -c \"exit 7\"; echo $?; ps -ef'",
        hints: [
            "Who is in the PID namespace after setns: the caller, or whom it starts then? Who can go in, so that the \
             caller stays where it is, and whose child is the command? What can the container see of that process, and \
             from which call on?",
            "A pipe for news and a Birth; signals::hold(); clone3 without flags. In that child, within news.report: \
             hide()?, forget_environment()?, setns(pidfd, namespaces)?, then clone3(CLONE_PARENT): Some is announced \
             by birth, None runs body(). The caller waits for the end of the process between, by its pidfd, reaps that \
             one, takes birth.child()? and asks news.outcome_or_end(&child).",
        ],
    },
    Exercise {
        name: "same_prison",
        heart: "namespaces aren't the container",
        check: same_prison,
        scenes: &[&["exec", "{box}", "true"]],
        mistakes: &[],
        read: "cgroups(7), getrlimit(2), capabilities(7), seccomp(2)",
        show: "cargo progress shell 10 -c 'step10-exec run -d --name box --ulimit nofile=64 sleep 1000; step10-exec exec box sh -c \"ulimit -n; cat /proc/self/cgroup\"'",
        hints: [
            "What holds PID 1 that isn't a namespace? Each of these has a function already. Which of them takes away \
             what another one needs?",
            "For each (path, file) of prison.groups: write_all(b\"0\") by a reference to the file, with a context that \
             names the path, and `?`. Then make_ready()? is the process, set_rlimits(&prison.rlimits)?, and at the end \
             confine(&process).",
        ],
    },
    Exercise {
        name: "close_behind",
        heart: "a descriptor is a door",
        check: close_behind,
        scenes: &[&["exec", "-w", "/etc", "{box}", "true"]],
        mistakes: &[],
        read: "proc_pid_fd(5), getcwd(2)",
        show: "cargo progress shell 10 -c 'step10-exec run -d --name box sleep 1000; step10-exec exec -w /proc/self/fd/9 box pwd 9</'",
        hints: [
            "Where does /proc/self/fd/9 lead while 9 is a directory of the host? Which of the open descriptors are \
             still needed, and when is the last moment at which it matters?",
            "For each of open_descriptors()? above libc::STDERR_FILENO: if is_directory(descriptor)?, then \
             call!(close(descriptor))?. After the loop enter_workdir(workdir) is the result.",
        ],
    },
];

const NAMESPACES: [&str; 6] = ["uts", "pid", "mnt", "ipc", "net", "cgroup"];

/// A container that sleeps, and a command in it by `exec`.
struct Joined<'a> {
    store: Store<'a>,
    id: String,
}

impl<'a> Joined<'a> {
    fn new(bench: &'a Workbench, name: &str, flags: &[&str]) -> Result<Joined<'a>> {
        let store = Store::new(bench, name);
        let id = store.start(flags, &["sleep", "1000"])?;
        Ok(Joined { store, id })
    }

    fn first(&self) -> Result<Process> {
        self.store.process(&self.id, "process")
    }

    fn exec(&self, flags: &[&str], script: &str) -> Result<Container> {
        let words = [&["exec", "-i"], flags, &[&self.id, "sh", "-c", script]].concat();
        Container::start_with(&mut self.store.command(&words))
    }
}

/// 10.1: the command is where PID 1 is, and whoever started it isn't.
pub fn join(bench: &Workbench) -> Result<Vec<Claim>> {
    let joined = Joined::new(bench, "join", &[])?;
    let container = joined.exec(&[], "echo ready; read end; exit 7")?;
    let (first, inside, caller) = (
        joined.first()?,
        container.first_process(),
        container.program(),
    );
    let mut claims = Vec::new();
    for name in NAMESPACES {
        let (of_first, of_inside) = (first.namespace(name)?, inside.namespace(name)?);
        claims.push(Claim::new(
            format!("the command is in the container's {name} namespace"),
            format!("/proc/PID/ns/{name}: {of_inside}, that of PID 1: {of_first}"),
            of_inside == of_first,
        ));
    }
    let pids = inside.pids()?;
    claims.push(Claim::new(
        "it has a number in there, too",
        format!("/proc/PID/status: NSpid has {} numbers", pids.len()),
        pids.len() > caller.pids()?.len(),
    ));
    let host = Process(nix::unistd::getpid());
    let mut moved = Vec::new();
    for name in NAMESPACES {
        if caller.namespace(name)? != host.namespace(name)? {
            moved.push(name);
        }
    }
    claims.push(Claim::new(
        "whoever started it is on the host, in every namespace",
        match &moved[..] {
            [] => "/proc/EXEC/ns: all of them are the host's".to_owned(),
            moved => format!("/proc/EXEC/ns: not the host's: {}", moved.join(", ")),
        },
        moved.is_empty(),
    ));
    let outcome = container.finish()?;
    claims.push(Claim::equal(
        "the command's exit code is exec's",
        "exit code",
        &outcome.code,
        &7,
    ));
    Ok(claims)
}

/// 10.2: what holds PID 1 holds the command.
pub fn same_prison(bench: &Workbench) -> Result<Vec<Claim>> {
    let flags = ["--ulimit", "nofile=100:200", "-e", "COLOUR=blue"];
    let joined = Joined::new(bench, "same_prison", &flags)?;
    let container = joined.exec(&["-e", "SHAPE=round"], "echo ready; read end")?;
    let (first, inside) = (joined.first()?, container.first_process());
    let read = |process: Process, file: &str| fs::read_to_string(process.file(file));
    let groups = |process: Process| -> Result<Vec<String>> {
        let text = read(process, "cgroup")?;
        Ok(text
            .lines()
            .filter(|line| line.contains("/ten-steps/"))
            .map(String::from)
            .collect())
    };
    let (of_first, of_inside) = (groups(first)?, groups(inside)?);
    let mut claims = vec![Claim::new(
        "it is in the container's control groups",
        format!(
            "/proc/PID/cgroup: {} of PID 1's {} groups",
            of_inside.len(),
            of_first.len()
        ),
        of_first == of_inside && !of_first.is_empty(),
    )];
    for key in [
        "CapBnd",
        "CapEff",
        "CapPrm",
        "CapInh",
        "CapAmb",
        "Seccomp",
        "NoNewPrivs",
        "Uid",
    ] {
        let (of_first, of_inside) = (first.status(key)?, inside.status(key)?);
        claims.push(Claim::new(
            format!("{key} is PID 1's"),
            format!("/proc/PID/status: {key}: {of_inside}, that of PID 1: {of_first}"),
            of_first == of_inside,
        ));
    }
    let limit = |process: Process| -> Result<String> {
        let text = read(process, "limits")?;
        let line = text.lines().find(|line| line.starts_with("Max open files"));
        Ok(line
            .unwrap_or_default()
            .split_whitespace()
            .skip(3)
            .collect::<Vec<_>>()
            .join(" "))
    };
    let (of_first, of_inside) = (limit(first)?, limit(inside)?);
    claims.push(Claim::new(
        "its limits are PID 1's",
        format!("/proc/PID/limits: open files {of_inside}, those of PID 1: {of_first}"),
        of_first == of_inside,
    ));
    let (mut of_first, mut of_inside) = (first.strings("environ")?, inside.strings("environ")?);
    of_first.push("SHAPE=round".into());
    of_first.sort();
    of_inside.retain(|variable| !variable.starts_with("PWD=") && !variable.starts_with("_="));
    of_inside.sort();
    claims.push(Claim::equal(
        "its environment is PID 1's, and what exec adds",
        "/proc/PID/environ",
        &of_inside,
        &of_first,
    ));
    container.finish()?;
    Ok(claims)
}

/// A descriptor that nobody meant for the container.
const PLANTED: i32 = 9;

/// 10.3: no way leads back to the host.
pub fn close_behind(bench: &Workbench) -> Result<Vec<Claim>> {
    let joined = Joined::new(bench, "close_behind", &[])?;
    let treasure = bench.scratch.join("treasure");
    fs::create_dir_all(&treasure)?;
    fs::write(treasure.join("canary"), "of the host\n")?;
    let container = joined.exec(&["-w", "/etc"], "echo ready; read end")?;
    let inside = container.first_process();
    let mut descriptors: Vec<i32> = fs::read_dir(inside.file("fd"))?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    descriptors.sort_unstable();
    let cwd = fs::read_link(inside.file("cwd"))?;
    let mut claims = vec![
        Claim::equal(
            "the command has three descriptors",
            "/proc/PID/fd",
            &descriptors,
            &vec![0, 1, 2],
        ),
        Claim::new(
            "it begins where -w says",
            format!("/proc/PID/cwd: {}", cwd.display()),
            cwd.ends_with("etc"),
        ),
    ];
    container.finish()?;

    for (what, workdir, script) in [
        (
            "the directory itself",
            format!("/proc/self/fd/{PLANTED}"),
            "ls",
        ),
        (
            "what is above it",
            format!("/proc/self/fd/{PLANTED}/.."),
            "ls treasure",
        ),
    ] {
        let door = File::open(&treasure)?;
        let words = ["exec", "-w", &workdir, &joined.id, "sh", "-c", script];
        let mut command = joined.store.command(&words);
        let number = door.as_raw_fd();
        // SAFETY: dup2 is async-signal-safe.
        unsafe {
            command.pre_exec(move || match libc::dup2(number, PLANTED) {
                -1 => Err(std::io::Error::last_os_error()),
                _ => Ok(()),
            });
        }
        let outcome = run_with(&mut command)?;
        claims.push(Claim::new(
            format!("a directory that is left open is no way out: {what}"),
            format!("ls printed {:?}", outcome.output.trim()),
            !outcome.output.contains("canary"),
        ));
    }
    Ok(claims)
}

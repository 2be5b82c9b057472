//! Chapter 1: a hostname of its own.

use crate::course::workbench::{Workbench, in_its_own};
use crate::course::{Exercise, Mistake};
use crate::host::NAME;
use crate::host::container::{Container, RunOutcome, run, run_with};
use crate::host::evidence::hosts_name;
use crate::host::trace::Call;
use anyhow::Result;
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use probe::Claim;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// The exercises of chapter 1.
pub const EXERCISES: &[Exercise] = &[
    Exercise {
        name: "enter_uts",
        heart: "unshare acts on its caller",
        check: enter_uts,
        scenes: &[&["--hostname", "inside", "true"]],
        mistakes: &[
            Mistake {
                why: "unshare wasn't called: there is one UTS namespace, the host's, and \
                      sethostname renamed that",
                shows: |traces| traces[0].has("sethostname", "") && !traces[0].has("unshare", ""),
            },
            Mistake {
                why: "unshare was called without CLONE_NEWUTS: it makes a new namespace only of \
                      the kinds that its flags name, and goes well when they name none",
                shows: |traces| {
                    traces[0].has("unshare", "") && !traces[0].has("unshare", "CLONE_NEWUTS")
                },
            },
            Mistake {
                why: "sethostname came before unshare: it renamed the host, and the new \
                      namespace began with a copy of that name",
                shows: |traces| {
                    let calls = traces[0].process(0);
                    let at = |name| calls.iter().position(|call| call.is(name, ""));
                    at("sethostname").is_some_and(|name| Some(name) < at("unshare"))
                },
            },
            Mistake {
                why: "sethostname wasn't called: the new namespace still has the name that it \
                      began with, a copy of the host's",
                shows: |traces| {
                    traces[0].has("unshare", "CLONE_NEWUTS") && !traces[0].has("sethostname", "")
                },
            },
        ],
        read: "unshare(2), sethostname(2), uts_namespaces(7)",
        show: "cargo progress run 1 -- --hostname inside sh -c 'hostname; nsenter -u -t $PPID hostname'",
        hints: [
            "Whose name does sethostname change? Ask it before and after unshare(CLONE_NEWUTS): \
             the call moves nobody but its caller.",
            "Two calls, in this order: unshare with the flag CLONE_NEWUTS, then sethostname with \
             the name that was given. `call!(...)?` around each, and Ok(()) at the end.",
        ],
    },
    Exercise {
        name: "exec",
        heart: "exec returns only on failure",
        check: exec,
        scenes: &[
            &["sh", "-c", "exit 7", "two words"],
            &["no-such-program"],
            &["/etc/passwd"],
        ],
        mistakes: &[
            Mistake {
                why: "execve got the words without the first one. That one is the program's name \
                      for itself, argv[0]; its first argument is the second word",
                shows: |traces| traces[0].has("execve", ", [\"-c\""),
            },
            Mistake {
                why: "the words were joined to one and given to a shell, which takes them apart \
                      again at each blank, and sees its own signs in them",
                shows: |traces| traces[0].has("execve", "sh -c exit 7 two words"),
            },
            Mistake {
                why: "execve failed, and the program ended with 0 all the same. execve comes back \
                      only when it has failed, so the line after it is reached only then",
                shows: |traces| {
                    let calls = traces[1].process(0);
                    // Whose execve worked has no more calls of its own.
                    calls.last().is_some_and(|call| call.is("exit_group", "0"))
                        && !calls
                            .iter()
                            .any(|call| call.is("execve", "") && call.worked())
                },
            },
            Mistake {
                why: "execve was given a name without a slash. It takes a path: to look through \
                      PATH is up to its caller (candidates)",
                shows: |traces| {
                    traces[0].has("execve", "\"sh\", [") && {
                        let starts = |call: &Call| call.arguments.starts_with("\"sh\"");
                        traces[0].all().any(starts)
                    }
                },
            },
            Mistake {
                why: "execve was tried once, and its ENOENT taken for the end. It only says that \
                      the command isn't in this directory of PATH: the next may have it",
                shows: |traces| {
                    let tried = |call: &&Call| call.is("execve", "");
                    let mut tried = traces[0].process(0).iter().filter(tried);
                    tried.next().is_some_and(|call| !call.worked()) && tried.next().is_none()
                },
            },
            Mistake {
                why: "the failure ended with 125. Only a Refused whose text begins with `execve(` \
                      ends with 126 or 127: return Refused::new(format!(\"execve(…)\"), errno)",
                shows: |traces| {
                    let last = traces[1].process(0).last();
                    last.is_some_and(|call| call.is("exit_group", "125"))
                },
            },
            Mistake {
                why: "after EACCES, or after ENOEXEC, the search went on as after ENOENT, and ended \
                      with 127. EACCES is to be remembered, and any other answer is final",
                shows: |traces| {
                    let last = traces[2].process(0).last();
                    last.is_some_and(|call| call.is("exit_group", "127"))
                },
            },
            Mistake {
                why: "the command inherited what nobody meant it to have: inherit_nothing wasn't \
                      called before execve",
                shows: |traces| {
                    let became = |call: &Call| call.is("execve", "") && call.worked();
                    traces[0].process(0).iter().any(became) && !traces[0].has("close_range", "")
                },
            },
        ],
        read: "execve(2), environ(7)",
        show: "cargo progress run 1 -- no-such-program; echo $?",
        hints: [
            "What does execve do when all went well, and so what can stand behind it? And how \
             many arguments are `sh -c 'two words'`?",
            "Turn the words and the variables into C strings (c_strings), let nothing be inherited \
             (inherit_nothing), then try execve on each of candidates(...). Go on at ENOENT, \
             remember EACCES, and return Refused::new(...) with the errno at the end.",
        ],
    },
];

/// 1.1: another UTS namespace, and the host's name unchanged.
pub fn enter_uts(bench: &Workbench) -> Result<Vec<Claim>> {
    // This file shows each reader the name in the reader's own UTS namespace.
    // A name that nobody can have guessed.
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let name = format!("inside-{:05}", now.subsec_micros() % 90_000 + 10_000);
    let arguments = ["--hostname", &name, "cat", "/proc/sys/kernel/hostname", "-"];
    let container = Container::start(&bench.program, &arguments)?;
    let host = hosts_name()?;
    Ok(vec![
        in_its_own(&container, "uts")?,
        Claim::equal(
            "the container has the name that it was given",
            "/proc/sys/kernel/hostname in the container",
            &container.first_line(),
            &name,
        ),
        Claim::equal(
            "the host has kept its name (the check gave --hostname another)",
            "/proc/sys/kernel/hostname on the host",
            &host.as_str(),
            &NAME,
        ),
    ])
}

/// 1.2: every word arrives as it is, and a failure has the exit code that tells it.
pub fn exec(bench: &Workbench) -> Result<Vec<Claim>> {
    let command = [
        "sh",
        "-c",
        "echo ready; read end",
        "two words",
        "",
        "*",
        "$HOME",
    ];
    let mut program = Command::new(&bench.program);
    // A door that is left open: a pipe's end without the mark close-on-exec.
    let (door, _other) = pipe2(OFlag::empty())?;
    program.args(command).env("GIVEN", "yes");
    let container = Container::start_with(&mut program)?;
    let pipe = fs::read_link(format!("/proc/self/fd/{}", door.as_raw_fd()))?;
    drop(door);
    let process = container.program();
    let words = process.strings("cmdline")?;
    let given = process
        .strings("environ")?
        .contains(&"GIVEN=yes".to_owned());
    let open = fs::read_dir(process.file("fd"))?.flatten();
    let mut leads = open.filter_map(|entry| fs::read_link(entry.path()).ok());
    let inherited = leads.any(|target| target == pipe);
    let ignored = process.status("SigIgn")?;

    let absent = run(&bench.program, &["no-such-program"])?;
    let forbidden = run(&bench.program, &["/etc/passwd"])?;
    let status = run(&bench.program, &["sh", "-c", "exit 7"])?;
    let path = Directories::make(&bench.scratch)?;
    let closed = path.run(&bench.program, "closed")?;
    let nonsense = path.run(&bench.program, "nonsense")?;
    Ok(vec![
        Claim::equal(
            "the command has the words that were typed, unchanged",
            "/proc/PID/cmdline",
            &words,
            &command.map(String::from).to_vec(),
        ),
        Claim::new(
            "the command has the environment that exec was given",
            format!("/proc/PID/environ has GIVEN=yes: {given}"),
            given,
        ),
        Claim::new(
            "a descriptor that was open by accident isn't inherited",
            format!("/proc/PID/fd has a pipe of the check's: {inherited}"),
            !inherited,
        ),
        Claim::equal(
            "no signal is ignored (Rust ignores SIGPIPE, number 13)",
            "/proc/PID/status: SigIgn",
            &ignored.as_str(),
            &"0000000000000000",
        ),
        Claim::equal(
            "a command that isn't found",
            "exit code",
            &absent.code,
            &127,
        ),
        Claim::equal(
            "a file without an x bit",
            "exit code",
            &forbidden.code,
            &126,
        ),
        Claim::equal(
            "a file without an x bit in one directory of PATH, and none in the next",
            "exit code",
            &closed.code,
            &126,
        ),
        Claim::equal(
            "a text without #! in one directory of PATH, though the next has a program",
            "exit code",
            &nonsense.code,
            &126,
        ),
        Claim::equal("a command that exits with 7", "exit code", &status.code, &7),
    ])
}

/// Two directories for a PATH: the first has files that can't be executed.
struct Directories(String);

impl Directories {
    fn make(scratch: &Path) -> Result<Directories> {
        let (first, second) = (scratch.join("first"), scratch.join("second"));
        for (file, text, mode) in [
            (first.join("closed"), "#!/bin/sh\nexit 0\n", 0o644),
            (first.join("nonsense"), "exit 0\n", 0o755),
            (second.join("nonsense"), "#!/bin/sh\nexit 0\n", 0o755),
        ] {
            fs::create_dir_all(file.parent().unwrap_or(scratch))?;
            fs::write(&file, text)?;
            fs::set_permissions(&file, fs::Permissions::from_mode(mode))?;
        }
        Ok(Directories(format!(
            "{}:{}",
            first.display(),
            second.display()
        )))
    }

    /// Runs a command that is to be looked for in them.
    fn run(&self, program: &Path, command: &str) -> Result<RunOutcome> {
        run_with(Command::new(program).arg(command).env("PATH", &self.0))
    }
}

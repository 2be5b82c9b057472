//! Chapter 1: a hostname of its own.

use super::{Claim, Workbench, in_its_own};
use crate::container::{Container, run};
use crate::course::{Exercise, Mistake};
use crate::evidence::hosts_name;
use crate::host::NAME;
use anyhow::Result;

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
                shows: |traces| !traces[0].has("unshare", ""),
            },
            Mistake {
                why: "unshare was called without CLONE_NEWUTS: it makes a new namespace only of \
                      the kinds that its flags name, and goes well when they name none",
                shows: |traces| !traces[0].has("unshare", "CLONE_NEWUTS"),
            },
            Mistake {
                why: "sethostname came before unshare: it renamed the host, and the new \
                      namespace began with a copy of that name",
                shows: |traces| {
                    let calls = traces[0].process(0);
                    let at = |name| calls.iter().position(|call| call.is(name, ""));
                    at("sethostname") < at("unshare")
                },
            },
        ],
        read: "unshare(2), sethostname(2), uts_namespaces(7)",
        show: "cargo progress run 1 -- readlink /proc/self/ns/uts; readlink /proc/self/ns/uts",
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
        scenes: &[&["sh", "-c", "exit 7", "two words"], &["no-such-program"]],
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
                      only when it has failed, so what stands behind it is the failure's path",
                shows: |traces| {
                    let calls = traces[1].process(0);
                    calls.last().is_some_and(|call| call.is("exit_group", "0"))
                        && !calls
                            .iter()
                            .any(|call| call.is("execve", "") && call.worked())
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
    let arguments = [
        "--hostname",
        "inside",
        "cat",
        "/proc/sys/kernel/hostname",
        "-",
    ];
    let container = Container::start(&bench.program, &arguments)?;
    let host = hosts_name()?;
    Ok(vec![
        in_its_own(&container, "uts")?,
        Claim::equal(
            "the container has the name that it was given",
            "/proc/sys/kernel/hostname in the container",
            &container.first_line().as_str(),
            &"inside",
        ),
        Claim::equal(
            "the host has kept its name",
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
    let container = Container::start(&bench.program, &command)?;
    let words = container.program().strings("cmdline")?;
    let absent = run(&bench.program, &["no-such-program"])?;
    let forbidden = run(&bench.program, &["/etc/passwd"])?;
    let status = run(&bench.program, &["sh", "-c", "exit 7"])?;
    Ok(vec![
        Claim::equal(
            "the command has the words that were typed, unchanged",
            "/proc/PID/cmdline",
            &words,
            &command.map(String::from).to_vec(),
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
        Claim::equal("a command that exits with 7", "exit code", &status.code, &7),
    ])
}

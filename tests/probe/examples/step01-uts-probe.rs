//! The exercises of chapter 1, called one by one.

use probe::anyhow::Result;
use probe::libc::{self, c_int};
use probe::nix::errno::Errno;
use probe::nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use probe::nix::unistd::{chdir, pipe2, sethostname};
use probe::{Claim, Ending, Findings, Outcome};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use step01_uts::Refused;

fn main() -> Result<()> {
    probe::main(&[("enter_uts", enter_uts), ("exec", exec)])
}

/// Errors with the errno of a [`Refused`] in front.
fn told<T>(outcome: Result<T>) -> Result<T> {
    probe::told(outcome, Refused::errno)
}

fn host() -> Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/hostname")?
        .trim()
        .into())
}

fn enter_uts(findings: &Findings) -> Result<()> {
    let before = host()?;
    let call = || {
        told(step01_uts::enter_uts("inside.a-b"))?;
        let domain = fs::read_to_string("/proc/sys/kernel/domainname")?;
        Ok((host()?, domain))
    };
    findings.begin("enter_uts comes back");
    let domain = fs::read_to_string("/proc/sys/kernel/domainname")?;
    let outcome = findings.subject().call(call)?;
    findings.claim(Claim::new(
        "enter_uts comes back",
        outcome.in_words(),
        outcome.is_ok(),
    ));
    if !outcome.is_ok() {
        return Ok(());
    }
    let own = outcome.before.namespaces.get("uts") != outcome.after.namespaces.get("uts");
    let seen = if own {
        "/proc/PID/ns/uts: another"
    } else {
        "/proc/PID/ns/uts: the same as before"
    };
    // Whether unshare was called, and how, is seen in the trace of the program.
    findings.claim(Claim::new(
        "the caller is in another UTS namespace than before",
        seen,
        own,
    ));
    let seen = host()?;
    let kept = Claim::equal(
        "the host has kept its name",
        "/proc/sys/kernel/hostname",
        &seen,
        &before,
    );
    findings.claim(match own {
        true => kept.why(
            "the name was set while the caller was still in the host's namespace: unshare comes first",
        ),
        false => kept,
    });
    sethostname(&before)?;
    if !own {
        return Ok(());
    }
    let (name, domain_now): (String, String) = outcome.value().unwrap_or_default();
    let claim = Claim::equal(
        "in there the hostname is the one that was given",
        "/proc/sys/kernel/hostname",
        &name.as_str(),
        &"inside.a-b",
    );
    findings.claim(match name.as_str() {
        "" => claim,
        part if "inside.a-b".starts_with(part) => {
            claim.why("the name was cut: dots and dashes are part of a hostname")
        }
        _ => claim,
    });
    findings.claim(Claim::equal(
        "the domain name is what it was",
        "/proc/sys/kernel/domainname",
        &domain_now.trim(),
        &domain.trim(),
    ));
    findings.caller_stays(&outcome, &["ns/uts"]);

    let expected = "a name that the host has already is in another UTS namespace, too";
    findings.begin(expected);
    let outcome = findings
        .subject()
        .call(|| told(step01_uts::enter_uts(&before)))?;
    let own = outcome.before.namespaces.get("uts") != outcome.after.namespaces.get("uts");
    let claim = Claim::new(
        expected,
        match outcome.is_ok() {
            true => "/proc/PID/ns/uts: the same as before".into(),
            false => outcome.in_words(),
        },
        outcome.is_ok() && own,
    );
    findings.claim(claim.why(
        "two names may be the same, and are two all the same: whoever renames the container later would rename the host",
    ));

    let long = "x".repeat(65);
    let expected = "a name of 65 letters, one too many, is an error (EINVAL)";
    findings.begin(expected);
    let outcome = findings
        .subject()
        .call(|| told(step01_uts::enter_uts(&long)))?;
    let claim = Claim::new(
        expected,
        outcome.in_words(),
        outcome.error().starts_with("EINVAL"),
    );
    findings.claim(match outcome.is_ok() {
        true => claim.why("the name was cut, and nobody is told: sethostname refuses it"),
        false => claim,
    });

    let left = |_: &Outcome| {
        let mut left = Vec::new();
        if host().is_ok_and(|now| now != before) {
            left.push("the host was renamed".into());
            let _ = sethostname(&before);
        }
        left
    };
    let calls = [
        (libc::SYS_unshare, "unshare", Errno::ENOSPC),
        (libc::SYS_sethostname, "sethostname", Errno::EPERM),
    ];
    findings.each_call_fails(
        "enter_uts",
        &calls,
        |subject| subject.call(call),
        || false,
        left,
    )?;
    Ok(())
}

/// Directories for a PATH, with programs that write down what they were given.
struct Programs(PathBuf);

impl Programs {
    fn new(findings: &Findings) -> Result<Programs> {
        let programs = Programs(findings.scratch.clone());
        for directory in ["none", "first", "second"] {
            fs::create_dir_all(programs.directory(directory))?;
        }
        Ok(programs)
    }

    fn directory(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Makes a program in a directory.
    fn add(&self, directory: &str, name: &str, text: &str, mode: u32) -> Result<()> {
        let path = self.directory(directory).join(name);
        fs::write(&path, text)?;
        Ok(fs::set_permissions(
            &path,
            fs::Permissions::from_mode(mode),
        )?)
    }

    fn path(&self) -> String {
        let directories = ["none", "first", "second"].map(|name| self.directory(name));
        directories
            .map(|directory| directory.display().to_string())
            .join(":")
    }
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

/// The parts of a file of NUL-ended texts.
fn parts(path: &Path) -> Vec<String> {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    text.trim_end_matches('\0')
        .split('\0')
        .map(String::from)
        .collect()
}

fn exec(findings: &Findings) -> Result<()> {
    findings.play(&[
        becomes_the_command,
        finds_the_first_that_can_run,
        in_the_current_directory,
        failures_are_told,
        takes_no_word_with_a_nul,
    ])
}

/// What the command gets, and what it doesn't.
fn becomes_the_command(findings: &Findings) -> Result<()> {
    let programs = Programs::new(findings)?;
    // The shell reads its own files: what it started with is in them still.
    // The shell reads these by itself: who is started by it has other descriptors and signals.
    let script = "cat /proc/$$/cmdline >\"$1/cmdline\"; cat /proc/$$/environ >\"$1/environ\"; \
                  ls /proc/$$/fd >\"$1/fd\"; while read -r line; do echo \"$line\"; done <\"/proc/$$/status\" \
                  >\"$1/status\"; exit 7";
    let out = programs.0.display().to_string();
    let command = words(&["sh", "-c", script, "two words", &out, "", "*", "$HOME"]);
    let environment = words(&["B=2=3", "PATH=/usr/bin:/bin", "A="]);
    let world = || {
        // Doors that are left open, and signals that nobody meant for the command.
        let (door, other) = pipe2(probe::nix::fcntl::OFlag::empty())?;
        std::mem::forget((door, other));
        let mut blocked = SigSet::empty();
        blocked.add(Signal::SIGUSR1);
        blocked.thread_block()?;
        for ignored in [Signal::SIGPIPE, Signal::SIGUSR2] {
            // SAFETY: installs no handler.
            unsafe { signal(ignored, SigHandler::SigIgn)? };
        }
        Ok(())
    };
    findings.begin("exec turns the caller into the command");
    let outcome = findings.subject().call_in(
        world,
        |()| told(step01_uts::exec(&command, &environment)).map(|_| ()),
        |_| Ok(()),
    )?;
    findings.claim(Claim::new(
        "exec turns the caller into the command, whose exit code is 7",
        outcome.in_words(),
        outcome.ending == Ending::Left(7),
    ));
    if outcome.ending != Ending::Left(7) {
        return Ok(());
    }
    findings.claim(Claim::equal(
        "the command has the words that were given, unchanged",
        "/proc/PID/cmdline",
        &parts(&programs.0.join("cmdline")),
        &command,
    ));
    if !findings.all_hold() {
        return Ok(());
    }
    let mut variables = parts(&programs.0.join("environ"));
    variables.sort();
    let mut wanted = environment.clone();
    wanted.sort();
    findings.claim(
        Claim::equal("the command has the variables that were given, and no others", "/proc/PID/environ", &variables, &wanted)
            .why("the environment of the command is what `environment` says; what this process has itself is the host's"),
    );
    let open = fs::read_to_string(programs.0.join("fd"))?;
    // The shell opens one for itself, above 9.
    let leaked: Vec<c_int> = open
        .split_whitespace()
        .filter_map(|number| number.parse().ok())
        .filter(|number| (3..10).contains(number))
        .collect();
    findings.claim(
        Claim::new(
            "the command has no descriptors but the three standard ones",
            format!("/proc/PID/fd also has {leaked:?}"),
            leaked.is_empty(),
        )
        .why("nobody called inherit_nothing before execve, which marks all descriptors above 2"),
    );
    let status = fs::read_to_string(programs.0.join("status"))?;
    let masks: Vec<&str> = status
        .lines()
        .filter(|line| line.starts_with("SigBlk") || line.starts_with("SigIgn"))
        .collect();
    let is_clean = masks.iter().all(|line| line.ends_with(&"0".repeat(16)));
    findings.claim(
        Claim::new(
            "no signal is blocked or ignored for the command",
            format!("/proc/PID/status: {}", masks.join("; ")),
            is_clean,
        )
        .why("nobody called inherit_nothing before execve, which sets every signal back to its default"),
    );
    Ok(())
}

fn failures_are_told(findings: &Findings) -> Result<()> {
    for case in failures() {
        if findings.all_hold() {
            case.judge(findings)?;
        }
    }
    Ok(())
}

/// A search that ends in an error.
struct Failure {
    expected: &'static str,
    /// Files of the first directory and of the second: name, text, mode.
    files: &'static [(&'static str, &'static str, u32)],
    later: &'static [(&'static str, &'static str, u32)],
    command: &'static str,
    path: Option<&'static str>,
    errno: Errno,
    why: Option<&'static str>,
}

fn failures() -> Vec<Failure> {
    let plain = Failure {
        expected: "",
        files: &[],
        later: &[],
        command: "tool",
        path: None,
        errno: Errno::ENOENT,
        why: None,
    };
    vec![
        Failure {
            expected: "a program that no directory of PATH has: ENOENT, exit code 127",
            ..plain
        },
        Failure {
            expected: "a text without #!, though the next directory has a program: ENOEXEC, exit code 126",
            files: &[("tool", "exit 0\n", 0o755)],
            later: &[("tool", "#!/bin/sh\nexit 0\n", 0o755)],
            errno: Errno::ENOEXEC,
            why: Some(
                "the search goes on after ENOENT, ENOTDIR and EACCES only; a program that was found and can't run ends it",
            ),
            ..plain
        },
        Failure {
            expected: "a file without an x bit, and none in the next directory: EACCES, exit code 126",
            files: &[("tool", "#!/bin/sh\n", 0o644)],
            errno: Errno::EACCES,
            why: Some(
                "a file was found that may not be executed, and then the ENOENT of the next directory took its place: \
                 EACCES has to be remembered",
            ),
            ..plain
        },
        Failure {
            expected: "a directory of PATH that is a file is passed over: ENOENT, exit code 127",
            path: Some("/etc/passwd:/etc/group"),
            why: Some(
                "ENOTDIR says that this directory of PATH is none: the search goes on, as after ENOENT",
            ),
            ..plain
        },
        Failure {
            expected: "a name with a slash is no name for PATH: ENOENT, exit code 127",
            command: "./tool",
            files: &[("tool", "#!/bin/sh\n", 0o755)],
            why: Some(
                "a name with a slash is a path itself: `candidates` looks for it nowhere else",
            ),
            ..plain
        },
        Failure {
            expected: "below a file there is no program: ENOTDIR, exit code 126",
            command: "/etc/passwd/tool",
            errno: Errno::ENOTDIR,
            ..plain
        },
    ]
}

impl Failure {
    fn judge(&self, findings: &Findings) -> Result<()> {
        let programs = Programs::new(findings)?;
        for (directory, files) in [("first", self.files), ("second", self.later)] {
            for (name, text, mode) in files {
                programs.add(directory, name, text, *mode)?;
            }
        }
        let path = self.path.map_or_else(|| programs.path(), String::from);
        let environment = vec![format!("PATH={path}")];
        let command = words(&[self.command]);
        findings.begin(self.expected);
        let empty = programs.directory("none");
        let outcome = findings.subject().call_in(
            || Ok(chdir(&empty)?),
            |()| {
                let Err(error) = step01_uts::exec(&command, &environment);
                let refused = error.downcast_ref::<Refused>();
                Ok(refused.map(|refused| {
                    (
                        refused.errno() as i32,
                        refused.exit_code(),
                        format!("{error:#}"),
                    )
                }))
            },
            |_| Ok(()),
        )?;
        for (directory, files) in [("first", self.files), ("second", self.later)] {
            for (name, ..) in files {
                fs::remove_file(programs.directory(directory).join(name))?;
            }
        }
        let came: Option<Option<(i32, u8, String)>> = outcome.value();
        let Some(Some((errno, code, text))) = came else {
            let seen = match came {
                Some(None) => "it returned an error that is no Refused".into(),
                _ => outcome.in_words(),
            };
            let claim = Claim::new(self.expected, seen, false);
            findings.claim(match (&outcome.ending, self.why) {
                (Ending::Returned, _) => {
                    claim.why("the error has to be a Refused: Refused::new(text, errno)")
                }
                // Another program was found, further on.
                (Ending::Left(_), Some(why)) => claim.why(why),
                _ => claim,
            });
            return Ok(());
        };
        let seen = format!("{:?}, exit code {code}: {text}", Errno::from_raw(errno));
        let claim = Claim::new(self.expected, seen, errno == self.errno as i32);
        findings.claim(match self.why {
            Some(why) => claim.why(why),
            None => claim,
        });
        findings.claim(Claim::new(
            "the error's text begins with execve(",
            text.clone(),
            text.starts_with("execve("),
        ));
        Ok(())
    }
}

/// The search passes over what can't run, and takes the first that can.
fn finds_the_first_that_can_run(findings: &Findings) -> Result<()> {
    let programs = Programs::new(findings)?;
    programs.add("first", "mixed", "#!/bin/sh\nexit 3\n", 0o644)?;
    programs.add("second", "mixed", "#!/bin/sh\nexit 4\n", 0o755)?;
    programs.add("first", "both", "#!/bin/sh\nexit 5\n", 0o755)?;
    programs.add("second", "both", "#!/bin/sh\nexit 6\n", 0o755)?;
    let environment = vec![format!("PATH={}", programs.path()), "X=1".into()];
    programs.add("second", "late", "#!/bin/sh\nexit 9\n", 0o755)?;
    for (name, code, expected, why) in [
        (
            "late",
            9,
            "a program that the last directory of the PATH in `environment` has is found",
            "the search ends too early, or in another PATH than that of `environment`: the caller's own says nothing of the \
             container",
        ),
        (
            "both",
            5,
            "of two programs of one name the first in PATH runs",
            "the directories of PATH are tried in their order, and the first that has the program is the last that is tried",
        ),
        (
            "mixed",
            4,
            "a file without an x bit is passed over when the next directory of PATH has a program",
            "the search ended at EACCES: another directory of PATH may have a program that may be executed",
        ),
    ] {
        findings.begin(expected);
        let command = words(&[name]);
        let outcome = findings
            .subject()
            .call(|| told(step01_uts::exec(&command, &environment)).map(|_| ()))?;
        let holds = outcome.ending == Ending::Left(code);
        findings.claim(Claim::new(expected, outcome.in_words(), holds).why(why));
        if !holds {
            return Ok(());
        }
    }
    Ok(())
}

/// An empty directory of PATH is the current one.
fn in_the_current_directory(findings: &Findings) -> Result<()> {
    let programs = Programs::new(findings)?;
    programs.add("second", "here", "#!/bin/sh\nexit 8\n", 0o755)?;
    let (command, environment) = (words(&["here"]), words(&["PATH=:/nowhere"]));
    let expected = "an empty directory in PATH means the current one";
    findings.begin(expected);
    let directory = programs.directory("second");
    let outcome = findings.subject().call_in(
        || Ok(chdir(&directory)?),
        |()| told(step01_uts::exec(&command, &environment)).map(|_| ()),
        |_| Ok(()),
    )?;
    let holds = outcome.ending == Ending::Left(8);
    findings.claim(Claim::new(expected, outcome.in_words(), holds));
    Ok(())
}

/// A word with a NUL byte can't be passed on, and isn't cut.
fn takes_no_word_with_a_nul(findings: &Findings) -> Result<()> {
    for (expected, command, environment) in [
        (
            "a word with a NUL in it is an error",
            words(&["true", "a\0b"]),
            words(&["PATH=/usr/bin:/bin"]),
        ),
        (
            "a variable with a NUL in it is an error",
            words(&["true"]),
            words(&["PATH=/usr/bin:/bin", "A=b\0c"]),
        ),
    ] {
        findings.begin(expected);
        let outcome = findings
            .subject()
            .call(|| step01_uts::exec(&command, &environment).map(|_| ()))?;
        findings.claim(
            Claim::new(expected, outcome.in_words(), outcome.is_error())
                .why("the text was cut at its NUL, left out, or unwrapped: CString::new says no, and that is the caller's to know"),
        );
    }
    Ok(())
}

//! Chapter 4: a root filesystem of its own.

use crate::course::repairs::{KINDS, Repairs};
use crate::course::workbench::{READY, Workbench};
use crate::course::{Exercise, Mistake};
use crate::host::container::{Container, run};
use crate::host::evidence::Mount;
use crate::host::exit_code;
use crate::host::trace::Call;
use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use probe::Claim;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The exercises of chapter 4.
pub const EXERCISES: &[Exercise] = &[
    Exercise {
        name: "bind_self",
        heart: "pivot swaps mounts, not folders",
        check: bind_self,
        scenes: &[&["--rootfs", "{root}", "true"]],
        mistakes: &[
            Mistake {
                why: "the directory was never mounted. pivot_root exchanges mounts: a directory \
                      that isn't the top of one can't become the root (EINVAL, or EBUSY when it \
                      lies on the old root's own mount)",
                shows: |traces| !traces[0].has("mount", "MS_BIND"),
            },
            Mistake {
                why: "the host's own root was mounted there, so the container got all of it",
                shows: |traces| {
                    traces[0].has("mount", "\"/\", \"")
                        && traces[0].all().any(|call| {
                            call.name == "mount"
                                && call.arguments.starts_with("\"/\",")
                                && call.arguments.contains("MS_BIND")
                        })
                },
            },
            Mistake {
                why: "without MS_REC a bind mount takes one filesystem: what is mounted below \
                      the directory stays behind",
                shows: |traces| {
                    traces[0].all().any(|call| {
                        call.is("mount", "MS_BIND") && !call.arguments.contains("MS_REC")
                    })
                },
            },
        ],
        read: "mount(2) on MS_BIND, pivot_root(2)",
        show: "cargo progress run 4 -- cat /proc/self/mountinfo",
        hints: [
            "pivot_root(2) lists what the new root must be. Your directory isn't that yet. What \
             makes a directory a mount without moving a file?",
            "One mount call: source and target are both new_root, no type, the flags MS_BIND | \
             MS_REC, no data.",
        ],
    },
    Exercise {
        name: "swap_roots",
        heart: "two roots on one point",
        check: swap_roots,
        scenes: &[&["--rootfs", "{root}", "true"]],
        mistakes: &[
            Mistake {
                why: "chroot changes where a path begins, and leaves every mount of the host \
                      where it is; pivot_root takes them away",
                shows: |traces| traces[0].has("chroot", ""),
            },
            Mistake {
                why: "pivot_root(\".\", \".\") came without a chdir(new_root) before it: \".\" was \
                      still a directory of the host",
                shows: |traces| {
                    let calls = traces[0].process(1);
                    let at = |name| calls.iter().position(|call| call.is(name, ""));
                    let swapped = calls
                        .iter()
                        .position(|call| call.is("pivot_root", "\".\", \".\""));
                    swapped.is_some_and(|pivot| at("chdir").is_none_or(|cd| cd > pivot))
                },
            },
            Mistake {
                why: "the old root was put elsewhere. With \".\" for both arguments it lies on top of \
                      the new one, where umount2 of the same \".\" finds it",
                shows: |traces| {
                    let pivot = |call: &&Call| call.is("pivot_root", "");
                    let arguments = traces[0].all().find(pivot).map(|call| &call.arguments);
                    arguments.is_some_and(|arguments| arguments != "\".\", \".\"")
                },
            },
            Mistake {
                why: "the old root is in use by all that runs on the host, so umount2 was refused \
                      (EBUSY). MNT_DETACH takes it out of the tree at once",
                shows: |traces| {
                    let refused = |call: &Call| call.is("umount2", "") && !call.worked();
                    traces[0].all().any(refused)
                },
            },
            Mistake {
                why: "mounts() didn't run between pivot_root and umount2, so the new root has no \
                      procfs of its own",
                shows: |traces| {
                    let calls = traces[0].process(1);
                    let at = |name, part| calls.iter().position(|call| call.is(name, part));
                    let proc = at("mount", "\"/proc\"");
                    let pivot = at("pivot_root", "");
                    pivot.is_some() && proc.is_none_or(|proc| Some(proc) < pivot)
                },
            },
            Mistake {
                why: "the old root was not taken away: it lies on top of the new one, with all \
                      of the host's mounts. umount2(\".\", MNT_DETACH) takes it away",
                shows: |traces| {
                    !traces[0]
                        .all()
                        .any(|call| call.is("umount2", "MNT_DETACH") && call.worked())
                },
            },
        ],
        read: "pivot_root(2) under NOTES, umount2 in umount(2)",
        show: "cargo progress run 4 -- cat /proc/self/mountinfo",
        hints: [
            "After pivot_root(\".\", \".\") two roots lie on one point. Which one is on top, and \
             what does \".\" mean then?",
            "Four lines: chdir(new_root), pivot_root(\".\", \".\"), mounts(), and \
             umount2(\".\", MNT_DETACH). Lazily, because the old root is busy.",
        ],
    },
    Exercise {
        name: "environment",
        heart: "nothing inherited by accident",
        check: environment,
        scenes: &[],
        mistakes: &[],
        read: "environ(7), the documentation of docker run under -e",
        show: "cargo progress run 4 -- -e TERM -e A=1 -e A=2 env",
        hints: [
            "Print `env` in the container. Which of these lines did somebody ask for?",
            "Begin with three variables: PATH={PATH}, HOSTNAME={hostname}, HOME=/root. For each \
             one given: split at the first '='; without one the value is env::var's, if there is \
             any. Take out what has the same key, then push KEY=VALUE.",
        ],
    },
    Exercise {
        name: "repair",
        heart: "ENOENT is about another file",
        check: repair,
        scenes: &[],
        mistakes: &[],
        read: "execve(2) under ENOENT, ld.so(8)",
        show: "cargo run -q -p step04-pivot-root -- --why --rootfs ROOT COMMAND",
        hints: [
            "Ask --why which file is missing; it isn't the one that you typed.",
            "Where the loader is missing, bring it and the libraries from a whole root with tar, \
             which keeps links. Where a link leads nowhere: what is its path inside this root? \
             And look at the first line of a script with `od -c`.",
        ],
    },
];

/// The arguments that run `command` in the root `root`.
fn in_root(root: &Path, command: &[&str]) -> Vec<OsString> {
    let mut arguments = vec!["--rootfs".into(), root.into()];
    arguments.extend(command.iter().map(OsString::from));
    arguments
}

/// A tmpfs on a directory of the root, while a check looks at it.
struct Submount(PathBuf);

impl Submount {
    fn make(target: &Path) -> Result<Submount> {
        let none = None::<&str>;
        mount(Some("below"), target, Some("tmpfs"), MsFlags::empty(), none)?;
        Ok(Submount(target.into()))
    }
}

impl Drop for Submount {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// 4.1: the root is a mount of the directory that was given, with what is mounted below it.
pub fn bind_self(bench: &Workbench) -> Result<Vec<Claim>> {
    let root = bench.root()?;
    let _below = Submount::make(&root.join("run"))?;
    let container = Container::start(&bench.program, &in_root(&bench.root()?, &READY))?;
    let mounts = container.first_process().mounts()?;
    let top = mounts.iter().find(|mount| mount.target == Path::new("/"));
    let top = top.context("/proc/PID/mountinfo has no mount at /")?;
    let submount = mounts
        .iter()
        .find(|mount| mount.target == Path::new("/run"));
    let show = |mount: Option<&Mount>| mount.map_or("nothing".into(), |mount| format!("{mount:?}"));
    Ok(vec![
        Claim::new(
            "the directory is mounted at /",
            format!("/proc/PID/mountinfo: {} at /", top.root.display()),
            // The table has the path in its filesystem, of which we may see only a part, from some directory on.
            root.ends_with(top.root.strip_prefix("/").unwrap_or(&top.root))
                || top.root.ends_with(last_two(&root)),
        ),
        Claim::new(
            "what is mounted below it came along",
            format!("/proc/PID/mountinfo at /run: {}", show(submount)),
            submount.is_some_and(|mount| mount.source == "below"),
        ),
    ])
}

/// The directory's name and that of the one that it is in: no other has both.
fn last_two(path: &Path) -> PathBuf {
    let parts: Vec<_> = path.components().rev().take(2).collect();
    parts.into_iter().rev().collect()
}

/// 4.2: nothing of the host's is left, neither in the mount table nor above the root.
pub fn swap_roots(bench: &Workbench) -> Result<Vec<Claim>> {
    let container = Container::start(&bench.program, &in_root(&bench.root()?, &READY))?;
    let first = container.first_process();
    let mut targets: Vec<_> = first
        .mounts()?
        .into_iter()
        .map(|mount| mount.target)
        .collect();
    targets.sort();
    let own = ["/", "/proc", "/sys"].map(Path::new);
    let names = |directory: PathBuf| -> Result<Vec<OsString>> {
        let entries = fs::read_dir(&directory).with_context(|| directory.display().to_string())?;
        let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        Ok(names)
    };
    let above = names(first.file("root/.."))?;
    let workdir = fs::read_link(first.file("cwd"))?;
    Ok(vec![
        Claim::new(
            "the container has its own three mounts and none of the host's",
            match targets
                .iter()
                .find(|target| !own.contains(&target.as_path()))
            {
                Some(of_host) => format!(
                    "/proc/PID/mountinfo: {} mounts, among them {}",
                    targets.len(),
                    of_host.display()
                ),
                None => format!("/proc/PID/mountinfo: {targets:?}"),
            },
            targets == own,
        ),
        Claim::new(
            "above the root is the root",
            format!("ls /.. in the container: {} names", above.len()),
            above == names(bench.root()?)?,
        ),
        Claim::equal(
            "the command starts in /",
            "/proc/PID/cwd",
            &workdir,
            &PathBuf::from("/"),
        ),
    ])
}

/// 4.3: the environment is what was asked for, and the command is looked for inside.
pub fn environment(bench: &Workbench) -> Result<Vec<Claim>> {
    // A PATH that finds nothing, and a secret.
    let decoy = bench.scratch.join("decoy");
    fs::create_dir_all(&decoy)?;
    let given = [
        "-e",
        "GIVEN=yes",
        "-e",
        "FROM_HOST",
        "-e",
        "HOME=/tmp",
        "-e",
        "ABSENT",
        "-e",
        "H=1",
    ];
    let program = |command: &[&str]| -> Result<Command> {
        let mut program = Command::new(&bench.program);
        program
            .args(given)
            .args(in_root(&bench.root()?, command))
            .env_clear()
            .env("PATH", &decoy)
            .env("FROM_HOST", "taken")
            .env("SECRET", "leaked");
        Ok(program)
    };
    let shell = ["/bin/sh", READY[1], READY[2]];
    let container = Container::start_with(&mut program(&shell)?)?;
    let mut variables = container.first_process().strings("environ")?;
    // Their order is nobody's business.
    variables.sort();
    let looked_up = program(&["true"])?.stderr(Stdio::null()).status()?;
    let wanted = [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOSTNAME=container",
        "GIVEN=yes",
        "FROM_HOST=taken",
        "HOME=/tmp",
        "H=1",
    ];
    let named = |key: &str| {
        let has_key = |variable: &&String| variable.split('=').next() == Some(key);
        variables.iter().filter(has_key).count()
    };
    let path = |variable: &String| *variable == format!("PATH={}", decoy.display());
    let why = if named("SECRET") > 0 {
        Some("all of the host's environment came along, its secrets too")
    } else if named("HOME") > 1 {
        Some(
            "HOME is there twice. Which one counts is each program's guess: of a variable that is \
              given again the old value has to go",
        )
    } else if named("ABSENT") > 0 {
        Some("-e ABSENT asks for the host's value, and the host has none: then it is left out")
    } else if named("HOME") == 0 {
        Some("-e H=1 took HOME away, which begins with the same letter: the whole key has to match")
    } else if named("PATH") == 0 {
        Some("there is no PATH; each string is KEY=VALUE")
    } else if variables.iter().any(path) {
        Some("PATH is the host's: it names directories that the root may not have")
    } else {
        None
    };
    let expected = "the environment is PATH, HOSTNAME and HOME, then what -e asks for: -e GIVEN=yes \
        -e FROM_HOST -e HOME=/tmp -e ABSENT -e H=1";
    let mut wanted = wanted.map(String::from).to_vec();
    wanted.sort();
    let claim = Claim::equal(expected, "/proc/PID/environ", &variables, &wanted);
    Ok(vec![
        claim.because(why.map(String::from)),
        Claim::equal(
            "a command without a slash is looked for in the container's PATH",
            "exit code of true",
            &exit_code(looked_up),
            &0,
        ),
    ])
}

/// 4.4: three roots that answer "No such file or directory" run again.
pub fn repair(bench: &Workbench) -> Result<Vec<Claim>> {
    let (roots, ours) = match &bench.broken {
        Some(folder) => (Repairs::at(folder), false),
        None => (Repairs::at(&bench.scratch.join("broken")), true),
    };
    if ours {
        roots.make()?;
    }
    let mut claims = Vec::new();
    for kind in KINDS {
        let (root, command) = (roots.root(kind), roots.command(kind)?);
        let attempt = || run(&bench.program, &in_root(&root, &[&command]));
        if ours {
            let before = attempt()?;
            roots.mend(kind)?;
            if before.code != 127 {
                bail!("{kind}: {command} isn't broken: {}", before.in_words());
            }
        }
        let after = attempt()?;
        // The program itself says which file the kernel meant.
        let reason = after.errors.lines().next().unwrap_or_default();
        let reason = reason.split_once("(ENOENT): ").map(|(_, why)| why.into());
        claims.push(
            Claim::new(
                format!("{command} runs in {}", root.display()),
                format!("exit code {}", after.code),
                after.code == 0,
            )
            .because(reason),
        );
    }
    Ok(claims)
}

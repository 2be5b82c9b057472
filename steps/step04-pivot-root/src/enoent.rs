//! Why a command doesn't start: "No such file or directory", for which file?
//!
//! `execve` answers with one number for many faults. ENOENT may be about the command, about the
//! loader that an ELF program asks for, or about the interpreter of a script; EACCES about a mode,
//! a directory or a mount. [`explain`] goes the way that the kernel and the loader go, from outside
//! and running nothing, and says where it ends. See execve(2), ld.so(8).

use crate::binfmt::{self, Handler};
use crate::elf::{EXECUTABLE, Elf, SHARED, THIS_MACHINE, machine_name};
use crate::libraries::{self, Missing};
use crate::root::{Broken, Found, Root, Trail, kind, path_from, read_at};
use nix::errno::Errno;
use nix::sys::stat::SFlag;
use std::fmt::{self, Display, Formatter};
use std::fs::File;
use std::path::{Path, PathBuf};
use step01_uts::{Refused, candidates, search_path};
use strsim::damerau_levenshtein;

/// What would happen to a command.
#[derive(Debug)]
pub struct Explanation {
    /// The command's name as it was given.
    pub command: String,
    /// What keeps it from starting; nothing, and it would start.
    pub fault: Option<Fault>,
    /// What was found on the way, a line each.
    pub evidence: Vec<String>,
}

/// What keeps a command from starting.
#[derive(Debug)]
pub struct Fault {
    /// What `execve` answers; nothing where it succeeds and the loader, or env, gives up after it.
    pub errno: Option<Errno>,
    /// The reason, to be read after "No such file or directory: ".
    pub why: String,
    /// What to do about it.
    pub help: String,
}

/// Says why `command` would not start in `root`, from the directory `workdir` and with
/// `environment`, or that it would.
pub fn explain(root: &Root, command: &str, environment: &[String], workdir: &str) -> Explanation {
    let mut inspection = Inspection {
        root,
        environment,
        workdir: Path::new(workdir),
        evidence: Vec::new(),
    };
    let fault = inspection.command(command, 0).err();
    Explanation {
        command: command.to_owned(),
        fault,
        evidence: inspection.evidence,
    }
}

impl Explanation {
    /// The exit code with which the command would end; 0 stands for a command that starts.
    pub fn exit_code(&self) -> u8 {
        match &self.fault {
            None => 0,
            Some(fault) => fault.errno.map_or(127, |errno| {
                Refused::new("execve()".into(), errno).exit_code()
            }),
        }
    }

    /// `refused` with what was found, where that explains it.
    pub fn of(&self, refused: Refused) -> Refused {
        match &self.fault {
            Some(fault) if fault.errno == Some(refused.errno()) => {
                refused.because(self.to_string())
            }
            _ => refused,
        }
    }

    /// The explanation behind the line that names the kernel's answer.
    fn details(&self, f: &mut Formatter) -> fmt::Result {
        for line in &self.evidence {
            write!(f, "\n  {}", visible(line))?;
        }
        match &self.fault {
            Some(fault) => write!(f, "\nhelp: {}", visible(&fault.help)),
            None => Ok(()),
        }
    }

    /// The whole text for `--why`.
    pub fn report(&self) -> String {
        match &self.fault {
            None => format!("{} would start{self}", self.command),
            Some(Fault {
                errno: Some(errno), ..
            }) => {
                let call = format!("execve({:?})", self.command);
                self.of(Refused::new(call, *errno)).to_string()
            }
            Some(Fault { errno: None, .. }) => {
                format!("{}: would end with status 127: {self}", self.command)
            }
        }
    }
}

/// The reason, then the evidence and the help on lines of their own.
impl Display for Explanation {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        if let Some(fault) = &self.fault {
            f.write_str(&visible(&fault.why))?;
        }
        self.details(f)
    }
}

/// A way through the root, and what was met on it.
struct Inspection<'a> {
    root: &'a Root,
    environment: &'a [String],
    workdir: &'a Path,
    evidence: Vec<String>,
}

type Verdict = Result<(), Fault>;

fn fault(errno: Errno, why: impl Into<String>, help: impl Into<String>) -> Verdict {
    Err(Fault {
        errno: Some(errno),
        why: why.into(),
        help: help.into(),
    })
}

/// The kernel follows a script's interpreter to another script, and so on, this often: ELOOP.
const DEEPEST_SCRIPT: u32 = 5;
/// What the kernel reads of a file to see how to run it: BINPRM_BUF_SIZE.
const HEAD: usize = 256;
/// Names read in one directory, in search of a similar one.
const MOST_NAMES: usize = 10_000;

impl Inspection<'_> {
    fn note(&mut self, line: impl Into<String>) {
        self.evidence.push(line.into());
    }

    /// Looks for the command as `exec` of step 1 does: in each directory of PATH until one starts.
    fn command(&mut self, name: &str, depth: u32) -> Verdict {
        if name.contains('/') {
            return self.program(Path::new(name), "it", depth);
        }
        let mut worst = None;
        for candidate in candidates(name, self.environment) {
            let before = std::mem::take(&mut self.evidence);
            let verdict = self.program(Path::new(&candidate), "it", depth);
            let found = std::mem::replace(&mut self.evidence, before);
            let Err(fault) = verdict else {
                self.evidence = found;
                return Ok(());
            };
            match fault.errno {
                Some(Errno::ENOENT | Errno::ENOTDIR) if fault.why == NOT_THERE => {}
                // Another directory may have a better one; if none has, the first fault is told.
                Some(Errno::ENOENT | Errno::EACCES) => {
                    let forbidden = fault.errno == Some(Errno::EACCES);
                    if worst.is_none() || forbidden {
                        worst = Some((fault, found));
                    }
                }
                _ => {
                    self.evidence = found;
                    return Err(fault);
                }
            }
        }
        match worst {
            Some((fault, found)) => {
                self.evidence = found;
                Err(fault)
            }
            None => self.not_on_path(name),
        }
    }

    fn not_on_path(&mut self, name: &str) -> Verdict {
        self.note(format!("PATH is {}", search_path(self.environment)));
        let directories = candidates("", self.environment);
        let known = directories.iter().flat_map(|directory| {
            let names = self
                .root
                .names(Path::new(directory), MOST_NAMES)
                .into_iter();
            names.map(move |known| {
                (
                    damerau_levenshtein(name, &known),
                    format!("{directory}{known}"),
                )
            })
        });
        let nearest = known.min();
        let on_host = candidates(name, &step01_uts::host_environment());
        let on_host = on_host.into_iter().find(|path| Path::new(path).is_file());
        let near = nearest.filter(|(distance, _)| *distance <= 1 + name.chars().count() / 4);
        let help = match (name.split_once(' '), near, on_host) {
            (Some((first, _)), _, _) => format!(
                "the command is one word with a space in it; was it in quotes? Without them its \
                 program is {first}"
            ),
            (_, Some((_, near)), _) => {
                self.note(format!("the nearest name there is {near}"));
                format!("did you mean {}?", near.rsplit('/').next().unwrap_or(&near))
            }
            (_, _, Some(path)) => {
                self.note(format!("{path} is on this machine, and not in the root"));
                format!(
                    "make a root that has it: rootfs-scripts/from-host.sh DIR sh {name}, or install \
                     it into this one"
                )
            }
            _ => "install it into the root, or name it by its full path".into(),
        };
        fault(
            Errno::ENOENT,
            "no directory of the container's PATH has it",
            help,
        )
    }

    /// Looks at the file `path`, which is to be run as `role`: the command itself, an interpreter.
    fn program(&mut self, path: &Path, role: &str, depth: u32) -> Verdict {
        let trail = self.root.follow(self.workdir, path);
        self.note_links(&trail);
        let found = match trail.end {
            Ok(found) => found,
            Err(broken) => return self.broken(path, &broken),
        };
        let what = match kind(&found.stat) {
            SFlag::S_IFREG => None,
            SFlag::S_IFDIR => Some("a directory"),
            SFlag::S_IFIFO => Some("a fifo"),
            SFlag::S_IFSOCK => Some("a socket"),
            SFlag::S_IFCHR | SFlag::S_IFBLK => Some("a device"),
            _ => Some("no plain file"),
        };
        let shown = found.path.display();
        let mode = found.stat.st_mode & 0o7777;
        self.note(format!(
            "{shown} is there: {}, mode {mode:04o}",
            what.unwrap_or("a file")
        ));
        if let Some(what) = what {
            let help = "name a program: a plain file with an x bit";
            return fault(Errno::EACCES, format!("{role} is {what}"), help);
        }
        if found.noexec {
            return fault(
                Errno::EACCES,
                format!("{role} lies on a mount that forbids to run programs (noexec)"),
                format!(
                    "put it elsewhere, or allow it there: mount -o remount,bind,exec MOUNT \
                     (findmnt -T {} names it)",
                    self.root.on_host(&found.path).display()
                ),
            );
        }
        if mode & 0o111 == 0 {
            return fault(
                Errno::EACCES,
                format!("{role} has no x bit"),
                format!("chmod +x {}", self.root.on_host(&found.path).display()),
            );
        }
        match self.root.open(&found) {
            Ok(file) => self.contents(&found, &file, depth),
            Err(errno) => {
                self.note(format!("{shown} can't be read from here: {}", errno.desc()));
                Ok(())
            }
        }
    }

    fn contents(&mut self, found: &Found, file: &File, depth: u32) -> Verdict {
        let head = read_at(file, 0, HEAD);
        if Elf::is(&head) {
            return self.elf(found, file);
        }
        match head.strip_prefix(b"#!") {
            Some(line) => self.script(found, line, depth),
            None => self.unknown(found, &head),
        }
    }

    /// Reads the first line of a script as the kernel does: an interpreter, and at most one
    /// argument.
    fn script(&mut self, found: &Found, line: &[u8], depth: u32) -> Verdict {
        let shown = found.path.display().to_string();
        let host = self.root.on_host(&found.path);
        let Some(end) = line.iter().position(|&byte| byte == b'\n') else {
            self.note(format!(
                "the first line of {shown} doesn't end within {HEAD} bytes"
            ));
            if line.len() == HEAD - 2 {
                let help = "shorten the line, or start the script by name: INTERPRETER SCRIPT";
                return fault(Errno::ENOEXEC, "its #! line is too long", help);
            }
            return self.interpreter(found, line, depth);
        };
        let line = &line[..end];
        self.note(format!(
            "its first line is \"#!{}\"",
            String::from_utf8_lossy(line)
        ));
        if line.ends_with(b"\r") {
            self.note("\\r is a carriage return: the line ends as lines do on Windows");
        }
        let verdict = self.interpreter(found, line, depth);
        match verdict {
            Err(fault) if line.ends_with(b"\r") && fault.errno != Some(Errno::EACCES) => Err(Fault {
                why: "its #! line ends in a carriage return, which the kernel takes for a part of \
                      the name"
                    .into(),
                help: format!("remove the carriage returns: sed -i 's/\\r$//' {}", host.display()),
                ..fault
            }),
            verdict => verdict,
        }
    }

    fn interpreter(&mut self, found: &Found, line: &[u8], depth: u32) -> Verdict {
        let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
        let mut words = line
            .split(|byte| blank(byte) || *byte == 0)
            .filter(|word| !word.is_empty());
        let Some(interpreter) = words.next().map(path_from) else {
            let help = "name one, for example: #!/bin/sh";
            return fault(Errno::ENOEXEC, "its #! line names no interpreter", help);
        };
        if depth >= DEEPEST_SCRIPT {
            let help = "let the #! line name a program that is no script";
            return fault(
                Errno::ELOOP,
                "each of its interpreters is a script again",
                help,
            );
        }
        let shown = found.path.display().to_string();
        self.program(&interpreter, "its interpreter", depth + 1)
            .map_err(|fault| match fault.errno {
                Some(Errno::ENOENT) if fault.why == NOT_THERE => Fault {
                    why: "the interpreter that its #! line names isn't there".into(),
                    help: format!(
                        "install {} into the root, or correct the first line of {shown}",
                        interpreter.display()
                    ),
                    ..fault
                },
                _ => fault,
            })?;
        let argument = words.next();
        match (interpreter.file_name(), argument) {
            (Some(env), Some(argument)) if env == "env" => self.through_env(argument, depth + 1),
            _ => Ok(()),
        }
    }

    /// `#!/usr/bin/env NAME`: the kernel starts env, and env looks for NAME.
    fn through_env(&mut self, name: &[u8], depth: u32) -> Verdict {
        let name = String::from_utf8_lossy(name).into_owned();
        if name.starts_with('-') || name.contains('=') {
            return Ok(());
        }
        let looked_for = name.trim_end_matches('\r').to_owned();
        let before = self.evidence.len();
        let verdict = self.command(&name, depth);
        verdict.map_err(|fault| {
            self.evidence.truncate(before);
            self.note(format!("env looks for \"{}\"", name));
            Fault {
                errno: None,
                why: format!("env doesn't find {looked_for}: {}", fault.why),
                help: fault.help,
            }
        })
    }

    fn elf(&mut self, found: &Found, file: &File) -> Verdict {
        let Some(elf) = Elf::read(file) else {
            let help = "copy it again, whole: the file may have been cut off";
            return fault(Errno::ENOEXEC, "it is a damaged ELF file", help);
        };
        let machine = machine_name(elf.machine);
        self.note(format!(
            "it is an ELF file of {} bits for {machine}",
            elf.bits
        ));
        if !THIS_MACHINE.contains(&elf.machine) {
            if let Some(handler) = binfmt::handler(&read_at(file, 0, HEAD)) {
                return self.emulated(&machine, &handler);
            }
            let here = machine_name(THIS_MACHINE[0]);
            return fault(
                Errno::ENOEXEC,
                format!("it is a program for {machine}, and this machine is {here}"),
                format!(
                    "take a root for {here}, or let the kernel run {machine} through qemu-user: \
                     install qemu-user-static with binfmt-support"
                ),
            );
        }
        if ![EXECUTABLE, SHARED].contains(&elf.kind) {
            let help = "link it first: it may be an object file or a core dump";
            return fault(Errno::ENOEXEC, "it is an ELF file, and no program", help);
        }
        match &elf.interpreter {
            Some(interpreter) => self.loader(found, &elf, &path_from(interpreter)),
            None => {
                self.note("it asks for no loader: it is static");
                Ok(())
            }
        }
    }

    fn emulated(&mut self, machine: &str, handler: &Handler) -> Verdict {
        let emulator = handler.interpreter.display();
        self.note(format!(
            "the kernel runs {machine} through {emulator} (binfmt_misc)"
        ));
        match handler.preloaded {
            true => Ok(()),
            false => self.program(&handler.interpreter, "that emulator", DEEPEST_SCRIPT),
        }
    }

    fn loader(&mut self, found: &Found, elf: &Elf, loader: &Path) -> Verdict {
        self.note(format!(
            "it asks for the loader {} (PT_INTERP)",
            loader.display()
        ));
        let trail = self.root.follow(self.workdir, loader);
        if let Err(broken) = &trail.end {
            self.note_links(&trail);
            self.note(format!("{} isn't there", broken.path.display()));
            let why = match broken.dangling.is_some() {
                true => "the link to the loader that it asks for leads nowhere",
                false => "the loader that it asks for isn't there",
            };
            return fault(broken.errno, why, self.bring(&found.path));
        }
        let before = self.evidence.len();
        self.program(loader, "the loader that it asks for", DEEPEST_SCRIPT)?;
        self.evidence.truncate(before);
        let missing = libraries::missing(
            self.root,
            self.workdir,
            self.environment,
            loader,
            &found.path,
            elf,
        );
        match missing.as_slice() {
            [] => {
                self.note("the loader and the libraries are there");
                Ok(())
            }
            [first, ..] => {
                for library in &missing {
                    self.note_missing(library);
                }
                Err(Fault {
                    errno: None,
                    why: format!("the loader won't find {}", first.name.display()),
                    help: self.bring(&found.path),
                })
            }
        }
    }

    fn bring(&self, program: &Path) -> String {
        format!(
            "the program is whole, the root isn't: copy the loader and the libraries with it, and \
             the links that lead there (rootfs-scripts/from-host.sh DIR {}), or unpack the root \
             again with tar, which keeps links",
            program.file_name().unwrap_or_default().to_string_lossy()
        )
    }

    fn note_missing(&mut self, library: &Missing) {
        let name = library.name.display();
        self.note(format!("{} needs {name}", library.needed_by.display()));
        for (trail, why) in &library.useless {
            self.note_links(trail);
            let why = if trail.end.is_err() {
                "isn't there"
            } else {
                why
            };
            self.note(format!("{} {why}", trail.end_path().display()));
        }
        if library.useless.is_empty() && !library.searched.is_empty() {
            let searched = library
                .searched
                .iter()
                .map(|path| path.display().to_string());
            let searched = searched.collect::<Vec<_>>().join(", ");
            self.note(format!(
                "{name} is neither in /etc/ld.so.cache nor in {searched}"
            ));
        }
    }

    fn note_links(&mut self, trail: &Trail) {
        // A chain that goes in a circle says all that it has to say in its first turns.
        let circle = matches!(&trail.end, Err(broken) if broken.errno == Errno::ELOOP);
        let most = if circle { 3 } else { trail.links.len() };
        for (link, target) in trail.links.iter().take(most) {
            self.note(format!("{} -> {}", link.display(), target.display()));
        }
    }

    fn broken(&mut self, path: &Path, broken: &Broken) -> Verdict {
        let (end, errno) = (&broken.path, &broken.errno);
        match errno {
            Errno::ENOENT if end.as_os_str().is_empty() => {
                return fault(
                    *errno,
                    "its name is empty",
                    "name a program, for example: sh",
                );
            }
            Errno::ENOENT => self.note(format!("{} isn't there", end.display())),
            _ => self.note(format!("{}: {}", end.display(), errno.desc())),
        }
        if *errno == Errno::ELOOP {
            let help = "let one of the links lead to a file";
            return fault(*errno, "its links lead in a circle", help);
        }
        if *errno == Errno::ENOTDIR {
            let help = "name a program, with no slash behind it";
            return fault(*errno, "a file stands where its path has a directory", help);
        }
        if let Some((_, target)) = &broken.dangling {
            let on_host = target.is_absolute() && target.exists();
            if on_host {
                self.note(format!(
                    "{} is on this machine, and not in the root",
                    target.display()
                ));
            }
            let help = match on_host {
                true => "a link in the root leads inside the root: copy the file there as well",
                false => "put the file there, or let the link lead to one that is",
            };
            return fault(*errno, "it is a link that leads nowhere", help);
        }
        let on_host = path.is_absolute() && path.is_file();
        let near = self.nearest_sibling(end);
        let help = match (near, on_host) {
            (Some(near), _) => format!("did you mean {}?", near.display()),
            (None, true) => format!(
                "this machine has {}, the root doesn't: make a root that does with \
                 rootfs-scripts/from-host.sh DIR {}",
                path.display(),
                path.display()
            ),
            (None, false) => "name a program that the root has".into(),
        };
        fault(*errno, NOT_THERE, help)
    }

    /// The name in the same directory that is nearest to the one that isn't there.
    fn nearest_sibling(&self, missing: &Path) -> Option<PathBuf> {
        let name = missing.file_name()?.to_str()?;
        let directory = missing.parent()?;
        let names = self.root.names(directory, MOST_NAMES).into_iter();
        let (distance, near) = names
            .map(|known| (damerau_levenshtein(name, &known), known))
            .min()?;
        (distance <= 1 + name.chars().count() / 4).then(|| directory.join(near))
    }

    /// Neither ELF nor `#!`: the kernel knows no way to run it.
    fn unknown(&mut self, found: &Found, head: &[u8]) -> Verdict {
        let host = self.root.on_host(&found.path);
        let shown = found.path.display();
        let text = !head.contains(&0) && String::from_utf8_lossy(head).is_ascii();
        let (why, help) = match head {
            [] => (
                "the file is empty",
                format!("write it again: {}", host.display()),
            ),
            [0xef, 0xbb, 0xbf, b'#', b'!', ..] => (
                "a byte order mark stands before its #!",
                format!(
                    "remove it: sed -i '1s/^\\xef\\xbb\\xbf//' {}",
                    host.display()
                ),
            ),
            [b'M', b'Z', ..] => (
                "it is a program for Windows",
                "take the one for Linux".into(),
            ),
            [0xcf, 0xfa, 0xed, 0xfe, ..] | [0xca, 0xfe, 0xba, 0xbe, ..] => {
                ("it is a program for macOS", "take the one for Linux".into())
            }
            _ if text => (
                "it is a text that doesn't begin with #!",
                format!("let its first line be #!/bin/sh, or start it by name: sh {shown}"),
            ),
            _ => (
                "it is neither an ELF program nor a script",
                "name a program, or the interpreter that this file is for".into(),
            ),
        };
        if text && !head.is_empty() {
            let line = head.split(|&byte| byte == b'\n').next().unwrap_or_default();
            self.note(format!(
                "its first line is \"{}\"",
                String::from_utf8_lossy(line)
            ));
        }
        fault(Errno::ENOEXEC, why, help)
    }
}

/// What is said of a path without links that leads to nothing.
const NOT_THERE: &str = "it isn't there";

/// Text of the root's as we print it: nothing in it is invisible, a carriage return is `\r`, and no
/// terminal is told to do anything.
fn visible(text: &str) -> String {
    let escape = |character: char| match character.is_control() {
        true => character.escape_debug().to_string(),
        false => character.to_string(),
    };
    text.chars().map(escape).collect()
}

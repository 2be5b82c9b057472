//! The way that the kernel goes from a command's name to a file, and what it asks of each file.

use crate::root::{Broken, Found, Root, Trail, kind, read_at};
use crate::why::elf::Elf;
use crate::why::explanation::{Consequence, Fault};
use crate::why::nearest::Nearest;
use nix::errno::Errno;
use nix::sys::stat::SFlag;
use nix::unistd::geteuid;
use std::path::Path;
use step01_uts::{candidates, host_environment, search_path};

/// The inspection of a command: a way through the root, and what was met on it.
///
/// Each kind of file has its part in a module beside this one, and one leads to the next: a script to its interpreter,
/// an interpreter to its loader.
pub struct Inspection<'a> {
    /// The root in which the command is looked for.
    pub root: &'a Root,
    /// The command's environment.
    pub environment: &'a [String],
    /// The directory that the command starts in.
    pub workdir: &'a Path,
    /// What was met on the way, a line each.
    pub evidence: Vec<String>,
}

/// `Ok` when nothing keeps the command from starting, or the fault that does.
pub type Verdict = Result<(), Fault>;

/// A fault for which `execve` refuses.
pub fn fault(errno: Errno, why: impl Into<String>, help: impl Into<String>) -> Verdict {
    Err(Fault::new(Consequence::Refused(errno), why, help))
}

/// The most lines of evidence: nobody reads more.
const MOST_EVIDENCE: usize = 300;

/// How many bytes of a file the kernel reads to see how to run it: BINPRM_BUF_SIZE.
pub const HEAD: usize = 256;

impl Inspection<'_> {
    /// Adds a line to the evidence.
    pub fn note(&mut self, line: impl Into<String>) {
        if self.evidence.len() < MOST_EVIDENCE {
            self.evidence.push(line.into());
        }
    }

    /// Looks for the command as `exec` of step 1 does: in each directory of PATH until one starts.
    /// `depth` counts the scripts that led here.
    pub fn command(&mut self, name: &str, depth: u32) -> Verdict {
        if name.contains('/') {
            return self.program(Path::new(name), "it", depth);
        }
        let before = self.evidence.len();
        let mut worst: Option<(Fault, Vec<String>)> = None;
        for candidate in candidates(name, self.environment) {
            self.evidence.truncate(before);
            let Err(fault) = self.program(Path::new(&candidate), "it", depth) else {
                return Ok(());
            };
            match fault.consequence {
                _ if fault.absent => {}
                // Another directory may have a better file. If none has, the last EACCES is told,
                // or else the first ENOENT.
                Consequence::Refused(errno @ (Errno::ENOENT | Errno::EACCES)) => {
                    if worst.is_none() || errno == Errno::EACCES {
                        worst = Some((fault, self.evidence.split_off(before)));
                    }
                }
                _ => return Err(fault),
            }
        }
        self.evidence.truncate(before);
        match worst {
            Some((fault, found)) => {
                self.evidence.extend(found);
                Err(fault)
            }
            None => self.not_on_path(name, depth),
        }
    }

    fn not_on_path(&mut self, name: &str, depth: u32) -> Verdict {
        self.note(format!("PATH is {}", search_path(self.environment)));
        let help = self.instead_of(name, depth);
        fault(
            Errno::ENOENT,
            "no directory of the container's PATH has it",
            help,
        )
    }

    /// What to do about a name that no directory of PATH has.
    fn instead_of(&mut self, name: &str, depth: u32) -> String {
        if let Some((first, _)) = name.split_once(' ') {
            return format!(
                "the command is one word with a space in it; was it in quotes? Without them its \
                 program is {first}"
            );
        }
        let on_host = candidates(name, &host_environment());
        if let Some(path) = on_host.into_iter().find(|path| Path::new(path).is_file()) {
            self.note(format!("{path} is on this machine, and not in the root"));
            return format!(
                "make a root that has it: rootfs-scripts/from-host.sh DIR sh {name}, or install it \
                 into this one"
            );
        }
        let mut nearest = Nearest::to(name);
        for directory in candidates("", self.environment) {
            nearest.look_into(self.root, Path::new(&directory));
        }
        match nearest.found() {
            Some(near) => {
                self.note(format!("the nearest name there is {}", near.display()));
                format!(
                    "did you mean {}?",
                    near.file_name().unwrap_or_default().to_string_lossy()
                )
            }
            // Who types an image's name in front, as other engines want it, has typed a command.
            None if depth == 0 => "install it into the root, or name it by its full path; an image is named by --image \
                                   or --rootfs"
                .into(),
            None => "install it into the root, or name it by its full path".into(),
        }
    }

    /// Looks at the file `path`. `role` is what a fault calls it: "it" for the command, or "its interpreter".
    pub fn program(&mut self, path: &Path, role: &str, depth: u32) -> Verdict {
        let trail = self.root.follow(self.workdir, path);
        self.note_links(&trail);
        let found = match trail.end {
            Ok(found) => found,
            Err(broken) => return self.broken(path, &broken),
        };
        let what = what_is(&found).unwrap_or("a file");
        let mode = found.stat.st_mode & 0o7777;
        self.note(format!(
            "{} is there: {what}, mode {mode:04o}",
            found.path.display()
        ));
        self.executable(&found, role)?;
        let Ok(file) = found.open() else {
            return Err(forbidden("read it"));
        };
        let head = read_at(&file, 0, HEAD);
        if Elf::is(&head) {
            return self.elf(&found, &file);
        }
        match head.strip_prefix(b"#!") {
            Some(line) => self.script(&found, line, depth),
            None => self.unknown(&found, &head),
        }
    }

    /// What the kernel asks of every file that it executes.
    pub fn executable(&self, found: &Found, role: &str) -> Verdict {
        if let Some(what) = what_is(found) {
            let help = "name a program: a plain file with an x bit";
            return fault(Errno::EACCES, format!("{role} is {what}"), help);
        }
        if found.noexec {
            let why = format!("{role} lies on a mount that forbids to run programs (noexec)");
            let help = format!(
                "put it elsewhere, or allow it there: mount -o remount,bind,exec MOUNT (in the container, \
                 findmnt -T {} names it)",
                found.path.display()
            );
            return fault(Errno::EACCES, why, help);
        }
        match found.stat.st_mode & 0o111 {
            0 => fault(
                Errno::EACCES,
                format!("{role} has no x bit"),
                format!("chmod +x {}", self.root.place(found)),
            ),
            _ => Ok(()),
        }
    }

    /// Adds the links that were met on the `trail`.
    pub fn note_links(&mut self, trail: &Trail) {
        // A chain that goes in a circle says all that it has to say in its first turns.
        let circle = matches!(&trail.end, Err(broken) if broken.errno == Errno::ELOOP);
        let most = if circle { 3 } else { trail.links.len() };
        for (link, target) in trail.links.iter().take(most) {
            self.note(format!("{} -> {}", link.display(), target.display()));
        }
    }

    /// The fault of a path that leads to no file.
    fn broken(&mut self, path: &Path, broken: &Broken) -> Verdict {
        let end = broken.path.display();
        match broken.errno {
            Errno::EACCES if !geteuid().is_root() => {
                return Err(forbidden(&format!("enter {end}")));
            }
            Errno::ENOENT if broken.path.as_os_str().is_empty() => {
                return fault(
                    broken.errno,
                    "its name is empty",
                    "name a program, for example: sh",
                );
            }
            Errno::ENOENT => self.note(format!("{end} isn't there")),
            errno => self.note(format!("{end}: {}", errno.desc())),
        }
        let (why, help) = match (broken.errno, &broken.dangling) {
            (Errno::ELOOP, _) => (
                "its links lead in a circle",
                "let one of the links lead to a file".into(),
            ),
            (Errno::ENOENT, Some((_, target))) => {
                let on_host = target.is_absolute() && target.exists();
                let help = match on_host {
                    true => "a link in the root leads inside the root: copy the file there as well",
                    false => "put the file there, or let the link lead to one that is",
                };
                if on_host {
                    let target = target.display();
                    self.note(format!("{target} is on this machine, and not in the root"));
                }
                ("it is a link that leads nowhere", help.to_owned())
            }
            (Errno::ENOTDIR, _) => (
                "a file stands where its path has a directory",
                "name a program, with no slash behind it".into(),
            ),
            _ => ("it isn't there", self.instead_of_path(path, &broken.path)),
        };
        let absent = broken.dangling.is_none() || broken.errno == Errno::ENOTDIR;
        Err(Fault {
            absent,
            ..Fault::new(Consequence::Refused(broken.errno), why, help)
        })
    }

    /// What to do about a `path` whose name at `end` isn't there.
    fn instead_of_path(&self, path: &Path, end: &Path) -> String {
        let path_on_host = path.is_absolute() && path.is_file();
        let mut nearest = Nearest::to(&end.file_name().unwrap_or_default().to_string_lossy());
        if let (false, Some(directory)) = (path_on_host, end.parent()) {
            nearest.look_into(self.root, directory);
        }
        let path = path.display();
        match nearest.found() {
            Some(near) => format!("did you mean {}?", near.display()),
            None if path_on_host => format!(
                "this machine has {path}, the root doesn't: make a root that does with \
                 rootfs-scripts/from-host.sh DIR {path}"
            ),
            None => "name a program that the root has".into(),
        }
    }

    /// The fault of a file that is neither ELF nor begins with `#!`: the kernel knows no way to run it.
    fn unknown(&mut self, found: &Found, head: &[u8]) -> Verdict {
        let (shown, host) = (found.path.display(), self.root.place(found));
        let text = !head.is_empty() && !head.contains(&0) && head.is_ascii();
        let (why, help) = match head {
            [] => ("the file is empty", format!("write it again: {host}")),
            [0xef, 0xbb, 0xbf, b'#', b'!', ..] => (
                "a byte order mark stands before its #!",
                format!("remove it: sed -i '1s/^\\xef\\xbb\\xbf//' {host}"),
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
        if text {
            let line = head.split(|&byte| byte == b'\n').next().unwrap_or_default();
            self.note(format!(
                "its first line is \"{}\"",
                String::from_utf8_lossy(line)
            ));
        }
        fault(Errno::ENOEXEC, why, help)
    }
}

/// The kind of a file that can't be executed whatever its mode is; `None` for a plain file.
fn what_is(found: &Found) -> Option<&'static str> {
    match kind(&found.stat) {
        SFlag::S_IFREG => None,
        SFlag::S_IFDIR => Some("a directory"),
        SFlag::S_IFIFO => Some("a fifo"),
        SFlag::S_IFSOCK => Some("a socket"),
        SFlag::S_IFCHR | SFlag::S_IFBLK => Some("a device"),
        _ => Some("no plain file"),
    }
}

/// The fault when the user who asks may not look: it says nothing about the root.
pub fn forbidden(what: &str) -> Fault {
    let why = format!("this user may not {what}");
    Fault::new(Consequence::Unknown, why, "ask again with sudo")
}

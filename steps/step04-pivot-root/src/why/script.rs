//! A file that begins with `#!`: its interpreter, and what env makes of it.

use crate::root::{Found, path_from};
use crate::why::explanation::{Consequence, Fault};
use crate::why::inspection::{HEAD, Inspection, Verdict, fault};
use nix::errno::Errno;

/// The most scripts in a row, each the interpreter of the one before, that the kernel follows. To
/// more of them execve answers ELOOP.
const DEEPEST_SCRIPT: u32 = 5;

/// env's status when it doesn't find a program, and when it can't execute one: env(1).
const ENV_NOT_FOUND: u8 = 127;
const ENV_FORBIDDEN: u8 = 126;

fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

impl Inspection<'_> {
    /// Reads the first line of a script as the kernel does, from no more than [`HEAD`] bytes.
    pub(super) fn script(&mut self, found: &Found, head: &[u8], depth: u32) -> Verdict {
        let line = match head.iter().position(|&byte| byte == b'\n') {
            Some(end) => &head[..end],
            // The kernel cuts a longer line, which does no harm to an interpreter whose name is complete.
            None => {
                let name = head.iter().skip_while(|byte| is_blank(byte));
                let whole = name.clone().any(|byte| is_blank(byte) || *byte == 0);
                if head.len() == HEAD - 2 && name.clone().next().is_some() && !whole {
                    self.note(format!("its first line doesn't end within {HEAD} bytes"));
                    let help = "shorten the line, or start the script by name: INTERPRETER SCRIPT";
                    return fault(Errno::ENOEXEC, "its #! line is too long", help);
                }
                head
            }
        };
        self.note(format!(
            "its first line is \"#!{}\"",
            String::from_utf8_lossy(line)
        ));
        if line.ends_with(b"\r") {
            self.note("\\r is a carriage return: the line ends as lines do on Windows");
        }
        let verdict = self.interpreter(found, line, depth);
        match verdict {
            Err(fault) if line.ends_with(b"\r") && !is_forbidden(&fault) => {
                let why = "its #! line ends in a carriage return, which the kernel takes for a part \
                           of the name";
                let help = format!(
                    "remove the carriage returns: sed -i 's/\\r$//' {}",
                    self.root.place(found)
                );
                Err(Fault::new(fault.consequence, why, help))
            }
            verdict => verdict,
        }
    }

    fn interpreter(&mut self, found: &Found, line: &[u8], depth: u32) -> Verdict {
        let line = line.trim_ascii_start();
        let end = line.iter().position(|byte| is_blank(byte) || *byte == 0);
        let (name, argument) = line.split_at(end.unwrap_or(line.len()));
        if name.is_empty() || name == b"\r" {
            let help = "name one, for example: #!/bin/sh";
            return fault(Errno::ENOEXEC, "its #! line names no interpreter", help);
        }
        if depth >= DEEPEST_SCRIPT {
            let help = "let the #! line name a program that is no script";
            return fault(
                Errno::ELOOP,
                "each of its interpreters is a script again",
                help,
            );
        }
        let interpreter = path_from(name);
        if let Err(fault) = self.program(&interpreter, "its interpreter", depth + 1) {
            if !fault.absent {
                return Err(fault);
            }
            let why = "the interpreter that its #! line names isn't there";
            let help = format!(
                "install {} into the root, or correct the first line of {}",
                interpreter.display(),
                found.path.display()
            );
            return Err(Fault::new(fault.consequence, why, help));
        }
        match interpreter.file_name() {
            Some(name) if name == "env" => self.through_env(argument, depth + 1),
            _ => Ok(()),
        }
    }

    /// `#!/usr/bin/env NAME`: the kernel starts env with the rest of the line as one word, and env
    /// looks for the program of that name.
    fn through_env(&mut self, argument: &[u8], depth: u32) -> Verdict {
        let argument = String::from_utf8_lossy(argument);
        let argument = argument.trim_matches([' ', '\t', '\0']);
        let split = ["-S", "--split-string="];
        let split = split
            .iter()
            .find_map(|option| argument.strip_prefix(option));
        let name = match split {
            // Only -S has env take the rest of the line apart. Options and variables come first.
            Some(words) => {
                let is_program = |word: &&str| !word.starts_with('-') && !word.contains('=');
                words
                    .split_whitespace()
                    .find(is_program)
                    .unwrap_or_default()
            }
            None => argument,
        };
        if name.is_empty() || name.starts_with('-') || name.contains('=') {
            return Ok(());
        }
        self.note(format!("env looks for \"{name}\""));
        if let (None, Some((program, _))) = (split, name.split_once([' ', '\t'])) {
            let why = "the kernel gives env the rest of the line as one word";
            let help =
                format!("have env take it apart: #!/usr/bin/env -S {name} (or only {program})");
            return Err(Fault::new(Consequence::Ends(ENV_NOT_FOUND), why, help));
        }
        let Err(fault) = self.command(name, depth) else {
            return Ok(());
        };
        let status = match fault.consequence {
            // env hands a text without #! to the shell, as execvp(3) does.
            Consequence::Refused(Errno::ENOEXEC) => return Ok(()),
            Consequence::Refused(Errno::EACCES) => Consequence::Ends(ENV_FORBIDDEN),
            Consequence::Refused(_) => Consequence::Ends(ENV_NOT_FOUND),
            outcome => outcome,
        };
        let name = name.trim_end_matches('\r');
        Err(Fault::new(
            status,
            format!("env can't start {name}: {}", fault.why),
            fault.help,
        ))
    }
}

/// Whether a file was found that may not be run: then its name was right.
fn is_forbidden(fault: &Fault) -> bool {
    let forbidden = [
        Consequence::Refused(Errno::EACCES),
        Consequence::Ends(ENV_FORBIDDEN),
        Consequence::Unknown,
    ];
    forbidden.contains(&fault.consequence)
}

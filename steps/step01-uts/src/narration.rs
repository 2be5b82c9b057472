//! What a program says of itself while it runs: its system calls and its errors.

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, RawFd};
use std::path::PathBuf;
use std::sync::OnceLock;

/// Flags that show the program's system calls.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[command(next_help_heading = "Narration")]
pub struct Narration {
    /// Print each system call before it is made
    #[arg(long)]
    verbose: bool,

    /// Append what this program says of itself to FILE instead of standard error
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,

    /// How: text, or json: one object a line
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "text",
        hide_possible_values = true
    )]
    log_format: Format,
}

/// How a line of narration looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// `[4242] unshare(CLONE_NEWUTS)`
    #[default]
    Text,
    /// `{"level":"debug","msg":"unshare(CLONE_NEWUTS)","pid":4242}`
    Json,
}

/// Where the narration goes. Set once, and copied into the container's process by `clone3`.
struct Sink {
    verbose: bool,
    format: Format,
    /// Whether `file` is the file of `--log`.
    is_log: bool,
    file: Option<File>,
}

static SINK: OnceLock<Sink> = OnceLock::new();

impl Narration {
    /// The narration that another program's flags ask for.
    pub fn new(verbose: bool, log: Option<PathBuf>, log_format: Format) -> Narration {
        Narration {
            verbose,
            log,
            log_format,
        }
    }

    /// Narrates as the flags say from here on. Call it once, before the first system call.
    ///
    /// # Errors
    /// The file of `--log` can't be opened for appending.
    pub fn begin(&self) -> Result<()> {
        let open = |path: &PathBuf| {
            let file = File::options().append(true).create(true).open(path);
            file.with_context(|| format!("--log {}", path.display()))
        };
        let mut file = self.log.as_ref().map(open).transpose()?;
        if self.verbose && file.is_none() {
            // A copy, because standard error itself may become a terminal of the container's (step 5).
            file = std::io::stderr()
                .as_fd()
                .try_clone_to_owned()
                .ok()
                .map(File::from);
        }
        let _ = SINK.set(Sink {
            verbose: self.verbose,
            format: self.log_format,
            is_log: self.log.is_some(),
            file,
        });
        Ok(())
    }
}

/// A narration's *legacy*: what a program hands to the program that it becomes by `execve`, so that
/// the narration goes on there (step 9).
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Legacy {
    /// The descriptor that the narration is written to.
    pub descriptor: RawFd,
    verbose: bool,
    format: Format,
    is_log: bool,
}

/// The legacy of this process's narration, if the narration has a descriptor of its own.
pub fn legacy() -> Option<Legacy> {
    let sink = SINK.get()?;
    Some(Legacy {
        descriptor: sink.file.as_ref()?.as_raw_fd(),
        verbose: sink.verbose,
        format: sink.format,
        is_log: sink.is_log,
    })
}

impl Legacy {
    /// Goes on with the narration in the new program.
    ///
    /// # Safety
    /// The descriptor is open, and nothing else in this process owns it.
    pub unsafe fn go_on(self) {
        // SAFETY: the caller promises that the descriptor is open and has no other owner.
        let file = unsafe { File::from_raw_fd(self.descriptor) };
        let _ = SINK.set(Sink {
            verbose: self.verbose,
            format: self.format,
            is_log: self.is_log,
            file: Some(file),
        });
    }
}

/// Ends a narration on standard error, in a process that goes on without its
/// caller. A narration into a log file goes on.
pub fn fall_silent() -> Result<()> {
    let Some(Sink {
        file: Some(file),
        is_log: false,
        ..
    }) = SINK.get()
    else {
        return Ok(());
    };
    let null = File::options().write(true).open("/dev/null")?;
    // SAFETY: `file` owns its descriptor's number before and after: only what the number stands for changes.
    Errno::result(unsafe { libc::dup3(null.as_raw_fd(), file.as_raw_fd(), libc::O_CLOEXEC) })?;
    Ok(())
}

/// Whether system calls are to be narrated.
pub(crate) fn narrating() -> bool {
    SINK.get().is_some_and(|sink| sink.verbose)
}

/// Prints a system call that is about to be made, with the caller's pid as the caller sees it:
/// 1 in a PID namespace of its own.
pub(crate) fn narrate(call: &str) {
    let Some(sink) = SINK.get() else { return };
    let pid = std::process::id();
    sink.write(&match sink.format {
        Format::Text => format!("[{pid}] {call}"),
        Format::Json => json!({"level": "debug", "msg": call, "pid": pid}).to_string(),
    });
}

/// Prints an error of the program `name`, and writes it to a log file too: the user who asked for one looks there.
pub fn complain(name: &str, error: &str) {
    say_at("error", name, error);
}

/// The same for something that the user should know, and that is no error.
pub fn warn(name: &str, warning: &str) {
    say_at("warning", name, warning);
}

fn say_at(level: &str, name: &str, text: &str) {
    let line = format!("{name}: {text}");
    // One write: two programs may have the same standard error, and their lines don't mix then.
    let print = || drop(std::io::stderr().write_all(format!("{line}\n").as_bytes()));
    let Some(sink) = SINK.get() else {
        return print();
    };
    if sink.is_log && level == "error" {
        print();
    }
    sink.write(&match sink.format {
        Format::Text => line,
        Format::Json => json!({"level": level, "msg": text}).to_string(),
    });
}

impl Sink {
    /// Writes a line with one write(2), so that the lines of two processes don't mix. A log that
    /// can't be written is no reason to end a container.
    fn write(&self, line: &str) {
        let line = format!("{line}\n");
        let _ = match &self.file {
            Some(file) => (&*file).write_all(line.as_bytes()),
            None => std::io::stderr().write_all(line.as_bytes()),
        };
    }
}

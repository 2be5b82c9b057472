//! How a program runs, from its arguments to its exit code.

use crate::call::Refused;
use crate::narration::complain;
use anyhow::{Context, Error, Result};
use clap::Parser;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Display, Formatter};
use std::io::{Write, stdout};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

/// Runs `life`, the whole work of a program, on the arguments of the command line, and ends with
/// the exit code that it returns.
///
/// A failure is printed with what to do about it, and ends with the exit code that Docker would
/// give: [`Refused::exit_code`] where a system call was refused, the command's own code where it
/// [`Ended`], 125 for any other failure, for arguments that make no sense, and for a panic.
pub fn program<A: Parser>(life: impl FnOnce(A) -> Result<u8>) -> ExitCode {
    let run = || {
        let args = match A::try_parse() {
            Ok(args) => args,
            Err(error) => {
                let _ = error.print();
                return Ok(if error.use_stderr() { FAILURE } else { 0 });
            }
        };
        life(args)
    };
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(code)) => code.into(),
        Ok(Err(error)) => {
            complain(A::command().get_name(), &explain(&error));
            exit_code(&error).into()
        }
        Err(_) => FAILURE.into(),
    }
}

/// Prints a line to standard output, at once.
///
/// # Errors
/// The line can't be written: the disk is full, or the reader of the pipe has gone.
pub fn say(line: impl AsRef<[u8]>) -> Result<()> {
    let mut output = stdout();
    output
        .write_all(&[line.as_ref(), b"\n"].concat())
        .and_then(|()| output.flush())
        .context("standard output")
}

/// The exit code for a failure of our own.
const FAILURE: u8 = 125;

/// The exit code that tells `error`.
pub fn exit_code(error: &Error) -> u8 {
    let refused = error.downcast_ref::<Refused>().map(Refused::exit_code);
    let ended = error.downcast_ref::<Ended>().map(|ended| ended.code);
    refused.or(ended).unwrap_or(FAILURE)
}

/// The end of a command that is no failure of ours and needs an explanation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ended {
    /// The command's exit code, which becomes ours.
    pub code: u8,
    /// The explanation.
    pub text: String,
}

impl Display for Ended {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Ended {}

/// The error in one line, then what to do about it where that is known. Names in it may be chosen by others, so all of
/// it is made safe for a terminal ([`visible`]).
pub fn explain(error: &Error) -> String {
    let help = error.downcast_ref::<Refused>().and_then(Refused::help);
    let text = match help {
        Some(help) => format!("{error:#}\nhelp: {help}"),
        None => format!("{error:#}"),
    };
    text.split('\n').map(visible).collect::<Vec<_>>().join("\n")
}

/// Text that others may have chosen, made safe to print: on one line, with nothing invisible in it, and without
/// anything that a terminal obeys. A carriage return becomes `\r`.
pub fn visible(text: &str) -> String {
    let show = |character: char| match character {
        ' '..='~' => character.to_string(),
        other => other.escape_debug().to_string(),
    };
    text.chars().map(show).collect()
}

/// A hostname as sethostname(2) takes it: 1 to 64 bytes. For `#[arg(value_parser = hostname)]`.
pub fn hostname(name: &str) -> Result<String, String> {
    const LONGEST: usize = 64; // __NEW_UTS_LEN, without the NUL
    match name.len() {
        0 => Err("a hostname has at least one character".into()),
        1..=LONGEST => Ok(name.into()),
        bytes => Err(format!(
            "{bytes} bytes long, and a hostname has at most {LONGEST} (sethostname(2))"
        )),
    }
}

/// This process's own environment, as `KEY=VALUE` strings. Variables that aren't UTF-8 are left out.
pub fn host_environment() -> Vec<String> {
    std::env::vars_os()
        .filter_map(|(key, value)| Some(format!("{}={}", key.to_str()?, value.to_str()?)))
        .collect()
}

/// Has clap read a plain type by the flags of another, from which it can be made: `flags!(Tty, TtyFlags)`. A program then
/// has a field `tty: Tty` with `#[command(flatten)]`.
#[macro_export]
macro_rules! flags {
    ($plain:ty, $flags:ty) => {
        impl ::clap::FromArgMatches for $plain {
            fn from_arg_matches(matches: &::clap::ArgMatches) -> Result<Self, ::clap::Error> {
                <$flags as ::clap::FromArgMatches>::from_arg_matches(matches).map(Into::into)
            }

            fn update_from_arg_matches(
                &mut self,
                matches: &::clap::ArgMatches,
            ) -> Result<(), ::clap::Error> {
                *self = <Self as ::clap::FromArgMatches>::from_arg_matches(matches)?;
                Ok(())
            }
        }

        impl ::clap::Args for $plain {
            fn augment_args(command: ::clap::Command) -> ::clap::Command {
                <$flags as ::clap::Args>::augment_args(command)
            }

            fn augment_args_for_update(command: ::clap::Command) -> ::clap::Command {
                <$flags as ::clap::Args>::augment_args_for_update(command)
            }
        }
    };
}

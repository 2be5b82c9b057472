//! What engines, and people, type: the command line of runc.

mod begin;
mod delete;
mod events;
mod exec;
mod features;
mod global;
mod kill;
mod list;
mod pause;
mod ps;
mod run;
mod spec;
mod update;

use crate::commands::global::Global;
use crate::report::{self, NAME};
use crate::state::store::Store;
use anyhow::{Error, Result, anyhow};
use clap::{Parser, Subcommand, ValueEnum};
use nix::unistd::geteuid;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use step01_uts::Narration;
use step01_uts::narration::Format;
use step09_detach::sealed::be_sealed;

/// Make, start, enter and remove containers, for an engine or by hand
#[derive(Parser)]
#[command(name = NAME, version = VERSION, subcommand_required = true, arg_required_else_help = true)]
pub struct Args {
    /// Print each system call before it is made, and what of config.json isn't known
    #[arg(long)]
    debug: bool,

    /// Append errors, and what --debug prints, to FILE, too
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

    /// Where containers are written down [default: /run/step12-oci, for a user $XDG_RUNTIME_DIR/step12-oci]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,

    /// Have systemd make the control groups: refused
    #[arg(long)]
    systemd_cgroup: bool,

    /// Do without control groups where there is no right to them: true, false or auto
    #[arg(
        long,
        value_name = "WHETHER",
        default_value = "auto",
        hide_possible_values = true
    )]
    rootless: Rootless,

    /// Taken for runc's sake, and without a meaning: there is no checkpoint
    #[arg(long, value_name = "PATH", hide = true)]
    criu: Option<PathBuf>,

    #[command(subcommand)]
    command: Commands,
}

/// What --version says: engines look for the specification's version.
const VERSION: &str = concat!("version ", env!("CARGO_PKG_VERSION"), "\nspec: 1.3.0");

/// Whether to do without control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Rootless {
    True,
    False,
    Auto,
}

impl Rootless {
    /// Whether it is so: by itself for an ordinary user, and for root in a user namespace that doesn't have all users.
    fn is_meant(self) -> bool {
        match self {
            Rootless::True => true,
            Rootless::False => false,
            Rootless::Auto => {
                let all = |text: String| text.split_whitespace().eq(["0", "0", "4294967295"]);
                let map = std::fs::read_to_string("/proc/self/uid_map");
                !geteuid().is_root() || !map.is_ok_and(all)
            }
        }
    }
}

#[derive(Subcommand)]
enum Commands {
    Create(begin::Create),
    Start(begin::Start),
    Run(run::Run),
    Exec(exec::Exec),
    State(list::State),
    List(list::List),
    Kill(kill::Kill),
    Delete(delete::Delete),
    Ps(ps::Ps),
    Pause(pause::Pause),
    Resume(pause::Resume),
    Update(update::Update),
    Events(events::Events),
    Spec(spec::Spec),
    Features(features::Features),
    /// Refused: containers aren't frozen to a file here
    Checkpoint(Refused),
    /// Refused, as checkpoint
    Restore(Refused),
}

/// A command that is there to say no.
#[derive(clap::Args)]
struct Refused {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _rest: Vec<String>,
}

/// The exit code of `exec` when nothing was executed, as engines know it.
const NOT_EXECUTED: u8 = 255;

/// Executes this program anew from where nobody can change it, if one of `commands` may have been typed.
pub fn be_sealed_for(commands: &[&str]) -> Result<()> {
    let mut words = std::env::args_os();
    match words.any(|word| commands.iter().any(|command| word == *command)) {
        true => be_sealed(),
        false => Ok(()),
    }
}

/// Stands in for the function of the C library. Rust asks at each start for the bounds of its stack, to call an overflow by
/// its name; and the C library finds them by reading /proc/self/maps, with a parser that makes a static program 130 kB
/// larger. Here an overflow is a plain SIGSEGV. See pthread_getattr_np(3).
#[unsafe(no_mangle)]
extern "C" fn pthread_getattr_np(_: libc::pthread_t, _: *mut libc::pthread_attr_t) -> libc::c_int {
    libc::ENOSYS
}

/// The exit code of a failure before anything was read, which is told.
pub fn failed(error: &Error) -> ExitCode {
    report::complain(error);
    ExitCode::FAILURE
}

/// Does what `args` say. Returns the exit code: 1 for a failure of ours.
pub fn end_of(args: Args) -> ExitCode {
    let is_exec = matches!(args.command, Commands::Exec(_));
    let failure = if is_exec { NOT_EXECUTED } else { 1 };
    match catch_unwind(AssertUnwindSafe(|| args.act())) {
        Ok(Ok(code)) => code.into(),
        Ok(Err(error)) => {
            report::complain(&error);
            failure.into()
        }
        Err(_) => failure.into(),
    }
}

impl Args {
    fn act(self) -> Result<u8> {
        let global = Global {
            narration: Narration::new(self.debug, self.log, self.log_format),
            store: Store::at(self.root),
            debug: self.debug,
            rootless: self.rootless.is_meant(),
            systemd: self.systemd_cgroup,
        };
        // These have something to close first.
        let later = matches!(
            self.command,
            Commands::Create(_) | Commands::Run(_) | Commands::Exec(_)
        );
        if !later {
            global.begin()?;
        }
        self.command.run(&global)
    }
}

impl Commands {
    fn run(self, global: &Global) -> Result<u8> {
        match self {
            Commands::Create(create) => create.run(global),
            Commands::Start(start) => start.run(global),
            Commands::Run(run) => run.run(global),
            Commands::Exec(exec) => exec.run(global),
            Commands::State(state) => state.run(global),
            Commands::List(list) => list.run(global),
            Commands::Kill(kill) => kill.run(global),
            Commands::Delete(delete) => delete.run(global),
            Commands::Ps(ps) => ps.run(global),
            Commands::Pause(pause) => pause.run(global),
            Commands::Resume(resume) => resume.run(global),
            Commands::Update(update) => update.run(global),
            Commands::Events(events) => events.run(global),
            Commands::Spec(spec) => spec.run(),
            Commands::Features(features) => features.run(),
            Commands::Checkpoint(_) | Commands::Restore(_) => Err(anyhow!(
                "checkpoint and restore aren't there: this runtime doesn't freeze containers to a file"
            )),
        }
    }
}

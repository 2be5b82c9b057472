//! What people type: a subcommand each, with Docker's names and flags.

pub mod boot;
pub mod inspect;
pub mod logs;
pub mod pause;
pub mod ps;
pub mod run;
pub mod stop;

use crate::commands::boot::Boot;
use crate::commands::inspect::Inspect;
use crate::commands::logs::Logs;
use crate::commands::pause::{Commit, Pause, Unpause};
use crate::commands::ps::List;
use crate::commands::run::{Attach, Create, Run, Start};
use crate::commands::stop::{Kill, Prune, Restart, Rm, Stop, Wait};
use crate::container::name::Rename;
use crate::container::record::Record;
use crate::container::status::Status;
use crate::container::store::{Container, Store};
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use nix::sys::signal::{SigHandler, Signal, signal};
use step01_uts::program::{exit_code, explain};
use step01_uts::say;
use step04_pivot_root::state::StateDir;

/// All that can be done with containers, as of this step.
#[derive(Debug, Subcommand)]
#[allow(missing_docs, reason = "each is told where its flags are")]
pub enum Command {
    Run(Box<Run>),
    Create(Box<Create>),
    #[command(visible_alias = "ls")]
    Ps(List),
    Logs(Logs),
    Attach(Attach),
    Stop(Stop),
    Kill(Kill),
    Pause(Pause),
    Unpause(Unpause),
    Start(Start),
    Restart(Restart),
    Rm(Rm),
    Wait(Wait),
    Inspect(Inspect),
    Rename(Rename),
    Commit(Commit),
    Prune(Prune),
    Boot(Boot),
}

impl Command {
    /// Does it, and returns the exit code.
    pub fn run(self) -> Result<u8> {
        match &self {
            // Who stays with a container tells it that nobody reads.
            Command::Run(run) if !run.detach => {}
            Command::Start(start) if start.attaches() => {}
            Command::Attach(_) | Command::Logs(_) => {}
            _ => end_with_the_reader(),
        }
        match self {
            Command::Run(run) => run.run(),
            Command::Create(create) => create.run(),
            Command::Ps(list) => list.run(),
            Command::Logs(logs) => logs.run(),
            Command::Attach(attach) => attach.run(),
            Command::Stop(stop) => stop.run(),
            Command::Kill(kill) => kill.run(),
            Command::Pause(pause) => pause.run(),
            Command::Unpause(unpause) => unpause.run(),
            Command::Start(start) => start.run(),
            Command::Restart(restart) => restart.run(),
            Command::Rm(rm) => rm.run(),
            Command::Wait(wait) => wait.run(),
            Command::Inspect(inspect) => inspect.run(),
            Command::Rename(rename) => rename.run(),
            Command::Commit(commit) => commit.run(),
            Command::Prune(prune) => prune.run(),
            Command::Boot(boot) => boot.run(),
        }
    }
}

/// Has this process end quietly when nobody reads any more what it prints: SIGPIPE, which Rust ignores.
pub fn end_with_the_reader() {
    // SAFETY: SIG_DFL installs no handler.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
}

/// Which containers, and where they are kept.
#[derive(Debug, Args)]
pub struct Names {
    /// The containers, by their names or their IDs
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) containers: Vec<String>,

    #[command(flatten)]
    pub(crate) state: StateDir,
}

impl Names {
    /// [`each`] of them, and prints its name when it is done, as Docker does.
    pub(crate) fn each(&self, what: impl FnMut(&Container) -> Result<()>) -> Result<u8> {
        each(&self.state, &self.containers, named(what))
    }
}

/// Does something to each container by its name. One that fails doesn't keep the others from it.
pub fn each(
    state: &StateDir,
    names: &[String],
    mut what: impl FnMut(&str, &Container) -> Result<()>,
) -> Result<u8> {
    let store = Store::open(state)?;
    let mut code = 0;
    for name in names {
        match store
            .find(name)
            .and_then(|container| what(name, &container))
        {
            Ok(()) => {}
            Err(error) if names.len() == 1 => return Err(error),
            Err(error) => {
                eprintln!("{}", explain(&error));
                code = exit_code(&error);
            }
        }
    }
    Ok(code)
}

/// Prints the name of what was done.
pub(crate) fn named(
    mut what: impl FnMut(&Container) -> Result<()>,
) -> impl FnMut(&str, &Container) -> Result<()> {
    move |name, container| {
        what(container)?;
        say(name)
    }
}

/// The record of a container that has processes.
pub fn up(container: &Container) -> Result<Record> {
    let record = container.record()?;
    match container.status(&record).is_up() {
        true => Ok(record),
        false => bail!(
            "container {0} isn't running\nhelp: `start {0}` starts it",
            record.name
        ),
    }
}

/// The record of a container that has processes, which may do something.
pub fn awake(container: &Container) -> Result<Record> {
    let record = up(container)?;
    match container.status(&record) {
        Status::Paused => bail!("container {0} is paused\nhelp: `unpause {0}`", record.name),
        _ => Ok(record),
    }
}

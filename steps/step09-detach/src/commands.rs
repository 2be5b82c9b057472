//! What people type: a subcommand each, with Docker's names and flags.

pub mod attach;
pub mod boot;
pub mod commit;
pub mod inspect;
pub mod logs;
pub mod pause;
pub mod ps;
pub mod reader;
pub mod rename;
pub mod rm;
pub mod run;
pub mod start;
pub mod stop;
pub mod targets;
pub mod wait;

use anyhow::Result;
use attach::Attach;
use boot::Boot;
use clap::Subcommand;
use commit::Commit;
use inspect::Inspect;
use logs::Logs;
use pause::{Pause, Unpause};
use ps::List;
use reader::end_with_the_reader;
use rename::Rename;
use rm::{Prune, Rm};
use run::{Create, Run};
use start::Start;
use stop::{Kill, Restart, Stop};
use wait::Wait;

/// All that can be done with containers, as of this step.
#[derive(Debug, Subcommand)]
#[allow(missing_docs, reason = "each is told where its flags are")]
pub enum Commands {
    Run(Box<Run>),
    Create(Box<Create>),
    #[command(flatten)]
    Made(Made),
}

/// All that can be done with containers that are made already.
#[derive(Debug, Subcommand)]
#[allow(missing_docs, reason = "each is told where its flags are")]
pub enum Made {
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

impl Commands {
    /// Runs the subcommand, and returns the exit code.
    pub fn run(self) -> Result<u8> {
        match self {
            Commands::Run(run) => run.run(|_| Ok(())),
            Commands::Create(create) => create.run(|_| Ok(())),
            Commands::Made(made) => made.run(),
        }
    }
}

impl Made {
    /// Runs the subcommand, and returns the exit code.
    pub fn run(self) -> Result<u8> {
        match &self {
            // These commands notice themselves that nobody reads: an attached caller tells the container.
            Made::Start(start) if start.attaches() => {}
            Made::Attach(_) | Made::Logs(_) => {}
            _ => end_with_the_reader(),
        }
        match self {
            Made::Ps(list) => list.run(),
            Made::Logs(logs) => logs.run(),
            Made::Attach(attach) => attach.run(),
            Made::Stop(stop) => stop.run(),
            Made::Kill(kill) => kill.run(),
            Made::Pause(pause) => pause.run(),
            Made::Unpause(unpause) => unpause.run(),
            Made::Start(start) => start.run(),
            Made::Restart(restart) => restart.run(),
            Made::Rm(rm) => rm.run(),
            Made::Wait(wait) => wait.run(),
            Made::Inspect(inspect) => inspect.run(),
            Made::Rename(rename) => rename.run(),
            Made::Commit(commit) => commit.run(),
            Made::Prune(prune) => prune.run(),
            Made::Boot(boot) => boot.run(),
        }
    }
}

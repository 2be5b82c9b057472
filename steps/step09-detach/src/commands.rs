//! What people type: a subcommand each, with Docker's names and flags.

pub mod attach;
pub mod boot;
pub mod commit;
pub mod inspect;
pub mod logs;
pub mod pause;
pub mod ps;
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
use nix::sys::signal::{SigHandler, Signal, signal};
use pause::{Pause, Unpause};
use ps::List;
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
        match &self {
            // These commands notice themselves that nobody reads: an attached caller tells the container.
            Commands::Run(run) if !run.detach => {}
            Commands::Start(start) if start.attaches() => {}
            Commands::Attach(_) | Commands::Logs(_) => {}
            _ => end_with_the_reader(),
        }
        match self {
            Commands::Run(run) => run.run(),
            Commands::Create(create) => create.run(),
            Commands::Ps(list) => list.run(),
            Commands::Logs(logs) => logs.run(),
            Commands::Attach(attach) => attach.run(),
            Commands::Stop(stop) => stop.run(),
            Commands::Kill(kill) => kill.run(),
            Commands::Pause(pause) => pause.run(),
            Commands::Unpause(unpause) => unpause.run(),
            Commands::Start(start) => start.run(),
            Commands::Restart(restart) => restart.run(),
            Commands::Rm(rm) => rm.run(),
            Commands::Wait(wait) => wait.run(),
            Commands::Inspect(inspect) => inspect.run(),
            Commands::Rename(rename) => rename.run(),
            Commands::Commit(commit) => commit.run(),
            Commands::Prune(prune) => prune.run(),
            Commands::Boot(boot) => boot.run(),
        }
    }
}

/// Has this process end quietly when nobody reads any more what it prints: SIGPIPE, which Rust ignores.
pub fn end_with_the_reader() {
    // SAFETY: SIG_DFL installs no handler.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
}

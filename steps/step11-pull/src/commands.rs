//! What people type about images: a subcommand each, with Docker's names and flags.

pub mod history;
pub mod images;
pub mod inspect;
pub mod load;
pub mod login;
pub mod pull;
pub mod rmi;
pub mod run;
pub mod tag;

use anyhow::Result;
use clap::{Args, Subcommand};
use history::History;
use images::ImageList;
use inspect::InspectImage;
use load::Load;
use login::{Login, Logout};
use pull::Pull;
use rmi::{PruneImages, Rmi};
use run::{CreateOfImage, RunImage};
use step09_detach::commands::reader::end_with_the_reader;
use tag::Tag;

/// All that can be done with images.
#[derive(Debug, Subcommand)]
#[allow(missing_docs, reason = "each is told where its flags are")]
pub enum ImageCommands {
    Run(Box<RunImage>),
    Create(Box<CreateOfImage>),
    Pull(Pull),
    Load(Load),
    Images(ImageList),
    Tag(Tag),
    Rmi(Rmi),
    History(History),
    Login(Login),
    Logout(Logout),
    Image(Managed),
}

/// Look after images
#[derive(Debug, Args)]
pub struct Managed {
    #[command(subcommand)]
    command: Manage,
}

#[derive(Debug, Subcommand)]
enum Manage {
    #[command(visible_alias = "list")]
    Ls(ImageList),
    Inspect(InspectImage),
    History(History),
    Pull(Pull),
    Load(Load),
    Tag(Tag),
    #[command(visible_alias = "remove")]
    Rm(Rmi),
    Prune(PruneImages),
}

impl ImageCommands {
    /// Runs the subcommand, and returns the exit code.
    pub fn run(self) -> Result<u8> {
        use ImageCommands as Command;
        if !matches!(self, Command::Run(_) | Command::Create(_)) {
            end_with_the_reader();
        }
        match self {
            Command::Run(run) => run.run(),
            Command::Create(create) => create.run(),
            Command::Login(login) => login.run(),
            Command::Logout(logout) => logout.run(),
            Command::Pull(pull) => pull.run(),
            Command::Load(load) => load.run(),
            Command::Images(images) => images.run(),
            Command::Tag(tag) => tag.run(),
            Command::Rmi(rmi) => rmi.run(),
            Command::History(history) => history.run(),
            Command::Image(Managed { command }) => command.run(),
        }
    }
}

impl Manage {
    fn run(self) -> Result<u8> {
        match self {
            Manage::Ls(images) => images.run(),
            Manage::Inspect(inspect) => inspect.run(),
            Manage::History(history) => history.run(),
            Manage::Pull(pull) => pull.run(),
            Manage::Load(load) => load.run(),
            Manage::Tag(tag) => tag.run(),
            Manage::Rm(rmi) => rmi.run(),
            Manage::Prune(prune) => prune.run(),
        }
    }
}

//! What people type about images: a subcommand each, with Docker's names and flags.

pub mod history;
pub mod images;
pub mod inspect;
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
use login::{Login, Logout};
use pull::Pull;
use rmi::{PruneImages, Rmi};
use run::{CreateOfImage, RunImage};
use step09_detach::commands::end_with_the_reader;
use tag::Tag;

/// All that can be done with images.
#[derive(Debug, Subcommand)]
#[allow(missing_docs, reason = "each is told where its flags are")]
pub enum ImageCommands {
    Run(Box<RunImage>),
    Create(Box<CreateOfImage>),
    Pull(Pull),
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
    Tag(Tag),
    #[command(visible_alias = "remove")]
    Rm(Rmi),
    Prune(PruneImages),
}

impl ImageCommands {
    /// Runs the subcommand, and returns the exit code.
    pub fn run(self) -> Result<u8> {
        match self {
            ImageCommands::Run(run) => run.run(),
            ImageCommands::Create(create) => create.run(),
            other => {
                end_with_the_reader();
                other.look_after()
            }
        }
    }

    fn look_after(self) -> Result<u8> {
        match self {
            ImageCommands::Pull(pull)
            | ImageCommands::Image(Managed {
                command: Manage::Pull(pull),
            }) => pull.run(),
            ImageCommands::Images(images)
            | ImageCommands::Image(Managed {
                command: Manage::Ls(images),
            }) => images.run(),
            ImageCommands::Tag(tag)
            | ImageCommands::Image(Managed {
                command: Manage::Tag(tag),
            }) => tag.run(),
            ImageCommands::Rmi(rmi)
            | ImageCommands::Image(Managed {
                command: Manage::Rm(rmi),
            }) => rmi.run(),
            ImageCommands::History(history)
            | ImageCommands::Image(Managed {
                command: Manage::History(history),
            }) => history.run(),
            ImageCommands::Login(login) => login.run(),
            ImageCommands::Logout(logout) => logout.run(),
            ImageCommands::Image(Managed {
                command: Manage::Inspect(inspect),
            }) => inspect.run(),
            ImageCommands::Image(Managed {
                command: Manage::Prune(prune),
            }) => prune.run(),
            // These have a terminal to look after, too.
            ImageCommands::Run(run) => run.run(),
            ImageCommands::Create(create) => create.run(),
        }
    }
}

//! The containers that a command is for.

use crate::container::Container;
use crate::container::store::Store;
use anyhow::Result;
use clap::Args;
use step01_uts::program::{exit_code, explain};
use step01_uts::say;
use step04_pivot_root::state::StateDir;

/// Which containers, and where they are kept.
#[derive(Debug, Args)]
pub struct Targets {
    /// The containers, by their names or their IDs
    #[arg(value_name = "CONTAINER", required = true)]
    pub(crate) containers: Vec<String>,

    #[command(flatten)]
    pub(crate) state: StateDir,
}

impl Targets {
    /// Does something to [`each`] of them, and prints its name when that is done, as Docker does.
    pub(crate) fn each(&self, what: impl FnMut(&Container) -> Result<()>) -> Result<u8> {
        each(&self.state, &self.containers, named(what))
    }
}

/// Does something to each container by its name. A container that fails doesn't keep the others from it.
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

/// Does the same as `what`, and prints the container's name when that is done.
pub(crate) fn named(
    mut what: impl FnMut(&Container) -> Result<()>,
) -> impl FnMut(&str, &Container) -> Result<()> {
    move |name, container| {
        what(container)?;
        say(name)
    }
}

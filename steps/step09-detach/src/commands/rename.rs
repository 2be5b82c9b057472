//! `rename`: another name for a container.

use crate::container::name::valid;
use crate::container::store::Store;
use anyhow::Result;
use clap::Args;
use step04_pivot_root::state::StateDir;

/// Give a container another name
#[derive(Debug, Args)]
pub struct Rename {
    /// The container, by its name or its ID
    #[arg(value_name = "CONTAINER")]
    container: String,

    /// Its new name
    #[arg(value_name = "NAME", value_parser = valid)]
    name: String,

    #[command(flatten)]
    state: StateDir,
}

impl Rename {
    pub(crate) fn run(&self) -> Result<u8> {
        let container = Store::open(&self.state)?.find(&self.container)?;
        container.rename(&self.name)?;
        Ok(0)
    }
}

//! `pause` and `resume`: all processes of a container stand still, and go on.

use crate::Status;
use crate::commands::global::Global;
use crate::report::Trouble;
use anyhow::Result;
use clap::Args;

/// Stop all processes of a container together
#[derive(Debug, Args)]
pub(crate) struct Pause {
    /// The container's ID
    id: String,
}

/// Let them go on
#[derive(Debug, Args)]
pub(crate) struct Resume {
    /// The container's ID
    id: String,
}

impl Pause {
    pub(crate) fn run(&self, global: &Global) -> Result<u8> {
        let known = global.find(&self.id)?;
        match known.status()? {
            Status::Running | Status::Created => known.groups.freeze(true).map(|()| 0),
            Status::Paused => Ok(0),
            _ => Err(Trouble::NotRunning.into()),
        }
    }
}

impl Resume {
    pub(crate) fn run(&self, global: &Global) -> Result<u8> {
        let known = global.find(&self.id)?;
        match known.status()? {
            Status::Paused => known.groups.freeze(false).map(|()| 0),
            _ => Err(Trouble::NotPaused.into()),
        }
    }
}

//! Commands that have containers hold still: `pause`, and `unpause`.

use crate::commands::targets::Targets;
use crate::container::status::Status;
use anyhow::{Result, bail};
use clap::Args;
use step07_cgroups::cgroup::places::Groups;

/// Stop all processes of containers for a while
#[derive(Debug, Args)]
pub struct Pause {
    #[command(flatten)]
    targets: Targets,
}

/// Have the processes of containers go on
#[derive(Debug, Args)]
pub struct Unpause {
    #[command(flatten)]
    targets: Targets,
}

impl Pause {
    pub(crate) fn run(&self) -> Result<u8> {
        self.targets.each(|container| {
            // `commit` has the container hold still while saving it, under the same lock.
            let _still = container.hold_still()?;
            let record = container.up()?;
            match container.status(&record) {
                Status::Paused => bail!("container {} is paused already", record.name),
                _ => Groups::of(&container.id)?.freeze(true),
            }
        })
    }
}

impl Unpause {
    pub(crate) fn run(&self) -> Result<u8> {
        self.targets.each(|container| {
            let _still = container.hold_still()?;
            let record = container.up()?;
            match container.status(&record) {
                Status::Paused => Groups::of(&container.id)?.freeze(false),
                _ => bail!("container {} isn't paused", record.name),
            }
        })
    }
}

//! `wait`: waits until containers have ended.

use crate::commands::targets::{Targets, each};
use crate::lifecycle::wait;
use anyhow::Result;
use clap::Args;
use step01_uts::say;

/// Wait until containers have ended, and print their exit codes
#[derive(Debug, Args)]
pub struct Wait {
    #[command(flatten)]
    targets: Targets,
}

impl Wait {
    pub(crate) fn run(&self) -> Result<u8> {
        let Targets { state, containers } = &self.targets;
        each(state, containers, |_, container| {
            say(wait(container)?.to_string())
        })
    }
}

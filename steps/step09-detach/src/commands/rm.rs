//! Commands that clear away: `rm`, and `prune`.

use crate::commands::targets::Targets;
use crate::container::record::Newer;
use crate::container::store::Store;
use crate::lifecycle::{remove, runs_on};
use anyhow::Result;
use clap::Args;
use std::io::{Write, stderr, stdin};
use step01_uts::program::{exit_code, explain};
use step01_uts::say;
use step04_pivot_root::state::StateDir;
use step07_cgroups::cgroup::creation::sweep_all;

/// Remove containers, with their changes and logs
#[derive(Debug, Args)]
pub struct Rm {
    /// Kill them first, if they run
    #[arg(short, long)]
    force: bool,

    #[command(flatten)]
    targets: Targets,
}

impl Rm {
    pub(crate) fn run(&self) -> Result<u8> {
        self.targets.each(|container| remove(container, self.force))
    }
}

/// Remove all containers that don't run, and what crashes have left
#[derive(Debug, Args)]
pub struct Prune {
    /// Don't ask
    #[arg(short, long)]
    force: bool,

    #[command(flatten)]
    state: StateDir,
}

impl Prune {
    pub(crate) fn run(&self) -> Result<u8> {
        let store = Store::open(&self.state)?;
        if !self.force && !self.is_sure()? {
            return Ok(0);
        }
        let mut code = 0;
        for container in store.containers()? {
            if let Some(error) = container.record().err().filter(|error| error.is::<Newer>()) {
                eprintln!("{}", explain(&error));
                continue;
            }
            let removed = match container.take_life() {
                Ok(Some(life)) => match runs_on(&container) {
                    Ok(true) => continue,
                    Ok(false) => container.remove(&life),
                    Err(error) => Err(error),
                },
                // The container runs, or somebody else has removed it.
                _ => continue,
            };
            match removed {
                Ok(()) => say(&container.id)?,
                Err(error) => {
                    eprintln!("{}", explain(&error));
                    code = exit_code(&error);
                }
            }
        }
        // A sweep that fails doesn't keep the other.
        for swept in [store.sweep().map(drop), sweep_all()] {
            if let Err(error) = swept {
                eprintln!("{}", explain(&error));
                code = exit_code(&error);
            }
        }
        Ok(code)
    }

    fn is_sure(&self) -> Result<bool> {
        let mut asked = stderr();
        write!(
            asked,
            "All containers that don't run will be removed, with their changes. Go on? [y/N] "
        )?;
        let mut answer = String::new();
        stdin().read_line(&mut answer)?;
        Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
    }
}

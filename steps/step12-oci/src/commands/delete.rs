//! `delete`: removes what is left of a container.

use crate::Status;
use crate::commands::global::Global;
use crate::hooks::{Moment, state_of};
use crate::report::Trouble;
use crate::state::known::Known;
use anyhow::{Result, bail};
use clap::Args;
use std::time::Duration;
use step09_detach::{send, wait_for_end};

/// Remove a container that has ended
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// End it first, and don't mind if it isn't there
    #[arg(short, long)]
    force: bool,

    /// The container's ID
    id: String,
}

impl Delete {
    pub(crate) fn run(&self, global: &Global) -> Result<u8> {
        let container = match global.store.find(&self.id) {
            Err(error) if self.force && is_absent(&error) => return Ok(0),
            container => container?,
        };
        let container = match self.force {
            // Whoever makes it just now can't hold us up, nor can a hook: their container ends.
            true => {
                let known = Known::of(container)?;
                end_all(&known)?;
                known.container
            }
            false => container,
        };
        let _lock = match container.lock() {
            Err(error) if self.force && is_absent(&error) => return Ok(0),
            lock => lock?,
        };
        delete(&Known::of(container)?, self.force).map(|()| 0)
    }
}

fn is_absent(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Trouble>() == Some(&Trouble::DoesNotExist)
}

/// Removes the container: its processes if there are any left, its groups, and what is written down.
///
/// # Errors
/// It runs, and isn't to be ended by `force`.
pub(crate) fn delete(known: &Known, force: bool) -> Result<()> {
    match known.status() {
        Ok(Status::Stopped | Status::Created) => {}
        // Also if it can't be told.
        _ if force => {}
        status => {
            let status = status?;
            let id = known.container.id.clone();
            return Err(Trouble::NotStopped { id, status }.into());
        }
    }
    end_all(known)?;
    // Who never got as far as a process has nobody in its groups: who is there is somebody else's.
    if known.has_begun() || known.processes().is_empty() {
        known.groups.remove()?;
    }
    let config = known.config();
    known.container.remove()?;
    if let (Ok(config), Some(state)) = (config, &known.state) {
        let poststop = Moment {
            name: "poststop",
            hooks: &config.hooks.poststop,
            state: state_of(config, &state.id, Status::Stopped, 0, &state.bundle),
            directory: Some(&state.bundle),
            process: None,
        };
        poststop.run_all();
    }
    Ok(())
}

/// How long processes may take to end when they have been killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Kills all processes of the container, and waits until they have ended.
///
/// # Errors
/// One doesn't end: it waits for a disk, say.
fn end_all(known: &Known) -> Result<()> {
    let Some(state) = &known.state else {
        return match known.has_begun() {
            true => known.signal_all(libc::SIGKILL),
            false => Ok(()),
        };
    };
    let first = state.process.open()?;
    if let Some(first) = &first {
        send(first, libc::SIGKILL)?;
    }
    known.signal_all(libc::SIGKILL)?;
    match first {
        Some(first) if !wait_for_end(&first, Some(PATIENCE))? => {
            bail!(
                "its process {} doesn't end, though it was killed",
                state.process.pid
            )
        }
        _ => Ok(()),
    }
}

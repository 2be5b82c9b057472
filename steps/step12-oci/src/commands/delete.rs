//! `delete`: removes what is left of a container.

use crate::Status;
use crate::commands::Global;
use crate::hooks;
use crate::report::{self, Trouble};
use crate::start::state_of;
use crate::state::known::Known;
use anyhow::Result;
use clap::Args;
use step02_pid::birth::pidfd_open;
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
        let known = match global.find(&self.id) {
            Err(error) if self.force && is_absent(&error) => return Ok(0),
            known => known?,
        };
        if self.force {
            // Whoever makes it just now can't hold us up, nor can a hook: their container ends.
            end_all(&known)?;
        }
        let _lock = match known.container.lock() {
            Err(error) if self.force && is_absent(&error) => return Ok(0),
            lock => lock?,
        };
        delete(&Known::of(known.container)?, self.force).map(|()| 0)
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
    match known.status()? {
        Status::Stopped | Status::Created => {}
        _ if force => {}
        status => {
            let id = known.container.id.clone();
            return Err(Trouble::NotStopped { id, status }.into());
        }
    }
    end_all(known)?;
    known.groups.remove()?;
    let config = known.container.config();
    known.container.remove()?;
    if let (Ok(config), Some(state)) = (config, &known.state) {
        let seen = state_of(&config, &state.id, Status::Stopped, 0, &state.bundle);
        if let Err(error) = hooks::run("poststop", &config.hooks.poststop, &seen) {
            report::warn(&format!("{error:#}"));
        }
    }
    Ok(())
}

/// Kills all processes of the container, and waits until they have ended.
fn end_all(known: &Known) -> Result<()> {
    if let Some(state) = &known.state {
        if let Some(first) = state.process.open()? {
            send(&first, libc::SIGKILL)?;
        }
    }
    // In version 1 a frozen process doesn't hear SIGKILL.
    if known.groups.is_frozen().unwrap_or(false) {
        known.groups.freeze(false)?;
    }
    // Processes that the first one doesn't take along: they are in a PID namespace that others are in, too.
    const TURNS: u32 = 1000;
    for _ in 0..TURNS {
        let mut ended = Vec::new();
        for pid in &known.processes() {
            // Its number may be another process's by now: only who is still in the group is meant.
            let Ok(pidfd) = pidfd_open(*pid) else {
                continue;
            };
            if known.processes().contains(pid) {
                send(&pidfd, libc::SIGKILL)?;
                ended.push(pidfd);
            }
        }
        if ended.is_empty() {
            break;
        }
        for pidfd in ended {
            wait_for_end(&pidfd, None)?;
        }
    }
    if let Some(state) = &known.state {
        if let Some(first) = state.process.open()? {
            wait_for_end(&first, None)?;
        }
    }
    Ok(())
}

//! `kill`: sends a signal.

use crate::Status;
use crate::commands::global::Global;
use crate::report::Trouble;
use crate::state::known::Known;
use anyhow::Result;
use clap::Args;
use step01_uts::call;
use step09_detach::flags::signal;
use step09_detach::pidfd_send_signal;

/// Send a signal to a container's first process
#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// Send it to all of its processes
    #[arg(short, long)]
    all: bool,

    /// The container's ID
    id: String,

    /// The signal, by name or number
    #[arg(default_value = "TERM", hide_default_value = true, value_parser = signal)]
    signal: i32,
}

impl Kill {
    pub(crate) fn run(&self, global: &Global) -> Result<u8> {
        let known = global.find(&self.id)?;
        if self.all {
            return known.signal_all(self.signal).map(|()| 0);
        }
        if !matches!(
            known.status()?,
            Status::Created | Status::Running | Status::Paused
        ) {
            return Err(Trouble::NotRunning.into());
        }
        let Some(first) = known.state()?.process.open()? else {
            return Err(Trouble::NotRunning.into());
        };
        let number = self.signal;
        call!(pidfd_send_signal(&first, number))?;
        if number == libc::SIGKILL {
            end_the_rest(&known)?;
        }
        Ok(0)
    }
}

/// With SIGKILL the whole container is meant. What the first process doesn't take along is in a PID namespace that others
/// are in, too.
fn end_the_rest(known: &Known) -> Result<()> {
    let config = known.config()?;
    let mut namespaces = config.linux.namespaces.iter();
    let own = namespaces.any(|namespace| namespace.kind == "pid" && namespace.path.is_none());
    match own {
        // In version 1 a frozen process doesn't hear SIGKILL before it goes on.
        true if known.groups.is_frozen().unwrap_or(false) => known.groups.freeze(false),
        true => Ok(()),
        false => known.signal_all(libc::SIGKILL),
    }
}

//! `start`: containers that have ended, once more.

use crate::caller::conversation::terminal_size;
use crate::commands::attach::{Leave, converse};
use crate::commands::targets::Targets;
use crate::container::store::Store;
use crate::lifecycle::{begin, begin_detached};
use anyhow::{Result, bail};
use clap::Args;
use step01_uts::Narration;
use step02_pid::signals;

/// Start containers that have ended, with what they changed
#[derive(Debug, Args)]
pub struct Start {
    /// Attach to it
    #[arg(short, long)]
    attach: bool,

    /// Attach, and connect standard input
    #[arg(short, long)]
    interactive: bool,

    #[command(flatten)]
    leave: Leave,

    #[command(flatten)]
    targets: Targets,

    #[command(flatten)]
    narration: Narration,
}

impl Start {
    /// Whether the caller stays attached.
    pub(crate) fn attaches(&self) -> bool {
        self.attach || self.interactive
    }

    pub(crate) fn run(self) -> Result<u8> {
        self.narration.begin()?;
        if !self.attaches() {
            return self.targets.each(begin_detached);
        }
        let Targets { state, containers } = &self.targets;
        let [one] = &containers[..] else {
            bail!("-a: one container at a time has the terminal");
        };
        let container = Store::open(state)?.find(one)?;
        let record = container.record()?;
        signals::hold()?;
        let Some(connection) = begin(&container, terminal_size().ok())? else {
            bail!(
                "container {0} runs already\nhelp: `attach {0}`",
                record.name
            );
        };
        let mut attachment = self.leave.attachment(&record.plan);
        attachment.interactive &= self.interactive;
        converse(connection, &attachment)
    }
}

//! `run`: create and start in one, and stay until the end.

use crate::commands::Global;
use crate::commands::begin::{Beginning, engines_console, start};
use crate::commands::delete::delete;
use crate::start::{Console, create};
use crate::state::known::Known;
use anyhow::Result;
use clap::Args;
use nix::sys::prctl::set_child_subreaper;
use step05_tty::terminal::{Terminal, Tty};
use step09_detach::caller::conversation::terminal_size;

/// Make a container and let its command run
#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    beginning: Beginning,

    /// Don't wait for its end
    #[arg(short, long)]
    detach: bool,

    /// Leave what is written down of the container when it has ended
    #[arg(long)]
    keep: bool,

    /// Leave orphans of the container to somebody else
    #[arg(long)]
    no_subreaper: bool,

    /// The container's ID
    id: String,
}

impl Run {
    pub(crate) fn run(&self, global: &Global) -> Result<u8> {
        let (config, text, wishes) = self.beginning.read(global)?;
        let terminal = config
            .process
            .as_ref()
            .is_some_and(|process| process.terminal);
        let console = match self.detach {
            true => engines_console(terminal, self.beginning.console_socket.as_ref())?,
            false => own_console(terminal)?,
        };
        if !self.detach && !self.no_subreaper {
            set_child_subreaper(true)?;
        }
        let (container, child) =
            create(&global.store, &self.id, &text, &config, &wishes, &console)?;
        let known = Known::of(container)?;
        let begun = start(&known);
        if self.detach {
            return begun
                .map(|()| 0)
                .inspect_err(|_| drop(delete(&known, true)));
        }
        let outcome = begun.and_then(|()| match console {
            Console::Ours(terminal) => terminal.relay(&child),
            _ => child.wait(),
        });
        if !self.keep || outcome.is_err() {
            delete(&known, true)?;
        }
        outcome
    }
}

/// A terminal whose other end is ours, if there is to be one.
pub(crate) fn own_console(terminal: bool) -> Result<Console> {
    if !terminal {
        return Ok(Console::None);
    }
    let tty = Tty {
        interactive: true,
        tty: true,
    };
    let mut terminal = tty.open_apart(terminal_size().ok())?;
    if let Terminal::Pty { is_console, .. } = &mut terminal {
        *is_console = false;
    }
    Ok(Console::Ours(terminal))
}

//! `run`: create and start in one, and stay until the end.

use crate::commands::begin::{Beginning, engines_console, start};
use crate::commands::delete::delete;
use crate::commands::global::Global;
use crate::notify::console::Console;
use crate::start::create;
use anyhow::{Result, bail};
use clap::Args;
use std::io::{IsTerminal, stdin};
use step05_tty::relay::Until;
use step05_tty::terminal::Tty;
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

    /// Taken for runc's sake: orphans of the container are always left to somebody else
    #[arg(long, hide = true)]
    no_subreaper: bool,

    /// The container's ID
    id: String,
}

impl Run {
    pub(crate) fn run(&self, global: &Global) -> Result<u8> {
        let (config, text, wishes) = self.beginning.read(global)?;
        let console = match self.detach {
            true => engines_console(
                config.has_terminal(),
                self.beginning.console_socket.as_ref(),
            )?,
            false => own_console(config.has_terminal())?,
        };
        let (known, child) = create(&global.store, &self.id, (&config, &text), &wishes, &console)?;
        let known = known.with(config);
        let begun = start(&known);
        if self.detach {
            return begun
                .map(|()| 0)
                .inspect_err(|_| drop(delete(&known, true)));
        }
        let outcome = begun.and_then(|()| console.stay_with(&child, Until::AllHaveEnded));
        if !self.keep || outcome.is_err() {
            delete(&known, true)?;
        }
        outcome
    }
}

/// A terminal whose other end is ours, if there is to be one.
///
/// # Errors
/// We have none ourselves.
pub(crate) fn own_console(terminal: bool) -> Result<Console> {
    if !terminal {
        return Ok(Console::None);
    }
    if !stdin().is_terminal() {
        bail!(
            "process.terminal: standard input is no terminal\nhelp: set it to false, or type this in a terminal, or use \
             --console-socket with --detach"
        );
    }
    let tty = Tty {
        interactive: true,
        tty: true,
    };
    Ok(Console::Ours(tty.open_apart(terminal_size().ok())?))
}

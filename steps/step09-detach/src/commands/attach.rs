//! `attach`, and how a caller stays with a container and leaves it.

use crate::caller::connection::Connection;
use crate::caller::conversation::{Attachment, End, attach};
use crate::caller::keys::Keys;
use crate::container::plan::Plan;
use crate::container::store::Store;
use crate::lifecycle::orphan;
use crate::message::{Message, knock};
use anyhow::{Result, bail};
use clap::{ArgAction, Args};
use step02_pid::signals;
use step04_pivot_root::state::StateDir;

/// How one goes.
#[derive(Debug, Args)]
pub(super) struct Leave {
    /// The keys that leave the container, which runs on
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", value_parser = Keys::parse)]
    detach_keys: Keys,

    /// Pass signals on to the container; with false they leave it, and it runs on
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true,
          default_missing_value = "true", action = ArgAction::Set)]
    sig_proxy: bool,
}

impl Leave {
    /// How a caller with these flags is attached.
    pub(super) fn attachment(&self, to: &Plan) -> Attachment {
        Attachment {
            interactive: to.tty.interactive,
            tty: to.tty.tty,
            detach_keys: self.detach_keys.clone(),
            proxy: self.sig_proxy,
            stats: to.limits.stats,
        }
    }
}

/// Stays attached until the caller or the container has gone, and returns the container's exit code.
pub(super) fn converse(connection: Connection, attachment: &Attachment) -> Result<u8> {
    let ending = match attach(connection, attachment)? {
        End::Ended(ending) => ending,
        End::Left(code) => return Ok(code),
        End::Detached => {
            eprintln!("\nread escape sequence");
            return Ok(0);
        }
    };
    if let Some(usage) = ending.usage.filter(|_| attachment.stats) {
        eprintln!("{usage}");
    }
    if let Some(left) = ending.left {
        eprintln!("{left}");
    }
    ending.outcome.map_err(|report| report.into_error())
}

/// Connect the terminal to a container that runs
#[derive(Debug, Args)]
pub struct Attach {
    /// Only watch
    #[arg(long)]
    no_stdin: bool,

    /// The container, by its name or its ID
    #[arg(value_name = "CONTAINER")]
    container: String,

    #[command(flatten)]
    leave: Leave,

    #[command(flatten)]
    state: StateDir,
}

impl Attach {
    pub(crate) fn run(self) -> Result<u8> {
        let container = Store::open(&self.state)?.find(&self.container)?;
        let record = container.awake()?;
        signals::hold()?;
        let Some(socket) = knock(&container)? else {
            match orphan(&container) {
                Some(_) => bail!(
                    "container {0} is running, and its monitor was killed\nhelp: `stop {0}`, and `start` it again",
                    record.name
                ),
                None => bail!("container {} has just ended", record.name),
            }
        };
        let mut attachment = self.leave.attachment(&record.plan);
        attachment.interactive &= !self.no_stdin;
        attachment.proxy &= !self.no_stdin;
        let connection = Connection::with(socket, &Message::Attach).to(&container);
        converse(connection, &attachment)
    }
}

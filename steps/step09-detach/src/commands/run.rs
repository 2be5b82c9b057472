//! Commands that make a container: `run`, and `create`.

use crate::caller::conversation::terminal_size;
use crate::caller::launch::launch;
use crate::commands::attach::{Leave, converse};
use crate::container::Container;
use crate::container::plan::ContainerArgs;
use crate::container::store::Store;
use anyhow::Result;
use clap::Args;
use step01_uts::{Narration, say};
use step02_pid::signals;
use step04_pivot_root::environment;
use step04_pivot_root::why::witness::Witness;
use step07_cgroups::cgroup::group::new_id;
use step08_overlay::changes::Home;

/// Make a container and run its command
#[derive(Debug, Args)]
pub struct Run {
    /// Let it run in the background, and print its ID
    #[arg(short, long)]
    pub(crate) detach: bool,

    /// Say why the command would not start, or that it would; runs nothing and needs no root
    #[arg(long)]
    why: bool,

    #[command(flatten)]
    leave: Leave,

    #[command(flatten)]
    container: ContainerArgs,

    #[command(flatten)]
    narration: Narration,
}

impl Run {
    // ANCHOR: run
    pub(crate) fn run(mut self) -> Result<u8> {
        self.narration.begin()?;
        if self.why {
            return self.foresee();
        }
        let args = &mut self.container;
        if !self.detach {
            args.tty = args.tty.or_for(&args.command);
            args.tty.check()?;
            // Signals that are sent to us from here on are for the command.
            signals::hold()?;
        }
        let attachment = self.leave.attachment(args);
        let store = Store::open(&args.files.state)?;
        let (container, life) = store.create(self.container)?;
        let connection = match launch(&container, life, terminal_size().ok(), true) {
            Ok(connection) => connection,
            Err(error) => {
                discard(&container)?;
                return Err(error);
            }
        };
        if self.detach {
            connection.detach();
            say(&container.id)?;
            return Ok(0);
        }
        converse(connection, &attachment)
    }
    // ANCHOR_END: run

    fn foresee(&self) -> Result<u8> {
        let args = &self.container;
        let id = new_id()?;
        let hostname = args.hostname.as_deref().unwrap_or(&id[..12]);
        let given = [args.tty.environment(), args.env.env.clone()].concat();
        let variables = environment(hostname, &given);
        let layers = args.layers.open(&args.files, Home::Passing(&id), true)?;
        let explanation = layers.show(|root| {
            Witness::new(root, &args.command[0], &variables, &args.env.workdir)?.foresee()
        })?;
        say(explanation.report())?;
        Ok(explanation.exit_code())
    }
}

/// Removes a container that never ran, unless its monitor has done so, or still will.
fn discard(container: &Container) -> Result<()> {
    match container.is_gone() {
        true => Ok(()),
        false => match container.take_life()? {
            Some(life) => container.remove(&life),
            None => Ok(()),
        },
    }
}

/// Make a container, and leave its start for later
#[derive(Debug, Args)]
pub struct Create {
    #[command(flatten)]
    container: ContainerArgs,

    #[command(flatten)]
    narration: Narration,
}

impl Create {
    pub(crate) fn run(self) -> Result<u8> {
        self.narration.begin()?;
        let store = Store::open(&self.container.files.state)?;
        let (container, _life) = store.create(self.container)?;
        say(&container.id)?;
        Ok(0)
    }
}

//! Commands that make a container: `run`, and `create`.

use crate::caller::conversation::terminal_size;
use crate::caller::launch::launch;
use crate::commands::attach::{Leave, converse};
use crate::commands::reader::end_with_the_reader;
use crate::container::Container;
use crate::container::store::{Making, Store};
use crate::flags::ContainerFlags;
use anyhow::Result;
use clap::Args;
use std::mem;
use std::path::Path;
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

    /// The container in the making.
    #[command(flatten)]
    pub container: ContainerFlags,

    #[command(flatten)]
    narration: Narration,
}

impl Run {
    // ANCHOR: run
    /// Makes the container, and has `prepare` put beside its record what it needs; runs the command.
    ///
    /// # Errors
    /// The container wasn't made, or didn't start. Nothing is left of it then.
    pub fn run(mut self, prepare: impl FnOnce(Making) -> Result<()>) -> Result<u8> {
        if self.detach {
            // An attached caller notices itself that nobody reads, and tells the container.
            end_with_the_reader();
        }
        self.narration.begin()?;
        if self.why {
            return self.foresee();
        }
        let ContainerFlags { name, plan } = &mut self.container;
        if !self.detach {
            plan.tty = plan.tty.or_for(plan.command());
            plan.tty.check()?;
            // Signals that are sent to us from here on are for the command.
            signals::hold()?;
        }
        let attachment = self.leave.attachment(plan);
        let store = Store::open(&plan.files.state)?;
        let (container, life) = store.create(name.take(), mem::take(plan), prepare)?;
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
        let plan = &self.container.plan;
        let id = new_id()?;
        let variables = environment(plan.hostname(&id), &plan.variables());
        let layers = plan.layers.open(&plan.files, Home::Passing(&id), true)?;
        let (command, workdir) = (&plan.command()[0], plan.env.workdir());
        let witness = Witness::new(layers.on_host(), command, &variables, workdir)?;
        let volumes = plan.layers.volumes()?;
        let foresee = |root: &Path| witness.foresee(root);
        let explanation = layers.foresee(&plan.layers, &volumes, foresee)?;
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
    /// The container in the making.
    #[command(flatten)]
    pub container: ContainerFlags,

    #[command(flatten)]
    narration: Narration,
}

impl Create {
    /// Makes the container, and has `prepare` put beside its record what it needs.
    ///
    /// # Errors
    /// The container wasn't made. Nothing is left of it then.
    pub fn run(self, prepare: impl FnOnce(Making) -> Result<()>) -> Result<u8> {
        end_with_the_reader();
        self.narration.begin()?;
        let ContainerFlags { name, plan } = self.container;
        let store = Store::open(&plan.files.state)?;
        let (container, _life) = store.create(name, plan, prepare)?;
        say(&container.id)?;
        Ok(0)
    }
}

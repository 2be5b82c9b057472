//! Commands that have a container hold still: `pause`, `unpause`, and `commit`, which saves it meanwhile.

use crate::caller::connection::{Answer, Connection};
use crate::commands::{Names, up};
use crate::container::status::Status;
use crate::container::store::{Container, Lock, Store};
use crate::message::{Message, knock};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::path::Path;
use step02_pid::signals;
use step04_pivot_root::root::directory_at;
use step04_pivot_root::state::StateDir;
use step07_cgroups::cgroup::places::Groups;
use step08_overlay::image::commit::Archive;

/// Stop all processes of containers for a while
#[derive(Debug, Args)]
pub struct Pause {
    #[command(flatten)]
    names: Names,
}

/// Have the processes of containers go on
#[derive(Debug, Args)]
pub struct Unpause {
    #[command(flatten)]
    names: Names,
}

impl Pause {
    pub(crate) fn run(&self) -> Result<u8> {
        self.names.each(|container| {
            // Who saves it has it hold still meanwhile.
            let _still = container.hold_still()?;
            let record = up(container)?;
            match container.status(&record) {
                Status::Paused => bail!("container {} is paused already", record.name),
                _ => Groups::of(&container.id)?.freeze(true),
            }
        })
    }
}

impl Unpause {
    pub(crate) fn run(&self) -> Result<u8> {
        self.names.each(|container| {
            let _still = container.hold_still()?;
            let record = up(container)?;
            match container.status(&record) {
                Status::Paused => Groups::of(&container.id)?.freeze(false),
                _ => bail!("container {} isn't paused", record.name),
            }
        })
    }
}

/// Save a container's root as an archive
#[derive(Debug, Args)]
pub struct Commit {
    /// The container, by its name or its ID
    #[arg(value_name = "CONTAINER")]
    container: String,

    /// FILE.tar, FILE.tar.gz or FILE.tar.zst
    #[arg(value_name = "FILE", value_parser = Archive::parse)]
    file: Archive,

    #[command(flatten)]
    state: StateDir,
}

impl Commit {
    pub(crate) fn run(self) -> Result<u8> {
        let container = Store::open(&self.state)?.find(&self.container)?;
        self.file.check()?;
        let record = container.record()?;
        // Nobody may have it go on before it is saved, or start it, or remove it.
        let _still = container.hold_still()?;
        let running = container.status(&record) == Status::Running;
        let groups = Groups::of(&record.id)?;
        let _life = match container.status(&record).is_up() {
            true => None,
            false => Some(container.take_life()?.with_context(|| {
                format!(
                    "container {} is being started, removed or copied to by somebody else",
                    record.name
                )
            })?),
        };
        // One that is paused stays so.
        let mut monitor = None;
        if running {
            // Its monitor has it go on when we are interrupted, or killed. Without one we mustn't be.
            monitor = knock(&container)?.map(|socket| Connection::with(socket, &Message::Wait));
            let heard = match &monitor {
                Some(monitor) => monitor.insist(&Message::Still)? == Answer::Heard,
                None => false,
            };
            if !heard {
                signals::hold()?;
            }
            groups.freeze(true)?;
        }
        let args = &record.arguments;
        let show = |root: &Path| {
            self.file
                .write(&directory_at(root)?, &container.store().state)
        };
        let saved = args.layers.show(&args.files, &container.folder, show);
        if running {
            groups.freeze(false)?;
        }
        if let Some(monitor) = monitor {
            // From here on somebody else may pause it.
            monitor.insist(&Message::GoesOn)?;
        }
        saved.map(|()| 0)
    }
}

/// Has the processes of a container go on, if it is paused: who is frozen hears nothing, in version 1 not even
/// SIGKILL. Nobody pauses it again as long as the lock is held.
pub(crate) fn thaw(container: &Container) -> Result<Lock> {
    let going = container.keep_going()?;
    let groups = Groups::of(&container.id)?;
    if groups.is_frozen().unwrap_or(false) {
        groups.freeze(false)?;
    }
    Ok(going)
}

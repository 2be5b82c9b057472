//! `commit`: a container's root as an archive.

use crate::caller::connection::{Answer, Connection};
use crate::container::status::Status;
use crate::container::store::Store;
use crate::message::{Message, knock};
use anyhow::{Context, Result};
use clap::Args;
use std::path::Path;
use step02_pid::signals;
use step04_pivot_root::root::directory_at;
use step04_pivot_root::state::StateDir;
use step07_cgroups::cgroup::places::Groups;
use step08_overlay::image::commit::Archive;

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
        // Nobody may have the container go on before it is saved, or start it, or remove it.
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
        // A container that is paused stays so.
        let mut monitor = None;
        if running {
            // The monitor has the container go on when we are interrupted, or killed. Without a monitor we mustn't be.
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
        let plan = &record.plan;
        let show = |root: &Path| {
            self.file
                .write(&directory_at(root)?, &container.folders().state)
        };
        let saved = plan.layers.show(&plan.files, &container.folder, show);
        if running {
            groups.freeze(false)?;
        }
        if let Some(monitor) = monitor {
            // When this process ends, the monitor is to leave the container as it is: somebody else may have paused it
            // by then.
            monitor.insist(&Message::GoesOn)?;
        }
        saved.map(|()| 0)
    }
}

//! What a machine does for its containers when it starts.

use crate::commands::targets::{each, named};
use crate::container::record::Record;
use crate::container::store::{Inventory, Store};
use crate::lifecycle::begin_detached;
use anyhow::Result;
use clap::Args;
use std::env;
use std::path::Path;
use step01_uts::program::explain;
use step01_uts::say;
use step04_pivot_root::state::{StateDir, USUAL};

/// After a boot: start the containers with --restart always or unless-stopped, and remove those with --rm
#[derive(Debug, Args)]
pub struct Boot {
    /// Print the systemd unit that does this when the machine starts
    #[arg(long)]
    unit: bool,

    #[command(flatten)]
    state: StateDir,
}

impl Boot {
    /// Starts the containers, or prints the unit.
    pub fn run(&self) -> Result<u8> {
        let store = Store::open(&self.state)?;
        if self.unit {
            let program = env::current_exe()?;
            let state = match store.folders().state.as_path() {
                path if path == Path::new(USUAL) => String::new(),
                path => format!(" --state-dir {}", quoted(path)),
            };
            say(format!(
                "[Unit]\n\
                 Description=Containers that start with the machine\n\
                 After=local-fs.target network.target\n\
                 \n\
                 [Service]\n\
                 Type=oneshot\n\
                 RemainAfterExit=yes\n\
                 # Each container has a monitor, which goes on when this command has ended.\n\
                 KillMode=process\n\
                 ExecStart={} boot{state}\n\
                 \n\
                 [Install]\n\
                 WantedBy=multi-user.target",
                quoted(&program)
            ))?;
            return Ok(0);
        }
        let Inventory { records, broken } = store.records()?;
        for error in &broken {
            eprintln!("{}", explain(error));
        }
        let names = |of: &dyn Fn(&Record) -> bool| -> Vec<String> {
            let down = records.iter().rev().filter(|(container, record)| {
                record.state.started.is_some() && !container.status(record).is_up()
            });
            down.filter(|(_, record)| of(record))
                .map(|(_, record)| record.name.clone())
                .collect()
        };
        // The monitors of containers with --rm would have removed them.
        let ended = names(&|record| record.plan.rm);
        let removed = each(&self.state, &ended, |_, container| {
            let life = container.take_life()?;
            life.map_or(Ok(()), |life| container.remove(&life))
        });
        let wanted = names(&|record| record.plan.restart.at_boot(record.state.stopped));
        let started = each(&self.state, &wanted, named(begin_detached));
        // A container that fails keeps no other from starting.
        Ok(removed?.max(started?))
    }
}

/// A path as a word of a systemd unit.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let escaped = text.chars().map(|letter| match letter {
        '"' | '\\' => format!("\\{letter}"),
        '%' | '$' => format!("{letter}{letter}"),
        letter => letter.to_string(),
    });
    format!("\"{}\"", escaped.collect::<String>())
}

//! What a machine does for its containers when it starts.

use crate::commands::{each, named};
use crate::running::begin_detached;
use crate::store::Store;
use anyhow::Result;
use clap::Args;
use std::env;
use std::path::Path;
use step04_pivot_root::files::{State, USUAL};

/// Start the containers that asked for it by --restart always or unless-stopped
#[derive(Debug, Args)]
pub struct Boot {
    /// Print the systemd unit that does this when the machine starts
    #[arg(long)]
    unit: bool,

    #[command(flatten)]
    state: State,
}

impl Boot {
    /// Starts them, or prints the unit.
    pub fn run(&self) -> Result<u8> {
        let store = Store::open(&self.state)?;
        if self.unit {
            let program = env::current_exe()?;
            let state = match store.state.as_path() {
                path if path == Path::new(USUAL) => String::new(),
                path => format!(" --state-dir {}", path.display()),
            };
            print!(
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
                 WantedBy=multi-user.target\n",
                program.display()
            );
            return Ok(0);
        }
        let records = store.records()?.records;
        for (container, record) in &records {
            // Its monitor would have removed it.
            if record.arguments.rm && !container.status(record).is_up() {
                if let Some(life) = container.take_life()? {
                    container.remove(&life)?;
                }
            }
        }
        let wanted = records.iter().rev().filter(|(container, record)| {
            let state = &record.state;
            record.arguments.restart.at_boot(state.stopped)
                && state.started.is_some()
                && !container.status(record).is_up()
        });
        let names: Vec<String> = wanted.map(|(_, record)| record.name.clone()).collect();
        each(&self.state, &names, named(begin_detached))
    }
}

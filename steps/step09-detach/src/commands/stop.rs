//! Commands that have containers end: `stop`, `kill` and `restart`.

use crate::caller::connection::Connection;
use crate::commands::targets::Targets;
use crate::flags::signal;
use crate::lifecycle::{Request, begin_detached, end};
use crate::message::{Message, Rest, knock};
use crate::send;
use anyhow::{Result, bail};
use clap::Args;
use std::time::Duration;

/// Ask containers to end, and insist after a while
#[derive(Debug, Args)]
pub struct Stop {
    #[command(flatten)]
    asking: Asking,

    #[command(flatten)]
    targets: Targets,
}

/// How a container is asked to end, as it is typed.
#[derive(Debug, Args)]
struct Asking {
    /// How long to wait before it is killed, in seconds; -1: for ever
    #[arg(short = 't', long = "timeout", alias = "time", value_name = "SECONDS", default_value = "10",
          allow_negative_numbers = true, value_parser = patience)]
    timeout: Patience,

    /// The signal to ask with [default: that of --stop-signal]
    #[arg(short, long, value_name = "SIGNAL", value_parser = signal)]
    signal: Option<i32>,
}

impl Asking {
    fn request(&self, rest: Rest) -> Request {
        Request {
            signal: self.signal,
            patience: self.timeout.0,
            rest,
        }
    }
}

/// A time to wait; `None`: for ever.
#[derive(Debug, Clone, Copy)]
struct Patience(Option<Duration>);

fn patience(text: &str) -> Result<Patience, String> {
    match text.parse::<f64>() {
        Ok(-1.0) => Ok(Patience(None)),
        Ok(seconds) => Duration::try_from_secs_f64(seconds)
            .map(|duration| Patience(Some(duration)))
            .map_err(|error| error.to_string()),
        Err(_) => Err("it takes a number of seconds, or -1 for ever".into()),
    }
}

impl Stop {
    pub(crate) fn run(&self) -> Result<u8> {
        self.targets
            .each(|container| end(container, &self.asking.request(Rest::ForGood)))
    }
}

/// Send containers a signal
#[derive(Debug, Args)]
pub struct Kill {
    /// The signal
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL", value_parser = signal)]
    signal: i32,

    #[command(flatten)]
    targets: Targets,
}

impl Kill {
    pub(crate) fn run(&self) -> Result<u8> {
        self.targets.each(|container| {
            let record = container.up()?;
            if self.signal == libc::SIGKILL {
                return end(container, &Request::KILL);
            }
            if self.signal == record.plan.stop_signal() {
                // A caller that asks the container to end doesn't want it started again.
                if let Some(socket) = knock(container)? {
                    Connection::with(socket, &Message::Wait)
                        .insist(&Message::End(Rest::ForGood))?;
                }
            }
            let process = record.state.process.as_ref();
            match process.map(|process| process.open()).transpose()?.flatten() {
                Some(pidfd) => send(&pidfd, self.signal),
                None => bail!("{} has just ended", record.name),
            }
        })
    }
}

/// Stop containers and start them again
#[derive(Debug, Args)]
pub struct Restart {
    #[command(flatten)]
    asking: Asking,

    #[command(flatten)]
    targets: Targets,
}

impl Restart {
    pub(crate) fn run(&self) -> Result<u8> {
        self.targets.each(|container| {
            let record = container.record()?;
            if record.plan.rm {
                bail!(
                    "container {} is removed when it ends (--rm), and can't be started again\nhelp: `stop` it, and \
                     `run` another",
                    record.name
                );
            }
            // Should this process get no further, the container is started after a reboot.
            end(container, &self.asking.request(Rest::UntilBoot))?;
            begin_detached(container)
        })
    }
}

//! `ps`: the processes of a container.

use crate::commands::global::Global;
use crate::commands::list::Format;
use anyhow::{Context, Result, bail};
use clap::Args;
use std::process::Command;
use step01_uts::say;

/// Show a container's processes
#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// table or json
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        default_value = "table",
        hide_possible_values = true
    )]
    format: Format,

    /// The container's ID
    id: String,

    /// Options of ps(1) [default: -ef]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

impl Ps {
    pub(crate) fn run(&self, global: &Global) -> Result<u8> {
        let pids = global.find(&self.id)?.processes();
        if self.format == Format::Json {
            say(serde_json::to_string(&pids)?)?;
            return Ok(0);
        }
        let usual = ["-ef".to_owned()];
        let options = if self.options.is_empty() {
            &usual[..]
        } else {
            &self.options
        };
        let output = Command::new("ps").args(options).output().context("ps")?;
        if !output.status.success() {
            bail!(
                "ps {}: {}",
                options.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let mut lines = text.lines();
        let heading = lines.next().unwrap_or_default();
        let column = heading.split_whitespace().position(|name| name == "PID");
        let column = column.context("ps: these options show no column PID")?;
        say(heading)?;
        for line in lines {
            let pid = line
                .split_whitespace()
                .nth(column)
                .and_then(|pid| pid.parse().ok());
            if pid.is_some_and(|pid| pids.contains(&pid)) {
                say(line)?;
            }
        }
        Ok(0)
    }
}

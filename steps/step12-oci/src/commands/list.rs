//! `state` and `list`: what containers there are, and what they do.

use crate::commands::global::Global;
use crate::report;
use crate::state::known::Known;
use anyhow::Result;
use clap::{Args, ValueEnum};
use serde_json::{Value, to_string_pretty};
use step01_uts::say;

/// Print what is known of a container, as JSON
#[derive(Debug, Args)]
pub(crate) struct State {
    /// The container's ID
    id: String,
}

impl State {
    pub(crate) fn run(&self, global: &Global) -> Result<u8> {
        say(to_string_pretty(&global.find(&self.id)?.shown()?)?)?;
        Ok(0)
    }
}

/// List all containers
#[derive(Debug, Args)]
pub(crate) struct List {
    /// table or json
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        default_value = "table",
        hide_possible_values = true
    )]
    format: Format,

    /// Their IDs alone
    #[arg(short, long)]
    quiet: bool,
}

/// How a list looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
}

impl List {
    pub(crate) fn run(&self, global: &Global) -> Result<u8> {
        let mut found = Vec::new();
        for container in global.store.list()? {
            let id = container.id.clone();
            // It may be removed just now; and one that can't be read hides no other.
            match Known::of(container).and_then(|known| known.shown()) {
                Ok(shown) => found.push(shown),
                Err(error) => report::warn(&format!("{id}: {error:#}")),
            }
        }
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        };
        if self.quiet {
            for each in &found {
                say(text(&each["id"]))?;
            }
        } else if self.format == Format::Json {
            say(serde_json::to_string(&found)?)?;
        } else {
            let fields = ["id", "pid", "status", "bundle", "created", "owner"];
            let mut rows = vec![fields.map(str::to_uppercase)];
            rows.extend(
                found
                    .iter()
                    .map(|each| fields.map(|field| text(&each[field]))),
            );
            let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
            let widths: Vec<_> = (0..fields.len()).map(width).collect();
            for row in &rows {
                let cells = row
                    .iter()
                    .zip(&widths)
                    .map(|(cell, width)| format!("{cell:width$}"));
                say(cells.collect::<Vec<_>>().join("   ").trim_end())?;
            }
        }
        Ok(0)
    }
}

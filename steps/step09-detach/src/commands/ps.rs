//! `ps`: the containers, and what they are doing.

use crate::container::Container;
use crate::container::plan::SHORT;
use crate::container::record::Record;
use crate::container::status::{Status, rough, sentence};
use crate::container::store::{Inventory, Store};
use anyhow::Result;
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::str::FromStr;
use step01_uts::program::explain;
use step01_uts::say;
use step04_pivot_root::state::StateDir;

/// List containers
#[derive(Debug, Args)]
pub struct List {
    /// Also those that don't run
    #[arg(short, long)]
    all: bool,

    /// Only the IDs
    #[arg(short, long)]
    quiet: bool,

    /// Show everything in full
    #[arg(long)]
    no_trunc: bool,

    /// Only those with name=TEXT, id=TEXT, status=STATUS, exited=CODE or ancestor=IMAGE; a key given
    /// again is one more choice
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = ListFilter::from_str)]
    filter: Vec<ListFilter>,

    /// How: table, or json: one object a line
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "table",
        hide_possible_values = true
    )]
    format: ListFormat,

    #[command(flatten)]
    state: StateDir,
}

/// How a list looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    /// Columns with a heading.
    Table,
    /// One object a line.
    Json,
}

/// One `--filter`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ListFilter {
    Name(String),
    Id(String),
    Status(Status),
    Exited(u8),
    Ancestor(String),
}

impl FromStr for ListFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<ListFilter, String> {
        let (key, value) = text.split_once('=').ok_or("a filter is KEY=VALUE")?;
        let statuses = [
            Status::Created,
            Status::Running,
            Status::Paused,
            Status::Restarting,
            Status::Exited,
        ];
        let status = || statuses.into_iter().find(|status| status.word() == value);
        match key {
            "name" => Ok(ListFilter::Name(value.into())),
            "id" => Ok(ListFilter::Id(value.into())),
            "ancestor" => Ok(ListFilter::Ancestor(value.into())),
            "status" => status().map(ListFilter::Status).ok_or_else(|| {
                let words = statuses.map(Status::word).join(", ");
                format!("there is no status {value}: there are {words}")
            }),
            "exited" => match value.parse() {
                Ok(code) => Ok(ListFilter::Exited(code)),
                Err(_) => Err("an exit code is 0 to 255".into()),
            },
            _ => Err(format!(
                "there is no filter {key}: there are name, id, status, exited and ancestor"
            )),
        }
    }
}

impl ListFilter {
    fn lets(&self, record: &Record, status: Status) -> bool {
        match self {
            ListFilter::Name(part) => record.name.contains(part),
            ListFilter::Id(begin) => record.id.starts_with(begin),
            ListFilter::Status(wanted) => *wanted == status,
            ListFilter::Exited(code) => {
                status == Status::Exited && record.state.exit_code == Some(*code)
            }
            ListFilter::Ancestor(image) => record.plan.image() == *image,
        }
    }
}

/// A line of the list. The names of the fields are Docker's.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Line {
    #[serde(rename = "ID")]
    id: String,
    image: String,
    command: String,
    created_at: String,
    running_for: String,
    state: Status,
    status: String,
    names: String,
}

impl List {
    /// Prints the list.
    pub fn run(&self) -> Result<u8> {
        let store = Store::open(&self.state)?;
        let Inventory { records, broken } = store.records()?;
        let lines: Vec<Line> = records
            .iter()
            .filter_map(|(container, record)| self.line(container, record))
            .collect();
        if self.quiet {
            lines.iter().try_for_each(|line| say(&line.id))?;
        } else if self.format == ListFormat::Json {
            for line in &lines {
                say(serde_json::to_string(line)?)?;
            }
        } else {
            let heading = [
                "CONTAINER ID",
                "IMAGE",
                "COMMAND",
                "CREATED",
                "STATUS",
                "NAMES",
            ];
            let cells = |line: Line| {
                let created = format!("{} ago", line.running_for);
                [
                    line.id,
                    line.image,
                    line.command,
                    created,
                    line.status,
                    line.names,
                ]
            };
            say(table(heading, lines.into_iter().map(cells)))?;
        }
        for error in broken {
            eprintln!("{}", explain(&error));
        }
        Ok(0)
    }

    fn line(&self, container: &Container, record: &Record) -> Option<Line> {
        let status = container.status(record);
        let asks_for_status =
            |filter: &ListFilter| matches!(filter, ListFilter::Status(_) | ListFilter::Exited(_));
        let all = self.all || self.filter.iter().any(asks_for_status);
        let same_key =
            |a: &ListFilter, b: &ListFilter| std::mem::discriminant(a) == std::mem::discriminant(b);
        let let_through = self.filter.iter().all(|filter| {
            let of_its_key = self.filter.iter().filter(|other| same_key(filter, other));
            let mut of_its_key = of_its_key;
            of_its_key.any(|filter| filter.lets(record, status))
        });
        if !let_through || !(all || status.is_up() || status == Status::Restarting) {
            return None;
        }
        let cut = |text: String, most: usize| match self.no_trunc || text.chars().count() <= most {
            true => text,
            false => text.chars().take(most - 1).chain(['…']).collect(),
        };
        Some(Line {
            id: match self.no_trunc {
                true => record.id.clone(),
                false => record.id[..SHORT].into(),
            },
            image: cut(record.plan.image(), 30),
            command: format!(
                "\"{}\"",
                cut(record.plan.command().join(" "), 20).escape_debug()
            ),
            created_at: record.created.text(),
            running_for: rough(record.created),
            state: status,
            status: sentence(record, status),
            names: record.name.clone(),
        })
    }
}

/// A table with columns as wide as their widest cell, and three spaces between.
pub fn table<const N: usize>(
    heading: [&str; N],
    lines: impl Iterator<Item = [String; N]>,
) -> String {
    let lines: Vec<[String; N]> = std::iter::once(heading.map(String::from))
        .chain(lines)
        .collect();
    let width = |column: usize| {
        let widths = lines.iter().map(|line| line[column].chars().count());
        widths.max().unwrap_or(0) + 3
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let text = |line: &[String; N]| {
        let cells = line.iter().zip(widths);
        let text: String = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.trim_end().to_owned()
    };
    lines.iter().map(text).collect::<Vec<_>>().join("\n")
}

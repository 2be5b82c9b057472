//! `images`: the images that are here.

use crate::Digest;
use crate::manifest::parts::Image;
use crate::registry::name::{ImageName, ImageVersion};
use crate::store::ImageStore;
use crate::store::names::{Catalog, CatalogEntry};
use anyhow::Result;
use clap::Args;
use humantime::parse_rfc3339;
use indicatif::DecimalBytes;
use serde::Serialize;
use serde_json::to_value;
use std::time::SystemTime;
use step01_uts::program::explain;
use step01_uts::say;
use step04_pivot_root::state::StateDir;
use step09_detach::commands::inspect::fill_in;
use step09_detach::commands::ps::table;
use step09_detach::container::record::Time;
use step09_detach::container::status::rough;

/// List images
#[derive(Debug, Args)]
pub struct ImageList {
    /// Only those of this name
    #[arg(value_name = "NAME")]
    name: Option<String>,

    /// Only the IDs
    #[arg(short, long)]
    quiet: bool,

    /// As Docker has it; here no image is hidden
    #[arg(short, long)]
    all: bool,

    /// Show the digests that registries know them by
    #[arg(long)]
    digests: bool,

    /// Show everything in full
    #[arg(long)]
    no_trunc: bool,

    /// How: table, json (one object a line), or text in which {{.Repository}} stands for a value
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: String,

    #[command(flatten)]
    state: StateDir,
}

/// A line of the list. The names of the fields are Docker's.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Line {
    #[serde(rename = "ID")]
    id: String,
    repository: String,
    tag: String,
    digest: String,
    created_at: String,
    created_since: String,
    size: String,
    #[serde(skip)]
    created: Option<Time>,
}

/// What stands where there is nothing.
pub(crate) const NONE: &str = "<none>";

impl ImageList {
    /// Prints the list.
    pub fn run(&self) -> Result<u8> {
        let store = ImageStore::open(&self.state)?;
        let catalog = store.catalog()?;
        let wanted = self
            .name
            .as_deref()
            .map(str::parse::<ImageName>)
            .transpose()?;
        let mut lines = Vec::new();
        for (digest, entry) in &catalog.images {
            match store.image(digest) {
                Ok(image) => lines.extend(self.lines(&store, &catalog, &image, entry)),
                Err(error) => eprintln!("{}", explain(&error)),
            }
        }
        if let (Some(wanted), Some(typed)) = (&wanted, &self.name) {
            let last = typed.rsplit('/').next().unwrap_or(typed);
            lines.retain(|line| match &wanted.version {
                _ if line.repository != wanted.repository() => false,
                ImageVersion::Digest(digest) => line.digest == digest.as_str(),
                ImageVersion::Tag(tag) => !last.contains(':') || line.tag == *tag,
            });
        }
        lines.sort_by(|a, b| {
            (b.created, &a.repository, &a.tag).cmp(&(a.created, &b.repository, &b.tag))
        });
        if self.quiet {
            let mut ids: Vec<&str> = lines.iter().map(|line| line.id.as_str()).collect();
            ids.dedup();
            ids.iter().try_for_each(say)?;
            return Ok(0);
        }
        match self.format.as_str() {
            "table" if self.digests => {
                let heading = ["REPOSITORY", "TAG", "DIGEST", "IMAGE ID", "CREATED", "SIZE"];
                let cells = |line: Line| {
                    [
                        line.repository,
                        line.tag,
                        line.digest,
                        line.id,
                        line.created_since,
                        line.size,
                    ]
                };
                say(table(heading, lines.into_iter().map(cells)))?;
            }
            "table" => {
                let heading = ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"];
                let cells = |line: Line| {
                    [
                        line.repository,
                        line.tag,
                        line.id,
                        line.created_since,
                        line.size,
                    ]
                };
                say(table(heading, lines.into_iter().map(cells)))?;
            }
            "json" => {
                for line in &lines {
                    say(serde_json::to_string(line)?)?;
                }
            }
            template => {
                for line in &lines {
                    say(fill_in(template, &to_value(line)?)?)?;
                }
            }
        }
        Ok(0)
    }

    /// The lines about one image: one for each name.
    fn lines(
        &self,
        store: &ImageStore,
        catalog: &Catalog,
        image: &Image,
        entry: &CatalogEntry,
    ) -> Vec<Line> {
        let created = created(image);
        let line = |repository: &str, tag: &str, digest: Option<&str>| Line {
            id: id(&image.id, self.no_trunc),
            repository: repository.into(),
            tag: tag.into(),
            digest: digest.unwrap_or(NONE).into(),
            created_at: created.map_or("N/A".into(), Time::text),
            created_since: created
                .map_or("N/A".into(), |created| format!("{} ago", rough(created))),
            size: DecimalBytes(store.size(image)).to_string(),
            created,
        };
        let digest_in = |repository: &str| {
            let mut all = entry.digests.iter();
            all.find_map(|name| name.strip_prefix(repository)?.strip_prefix('@'))
        };
        let names = catalog.names_of(&image.manifest);
        let named = names.iter().filter_map(|name| name.rsplit_once(':'));
        let mut lines: Vec<Line> = named
            .map(|(repository, tag)| line(repository, tag, digest_in(repository)))
            .collect();
        if lines.is_empty() {
            let digests = entry.digests.iter().filter_map(|name| name.split_once('@'));
            lines.extend(digests.map(|(repository, digest)| line(repository, NONE, Some(digest))));
        }
        if lines.is_empty() {
            lines.push(line(NONE, NONE, None));
        }
        lines
    }
}

/// When an image was made, if its maker says so.
pub(crate) fn created(image: &Image) -> Option<Time> {
    time(image.config.created().as_deref()?)
}

/// When the year 10000 begins, in seconds since 1970.
const THE_YEAR_10000: u64 = 253_402_300_800;

/// A moment as an image's configuration has it: RFC 3339.
pub(crate) fn time(text: &str) -> Option<Time> {
    let (text, offset) = match text.char_indices().rev().nth(5) {
        Some((at, sign @ ('+' | '-'))) if text.contains('T') => {
            let (hours, minutes) = text[at + 1..].split_once(':')?;
            let seconds = hours.parse::<u64>().ok()? * 3600 + minutes.parse::<u64>().ok()? * 60;
            (format!("{}Z", &text[..at]), Some((sign, seconds)))
        }
        _ => (text.to_owned(), None),
    };
    let time = parse_rfc3339(&text).ok()?;
    let away = |seconds| std::time::Duration::from_secs(seconds);
    let time = match offset {
        Some(('+', seconds)) => time.checked_sub(away(seconds))?,
        Some((_, seconds)) => time.checked_add(away(seconds))?,
        None => time,
    };
    // The text of a moment has four digits for the year, and no sign before them.
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    (since.as_secs() < THE_YEAR_10000).then_some(Time(time))
}

/// The names with digests of an image, as JSON wants them.
pub(crate) fn digests(entry: &CatalogEntry) -> Vec<&String> {
    entry.digests.iter().collect()
}

/// The digest of an image's configuration, as people are shown it.
pub(crate) fn id(digest: &Digest, whole: bool) -> String {
    match whole {
        true => digest.to_string(),
        false => digest.short().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_with_and_without_an_offset() {
        let zulu = time("2024-01-02T03:04:05Z").unwrap();
        assert_eq!(time("2024-01-02T05:04:05+02:00"), Some(zulu));
        assert_eq!(time("2024-01-01T22:34:05-04:30"), Some(zulu));
        for wrong in [
            "1970-01-01T00:00:00+01:00",
            "9999-12-31T23:59:59-01:00",
            "",
            "yesterday",
            "2024-01-02",
            "2024-01-02T03:04:05+xx:00",
        ] {
            assert_eq!(time(wrong), None, "{wrong}");
        }
    }
}

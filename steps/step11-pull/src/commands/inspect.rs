//! `image inspect`: all that is known of an image, under Docker's names.

use crate::commands::images::digests;
use crate::layer::install::lower;
use crate::store::ImageStore;
use crate::store::names::Catalog;
use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};
use std::io::{IsTerminal, stdout};
use step01_uts::program::{exit_code, explain, visible};
use step01_uts::say;
use step04_pivot_root::state::StateDir;
use step09_detach::commands::inspect::fill_in;

/// Print all that is known of images, as JSON
#[derive(Debug, Args)]
pub struct InspectImage {
    /// Only some of it: text in which {{.Id}} stands for a value, and {{json .Config}} for JSON
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,

    /// The images, by their names or their IDs
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,

    #[command(flatten)]
    state: StateDir,
}

impl InspectImage {
    /// Prints what is known of the images.
    ///
    /// # Errors
    /// There is no such image.
    pub fn run(&self) -> Result<u8> {
        let store = ImageStore::open(&self.state)?;
        let catalog = store.catalog()?;
        let (mut all, mut code) = (Vec::new(), 0);
        for image in &self.images {
            match describe(&store, &catalog, image) {
                Ok(described) => all.push(described),
                Err(error) if self.images.len() == 1 => return Err(error),
                Err(error) => {
                    eprintln!("{}", explain(&error));
                    code = exit_code(&error);
                }
            }
        }
        match &self.format {
            None => say(serde_json::to_string_pretty(&all)?)?,
            Some(template) => {
                for one in &all {
                    say(shown(&fill_in(template, one)?))?;
                }
            }
        }
        Ok(code)
    }
}

/// What an image's maker has written, on a terminal made safe for that.
fn shown(text: &str) -> String {
    match stdout().is_terminal() {
        true => text.split('\n').map(visible).collect::<Vec<_>>().join("\n"),
        false => text.into(),
    }
}

fn describe(store: &ImageStore, catalog: &Catalog, text: &str) -> Result<Value> {
    let digest = catalog.find(text)?;
    let entry = catalog
        .images
        .get(digest)
        .context("an image without an entry")?;
    let image = store.image(digest)?;
    let platform = image.platform();
    // As its maker has written it, with all fields that we don't know.
    let config: Value = store
        .get(&image.id)?
        .map(|config| serde_json::from_slice(&config))
        .transpose()?
        .unwrap_or_default();
    let layers = image.layers.iter().map(|layer| &layer.diff_id);
    Ok(json!({
        "Id": image.id,
        "RepoTags": catalog.names_of(digest),
        "RepoDigests": digests(entry),
        "Created": image.config.created(),
        "Author": image.config.author().clone().unwrap_or_default(),
        "Architecture": platform.architecture,
        "Variant": platform.variant.unwrap_or_default(),
        "Os": platform.os,
        "Size": store.size(&image),
        "Config": config.get("config").cloned().unwrap_or_else(|| json!({})),
        "RootFS": {
            "Type": "layers",
            "Layers": layers.collect::<Vec<_>>(),
        },
        "Manifest": image.manifest,
        "LowerDirs": lower(store, &image.layers)?,
    }))
}

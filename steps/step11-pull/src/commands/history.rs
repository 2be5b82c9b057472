//! `history`: how an image was made, as its maker tells it.

use crate::commands::images::{id, time};
use crate::store::ImageStore;
use anyhow::Result;
use clap::Args;
use indicatif::DecimalBytes;
use step01_uts::program::visible;
use step01_uts::say;
use step04_pivot_root::state::StateDir;
use step09_detach::commands::ps::table;
use step09_detach::container::status::rough;

/// Show how an image was made, the last step first
#[derive(Debug, Args)]
pub struct History {
    /// Show everything in full
    #[arg(long)]
    no_trunc: bool,

    /// Only the IDs
    #[arg(short, long)]
    quiet: bool,

    /// The image, by its name or its ID
    #[arg(value_name = "IMAGE")]
    image: String,

    #[command(flatten)]
    state: StateDir,
}

impl History {
    /// Prints the steps.
    ///
    /// # Errors
    /// There is no such image.
    pub fn run(&self) -> Result<u8> {
        const LONGEST: usize = 45;
        let store = ImageStore::open(&self.state)?;
        let image = store.image(store.catalog()?.find(&self.image)?)?;
        let mut layers = image.layers.iter();
        let mut rows = Vec::new();
        for step in image.config.history().iter().flatten() {
            let layer = match step.empty_layer() {
                Some(true) => None,
                _ => layers.next(),
            };
            let size = layer.and_then(|layer| store.layer_size(&layer.chain_id));
            let made = visible(step.created_by().as_deref().unwrap_or_default());
            let made = match self.no_trunc || made.chars().count() <= LONGEST {
                true => made,
                false => made.chars().take(LONGEST - 1).chain(['…']).collect(),
            };
            let created = step.created().as_deref().and_then(time);
            rows.push([
                "<missing>".to_owned(),
                created.map_or("N/A".into(), |created| format!("{} ago", rough(created))),
                made,
                DecimalBytes(size.unwrap_or(0)).to_string(),
                visible(step.comment().as_deref().unwrap_or_default()),
            ]);
        }
        rows.reverse();
        if let Some(newest) = rows.first_mut() {
            newest[0] = id(&image.id, self.no_trunc);
        }
        if self.quiet {
            rows.iter().try_for_each(|row| say(&row[0]))?;
            return Ok(0);
        }
        say(table(
            ["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"],
            rows.into_iter(),
        ))?;
        Ok(0)
    }
}

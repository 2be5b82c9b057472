//! `tag`: one more name for an image.

use crate::registry::name::{ImageName, ImageVersion};
use crate::store::ImageStore;
use anyhow::{Result, bail};
use clap::Args;
use step04_pivot_root::state::StateDir;

/// Give an image one more name
#[derive(Debug, Args)]
pub struct Tag {
    /// The image, by its name or its ID
    #[arg(value_name = "IMAGE")]
    image: String,

    /// NAME[:TAG]
    #[arg(value_name = "NAME")]
    name: String,

    #[command(flatten)]
    state: StateDir,
}

impl Tag {
    /// Gives the name; another image that has it loses it.
    ///
    /// # Errors
    /// There is no such image; a name that can't be.
    pub fn run(&self) -> Result<u8> {
        let name: ImageName = self.name.parse()?;
        if let ImageVersion::Digest(_) = name.version {
            bail!("{name}: a digest is nobody's to give, it follows from the image");
        }
        ImageStore::open(&self.state)?.change(|catalog| {
            let digest = catalog.find(&self.image)?.clone();
            catalog.names.insert(name.to_string(), digest);
            Ok(0)
        })
    }
}

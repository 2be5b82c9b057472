//! `rmi` and `image prune`: names and images that nobody needs any more.

use crate::Digest;
use crate::registry::name::ImageName;
use crate::store::ImageStore;
use crate::store::collect::Users;
use crate::store::names::Catalog;
use anyhow::{Result, bail};
use clap::Args;
use indicatif::DecimalBytes;
use step01_uts::program::{exit_code, explain};
use step01_uts::say;
use step04_pivot_root::state::StateDir;

/// Remove images, or names of them
#[derive(Debug, Args)]
pub struct Rmi {
    /// Also those that containers are of, which keep their files
    #[arg(short, long)]
    force: bool,

    /// The images, by their names or their IDs
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,

    #[command(flatten)]
    state: StateDir,
}

impl Rmi {
    /// Takes a name from its image, and removes an image that has no other.
    ///
    /// # Errors
    /// There is no such image; a container is of it.
    pub fn run(&self) -> Result<u8> {
        let store = ImageStore::open(&self.state)?;
        let mut code = 0;
        for image in &self.images {
            let removed = store.collect(|catalog, users| self.remove(catalog, users, image));
            match removed {
                Ok((lines, _)) => lines.iter().try_for_each(say)?,
                Err(error) if self.images.len() == 1 => return Err(error),
                Err(error) => {
                    eprintln!("{}", explain(&error));
                    code = exit_code(&error);
                }
            }
        }
        Ok(code)
    }

    fn remove(&self, catalog: &mut Catalog, users: &Users, text: &str) -> Result<Vec<String>> {
        let digest = catalog.find(text)?.clone();
        let name = text.parse::<ImageName>().ok();
        let named = name.filter(|name| catalog.named(name) == Some(&digest));
        let names: Vec<String> = catalog
            .names_of(&digest)
            .into_iter()
            .map(String::from)
            .collect();
        let mut lines = Vec::new();
        match named.map(|name| name.to_string()) {
            // Others stay.
            Some(name) if names.len() > 1 && names.contains(&name) => {
                catalog.names.remove(&name);
                lines.push(format!("Untagged: {name}"));
                return Ok(lines);
            }
            // One of the digests that registries know the image by: the image stays.
            Some(name) if !names.is_empty() && !names.contains(&name) => {
                if let Some(entry) = catalog.images.get_mut(&digest) {
                    entry.digests.remove(&name);
                }
                lines.push(format!("Untagged: {name}"));
                return Ok(lines);
            }
            None if names.len() > 1 && !self.force => bail!(
                "{text} has {} names: {}\nhelp: remove these, or use `rmi -f`",
                names.len(),
                names.join(", ")
            ),
            _ => {}
        }
        if let (Some(container), false) = (users.of(&digest), self.force) {
            bail!(
                "{text} is in use: container {container} is of it\nhelp: `rm {container}` first; `rmi -f` takes only the \
                 names away"
            );
        }
        Ok(strike(catalog, &digest))
    }
}

/// Takes all names from the image `digest`, and the image from the list. Returns what there is to say of that.
fn strike(catalog: &mut Catalog, digest: &Digest) -> Vec<String> {
    let names = catalog.names_of(digest);
    let names: Vec<String> = names.into_iter().map(String::from).collect();
    let entry = catalog.images.remove(digest);
    let digests = entry.iter().flat_map(|entry| entry.digests.iter().cloned());
    let mut lines = Vec::new();
    for name in names.iter().cloned().chain(digests) {
        lines.push(format!("Untagged: {name}"));
    }
    for name in &names {
        catalog.names.remove(name);
    }
    lines.extend(entry.map(|entry| format!("Deleted: {}", entry.id)));
    lines
}

/// Remove images without a name, and what pulls that were given up have left
#[derive(Debug, Args)]
pub struct PruneImages {
    /// Also images with names, if no container is of them
    #[arg(short, long)]
    all: bool,

    /// As Docker has it, which would ask otherwise
    #[arg(short, long)]
    force: bool,

    #[command(flatten)]
    state: StateDir,
}

impl PruneImages {
    /// Removes them.
    ///
    /// # Errors
    /// A container whose record can't be read: nobody knows what it uses.
    pub fn run(&self) -> Result<u8> {
        let store = ImageStore::open(&self.state)?;
        let (lines, removed) = store.collect(|catalog, users| {
            let mut lines = Vec::new();
            let images: Vec<Digest> = catalog.images.keys().cloned().collect();
            for digest in images {
                let is_wanted = !catalog.names_of(&digest).is_empty() && !self.all;
                if !is_wanted && users.of(&digest).is_none() {
                    lines.extend(strike(catalog, &digest));
                }
            }
            Ok(lines)
        })?;
        lines.iter().try_for_each(say)?;
        say(format!(
            "Total reclaimed space: {}",
            DecimalBytes(removed.bytes)
        ))?;
        Ok(0)
    }
}

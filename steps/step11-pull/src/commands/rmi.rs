//! `rmi` and `image prune`: names and images that nobody needs any more.

use crate::Digest;
use crate::layer::install::lower;
use crate::registry::name::ImageName;
use crate::store::ImageStore;
use crate::store::names::Catalog;
use anyhow::{Result, bail};
use clap::Args;
use indicatif::DecimalBytes;
use std::collections::BTreeMap;
use std::path::PathBuf;
use step01_uts::program::{exit_code, explain};
use step01_uts::say;
use step04_pivot_root::state::StateDir;

/// The containers that use a layer, by its root.
type Users = BTreeMap<PathBuf, Vec<String>>;

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
            let removed =
                store.collect(|catalog, users| self.remove(&store, catalog, users, image));
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

    fn remove(
        &self,
        store: &ImageStore,
        catalog: &mut Catalog,
        users: &Users,
        text: &str,
    ) -> Result<Vec<String>> {
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
        if let (Some(container), false) = (user(store, &digest, users), self.force) {
            bail!(
                "{text} is in use: container {container} is of it\nhelp: `rm {container}` first; `rmi -f` takes only the \
                 names away"
            );
        }
        for name in names {
            catalog.names.remove(&name);
            lines.push(format!("Untagged: {name}"));
        }
        if let Some(entry) = catalog.images.remove(&digest) {
            lines.extend(entry.digests.iter().map(|name| format!("Untagged: {name}")));
            lines.push(format!("Deleted: {}", entry.id));
        }
        Ok(lines)
    }
}

/// A container that is of the image `digest`.
fn user<'a>(store: &ImageStore, digest: &Digest, users: &'a Users) -> Option<&'a String> {
    let image = store.image(digest).ok()?;
    let roots = lower(store, &image.layers).ok()?;
    users.get(roots.first()?)?.first()
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
                let names = catalog.names_of(&digest);
                let names: Vec<String> = names.into_iter().map(String::from).collect();
                let is_wanted = !names.is_empty() && !self.all;
                if is_wanted || user(&store, &digest, users).is_some() {
                    continue;
                }
                for name in names {
                    catalog.names.remove(&name);
                    lines.push(format!("Untagged: {name}"));
                }
                if let Some(entry) = catalog.images.remove(&digest) {
                    lines.extend(entry.digests.iter().map(|name| format!("Untagged: {name}")));
                    lines.push(format!("Deleted: {}", entry.id));
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

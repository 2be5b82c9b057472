//! A layer's archive becomes a directory that overlayfs can lay on others.

use crate::Verified;
use crate::manifest::parts::Layer;
use anyhow::{Context, Result};
use std::io::{self, BufReader, Read};
use std::path::Path;
use step08_overlay::image::archive::{decompressed, unpack_tar};
use step08_overlay::image::open_ends::OpenEnds;

/// Unpacks the archive of `layer`, whose bytes come from `archive`, into the empty directory `root`. Returns what is open
/// still, and the number of bytes without compression.
///
/// # Errors
/// An archive that isn't one, or isn't the one that the image's configuration names, or holds more than `limit` bytes,
/// or names that lead out.
pub fn unpack(
    archive: impl Read,
    layer: &Layer,
    root: &Path,
    limit: u64,
) -> Result<(OpenEnds, u64)> {
    let mut raw = BufReader::with_capacity(128 * 1024, archive);
    let mut tar = Verified::new(decompressed(&mut raw)?, layer.diff_id.clone(), None);
    let open = unpack_tar(&mut tar, root, limit).context("what its archive unpacks to")?;
    let size = tar.seen;
    drop(tar);
    io::copy(&mut raw, &mut io::sink())?;
    Ok((open, size))
}

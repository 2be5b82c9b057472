//! A layer's archive becomes a directory that overlayfs can lay on others.

use crate::Verified;
use crate::manifest::parts::Layer;
use anyhow::{Context, Result, anyhow};
use std::io::{self, BufReader, ErrorKind, Read};
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
    let unpacked = within(limit, unpack_tar(&mut tar, root, limit));
    let open = unpacked.context("what its archive unpacks to")?;
    let size = tar.seen;
    drop(tar);
    io::copy(&mut raw, &mut io::sink())?;
    Ok((open, size))
}

/// What was `read` of an archive that mustn't hold more than `limit` bytes.
///
/// # Errors
/// The reader's; if the limit is the reason, it is told by the flag that it has here.
pub fn within<T>(limit: u64, read: Result<T>) -> Result<T> {
    let is_too_much = |error: &anyhow::Error| {
        let mut errors = error.chain();
        errors.any(|error| {
            let error = error.downcast_ref::<io::Error>();
            error.is_some_and(|error| error.kind() == ErrorKind::FileTooLarge)
        })
    };
    read.map_err(|error| match is_too_much(&error) {
        true => anyhow!("it holds more than {limit} bytes\nhelp: --max-size allows more"),
        false => error,
    })
}

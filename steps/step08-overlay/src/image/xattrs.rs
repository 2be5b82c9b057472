//! Extended attributes of files, such as a program's capabilities: xattr(7).

use nix::errno::Errno;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use step04_pivot_root::root::by_descriptor;

/// The names and values of the attributes of `file`, which need only be held (O_PATH), be it a link or not:
/// listxattr(2). None where the filesystem has no such thing.
pub fn attributes(file: &impl AsFd) -> nix::Result<Vec<(OsString, Vec<u8>)>> {
    // This path leads to the file itself, and not to what a link says.
    let path = by_descriptor(file);
    let names = match xattr::list_deref(&path).map_err(errno) {
        Err(Errno::ENOTSUP) => return Ok(Vec::new()),
        names => names?,
    };
    let mut all = Vec::new();
    for name in names {
        match xattr::get_deref(&path, &name).map_err(errno) {
            Ok(Some(value)) => all.push((name, value)),
            // It went in between, or isn't for everybody's eyes.
            Ok(None) | Err(Errno::ENOTSUP) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(all)
}

/// Sets an attribute of `file`, which need only be held, be it a link or not: setxattr(2).
pub fn set_attribute(file: &impl AsFd, key: &OsStr, value: &[u8]) -> nix::Result<()> {
    xattr::set_deref(by_descriptor(file), key, value).map_err(errno)
}

/// Whether overlayfs notes by the attribute `key` what a layer hides, and where the rest of a file is. Nobody else has
/// any business with these: a layer that brought its own could show what isn't there to be seen.
pub fn is_of_overlay(key: &[u8]) -> bool {
    key.starts_with(b"trusted.overlay.") || key.starts_with(b"user.overlay.")
}

/// What the kernel answered; EINVAL for a name that it wasn't asked about, since it has a NUL.
fn errno(error: io::Error) -> Errno {
    Errno::try_from(error).unwrap_or(Errno::EINVAL)
}

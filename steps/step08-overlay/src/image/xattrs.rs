//! Extended attributes of files, such as a program's capabilities: xattr(7).

use nix::errno::Errno;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use step04_pivot_root::root::by_descriptor;

/// The names and values of the extended attributes of `file`: listxattr(2). An O_PATH descriptor is enough, also of a
/// link. The list is empty where the filesystem has no attributes.
pub fn attributes(file: &impl AsFd) -> nix::Result<Vec<(OsString, Vec<u8>)>> {
    // This path leads to the file itself, even if the file is a link.
    let path = by_descriptor(file);
    let names = match xattr::list_deref(&path).map_err(errno) {
        Err(Errno::ENOTSUP) => return Ok(Vec::new()),
        names => names?,
    };
    let mut all = Vec::new();
    for name in names {
        match xattr::get_deref(&path, &name).map_err(errno) {
            Ok(Some(value)) => all.push((name, value)),
            // The attribute was removed meanwhile, or this process may not read it.
            Ok(None) | Err(Errno::ENOTSUP) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(all)
}

/// Sets an extended attribute of `file`, by an O_PATH descriptor, also of a link: setxattr(2).
pub fn set_attribute(file: &impl AsFd, key: &OsStr, value: &[u8]) -> nix::Result<()> {
    xattr::set_deref(by_descriptor(file), key, value).map_err(errno)
}

/// Whether the attribute `key` is one of overlayfs, which notes by these what a layer hides, and where the rest of a
/// file is. An archive mustn't set them: a layer that brought its own could show what isn't there to be seen.
pub fn is_of_overlay(key: &[u8]) -> bool {
    key.starts_with(b"trusted.overlay.") || key.starts_with(b"user.overlay.")
}

/// The kernel's error; EINVAL for a name with a NUL, about which the kernel wasn't asked.
fn errno(error: io::Error) -> Errno {
    Errno::try_from(error).unwrap_or(Errno::EINVAL)
}

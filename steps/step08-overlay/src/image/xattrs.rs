//! Extended attributes of files, such as a program's capabilities: xattr(7).

use crate::by_descriptor;
use nix::errno::Errno;
use std::ffi::{CString, OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// The names and values of the attributes of `file`, which need only be held (O_PATH), be it a link or not:
/// listxattr(2). None where the filesystem has no such thing.
pub fn attributes(file: &impl AsFd) -> nix::Result<Vec<(OsString, Vec<u8>)>> {
    // This path leads to the file itself, and not to what a link says.
    let path = c_path(&by_descriptor(file))?;
    // SAFETY: the kernel writes as many bytes as it is told there is space for.
    let names = read(|space, size| unsafe { libc::listxattr(path.as_ptr(), space.cast(), size) });
    let names = match names {
        Err(Errno::ENOTSUP) => return Ok(Vec::new()),
        names => names?,
    };
    let names = names
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty());
    let mut all = Vec::new();
    for name in names {
        let c_name = CString::new(name).map_err(|_| Errno::EINVAL)?;
        // SAFETY: as above.
        let value = read(|space, size| unsafe {
            libc::getxattr(path.as_ptr(), c_name.as_ptr(), space.cast(), size)
        });
        match value {
            // It went in between, or isn't for everybody's eyes.
            Err(Errno::ENODATA | Errno::ENOTSUP) => {}
            value => all.push((OsString::from_vec(name.to_vec()), value?)),
        }
    }
    Ok(all)
}

/// Whether overlayfs notes by the attribute `key` what a layer hides, and where the rest of a file is. Nobody else has
/// any business with these: a layer that brought its own could show what isn't there to be seen.
pub fn is_of_overlay(key: &[u8]) -> bool {
    key.starts_with(b"trusted.overlay.") || key.starts_with(b"user.overlay.")
}

/// Asks how much there is, then for that much.
fn read(call: impl Fn(*mut u8, usize) -> isize) -> nix::Result<Vec<u8>> {
    loop {
        let size = Errno::result(call(std::ptr::null_mut(), 0))? as usize;
        let mut space = vec![0; size];
        match Errno::result(call(space.as_mut_ptr(), size)) {
            // It has grown.
            Err(Errno::ERANGE) => continue,
            Err(errno) => return Err(errno),
            Ok(read) => {
                space.truncate(read as usize);
                return Ok(space);
            }
        }
    }
}

/// Sets an attribute of `file`, which need only be held, be it a link or not: setxattr(2).
pub fn set_attribute(file: &impl AsFd, key: &OsStr, value: &[u8]) -> nix::Result<()> {
    let path = c_path(&by_descriptor(file))?;
    let key = CString::new(key.as_bytes()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the kernel reads the path, the name and as many bytes of the value as there are.
    let result = unsafe {
        let (value, size) = (value.as_ptr().cast(), value.len());
        libc::setxattr(path.as_ptr(), key.as_ptr(), value, size, 0)
    };
    Errno::result(result).map(drop)
}

fn c_path(path: &Path) -> nix::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)
}

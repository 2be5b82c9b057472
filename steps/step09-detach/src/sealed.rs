//! This program, in a file that no container can overwrite.
//!
//! A process of ours that is about to become a container's command is still this program, and in the container
//! `/proc/self/exe` leads to the program's file on the host. A container can plant a script for `#!/proc/self/exe`, and
//! the kernel executes that file. The container's own loader then finds the file in /proc, changes its mode, and writes
//! to it when nobody executes it any more: CVE-2019-5736. So each process that goes near a container is executed from a
//! mount for reading only, which is nowhere but here.

use anyhow::Result;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd;
use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::{env, io};
use step01_uts::{Refused, call};
use step04_pivot_root::root::by_descriptor;
use step08_overlay::{MountAttributes, clone_tree};

const ITSELF: &str = "/proc/self/exe";

/// Executes this program anew with `words`, from a file that nobody can change. Returns only an error.
pub fn execute(words: &[CString], variables: &[CString]) -> Result<Infallible> {
    let read_only = MountAttributes {
        set: libc::MOUNT_ATTR_RDONLY,
        propagation: libc::MS_PRIVATE,
        ..MountAttributes::default()
    };
    let program = match clone_tree(Path::new(ITSELF), &read_only) {
        // Linux before 5.12 can't make such a mount, and who isn't root may not.
        Err(error) if cant_be_had(&error) => sealed_copy()?,
        program => program?,
    };
    Err(call!(execveat(&program, words, variables))
        .unwrap_err()
        .into())
}

fn cant_be_had(error: &anyhow::Error) -> bool {
    let refused = error.downcast_ref::<Refused>();
    refused.is_some_and(|refused| [Errno::ENOSYS, Errno::EPERM].contains(&refused.errno()))
}

/// A copy of this program in memory, whose contents can't be changed any more. See memfd_create(2), F_ADD_SEALS in
/// fcntl(2).
fn sealed_copy() -> Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let copy = call!(memfd_create(c"ten-steps", flags))?;
    let mut copy = File::from(copy);
    io::copy(&mut File::open(ITSELF)?, &mut copy)?;
    fcntl(&copy, FcntlArg::F_ADD_SEALS(SEALS))?;
    // A file that is open for writing can't be executed.
    Ok(File::open(by_descriptor(&copy))?.into())
}

/// The contents can't change, and no seal can be added.
const SEALS: SealFlag = SealFlag::F_SEAL_SEAL
    .union(SealFlag::F_SEAL_SHRINK)
    .union(SealFlag::F_SEAL_GROW)
    .union(SealFlag::F_SEAL_WRITE);

/// Executes the file that is open as `program`: execveat(2) with AT_EMPTY_PATH.
fn execveat(
    program: &OwnedFd,
    words: &[CString],
    variables: &[CString],
) -> nix::Result<Infallible> {
    unistd::execveat(program, c"", words, variables, AtFlags::AT_EMPTY_PATH)
}

/// Executes this program anew with its own arguments, unless the file that this process executes can't be changed
/// already: the file is on a mount for reading only, or is a sealed copy.
///
/// Another process that executes the same file keeps its contents from being written (ETXTBSY), but never its mode, its
/// owner and its capabilities from being changed: so nothing but this will do.
pub fn be_sealed() -> Result<()> {
    if statvfs(ITSELF)?.flags().contains(FsFlags::ST_RDONLY) || is_sealed_copy()? {
        return Ok(());
    }
    let words: Result<Vec<_>, _> = env::args_os()
        .map(|word| CString::new(word.as_bytes()))
        .collect();
    let variables: Result<Vec<_>, _> = env::vars_os()
        .map(|(key, value)| CString::new([key.as_bytes(), b"=", value.as_bytes()].concat()))
        .collect();
    let never = execute(&words?, &variables?)?;
    match never {}
}

fn is_sealed_copy() -> Result<bool> {
    let seals = fcntl(File::open(ITSELF)?, FcntlArg::F_GET_SEALS);
    // Other files have no seals.
    Ok(seals.is_ok_and(|seals| SealFlag::from_bits_truncate(seals).contains(SEALS)))
}

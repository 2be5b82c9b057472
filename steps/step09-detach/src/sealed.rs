//! This program, as no container can overwrite it.
//!
//! A process of ours that is about to become a container's command is still this program, and in there
//! `/proc/self/exe` leads to its file on the host. A container that has planted a script for `#!/proc/self/exe` is
//! given that file to execute, and who can execute it can find it in /proc, and write to it when nobody executes it
//! any more: CVE-2019-5736. So what goes near a container is executed from a mount for reading only, which is
//! nowhere but here.

use anyhow::Result;
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd;
use std::convert::Infallible;
use std::env;
use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use step01_uts::{Refused, call};
use step08_overlay::{Attributes, clone_tree};

const ITSELF: &str = "/proc/self/exe";

/// Executes this program anew with `words`, out of a mount for reading only. Returns only an error.
pub fn execute(words: &[CString], variables: &[CString]) -> Result<Infallible> {
    let read_only = Attributes {
        set: libc::MOUNT_ATTR_RDONLY,
        propagation: libc::MS_PRIVATE,
    };
    let program = match clone_tree(Path::new(ITSELF), &read_only) {
        // Before Linux 5.12: then as it is.
        Err(error) if is_unknown(&error) => File::open(ITSELF)?.into(),
        program => program?,
    };
    Err(call!(execveat(&program, words, variables))
        .unwrap_err()
        .into())
}

fn is_unknown(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<Refused>()
        .is_some_and(|refused| refused.errno() == Errno::ENOSYS)
}

/// Executes the file that is open as `program`: execveat(2) with AT_EMPTY_PATH.
fn execveat(
    program: &OwnedFd,
    words: &[CString],
    variables: &[CString],
) -> nix::Result<Infallible> {
    unistd::execveat(program, c"", words, variables, AtFlags::AT_EMPTY_PATH)
}

/// Executes this program anew with its own arguments, out of a mount for reading only, unless its file can't be
/// overwritten anyway: because it is on such a mount, or because the process `guard`, which is there as long as the
/// container is, executes the same file, and the kernel protects that (ETXTBSY).
pub fn be_sealed(guard: Option<i32>) -> Result<()> {
    if statvfs(ITSELF)?.flags().contains(FsFlags::ST_RDONLY) {
        return Ok(());
    }
    let opened = File::options().write(true).open(ITSELF);
    let busy = opened.is_err_and(|error| error.raw_os_error() == Some(Errno::ETXTBSY as i32));
    let file = |path: &str| fs::metadata(path).map(|of| (of.dev(), of.ino())).ok();
    let guarded = guard.is_some_and(|pid| {
        let theirs = file(&format!("/proc/{pid}/exe"));
        theirs.is_some() && theirs == file(ITSELF)
    });
    if busy && guarded {
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

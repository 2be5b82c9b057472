//! What a PID 1 of ours shows of the host: nothing.

use anyhow::Result;
use nix::sys::prctl::set_dumpable;
use step01_uts::call;

/// Hides what this process brought along from the host from everybody in the container: PID 1 never becomes
/// another program, so it still has the caller's environment and arguments, and can be looked into.
/// See PR_SET_DUMPABLE(2const), ptrace(2).
pub(crate) fn hide() -> Result<()> {
    unsafe extern "C" {
        static environ: *const *mut libc::c_char;
    }
    // SAFETY: there are no other threads; each string is overwritten within its length, up to the null pointer.
    unsafe {
        let mut variable = environ;
        while !variable.is_null() && !(*variable).is_null() {
            libc::memset((*variable).cast(), 0, libc::strlen(*variable));
            variable = variable.add(1);
        }
    }
    call!(set_dumpable(false))?;
    Ok(())
}

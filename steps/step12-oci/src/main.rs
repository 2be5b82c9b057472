//! Step 12: an OCI runtime.

use clap::Parser;
use std::process::ExitCode;
use step12_oci::commands::{Args, be_sealed_for, end_of, failed};

// ANCHOR: life
fn main() -> ExitCode {
    // A container that runs this program's file could change it, so what goes near one is executed from elsewhere, and
    // that comes first: nothing is done twice then.
    if let Err(error) = be_sealed_for(&["create", "run", "exec"]) {
        return failed(&error);
    }
    match Args::try_parse() {
        Ok(args) => end_of(args),
        Err(error) => {
            let _ = error.print();
            // Help and the version were asked for.
            ExitCode::from(u8::from(error.use_stderr()))
        }
    }
}
// ANCHOR_END: life

/// Stands in for the function of the C library. Rust asks at each start for the bounds of its stack, to call an overflow by
/// its name; and the C library finds them by reading /proc/self/maps, with a parser that makes a static program 130 kB
/// larger. Here an overflow is a plain SIGSEGV. See pthread_getattr_np(3).
#[unsafe(no_mangle)]
extern "C" fn pthread_getattr_np(_: libc::pthread_t, _: *mut libc::pthread_attr_t) -> libc::c_int {
    libc::ENOSYS
}

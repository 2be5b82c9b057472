//! Step 12: an OCI runtime.

// The first execution mostly doesn't come as far as main: see there.
mod before;

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

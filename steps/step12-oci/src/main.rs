//! Step 12: an OCI runtime.

use clap::Parser;
use std::process::ExitCode;
use step12_oci::commands::{Args, end_of};

// ANCHOR: life
fn main() -> ExitCode {
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

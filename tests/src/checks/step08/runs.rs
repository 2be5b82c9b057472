//! Runs of the program that leave the host's images alone.

use crate::course::workbench::Workbench;
use crate::host::container::{RunOutcome, run};
use anyhow::Result;
use std::ffi::OsString;

/// What has a folder of the program's own for its state.
pub(super) fn arguments(bench: &Workbench, flags: &[&str], command: &[&str]) -> Vec<OsString> {
    let mut arguments = vec!["--state-dir".into(), bench.scratch.join("state").into()];
    arguments.extend(flags.iter().chain(command).map(OsString::from));
    arguments
}

/// Runs the program so.
pub(super) fn try_out(bench: &Workbench, flags: &[&str], command: &[&str]) -> Result<RunOutcome> {
    run(&bench.program, &arguments(bench, flags, command))
}

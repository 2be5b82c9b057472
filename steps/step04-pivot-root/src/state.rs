//! The state folder: where things are kept from one run to the next.

use clap::Args;
use std::path::PathBuf;

/// Where the state folder usually is.
pub const USUAL: &str = "/var/lib/ten-steps";

/// The state folder.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Files")]
pub struct StateDir {
    /// Where things are kept from one run to the next [default: $TEN_STEPS_STATE, or else
    /// /var/lib/ten-steps]
    #[arg(long = "state-dir", value_name = "DIR", default_value_os_t = StateDir::default().dir,
          hide_default_value = true)]
    pub dir: PathBuf,
}

impl Default for StateDir {
    /// $TEN_STEPS_STATE, or /var/lib/ten-steps.
    fn default() -> StateDir {
        let given = std::env::var_os("TEN_STEPS_STATE");
        StateDir {
            dir: given.map_or_else(|| USUAL.into(), PathBuf::from),
        }
    }
}

//! The state folder: where things are kept from one run to the next.

use std::path::PathBuf;

/// Where the state folder usually is.
pub const USUAL: &str = "/var/lib/ten-steps";

/// The state folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir {
    /// Its path.
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

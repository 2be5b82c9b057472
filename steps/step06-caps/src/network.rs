//! Whose network a container has.

use nix::sched::CloneFlags;
use serde::{Deserialize, Serialize};

/// Whose network a container has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// A network namespace of its own, with a loopback.
    #[default]
    None,
    /// The host's network namespace.
    Host,
}

impl Network {
    /// The namespaces of `all` that are made for a container with this network.
    pub fn namespaces(self, all: CloneFlags) -> CloneFlags {
        match self {
            Network::None => all,
            Network::Host => all.difference(CloneFlags::CLONE_NEWNET),
        }
    }
}

//! Whose network a container has.

use clap::{Args, ValueEnum};
use nix::sched::CloneFlags;
use serde::{Deserialize, Serialize};

/// Whose network the container has.
#[derive(Debug, Clone, Copy, Default, Args, Serialize, Deserialize)]
#[command(next_help_heading = "Network")]
pub struct NetworkArgs {
    /// The container's network: none is a loopback of its own and nothing else, host all of the host's
    #[arg(
        long,
        alias = "net",
        value_name = "NETWORK",
        default_value = "none",
        hide_possible_values = true
    )]
    pub network: Network,
}

/// Whose network a container has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
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

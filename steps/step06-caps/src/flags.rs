//! What is typed about privileges, users and the network.

use crate::capabilities::kept_name;
use crate::network::Network;
use crate::privileges::{Security, SecurityOption};
use crate::users::{UserName, shape};
use clap::{Args, ValueEnum};
use std::str::FromStr;
use step01_uts::flags;

#[derive(Args)]
#[command(next_help_heading = "Privileges")]
struct SecurityFlags {
    /// Add a capability to Docker's fourteen; ALL adds every one
    #[arg(long, value_name = "CAPABILITY", value_parser = kept_name)]
    cap_add: Vec<String>,

    /// Take a capability away; ALL takes every one
    #[arg(long, value_name = "CAPABILITY", value_parser = kept_name)]
    cap_drop: Vec<String>,

    /// seccomp=FILE or seccomp=unconfined, no-new-privileges=true or false, systempaths=unconfined
    #[arg(long, value_name = "OPTION", value_parser = SecurityOption::from_str)]
    security_opt: Vec<SecurityOption>,

    /// Leave the container's root all that this program may do itself, every device included
    #[arg(long)]
    privileged: bool,
}

#[derive(Args)]
#[command(next_help_heading = "Privileges")]
struct UserFlags {
    /// The command's user, and its group, by number or by the root's own names
    #[arg(short, long, value_name = "USER[:GROUP]", value_parser = shape)]
    user: Option<String>,
}

#[derive(Args)]
#[command(next_help_heading = "Network")]
struct NetworkFlags {
    /// The container's network: none is a loopback of its own and nothing else, host all of the host's
    #[arg(
        long,
        alias = "net",
        value_name = "NETWORK",
        default_value = "none",
        hide_possible_values = true
    )]
    network: NetworkName,
}

/// The values of `--network`.
#[derive(Clone, Copy, ValueEnum)]
enum NetworkName {
    /// A network namespace of its own, with a loopback
    None,
    /// The host's network namespace
    Host,
}

flags!(Security, SecurityFlags);
flags!(UserName, UserFlags);
flags!(Network, NetworkFlags);

impl From<SecurityFlags> for Security {
    fn from(flags: SecurityFlags) -> Security {
        Security {
            cap_add: flags.cap_add,
            cap_drop: flags.cap_drop,
            security_opt: flags.security_opt,
            privileged: flags.privileged,
        }
    }
}

impl From<UserFlags> for UserName {
    fn from(UserFlags { user }: UserFlags) -> UserName {
        UserName { user }
    }
}

impl From<NetworkFlags> for Network {
    fn from(flags: NetworkFlags) -> Network {
        match flags.network {
            NetworkName::None => Network::None,
            NetworkName::Host => Network::Host,
        }
    }
}

impl FromStr for SecurityOption {
    type Err = String;

    fn from_str(text: &str) -> Result<SecurityOption, String> {
        // Docker's older form has a colon, which Docker still accepts.
        let (key, value) = text.split_once(['=', ':']).unwrap_or((text, ""));
        match (key, value) {
            ("seccomp", "unconfined") => Ok(SecurityOption::SeccompUnconfined),
            ("seccomp", file) if !file.is_empty() => Ok(SecurityOption::Seccomp(file.into())),
            ("no-new-privileges", "true" | "") => Ok(SecurityOption::NoNewPrivileges(true)),
            ("no-new-privileges", "false") => Ok(SecurityOption::NoNewPrivileges(false)),
            ("systempaths", "unconfined") => Ok(SecurityOption::SystempathsUnconfined),
            _ => Err(
                "it has to be seccomp=FILE, seccomp=unconfined, no-new-privileges[=true|false] or \
                      systempaths=unconfined"
                    .into(),
            ),
        }
    }
}

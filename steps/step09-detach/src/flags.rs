//! What is typed about a container.

use crate::container::log::MaxSize;
use crate::container::name;
use crate::container::plan::{Plan, VERSION};
use crate::container::restart::RestartPolicy;
use clap::Args;
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::str::FromStr;
use step01_uts::{flags, hostname};
use step04_pivot_root::Env;
use step04_pivot_root::rootfs::Files;
use step05_tty::terminal::Tty;
use step06_caps::network::Network;
use step06_caps::privileges::Security;
use step06_caps::users::UserName;
use step07_cgroups::resources::Resources;
use step08_overlay::layers::Storage;

/// A container in the making: its name, and all else.
#[derive(Debug, Args)]
pub struct ContainerFlags {
    /// A name to call it by; without one it gets one
    #[arg(long, value_name = "NAME", value_parser = name::valid)]
    pub name: Option<String>,

    /// What it is to be.
    #[command(flatten)]
    pub plan: Plan,
}

#[derive(Args)]
struct PlanFlags {
    /// The container's hostname [default: the first 12 digits of its ID]
    #[arg(long, value_name = "NAME", value_parser = hostname)]
    hostname: Option<String>,

    /// Put an init before the command: it forwards signals and reaps orphans
    #[arg(long)]
    init: bool,

    /// Remove the container when it has ended
    #[arg(long)]
    rm: bool,

    /// When to start it again.
    #[arg(long, value_name = "POLICY", default_value = "no", value_parser = RestartPolicy::from_str,
          help = "When to start it again: no, on-failure[:N], always or unless-stopped")]
    restart: RestartPolicy,

    /// Begin a new log when it has as many bytes, with k, m or g behind; one old one is kept; 0: never
    #[arg(long, value_name = "SIZE", default_value = "10m", value_parser = MaxSize::from_str)]
    log_max_size: MaxSize,

    /// The signal that asks it to end [default: TERM]
    #[arg(long, value_name = "SIGNAL", value_parser = signal)]
    stop_signal: Option<i32>,

    /// The command and its arguments: each word arrives as it is, no shell comes between [default: sh]
    #[arg(trailing_var_arg = true)]
    command: Vec<String>,

    #[command(flatten)]
    tty: Tty,

    #[command(flatten)]
    layers: Storage,

    #[command(flatten)]
    files: Files,

    #[command(flatten)]
    env: Env,

    #[command(flatten)]
    limits: Resources,

    #[command(flatten)]
    network: Network,

    #[command(flatten)]
    user: UserName,

    #[command(flatten)]
    privileges: Security,
}

flags!(Plan, PlanFlags);

impl From<PlanFlags> for Plan {
    fn from(flags: PlanFlags) -> Plan {
        Plan {
            version: VERSION,
            hostname: flags.hostname,
            init: flags.init,
            rm: flags.rm,
            restart: flags.restart,
            log_max_size: flags.log_max_size,
            stop_signal: flags.stop_signal,
            command: Some(flags.command).filter(|command| !command.is_empty()),
            tty: flags.tty,
            layers: flags.layers,
            files: flags.files,
            env: flags.env,
            limits: flags.limits,
            network: flags.network,
            user: flags.user,
            privileges: flags.privileges,
            // An image says these.
            image: None,
            image_digest: None,
            labels: BTreeMap::new(),
        }
    }
}

/// A signal by its number or its name, with or without SIG.
pub fn signal(text: &str) -> Result<i32, String> {
    if let Ok(number) = text.parse::<i32>() {
        return match (1..=libc::SIGRTMAX()).contains(&number) {
            true => Ok(number),
            false => Err(format!("signals are 1 to {}", libc::SIGRTMAX())),
        };
    }
    let name = text.to_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let real_time = |prefix, base: i32| {
        let rest = name.strip_prefix(prefix)?;
        match rest {
            "" => Some(base),
            rest => base.checked_add(rest.parse().ok()?),
        }
    };
    let number = real_time("RTMIN", libc::SIGRTMIN()).or(real_time("RTMAX", libc::SIGRTMAX()));
    match number {
        Some(number) if (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&number) => Ok(number),
        Some(_) => Err(format!("there is no signal {text}")),
        None => Signal::from_str(&format!("SIG{name}"))
            .map(|signal| signal as i32)
            .map_err(|_| format!("there is no signal {text}: `kill -l` lists them")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Words {
        #[command(flatten)]
        container: ContainerFlags,
    }

    #[test]
    fn what_is_not_typed_is_absent() {
        let plan = |words: &[&str]| Words::parse_from(words).container.plan;
        assert_eq!(plan(&["run"]), Plan::default());
        assert_eq!(plan(&["run"]).command(), ["sh"]);
        let typed = plan(&["run", "-w", "/", "--stop-signal", "TERM", "sh"]);
        assert_eq!(typed.env.workdir.as_deref(), Some("/"));
        assert_eq!(
            (typed.stop_signal, typed.command),
            (Some(15), Some(vec!["sh".into()]))
        );
    }

    #[test]
    fn signals_by_name_and_number() {
        for (text, number) in [("TERM", 15), ("sigkill", 9), ("2", 2), ("SIGRTMIN+1", 35)] {
            assert_eq!(signal(text), Ok(number), "{text}");
        }
        for wrong in [
            "",
            "0",
            "65",
            "SIGNOTHING",
            "RTMIN+99",
            "RTMIN+2147483647",
            "RTMAX-2147483648",
            "-9",
        ] {
            assert!(signal(wrong).is_err(), "{wrong}");
        }
    }
}

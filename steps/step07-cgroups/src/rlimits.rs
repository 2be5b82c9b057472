//! The older limits, of each process by itself: setrlimit(2).
//!
//! Each child inherits the limits at fork, for itself: a limit of 100 MiB is 100 MiB for each of a
//! thousand children. Such limits stop a program with a fault, and no program that means harm.

use anyhow::{Context, Result};
use nix::sys::resource::{RLIM_INFINITY, Resource, rlim_t, setrlimit};
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// One limit of each process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    name: String,
    /// The limit that holds. The process may raise it itself, up to `hard`.
    soft: rlim_t,
    /// The most that `soft` may be raised to.
    hard: rlim_t,
}

/// The names, as ulimit and Docker have them: RLIMIT_ without the prefix.
pub const NAMES: [(&str, Resource); 16] = [
    ("as", Resource::RLIMIT_AS),
    ("core", Resource::RLIMIT_CORE),
    ("cpu", Resource::RLIMIT_CPU),
    ("data", Resource::RLIMIT_DATA),
    ("fsize", Resource::RLIMIT_FSIZE),
    ("locks", Resource::RLIMIT_LOCKS),
    ("memlock", Resource::RLIMIT_MEMLOCK),
    ("msgqueue", Resource::RLIMIT_MSGQUEUE),
    ("nice", Resource::RLIMIT_NICE),
    ("nofile", Resource::RLIMIT_NOFILE),
    ("nproc", Resource::RLIMIT_NPROC),
    ("rss", Resource::RLIMIT_RSS),
    ("rtprio", Resource::RLIMIT_RTPRIO),
    ("rttime", Resource::RLIMIT_RTTIME),
    ("sigpending", Resource::RLIMIT_SIGPENDING),
    ("stack", Resource::RLIMIT_STACK),
];

impl FromStr for Ulimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Ulimit, String> {
        let names = || NAMES.map(|(name, _)| name).join(", ");
        let (name, values) = text
            .split_once('=')
            .ok_or_else(|| format!("it has to be NAME=SOFT[:HARD]; NAME is {}", names()))?;
        if !NAMES.iter().any(|(known, _)| *known == name) {
            return Err(format!("there is no limit {name}; there are {}", names()));
        }
        let value = |text: &str| match text {
            "unlimited" | "-1" => Ok(RLIM_INFINITY),
            _ => text
                .parse()
                .map_err(|_| format!("{text:?} is no number, nor unlimited")),
        };
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        let (soft, hard) = (value(soft)?, value(hard)?);
        match soft <= hard {
            true => Ok(Ulimit {
                name: name.into(),
                soft,
                hard,
            }),
            false => Err("the soft limit can't be higher than the hard one".into()),
        }
    }
}

/// Sets the limits of the calling process and its children. Call this late: our own work needs files too.
///
/// # Errors
/// EPERM: a hard limit is raised without CAP_SYS_RESOURCE, or RLIMIT_NOFILE above
/// /proc/sys/fs/nr_open.
pub fn set_rlimits(ulimits: &[Ulimit]) -> Result<()> {
    for ulimit in ulimits {
        let found = NAMES.iter().find(|(name, _)| *name == ulimit.name);
        let Some((_, resource)) = found else { continue };
        setrlimit(*resource, ulimit.soft, ulimit.hard).with_context(|| {
            let (name, soft, hard) = (&ulimit.name, ulimit.soft, ulimit.hard);
            format!(
                "--ulimit {name}={soft}:{hard}: more than this process has takes CAP_SYS_RESOURCE"
            )
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ulimits_are_read() {
        let one: Ulimit = "nofile=10:20".parse().unwrap();
        assert_eq!((one.soft, one.hard), (10, 20));
        let both: Ulimit = "core=unlimited".parse().unwrap();
        assert_eq!((both.soft, both.hard), (RLIM_INFINITY, RLIM_INFINITY));
        for wrong in [
            "",
            "nofile",
            "nofile=",
            "nofile=x",
            "nofile=2:1",
            "files=1",
            "nofile=1:2:3",
        ] {
            assert!(wrong.parse::<Ulimit>().is_err(), "{wrong}");
        }
    }
}

//! The arguments of a container, as they are typed and as they are kept.

use crate::container::log::MaxSize;
use crate::container::restart::RestartPolicy;
use anyhow::{Context, Result, bail};
use clap::Args;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf, absolute};
use std::str::FromStr;
use step01_uts::hostname;
use step04_pivot_root::rootfs::Files;
use step04_pivot_root::{Env, with_values};
use step05_tty::terminal::Tty;
use step06_caps::network::NetworkArgs;
use step06_caps::privileges::{PrivilegeArgs, SecurityOption};
use step06_caps::users::UserArgs;
use step07_cgroups::flags::LimitArgs;
use step08_overlay::layers::LayerArgs;

/// All that makes one container different from another. The same groups of flags as in steps 1 to 8, and
/// what it takes to outlive the caller.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct ContainerArgs {
    /// A name to call it by; without one it gets one
    #[arg(long, value_name = "NAME", value_parser = crate::container::name::valid)]
    #[serde(skip)]
    pub name: Option<String>,

    /// The container's hostname [default: the first 12 digits of its ID]
    #[arg(long, value_name = "NAME", value_parser = hostname)]
    pub hostname: Option<String>,

    /// Put an init before the command: it forwards signals and reaps orphans
    #[arg(long)]
    pub init: bool,

    /// Remove the container when it has ended
    #[arg(long)]
    pub rm: bool,

    /// When to start it again.
    #[arg(long, value_name = "POLICY", default_value = "no", value_parser = RestartPolicy::from_str,
          help = "When to start it again: no, on-failure[:N], always or unless-stopped")]
    pub restart: RestartPolicy,

    /// Begin a new log when it has as many bytes, with k, m or g behind; one old one is kept; 0: never
    #[arg(long, value_name = "SIZE", default_value = "10m", value_parser = MaxSize::from_str)]
    pub log_max_size: MaxSize,

    /// The signal that asks it to end
    #[arg(long, value_name = "SIGNAL", default_value = "TERM", value_parser = signal)]
    pub stop_signal: i32,

    /// The command and its arguments: each word arrives as it is, no shell comes between
    #[arg(default_value = "sh", trailing_var_arg = true)]
    pub command: Vec<String>,

    /// What the command reads and where it writes.
    #[command(flatten)]
    pub tty: Tty,

    /// What the container's files are made of.
    #[command(flatten)]
    pub layers: LayerArgs,

    /// Where the container's files come from.
    #[command(flatten)]
    pub files: Files,

    /// What the command finds around itself.
    #[command(flatten)]
    pub env: Env,

    /// What the container may use up.
    #[command(flatten)]
    pub limits: LimitArgs,

    /// Whose network the container has.
    #[command(flatten)]
    pub network: NetworkArgs,

    /// Who the command runs as.
    #[command(flatten)]
    pub user: UserArgs,

    /// What the container's root may do.
    #[command(flatten)]
    pub privileges: PrivilegeArgs,
}

impl ContainerArgs {
    /// The same arguments, without anything that depends on who asks and where: the container `id` can be started again
    /// from another directory, with another environment, by systemd. A file whose name may be worth nothing tomorrow is
    /// copied into `folder`.
    ///
    /// # Errors
    /// Flags that contradict each other; a file that isn't there.
    pub fn resolve(mut self, id: &str, folder: &Path) -> Result<ContainerArgs> {
        if self.rm && self.restart != RestartPolicy::No {
            bail!("--rm and --restart: a container that is removed can't be started again");
        }
        self.hostname.get_or_insert_with(|| id[..12].into());
        self.env.env = with_values(self.env.env);
        if self.files.rootfs.is_some() {
            self.files.rootfs = Some(self.files.open()?.path);
        }
        let images = self.layers.image.iter().map(absolute);
        self.layers.image = images.collect::<Result<_, _>>()?;
        self.layers.keep = self.layers.keep.map(absolute).transpose()?;
        for volume in &mut self.layers.volume {
            volume.source = absolute(&volume.source)?;
        }
        if let Some(archive) = &mut self.layers.commit {
            archive.make_absolute()?;
        }
        for option in &mut self.privileges.security_opt {
            if let SecurityOption::Seccomp(file) = option {
                let copy = folder.join("seccomp.json");
                let copied = fs::copy(&*file, &copy);
                copied.with_context(|| format!("--security-opt seccomp={}", file.display()))?;
                *file = "seccomp.json".into();
            }
        }
        Ok(self)
    }

    /// The privileges, with the path of the seccomp profile's copy in `folder`.
    pub fn privileges(&self, folder: &Path) -> PrivilegeArgs {
        let mut privileges = self.privileges.clone();
        for option in &mut privileges.security_opt {
            if let SecurityOption::Seccomp(file) = option {
                *file = folder.join(&*file);
            }
        }
        privileges
    }

    /// Where the container's root comes from, in a word or two: what `ps` shows for an image.
    pub fn image(&self) -> String {
        let last = |path: &PathBuf| {
            let name = path.file_name().unwrap_or(path.as_os_str());
            name.to_string_lossy().into_owned()
        };
        match (&self.files.rootfs, self.layers.image.first()) {
            (Some(root), _) | (None, Some(root)) => last(root),
            (None, None) => "default".into(),
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

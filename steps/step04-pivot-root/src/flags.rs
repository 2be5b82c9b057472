//! What is typed about the root, the state folder and the environment.

use crate::Env;
use crate::rootfs::Files;
use crate::state::StateDir;
use clap::Args;
use std::path::PathBuf;
use step01_uts::flags;

#[derive(Args)]
#[command(next_help_heading = "Files")]
struct StateFlags {
    /// Where things are kept from one run to the next [default: $TEN_STEPS_STATE, or else
    /// /var/lib/ten-steps]
    #[arg(long = "state-dir", value_name = "DIR", default_value_os_t = StateDir::default().dir,
          hide_default_value = true)]
    dir: PathBuf,
}

#[derive(Args)]
#[command(next_help_heading = "Files")]
struct FileFlags {
    /// The directory that becomes the container's root; without it, one is made from this
    /// machine's own programs
    #[arg(long, value_name = "DIR")]
    rootfs: Option<PathBuf>,

    #[command(flatten)]
    state: StateDir,
}

#[derive(Args)]
#[command(next_help_heading = "Environment")]
struct EnvFlags {
    /// Set an environment variable; a KEY alone takes the value that it has here
    #[arg(short, long = "env", value_name = "KEY[=VALUE]", value_parser = variable)]
    env: Vec<String>,

    /// The directory in the container in which the command starts [default: /]
    #[arg(short, long, value_name = "DIR", value_parser = absolute)]
    workdir: Option<String>,
}

flags!(StateDir, StateFlags);
flags!(Files, FileFlags);
flags!(Env, EnvFlags);

impl From<StateFlags> for StateDir {
    fn from(flags: StateFlags) -> StateDir {
        StateDir { dir: flags.dir }
    }
}

impl From<FileFlags> for Files {
    fn from(FileFlags { rootfs, state }: FileFlags) -> Files {
        Files { rootfs, state }
    }
}

impl From<EnvFlags> for Env {
    fn from(EnvFlags { env, workdir }: EnvFlags) -> Env {
        Env { env, workdir }
    }
}

/// Checks a variable of `-e`.
pub fn variable(text: &str) -> Result<String, String> {
    match text.split('=').next() {
        None | Some("") => Err("a variable has a name: KEY=VALUE".into()),
        Some(_) => Ok(text.into()),
    }
}

/// Checks a path in the container.
pub fn absolute(text: &str) -> Result<String, String> {
    match text.starts_with('/') {
        true => Ok(text.into()),
        false => Err("it has to be an absolute path, as the container sees it".into()),
    }
}

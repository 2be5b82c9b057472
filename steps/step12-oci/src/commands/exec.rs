//! `exec`: another process in a container that runs.

use crate::Status;
use crate::commands::begin::engines_console;
use crate::commands::global::Global;
use crate::commands::run::own_console;
use crate::config::read::ProcessSpec;
use crate::report::Trouble;
use crate::start::{Below, Joining, exec};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::path::PathBuf;
use step05_tty::relay::Until;

/// Run another process in a container that runs
#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// The process as JSON, in FILE
    #[arg(short, long, value_name = "FILE")]
    process: Option<PathBuf>,

    /// The socket that gets the terminal's other end
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,

    /// The socket that gets a descriptor for the process
    #[arg(long, value_name = "SOCKET")]
    pidfd_socket: Option<PathBuf>,

    /// Write the process's ID to FILE
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,

    /// Don't wait for its end
    #[arg(short, long)]
    detach: bool,

    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,

    /// The directory in which it starts
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,

    /// Set an environment variable besides the container's own
    #[arg(short, long = "env", value_name = "KEY=VALUE")]
    env: Vec<String>,

    /// Its user, and group, by number
    #[arg(short, long, value_name = "UID[:GID]", value_parser = ids)]
    user: Option<(u32, Option<u32>)>,

    /// More groups
    #[arg(short = 'g', long, value_name = "GID")]
    additional_gids: Vec<u32>,

    /// A capability besides the container's own
    #[arg(short, long, value_name = "CAPABILITY")]
    cap: Vec<String>,

    /// `execve` can bring no more privileges
    #[arg(long)]
    no_new_privs: bool,

    /// Its AppArmor profile
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,

    /// Its SELinux label
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,

    /// A group below the container's own that it goes to, perhaps for some controllers alone
    #[arg(long, value_name = "[CONTROLLER,…:]GROUP", value_parser = below)]
    cgroup: Vec<Below>,

    /// Taken for runc's sake, and without a meaning
    #[arg(long, hide = true)]
    no_subreaper: bool,

    /// Hand on N descriptors from 3 on
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    preserve_fds: u32,

    /// Join a container that stands still, too
    #[arg(long)]
    ignore_paused: bool,

    /// The container's ID
    id: String,

    /// The command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Exec {
    pub(crate) fn run(&self, global: &Global) -> Result<u8> {
        // Before anything is closed: the file may be one that the caller has open.
        let given = self.process.as_ref().map(|path| ProcessSpec::read(path));
        let preserve_fds = global.begin_alone(self.preserve_fds)?;
        let given = given.transpose().context("--process")?;
        let known = global.find(&self.id)?;
        match known.status()? {
            Status::Running | Status::Created => {}
            Status::Paused if self.ignore_paused => {}
            status => return Err(Trouble::CannotExec(status).into()),
        }
        let process = match (given, &known.config()?.process) {
            (Some(given), _) => given,
            (None, Some(first)) => self.like(first)?,
            (None, None) => bail!("the container's configuration has no process"),
        };
        let console = match self.detach || self.console_socket.is_some() {
            true => engines_console(process.terminal, self.console_socket.as_ref())?,
            false => own_console(process.terminal)?,
        };
        let joining = Joining {
            process: &process,
            below: &self.cgroup,
            preserve_fds,
            pid_file: self.pid_file.as_deref(),
            pidfd_socket: self.pidfd_socket.as_deref(),
        };
        let child = exec(&known, &joining, &console)?;
        match self.detach {
            true => Ok(0),
            false => console.stay_with(&child, Until::AllIsSaid),
        }
    }

    /// A process like the container's `first` one, but for what the flags say.
    fn like(&self, first: &ProcessSpec) -> Result<ProcessSpec> {
        let mut process = ProcessSpec {
            args: self.command.clone(),
            terminal: self.tty,
            console_size: None,
            ..first.clone()
        };
        process.env.extend(self.env.iter().cloned());
        if let Some(cwd) = &self.cwd {
            process.cwd.clone_from(cwd);
        }
        if let Some((uid, gid)) = self.user {
            process.user.uid = uid;
            process.user.gid = gid.unwrap_or(process.user.gid);
        }
        process.user.additional_gids.extend(&self.additional_gids);
        for set in [
            &mut process.capabilities.bounding,
            &mut process.capabilities.effective,
            &mut process.capabilities.permitted,
        ] {
            set.extend(self.cap.iter().cloned());
        }
        process.no_new_privileges |= self.no_new_privs;
        if let Some(profile) = &self.apparmor {
            process.apparmor_profile.clone_from(profile);
        }
        if let Some(label) = &self.process_label {
            process.selinux_label.clone_from(label);
        }
        process.check("process")?;
        Ok(process)
    }
}

/// Reads `UID` or `UID:GID`.
fn ids(text: &str) -> Result<(u32, Option<u32>), String> {
    let (uid, gid) = match text.split_once(':') {
        Some((uid, gid)) => (uid, Some(gid)),
        None => (text, None),
    };
    let number = |text: &str| {
        text.parse::<u32>()
            .map_err(|_| format!("{text:?} is no number"))
    };
    Ok((number(uid)?, gid.map(number).transpose()?))
}

/// Reads `GROUP` or `CONTROLLER,…:GROUP`.
fn below(text: &str) -> Result<Below, String> {
    let (controllers, path) = text.split_once(':').unwrap_or(("", text));
    let controllers = controllers.split(',').filter(|name| !name.is_empty());
    Ok(Below {
        controllers: controllers.map(str::to_owned).collect(),
        path: path.into(),
    })
}

//! Hooks: programs of others that are run at certain moments of a container's life, each with the container's state on its
//! standard input.

use crate::config::read::Hook;
use anyhow::{Context, Result, bail};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde_json::Value;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;
use step02_pid::birth::pidfd_open;
use step09_detach::{send, wait_for_end};

/// The most bytes of a hook's output that an error quotes.
const QUOTED: u64 = 2000;

/// Runs `hooks` one after the other, with `state` on their standard input. `moment` is their property's name.
///
/// # Errors
/// A hook that can't be run, ends without success, or takes longer than its timeout; those behind it aren't run then.
pub fn run(moment: &str, hooks: &[Hook], state: &Value) -> Result<()> {
    for (place, hook) in hooks.iter().enumerate() {
        let named = || format!("hooks.{moment}[{place}]: {}", hook.path.display());
        run_one(hook, state).with_context(named)?;
    }
    Ok(())
}

fn run_one(hook: &Hook, state: &Value) -> Result<()> {
    if !hook.path.is_absolute() {
        bail!("the path has to be absolute");
    }
    let patience = match hook.timeout {
        Some(seconds @ ..=0) => bail!("the timeout has to be more than 0, and not {seconds}"),
        Some(seconds) => Some(Duration::from_secs(seconds as u64)),
        None => None,
    };
    // Files in memory, and no pipes: a hook that doesn't read, or says more than a pipe holds, keeps nobody waiting.
    let mut input = in_memory()?;
    input.write_all(state.to_string().as_bytes())?;
    input.rewind()?;
    let mut output = in_memory()?;
    let mut command = Command::new(&hook.path);
    if let Some((name, arguments)) = hook.args.split_first() {
        command.arg0(name).args(arguments);
    }
    let variables = hook
        .env
        .iter()
        .filter_map(|variable| variable.split_once('='));
    let mut hook = command
        .env_clear()
        .envs(variables)
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(output.try_clone()?))
        .stderr(Stdio::from(output.try_clone()?))
        .spawn()?;
    let pidfd = pidfd_open(hook.id() as i32)?;
    let in_time = wait_for_end(&pidfd, patience)?;
    if !in_time {
        send(&pidfd, libc::SIGKILL)?;
    }
    let status = hook.wait()?;
    let mut said = Vec::new();
    output.rewind()?;
    output.take(QUOTED).read_to_end(&mut said)?;
    let said = String::from_utf8_lossy(&said);
    match patience.filter(|_| !in_time) {
        Some(patience) => bail!(
            "it took longer than {} s, and was ended: {}",
            patience.as_secs(),
            said.trim()
        ),
        None if !status.success() => bail!("{status}: {}", said.trim()),
        None => Ok(()),
    }
}

fn in_memory() -> Result<File> {
    let file: OwnedFd = memfd_create(c"hook", MFdFlags::MFD_CLOEXEC)?;
    Ok(file.into())
}

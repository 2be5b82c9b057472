//! Hooks: programs of others that are run at certain moments of a container's life, each with the container's state on its
//! standard input.

use crate::Status;
use crate::config::read::{Config, Hook};
use crate::report;
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::SigSet;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use step02_pid::birth::pidfd_open;
use step02_pid::signals::{Requests, asked_to_end};
use step09_detach::{send, wait_for_end};

/// The most bytes of a hook's output that an error quotes.
const QUOTED: u64 = 2000;

/// The state that a hook reads: the specification's part on the state of a container.
pub fn state_of(config: &Config, id: &str, status: Status, pid: i32, bundle: &Path) -> Value {
    json!({
        "ociVersion": config.oci_version,
        "id": id,
        "status": status,
        "pid": pid,
        "bundle": bundle,
        "annotations": config.annotations,
    })
}

/// The hooks of one moment.
pub struct Moment<'a> {
    /// The name of their property.
    pub name: &'a str,
    /// The hooks, in order.
    pub hooks: &'a [Hook],
    /// What they read.
    pub state: Value,
    /// The directory in which they run; the caller's own, without.
    pub directory: Option<&'a Path>,
    /// The container's process: when it has ended, there is nothing to be done for it any more.
    pub process: Option<&'a OwnedFd>,
}

impl Moment<'_> {
    /// Runs the hooks one after the other.
    ///
    /// # Errors
    /// A hook that can't be run, ends without success, or takes longer than its timeout; those behind it aren't run then.
    pub fn run(&self) -> Result<()> {
        for (place, hook) in self.hooks.iter().enumerate() {
            let named = || format!("hooks.{}[{place}]: {}", self.name, hook.path.display());
            self.run_one(hook).with_context(named)?;
        }
        Ok(())
    }

    /// Runs all hooks, whatever becomes of each: what they were to follow has happened already.
    pub fn run_all(&self) {
        for (place, hook) in self.hooks.iter().enumerate() {
            if let Err(error) = self.run_one(hook) {
                let path = hook.path.display();
                report::warn(&format!("hooks.{}[{place}]: {path}: {error:#}", self.name));
            }
        }
    }

    fn run_one(&self, hook: &Hook) -> Result<()> {
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
        input.write_all(self.state.to_string().as_bytes())?;
        input.rewind()?;
        let mut output = in_memory()?;
        let mut command = Command::new(&hook.path);
        if let Some((name, arguments)) = hook.args.split_first() {
            command.arg0(name).args(arguments);
        }
        if let Some(directory) = self.directory {
            command.current_dir(directory);
        }
        let variables = hook
            .env
            .iter()
            .filter_map(|variable| variable.split_once('='));
        command
            .env_clear()
            .envs(variables)
            .stdin(Stdio::from(input))
            .stdout(Stdio::from(output.try_clone()?))
            .stderr(Stdio::from(output.try_clone()?));
        // SAFETY: between fork and exec this makes one system call.
        unsafe {
            // The signals that we hold back are the hook's to hear.
            command.pre_exec(|| Ok(SigSet::empty().thread_set_mask()?));
        }
        let mut running = command.spawn()?;
        let pidfd = pidfd_open(running.id() as i32)?;
        let waited = self.wait(&pidfd, patience);
        if waited.is_err() {
            send(&pidfd, libc::SIGKILL)?;
            wait_for_end(&pidfd, None)?;
        }
        let status = running.wait()?;
        let mut said = Vec::new();
        output.rewind()?;
        output.take(QUOTED).read_to_end(&mut said)?;
        let said = String::from_utf8_lossy(&said);
        waited.with_context(|| said.trim().to_owned())?;
        match status.success() {
            true => Ok(()),
            false => bail!("{status}: {}", said.trim()),
        }
    }

    /// Waits until the hook of `hook` has ended.
    ///
    /// # Errors
    /// It takes longer than `patience`, somebody asks this process to end, or the container's process has ended.
    fn wait(&self, hook: &OwnedFd, patience: Option<Duration>) -> Result<()> {
        let requests = Requests::new()?;
        let begin = Instant::now();
        loop {
            let left = patience.map(|patience| patience.saturating_sub(begin.elapsed()));
            let timeout = left.map_or(PollTimeout::NONE, |left| {
                let millis = left.as_millis().saturating_add(u128::from(!left.is_zero()));
                let millis = i32::try_from(millis).unwrap_or(i32::MAX);
                PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
            });
            let nobody = PollFd::new(hook.as_fd(), PollFlags::empty());
            let container = self
                .process
                .map(|process| PollFd::new(process.as_fd(), PollFlags::POLLIN));
            let mut polled = [
                PollFd::new(hook.as_fd(), PollFlags::POLLIN),
                PollFd::new(requests.as_fd(), PollFlags::POLLIN),
                container.unwrap_or(nobody),
            ];
            match poll(&mut polled, timeout) {
                Err(Errno::EINTR) => continue,
                polled => polled?,
            };
            let [ended, asked, gone] = polled.map(|each| each.any() == Some(true));
            match (ended, asked, gone) {
                (true, ..) => return Ok(()),
                (_, true, _) => return Err(asked_to_end(requests.receive()?).into()),
                (.., true) => bail!("the container's process has ended meanwhile"),
                _ if left.is_some_and(|left| left.is_zero()) => {
                    let seconds = patience.unwrap_or_default().as_secs();
                    bail!("it took longer than {seconds} s, and was ended")
                }
                _ => {}
            }
        }
    }
}

fn in_memory() -> Result<File> {
    let file: OwnedFd = memfd_create(c"hook", MFdFlags::MFD_CLOEXEC)?;
    Ok(file.into())
}

//! What is known of a container: what is written down, and what the kernel says now.

use crate::config::read::Config;
use crate::state::store::{Container, State, groups_of};
use crate::{Status, status};
use anyhow::{Context, Error, Result, bail};
use nix::errno::Errno;
use serde_json::{Value, json};
use std::cell::OnceCell;
use std::fs;
use step01_uts::call;
use step02_pid::birth::pidfd_open;
use step07_cgroups::Version;
use step07_cgroups::cgroup::group::{each_group, processes, write_in};
use step07_cgroups::cgroup::places::Groups;
use step09_detach::{is_running, send};

/// A container, its state, and its control groups.
pub struct Known {
    /// Its folder.
    pub container: Container,
    /// What is written down; `None`, when it never got as far as a process.
    pub state: Option<State>,
    /// Its control groups, as far as there are some.
    pub groups: Groups,
    /// Why what is written down can't be read.
    spoilt: Option<Error>,
    config: OnceCell<Config>,
}

impl Known {
    /// A container that has just been made.
    pub fn new(container: Container, state: State, groups: Groups) -> Known {
        Known {
            container,
            state: Some(state),
            groups,
            spoilt: None,
            config: OnceCell::new(),
        }
    }

    /// With the configuration, for whoever has read it already.
    pub fn with(self, config: Config) -> Known {
        Known {
            config: config.into(),
            ..self
        }
    }

    /// The configuration as it was at `create`.
    pub fn config(&self) -> Result<&Config> {
        if let Some(config) = self.config.get() {
            return Ok(config);
        }
        let config = self.container.config()?;
        Ok(self.config.get_or_init(|| config))
    }

    /// Looks at `container`.
    pub fn of(container: Container) -> Result<Known> {
        let (state, spoilt) = match container.state() {
            Ok(state) => (state, None),
            Err(error) => (None, Some(error)),
        };
        let path = match &state {
            Some(state) => state.groups.clone(),
            // It was killed before there was a process: then the configuration tells.
            None => container
                .config()
                .ok()
                .map(|config| groups_of(&config, &container.id)),
        };
        Ok(Known {
            groups: path.map_or_else(|| Ok(Groups::default()), |path| Groups::at(&path))?,
            container,
            state,
            spoilt,
            config: OnceCell::new(),
        })
    }

    /// Whether it got as far as a process: then whoever is in its groups is the container's.
    pub fn has_begun(&self) -> bool {
        self.state.is_some() || self.spoilt.is_some()
    }

    /// What the container does now.
    ///
    /// # Errors
    /// What is written down can't be read.
    pub fn status(&self) -> Result<Status> {
        if let Some(error) = &self.spoilt {
            bail!("{error:#}\nhelp: remove it with delete --force");
        }
        let process = self.state.as_ref().map(|state| &state.process);
        status(process, &self.container.waits(), &self.groups)
    }

    /// What is written down.
    ///
    /// # Errors
    /// It never got as far as a process.
    pub fn state(&self) -> Result<&State> {
        self.state
            .as_ref()
            .context("the container was never made to its end\nhelp: remove it with delete --force")
    }

    /// The processes of the container; its first one alone, where it has no control groups.
    pub fn processes(&self) -> Vec<i32> {
        let folder = ["pids", "memory", "devices", "cpu"]
            .into_iter()
            .find_map(|controller| self.groups.folder(controller));
        let mut found = match folder {
            Some((folder, _)) => processes(folder),
            None => {
                let first = self.state.iter().filter(|state| is_running(&state.process));
                first.map(|state| state.process.pid).collect()
            }
        };
        found.sort_unstable();
        found
    }

    /// Sends `signal` to all processes of the container. With SIGKILL also those are meant that they start meanwhile, and
    /// those that stand still, here or in a group below: in version 1 they don't hear it before they go on.
    pub fn signal_all(&self, signal: i32) -> Result<()> {
        const TURNS: u32 = 1000;
        // Each takes a descriptor for a moment.
        const AT_ONCE: usize = 200;
        let mut told: Vec<i32> = Vec::new();
        for _ in 0..TURNS {
            let here: Vec<i32> = self.processes();
            let new: Vec<i32> = here.into_iter().filter(|pid| !told.contains(pid)).collect();
            new.chunks(AT_ONCE)
                .try_for_each(|some| self.signal_some(some, signal))?;
            if signal != libc::SIGKILL || new.is_empty() {
                break;
            }
            told.extend(new);
            self.thaw_all();
        }
        if signal == libc::SIGKILL {
            self.thaw_all();
        }
        Ok(())
    }

    /// Sends `signal` to those of `pids` that are the container's. A number may be another process's by now: who is still in
    /// the groups when its descriptor is open is meant.
    fn signal_some(&self, pids: &[i32], signal: i32) -> Result<()> {
        let mut open = Vec::new();
        for pid in pids {
            match call!(pidfd_open(*pid)) {
                Err(refused) if refused.errno() == Errno::ESRCH => {}
                pidfd => open.push((pid, pidfd?)),
            }
        }
        let here = self.processes();
        let mut theirs = open.iter().filter(|(pid, _)| here.contains(pid));
        theirs.try_for_each(|(_, pidfd)| send(pidfd, signal))
    }

    /// Has everybody go on, also in the groups that the container may have made below its own.
    fn thaw_all(&self) {
        let Some((folder, version)) = self.groups.folder("freezer") else {
            return;
        };
        let (file, state) = match version {
            Version::V1 => ("freezer.state", "THAWED"),
            Version::V2 => ("cgroup.freeze", "0"),
        };
        // The topmost group of all has no such file.
        each_group(folder, &mut |group| drop(write_in(group, file, state)));
    }

    /// The state as the specification wants it, and runc prints it.
    pub fn shown(&self) -> Result<Value> {
        let status = self.status()?;
        let Some(state) = &self.state else {
            return Ok(
                json!({"ociVersion": "1.0.0", "id": self.container.id, "pid": 0, "status": status}),
            );
        };
        let mut shown = json!({
            "ociVersion": state.oci_version,
            "id": state.id,
            "pid": if status == Status::Stopped { 0 } else { state.process.pid },
            "status": status,
            "bundle": state.bundle,
            "rootfs": state.rootfs,
            "created": state.created,
            "owner": name_of(state.owner),
        });
        if !state.annotations.is_empty() {
            shown["annotations"] = json!(state.annotations);
        }
        Ok(shown)
    }
}

/// The name that the host has for a user; the number, where it has none.
fn name_of(uid: u32) -> String {
    let number = uid.to_string();
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut lines = users.lines().map(|line| line.split(':'));
    let name = lines.find_map(|mut fields| {
        let name = fields.next()?;
        (fields.nth(1)? == number).then(|| name.to_owned())
    });
    name.unwrap_or(number)
}

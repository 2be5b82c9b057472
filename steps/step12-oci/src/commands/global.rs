//! What all commands are told before their own words.

use crate::command::check_preserved;
use crate::state::known::Known;
use crate::state::store::Store;
use anyhow::{Result, bail};
use step01_uts::{CloseRange, Narration, close_range};

/// What all commands are told.
pub(crate) struct Global {
    pub(crate) store: Store,
    pub(crate) debug: bool,
    pub(crate) rootless: bool,
    pub(crate) systemd: bool,
    pub(crate) narration: Narration,
}

impl Global {
    /// Begins to narrate. From here on there are descriptors of ours.
    pub(crate) fn begin(&self) -> Result<()> {
        self.narration.begin()
    }

    /// The same for a command that has nothing open but what its process is to get: descriptors 0 to 2, and as many behind
    /// them as this returns. Whoever called may wait for the end of a pipe.
    pub(crate) fn begin_alone(&self, preserve_fds: u32) -> Result<u32> {
        let preserved = check_preserved(preserve_fds);
        close_range(3 + *preserved.as_ref().unwrap_or(&0), CloseRange::Close)?;
        // Only now: an error that comes later is in the log, too.
        self.begin()?;
        preserved
    }

    /// Fails when systemd is to make control groups.
    pub(crate) fn refuse_systemd(&self) -> Result<()> {
        match self.systemd {
            true => bail!(
                "--systemd-cgroup: this runtime makes control groups itself\n\
                 help: have the engine do so: native.cgroupdriver=cgroupfs for Docker, --cgroup-manager=cgroupfs for \
                 Podman, SystemdCgroup = false for containerd"
            ),
            false => Ok(()),
        }
    }

    /// The container `id`, and what is known of it.
    pub(crate) fn find(&self, id: &str) -> Result<Known> {
        Known::of(self.store.find(id)?)
    }
}

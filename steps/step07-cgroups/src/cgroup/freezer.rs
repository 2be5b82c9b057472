//! Stopping all processes of a control group at once, so that no process notices: the freezer controller of
//! version 1, and `cgroup.freeze`, which every group of version 2 has.
//!
//! SIGSTOP would be no substitute: any process that may send SIGCONT can continue a stopped process, and the
//! stopped process's parent is told. No signal continues a frozen process. See cgroups(7), and the kernel's
//! documentation of both freezers.

use crate::Version;
use crate::cgroup::places::Groups;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

impl Groups {
    /// Stops every process of the groups, or continues them, and returns when all have stopped, or go on.
    ///
    /// # Errors
    /// This machine has no freezer, or a process doesn't come to a stop within ten seconds: one that waits for
    /// a disk, say.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        const PATIENCE: Duration = Duration::from_secs(10);
        let (file, version) = self.freezer()?;
        let state = match (version, frozen) {
            (Version::V1, true) => "FROZEN",
            (Version::V1, false) => "THAWED",
            (Version::V2, true) => "1",
            (Version::V2, false) => "0",
        };
        let begin = Instant::now();
        loop {
            fs::write(&file, state).with_context(|| format!("{state} to {}", file.display()))?;
            if self.is_frozen()? == frozen {
                return Ok(());
            }
            if begin.elapsed() > PATIENCE {
                let _ = fs::write(
                    &file,
                    if version == Version::V1 {
                        "THAWED"
                    } else {
                        "0"
                    },
                );
                bail!("{}: not everybody came to a stop", file.display());
            }
            sleep(Duration::from_millis(1));
        }
    }

    /// Whether all processes of the groups are stopped.
    pub fn is_frozen(&self) -> Result<bool> {
        let (file, version) = self.freezer()?;
        let read =
            |file: PathBuf| fs::read_to_string(&file).with_context(|| file.display().to_string());
        Ok(match version {
            Version::V1 => read(file)?.trim() == "FROZEN",
            Version::V2 => read(file.with_file_name("cgroup.events"))?.contains("frozen 1"),
        })
    }

    fn freezer(&self) -> Result<(PathBuf, Version)> {
        match self.folder("freezer") {
            Some((folder, Version::V1)) => Ok((folder.join("freezer.state"), Version::V1)),
            Some((folder, Version::V2)) => Ok((folder.join("cgroup.freeze"), Version::V2)),
            None if self.0.is_empty() => bail!("it has just ended: its control groups are gone"),
            None => bail!(
                "this machine has no freezer controller mounted, so nothing can be stopped as a whole\n\
                 help: mount cgroup2 on /sys/fs/cgroup, or boot with cgroup_enable=freezer"
            ),
        }
    }
}

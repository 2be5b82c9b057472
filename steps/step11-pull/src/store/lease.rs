//! Leases: what a process is about to use, so that nobody removes it meanwhile.

use crate::Digest;
use crate::store::ImageStore;
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::PathBuf;
use step04_pivot_root::lock::Lock;
use step07_cgroups::cgroup::group::new_id;

/// A list of digests that are kept as long as this exists. It is a file with a lock: when its process dies, it counts no
/// more.
pub struct Lease {
    _lock: Lock,
    path: PathBuf,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl ImageStore {
    /// Has `wanted` kept. What isn't there when this returns was never there, or is gone: the caller looks afterwards.
    ///
    /// # Errors
    /// The filesystem's.
    pub fn lease(&self, wanted: &[Digest]) -> Result<Lease> {
        let path = self.leases().join(new_id()?);
        let _keep = self.keep()?;
        let make = || -> Result<Lease> {
            let file = File::create_new(&path)?;
            let lock = Lock::exclusive(file)?;
            for digest in wanted {
                writeln!(&*lock, "{digest}")?;
            }
            Ok(Lease {
                _lock: lock,
                path: path.clone(),
            })
        };
        make().with_context(|| path.display().to_string())
    }

    /// What is leased just now. Leases of processes that have died are removed. The calling process has the lock of the
    /// store.
    pub(crate) fn leased(&self) -> Result<BTreeSet<Digest>> {
        let mut all = BTreeSet::new();
        for entry in fs::read_dir(self.leases())?.flatten() {
            let Ok(mut file) = File::open(entry.path()) else {
                continue;
            };
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            match Lock::attempt(file)? {
                Some(_dead) => drop(fs::remove_file(entry.path())),
                None => all.extend(text.lines().filter_map(|line| line.parse().ok())),
            }
        }
        Ok(all)
    }
}

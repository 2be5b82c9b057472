//! Which files of the kernel's a container doesn't see, and which it may only read. Docker's and runc's
//! lists.

use crate::make_read_only;
use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{SFlag, major, minor, stat};
use step01_uts::call;
use step04_pivot_root::root::kind;

// ANCHOR: paths
/// Files of the kernel's that tell about the host, or about other containers: they read as empty.
pub const MASKED_PATHS: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Files that change the host when uid 0 writes them, whatever its capabilities.
pub const READ_ONLY_PATHS: &[&str] = &[
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];
// ANCHOR_END: paths

// ANCHOR: seal
/// Hides `masked` and makes `read_only` so, as far as this kernel has them.
pub fn seal(masked: &[&str], read_only: &[&str]) -> Result<()> {
    for path in read_only {
        make_read_only(path)?;
    }
    for path in masked {
        mask(path)?;
    }
    Ok(())
}
// ANCHOR_END: seal

/// Hides `path`: a file beneath /dev/null, a directory beneath one that is empty and stays so.
/// Nothing happens where there is no such path.
pub fn mask(path: &str) -> Result<()> {
    let none = None::<&str>;
    let null = "/dev/null";
    match call!(mount(Some(null), path, none, MsFlags::MS_BIND, none)) {
        Ok(()) => be_null(path),
        Err(refused) => match refused.errno() {
            Errno::ENOENT => Ok(()),
            Errno::ENOTDIR => {
                let (tmpfs, flags) = (Some("tmpfs"), MsFlags::MS_RDONLY);
                call!(mount(tmpfs, path, tmpfs, flags, Some("size=0k")))?;
                Ok(())
            }
            _ => Err(refused.into()),
        },
    }
}

/// Fails unless `path` is the null device: whoever can put something else at /dev/null would choose
/// what the container sees here.
fn be_null(path: &str) -> Result<()> {
    let found = stat(path)?;
    let number = (major(found.st_rdev), minor(found.st_rdev));
    if kind(&found) != SFlag::S_IFCHR || number != (1, 3) {
        bail!("/dev/null in the container isn't the null device, and {path} is to be masked by it");
    }
    Ok(())
}

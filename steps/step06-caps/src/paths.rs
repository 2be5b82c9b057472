//! The kernel's files that a container doesn't see, and those that it may only read: Docker's and runc's
//! lists.

use crate::make_read_only;
use anyhow::Result;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use step01_uts::call;
use step05_tty::mounts::MountPoint;

// ANCHOR: paths
/// Files of the kernel's that tell about the host, or about other containers: here they read as empty.
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
/// Makes the paths `read_only` read-only, and hides the paths `masked`, as far as this kernel has them. `null` is the
/// null device, held since /dev was made: by now a volume may be at /dev/null.
pub fn seal(null: &MountPoint, masked: &[&str], read_only: &[&str]) -> Result<()> {
    for path in read_only {
        make_read_only(path)?;
    }
    for path in masked {
        mask(null, path)?;
    }
    Ok(())
}
// ANCHOR_END: seal

/// Hides `path`: a file beneath the null device, a directory beneath an empty one that stays empty.
/// Nothing happens where there is no such path.
pub fn mask(null: &MountPoint, path: &str) -> Result<()> {
    let none = None::<&str>;
    match call!(mount(Some(null), path, none, MsFlags::MS_BIND, none)) {
        Ok(()) => Ok(()),
        Err(refused) => match refused.errno() {
            // The path is missing. The device can't be: its descriptor is held.
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

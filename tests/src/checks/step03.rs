//! Chapter 3: mounts and a network of its own.

use super::{Claim, Workbench, in_its_own};
use crate::container::Container;
use crate::evidence::{Mount, hosts_mounts};
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

/// 3.1: no mount is shared with the host, and none appears there.
pub fn make_private(bench: &Workbench) -> Result<Vec<Claim>> {
    let before = hosts_mounts()?;
    let script = "mount -t tmpfs leak /mnt && echo ready; read end";
    let container = Container::start(&bench.program, &["sh", "-c", script])?;
    let shared: Vec<_> = container
        .first_process()
        .mounts()?
        .into_iter()
        .filter(|mount| !mount.tags.is_empty())
        .collect();
    let leaked: Vec<_> = hosts_mounts()?
        .into_iter()
        .filter(|mount| !before.contains(mount))
        .collect();
    let show = |mounts: &[Mount]| match mounts.first() {
        None => "none".to_owned(),
        Some(mount) => format!("{} {}", mount.target.display(), mount.tags.join(" ")),
    };
    Ok(vec![
        in_its_own(&container, "mnt")?,
        Claim::new(
            "no mount of the container is tied to another namespace's",
            format!(
                "/proc/PID/mountinfo, mounts with shared: or master: {}",
                show(&shared)
            ),
            shared.is_empty(),
        ),
        Claim::new(
            "what the container mounts doesn't appear on the host",
            format!(
                "/proc/self/mountinfo on the host, new mounts: {}",
                show(&leaked)
            ),
            leaked.is_empty(),
        ),
    ])
}

/// 3.2: /proc is a procfs of the container's, mounted with the three flags.
pub fn mount_proc(bench: &Workbench) -> Result<Vec<Claim>> {
    let script = "echo ready; read end";
    let container = Container::start(&bench.program, &["sh", "-c", script])?;
    let first = container.first_process();
    let seen = first.file("root/proc/1/cmdline");
    let one = fs::read(&seen).with_context(|| seen.display().to_string())?;
    let mounts = first.mounts()?;
    let proc = mounts
        .iter()
        .rfind(|mount| mount.target == Path::new("/proc"));
    let proc = proc.context("the container has nothing mounted at /proc")?;
    let has = |flag| proc.options.split(',').any(|option| option == flag);
    Ok(vec![
        Claim::equal(
            "/proc is a procfs",
            "/proc/PID/mountinfo",
            &proc.filesystem.as_str(),
            &"proc",
        ),
        Claim::new(
            "it has nosuid, nodev and noexec",
            format!("/proc/PID/mountinfo: {}", proc.options),
            ["nosuid", "nodev", "noexec"].into_iter().all(has),
        ),
        Claim::new(
            "/proc/1 is the command",
            format!(
                "/proc/1/cmdline in the container: {:?}",
                String::from_utf8_lossy(&one)
            ),
            String::from_utf8_lossy(&one).contains(script),
        ),
    ])
}

/// 3.3: a network namespace with nothing but a loopback that is up, and a sysfs that shows it.
pub fn loopback_up(bench: &Workbench) -> Result<Vec<Claim>> {
    let script = "read flags < /sys/class/net/lo/flags; echo $flags; read end";
    let container = Container::start(&bench.program, &["sh", "-c", script])?;
    let first = container.first_process();
    let listed = first.file("root/sys/class/net");
    let mut interfaces: Vec<_> = fs::read_dir(&listed)
        .with_context(|| listed.display().to_string())?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    interfaces.sort();
    let flags = container.first_line();
    let number = i32::from_str_radix(flags.trim_start_matches("0x"), 16).unwrap_or_default();
    const IFF_UP: i32 = 1;
    const IFF_LOOPBACK: i32 = 8;
    Ok(vec![
        in_its_own(&container, "net")?,
        in_its_own(&container, "ipc")?,
        Claim::equal(
            "its /sys lists its own interfaces: the loopback",
            "/sys/class/net in the container",
            &interfaces,
            &vec!["lo".to_owned()],
        ),
        Claim::new(
            "the loopback is up, and still a loopback",
            format!("/sys/class/net/lo/flags in the container: {flags}"),
            number & IFF_UP != 0 && number & IFF_LOOPBACK != 0,
        ),
    ])
}

//! # Step 3: mounts, a network and message queues of its own
//!
//! `ps` doesn't ask the kernel who is there: it reads the folders below /proc. A procfs shows the
//! PID namespace of the process that *mounted* it, a sysfs its network namespace. Both are windows,
//! and a container needs windows of its own ([`mount_proc`], [`mount_sysfs`]), in a mount table of
//! its own that no longer shares its changes with the host's ([`make_private`]).
//!
//! A new network namespace is as good as empty: its loopback interface is there, and down
//! ([`loopback_up`]).

use anyhow::Result;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use std::os::fd::{AsRawFd, OwnedFd};
use step01_uts::call;

// ANCHOR: make_private
/// Cuts the tie between this mount namespace and the one it was copied from.
///
/// A new mount namespace is a copy, and its mounts remain peers of the originals: where systemd has
/// made `/` shared, each new mount in here would appear on the host too. `MS_PRIVATE` ends that,
/// `MS_REC` for every mount below as well. See mount_namespaces(7).
///
/// # Errors
/// [`Refused`](step01_uts::Refused): EPERM for want of CAP_SYS_ADMIN, EINVAL where `/` isn't a mount
/// point, as in a chroot.
pub fn make_private() -> Result<()> {
    // ANCHOR_END: make_private
    // ANCHOR: exercise_make_private
    let (no_source, no_type, no_data) = (None::<&str>, None::<&str>, None::<&str>);
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    call!(mount(no_source, "/", no_type, flags, no_data))?;
    Ok(())
    // ANCHOR_END: exercise_make_private
}

// ANCHOR: NOTHING_TO_RUN
/// What a filesystem made by the kernel has no use for: setuid programs, device files, programs.
const NOTHING_TO_RUN: MsFlags = MsFlags::MS_NOSUID
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOEXEC);
// ANCHOR_END: NOTHING_TO_RUN

// ANCHOR: mount_proc
/// Mounts a procfs of this PID namespace over /proc. See proc(5).
///
/// # Errors
/// [`Refused`](step01_uts::Refused): ENOENT without a directory /proc; EPERM for want of
/// CAP_SYS_ADMIN in the user namespace that owns this PID namespace.
pub fn mount_proc() -> Result<()> {
    // ANCHOR_END: mount_proc
    // ANCHOR: exercise_mount_proc
    let no_data = None::<&str>;
    call!(mount(
        Some("proc"),
        "/proc",
        Some("proc"),
        NOTHING_TO_RUN,
        no_data
    ))?;
    Ok(())
    // ANCHOR_END: exercise_mount_proc
}

// ANCHOR: mount_sysfs
/// Mounts a sysfs of this network namespace over /sys: `/sys/class/net` lists the interfaces of
/// the namespace whose process mounted it. See sysfs(5).
///
/// # Errors
/// As [`mount_proc`].
pub fn mount_sysfs() -> Result<()> {
    let no_data = None::<&str>;
    call!(mount(
        Some("sysfs"),
        "/sys",
        Some("sysfs"),
        NOTHING_TO_RUN,
        no_data
    ))?;
    Ok(())
}
// ANCHOR_END: mount_sysfs

// ANCHOR: loopback_up
/// Brings the loopback interface of this network namespace up; 127.0.0.1 and ::1 come with it.
/// See netdevice(7), network_namespaces(7).
///
/// # Errors
/// [`Refused`](step01_uts::Refused): EPERM for want of CAP_NET_ADMIN.
pub fn loopback_up() -> Result<()> {
    // ANCHOR_END: loopback_up
    // ANCHOR: exercise_loopback_up
    let socket = call!(socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None::<SockProtocol>,
    ))?;
    let flags = call!(interface_flags(&socket, "lo"))?;
    call!(set_interface_flags(&socket, "lo", flags | libc::IFF_UP))?;
    Ok(())
    // ANCHOR_END: exercise_loopback_up
}

// ANCHOR: interface_flags
/// The flags of the network interface `name`, through any socket of its network namespace: bits
/// such as IFF_UP and IFF_LOOPBACK. See SIOCGIFFLAGS in netdevice(7).
pub fn interface_flags(socket: &OwnedFd, name: &str) -> nix::Result<i32> {
    let mut request = request_for(name);
    // SAFETY: the kernel reads the name and writes the flags, both within `request`.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) };
    Errno::result(result)?;
    // SAFETY: the kernel has just written this member.
    Ok(unsafe { request.ifr_ifru.ifru_flags }.into())
}
// ANCHOR_END: interface_flags

// ANCHOR: set_interface_flags
/// Replaces all flags of the network interface `name`. See SIOCSIFFLAGS in netdevice(7).
pub fn set_interface_flags(socket: &OwnedFd, name: &str, flags: i32) -> nix::Result<()> {
    let mut request = request_for(name);
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the kernel reads the name and the flags, both within `request`.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) };
    Errno::result(result).map(drop)
}
// ANCHOR_END: set_interface_flags

fn request_for(interface: &str) -> libc::ifreq {
    // SAFETY: ifreq is plain bytes and numbers; all zero is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

//! # Step 6: fewer privileges
//!
//! Root in the container was root: one `mount` of devtmpfs, and the host's disks lay open. The power
//! of root is 41 capabilities, and a container needs few of them ([`drop_capabilities`]). The command's
//! user needn't be root at all ([`become_user`]). Some files of the kernel obey uid 0 without asking for
//! any capability ([`make_read_only`], [`paths`]). A container never makes most of the system calls: a
//! filter refuses these ([`filter()`]). With no_new_privs on, no setuid program brings back what was
//! given up.
//!
//! [`confine`] does all of this to a process, except for the files, in the one order that works. Which
//! capabilities there are is told in [`capabilities`], how a profile becomes a filter in [`seccomp::profile`]
//! and [`mod@seccomp`], who a user is in [`users`], and what each flag asks for in [`privileges`].
//!
//! One hole stays open until step 9. Before the command is executed, PID 1 is this program. A command that is a
//! script for `#!/proc/self/exe` is given the program's file on the host (CVE-2019-5736). Run only roots of your own
//! with steps 6 to 8; from step 9 on, the file lies on a read-only mount.

pub mod capabilities;
pub mod flags;
pub mod network;
pub mod paths;
pub mod privileges;
pub mod seccomp;
pub mod users;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::prctl::{get_pdeathsig, set_keepcaps, set_no_new_privs};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{Gid, Uid, getuid, setresgid, setresuid};
use step01_uts::call;
use step02_pid::die_with_parent;

use capabilities::{CapSets, Capability};
use seccomp::Filter;
use users::{User, setgroups};

// ANCHOR: Process
/// What a process of the container may do. A process that joins the container later is confined in the same way.
#[derive(Debug)]
pub struct Process {
    /// The process's user and groups.
    pub user: User,
    /// What the process may do of all that root may.
    pub capabilities: CapSets,
    /// Whether `execve` can bring no more privileges, by a setuid program, say. See PR_SET_NO_NEW_PRIVS(2const).
    pub no_new_privileges: bool,
    /// The system calls that the process may make; `None`: all.
    pub filter: Option<Filter>,
}
// ANCHOR_END: Process

// ANCHOR: confine
/// Confines the calling process for good.
///
/// Each of these steps needs a privilege that a later one takes away, so there is one order:
///
/// 1. The bounding set is lowered, which needs CAP_SETPCAP.
/// 2. Groups are set before the user: both need capabilities that are lost with uid 0.
/// 3. The other sets come last: what follows needs no capability.
///
/// The filter's place depends on no_new_privs. From a process with no_new_privs the kernel takes a filter
/// whatever the process's capabilities. Then the filter is best installed last, so that it needn't allow
/// what we do here. Without no_new_privs the kernel asks for CAP_SYS_ADMIN, so the filter has to come first.
pub fn confine(process: &Process) -> Result<()> {
    let its_filter = process.filter.as_ref();
    let dies_with_parent = get_pdeathsig()?.is_some();
    if !process.no_new_privileges {
        filter(its_filter, false)?;
    }
    lower_bounding_set(process.capabilities.bounding)?;
    become_user(&process.user)?;
    drop_capabilities(&process.capabilities)?;
    if dies_with_parent {
        // The kernel forgot that request when the user changed.
        die_with_parent()?;
    }
    if process.no_new_privileges {
        filter(its_filter, true)?;
    }
    Ok(())
}
// ANCHOR_END: confine

// ANCHOR: lower_bounding_set
/// Takes out of the bounding set all but `keep`, a bit for each capability.
///
/// The bounding set is the most that `execve` can give. Unless it is lowered, any file with capabilities of
/// its own, or a setuid program, brings dropped capabilities back. See PR_CAPBSET_DROP(2const).
pub fn lower_bounding_set(keep: u64) -> Result<()> {
    for number in 0..u64::BITS {
        if keep >> number & 1 == 1 {
            continue;
        }
        match call!(drop_from_bounding_set(number)) {
            // The kernel knows no capability with this number, nor with a higher one.
            Err(refused) if refused.errno() == Errno::EINVAL => break,
            outcome => outcome?,
        }
    }
    Ok(())
}
// ANCHOR_END: lower_bounding_set

/// Takes one capability out of the bounding set: PR_CAPBSET_DROP(2const).
pub fn drop_from_bounding_set(number: u32) -> nix::Result<()> {
    // SAFETY: takes integers.
    let result =
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0, 0, 0) };
    Errno::result(result).map(drop)
}

// ANCHOR: become_user
/// Gives the calling process its user and groups, real, effective and saved. Afterwards its supplementary
/// groups are just those of `user`. A caller that is that user already gets the groups, too, and stays it.
///
/// The supplementary groups are those of the host's root until they are replaced. A process loses its
/// permitted capabilities with the last of its three uids 0, unless they are kept on purpose. Here they are
/// kept, for [`drop_capabilities`] says which of them remain. See credentials(7), PR_SET_KEEPCAPS(2const).
///
/// # Errors
/// [`Refused`](step01_uts::Refused): EPERM for want of CAP_SETUID or CAP_SETGID.
pub fn become_user(user: &User) -> Result<()> {
    // ANCHOR_END: become_user
    // ANCHOR: exercise_become_user
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let groups: Vec<_> = user.groups.iter().copied().map(Gid::from_raw).collect();
    call!(setgroups(&groups))?;
    call!(setresgid(gid, gid, gid))?;
    if uid != getuid() {
        // All capabilities are kept until `drop_capabilities` says which of them remain.
        call!(set_keepcaps(true))?;
        call!(setresuid(uid, uid, uid))?;
    }
    Ok(())
    // ANCHOR_END: exercise_become_user
}

// ANCHOR: drop_capabilities
/// Sets the calling process's permitted, effective and inheritable capabilities, and then the
/// ambient ones, which can only be among the permitted and inheritable.
///
/// The bounding set stays as it is: call [`lower_bounding_set`] before, while CAP_SETPCAP is still there. See
/// capabilities(7).
///
/// # Errors
/// [`Refused`](step01_uts::Refused): EPERM for a capability that the caller hasn't got, and for an ambient one
/// that isn't inheritable.
pub fn drop_capabilities(sets: &CapSets) -> Result<()> {
    // ANCHOR_END: drop_capabilities
    // ANCHOR: exercise_drop_capabilities
    call!(capset(sets.effective, sets.permitted, sets.inheritable))?;
    for capability in Capability::all().filter(|each| sets.ambient & each.bit() != 0) {
        call!(raise_ambient(capability))?;
    }
    Ok(())
    // ANCHOR_END: exercise_drop_capabilities
}

/// Sets three of the five capability sets. Each has a bit for a capability. See capset(2).
pub fn capset(effective: u64, permitted: u64, inheritable: u64) -> nix::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let half = |shift: u32| [effective, permitted, inheritable].map(|set| (set >> shift) as u32);
    let data = [half(0), half(32)];
    // SAFETY: the kernel reads the header and, for this version, two structs of three u32.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    Errno::result(result).map(drop)
}

/// Adds a capability to the ambient set: PR_CAP_AMBIENT(2const).
pub fn raise_ambient(capability: Capability) -> nix::Result<()> {
    let number = libc::c_ulong::from(capability.number());
    // SAFETY: takes integers.
    let result = unsafe {
        let raise = libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong;
        libc::prctl(libc::PR_CAP_AMBIENT, raise, number, 0, 0)
    };
    Errno::result(result).map(drop)
}

// ANCHOR: filter
/// Has the kernel run `filter`, with its flags, before each system call of the calling process and its
/// descendants, from the next call on. With `no_new_privileges`, `execve` gives no new privileges from now on.
/// Neither can be undone, and each comes without the other where only one is asked for.
///
/// A filter can make a setuid program fail where the program never fails otherwise, so that it does harm.
/// The kernel therefore wants no_new_privs first, unless the caller has CAP_SYS_ADMIN. See seccomp(2),
/// PR_SET_NO_NEW_PRIVS(2const).
///
/// # Errors
/// [`Refused`](step01_uts::Refused): EACCES without no_new_privs and without CAP_SYS_ADMIN, EINVAL for a
/// program that doesn't pass the kernel's check.
pub fn filter(filter: Option<&Filter>, no_new_privileges: bool) -> Result<()> {
    // ANCHOR_END: filter
    // ANCHOR: exercise_filter
    if no_new_privileges {
        call!(set_no_new_privs())?;
    }
    if let Some(filter) = filter {
        call!(seccomp(libc::SECCOMP_SET_MODE_FILTER, filter))?;
    }
    Ok(())
    // ANCHOR_END: exercise_filter
}

/// The raw system call, for which the C library has no function: seccomp(2).
pub fn seccomp(operation: libc::c_uint, filter: &Filter) -> nix::Result<()> {
    let program = libc::sock_fprog {
        len: filter.instructions().len() as libc::c_ushort,
        filter: filter.instructions().as_ptr().cast_mut(),
    };
    // SAFETY: the kernel reads as many instructions as there are.
    let result = unsafe {
        let program = &raw const program;
        libc::syscall(libc::SYS_seccomp, operation, filter.flags, program)
    };
    Errno::result(result).map(drop)
}

// ANCHOR: make_read_only
/// Makes `path`, and what is below it, read-only, while the rest of its filesystem stays as it is. No mount
/// below it can be written afterwards, either. Nothing happens where there is no such path.
///
/// Only a mount can be read-only, so the path becomes a mount. `mount` does one thing at a time: the
/// first call makes the mount, and only the second heeds MS_RDONLY. The second call sets *all* flags of
/// the mount: nosuid, nodev and noexec are lost unless they are given again. See MS_BIND and MS_REMOUNT
/// in mount(2).
///
/// # Errors
/// [`Refused`](step01_uts::Refused), for whatever else than a missing path: then `path` may still be written.
pub fn make_read_only(path: &str) -> Result<()> {
    // ANCHOR_END: make_read_only
    // ANCHOR: exercise_make_read_only
    let none = None::<&str>;
    match call!(mount(Some(path), path, none, MsFlags::MS_BIND, none)) {
        Err(refused) if refused.errno() == Errno::ENOENT => return Ok(()),
        outcome => outcome?,
    }
    remount_read_only(path)
    // ANCHOR_END: exercise_make_read_only
}

// ANCHOR: remount_read_only
/// Makes the mount at `path` read-only, and no other mount of its filesystem; its other flags stay.
pub fn remount_read_only(path: &str) -> Result<()> {
    let none = None::<&str>;
    let flags = flags_of(path)? | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    call!(mount(none, path, none, flags, none))?;
    Ok(())
}
// ANCHOR_END: remount_read_only

// ANCHOR: flags_of
/// The flags of the mount that `path` is on, as far as each bind mount has flags of its own. See statvfs(3).
pub fn flags_of(path: &str) -> Result<MsFlags> {
    let has = statvfs(path).with_context(|| path.to_owned())?.flags();
    let pairs = [
        (FsFlags::ST_RDONLY, MsFlags::MS_RDONLY),
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ];
    let set = pairs.into_iter().filter(|(flag, _)| has.contains(*flag));
    Ok(set.map(|(_, flag)| flag).collect())
}
// ANCHOR_END: flags_of

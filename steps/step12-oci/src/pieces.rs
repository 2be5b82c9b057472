//! All that config.json comes to, made ready before there is a container.

use crate::config::linux::{devices, personality, propagation, sysctl};
use crate::config::mounts::Mount;
use crate::config::process::{capabilities, to_be_given, user};
use crate::config::read::{Config, ProcessSpec};
use crate::mounting::Prepared;
use crate::{KINDS, Parted, kind_of, namespaces};
use anyhow::{Context, Result, bail};
use nix::mount::MsFlags;
use nix::sched::CloneFlags;
use nix::sys::stat::fstat;
use std::cell::OnceCell;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use step05_tty::Device;
use step06_caps::capabilities::{CapSets, Capability, permitted};
use step06_caps::seccomp::Filter;
use step06_caps::{Process, filter};

/// What an engine asks of `create`, besides config.json.
#[derive(Debug, Default)]
pub struct Wishes {
    /// The directory with config.json.
    pub bundle: PathBuf,
    /// Where an engine listens for a descriptor for the process.
    pub pidfd_socket: Option<PathBuf>,
    /// Where it wants to read the process's ID.
    pub pid_file: Option<PathBuf>,
    /// How many descriptors from 3 on the command gets.
    pub preserve_fds: u32,
    /// Whether the root is entered without pivot_root, which the root of an initramfs doesn't take.
    pub no_pivot: bool,
    /// Whether the process keeps the session keyring of the runtime.
    pub no_new_keyring: bool,
    /// Whether to do without control groups where there is no right to them.
    pub rootless: bool,
}

/// What config.json comes to.
pub struct Pieces<'a> {
    /// The configuration itself.
    pub config: &'a Config,
    /// Its process.
    pub process: &'a ProcessSpec,
    /// What the engine asks for besides.
    pub wishes: &'a Wishes,
    /// The namespaces.
    pub parted: Parted,
    /// The directory that becomes the root.
    pub rootfs: PathBuf,
    /// The mounts.
    pub mounts: Vec<Mount>,
    /// The mounts with what the host has opened for them. Who may not do that outside of the container's user namespace
    /// does it in there.
    pub prepared: OnceCell<Prepared>,
    /// The devices.
    pub devices: Vec<Device<'static>>,
    /// Whether these are the host's own files, since here none can be made.
    pub hosts_devices: bool,
    /// Settings of the kernel.
    pub sysctl: Vec<(String, String)>,
    /// How the root hears of new mounts.
    pub propagation: Option<MsFlags>,
    /// The execution domain.
    pub personality: Option<libc::c_ulong>,
    /// The filter of system calls.
    pub filter: Option<Filter>,
    /// What the process may do.
    pub capabilities: CapSets,
    /// Whether the users are those of a user namespace that isn't ours.
    pub own_users: bool,
}

/// The flag of a time namespace, which nix doesn't name.
pub const TIME: CloneFlags = CloneFlags::from_bits_retain(libc::CLONE_NEWTIME);

impl<'a> Pieces<'a> {
    /// Translates `config`, and opens what can be opened now.
    ///
    /// # Errors
    /// What config.json asks for and can't be done: the text names the property.
    pub fn of(config: &'a Config, wishes: &'a Wishes) -> Result<Pieces<'a>> {
        let linux = &config.linux;
        let process = config.process.as_ref().context("process: missing field")?;
        let root = config.root.as_ref().context("root: missing field")?;
        let rootfs = wishes.bundle.join(&root.path);
        if !rootfs.is_dir() {
            bail!("root.path: {}: no such directory", rootfs.display());
        }
        let parted = namespaces(&linux.namespaces)?;
        check_namespaces(config, &parted)?;
        let own_users = parted.all.contains(CloneFlags::CLONE_NEWUSER);
        let has = |name: &str| {
            let bit = Capability::named(name).map(Capability::bit);
            bit.is_ok_and(|bit| permitted() & bit != 0)
        };
        let hosts_devices = own_users || !has("MKNOD");
        let profile = linux.seccomp.as_ref();
        let compiled = profile.map(|profile| profile.compile(0)).transpose();
        let pieces = Pieces {
            config,
            process,
            wishes,
            mounts: Mount::read_all(&config.mounts, &wishes.bundle, &linux.mount_label)?,
            prepared: OnceCell::new(),
            rootfs,
            parted,
            devices: devices(&linux.devices)?,
            hosts_devices,
            sysctl: sysctl(linux)?,
            propagation: propagation(&linux.rootfs_propagation)?,
            personality: personality(linux)?,
            filter: compiled.context("linux.seccomp")?,
            capabilities: capabilities(&process.capabilities, to_be_given(own_users)),
            own_users,
        };
        if has("SYS_ADMIN") {
            pieces.prepared()?;
        }
        Ok(pieces)
    }

    /// The mounts, opened when somebody asks first.
    pub fn prepared(&self) -> Result<&Prepared> {
        if let Some(prepared) = self.prepared.get() {
            return Ok(prepared);
        }
        let of_host: &[Device] = if self.hosts_devices {
            &self.devices
        } else {
            &[]
        };
        let prepared = Prepared::of(&self.mounts, of_host)?;
        Ok(self.prepared.get_or_init(|| prepared))
    }

    /// What the process may do while it waits. With no_new_privs a filter needs no privilege, and comes last.
    pub fn confinement(&self) -> Process {
        let no_new_privileges = self.process.no_new_privileges;
        Process {
            user: user(self.process),
            capabilities: self.capabilities,
            no_new_privileges,
            filter: self.filter.clone().filter(|_| !no_new_privileges),
        }
    }

    /// Installs the filter, if that is still to be done.
    pub fn install_filter(&self) -> Result<()> {
        match self.process.no_new_privileges {
            true => filter(self.filter.as_ref(), true),
            false => Ok(()),
        }
    }
}

/// Fails when a property needs a namespace that the container hasn't got of its own.
fn check_namespaces(config: &Config, parted: &Parted) -> Result<()> {
    let linux = &config.linux;
    let new_users = parted.new.contains(CloneFlags::CLONE_NEWUSER);
    let hostname = config.hostname.as_ref().filter(|name| !name.is_empty());
    for (field, is_there, flag) in [
        ("root", true, CloneFlags::CLONE_NEWNS),
        ("hostname", hostname.is_some(), CloneFlags::CLONE_NEWUTS),
        (
            "domainname",
            config.domainname.is_some(),
            CloneFlags::CLONE_NEWUTS,
        ),
        (
            "linux.uidMappings",
            !linux.uid_mappings.is_empty(),
            CloneFlags::CLONE_NEWUSER,
        ),
        (
            "linux.gidMappings",
            !linux.gid_mappings.is_empty(),
            CloneFlags::CLONE_NEWUSER,
        ),
        ("linux.timeOffsets", !linux.time_offsets.is_empty(), TIME),
    ] {
        if is_there && !parted.all.contains(flag) {
            let kind = KINDS.iter().find(|(_, known)| *known == flag);
            let kind = kind.map_or("", |(kind, _)| kind);
            bail!(
                "{field}: that takes a {kind} namespace of the container's own (linux.namespaces)"
            );
        }
    }
    for (field, is_missing) in [
        ("linux.uidMappings", linux.uid_mappings.is_empty()),
        ("linux.gidMappings", linux.gid_mappings.is_empty()),
    ] {
        if new_users && is_missing {
            bail!("{field}: a new user namespace needs them");
        }
    }
    if linux.sysctl.is_empty() {
        return Ok(());
    }
    // To join the host's own is to have none: a setting would be the host's.
    for joined in &parted.joined {
        let found = kind_of(joined).and_then(|kind| KINDS.iter().find(|(_, flag)| *flag == kind));
        let Some((kind, _)) = found else { continue };
        let name = match *kind {
            "network" => "net",
            "mount" => "mnt",
            kind => kind,
        };
        let ours = fs::metadata(Path::new("/proc/self/ns").join(name))?;
        let theirs = fstat(joined)?;
        if (ours.dev(), ours.ino()) == (theirs.st_dev, theirs.st_ino) {
            bail!(
                "linux.sysctl: the container joins the host's own {kind} namespace, so they would change the host"
            );
        }
    }
    Ok(())
}

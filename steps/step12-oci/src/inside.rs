//! The child's half of a beginning: what the container's process does to itself, chapter by chapter what the earlier steps
//! did, as config.json wants it.

use crate::Status;
use crate::attributes::{self, Proc};
use crate::command::stand_in;
use crate::config::read::MountSpec;
use crate::hooks::{Moment, state_of};
use crate::notify::console::{Console, take_console};
use crate::notify::ready;
use crate::pieces::{Pieces, TIME};
use crate::trees::{Tree, make_read_only, mask};
use anyhow::{Context, Error, Result, bail};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{SFlag, lstat, makedev};
use nix::unistd::{chdir, chroot, fchdir, sethostname, symlinkat};
use serde_json::Value;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use step01_uts::{Refused, call};
use step02_pid::gate::Gate;
use step02_pid::hidden::{forget_environment, hide};
use step03_mount::loopback_up;
use step04_pivot_root::root::{by_descriptor, directory_at, kind};
use step04_pivot_root::{bind_self, swap_roots};
use step05_tty::mounts::{MountPoint, mount_point_in};
use step05_tty::terminal::null;
use step05_tty::{Device, LINKS};
use step06_caps::users::User;
use step06_caps::{become_user, remount_read_only};
use step07_cgroups::cgroup::places::Groups;
use step07_cgroups::unescaped;

/// Becomes root in a user namespace. Who has just come there has no ID of it: what it makes would be nobody's, and to
/// become the user whose number stands for nobody would mean to stay the host's root.
pub fn be_root() -> Result<()> {
    become_user(&User {
        uid: 0,
        gid: 0,
        groups: vec![],
        home: String::new(),
    })
}

impl Pieces<'_> {
    /// What has to come first, when the host's IDs are mapped and nobody else can look yet.
    pub fn begin(&self) -> Result<()> {
        if self.parted.new.contains(TIME) {
            // The clocks' file is ours as long as we haven't changed our user.
            call!(unshare(TIME))?;
            attributes::set_clocks(&self.config.linux.time_offsets)?;
        }
        if self.own_users {
            be_root()?;
        }
        hide()?;
        forget_environment()
    }

    // ANCHOR: make_ready
    /// Makes everything ready up to the terminal. `groups` are the container's control groups, and `notify` the directory
    /// for what the command says to a service manager.
    pub fn make_ready(
        &self,
        gate: &Gate,
        id: &str,
        groups: &Groups,
        notify: Option<&Tree>,
    ) -> Result<()> {
        let (config, linux, rootfs) = (self.config, &self.config.linux, &*self.rootfs);
        if self.parted.new.contains(CloneFlags::CLONE_NEWCGROUP) {
            call!(unshare(CloneFlags::CLONE_NEWCGROUP))?;
        }
        if !self.wishes.no_new_keyring {
            attributes::new_keyring()?;
        }
        if self.parted.new.contains(CloneFlags::CLONE_NEWNET) {
            loopback_up()?;
        }
        if let Some(hostname) = config.hostname.as_ref().filter(|name| !name.is_empty()) {
            call!(sethostname(hostname))?;
        }
        if let Some(domainname) = &config.domainname {
            call!(setdomainname(domainname))?;
        }

        self.part_mounts()?;
        let root = directory_at(rootfs)?;
        let own_view = self.parted.all.contains(CloneFlags::CLONE_NEWCGROUP);
        let prepared = self.prepared()?;
        prepared.mount(&root, groups, own_view)?;
        if let Some(notify) = notify {
            notify.attach(&mount_point_in(
                &root,
                Path::new(ready::DIRECTORY),
                SFlag::S_IFDIR,
            )?)?;
        }
        if prepared.has_own_dev {
            if !self.hosts_devices {
                make_devices(&root, &self.devices)?;
            }
            make_links(&root)?;
        }
        // Engines expect it of `create`. What can't be made is told when the process is to stand in it.
        let _ = mount_point_in(&root, Path::new(&self.process.cwd), SFlag::S_IFDIR);
        gate.wait()?;
        self.hooks("createContainer", Status::Creating, id)?;
        // While the old root is there: the kernel gives a procfs to a user namespace that sees all of another one.
        let proc = match self.sysctl.is_empty() && !attributes::is_labelled(self.process) {
            true => None,
            false => Some(Proc::open()?),
        };
        match self.wishes.no_pivot {
            true => move_root(rootfs)?,
            false => {
                let old = directory_at(Path::new("/"))?;
                swap_roots(rootfs, || let_go_of(&old))?;
            }
        }
        prepared.check_windows()?;

        if let Some(proc) = &proc {
            proc.set_sysctl(&self.sysctl)?;
            proc.set_labels(self.process)?;
        }
        for path in &linux.readonly_paths {
            let made = make_read_only(&prepared.seen(path));
            made.with_context(|| format!("linux.readonlyPaths: {path}"))?;
        }
        if !linux.masked_paths.is_empty() {
            let null = null().context("linux.maskedPaths: /dev/null hides what is masked")?;
            for path in &linux.masked_paths {
                let masked = mask(&null, &prepared.seen(path));
                masked.with_context(|| format!("linux.maskedPaths: {path}"))?;
            }
        }
        if let Some(domain) = self.personality {
            attributes::set_personality(domain)?;
        }
        Ok(())
    }
    // ANCHOR_END: make_ready

    /// Has the mounts hear of the host's as config.json wants it, and makes the root a mount of its own, with nobody above
    /// it who would tell the host of what is mounted in there.
    fn part_mounts(&self) -> Result<()> {
        let none = None::<&str>;
        let all = MsFlags::MS_REC;
        let shared = |flags: MsFlags| flags.contains(MsFlags::MS_SHARED);
        let wanted = self.propagation.unwrap_or(MsFlags::MS_SLAVE | all);
        call!(mount(none, "/", none, wanted, none))?;
        let above = mount_of(&self.rootfs)?;
        let private = MsFlags::MS_PRIVATE;
        call!(mount(none, &*above, none, private, none))?;
        bind_self(&self.rootfs)?;
        if shared(wanted) {
            let (root, slave) = (&*self.rootfs, MsFlags::MS_SLAVE | all);
            call!(mount(none, root, none, slave, none))?;
        }
        Ok(())
    }

    /// Gives the process its terminal, and has the root and /dev become what they are to stay.
    pub fn settle(&self, console: &Console) -> Result<()> {
        take_console(console, self.process, true)?;
        let is_read_only = |mount: &MountSpec| {
            mount.destination == Path::new("/dev") && mount.options.iter().any(|word| word == "ro")
        };
        if self.config.mounts.iter().any(is_read_only) && self.prepared()?.has_own_dev {
            remount_read_only("/dev")?;
        }
        if self.config.root.as_ref().is_some_and(|root| root.readonly) {
            remount_read_only("/").context("root.readonly")?;
        }
        if let Some(flags) = self.propagation {
            let none = None::<&str>;
            call!(mount(none, "/", none, flags, none))?;
        }
        stand_in(&self.process.cwd, self.process.user.umask)
    }

    /// Runs the hooks that run in the container.
    pub fn hooks(&self, name: &str, status: Status, id: &str) -> Result<()> {
        let hooks = match name {
            "createContainer" => &self.config.hooks.create_container,
            _ => &self.config.hooks.start_container,
        };
        Moment {
            name,
            hooks,
            state: self.seen_inside(status, id),
            directory: None,
            process: None,
        }
        .run()
    }

    fn seen_inside(&self, status: Status, id: &str) -> Value {
        let pid = std::process::id() as i32;
        state_of(self.config, id, status, pid, &self.wishes.bundle)
    }
}

/// The mount point that `path` is below: the longest one in the mount table.
fn mount_of(path: &Path) -> Result<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let targets = table.lines().filter_map(|line| line.split(' ').nth(4));
    let above = targets
        .map(unescaped)
        .filter(|target| path.starts_with(target));
    let nearest = above.max_by_key(|target| target.as_os_str().len());
    nearest.with_context(|| format!("root.path: {}: it is on no mount", path.display()))
}

/// Has nobody on the host hear that the old root goes, with all that is mounted there.
fn let_go_of(old: &OwnedFd) -> Result<()> {
    let none = None::<&str>;
    let flags = MsFlags::MS_SLAVE | MsFlags::MS_REC;
    call!(fchdir(old))?;
    call!(mount(none, ".", none, flags, none))?;
    call!(chdir("/"))?;
    Ok(())
}

/// Makes devices in `root`. One that is there already stays.
///
/// Each is made in a folder that is held by a descriptor: a link that the root has at /dev leads nowhere but into the root,
/// and never through a procfs.
fn make_devices(root: &OwnedFd, devices: &[Device]) -> Result<()> {
    let exists = |error: &Error| {
        let refused = error.downcast_ref::<Refused>();
        refused.is_some_and(|refused| refused.errno() == Errno::EEXIST)
    };
    let mut folders: Vec<(&Path, MountPoint)> = Vec::new();
    for device in devices {
        let path = Path::new(&*device.path);
        let above = path.parent().unwrap_or(Path::new("/"));
        if !folders.iter().any(|(known, _)| *known == above) {
            let held = mount_point_in(root, above, SFlag::S_IFDIR);
            folders.push((
                above,
                held.with_context(|| format!("linux.devices: {}", device.path))?,
            ));
        }
    }
    for device in devices {
        let path = Path::new(&*device.path);
        let folder = folders
            .iter()
            .find(|(known, _)| path.parent() == Some(known));
        let (Some((_, folder)), Some(name)) = (folder, path.file_name()) else {
            bail!("linux.devices: {}: that is no file", device.path);
        };
        let place = by_descriptor(folder).join(name);
        let placed = Device {
            path: place.to_string_lossy(),
            ..device.clone()
        };
        match step05_tty::make_devices(std::slice::from_ref(&placed)) {
            Err(error) if exists(&error) && is_there(&placed) => {}
            made => made.with_context(|| format!("linux.devices: {}", device.path))?,
        }
    }
    Ok(())
}

/// Whether there is that very device at its path.
fn is_there(device: &Device) -> bool {
    lstat(&*device.path).is_ok_and(|found| {
        let number = makedev(device.number.major.into(), device.number.minor.into());
        let has_number = device.kind != SFlag::S_IFIFO;
        kind(&found) == device.kind && (!has_number || found.st_rdev == number)
    })
}

/// Makes the links in /dev of `root`. What is there already stays.
fn make_links(root: &OwnedFd) -> Result<()> {
    let dev = mount_point_in(root, Path::new("/dev"), SFlag::S_IFDIR)?;
    for (target, link) in LINKS {
        let name = link.trim_start_matches("/dev/");
        match symlinkat(*target, &dev, name) {
            Err(Errno::EEXIST) => {}
            made => made.with_context(|| (*link).to_owned())?,
        }
    }
    Ok(())
}

/// Sets the NIS domain name of the UTS namespace: setdomainname(2).
fn setdomainname(name: &str) -> nix::Result<()> {
    // SAFETY: the kernel reads as many bytes as there are.
    Errno::result(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }).map(drop)
}

/// Enters the root without pivot_root: the mount is moved over the old root, which stays beneath.
fn move_root(rootfs: &Path) -> Result<()> {
    let none = None::<&str>;
    call!(chdir(rootfs))?;
    call!(mount(Some("."), "/", none, MsFlags::MS_MOVE, none))?;
    call!(chroot("."))?;
    call!(chdir("/"))?;
    Ok(())
}

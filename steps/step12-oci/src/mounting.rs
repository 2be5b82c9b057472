//! How the mounts of config.json get to their places in the root, before that root is entered: hooks and the filesystems of
//! the kernel need the old one meanwhile.

use crate::config::mounts::{Mount, What};
use crate::trees::{Seen, Tree};
use anyhow::{Context, Result, bail};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::mount::MsFlags;
use nix::sys::stat::{Mode, SFlag, fchmod, fstat, mkdirat};
use nix::sys::statfs::PROC_SUPER_MAGIC;
use nix::unistd::{Gid, Uid, fchown, fchownat, symlinkat};
use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use step04_pivot_root::root::kind;
use step05_tty::Device;
use step05_tty::mounts::{MountPoint, mount_on, mount_point_in};
use step05_tty::options::Options;
use step07_cgroups::Version;
use step07_cgroups::cgroup::places::Groups;

/// The mounts, with what the host opened for them.
pub struct Prepared {
    mounts: Vec<(Mount, Option<Tree>)>,
    /// Devices that are the host's own files: a user namespace can make none.
    devices: Vec<(PathBuf, Tree)>,
    /// The windows of the kernel that are mounted, procfs and sysfs, each with its place: what is hidden in them is looked up
    /// by these, whatever has come to be at the place since.
    windows: RefCell<Vec<(PathBuf, Rc<OwnedFd>)>>,
    /// Whether /dev is the container's own, so that devices and links are made in it.
    pub has_own_dev: bool,
}

impl Prepared {
    /// Opens what the mounts need of the host, and `devices`, if they are to be the host's files.
    ///
    /// # Errors
    /// A source that isn't there, a filesystem that the kernel doesn't know: the text names the property.
    pub fn of(mounts: &[Mount], devices: &[Device]) -> Result<Prepared> {
        let has_own_dev = !mounts.iter().any(|mount| {
            mount.target == Path::new("/dev") && matches!(mount.what, What::Bind { .. })
        });
        let open = |mount: &Mount| {
            let tree = match &mount.what {
                What::Bind { source, below } => {
                    let tree = Tree::of(source, *below);
                    Some(tree.with_context(|| {
                        format!("mounts[{}].source: {}", mount.place, source.display())
                    })?)
                }
                // What is longer goes by mount(2), in the container.
                What::Hosts { .. }
                    if mount
                        .options
                        .data
                        .iter()
                        .any(|word| word.len() > LONGEST_OPTION) =>
                {
                    None
                }
                What::Hosts { kind, source } => {
                    let tree = Tree::filesystem(kind, source, &mount.options);
                    Some(tree.with_context(|| format!("mounts[{}].type: {kind}", mount.place))?)
                }
                What::Kernels { .. } | What::Cgroups => None,
            };
            Ok((mount.clone(), tree))
        };
        let of_host = |device: &Device| {
            let path = PathBuf::from(&*device.path);
            let tree = Tree::of(&path, false);
            Ok((
                path,
                tree.with_context(|| format!("linux.devices: {}", device.path))?,
            ))
        };
        Ok(Prepared {
            mounts: mounts.iter().map(open).collect::<Result<_>>()?,
            devices: devices.iter().map(of_host).collect::<Result<_>>()?,
            windows: RefCell::new(Vec::new()),
            has_own_dev,
        })
    }

    /// The path as it is to be looked up: below the window that it is in, if it is in one.
    pub fn seen<'a>(&self, path: &'a str) -> Seen<'a> {
        let windows = self.windows.borrow();
        let within = windows.iter().find_map(|(place, window)| {
            let rest = path.strip_prefix(place.to_str()?)?.strip_prefix('/')?;
            Some((Rc::clone(window), rest))
        });
        match within {
            Some((window, path)) => Seen {
                from: Some(window),
                path,
            },
            None => Seen { from: None, path },
        }
    }

    /// Fails unless each window is at its place in the caller's root: somebody else may have the root, too, and have moved
    /// the directory on which it was mounted.
    pub fn check_windows(&self) -> Result<()> {
        for (place, window) in self.windows.borrow().iter() {
            let wanted = fstat(window)?;
            let there = look_up_plainly(place).and_then(|there| fstat(&there));
            if there
                .is_ok_and(|there| (there.st_dev, there.st_ino) == (wanted.st_dev, wanted.st_ino))
            {
                continue;
            }
            bail!("{} was moved while it was mounted", place.display());
        }
        Ok(())
    }

    /// Mounts everything in `root`, a directory that is to become the root. `groups` are the container's control groups,
    /// and `own_view` says whether it has a cgroup namespace.
    ///
    /// # Errors
    /// The text names the property.
    pub fn mount(&self, root: &OwnedFd, groups: &Groups, own_view: bool) -> Result<()> {
        for (mount, tree) in &self.mounts {
            let place = || format!("mounts[{}]: {}", mount.place, mount.target.display());
            // What is covered by this mount is no window any more.
            let covered = |place: &Path| place.starts_with(&mount.target);
            self.windows
                .borrow_mut()
                .retain(|(place, _)| !covered(place));
            let mounted = match &mount.what {
                What::Cgroups => mount_groups(root, mount, groups, own_view),
                What::Kernels { kind, source } => self.mount_kernels(root, mount, kind, source),
                What::Bind { .. } | What::Hosts { .. } => match (tree, &mount.what) {
                    (Some(tree), _) => place_tree(root, mount, tree),
                    (None, What::Hosts { kind, source }) => {
                        mount_by_path(root, mount, kind, source)
                    }
                    (None, _) => bail!("it isn't open"),
                },
            };
            mounted.with_context(place)?;
        }
        if self.has_own_dev {
            for (path, tree) in &self.devices {
                tree.attach(&mount_point_in(root, path, SFlag::S_IFREG)?)?;
            }
        }
        Ok(())
    }

    fn mount_kernels(&self, root: &OwnedFd, mount: &Mount, kind: &str, source: &str) -> Result<()> {
        if ["proc", "sysfs"].contains(&kind) {
            return self.mount_window(root, mount, kind, source);
        }
        let there = look_up(root, &mount.target, false);
        let mut options = mount.options.clone();
        if let (Ok(there), "tmpfs") = (&there, kind) {
            // A directory that is there keeps its mode.
            if !options.data.iter().any(|word| word.starts_with("mode=")) {
                let mode = fstat(there)?.st_mode & 0o7777;
                options.data.push(format!("mode={mode:o}"));
            }
        }
        let tree = Tree::filesystem(kind, source, &options)?;
        if let (true, Ok(there)) = (mount.copy_up, &there) {
            copy_into(there, tree.top()).context("tmpcopyup")?;
        }
        place_tree(root, mount, &tree)
    }

    /// Mounts a procfs or a sysfs, on an ordinary directory only: where a link of the root leads, nobody looks for what is
    /// to be hidden. What was looked at is what is mounted on.
    fn mount_window(&self, root: &OwnedFd, mount: &Mount, kind: &str, source: &str) -> Result<()> {
        let plainly = || look_up(root, &mount.target, true);
        let there = match plainly() {
            Err(Errno::ENOENT) => {
                mount_point_in(root, &mount.target, SFlag::S_IFDIR)?;
                plainly()
            }
            there => there,
        };
        let there = match there {
            Err(Errno::ELOOP) => {
                bail!(
                    "a link of the root is in the way to it: {kind} is mounted on an ordinary directory only"
                )
            }
            there => there?,
        };
        let tree = Tree::filesystem(kind, source, &mount.options)?;
        let point = MountPoint::of(there);
        if kind != "proc" {
            outside_of_proc(mount, &point)?;
        }
        place_on(&point, mount, &tree)?;
        let place = mount.target.components().collect();
        self.windows
            .borrow_mut()
            .push((place, Rc::new(tree.into())));
        Ok(())
    }
}

/// Opens what `place` means in the caller's root, if no link is on the way.
fn look_up_plainly(place: &Path) -> nix::Result<OwnedFd> {
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC);
    openat2(
        AT_FDCWD,
        place,
        how.resolve(ResolveFlag::RESOLVE_NO_SYMLINKS),
    )
}

/// The longest option that fsconfig(2) takes: 256 bytes with the NUL.
const LONGEST_OPTION: usize = 255;

/// Mounts a filesystem with options that are too long for a tree: an overlay of many layers.
fn mount_by_path(root: &OwnedFd, mount: &Mount, kind: &str, source: &str) -> Result<()> {
    let point = mount_point_in(root, &mount.target, SFlag::S_IFDIR)?;
    outside_of_proc(mount, &point)?;
    let data = mount.options.data.join(",");
    let whole = step05_tty::mounts::Mount {
        source,
        target: "",
        kind,
        flags: mount.options.set,
        data: &data,
    };
    mount_on(&point, &whole)
}

/// Opens what `target` means in `root`; with `plainly`, only if no link is on the way.
fn look_up(root: &OwnedFd, target: &Path, plainly: bool) -> nix::Result<OwnedFd> {
    let links = match plainly {
        true => ResolveFlag::RESOLVE_NO_SYMLINKS,
        false => ResolveFlag::RESOLVE_NO_MAGICLINKS,
    };
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC);
    openat2(
        root,
        target,
        how.resolve(ResolveFlag::RESOLVE_IN_ROOT | links),
    )
}

/// Gives `tree` the options of `mount`, and mounts it at its place in `root`.
fn place_tree(root: &OwnedFd, mount: &Mount, tree: &Tree) -> Result<()> {
    let point = mount_point_in(root, &mount.target, tree.kind()?)?;
    outside_of_proc(mount, &point)?;
    place_on(&point, mount, tree)
}

/// The same at a place that was found already.
fn place_on(point: &MountPoint, mount: &Mount, tree: &Tree) -> Result<()> {
    let mut options = mount.options.clone();
    if mount.target == Path::new("/dev") {
        // Devices are made in it first. It becomes read-only when they are.
        options.set.remove(MsFlags::MS_RDONLY);
    }
    tree.set_flags(&options)?;
    for (set, clear) in &mount.recursive {
        tree.set_all(*set, *clear)?;
    }
    let binds = matches!(mount.what, What::Bind { .. });
    if binds && options.propagation.is_empty() {
        // The container hears of what the host mounts below, and not the other way round.
        tree.set_propagation(MsFlags::MS_SLAVE | MsFlags::MS_REC)?;
    }
    for flags in &options.propagation {
        tree.set_propagation(*flags)?;
    }
    tree.attach(point)
}

/// The files in a procfs that may be covered by others, as lxcfs does it: they tell of the machine, and nothing is decided by
/// them.
const MAY_BE_COVERED: [&str; 12] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
    "/proc/self/loginuid",
];

/// Fails when `mount` would cover a part of a procfs, by which the container, and we, know what is what.
fn outside_of_proc(mount: &Mount, point: &MountPoint) -> Result<()> {
    let target: PathBuf = mount.target.components().collect();
    let on_proc = point.filesystem()? == PROC_SUPER_MAGIC;
    let is_named = MAY_BE_COVERED.iter().any(|path| target == Path::new(path));
    let is_proc = target == Path::new("/proc");
    match &mount.what {
        _ if on_proc && !is_named => bail!("it would cover a part of /proc: {}", point.shown()),
        // A container that sees the host's processes may have the host's procfs.
        What::Bind { source, .. }
            if is_proc
                && nix::sys::statfs::statfs(source)
                    .is_ok_and(|found| found.filesystem_type() == PROC_SUPER_MAGIC) =>
        {
            Ok(())
        }
        _ if is_proc => bail!("only a procfs can be mounted on /proc"),
        _ => Ok(()),
    }
}

/// Mounts the container's control groups: one hierarchy itself, or several in a directory each, as on the host.
fn mount_groups(root: &OwnedFd, mount: &Mount, groups: &Groups, own_view: bool) -> Result<()> {
    let hierarchies: Vec<_> = groups.all().collect();
    if hierarchies.is_empty() {
        bail!("the container has no control groups to be seen here");
    }
    let tree_of = |hierarchy: &step07_cgroups::Hierarchy, folder: &Path| {
        if !own_view {
            return Tree::of(folder, false);
        }
        match hierarchy.version {
            Version::V2 => Tree::filesystem("cgroup2", "cgroup", &Options::read([])),
            Version::V1 => {
                let controllers = hierarchy.controllers.iter().map(String::as_str);
                Tree::filesystem("cgroup", "cgroup", &Options::read(controllers))
            }
        }
    };
    if let [(hierarchy, folder)] = hierarchies[..] {
        if hierarchy.version == Version::V2 {
            return place_tree(root, mount, &tree_of(hierarchy, folder)?);
        }
    }
    let options = Options::read(["mode=755", "size=64k"]);
    let top = Tree::filesystem("tmpfs", "tmpfs", &options)?;
    let flags = Options {
        set: mount.options.set.difference(MsFlags::MS_RDONLY),
        ..mount.options.clone()
    };
    top.set_flags(&flags)?;
    top.attach(&mount_point_in(root, &mount.target, SFlag::S_IFDIR)?)?;
    for (hierarchy, folder) in hierarchies {
        let name = hierarchy.top.file_name().unwrap_or_default();
        let tree = tree_of(hierarchy, folder)?;
        tree.set_flags(&mount.options)?;
        // By the descriptor of what has just been mounted: its path may lead elsewhere by now.
        match mkdirat(top.top(), name, Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno).with_context(|| format!("{name:?}")),
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let point = openat(top.top(), name, flags, Mode::empty())?;
        tree.attach(&MountPoint::of(point))?;
        for controller in &hierarchy.controllers {
            if name.as_bytes().contains(&b',') && OsStr::new(controller) != name {
                let made = symlinkat(name, top.top(), controller.as_str());
                made.with_context(|| controller.clone())?;
            }
        }
    }
    if mount.is_read_only() {
        top.set_flags(&Options::read(["ro"]))?;
    }
    Ok(())
}

/// The most directories that are copied one below the other.
const DEEPEST: usize = 100;

/// Copies what is in the directory `from` into the empty directory `to`: files, directories and links, with their modes and
/// owners. The maker of `from` may change it meanwhile: nothing but what is opened by a descriptor counts.
fn copy_into(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    copy_below(from, to, 0)
}

fn copy_below(from: &OwnedFd, to: &OwnedFd, depth: usize) -> Result<()> {
    if depth == DEEPEST {
        bail!("directories go deeper than {DEEPEST}");
    }
    let directory = openat(
        from,
        ".",
        OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    let mut entries = Dir::from_fd(directory)?;
    for entry in entries.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if [&b"."[..], b".."].contains(&name.to_bytes()) {
            continue;
        }
        let shown = || name.to_string_lossy().into_owned();
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let held = openat(from, name, flags, Mode::empty()).with_context(shown)?;
        let stat = fstat(&held)?;
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        let mode = Mode::from_bits_truncate(stat.st_mode);
        let new = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        match kind(&stat) {
            SFlag::S_IFDIR => {
                mkdirat(to, name, Mode::S_IRWXU).with_context(shown)?;
                let flags =
                    OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let below = openat(to, name, flags, Mode::empty())?;
                copy_below(&held, &below, depth + 1)?;
                fchown(&below, Some(uid), Some(gid))?;
                fchmod(&below, mode)?;
            }
            SFlag::S_IFREG => {
                let mut source = File::open(step04_pivot_root::root::by_descriptor(&held))
                    .with_context(shown)?;
                let mut copy = File::from(openat(to, name, new, Mode::S_IRUSR | Mode::S_IWUSR)?);
                io::copy(&mut source, &mut copy).with_context(shown)?;
                fchown(&copy, Some(uid), Some(gid))?;
                fchmod(&copy, mode)?;
            }
            SFlag::S_IFLNK => {
                let target = readlinkat(&held, "")?;
                symlinkat(&*target, to, name).with_context(shown)?;
                fchownat(
                    to.as_fd(),
                    name,
                    Some(uid),
                    Some(gid),
                    nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW,
                )?;
            }
            // Devices, pipes and sockets are for who made them.
            _ => {}
        }
    }
    Ok(())
}

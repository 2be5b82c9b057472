//! Mounts as descriptors: a filesystem or a copy of a mount that is mounted nowhere yet.
//!
//! A mount that is made by mount(2) is made at a path, and then changed at that path, and in between the path may have come
//! to mean something else. A *tree* is made, given its attributes and filled while nobody but us can reach it, and then
//! appears in one piece on a place that is held by a descriptor. See fsopen(2), open_tree(2), move_mount(2).

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::MsFlags;
use nix::sys::stat::{SFlag, fstat};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use step01_uts::call;
use step04_pivot_root::root::kind;
use step05_tty::mounts::MountPoint;
use step05_tty::options::Options;
use step08_overlay::{MountAttributes, mount_setattr, move_mount, open_tree_at};

/// A tree of mounts that isn't mounted anywhere yet.
#[derive(Debug)]
pub struct Tree(OwnedFd);

// include/uapi/linux/mount.h
const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;

/// What each flag of mount(2) is as an attribute of a mount.
const ATTRIBUTES: [(MsFlags, u64); 5] = [
    (MsFlags::MS_RDONLY, libc::MOUNT_ATTR_RDONLY),
    (MsFlags::MS_NOSUID, libc::MOUNT_ATTR_NOSUID),
    (MsFlags::MS_NODEV, libc::MOUNT_ATTR_NODEV),
    (MsFlags::MS_NOEXEC, libc::MOUNT_ATTR_NOEXEC),
    (MsFlags::MS_NODIRATIME, libc::MOUNT_ATTR_NODIRATIME),
];

/// The flags that belong to the filesystem itself, by their names for fsconfig(2).
const OF_THE_FILESYSTEM: [(MsFlags, &str); 4] = [
    (MsFlags::MS_SYNCHRONOUS, "sync"),
    (MsFlags::MS_DIRSYNC, "dirsync"),
    (MsFlags::MS_MANDLOCK, "mand"),
    (MsFlags::MS_LAZYTIME, "lazytime"),
];

impl Tree {
    /// A copy of the mount that `source` is on, seen from there; with `below`, of the mounts below it, too.
    pub fn of(source: &Path, below: bool) -> Result<Tree> {
        let flags = if below { libc::AT_RECURSIVE } else { 0 };
        Ok(Tree(call!(open_tree_at(AT_FDCWD, source, flags))?))
    }

    /// The same for an open file.
    pub fn of_file(file: &impl AsFd, below: bool) -> Result<Tree> {
        let flags = if below { libc::AT_RECURSIVE } else { 0 } | libc::AT_EMPTY_PATH;
        let (file, itself) = (file.as_fd(), Path::new(""));
        Ok(Tree(call!(open_tree_at(file, itself, flags))?))
    }

    /// A filesystem of the type `kind`, with the part of `options` that is for the filesystem.
    ///
    /// # Errors
    /// [`Refused`](step01_uts::Refused): ENODEV for a type that this kernel doesn't know, EINVAL for an option that the
    /// filesystem doesn't know.
    pub fn filesystem(kind: &str, source: &str, options: &Options) -> Result<Tree> {
        let context = call!(fsopen(kind))?;
        call!(fsconfig_string(&context, "source", source))?;
        for (flag, name) in OF_THE_FILESYSTEM {
            if options.set.contains(flag) {
                call!(fsconfig_flag(&context, name))?;
            }
        }
        for word in &options.data {
            match word.split_once('=') {
                Some((key, value)) => call!(fsconfig_string(&context, key, value))?,
                None => call!(fsconfig_flag(&context, word))?,
            }
        }
        call!(fsconfig_create(&context))?;
        Ok(Tree(call!(fsmount(&context))?))
    }

    /// Whether the tree's top is a directory (S_IFDIR) or a file (S_IFREG), as `mount_point` wants it.
    pub fn kind(&self) -> Result<SFlag> {
        Ok(match kind(&fstat(&self.0)?) {
            SFlag::S_IFDIR => SFlag::S_IFDIR,
            _ => SFlag::S_IFREG,
        })
    }

    /// Gives the topmost mount the flags of `options` that belong to a mount.
    pub fn set_flags(&self, options: &Options) -> Result<()> {
        let mut attributes = MountAttributes {
            topmost: true,
            ..attributes(options.set, options.clear)
        };
        if let Some(atime) = atime(options.set) {
            attributes.set |= atime;
            attributes.clear |= libc::MOUNT_ATTR__ATIME;
        }
        self.change(&attributes)
    }

    /// Gives all mounts of the tree attributes: `rro`, `rnosuid` and so on of the specification.
    pub fn set_all(&self, set: u64, clear: u64) -> Result<()> {
        self.change(&MountAttributes {
            set,
            clear,
            ..MountAttributes::default()
        })
    }

    /// Has the topmost mount, or with MS_REC all, hear of new mounts in the way of `flags`: MS_PRIVATE, MS_SLAVE …
    pub fn set_propagation(&self, flags: MsFlags) -> Result<()> {
        self.change(&MountAttributes {
            propagation: flags.difference(MsFlags::MS_REC).bits(),
            topmost: !flags.contains(MsFlags::MS_REC),
            ..MountAttributes::default()
        })
    }

    fn change(&self, attributes: &MountAttributes) -> Result<()> {
        if *attributes
            != (MountAttributes {
                topmost: attributes.topmost,
                ..MountAttributes::default()
            })
        {
            let tree = &self.0;
            call!(mount_setattr(tree, attributes))?;
        }
        Ok(())
    }

    /// Mounts the tree on `point`.
    pub fn attach(&self, point: &MountPoint) -> Result<()> {
        let tree = &self.0;
        call!(move_mount(tree, point))?;
        Ok(())
    }

    /// The tree's top, to look up files in it.
    pub fn top(&self) -> &OwnedFd {
        &self.0
    }
}

impl From<Tree> for OwnedFd {
    fn from(tree: Tree) -> OwnedFd {
        tree.0
    }
}

fn attributes(set: MsFlags, clear: MsFlags) -> MountAttributes {
    let bits = |flags: MsFlags| {
        let named = ATTRIBUTES
            .iter()
            .filter(move |(flag, _)| flags.contains(*flag));
        named.map(|(_, attribute)| attribute).sum()
    };
    MountAttributes {
        set: bits(set),
        clear: bits(clear),
        ..MountAttributes::default()
    }
}

/// The way to keep the time of the last access, if `flags` name one.
fn atime(flags: MsFlags) -> Option<u64> {
    [
        (MsFlags::MS_NOATIME, libc::MOUNT_ATTR_NOATIME),
        (MsFlags::MS_STRICTATIME, libc::MOUNT_ATTR_STRICTATIME),
        (MsFlags::MS_RELATIME, libc::MOUNT_ATTR_RELATIME),
    ]
    .into_iter()
    .find_map(|(flag, attribute)| flags.contains(flag).then_some(attribute))
}

/// The attribute that a word such as `rro` sets or clears in all mounts of a tree: `(set, clear)`.
pub fn recursive(word: &str) -> Option<(u64, u64)> {
    let word = word.strip_prefix('r')?;
    let atime = |attribute| Some((attribute, libc::MOUNT_ATTR__ATIME));
    match word {
        "ro" => Some((libc::MOUNT_ATTR_RDONLY, 0)),
        "rw" => Some((0, libc::MOUNT_ATTR_RDONLY)),
        "nosuid" => Some((libc::MOUNT_ATTR_NOSUID, 0)),
        "suid" => Some((0, libc::MOUNT_ATTR_NOSUID)),
        "nodev" => Some((libc::MOUNT_ATTR_NODEV, 0)),
        "dev" => Some((0, libc::MOUNT_ATTR_NODEV)),
        "noexec" => Some((libc::MOUNT_ATTR_NOEXEC, 0)),
        "exec" => Some((0, libc::MOUNT_ATTR_NOEXEC)),
        "nodiratime" => Some((libc::MOUNT_ATTR_NODIRATIME, 0)),
        "diratime" => Some((0, libc::MOUNT_ATTR_NODIRATIME)),
        "noatime" => atime(libc::MOUNT_ATTR_NOATIME),
        "relatime" | "atime" | "nostrictatime" => atime(libc::MOUNT_ATTR_RELATIME),
        "strictatime" | "norelatime" => atime(libc::MOUNT_ATTR_STRICTATIME),
        "nosymfollow" => Some((libc::MOUNT_ATTR_NOSYMFOLLOW, 0)),
        "symfollow" => Some((0, libc::MOUNT_ATTR_NOSYMFOLLOW)),
        _ => None,
    }
}

/// A new filesystem of the type `kind`, still without options: fsopen(2).
fn fsopen(kind: &str) -> nix::Result<OwnedFd> {
    let kind = CString::new(kind).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the kernel reads the name, and returns a descriptor that nobody else has.
    unsafe {
        let context = libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC);
        Ok(OwnedFd::from_raw_fd(Errno::result(context)? as i32))
    }
}

/// Sets an option with a value: FSCONFIG_SET_STRING in fsconfig(2).
fn fsconfig_string(context: &OwnedFd, key: &str, value: &str) -> nix::Result<()> {
    fsconfig(context, FSCONFIG_SET_STRING, Some(key), Some(value))
}

/// Sets an option without a value: FSCONFIG_SET_FLAG in fsconfig(2).
fn fsconfig_flag(context: &OwnedFd, key: &str) -> nix::Result<()> {
    fsconfig(context, FSCONFIG_SET_FLAG, Some(key), None)
}

/// Makes the filesystem: FSCONFIG_CMD_CREATE in fsconfig(2).
fn fsconfig_create(context: &OwnedFd) -> nix::Result<()> {
    fsconfig(context, FSCONFIG_CMD_CREATE, None, None)
}

fn fsconfig(
    context: &OwnedFd,
    command: libc::c_uint,
    key: Option<&str>,
    value: Option<&str>,
) -> nix::Result<()> {
    let text = |text: Option<&str>| text.map(CString::new).transpose();
    let (key, value) = (
        text(key).map_err(|_| Errno::EINVAL)?,
        text(value).map_err(|_| Errno::EINVAL)?,
    );
    let pointer =
        |text: &Option<CString>| text.as_ref().map_or(std::ptr::null(), |text| text.as_ptr());
    // SAFETY: the kernel reads two texts, where there are such.
    let result = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            command,
            pointer(&key),
            pointer(&value),
            0,
        )
    };
    Errno::result(result).map(drop)
}

/// The filesystem as a mount that is nowhere yet: fsmount(2).
fn fsmount(context: &OwnedFd) -> nix::Result<OwnedFd> {
    // SAFETY: takes integers, and returns a descriptor that nobody else has.
    unsafe {
        let tree = libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, 0);
        Ok(OwnedFd::from_raw_fd(Errno::result(tree)? as i32))
    }
}

/// A path of the caller's root, perhaps by a directory that is held: then the rest of the path is below it.
#[derive(Debug, Clone)]
pub struct Seen<'a> {
    /// The directory; the root itself, without.
    pub from: Option<Rc<OwnedFd>>,
    /// The path, without a slash at its beginning if it is below a directory.
    pub path: &'a str,
}

impl Seen<'_> {
    /// Opens it, to be covered by a mount. `None`: there is no such path.
    fn open(&self) -> Result<Option<OwnedFd>> {
        let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC);
        let opened = match &self.from {
            Some(from) => {
                // The links in there are the kernel's own, such as /proc/mounts.
                let within = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
                openat2(from, self.path, how.resolve(within))
            }
            None => openat2(
                AT_FDCWD,
                self.path,
                how.resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS),
            ),
        };
        match opened {
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            opened => Ok(Some(opened.with_context(|| self.path.to_owned())?)),
        }
    }
}

/// Makes `seen` and what is below it read-only. Nothing happens where there is no such path.
pub fn make_read_only(seen: &Seen) -> Result<()> {
    let Some(there) = seen.open()? else {
        return Ok(());
    };
    let tree = Tree::of_file(&there, true)?;
    tree.set_all(libc::MOUNT_ATTR_RDONLY, 0)?;
    tree.attach(&MountPoint::of(there))
}

/// Hides `seen`: a file beneath the device `null`, a directory beneath an empty one. Nothing happens where there is no such
/// path.
pub fn mask(null: &impl AsFd, seen: &Seen) -> Result<()> {
    let Some(there) = seen.open()? else {
        return Ok(());
    };
    let tree = match kind(&fstat(&there)?) {
        SFlag::S_IFDIR => {
            let options = Options::read(["ro", "size=0k"]);
            let tree = Tree::filesystem("tmpfs", "tmpfs", &options)?;
            tree.set_flags(&options)?;
            tree
        }
        _ => Tree::of_file(null, false)?,
    };
    tree.attach(&MountPoint::of(there))
}

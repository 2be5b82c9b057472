//! # Step 8: layers and volumes
//!
//! Ten containers of one image need no ten copies of it. An overlay lays directories on top of each
//! other and shows them as one: below, the image, which is only read; on top, a directory of the
//! container's own, where every change ends up ([`mount_overlay`]). What is to outlive the container
//! lies outside of its layers: a volume is a directory of the host, cloned as a mount ([`clone_tree`])
//! and put into place in there ([`attach`]). At the end the container's own directory goes
//! ([`tear_down`]), or becomes an image.
//!
//! An image is a directory, or an archive that is unpacked once ([`image::images`], [`image::archive`]). What an archive
//! says of files that lower layers have becomes overlayfs's own marks ([`mark`]). [`mod@image::commit`] makes an archive of
//! a container's root. [`layers`] and [`volumes`] say which layers and volumes a
//! container gets.

pub mod changes;
pub mod flags;
pub mod image;
pub mod layers;
pub mod volumes;
pub mod whole;

use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::unistd::{chdir, fchdir};
use std::ffi::{CString, OsStr};
use std::fmt::{self, Formatter};
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use step01_uts::call::Argument;
use step01_uts::{Refused, call};
use step04_pivot_root::removal::remove_tree;
use step05_tty::mounts::MountPoint;
use step07_cgroups::unescaped;

use image::marks::{MARK, is_directory, make_opaque, make_whiteout};

// ANCHOR: mount_overlay
/// Mounts an overlay on `target`, an absolute path: the directories `lower`, the topmost first, and above them `upper`,
/// which takes all changes. `work` is an empty directory on the same filesystem as `upper`, in which
/// the kernel makes ready what then appears there in one piece.
///
/// A file is copied up whole when it is first written. A file that is removed leaves a mark in
/// `upper`, a character device 0/0, and a directory that replaces another is marked opaque. The
/// directories are named by the numbers of their descriptors ([`by_numbers`], [`among_descriptors`]): all options have to
/// fit into a page, also with 500 layers, and in paths `:` and `,` would end them. The options are `lowerdir=`, with `:`
/// between the directories, `upperdir=`, `workdir=` and `volatile`, with `,` between them. Nothing more is asked for, and
/// no flags. See the kernel's documentation of overlayfs.
///
/// `volatile`: the kernel doesn't force the changes onto the disk, since nobody will want them after a crash.
///
/// # Errors
/// [`Refused`], and nothing is mounted: EINVAL when `upper` and `work` are on different mounts, or on a
/// filesystem that can't be an upper layer, such as another overlay. The caller's directory is the same in any case.
pub fn mount_overlay(
    lower: &[OwnedFd],
    upper: &OwnedFd,
    work: &OwnedFd,
    volatile: bool,
    target: &Path,
) -> Result<()> {
    // ANCHOR_END: mount_overlay
    // ANCHOR: exercise_mount_overlay
    let (upper, work) = (upper.as_raw_fd(), work.as_raw_fd());
    let mut data = format!(
        "lowerdir={},upperdir={upper},workdir={work}",
        by_numbers(lower)
    );
    if volatile {
        data.push_str(",volatile");
    }
    let overlay = Some("overlay");
    among_descriptors(|| {
        call!(mount(
            overlay,
            target,
            overlay,
            MsFlags::empty(),
            Some(&*data)
        ))
    })
    // ANCHOR_END: exercise_mount_overlay
}

// ANCHOR: by_numbers
/// The numbers of the descriptors, with `:` between them.
pub fn by_numbers(layers: &[OwnedFd]) -> String {
    let numbers: Vec<_> = layers
        .iter()
        .map(|layer| layer.as_raw_fd().to_string())
        .collect();
    numbers.join(":")
}

/// Calls `mount` in the directory /proc/self/fd, where the number of a descriptor is a path of what it stands for, and
/// goes back.
///
/// # Errors
/// What `mount` returns; the caller's directory can't be opened.
pub fn among_descriptors(mount: impl FnOnce() -> Result<(), Refused>) -> Result<()> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let before = call!(open(".", flags, Mode::empty()))?;
    call!(chdir("/proc/self/fd"))?;
    let mounted = mount();
    call!(fchdir(&before))?;
    Ok(mounted?)
}
// ANCHOR_END: by_numbers

// ANCHOR: clone_tree
/// Copies the mounts at `source` and below it, and gives the copy `attributes`, no more and no less: without any it is
/// like the original. The copy is mounted nowhere yet, and the original stays as it is; the descriptor closes on execve.
///
/// The copy is made on the host's side, before there is a container: the host decides what `source`, perhaps a link,
/// means. Read-only is a property of a mount, and every mount below has its own. So one call makes the copy, and a
/// second changes all of it. See open_tree(2), mount_setattr(2).
///
/// # Errors
/// [`Refused`], and no copy is left: ENOENT without such a file; ENOSYS for `mount_setattr` before Linux 5.12.
pub fn clone_tree(source: &Path, attributes: &MountAttributes) -> Result<OwnedFd> {
    // ANCHOR_END: clone_tree
    // ANCHOR: exercise_clone_tree
    let tree = call!(open_tree(source))?;
    call!(mount_setattr(&tree, attributes))?;
    Ok(tree)
    // ANCHOR_END: exercise_clone_tree
}

// ANCHOR: attach
/// Mounts `tree` on `point`, which is held by a descriptor: a path could lead elsewhere by now. See move_mount(2).
pub fn attach(tree: &OwnedFd, point: &MountPoint) -> Result<()> {
    call!(move_mount(tree, point))?;
    Ok(())
}
// ANCHOR_END: attach

// ANCHOR: tear_down
/// Removes `folder` and all that is in it, whatever happened before, mounts that are in use too. Without such a directory
/// nothing happens. What is mounted elsewhere stays so, and links aren't followed.
///
/// Removing goes down into every directory, and below a mount are somebody else's files. So the mounts at `folder` and
/// in there ([`mounted_below`]) go first, beginning with the last one; several may be on one directory.
///
/// # Errors
/// A mount doesn't go: then nothing is removed. A file can't be removed.
pub fn tear_down(folder: &Path) -> Result<()> {
    // ANCHOR_END: tear_down
    // ANCHOR: exercise_tear_down
    for mounted in mounted_below(folder)?.iter().rev() {
        call!(umount2(mounted.as_path(), MntFlags::MNT_DETACH))?;
    }
    remove_tree(folder)
    // ANCHOR_END: exercise_tear_down
}

// ANCHOR: mark
/// Does what the entry `name` of an archive says, if it is a mark: an entry by which a layer hides what lower layers have
/// in the directory `parent`. Returns whether it is one; then nothing of that name is made.
///
/// `.wh.NAME` hides NAME. Overlayfs wants a *whiteout* for that ([`make_whiteout`]). If this layer has a NAME of its own
/// already, that stays, since marks are about lower layers only, wherever they stand in the archive. A directory is then
/// *opaque* ([`make_opaque`]): it shows nothing of the directories below it. `.wh..wh..opq` makes `parent` itself opaque.
/// Other names that begin with `.wh..wh.` are notes of another filesystem, and nothing is made of them. See *Whiteouts*
/// in the OCI image specification, and overlayfs in the kernel's documentation.
///
/// # Errors
/// A mark whose NAME is empty, `.` or `..`: its maker wants to reach a directory that isn't this one. The kernel refuses
/// what the mark takes, other than because of a NAME that is there.
pub fn mark(parent: &OwnedFd, name: &OsStr) -> Result<bool> {
    // ANCHOR_END: mark
    // ANCHOR: exercise_mark
    let Some(hidden) = name.as_bytes().strip_prefix(MARK) else {
        return Ok(false);
    };
    match hidden {
        b".wh..opq" => make_opaque(parent, OsStr::new("."))?,
        notes if notes.starts_with(MARK) => {}
        b"" | b"." | b".." => bail!("it hides no name that a file could have"),
        hidden => match make_whiteout(parent, OsStr::from_bytes(hidden)) {
            Err(Errno::EEXIST) if is_directory(parent, OsStr::from_bytes(hidden))? => {
                make_opaque(parent, OsStr::from_bytes(hidden))?;
            }
            Err(Errno::EEXIST) => {}
            made => made?,
        },
    }
    Ok(true)
    // ANCHOR_END: exercise_mark
}

// ANCHOR: mounted_below
/// The mount points at `folder` and below it, in the order in which they were mounted.
pub fn mounted_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let targets = table.lines().filter_map(|line| line.split(' ').nth(4));
    let targets = targets.map(unescaped);
    Ok(targets
        .filter(|target| target.starts_with(folder))
        .collect())
}
// ANCHOR_END: mounted_below

// ANCHOR: MountAttributes
/// Attributes for all mounts of a tree: struct mount_attr of mount_setattr(2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MountAttributes {
    /// MOUNT_ATTR_… to be set.
    pub set: u64,
    /// MOUNT_ATTR_… to be cleared.
    pub clear: u64,
    /// How new mounts spread between copies of these mounts: MS_PRIVATE, MS_SLAVE, MS_SHARED or MS_UNBINDABLE; 0: as
    /// before.
    pub propagation: u64,
    /// Whether only the topmost mount of the tree is meant.
    pub topmost: bool,
}
// ANCHOR_END: MountAttributes

impl Argument for MountAttributes {
    fn show(&self, f: &mut Formatter) -> fmt::Result {
        let propagation = match self.propagation {
            0 => "",
            libc::MS_SHARED => "propagation=MS_SHARED",
            libc::MS_SLAVE => "propagation=MS_SLAVE",
            libc::MS_UNBINDABLE => "propagation=MS_UNBINDABLE",
            _ => "propagation=MS_PRIVATE",
        };
        let attributes = |name: &str, bits: u64| match bits {
            0 => String::new(),
            libc::MOUNT_ATTR_RDONLY => format!("{name}=MOUNT_ATTR_RDONLY"),
            bits => format!("{name}={bits:#x}"),
        };
        let (set, clear) = (
            attributes("attr_set", self.set),
            attributes("attr_clr", self.clear),
        );
        let said = [&*set, &*clear, propagation];
        let said: Vec<_> = said.into_iter().filter(|part| !part.is_empty()).collect();
        write!(f, "{{{}}}", said.join(", "))
    }
}

/// A clone of the mounts at `source` and below: open_tree(2) with OPEN_TREE_CLONE.
pub fn open_tree(source: &Path) -> nix::Result<OwnedFd> {
    open_tree_at(AT_FDCWD, source, libc::AT_RECURSIVE)
}

/// The same with `source` below a directory that is open, and flags of one's own: without AT_RECURSIVE the mounts below
/// `source` aren't cloned, and with AT_EMPTY_PATH an empty `source` stands for the open file itself.
pub fn open_tree_at(from: BorrowedFd, source: &Path, flags: libc::c_int) -> nix::Result<OwnedFd> {
    let source = CString::new(source.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | flags as u32;
    // SAFETY: the kernel reads the path, and returns a descriptor that nobody else has.
    unsafe {
        let tree = libc::syscall(
            libc::SYS_open_tree,
            from.as_raw_fd(),
            source.as_ptr(),
            flags,
        );
        Ok(OwnedFd::from_raw_fd(Errno::result(tree)? as i32))
    }
}

/// Changes all mounts of `tree`: mount_setattr(2) with AT_RECURSIVE.
pub fn mount_setattr(tree: &OwnedFd, attributes: &MountAttributes) -> nix::Result<()> {
    let flags = match attributes.topmost {
        true => libc::AT_EMPTY_PATH,
        false => libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
    };
    let attributes = libc::mount_attr {
        attr_set: attributes.set,
        attr_clr: attributes.clear,
        propagation: attributes.propagation,
        userns_fd: 0,
    };
    // SAFETY: the kernel reads an empty path and as many bytes of attributes as there are.
    let result = unsafe {
        let (tree, here) = (tree.as_raw_fd(), c"".as_ptr());
        let (attributes, size) = (&raw const attributes, size_of_val(&attributes));
        libc::syscall(libc::SYS_mount_setattr, tree, here, flags, attributes, size)
    };
    Errno::result(result).map(drop)
}

/// Mounts `tree` on what `point` stands for: move_mount(2).
pub fn move_mount(tree: &OwnedFd, point: &impl AsFd) -> nix::Result<()> {
    let by_descriptors = libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: the kernel reads two empty paths.
    let result = unsafe {
        let (tree, point) = (tree.as_raw_fd(), point.as_fd().as_raw_fd());
        let here = c"".as_ptr();
        libc::syscall(
            libc::SYS_move_mount,
            tree,
            here,
            point,
            here,
            by_descriptors,
        )
    };
    Errno::result(result).map(drop)
}

//! A directory taken as a root: paths are followed inside it, and what lies outside stays outside.
//!
//! The root may have been made by somebody who means harm. Each step is an openat2(2) with
//! RESOLVE_IN_ROOT, so that the kernel itself keeps links and `..` inside; files are opened for
//! reading only when they are plain files, so that no fifo blocks and no device is touched.

use anyhow::{Context, Result, bail};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::sys::statfs::{
    DEBUGFS_MAGIC, FsType, PROC_SUPER_MAGIC, SYSFS_MAGIC, TRACEFS_MAGIC, fstatfs,
};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A directory that stands for `/`.
///
/// The maker of a root chose how many names and links there are, so looking must have an end: a [`Root`] looks up a
/// limited number of names, and then no more. The limit is a number and no time, so that the same question about the
/// same root always has the same answer.
pub struct Root {
    directory: OwnedFd,
    /// How many names may still be looked up.
    left: Cell<usize>,
    /// Keeps the mounts below the directory alive, when they are those of a container.
    _namespace: Option<OwnedFd>,
    /// The directory's path on the host, for what we tell people to type; none where the host has the root's files in
    /// several directories, or in one that is ours.
    on_host: Option<PathBuf>,
}

/// How a path led through a root.
pub struct Trail {
    /// Each link on the way: its path without links, and what it says.
    pub links: Vec<(PathBuf, PathBuf)>,
    /// Where the path ended.
    pub end: Result<Found, Broken>,
}

/// A file at the end of a path.
pub struct Found {
    /// Its path without links.
    pub path: PathBuf,
    /// The file itself, held and not open: O_PATH in open(2).
    file: OwnedFd,
    /// Its type and mode: inode(7).
    pub stat: FileStat,
    /// Whether the mount it lies on forbids to run programs: MS_NOEXEC in mount(2).
    pub noexec: bool,
}

/// The place from which a path led no further.
#[derive(Debug)]
pub struct Broken {
    /// The path that couldn't be opened, without links.
    pub path: PathBuf,
    /// ENOENT, ENOTDIR, ELOOP, EACCES …
    pub errno: Errno,
    /// The dangling link that led there, if one did: the link's path, and what it says.
    pub dangling: Option<(PathBuf, PathBuf)>,
}

impl Trail {
    /// The path at which the trail ended, without links.
    pub fn end_path(&self) -> &Path {
        match &self.end {
            Ok(found) => &found.path,
            Err(broken) => &broken.path,
        }
    }
}

/// The most names that one [`Root`] looks up. A program with 300 libraries in 10 directories takes a tenth of them. All
/// of them take about a second.
const MOST_LOOKS: usize = 500_000;

/// The price, in names, of reading what an ELF file says of itself.
pub const READING: usize = 50;

/// The longest path that the kernel takes, with the NUL behind it: PATH_MAX.
pub const LONGEST_PATH: usize = 4096;

/// The most links that the kernel follows: MAXSYMLINKS, path_resolution(7).
const MOST_LINKS: usize = 40;

impl Found {
    /// Opens the file for reading.
    ///
    /// # Errors
    /// EINVAL for anything but a plain file.
    pub fn open(&self) -> nix::Result<File> {
        read_plain(&self.file, &self.stat)
    }
}

/// Filesystems of the kernel, where reading a plain file may have an effect: a process that reads `/proc/kmsg` takes
/// the host's messages away from the logger.
const KERNELS: [FsType; 4] = [PROC_SUPER_MAGIC, SYSFS_MAGIC, DEBUGFS_MAGIC, TRACEFS_MAGIC];

/// Opens for reading what `file` holds, if it is a plain file.
///
/// Opening a device may have an effect, and the device may be the host's. So the file is opened by the descriptor
/// through which it was looked at: its path may lead to another file by now.
fn read_plain(file: &OwnedFd, stat: &FileStat) -> nix::Result<File> {
    if kind(stat) != SFlag::S_IFREG || KERNELS.contains(&fstatfs(file)?.filesystem_type()) {
        return Err(Errno::EINVAL);
    }
    let path = by_descriptor(file);
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    nix::fcntl::open(&path, flags, Mode::empty()).map(File::from)
}

impl Root {
    /// Takes the directory `path` of the host as a root.
    pub fn at(path: &Path) -> Result<Root> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = nix::fcntl::open(path, flags, Mode::empty());
        Ok(Root {
            directory: directory.with_context(|| format!("--rootfs {}", path.display()))?,
            left: Cell::new(MOST_LOOKS),
            _namespace: None,
            on_host: Some(path.to_owned()),
        })
    }

    /// The same root, whose files lie `on_host`, in one directory that people know, or nowhere.
    pub fn from_host(self, on_host: Option<&Path>) -> Root {
        let on_host = on_host.map(Path::to_owned);
        Root { on_host, ..self }
    }

    /// Takes a container's root directory, seen through the container's mount namespace.
    pub fn in_namespace(directory: OwnedFd, namespace: OwnedFd) -> Root {
        Root {
            directory,
            left: Cell::new(MOST_LOOKS),
            _namespace: Some(namespace),
            on_host: None,
        }
    }

    /// Takes `looks` from the names that may still be looked up.
    ///
    /// # Errors
    /// ELOOP: fewer names are left, and from here on none.
    pub fn spend(&self, looks: usize) -> nix::Result<()> {
        let left = self.left.get().checked_sub(looks);
        self.left.set(left.unwrap_or(0));
        left.map(drop).ok_or(Errno::ELOOP)
    }

    /// Whether no more names may be looked up.
    pub fn is_exhausted(&self) -> bool {
        self.left.get() == 0
    }

    /// Where somebody who wants to change `found` finds it: its path on the host, or its path in the container and what
    /// it is a part of.
    pub fn place(&self, found: &Found) -> String {
        let path = found.path.display();
        let is_of_root = mount_of(&found.file).ok() == mount_of(&self.directory).ok();
        match &self.on_host {
            _ if !is_of_root => format!("{path}, in what is mounted there"),
            None => format!("{path}, in the image"),
            Some(host) => {
                let below = found.path.strip_prefix("/").unwrap_or(&found.path);
                host.join(below).display().to_string()
            }
        }
    }

    /// Follows `path` from the directory `from`, link by link, as the kernel does: see
    /// path_resolution(7).
    pub fn follow(&self, from: &Path, path: &Path) -> Trail {
        let mut trail = Trail {
            links: Vec::new(),
            end: Err(Broken {
                path: path.to_owned(),
                errno: Errno::ENOENT,
                dangling: None,
            }),
        };
        let mut inside = Vec::new();
        let end = self.walk(from, path, &mut trail.links, &mut inside);
        trail.end = end.map_err(|(path, errno)| Broken {
            path,
            errno,
            dangling: inside.first().map(|(link, _)| trail.links[*link].clone()),
        });
        trail
    }

    /// Follows `path`, and adds each link that is met to `links`. `inside` has the links whose
    /// targets are being walked, the outermost first: each link's index in `links`, and how many
    /// names are left when all names of its target have gone.
    fn walk(
        &self,
        from: &Path,
        path: &Path,
        links: &mut Vec<(PathBuf, PathBuf)>,
        inside: &mut Vec<(usize, usize)>,
    ) -> Result<Found, (PathBuf, Errno)> {
        if path.as_os_str().is_empty() {
            return Err((path.to_owned(), Errno::ENOENT));
        }
        // The names still to go, the next one last.
        let mut names = Vec::new();
        push_names(&mut names, path);
        if path.is_relative() {
            push_names(&mut names, from);
        }
        let mut here = self.found(Path::new("/"))?;
        while let Some(name) = names.pop() {
            inside.retain(|(_, beyond)| names.len() >= *beyond);
            match name.as_slice() {
                b"." | b".." if kind(&here.stat) != SFlag::S_IFDIR => {
                    return Err((here.path, Errno::ENOTDIR));
                }
                b".." => {
                    here = self.found(here.path.parent().unwrap_or(Path::new("/")))?;
                    continue;
                }
                // A slash at the end stands here as a dot: both ask for a directory.
                b"." => continue,
                _ => {}
            }
            let next = self.found(&here.path.join(OsStr::from_bytes(&name)))?;
            if kind(&next.stat) != SFlag::S_IFLNK {
                here = next;
                continue;
            }
            let target = self.link(&next.path)?;
            if links.len() == MOST_LINKS {
                return Err((next.path, Errno::ELOOP));
            }
            if target.is_absolute() {
                here = self.found(Path::new("/"))?;
            }
            inside.push((links.len(), names.len()));
            push_names(&mut names, &target);
            links.push((next.path, target));
        }
        Ok(here)
    }

    /// The file at `path`, a path whose directories are no links. A link at its end isn't followed.
    fn found(&self, path: &Path) -> Result<Found, (PathBuf, Errno)> {
        let found = |file: OwnedFd| {
            Ok(Found {
                path: path.to_owned(),
                stat: fstat(&file)?,
                noexec: fstatvfs(&file).is_ok_and(|fs| fs.flags().contains(FsFlags::ST_NOEXEC)),
                file,
            })
        };
        let file = self.open_at(path, OFlag::O_PATH | OFlag::O_NOFOLLOW);
        file.and_then(found)
            .map_err(|errno| (path.to_owned(), errno))
    }

    /// The text of the link at `path`.
    fn link(&self, path: &Path) -> Result<PathBuf, (PathBuf, Errno)> {
        let link = self.open_at(path, OFlag::O_PATH | OFlag::O_NOFOLLOW);
        let text = link.and_then(|link| readlinkat(&link, ""));
        text.map(PathBuf::from)
            .map_err(|errno| (path.to_owned(), errno))
    }

    /// The first `most` bytes of the plain file `path`; none when there is no such file.
    pub fn text(&self, path: &str, most: usize) -> Vec<u8> {
        let file = self.open_at(Path::new(path), OFlag::O_PATH);
        let file = file.and_then(|file| read_plain(&file, &fstat(&file)?));
        file.map_or_else(|_| Vec::new(), |file| read_at(&file, 0, most))
    }

    /// The names in the directory `path`, of no more than `most` entries.
    pub fn names(&self, path: &Path, most: usize) -> Vec<String> {
        let Ok(found) = self.follow(Path::new("/"), path).end else {
            return Vec::new();
        };
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
        let directory = self.open_at(&found.path, flags);
        let entries = directory.and_then(Dir::from_fd);
        let Ok(mut entries) = entries else {
            return Vec::new();
        };
        let names = entries.iter().take(most).flatten();
        names
            .take_while(|_| self.spend(1).is_ok())
            .filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned))
            .collect()
    }

    fn open_at(&self, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        let path = match path.strip_prefix("/") {
            Ok(path) if path.as_os_str().is_empty() => Path::new("."),
            Ok(path) => path,
            Err(_) => path,
        };
        self.spend(path.components().count())?;
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(self.directory.as_fd(), path, how)
    }
}

/// The path by which the kernel knows an open file, for calls that take no descriptor.
pub fn by_descriptor(file: &impl AsFd) -> PathBuf {
    let file: BorrowedFd = file.as_fd();
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

/// The mount that a file is on: mnt_id in proc_pid_fdinfo(5).
pub fn mount_of(file: &OwnedFd) -> Result<String> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
    let line = info.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    Ok(line.context("fdinfo without mnt_id")?.trim().to_owned())
}

/// A descriptor that holds the directory `path` of the host, and doesn't open it: O_PATH in open(2).
pub fn directory_at(path: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    match nix::fcntl::open(path, flags, Mode::empty()) {
        Err(errno) => bail!("{}: {}", path.display(), errno.desc()),
        Ok(opened) => Ok(opened),
    }
}

/// The type bits of a file's mode: S_IFREG, S_IFDIR …
pub fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// Puts the names of `path` on the stack, so that the first comes off first.
fn push_names(stack: &mut Vec<Vec<u8>>, path: &Path) {
    let names = path.as_os_str().as_bytes().split(|&byte| byte == b'/');
    let mut names: Vec<_> = names.map(<[u8]>::to_vec).collect();
    let asks_for_directory = names.len() > 1 && names.last().is_some_and(Vec::is_empty);
    names.retain(|name| !name.is_empty() && name != b".");
    if asks_for_directory {
        names.push(b".".to_vec());
    }
    stack.extend(names.into_iter().rev());
}

/// The file's bytes from `offset` on: `length` of them, or as many as there are.
pub fn read_at(file: &File, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match offset
            .checked_add(filled as u64)
            .map(|at| file.read_at(&mut bytes[filled..], at))
        {
            Some(Ok(read)) if read > 0 => filled += read,
            _ => break,
        }
    }
    bytes.truncate(filled);
    bytes
}

/// Bytes of a path or a name as a path.
pub fn path_from(bytes: &[u8]) -> PathBuf {
    OsString::from_vec(bytes.to_vec()).into()
}

//! Unpacking an archive that a stranger made.
//!
//! Names in the archive may be absolute, have `..` in them, or go through links that the archive itself made. Sizes
//! may be a bomb's, and the archive may be cut off. Each entry is put into a directory that openat2(2) has found
//! *inside* the image (RESOLVE_IN_ROOT), by a call that follows no link. An error names the entry that is wrong, and
//! the caller throws away what there is so far. See tar(5).

use crate::image::headers::{BLOCK, Entries, Entry};
use crate::image::marks::{MARK, WHITEOUT, is_whiteout, make_opaque};
use crate::image::names::shown;
use crate::image::open_ends::OpenEnds;
use crate::image::xattrs::set_attribute;
use crate::image::zstd::Zstd;
use crate::mark;
use anyhow::{Context, Error, Result, bail};
use flate2::read::MultiGzDecoder;
use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmodat, fstat, fstatat, makedev, mkdirat,
    mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat};
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use step04_pivot_root::root::directory_at;
use tar::EntryType;

/// How deep a tree of directories may be that is unpacked, saved, copied or compared: each level takes a descriptor or
/// two, of which a process has a thousand.
pub const DEEPEST: usize = 200;

/// The most entries of an archive: ten times as many as a large system has files.
const MOST_ENTRIES: u64 = 10_000_000;

/// Unpacks `archive`, compressed or not, into the empty directory `into`. Returns the SHA-256 of the archive's bytes in
/// hexadecimal digits, and what the layers below decide about.
///
/// # Errors
/// A file that isn't a tar archive, or is cut off or damaged. An archive that holds more than `limit` bytes, or a
/// name that leads out.
pub fn unpack(archive: File, into: &Path, limit: u64) -> Result<(String, OpenEnds)> {
    let hash = Rc::new(RefCell::new(Sha256::new()));
    let mut raw = BufReader::with_capacity(
        128 * 1024,
        Hashing {
            inner: archive,
            hash: Rc::clone(&hash),
        },
    );
    let open = unpack_tar(decompressed(&mut raw)?, into, limit)?;
    io::copy(&mut raw, &mut io::sink())?;
    let digest = hash.borrow_mut().finalize_reset();
    let digest = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((digest, open))
}

/// Makes the empty directory `path`, which everybody may read, whatever the umask is: it becomes a container's root.
///
/// # Errors
/// The filesystem's.
pub fn empty_root(path: &Path) -> io::Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o755))
}

/// The archive's decompressed contents. The first bytes tell the compression.
///
/// # Errors
/// An archive that is empty, or of a kind that isn't read here.
pub fn decompressed<'a>(raw: &'a mut impl BufRead) -> Result<Box<dyn Read + 'a>> {
    Ok(match raw.fill_buf()? {
        [] => bail!("it is empty"),
        first if compression(first) == Some("gzip") => Box::new(MultiGzDecoder::new(raw)),
        first if compression(first) == Some("zstd") => Box::new(Zstd::new(raw)),
        // A tar archive begins with a file's name, which may begin with `BZh`, too: so more bytes are compared.
        [b'B', b'Z', b'h', b'1'..=b'9', b'1', b'A', b'Y', ..] => {
            bail!("it is compressed by bzip2\nhelp: bunzip2 it first")
        }
        [0xfd, b'7', b'z', b'X', b'Z', ..] => bail!("it is compressed by xz\nhelp: unxz it first"),
        [b'P', b'K', 3, 4, ..] => bail!("it is a zip archive\nhelp: make a tar archive of it"),
        _ => Box::new(raw),
    })
}

/// The compression that is read here and that a file's `first` four bytes tell, as media types call it.
pub fn compression(first: &[u8]) -> Option<&'static str> {
    match first {
        [0x1f, 0x8b, ..] => Some("gzip"),
        // What was written in several parts at once begins with a frame that is to be skipped.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some("zstd"),
        _ => None,
    }
}

/// Takes the digest of what is read.
struct Hashing<R> {
    inner: R,
    hash: Rc<RefCell<Sha256>>,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hash.borrow_mut().update(&buffer[..read]);
        Ok(read)
    }
}

/// Unpacks the tar archive `stream` into the empty directory `into`: a whole root, or a layer that is laid on others and
/// says what it hides of these. Reads the stream to its end. Returns what the layers below decide about.
///
/// # Errors
/// As for [`unpack`].
pub fn unpack_tar(stream: impl Read, into: &Path, limit: u64) -> Result<OpenEnds> {
    let mut target = Target {
        open: OpenEnds::default(),
        root: directory_at(into)?,
        parent: None,
        times: HashMap::new(),
        made: 0,
    };
    let mut entries = Entries::new(stream, limit);
    let mut last: Option<PathBuf> = None;
    loop {
        // Without any entry it is an archive, too: a layer may change nothing.
        let Some(entry) = next_entry(&mut entries, last.as_deref())? else {
            break;
        };
        let name = PathBuf::from(OsStr::from_bytes(&entry.name));
        let made = target.made;
        let put = target.put(&entry, &mut entries);
        put.with_context(|| format!("its entry {}", shown(&name)))?;
        // A directory that no entry names has no header, and is charged as much.
        entries.charge((target.made - made) * BLOCK)?;
        target.made += 1;
        if target.made > MOST_ENTRIES {
            bail!("it has more than {MOST_ENTRIES} entries");
        }
        last = Some(name);
    }
    // The digest is of all bytes, also of those behind the end, and the compression's checksum may be there.
    entries.read_to_end().context("behind its last entry")?;
    // A directory's time changes with what is put in, so it is set last.
    set_times(&target.root, &target.times)?;
    Ok(target.open)
}

/// The next of `entries`, which comes behind the entry that is called `last`.
///
/// # Errors
/// As for [`Entries::next_entry`], with the place where it is.
pub fn next_entry(entries: &mut Entries<impl Read>, last: Option<&Path>) -> Result<Option<Entry>> {
    entries.next_entry().with_context(|| match last {
        Some(name) => format!("it is damaged or cut off, behind its entry {}", shown(name)),
        None if entries.has_begun() => "its first entry".to_owned(),
        None => "it is no tar archive".to_owned(),
    })
}

/// Gives the directory `top`, and those in it, the times that are noted for their inodes.
fn set_times(top: &OwnedFd, times: &HashMap<u64, TimeSpec>) -> Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let opened = openat(top, ".", flags, Mode::empty())?;
    let time = times.get(&fstat(&opened)?.st_ino);
    let mut entries = Dir::from_fd(opened)?;
    for entry in entries.iter() {
        let entry = entry?;
        let name = entry.file_name();
        // Not every filesystem tells the type of an entry here.
        let is_other = entry
            .file_type()
            .is_some_and(|kind| kind != Type::Directory);
        if is_other || matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match openat(top, name, flags, Mode::empty()) {
            Err(Errno::ENOTDIR | Errno::ELOOP) => {}
            below => set_times(&below?, times)?,
        }
    }
    match time {
        Some(time) => set_time(top, OsStr::new("."), *time),
        None => Ok(()),
    }
}

/// Where the entries go.
struct Target {
    open: OpenEnds,
    root: OwnedFd,
    /// The directory that the last entry went into: the next entry most often goes there, too.
    parent: Option<(PathBuf, Rc<OwnedFd>)>,
    /// The times of directories, by inode and not by name: a name may be as long as the archive likes.
    times: HashMap<u64, TimeSpec>,
    /// The number of entries put so far, and of directories made for them.
    made: u64,
}

impl Target {
    /// Puts the file of `entry`, whose `contents` follow, where it belongs.
    fn put(&mut self, entry: &Entry, contents: &mut impl Read) -> Result<()> {
        let kind = entry.kind;
        let path = inside(Path::new(OsStr::from_bytes(&entry.name)))?;
        if path.as_os_str().is_empty() {
            // The image's own directory is there already: only its owner, mode and times are set.
            self.times.insert(fstat(&self.root)?.st_ino, time(entry));
            self.open.has_root = true;
            return apply(entry, &self.root, OsStr::new("."));
        }
        let link = || {
            let link = entry.link.as_deref().context("a link without a target")?;
            Ok::<_, Error>(OsStr::from_bytes(link))
        };
        if kind == EntryType::Link && inside(Path::new(link()?)).is_ok_and(|link| link == path) {
            // GNU tar writes such a link when it is given a file's name twice.
            return Ok(());
        }
        let (parent, name) = self.place(&path)?;
        let (parent, name) = (&*parent, name.as_os_str());
        if mark(parent, name)? {
            let hidden = OsStr::from_bytes(name.as_bytes().strip_prefix(MARK).unwrap_or_default());
            return match is_whiteout(parent, hidden) {
                true => self.open.hides(path.with_file_name(hidden)),
                false => Ok(()),
            };
        }
        if kind != EntryType::Directory {
            self.make_way(parent, name)?;
        }
        match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                write(entry, contents, parent, name)?;
            }
            EntryType::Directory => {
                if path.components().count() > DEEPEST {
                    bail!("deeper than {DEEPEST} directories");
                }
                if !self.make_directory(parent, name, 0o700)? {
                    // A link to a directory isn't a directory: nothing of this entry may reach the link's target.
                    let flags =
                        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                    openat(parent, name, flags, Mode::empty())
                        .context("something else is there already")?;
                }
                let found = fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
                self.times.insert(found.st_ino, time(entry));
            }
            EntryType::Symlink => {
                symlinkat(link()?, parent, name)?;
            }
            EntryType::Link => {
                let to = inside(Path::new(link()?))?;
                let (to_parent, to_name) = self.place(&to)?;
                if is_whiteout(&to_parent, &to_name) {
                    bail!("a hard link to {}, which this layer removes", shown(&to));
                }
                match linkat(
                    &*to_parent,
                    to_name.as_os_str(),
                    parent,
                    name,
                    AtFlags::empty(),
                ) {
                    Err(Errno::ENOENT) => self.open.links(&path, &to)?,
                    linked => linked.with_context(|| format!("a hard link to {}", shown(&to)))?,
                }
                // The file's owner, mode and times were set when the file itself was put.
                return Ok(());
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                let kind = match kind {
                    EntryType::Fifo => SFlag::S_IFIFO,
                    EntryType::Block => SFlag::S_IFBLK,
                    _ => SFlag::S_IFCHR,
                };
                let (major, minor) = entry.device;
                if kind == SFlag::S_IFCHR && entry.device == WHITEOUT {
                    bail!("by this device overlayfs hides what other layers have");
                }
                let device = makedev(major.into(), minor.into());
                mknodat(parent, name, kind, Mode::from_bits_truncate(0o600), device)?;
            }
            other => bail!(
                "a type {:?} that nobody unpacks",
                char::from(other.as_byte())
            ),
        }
        apply(entry, parent, name)
    }

    /// The directory of `path`, which is made where it is missing, and the name in it. No link leads out: every
    /// lookup takes the image as its root.
    fn place(&mut self, path: &Path) -> Result<(Rc<OwnedFd>, OsString)> {
        let name = path.file_name().context("an empty name")?.to_owned();
        let directory = path.parent().unwrap_or(Path::new(""));
        if let Some((known, opened)) = &self.parent {
            if known == directory {
                return Ok((Rc::clone(opened), name));
            }
        }
        let opened = match self.open(directory) {
            // A mark may have the name of a directory on the way.
            Err(Errno::ENOENT | Errno::ENOTDIR) => {
                let mut way = PathBuf::new();
                for part in directory.components() {
                    let above = self.open(&way)?;
                    way.push(part);
                    if self.make_directory(&above, part.as_os_str(), 0o755)? {
                        // A directory that the archive doesn't name is readable for everybody, whatever the umask is.
                        let mode = Mode::from_bits_truncate(0o755);
                        let follow = FchmodatFlags::FollowSymlink;
                        fchmodat(&above, part.as_os_str(), mode, follow)?;
                        self.made += 1;
                        self.open.implies(&way)?;
                    }
                }
                self.open(directory)
            }
            opened => opened,
        };
        let opened =
            Rc::new(opened.with_context(|| format!("its directory {}", shown(directory)))?);
        self.parent = Some((directory.to_owned(), Rc::clone(&opened)));
        Ok((opened, name))
    }

    /// Makes the directory `name`; `false` when something is there already that stays.
    fn make_directory(&mut self, parent: &OwnedFd, name: &OsStr, mode: u32) -> Result<bool> {
        let mode = Mode::from_bits_truncate(mode);
        match mkdirat(parent, name, mode) {
            Err(Errno::EEXIST) if is_whiteout(parent, name) => {
                // The layer has removed what was there, and so nothing of that shows through.
                unlinkat(parent, name, UnlinkatFlags::NoRemoveDir)?;
                mkdirat(parent, name, mode)?;
                make_opaque(parent, name).map(|()| true)
            }
            Err(Errno::EEXIST) => Ok(false),
            made => Ok(made.map(|()| true)?),
        }
    }

    fn open(&self, directory: &Path) -> nix::Result<OwnedFd> {
        let directory = if directory.as_os_str().is_empty() {
            Path::new(".")
        } else {
            directory
        };
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(&self.root, directory, how)
    }

    /// Removes a file that has the name already: of two entries of one name the later one counts.
    fn make_way(&mut self, parent: &OwnedFd, name: &OsStr) -> Result<()> {
        match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) => {
                // The removed file may have been a link on the way to the directory that is held open.
                self.parent = None;
                Ok(())
            }
            Err(Errno::ENOENT) => Ok(()),
            Err(Errno::EISDIR | Errno::EPERM) => bail!("a directory of that name is there already"),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Makes the file `name`, with the contents of `entry`.
fn write(entry: &Entry, contents: &mut impl Read, parent: &OwnedFd, name: &OsStr) -> Result<()> {
    let flags =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    let mut file = File::from(openat(parent, name, flags, mode)?);
    match &entry.parts {
        None => drop(io::copy(contents, &mut file)?),
        Some(parts) => {
            for (offset, length) in parts {
                file.seek(SeekFrom::Start(*offset))?;
                io::copy(&mut contents.take(*length), &mut file)?;
            }
            file.set_len(entry.size)?;
        }
    }
    Ok(())
}

/// A name from the archive, as a path relative to the image, without what leads nowhere.
///
/// # Errors
/// A name that leads out, or too deep.
pub fn inside(name: &Path) -> Result<PathBuf> {
    let mut path = PathBuf::new();
    for part in name.components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::RootDir | Component::CurDir => {}
            _ => bail!("it has .. in its name"),
        }
    }
    match path.components().count() {
        // The last component may be a file.
        depth if depth > DEEPEST + 1 => bail!("deeper than {DEEPEST} directories"),
        _ => Ok(path),
    }
}

/// Sets the file's owner, mode, attributes and time as its header says. The owner comes first: a change of owner
/// takes setuid bits and capabilities away.
fn apply(entry: &Entry, parent: &OwnedFd, name: &OsStr) -> Result<()> {
    let nofollow = AtFlags::AT_SYMLINK_NOFOLLOW;
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    fchownat(parent, name, Some(uid), Some(gid), nofollow).context("its owner")?;
    if entry.kind != EntryType::Symlink {
        let mode = Mode::from_bits_truncate(entry.mode);
        fchmodat(parent, name, mode, FchmodatFlags::FollowSymlink).context("its mode")?;
    }
    for (key, value) in &entry.attributes {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let put = openat(parent, name, flags, Mode::empty())?;
        match set_attribute(&put, key, value) {
            // This filesystem, or this kernel's security modules, have no such attribute.
            Err(Errno::ENOTSUP) => {}
            set => set.with_context(|| format!("its attribute {}", shown(Path::new(key))))?,
        }
    }
    set_time(parent, name, time(entry))
}

fn time(entry: &Entry) -> TimeSpec {
    let (seconds, nanos) = entry.modified;
    TimeSpec::new(seconds, nanos)
}

fn set_time(parent: &OwnedFd, name: &OsStr, time: TimeSpec) -> Result<()> {
    utimensat(parent, name, &time, &time, UtimensatFlags::NoFollowSymlink).context("its time")
}

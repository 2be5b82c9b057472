//! Unpacking an archive that a stranger made.
//!
//! Its names may be absolute, have `..` in them, or go through links that the archive itself made; its
//! sizes may be a bomb's; it may be cut off. Each entry is put into a directory that openat2(2) has
//! found *inside* the image (RESOLVE_IN_ROOT), by a call that follows no link. What is wrong is an
//! error that names the entry, and the caller throws away what there is so far. See tar(5).

use crate::attributes::set_attribute;
use crate::headers::{Headers, too_much};
use crate::zstd::Zstd;
use anyhow::{Context, Error, Result, anyhow, bail};
use flate2::read::MultiGzDecoder;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmodat, makedev, mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat};
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use tar::{Entry, EntryType};

/// As many entries as a large system has files, ten times over.
const MOST_ENTRIES: u64 = 10_000_000;

/// Unpacks `archive`, compressed or not, into the empty directory `into`, and returns the SHA-256 of
/// the archive's bytes in hexadecimal digits.
///
/// # Errors
/// It isn't a tar archive, or cut off, or damaged; it holds more than `limit` bytes, or a name that
/// leads out.
pub fn unpack(archive: File, into: &Path, limit: u64) -> Result<String> {
    let hash = Rc::new(RefCell::new(Sha256::new()));
    let mut raw = BufReader::with_capacity(
        128 * 1024,
        Hashing {
            inner: archive,
            hash: Rc::clone(&hash),
        },
    );
    {
        let stream = Stream::new(decompressed(&mut raw)?, limit);
        unpack_tar(&stream, into, limit)?;
        // What comes behind the end belongs to the archive's bytes, and a checksum may be there.
        io::copy(&mut &stream, &mut io::sink()).context("behind its last entry")?;
        if !stream.0.borrow().has_ended() {
            bail!("it is cut off: a tar archive ends in a block of zeros, and this one doesn't");
        }
    }
    io::copy(&mut raw, &mut io::sink())?;
    let digest = hash.borrow_mut().finalize_reset();
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The archive's contents: what it is compressed by shows in its first bytes.
fn decompressed<'a>(raw: &'a mut impl BufRead) -> Result<Box<dyn Read + 'a>> {
    Ok(match raw.fill_buf()? {
        [] => bail!("it is empty"),
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(raw)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(Zstd::new(raw)),
        [b'B', b'Z', b'h', ..] => bail!("it is compressed by bzip2\nhelp: bunzip2 it first"),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => bail!("it is compressed by xz\nhelp: unxz it first"),
        [b'P', b'K', ..] => bail!("it is a zip archive\nhelp: make a tar archive of it"),
        _ => Box::new(raw),
    })
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

/// A tar stream that is read by one and watched by another.
struct Stream<R>(RefCell<Headers<R>>);

impl<R: Read> Stream<R> {
    fn new(inner: R, limit: u64) -> Stream<R> {
        Stream(RefCell::new(Headers::new(inner, limit)))
    }
}

impl<R: Read> Read for &Stream<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.borrow_mut().read(buffer)
    }
}

/// A line of names as people can read it.
fn shown(name: &Path) -> String {
    const LONG: usize = 200;
    let name = name.display().to_string();
    match name.char_indices().nth(LONG) {
        Some((at, _)) => format!("{}… ({} bytes)", &name[..at], name.len()),
        None => name,
    }
}

fn unpack_tar<R: Read>(stream: &Stream<R>, into: &Path, limit: u64) -> Result<()> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut target = Target {
        root: open(into, flags, Mode::empty())?,
        parent: None,
        left: limit,
        directories: Vec::new(),
    };
    let mut archive = tar::Archive::new(stream);
    let mut entries = 0;
    for entry in archive.entries()? {
        let mut entry = entry.context(match entries {
            0 => "it is no tar archive",
            _ => "it is damaged or cut off",
        })?;
        entries += 1;
        if entries > MOST_ENTRIES {
            bail!("it has more than {MOST_ENTRIES} entries");
        }
        let name = PathBuf::from(OsString::from_vec(entry.path_bytes().into_owned()));
        let records = stream.0.borrow().records();
        let put = records
            .map_err(Error::from)
            .and_then(|records| target.put(&mut entry, &name, &records));
        put.with_context(|| format!("its entry {}", shown(&name)))?;
    }
    if entries == 0 {
        bail!("nothing is in it");
    }
    // A directory's time changes with what is put in, so it is set last.
    while let Some((directory, time)) = target.directories.pop() {
        if directory.as_os_str().is_empty() {
            set_time(&target.root, OsStr::new("."), time)?;
            continue;
        }
        let (parent, name) = target.place(&directory)?;
        set_time(&parent, &name, time)?;
    }
    Ok(())
}

/// Where the entries go.
struct Target {
    root: OwnedFd,
    /// The directory that the last entry went into: the next one most often does, too.
    parent: Option<(PathBuf, Rc<OwnedFd>)>,
    /// As many bytes as may still come.
    left: u64,
    directories: Vec<(PathBuf, TimeSpec)>,
}

/// PAX records by key.
type Records = HashMap<Vec<u8>, Vec<u8>>;

/// What a header says of a file besides its type and its data.
struct Metadata {
    uid: u32,
    gid: u32,
    mode: u32,
    time: TimeSpec,
    attributes: Vec<(OsString, Vec<u8>)>,
}

impl Target {
    fn put(&mut self, entry: &mut Entry<impl Read>, name: &Path, records: &Records) -> Result<()> {
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        let metadata = Metadata::of(entry, records)?;
        let path = inside(name)?;
        if path.as_os_str().is_empty() {
            // The image's own directory: only what it is like.
            self.directories.push((path, metadata.time));
            return metadata.apply(&self.root, OsStr::new("."), kind);
        }
        if kind == EntryType::Link
            && entry.link_name_bytes().is_some_and(|link| {
                inside(Path::new(OsStr::from_bytes(&link))).is_ok_and(|link| link == path)
            })
        {
            // GNU tar writes one when it is told a file's name twice.
            return Ok(());
        }
        let (parent, name) = self.place(&path)?;
        let (parent, name) = (&*parent, name.as_os_str());
        if kind != EntryType::Directory {
            self.make_way(parent, name)?;
        }
        match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.write(entry, parent, name)?;
            }
            EntryType::Directory => {
                match mkdirat(parent, name, Mode::from_bits_truncate(0o700)) {
                    Err(Errno::EEXIST) => {
                        // A link to a directory isn't one: its target is somebody else's business.
                        let flags = OFlag::O_PATH
                            | OFlag::O_DIRECTORY
                            | OFlag::O_NOFOLLOW
                            | OFlag::O_CLOEXEC;
                        openat(parent, name, flags, Mode::empty())
                            .context("something else is there already")?;
                    }
                    made => made?,
                }
                self.directories.push((path, metadata.time));
            }
            EntryType::Symlink => {
                let link = entry.link_name_bytes().context("a link without a target")?;
                symlinkat(OsStr::from_bytes(&link), parent, name)?;
            }
            EntryType::Link => {
                let link = entry.link_name_bytes().context("a link without a target")?;
                let to = inside(Path::new(OsStr::from_bytes(&link)))?;
                let (to_parent, to_name) = self.place(&to)?;
                linkat(
                    &*to_parent,
                    to_name.as_os_str(),
                    parent,
                    name,
                    AtFlags::empty(),
                )
                .with_context(|| format!("a hard link to {}", to.display()))?;
                // What the file is like was said where it was put.
                return Ok(());
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                let (kind, device) = match kind {
                    EntryType::Fifo => (SFlag::S_IFIFO, 0),
                    other => {
                        let major = entry.header().device_major()?.unwrap_or(0);
                        let minor = entry.header().device_minor()?.unwrap_or(0);
                        let is_block = other == EntryType::Block;
                        let kind = if is_block {
                            SFlag::S_IFBLK
                        } else {
                            SFlag::S_IFCHR
                        };
                        (kind, makedev(major.into(), minor.into()))
                    }
                };
                mknodat(parent, name, kind, Mode::from_bits_truncate(0o600), device)?;
            }
            other => bail!(
                "a type {:?} that nobody unpacks",
                char::from(other.as_byte())
            ),
        }
        metadata.apply(parent, name, kind)
    }

    /// The directory of `path`, which is made where it is missing, and the name in it. No link leads
    /// out: the image is the root of all that is looked up.
    fn place(&mut self, path: &Path) -> Result<(Rc<OwnedFd>, OsString)> {
        let name = path.file_name().context("an empty name")?.to_owned();
        let directory = path.parent().unwrap_or(Path::new(""));
        if let Some((known, opened)) = &self.parent {
            if known == directory {
                return Ok((Rc::clone(opened), name));
            }
        }
        let opened = match self.open(directory) {
            Err(Errno::ENOENT) => {
                let mut way = PathBuf::new();
                for part in directory.components() {
                    let above = self.open(&way)?;
                    way.push(part);
                    match mkdirat(&above, part.as_os_str(), Mode::from_bits_truncate(0o755)) {
                        Err(Errno::EEXIST) | Ok(()) => {}
                        Err(errno) => return Err(errno.into()),
                    }
                }
                self.open(directory)
            }
            opened => opened,
        };
        let opened =
            Rc::new(opened.with_context(|| format!("its directory {}", directory.display()))?);
        self.parent = Some((directory.to_owned(), Rc::clone(&opened)));
        Ok((opened, name))
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

    /// Takes away what has the name already: of two entries of one name the later one counts.
    fn make_way(&mut self, parent: &OwnedFd, name: &OsStr) -> Result<()> {
        match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) => {
                // It may have been a link on the way to a directory that we hold open.
                self.parent = None;
                Ok(())
            }
            Err(Errno::ENOENT) => Ok(()),
            Err(Errno::EISDIR | Errno::EPERM) => bail!("a directory of that name is there already"),
            Err(errno) => Err(errno.into()),
        }
    }

    fn write(
        &mut self,
        entry: &mut Entry<impl Read>,
        parent: &OwnedFd,
        name: &OsStr,
    ) -> Result<()> {
        if entry.size() > self.left {
            return Err(too_much().into());
        }
        self.left -= entry.size();
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(
            parent,
            name,
            flags,
            Mode::from_bits_truncate(0o600),
        )?);
        match entry.header().entry_type() {
            EntryType::GNUSparse => write_sparsely(entry, &mut file)?,
            _ => {
                let size = entry.size();
                let written = io::copy(entry, &mut file)?;
                if written != size {
                    bail!("it is cut off after {written} of {size} bytes");
                }
            }
        }
        Ok(())
    }
}

/// Writes what isn't zero, and leaves a hole where all is.
fn write_sparsely(from: &mut impl Read, to: &mut File) -> Result<()> {
    const PAGE: usize = 4096;
    let mut buffer = [0; PAGE];
    let mut length = 0;
    loop {
        let mut filled = 0;
        while filled < PAGE {
            match from.read(&mut buffer[filled..])? {
                0 => break,
                read => filled += read,
            }
        }
        if filled == 0 {
            return Ok(to.set_len(length)?);
        }
        match buffer[..filled].iter().all(|byte| *byte == 0) {
            true => drop(to.seek(SeekFrom::Current(filled as i64))?),
            false => to.write_all(&buffer[..filled])?,
        }
        length += filled as u64;
    }
}

/// A name of the archive, relative to the image.
fn inside(name: &Path) -> Result<PathBuf> {
    let mut path = PathBuf::new();
    for part in name.components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::RootDir | Component::CurDir => {}
            _ => bail!("it has .. in its name"),
        }
    }
    Ok(path)
}

/// PAX keys begin like this for extended attributes, as GNU tar, star and Docker write them.
pub const ATTRIBUTE: &str = "SCHILY.xattr.";

impl Metadata {
    fn of(entry: &Entry<impl Read>, records: &Records) -> Result<Metadata> {
        let header = entry.header();
        let id = |id: u64| u32::try_from(id).map_err(|_| anyhow!("an owner {id} that can't be"));
        let mut metadata = Metadata {
            uid: id(header.uid()?)?,
            gid: id(header.gid()?)?,
            mode: header.mode()? & 0o7777,
            time: TimeSpec::new(i64::try_from(header.mtime()?).unwrap_or(0), 0),
            attributes: Vec::new(),
        };
        for (key, value) in records {
            let (key, text) = (OsStr::from_bytes(key), String::from_utf8_lossy(value));
            match key.to_str().unwrap_or_default() {
                "uid" => metadata.uid = text.parse().context("a uid that is no number")?,
                "gid" => metadata.gid = text.parse().context("a gid that is no number")?,
                "mtime" => metadata.time = time(&text).context("an mtime that is no time")?,
                name if name.starts_with("GNU.sparse.") => {
                    bail!(
                        "a sparse file in PAX's way\nhelp: make the archive with tar --format=gnu"
                    )
                }
                name => {
                    if let Some(name) = name.strip_prefix(ATTRIBUTE) {
                        metadata.attributes.push((name.into(), value.clone()));
                    }
                }
            }
        }
        Ok(metadata)
    }

    /// Makes the file what its header says. The owner comes first: a change of owner takes setuid
    /// bits and capabilities away.
    fn apply(&self, parent: &OwnedFd, name: &OsStr, kind: EntryType) -> Result<()> {
        let nofollow = AtFlags::AT_SYMLINK_NOFOLLOW;
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        fchownat(parent, name, Some(uid), Some(gid), nofollow).context("its owner")?;
        if kind != EntryType::Symlink {
            let mode = Mode::from_bits_truncate(self.mode);
            fchmodat(parent, name, mode, FchmodatFlags::FollowSymlink).context("its mode")?;
        }
        for (key, value) in &self.attributes {
            match set_attribute(parent, name, key, value) {
                // What this filesystem, or this kernel's security modules, don't have.
                Err(Errno::ENOTSUP) => {}
                set => set.with_context(|| format!("its attribute {}", key.to_string_lossy()))?,
            }
        }
        set_time(parent, name, self.time)
    }
}

fn set_time(parent: &OwnedFd, name: &OsStr, time: TimeSpec) -> Result<()> {
    utimensat(parent, name, &time, &time, UtimensatFlags::NoFollowSymlink).context("its time")
}

/// `1700000000.123456789`, and before 1970 with a minus sign.
fn time(text: &str) -> Option<TimeSpec> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let (whole, nanos): (i64, i64) = (seconds.parse().ok()?, digits.parse().ok()?);
    Some(match seconds.starts_with('-') && nanos > 0 {
        true => TimeSpec::new(whole - 1, 1_000_000_000 - nanos),
        false => TimeSpec::new(whole, nanos),
    })
}

//! A container's root as an archive that is an image again.

use crate::image::archive::DEEPEST;
use crate::image::headers::{ATTRIBUTE, BLOCK, MOST_PARTS, SPARSE, encoded};
use crate::image::marks::WHITEOUT;
use crate::image::names::shown;
use crate::image::xattrs::{attributes, is_of_overlay};
use crate::whole::Whole;
use anyhow::{Context, Result, bail};
use flate2::Compression;
use flate2::write::GzEncoder;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, major, minor};
use nix::unistd::{Whence, lseek};
use ruzstd::encoding::{CompressionLevel, compress};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::{self, BufWriter, ErrorKind, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use step04_pivot_root::root::{LONGEST_PATH, by_descriptor};
use tar::{Builder, EntryType, Header, HeaderMode};

/// The most bytes of a link's target that a header has room for.
const LONGEST_LINK: usize = 100;

/// Where a root is saved, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archive {
    file: PathBuf,
    compression: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    None,
    Gzip,
    Zstd,
}

impl Archive {
    /// Reads FILE.tar, FILE.tar.gz (or .tgz) or FILE.tar.zst.
    pub fn parse(text: &str) -> Result<Archive, String> {
        let ends = |end| text.ends_with(end);
        let compression = match text {
            _ if ends(".tar") => Kind::None,
            _ if ends(".tar.gz") || ends(".tgz") => Kind::Gzip,
            _ if ends(".tar.zst") => Kind::Zstd,
            _ => return Err("its name has to end in .tar, .tar.gz or .tar.zst".into()),
        };
        Ok(Archive {
            file: text.into(),
            compression,
        })
    }

    /// Fails when the archive can't be written where it is to be: better before the container runs than after it.
    pub fn check(&self) -> Result<()> {
        let shown = self.file.display();
        let folder = match self.file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        if !folder.is_dir() {
            bail!("{shown}: there is no directory {}", folder.display());
        }
        if self.file.is_dir() {
            bail!("{shown}: that is a directory");
        }
        Ok(())
    }

    /// Makes the path absolute, so that it holds in every working directory.
    pub fn make_absolute(&mut self) -> Result<()> {
        self.file = std::path::absolute(&self.file)?;
        Ok(())
    }

    /// Writes all of `root`, which doesn't change meanwhile. The archive appears when it is whole, and not before. A
    /// note below `state` tells of the unfinished file.
    ///
    /// # Errors
    /// A directory that lies deeper than [`DEEPEST`], or a file that was changed meanwhile.
    pub fn write(&self, root: &OwnedFd, state: &Path) -> Result<()> {
        let write = || {
            let (whole, file) = Whole::begin(&self.file, state)?;
            self.write_to(root, &file, state)?;
            whole.appear(&file)
        };
        write().with_context(|| self.file.display().to_string())
    }

    fn write_to(&self, root: &OwnedFd, file: &File, state: &Path) -> Result<()> {
        match self.compression {
            Kind::None => Ok(pack(root, BufWriter::new(file))?.flush()?),
            Kind::Gzip => {
                let encoder = GzEncoder::new(BufWriter::new(file), Compression::fast());
                Ok(pack(root, encoder)?.finish()?.flush()?)
            }
            Kind::Zstd => {
                // This encoder reads its input and can't be written to. So the archive is first written whole, to a
                // file that never appears.
                let (_aside, plain) = Whole::begin(&self.file, state)?;
                let mut plain = pack(root, BufWriter::new(plain))?.into_inner()?;
                plain.rewind()?;
                let output = Failing::new(BufWriter::new(file));
                let source = Failing::new(plain);
                compress(source.clone(), output.clone(), CompressionLevel::Fastest);
                source.check()?;
                Ok(output.check()?.flush()?)
            }
        }
    }
}

/// A reader or a writer that remembers its first error and goes on as if there were none: for an encoder that handles
/// no errors.
struct Failing<T>(Rc<RefCell<(T, Option<io::Error>)>>);

impl<T> Failing<T> {
    fn new(inner: T) -> Failing<T> {
        Failing(Rc::new(RefCell::new((inner, None))))
    }

    fn clone(&self) -> Failing<T> {
        Failing(Rc::clone(&self.0))
    }

    /// The reader or writer inside, or its first error.
    fn check(self) -> Result<T> {
        let inner = Rc::into_inner(self.0).context("the encoder still holds it")?;
        match inner.into_inner() {
            (_, Some(error)) => Err(error.into()),
            (inner, None) => Ok(inner),
        }
    }

    fn attempt(&mut self, most: usize, action: impl FnOnce(&mut T) -> io::Result<usize>) -> usize {
        let (inner, failed) = &mut *self.0.borrow_mut();
        if failed.is_none() {
            match action(inner) {
                Ok(done) => return done,
                Err(error) => *failed = Some(error),
            }
        }
        most
    }
}

impl<T: Read> Read for Failing<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // After an error, the encoder sees the end of the file.
        Ok(self.attempt(0, |inner| inner.read(buffer)))
    }
}

impl<T: Write> Write for Failing<T> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        Ok(self.attempt(buffer.len(), |inner| inner.write(buffer)))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.attempt(0, |inner| inner.flush().map(|()| 0));
        Ok(())
    }
}

/// Writes a tar archive of `root`, in the order of names.
///
/// A container that shares the root may exchange names in it meanwhile. So each name is looked up once, in a directory
/// that is open, and not followed; all that is written of a file is asked of its descriptor.
fn pack<W: Write>(root: &OwnedFd, writer: W) -> Result<W> {
    let mut builder = Builder::new(writer);
    builder.mode(HeaderMode::Complete);
    let mut packer = Packer {
        builder,
        links: HashMap::new(),
    };
    packer.add(root, Path::new("./"))?;
    packer.descend(root, Path::new("."), 0)?;
    Ok(packer.builder.into_inner()?)
}

struct Packer<W: Write> {
    builder: Builder<W>,
    /// Files with several names, by device and inode: the name that came first.
    links: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Packer<W> {
    fn descend(&mut self, directory: &OwnedFd, name: &Path, depth: usize) -> Result<()> {
        if depth > DEEPEST {
            bail!(
                "{} of the root: deeper than {DEEPEST} directories",
                shown(name)
            );
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut entries = Dir::from_fd(openat(directory, ".", flags, Mode::empty())?)?;
        let names = entries.iter().map(|entry| {
            let entry = entry?;
            Ok(OsStr::from_bytes(entry.file_name().to_bytes()).to_owned())
        });
        let mut names = names.collect::<Result<Vec<OsString>>>()?;
        drop(entries);
        names.sort();
        for each in names.iter().filter(|name| *name != "." && *name != "..") {
            let path = name.join(each);
            let mut add = || {
                if path.as_os_str().len() >= LONGEST_PATH {
                    bail!("its name has more bytes than a path can have");
                }
                let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let found = openat(directory, each.as_os_str(), flags, Mode::empty())?;
                Ok(self.add(&found, &path)?.then_some(found))
            };
            let added: Result<Option<OwnedFd>> = add();
            let directory = added.with_context(|| format!("{} of the root", shown(&path)))?;
            if let Some(directory) = directory {
                self.descend(&directory, &path, depth + 1)?;
            }
        }
        Ok(())
    }

    /// Adds one file; says whether it is a directory.
    fn add(&mut self, found: &OwnedFd, name: &Path) -> Result<bool> {
        let metadata = File::from(found.try_clone()?).metadata()?;
        let kind = metadata.file_type();
        let numbers = (major(metadata.rdev()) as u32, minor(metadata.rdev()) as u32);
        if kind.is_socket() || kind.is_char_device() && numbers == WHITEOUT {
            // A socket is nothing without the process that listens, and a whiteout is no device.
            return Ok(false);
        }
        let id = (metadata.dev(), metadata.ino());
        let mut header = header_of(&metadata, Header::new_gnu());
        if metadata.nlink() > 1 && !kind.is_dir() {
            if let Some(first) = self.links.get(&id).cloned() {
                header.set_entry_type(EntryType::Link);
                header.set_size(0);
                // Some readers give the file, which is one and the same, the time of its last name.
                self.extend(time_record(&metadata).as_slice())?;
                self.builder.append_link(&mut header, name, &first)?;
                return Ok(false);
            }
            self.links.insert(id, name.to_owned());
        }
        let target = match kind.is_symlink() {
            true => Some(readlinkat(found, "")?),
            false => None,
        };
        let mut records = records(found, &metadata, target.as_deref())?;
        if kind.is_file() {
            let file = open_at_once(found)?;
            let parts = match metadata.blocks() * BLOCK < metadata.len() {
                true => data(&file, metadata.len())?,
                false => vec![(0, metadata.len())],
            };
            let stored: u64 = parts.iter().map(|(_, length)| length).sum();
            let mut more = Vec::new();
            if stored < metadata.len() {
                // The parts are listed, so that the holes between them stay holes. Such a list is PAX's, and GNU tar looks for
                // one below a header of that format only.
                more = list(&parts);
                let plain = name.strip_prefix(".").unwrap_or(name);
                header = header_of(&metadata, Header::new_ustar());
                let about = [
                    ("major", b"1".to_vec()),
                    ("minor", b"0".to_vec()),
                    ("name", plain.as_os_str().as_bytes().to_vec()),
                    ("realsize", metadata.len().to_string().into_bytes()),
                ];
                records.extend(about.map(|(key, value)| (format!("{SPARSE}{key}"), value)));
            }
            header.set_size(more.len() as u64 + stored);
            self.extend(&records)?;
            let contents = Parts {
                file: &file,
                parts: parts.into_iter(),
                offset: 0,
                left: 0,
            };
            let contents = more.as_slice().chain(contents);
            self.builder.append_data(&mut header, name, contents)?;
            if file.metadata()?.len() != metadata.len() {
                return Err(changed().into());
            }
            return Ok(false);
        }
        self.extend(&records)?;
        if let Some(target) = target {
            header.set_entry_type(EntryType::Symlink);
            header.set_size(0);
            // A longer target is in the PAX records, whole.
            let target = target.as_bytes();
            header.set_link_name_literal(&target[..target.len().min(LONGEST_LINK)])?;
            self.builder.append_data(&mut header, name, io::empty())?;
        } else if kind.is_dir() {
            header.set_entry_type(EntryType::Directory);
            header.set_size(0);
            self.builder.append_data(&mut header, name, io::empty())?;
        } else {
            let device = (kind.is_char_device(), kind.is_block_device());
            header.set_entry_type(match device {
                (true, _) => EntryType::Char,
                (_, true) => EntryType::Block,
                _ => EntryType::Fifo,
            });
            header.set_size(0);
            if device != (false, false) {
                header.set_device_major(numbers.0)?;
                header.set_device_minor(numbers.1)?;
            }
            self.builder.append_data(&mut header, name, io::empty())?;
        }
        Ok(kind.is_dir())
    }

    /// Writes PAX records, which belong to the header that comes next.
    fn extend(&mut self, records: &[(String, Vec<u8>)]) -> Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let pairs = records
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_slice()));
        Ok(self.builder.append_pax_extensions(pairs)?)
    }
}

/// The header `empty` with the file's type, size, owner, mode and time.
fn header_of(metadata: &Metadata, empty: Header) -> Header {
    let mut header = empty;
    header.set_metadata(metadata);
    // A header knows no time before 1970.
    header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
    header
}

/// What a header has no place for, as PAX records: fractions of a second, times before 1970, long targets of links, and
/// extended attributes.
fn records(
    found: &OwnedFd,
    metadata: &Metadata,
    target: Option<&OsStr>,
) -> Result<Vec<(String, Vec<u8>)>> {
    let mut records = Vec::new();
    if let Some(target) = target.filter(|target| target.len() > LONGEST_LINK) {
        records.push(("linkpath".to_owned(), target.as_bytes().to_vec()));
    }
    records.extend(time_record(metadata));
    for (key, value) in attributes(found)? {
        let key = key
            .to_str()
            .context("an attribute's name that isn't UTF-8")?;
        if !is_of_overlay(key.as_bytes()) {
            records.push((format!("{ATTRIBUTE}{}", encoded(key)), value));
        }
    }
    Ok(records)
}

/// The record of a file's time, if its header has no place for that.
fn time_record(metadata: &Metadata) -> Option<(String, Vec<u8>)> {
    let (seconds, nanos) = (metadata.mtime(), metadata.mtime_nsec());
    let is_needed = nanos != 0 || seconds < 0;
    is_needed.then(|| ("mtime".to_owned(), decimal(seconds, nanos).into_bytes()))
}

/// Opens a regular file by its O_PATH descriptor. If another process has a lease on it (fcntl(2)), this fails and
/// doesn't wait.
fn open_at_once(held: &OwnedFd) -> Result<File> {
    let mut options = File::options();
    options.read(true).custom_flags(libc::O_NONBLOCK);
    match options.open(by_descriptor(held)) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            bail!("somebody has a lease on it\nhelp: once they are through, do it again")
        }
        opened => Ok(opened?),
    }
}

fn changed() -> io::Error {
    io::Error::other(
        "somebody wrote to it while it was saved\nhelp: once they are through, do it again",
    )
}

/// Where a file of `size` bytes has data, by offset and length: SEEK_DATA in lseek(2).
fn data(file: &File, size: u64) -> Result<Vec<(u64, u64)>> {
    let seek = |from: u64, whence| lseek(file, from as i64, whence).map(|at| at as u64);
    let mut parts = Vec::new();
    let mut end = 0;
    while end < size {
        let begin = match seek(end, Whence::SeekData) {
            // Only a hole is left.
            Err(Errno::ENXIO) => break,
            begin => begin?.min(size),
        };
        end = seek(begin, Whence::SeekHole)?.min(size);
        parts.push((begin, end - begin));
        if parts.len() >= MOST_PARTS {
            bail!("it has more holes than anybody unpacks: {MOST_PARTS}");
        }
    }
    if end < size || parts.is_empty() {
        // This empty part gives the file its length.
        parts.push((size, 0));
    }
    Ok(parts)
}

/// The list of a sparse file's parts, which its contents begin with, filled up to whole blocks. Other ways to write such
/// a file have a type of their own in the header, and most readers don't know it.
fn list(parts: &[(u64, u64)]) -> Vec<u8> {
    let mut list = format!("{}\n", parts.len());
    for (offset, length) in parts {
        list += &format!("{offset}\n{length}\n");
    }
    let mut list = list.into_bytes();
    list.resize(list.len().next_multiple_of(BLOCK as usize), 0);
    list
}

/// The bytes of a file's parts, exactly as many as its header says. A reader of the archive finds the next header
/// behind them, whatever has become of the file meanwhile.
struct Parts<'a> {
    file: &'a File,
    parts: std::vec::IntoIter<(u64, u64)>,
    offset: u64,
    left: u64,
}

impl Read for Parts<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.left == 0 {
            match self.parts.next() {
                Some(next) => (self.offset, self.left) = next,
                None => return Ok(0),
            }
        }
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        let most = buffer.len().min(left);
        match self.file.read_at(&mut buffer[..most], self.offset)? {
            0 if most > 0 => Err(changed()),
            read => {
                self.offset += read as u64;
                self.left -= read as u64;
                Ok(read)
            }
        }
    }
}

/// A time as PAX has it.
fn decimal(seconds: i64, nanos: i64) -> String {
    match seconds < 0 && nanos > 0 {
        true => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanos),
        false => format!("{seconds}.{nanos:09}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::memfd::{MFdFlags, memfd_create};

    /// As many bytes follow a header as it says, or there is an error. With fewer, a reader would look for the next
    /// header in the wrong place.
    #[test]
    fn as_many_bytes_as_the_header_says() {
        let file = memfd_create(c"changing", MFdFlags::MFD_CLOEXEC).unwrap();
        let file = File::from(file);
        let parts = |parts: Vec<(u64, u64)>| Parts {
            file: &file,
            parts: parts.into_iter(),
            offset: 0,
            left: 0,
        };
        let mut read = Vec::new();
        file.set_len(8192).unwrap();
        let mut whole = parts(vec![(0, 512), (1024, 0), (4096, 4096)]);
        assert_eq!(whole.read_to_end(&mut read).unwrap(), 4608);
        // The file was longer when the header was written, and is longer again afterwards.
        file.set_len(4608).unwrap();
        for each in [vec![(0, 8192)], vec![(0, 512), (4096, 1024)]] {
            let error = parts(each).read_to_end(&mut read).unwrap_err();
            assert!(error.to_string().contains("wrote to it"), "{error}");
        }
        // The file may have become longer.
        file.set_len(1 << 20).unwrap();
        assert_eq!(parts(vec![(0, 8192)]).read_to_end(&mut read).unwrap(), 8192);
    }
}

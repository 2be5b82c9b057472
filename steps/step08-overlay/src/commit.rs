//! A container's root as an archive that is an image again.

use crate::archive::ATTRIBUTE;
use crate::attributes::attributes;
use anyhow::{Context, Result, bail};
use flate2::Compression;
use flate2::write::GzEncoder;
use nix::fcntl::OFlag;
use nix::sys::stat::{major, minor};
use ruzstd::encoding::{CompressionLevel, compress};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use tar::{Builder, EntryType, Header, HeaderMode};

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

    /// Fails when the archive can't be written where it is to be: better before the container than
    /// after it.
    pub fn check(&self) -> Result<()> {
        let shown = self.file.display();
        let folder = self.folder();
        if !folder.is_dir() {
            bail!("{shown}: there is no directory {}", folder.display());
        }
        if self.file.is_dir() {
            bail!("{shown}: that is a directory");
        }
        Ok(())
    }

    /// Names it from wherever one is.
    pub fn make_absolute(&mut self) -> Result<()> {
        self.file = std::path::absolute(&self.file)?;
        Ok(())
    }

    fn folder(&self) -> &Path {
        match self.file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        }
    }

    /// Writes all of `root`, which doesn't change meanwhile. The archive is there when it is whole,
    /// and not at all before.
    pub fn write(&self, root: &Path) -> Result<()> {
        let name = self.file.file_name().unwrap_or_default().to_string_lossy();
        let aside = self
            .folder()
            .join(format!(".{name}.{}", std::process::id()));
        let written = self
            .write_to(root, &aside)
            .and_then(|()| Ok(fs::rename(&aside, &self.file)?));
        if written.is_err() {
            let _ = fs::remove_file(&aside);
        }
        written.with_context(|| self.file.display().to_string())
    }

    fn write_to(&self, root: &Path, path: &Path) -> Result<()> {
        let file = File::options()
            .write(true)
            .read(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        match self.compression {
            Kind::None => finish(pack(root, BufWriter::new(file))?),
            Kind::Gzip => {
                let packed = pack(
                    root,
                    GzEncoder::new(BufWriter::new(file), Compression::fast()),
                )?;
                finish(packed.finish()?)
            }
            Kind::Zstd => {
                // This encoder reads rather than being written to, so the archive is whole first. Its
                // file has no name.
                let mut plain =
                    pack(root, BufWriter::new(unnamed(self.folder())?))?.into_inner()?;
                plain.rewind()?;
                let output = Failing::new(BufWriter::new(file));
                let source = Failing::new(plain);
                compress(source.clone(), output.clone(), CompressionLevel::Fastest);
                source.check()?;
                finish(output.check()?)
            }
        }
    }
}

fn finish(writer: BufWriter<File>) -> Result<()> {
    Ok(writer.into_inner()?.sync_all()?)
}

fn unnamed(folder: &Path) -> Result<File> {
    Ok(File::options()
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(OFlag::O_TMPFILE.bits())
        .open(folder)?)
}

/// Something to read or write that remembers its first error and goes on as if there were none: for
/// an encoder that knows no errors.
struct Failing<T>(Rc<RefCell<(T, Option<io::Error>)>>);

impl<T> Failing<T> {
    fn new(inner: T) -> Failing<T> {
        Failing(Rc::new(RefCell::new((inner, None))))
    }

    fn clone(&self) -> Failing<T> {
        Failing(Rc::clone(&self.0))
    }

    /// What was inside, or its error.
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
        // An end, after an error.
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
fn pack<W: Write>(root: &Path, writer: W) -> Result<W> {
    let mut builder = Builder::new(writer);
    builder.mode(HeaderMode::Complete);
    builder.follow_symlinks(false);
    let mut packer = Packer {
        builder,
        links: HashMap::new(),
    };
    packer.add(root, Path::new("./"))?;
    packer.descend(root, Path::new("."))?;
    Ok(packer.builder.into_inner()?)
}

struct Packer<W: Write> {
    builder: Builder<W>,
    /// Files with several names, by device and inode: the name that came first.
    links: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Packer<W> {
    fn descend(&mut self, directory: &Path, name: &Path) -> Result<()> {
        let entries: io::Result<Vec<_>> = fs::read_dir(directory)?.collect();
        let mut entries = entries.with_context(|| directory.display().to_string())?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let (path, name) = (entry.path(), name.join(entry.file_name()));
            let added = self.add(&path, &name);
            let is_directory = added.with_context(|| format!("{} of the root", name.display()))?;
            if is_directory {
                self.descend(&path, &name)?;
            }
        }
        Ok(())
    }

    /// Adds one file; says whether it is a directory.
    fn add(&mut self, path: &Path, name: &Path) -> Result<bool> {
        let metadata = path.symlink_metadata()?;
        let kind = metadata.file_type();
        if kind.is_socket() {
            // It is nothing without the process that listens.
            return Ok(false);
        }
        let id = (metadata.dev(), metadata.ino());
        let mut header = Header::new_gnu();
        header.set_metadata(&metadata);
        // A header knows no time before 1970.
        header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
        if metadata.nlink() > 1 && !kind.is_dir() {
            if let Some(first) = self.links.get(&id) {
                header.set_entry_type(EntryType::Link);
                header.set_size(0);
                self.builder.append_link(&mut header, name, first)?;
                return Ok(false);
            }
            self.links.insert(id, name.to_owned());
        }
        self.extend(path, &metadata)?;
        if kind.is_file() {
            let mut file = File::open(path)?;
            match metadata.blocks() * 512 < metadata.len() {
                // With its holes.
                true => self.builder.append_file(name, &mut file)?,
                false => self.builder.append_data(&mut header, name, &mut file)?,
            }
            if file.metadata()?.len() != metadata.len() {
                // Its header tells of another size than what has followed.
                bail!(
                    "somebody wrote to it while it was saved\nhelp: once they are through, do it again"
                );
            }
        } else if kind.is_symlink() {
            header.set_entry_type(EntryType::Symlink);
            header.set_size(0);
            self.builder
                .append_link(&mut header, name, fs::read_link(path)?)?;
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
                header.set_device_major(major(metadata.rdev()) as u32)?;
                header.set_device_minor(minor(metadata.rdev()) as u32)?;
            }
            self.builder.append_data(&mut header, name, io::empty())?;
        }
        Ok(kind.is_dir())
    }

    /// What a header has no place for: fractions of a second, and extended attributes.
    fn extend(&mut self, path: &Path, metadata: &fs::Metadata) -> Result<()> {
        let mut extensions = Vec::new();
        let (seconds, nanos) = (metadata.mtime(), metadata.mtime_nsec());
        if nanos != 0 || seconds < 0 {
            extensions.push(("mtime".to_owned(), decimal(seconds, nanos).into_bytes()));
        }
        for (key, value) in attributes(path)? {
            let key = key
                .to_str()
                .context("an attribute's name that isn't UTF-8")?;
            extensions.push((format!("{ATTRIBUTE}{key}"), value));
        }
        if extensions.is_empty() {
            return Ok(());
        }
        let pairs = extensions
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_slice()));
        Ok(self.builder.append_pax_extensions(pairs)?)
    }
}

/// A time as PAX has it.
fn decimal(seconds: i64, nanos: i64) -> String {
    match seconds < 0 && nanos > 0 {
        true => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanos),
        false => format!("{seconds}.{nanos:09}"),
    }
}

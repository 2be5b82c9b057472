//! What an archive of images holds, kept aside: its texts may come behind all that they speak of, and standard input
//! can't be read twice.
//!
//! Nothing is unpacked as a tree. Each file gets a number for its name, and what the archive calls it is a word in memory.
//! A link, too, is a word: it leads to another word, or nowhere.

use crate::Digest;
use crate::layer::unpack::within;
use crate::manifest::chosen::too_long;
use crate::manifest::parts::{Image, LONGEST, Named};
use crate::store::aside::Aside;
use anyhow::{Context, Result, bail};
use sha2::{Digest as _, Sha256};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use step08_overlay::image::archive::{compression, decompressed, inside, next_entry};
use step08_overlay::image::headers::{Entries, Entry};
use step08_overlay::image::images::OF_ROOTS;
use step08_overlay::image::names::shown;
use tar::EntryType;

/// The bytes that are read at once.
const PIECE: usize = 128 * 1024;

/// The most files and links, and the most bytes of a name: all names are kept in memory.
const MOST_FILES: usize = 20_000;
const LONGEST_NAME: usize = 1024;

/// The most bytes of all texts that are read into memory. Those of a thousand images are fewer.
const MOST_TEXT: u64 = 32 * 1024 * 1024;

/// As many links may lead from one to the next: as many as the kernel follows.
const MOST_LINKS: usize = 40;

/// Where an image layout has what is named by a digest.
pub const BLOBS: &str = "blobs/sha256";

/// A file of the archive.
#[derive(Debug, Clone)]
pub struct KeptFile {
    /// Where it is kept.
    pub path: PathBuf,
    /// What its bytes are.
    pub named: Named,
}

impl KeptFile {
    /// How it is compressed, which its first bytes tell.
    ///
    /// # Errors
    /// The filesystem's.
    pub fn compression(&self) -> Result<Option<&'static str>> {
        let mut first = Vec::new();
        File::open(&self.path)?.take(4).read_to_end(&mut first)?;
        Ok(compression(&first))
    }
}

/// What has a name in the archive.
enum Member {
    File(KeptFile),
    /// A link to another name.
    Link(PathBuf),
}

/// An archive that was read to its end, and whose files are aside.
pub struct KeptArchive {
    members: BTreeMap<PathBuf, Member>,
    /// Where files are kept, by their digests.
    blobs: BTreeMap<Digest, KeptFile>,
    /// How many bytes of texts may still be read.
    text_left: Cell<u64>,
    aside: Aside,
}

impl KeptArchive {
    /// Reads the archive `stream`, compressed or not, which mustn't hold more than `limit` bytes, and keeps its files in
    /// `aside`.
    ///
    /// # Errors
    /// It is no tar archive, or damaged, or too large; an entry that no archive of images has; a file that is called by a
    /// digest and has another one; two files of one name.
    pub fn read(stream: impl Read, aside: Aside, limit: u64) -> Result<KeptArchive> {
        let mut archive = KeptArchive {
            members: BTreeMap::new(),
            blobs: BTreeMap::new(),
            text_left: Cell::new(MOST_TEXT),
            aside,
        };
        within(limit, archive.fill(stream, limit))?;
        Ok(archive)
    }

    fn fill(&mut self, stream: impl Read, limit: u64) -> Result<()> {
        let mut raw = BufReader::with_capacity(PIECE, stream);
        let mut entries = Entries::new(decompressed(&mut raw)?, limit);
        let mut last: Option<PathBuf> = None;
        while let Some(entry) = next_entry(&mut entries, last.as_deref())? {
            let name = PathBuf::from(OsStr::from_bytes(&entry.name));
            let kept = self.keep(&name, &entry, &mut entries);
            kept.with_context(|| format!("its entry {}", shown(&name)))?;
            last = Some(name);
        }
        // The compression's checksum may be there.
        entries.read_to_end().context("behind its last entry")
    }

    /// Keeps the file or the link of `entry`, whose `contents` follow.
    fn keep(&mut self, name: &Path, entry: &Entry, contents: &mut impl Read) -> Result<()> {
        let path = inside(name)?;
        if OF_ROOTS.iter().any(|top| path.starts_with(top)) {
            bail!(
                "that is of a root, and of no image\nhelp: `step10-exec run --image FILE` runs a root; this takes what \
                 `docker save` writes, or an image layout"
            );
        }
        if entry.kind == EntryType::Directory {
            return Ok(());
        }
        self.may_be(&path)?;
        let member = match (entry.kind, &entry.link) {
            (EntryType::Regular | EntryType::Continuous, _) if entry.parts.is_none() => {
                Member::File(self.file(&path, contents)?)
            }
            (EntryType::Symlink, Some(link)) => Member::Link(target(&path, link)?),
            (EntryType::Link, Some(link)) => {
                Member::Link(inside(Path::new(OsStr::from_bytes(link)))?)
            }
            _ => bail!(
                "it is neither a plain file nor a link, and an archive of images has no others"
            ),
        };
        self.members.insert(path, member);
        Ok(())
    }

    /// Fails if there can't be one more file or link, which is called `path`.
    fn may_be(&self, path: &Path) -> Result<()> {
        if path.as_os_str().is_empty() || path.as_os_str().len() > LONGEST_NAME {
            bail!("no file of an archive of images is called so");
        }
        if self.members.len() == MOST_FILES {
            bail!("it has more than {MOST_FILES} files, which no archive of images has");
        }
        match self.members.contains_key(path) {
            true => bail!("it is there twice, and readers differ in which one counts"),
            false => Ok(()),
        }
    }

    /// Keeps a file, and looks whether its bytes are those that its name says.
    fn file(&mut self, path: &Path, contents: &mut impl Read) -> Result<KeptFile> {
        let at = self.aside.path().join(self.members.len().to_string());
        let named = copy(contents, &mut File::create_new(&at)?)?;
        match said(path) {
            Some(said) if said != named.digest => {
                bail!(
                    "its bytes are not those of its digest: they have {}",
                    named.digest
                )
            }
            _ => {}
        }
        let file = KeptFile { path: at, named };
        self.blobs.insert(file.named.digest.clone(), file.clone());
        Ok(file)
    }

    /// Whether something has the name.
    pub fn has(&self, name: &str) -> bool {
        self.members.contains_key(Path::new(name))
    }

    /// The file that is called `name`, by way of links where it is one.
    ///
    /// # Errors
    /// There is none; the links lead in a circle.
    pub fn find(&self, name: &str) -> Result<&KeptFile> {
        let first = inside(Path::new(name)).with_context(|| shown(Path::new(name)))?;
        let mut path = &first;
        for _ in 0..MOST_LINKS {
            match self.members.get(path) {
                Some(Member::File(file)) => return Ok(file),
                Some(Member::Link(next)) => path = next,
                None => bail!("{} isn't in it", shown(path)),
            }
        }
        bail!("{}: a link that leads in a circle", shown(&first))
    }

    /// The bytes of the file that `named` stands for; an error calls it `what`.
    ///
    /// # Errors
    /// It isn't there, or has another size.
    pub fn named(&self, named: &Named, what: &str) -> Result<Vec<u8>> {
        let read = || {
            let file = self.blob(&named.digest)?;
            if file.named.size != named.size {
                let (is, said) = (file.named.size, named.size);
                bail!("it has {is} bytes, and {said} are said");
            }
            self.text(file)
        };
        read().with_context(|| what.to_owned())
    }

    /// The file that has the digest.
    ///
    /// # Errors
    /// There is none.
    pub fn blob(&self, digest: &Digest) -> Result<&KeptFile> {
        let file = self.blobs.get(digest);
        file.with_context(|| format!("{digest} isn't in it"))
    }

    /// Looks whether the layers of `image` are here, before anything is made of them.
    ///
    /// # Errors
    /// One isn't; one without compression isn't that of the configuration.
    pub fn has_layers(&self, image: &Image) -> Result<()> {
        for (index, layer) in image.layers.iter().enumerate() {
            let digest = &layer.blob.digest;
            let place = || format!("layer {} of {}", index + 1, image.layers.len());
            let is_plain = self.blob(digest).and_then(KeptFile::compression);
            if is_plain.with_context(place)?.is_none() && *digest != layer.diff_id {
                bail!(
                    "{}: its bytes are not those of its digest: the configuration says {}",
                    place(),
                    layer.diff_id
                );
            }
        }
        Ok(())
    }

    /// The bytes of a file that is a text.
    ///
    /// # Errors
    /// It has more bytes than texts have, or all together have.
    pub fn text(&self, file: &KeptFile) -> Result<Vec<u8>> {
        if file.named.size > LONGEST {
            return Err(too_long());
        }
        let left = self.text_left.get().checked_sub(file.named.size);
        self.text_left
            .set(left.context("its texts have more bytes than those of a thousand images")?);
        fs::read(&file.path).with_context(|| file.path.display().to_string())
    }
}

/// Copies all of `from`, and returns what it is.
fn copy(from: &mut impl Read, to: &mut File) -> io::Result<Named> {
    let (mut hash, mut size) = (Sha256::new(), 0);
    let mut piece = vec![0; PIECE];
    loop {
        let read = match from.read(&mut piece) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            read => read?,
        };
        if read == 0 {
            let digest = Digest::finish(hash);
            return Ok(Named { digest, size });
        }
        hash.update(&piece[..read]);
        to.write_all(&piece[..read])?;
        size += read as u64;
    }
}

/// The digest that a name says: that of a blob in a layout, or of a configuration as Docker called it before it wrote
/// layouts.
fn said(path: &Path) -> Option<Digest> {
    let text = path.to_str()?;
    let digits = match text.strip_prefix(BLOBS) {
        Some(blob) => blob.strip_prefix('/')?,
        None => text.strip_suffix(".json")?,
    };
    format!("sha256:{digits}").parse().ok()
}

/// What the symbolic link `path` means, as a name in the archive.
fn target(path: &Path, link: &[u8]) -> Result<PathBuf> {
    let link = Path::new(OsStr::from_bytes(link));
    let mut target = path.parent().unwrap_or(Path::new("")).to_owned();
    for part in link.components() {
        let stays = match part {
            Component::Normal(part) => {
                target.push(part);
                target.as_os_str().len() <= LONGEST_NAME
            }
            Component::CurDir => true,
            Component::ParentDir => target.pop(),
            _ => false,
        };
        if !stays {
            bail!("it leads out of the archive, to {}", shown(link));
        }
    }
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_inside() {
        let to = |link: &str| target(Path::new("a/layer.tar"), link.as_bytes());
        assert_eq!(to("../b/layer.tar").unwrap(), Path::new("b/layer.tar"));
        assert_eq!(to("./x").unwrap(), Path::new("a/x"));
        for out in ["/etc/passwd", "../../x", "../b/../../x"] {
            assert!(to(out).is_err(), "{out}");
        }
    }

    #[test]
    fn names_that_say_a_digest() {
        let digits = "0".repeat(64);
        for name in [format!("blobs/sha256/{digits}"), format!("{digits}.json")] {
            assert!(said(Path::new(&name)).is_some(), "{name}");
        }
        for name in ["manifest.json", "blobs/sha256/x", "a/layer.tar"] {
            assert_eq!(said(Path::new(name)), None, "{name}");
        }
    }
}

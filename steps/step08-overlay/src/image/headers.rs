//! Reading the entries of a tar archive that a stranger made. See tar(5).
//!
//! Two readers that understand a header differently can be played off against each other: what the one has checked,
//! the other doesn't see. So there is one reader here, which reads each header once. What other readers could read
//! differently, this one refuses: a record that comes twice, a number with more than digits in it, a link with
//! contents. No length is used before it is known to be within bounds.

use crate::image::xattrs::is_of_overlay;
use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStringExt;
use step04_pivot_root::root::LONGEST_PATH;
use tar::{EntryType, Header};

/// The bytes of a block: a header is one, and contents are rounded up to whole ones.
pub const BLOCK: u64 = 512;

/// The most bytes of a name or of records, which are read into memory. No honest archive comes near this.
const LONGEST: u64 = 1024 * 1024;

/// The most parts of a sparse file: their list takes 16 MiB of memory.
pub const MOST_PARTS: usize = 1024 * 1024;

/// The size of a file from which on a header has no room for its octal digits.
const TOO_LARGE_FOR_OCTAL: u64 = 1 << 33;

/// PAX keys begin like this for the parts of sparse files.
pub const SPARSE: &str = "GNU.sparse.";

/// PAX keys begin like this for extended attributes, as GNU tar, star and Docker write them.
pub const ATTRIBUTE: &str = "SCHILY.xattr.";

/// The entries of an archive, one after the other.
pub struct Entries<R> {
    inner: R,
    /// The number of bytes that may still come, headers included.
    left: u64,
    /// Whether a header was read, which shows that this is an archive.
    has_begun: bool,
    /// The bytes of the current entry that aren't read yet, and those that fill up its last block.
    unread: u64,
    padding: u64,
}

/// A file as the archive has it.
#[derive(Debug)]
pub struct Entry {
    /// The file's type.
    pub kind: EntryType,
    /// Its name, which may have any byte but NUL.
    pub name: Vec<u8>,
    /// The target of a link.
    pub link: Option<Vec<u8>>,
    /// Its size in bytes, holes included.
    pub size: u64,
    /// The offset and length of each part of a sparse file. Without, the bytes follow one after the other.
    pub parts: Option<Vec<(u64, u64)>>,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its permissions.
    pub mode: u32,
    /// When it was last written to, in seconds since 1970 and nanoseconds.
    pub modified: (i64, i64),
    /// The numbers of a device.
    pub device: (u32, u32),
    /// Its extended attributes.
    pub attributes: Vec<(OsString, Vec<u8>)>,
}

/// PAX records.
#[derive(Default)]
struct PaxRecords {
    /// Values by key.
    values: HashMap<Vec<u8>, Vec<u8>>,
    /// Those about a sparse file, in their order and without [`SPARSE`]: in the oldest way two keys come once a part.
    sparse: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The records and long names that come before a header and belong to it.
#[derive(Default)]
struct Extensions {
    records: Option<PaxRecords>,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl<R: Read> Entries<R> {
    /// The entries of the archive `inner`, which mustn't hold more than `limit` bytes: of contents, of headers, and
    /// of all else that has to be read.
    pub fn new(inner: R, limit: u64) -> Entries<R> {
        Entries {
            inner,
            left: limit,
            has_begun: false,
            unread: 0,
            padding: 0,
        }
    }

    /// Whether a header was read, which shows that `inner` is an archive.
    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Counts `bytes` towards the archive's limit.
    pub fn charge(&mut self, bytes: u64) -> io::Result<()> {
        self.left = self.left.checked_sub(bytes).ok_or_else(too_much)?;
        Ok(())
    }

    /// The next entry, whose contents [`Entries::read`] reads; `None` behind the last one.
    ///
    /// # Errors
    /// A file that isn't an archive, or is cut off, or a header that could be understood in two ways.
    pub fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        self.skip()?;
        let mut extensions = Extensions::default();
        loop {
            let Some(header) = self.header()? else {
                return match extensions.is_empty() {
                    true => Ok(None),
                    false => Err(wrong(
                        "it ends before the file that its last records are for",
                    )),
                };
            };
            let kind = header.entry_type();
            match kind.as_byte() {
                b'x' => {
                    let text = self.extension(&header)?;
                    once(&mut extensions.records, records(&text)?)?;
                }
                b'g' => harmless(&records(&self.extension(&header)?)?)?,
                b'L' => once(&mut extensions.name, until_nul(self.extension(&header)?))?,
                b'K' => once(&mut extensions.link, until_nul(self.extension(&header)?))?,
                _ => return self.entry(&header, extensions).map(Some),
            }
        }
    }

    /// The next header; `None` at the archive's end.
    fn header(&mut self) -> io::Result<Option<Header>> {
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        if !self.fill(block)? {
            return Err(wrong(
                "it is cut off: a tar archive ends in a block of zeros, and this one doesn't",
            ));
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum = |from: usize, to: usize| {
            block[from..to]
                .iter()
                .map(|byte| u64::from(*byte))
                .sum::<u64>()
        };
        // The checksum's own field counts as if it were full of blanks.
        let sum = sum(0, 148) + 8 * u64::from(b' ') + sum(156, 512);
        match number(&block[148..156]) {
            Ok(noted) if noted == sum => {
                self.has_begun = true;
                self.charge(BLOCK)?;
                Ok(Some(header))
            }
            _ => Err(wrong("a header's checksum is wrong")),
        }
    }

    /// Fills `block`; `false` when the stream has ended.
    fn fill(&mut self, block: &mut [u8]) -> io::Result<bool> {
        let mut filled = 0;
        while filled < block.len() {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// A name or records, which a header of their own announces.
    fn extension(&mut self, header: &Header) -> io::Result<Vec<u8>> {
        let size = number(&header.as_bytes()[124..136])?;
        if size > LONGEST {
            return Err(wrong("it has a name or records of more than 1 MiB"));
        }
        self.expect(size, size)?;
        let mut text = vec![0; size as usize];
        if size > 0 && !self.fill(&mut text)? {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.unread = 0;
        self.skip()?;
        Ok(text)
    }

    /// Prepares for the `size` bytes that follow. The limit is charged with these or with `grown`, the size of the
    /// file that they become, whichever is more.
    fn expect(&mut self, size: u64, grown: u64) -> io::Result<()> {
        let padded = size.checked_next_multiple_of(BLOCK).ok_or_else(too_much)?;
        self.charge(padded.max(grown))?;
        (self.unread, self.padding) = (size, padded - size);
        Ok(())
    }

    /// Skips what is left of the current entry.
    fn skip(&mut self) -> io::Result<()> {
        let rest = self.unread + self.padding;
        (self.unread, self.padding) = (0, 0);
        match io::copy(&mut self.inner.by_ref().take(rest), &mut io::sink())? {
            skipped if skipped == rest => Ok(()),
            _ => Err(ErrorKind::UnexpectedEof.into()),
        }
    }

    fn entry(&mut self, header: &Header, extensions: Extensions) -> io::Result<Entry> {
        let block = header.as_bytes();
        let records = extensions.records.unwrap_or_default();
        let text = |key: &str| records.values.get(key.as_bytes()).map(Vec::as_slice);
        let id = |key: &str, field: &[u8]| {
            let id = text(key).map_or_else(|| number(field), digits)?;
            u32::try_from(id).map_err(|_| wrong(&format!("its {key} {id} can't be")))
        };
        let mut holes = Holes::of(&records.sparse)?;
        let name = either(text("path"), extensions.name)?;
        let name = name.unwrap_or_else(|| header.path_bytes().into_owned());
        // A reader who knows nothing of holes is to unpack such a file under another name.
        let name = holes
            .as_mut()
            .and_then(|holes| holes.name.take())
            .unwrap_or(name);
        let link = either(text("linkpath"), extensions.link)?;
        let link = link.or_else(|| Some(header.link_name_bytes()?.into_owned()));
        for name in link.iter().chain([&name]) {
            if name.contains(&0) {
                return Err(wrong("its name has a NUL in it"));
            }
            if name.len() >= LONGEST_PATH {
                return Err(wrong("its name has more bytes than a path can have"));
            }
        }
        if name.is_empty() {
            return Err(wrong("it has no name"));
        }
        let in_header = number(&block[124..136])?;
        let stored = match text("size") {
            None => in_header,
            Some(size) => match digits(size)? {
                size if size == in_header || size >= TOO_LARGE_FOR_OCTAL => size,
                size => return Err(wrong(&format!("its size is {in_header} and {size}"))),
            },
        };
        let mut kind = header.entry_type();
        if kind.is_file() && name.ends_with(b"/") {
            // Before directories had a type of their own, a slash at the end marked them.
            kind = EntryType::Directory;
        }
        // A backup by GNU tar's `-g` lists in each directory's contents what is in it: nobody needs that here.
        let is_listed = kind.as_byte() == b'D';
        if is_listed {
            kind = EntryType::Directory;
        }
        let has_contents = is_listed
            || matches!(
                kind,
                EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse
            );
        if !has_contents && stored > 0 {
            return Err(wrong(&format!("it has {stored} bytes, and is no file")));
        }
        let (stored, size, parts) = match (kind, holes) {
            (EntryType::GNUSparse, None) => {
                let (size, parts) = self.sparse(header)?;
                (stored, size, Some(parts))
            }
            (EntryType::Regular, Some(holes)) => {
                let (parts, listed) = match holes.parts {
                    Some(parts) => (parts, 0),
                    None => self.list(stored)?,
                };
                (stored - listed, holes.size, Some(parts))
            }
            (_, Some(_)) => return Err(wrong("it has the records of a sparse file, and is none")),
            (_, None) => (stored, stored, None),
        };
        if let Some(parts) = &parts {
            in_order(parts, size, stored)?;
        }
        self.expect(stored, size)?;
        let mut attributes = Vec::new();
        for (key, value) in &records.values {
            if let Some(key) = key.strip_prefix(ATTRIBUTE.as_bytes()) {
                let key = decoded(key);
                if is_of_overlay(&key) {
                    return Err(wrong(&format!(
                        "its attribute {} is for the kernel to set, and hides what other layers have",
                        short(&key)
                    )));
                }
                attributes.push((OsString::from_vec(key), value.clone()));
            }
        }
        Ok(Entry {
            kind,
            name,
            link,
            size,
            parts,
            uid: id("uid", &block[108..116])?,
            gid: id("gid", &block[116..124])?,
            mode: number(&block[100..108])? as u32 & 0o7777,
            modified: match text("mtime") {
                Some(text) => time(text).ok_or_else(|| wrong("its mtime is no time"))?,
                None => (signed(&block[136..148])?, 0),
            },
            device: match kind {
                EntryType::Char | EntryType::Block => {
                    let part =
                        |field| u32::try_from(number(field)?).map_err(|_| wrong("no such device"));
                    (part(&block[329..337])?, part(&block[337..345])?)
                }
                _ => (0, 0),
            },
            attributes,
        })
    }

    /// The size of a sparse file, and its parts. Four parts are in the header, and more in blocks behind it.
    fn sparse(&mut self, header: &Header) -> io::Result<(u64, Vec<(u64, u64)>)> {
        let mut block = *header.as_bytes();
        let size = number(&block[483..495])?;
        let mut parts = Vec::new();
        let (mut list, mut goes_on) = (386..386 + 4 * 24, block[482]);
        loop {
            let mut is_through = false;
            for part in block[list].chunks_exact(24) {
                if part[0] == 0 {
                    is_through = true;
                    continue;
                }
                if is_through {
                    return Err(wrong("the parts of a sparse file have gaps between them"));
                }
                parts.push((number(&part[..12])?, number(&part[12..])?));
            }
            if parts.len() > MOST_PARTS {
                return Err(too_many_parts());
            }
            if goes_on == 0 {
                return Ok((size, parts));
            }
            if is_through {
                return Err(wrong("the parts of a sparse file go on behind their end"));
            }
            self.charge(BLOCK)?;
            if !self.fill(&mut block)? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            (list, goes_on) = (0..21 * 24, block[504]);
        }
    }

    /// The parts of a sparse file whose contents begin with their list: how many there are, and then the offset and the
    /// length of each, a line a number. Returns also how many of the `stored` bytes the list takes, whole blocks.
    fn list(&mut self, stored: u64) -> io::Result<(Vec<(u64, u64)>, u64)> {
        let mut numbers: Vec<u64> = Vec::new();
        let mut line: Vec<u8> = Vec::new();
        let mut listed = 0;
        // The first number says how many pairs follow.
        let is_whole = |numbers: &[u64]| {
            numbers
                .first()
                .is_some_and(|count| numbers.len() as u64 == 1 + 2 * count)
        };
        while !is_whole(&numbers) {
            let mut block = [0; BLOCK as usize];
            listed += BLOCK;
            if listed > stored {
                return Err(wrong("the parts of a sparse file have no end"));
            }
            self.charge(BLOCK)?;
            if !self.fill(&mut block)? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            for byte in block {
                match byte {
                    _ if is_whole(&numbers) => break,
                    b'\n' => {
                        numbers.push(digits(&std::mem::take(&mut line))?);
                        if numbers[0] > MOST_PARTS as u64 {
                            return Err(too_many_parts());
                        }
                    }
                    digit if line.len() < 20 => line.push(digit),
                    _ => return Err(wrong("the parts of a sparse file are no numbers")),
                }
            }
        }
        let parts = numbers[1..].chunks_exact(2).map(|pair| (pair[0], pair[1]));
        Ok((parts.collect(), listed))
    }

    /// Reads what comes behind the archive's end, until the stream ends.
    pub fn read_to_end(&mut self) -> io::Result<()> {
        let most = self.left;
        match io::copy(
            &mut self.inner.by_ref().take(most.saturating_add(1)),
            &mut io::sink(),
        )? {
            read if read > most => Err(too_much()),
            _ => Ok(()),
        }
    }
}

/// The contents of the current entry.
impl<R: Read> Read for Entries<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer
            .len()
            .min(usize::try_from(self.unread).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        match self.inner.read(&mut buffer[..most])? {
            0 => Err(wrong(&format!(
                "it is cut off, {} bytes before its end",
                self.unread
            ))),
            read => {
                self.unread -= read as u64;
                Ok(read)
            }
        }
    }
}

/// What PAX records say of a sparse file. There are three ways, of GNU tar's versions 0.0, 0.1 and 1.0: see *PAX headers*
/// in GNU tar's manual.
struct Holes {
    /// The file's name; the header has another one.
    name: Option<Vec<u8>>,
    /// Its size in bytes, holes included.
    size: u64,
    /// The offset and length of each part; none: their list is at the beginning of the contents.
    parts: Option<Vec<(u64, u64)>>,
}

impl Holes {
    /// Reads the `records` about a sparse file; without any it isn't one.
    fn of(records: &[(Vec<u8>, Vec<u8>)]) -> io::Result<Option<Holes>> {
        if records.is_empty() {
            return Ok(None);
        }
        let (mut name, mut size, mut count, mut version) = (None, None, None, [None, None]);
        let (mut numbers, mut has_list) = (Vec::new(), false);
        for (key, value) in records {
            match key.as_slice() {
                b"name" => once(&mut name, value.clone())?,
                b"size" | b"realsize" => once(&mut size, digits(value)?)?,
                b"numblocks" => once(&mut count, digits(value)?)?,
                b"major" => once(&mut version[0], digits(value)?)?,
                b"minor" => once(&mut version[1], digits(value)?)?,
                b"map" if !has_list && numbers.is_empty() => {
                    has_list = true;
                    let list = value.split(|byte| *byte == b',');
                    numbers = list
                        .filter(|text| !text.is_empty())
                        .map(digits)
                        .collect::<Result<_, _>>()?;
                }
                // An offset, and then the number of bytes, once a part.
                b"offset" if !has_list && numbers.len() % 2 == 0 => numbers.push(digits(value)?),
                b"numbytes" if !has_list && numbers.len() % 2 == 1 => numbers.push(digits(value)?),
                _ => return Err(wrong("its records of a sparse file are damaged")),
            }
        }
        let size = size.ok_or_else(|| wrong("its records of a sparse file lack its size"))?;
        let pairs = (numbers.len() / 2) as u64;
        let parts = match (version, count) {
            ([Some(1), Some(0)], None) if numbers.is_empty() => None,
            ([None | Some(0), _], Some(count)) if count == pairs && numbers.len() % 2 == 0 => Some(
                numbers
                    .chunks_exact(2)
                    .map(|pair| (pair[0], pair[1]))
                    .collect(),
            ),
            _ => return Err(wrong("its records of a sparse file are damaged")),
        };
        Ok(Some(Holes { name, size, parts }))
    }
}

/// Fails unless the parts of a sparse file of `size` bytes come one after the other, and have `stored` bytes together.
fn in_order(parts: &[(u64, u64)], size: u64, stored: u64) -> io::Result<()> {
    let (mut end, mut sum) = (0, 0);
    for (offset, length) in parts {
        let after = offset.checked_add(*length);
        match after.filter(|after| *offset >= end && *after <= size) {
            Some(after) => end = after,
            None => return Err(wrong("the parts of a sparse file are out of order")),
        }
        sum += length;
    }
    match sum == stored {
        true => Ok(()),
        false => Err(wrong("the parts of a sparse file don't make up its size")),
    }
}

impl Extensions {
    fn is_empty(&self) -> bool {
        self.records.is_none() && self.name.is_none() && self.link.is_none()
    }
}

/// Stores what may come only once.
fn once<T>(place: &mut Option<T>, value: T) -> io::Result<()> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(wrong(
            "two sets of records, or two long names, are for one file",
        )),
    }
}

/// A long name, given by PAX or by GNU tar's way, but not by both.
fn either(pax: Option<&[u8]>, gnu: Option<Vec<u8>>) -> io::Result<Option<Vec<u8>>> {
    match (pax, gnu) {
        (Some(_), Some(_)) => Err(wrong("it has a long name twice")),
        (pax, gnu) => Ok(pax.map(<[u8]>::to_vec).or(gnu)),
    }
}

/// Fails when global records would change a file: some readers obey them, some don't.
fn harmless(records: &PaxRecords) -> io::Result<()> {
    let known = ["path", "linkpath", "size", "uid", "gid", "mtime"];
    let matters = |key: &&Vec<u8>| {
        let begins = |with: &[u8]| key.starts_with(with);
        known.iter().any(|known| known.as_bytes() == **key) || begins(ATTRIBUTE.as_bytes())
    };
    let of_holes = records.sparse.iter().map(|(key, _)| key);
    match records.values.keys().filter(matters).chain(of_holes).next() {
        None => Ok(()),
        Some(key) => Err(wrong(&format!(
            "it has a global record {}, which some readers obey and some don't",
            short(key)
        ))),
    }
}

/// The error of an archive that holds more than it may.
pub fn too_much() -> io::Error {
    io::Error::new(
        ErrorKind::FileTooLarge,
        "it holds more than --image-limit allows",
    )
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

fn too_many_parts() -> io::Error {
    wrong("a sparse file of more parts than can be")
}

/// The beginning of a text from the archive, for a message.
fn short(text: &[u8]) -> String {
    const LONG: usize = 100;
    let cut = if text.len() > LONG { "…" } else { "" };
    String::from_utf8_lossy(&text[..text.len().min(LONG)]).into_owned() + cut
}

/// An attribute's name as a part of a PAX key, written as by GNU tar: `=` would end the key, so it becomes `%3D`, and
/// `%` becomes `%25`.
pub fn encoded(key: &str) -> String {
    key.replace('%', "%25").replace('=', "%3D")
}

fn decoded(key: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(key.len());
    let mut rest = key;
    while let [first, after @ ..] = rest {
        let (byte, after) = match rest {
            [b'%', b'2', b'5', after @ ..] => (b'%', after),
            [b'%', b'3', b'D', after @ ..] => (b'=', after),
            _ => (*first, after),
        };
        decoded.push(byte);
        rest = after;
    }
    decoded
}

fn until_nul(mut text: Vec<u8>) -> Vec<u8> {
    let end = text.iter().position(|byte| *byte == 0);
    text.truncate(end.unwrap_or(text.len()));
    text
}

/// A number of a header: octal digits, with blanks before them and blanks or NULs behind. If the first bit is set,
/// the field holds the bytes of the number itself.
fn number(field: &[u8]) -> io::Result<u64> {
    u64::try_from(signed(field)?).map_err(|_| wrong("a number of a header is negative"))
}

fn signed(field: &[u8]) -> io::Result<i64> {
    let no_number = || wrong("a number of a header is none");
    if field[0] & 0x80 != 0 {
        let (head, tail) = field.split_at(field.len() - 8);
        let bytes: [u8; 8] = tail.try_into().map_err(|_| no_number())?;
        return match (head, field[0]) {
            // In a field of eight bytes, the mark takes one bit of the number.
            ([], _) => Ok(i64::from_be_bytes(bytes) << 1 >> 1),
            (head, 0x80) if head[1..].iter().all(|byte| *byte == 0) => {
                i64::try_from(u64::from_be_bytes(bytes)).map_err(|_| no_number())
            }
            (head, 0xff) if head.iter().all(|byte| *byte == 0xff) => Ok(i64::from_be_bytes(bytes)),
            _ => Err(no_number()),
        };
    }
    let field = field.trim_ascii_start();
    let length = field
        .iter()
        .take_while(|byte| matches!(byte, b'0'..=b'7'))
        .count();
    let (digits, rest) = field.split_at(length);
    if !rest.iter().all(|byte| matches!(byte, b' ' | 0)) {
        return Err(no_number());
    }
    // Twelve octal digits at most fit into an i64.
    Ok(digits
        .iter()
        .fold(0, |sum, digit| sum << 3 | i64::from(digit - b'0')))
}

/// A number of PAX records: decimal digits, and no zero before them.
fn digits(text: &[u8]) -> io::Result<u64> {
    let canonical =
        text.iter().all(u8::is_ascii_digit) && (text == b"0" || !text.starts_with(b"0"));
    let number = std::str::from_utf8(text).ok().filter(|_| canonical);
    number
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| wrong(&format!("a number in its records is none: {}", short(text))))
}

/// A time of PAX records: `1700000000.123456789`, and before 1970 with a minus sign.
fn time(text: &[u8]) -> Option<(i64, i64)> {
    let text = std::str::from_utf8(text).ok()?;
    let (minus, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if seconds.is_empty() || !all_digits(seconds) || !all_digits(fraction) {
        return None;
    }
    let nanos = format!("{fraction:0<9}");
    let (whole, nanos): (i64, i64) = (seconds.parse().ok()?, nanos[..9].parse().ok()?);
    Some(match (minus, nanos) {
        (false, nanos) => (whole, nanos),
        (true, 0) => (-whole, 0),
        (true, nanos) => (-whole - 1, 1_000_000_000 - nanos),
    })
}

/// PAX records: `27 mtime=1700000000.123456\n`, one after the other. Each begins with its own length, so that its
/// value may hold any byte.
fn records(text: &[u8]) -> io::Result<PaxRecords> {
    let mut records = PaxRecords::default();
    let mut rest = text;
    while !rest.is_empty() {
        let (key, value, after) =
            record(rest).ok_or_else(|| wrong("its PAX records are damaged"))?;
        if let Some(key) = key.strip_prefix(SPARSE.as_bytes()) {
            records.sparse.push((key.to_vec(), value.to_vec()));
        } else if records
            .values
            .insert(key.to_vec(), value.to_vec())
            .is_some()
        {
            let key = short(key);
            return Err(wrong(&format!("its record {key} is there twice")));
        }
        rest = after;
    }
    Ok(records)
}

/// The first record's key and value, and what follows.
fn record(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = text.iter().take(8).position(|byte| *byte == b' ')?;
    let length = usize::try_from(digits(&text[..blank]).ok()?).ok()?;
    let record = text.get(blank + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], &text[length..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_may_hold_any_byte() {
        let text = b"13 mtime=1.5\n16 SCHILY.x=a\nb\n";
        let read = records(text).unwrap().values;
        assert_eq!(read[b"mtime".as_slice()], b"1.5");
        assert_eq!(read[b"SCHILY.x".as_slice()], b"a\nb");
        for wrong in [
            &b"12 mtime=1.5\n"[..],
            b"x a=b\n",
            b"99 a=b\n",
            b"6 abc\n",
            b"3 a=b\n",
            b"06 a=b\n",
            b"+6 a=b\n",
            b"6 a=b\n6 a=c\n",
        ] {
            assert!(
                records(wrong).is_err(),
                "{}",
                String::from_utf8_lossy(wrong)
            );
        }
    }

    #[test]
    fn numbers_of_headers() {
        for (field, means) in [
            (&b"00000000017\0"[..], 15),
            (b"        17 \0", 15),
            (b"\0\0\0\0\0\0\0\0\0\0\0\0", 0),
            (b"777777777777", (1 << 36) - 1),
            (&[0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1], (2 << 24 << 8) + 1),
            (&[0x80, 0, 0, 0, 0, 0, 0, 9], 9),
        ] {
            assert_eq!(number(field).unwrap(), means, "{field:?}");
        }
        for wrong in [
            &b"00000000017x"[..],
            b"000000\x0000017",
            b"0x00000017\0\0",
            b"-0000000017\0",
            b"00000000018\0",
            &[0x80, 1, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1],
            &[0x80, 0, 0, 0, 0x80, 0, 0, 2, 0, 0, 0, 1],
            &[0xff; 12],
        ] {
            assert!(number(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(signed(&[0xff; 12]).unwrap(), -1);
    }

    #[test]
    fn names_of_attributes() {
        for key in ["user.a", "user.a=b", "user.%3D", "user.%", "user.%25=%"] {
            assert_eq!(decoded(encoded(key).as_bytes()), key.as_bytes());
        }
        assert_eq!(decoded(b"user.%41%2"), b"user.%41%2");
    }

    #[test]
    fn times() {
        assert_eq!(time(b"12.5"), Some((12, 500_000_000)));
        assert_eq!(time(b"-12.25"), Some((-13, 750_000_000)));
        assert_eq!(time(b"-3"), Some((-3, 0)));
        for wrong in [&b""[..], b".5", b"+5", b"--5", b"1.5e3", b"1 5"] {
            assert_eq!(time(wrong), None, "{}", String::from_utf8_lossy(wrong));
        }
    }
}

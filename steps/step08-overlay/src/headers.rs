//! A look at a tar stream's headers while somebody else reads it: how large the ones are that are read whole
//! into memory, and what the PAX records say, byte for byte. See tar(5).

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read};

/// Bytes of a header, and of what everything is rounded up to.
pub const BLOCK: usize = 512;

/// Names and records are read into memory, and none that means well comes near this.
const LONGEST: u64 = 1024 * 1024;

/// A tar stream that is watched on its way.
pub struct Headers<R> {
    inner: R,
    place: Place,
    /// What has come of the header, or of the records, that are being read.
    pending: Vec<u8>,
    /// As many bytes as may still come.
    left: u64,
    /// The records that the next file is to have.
    coming: Vec<u8>,
    /// Those of the file whose header came last.
    current: Vec<u8>,
    /// Whether a block of zeros has come where a header would be.
    ended: bool,
}

/// What the next byte belongs to.
#[derive(Clone, Copy)]
enum Place {
    Header,
    /// A list of a sparse file's parts goes on.
    SparseList {
        then: u64,
    },
    /// Bytes of PAX records, then padding.
    Records {
        length: u64,
        padded: u64,
    },
    /// Bytes that nobody here cares about.
    Data(u64),
}

impl<R: Read> Headers<R> {
    /// Watches `inner`, which mustn't hold more than `limit` bytes besides its headers.
    pub fn new(inner: R, limit: u64) -> Headers<R> {
        Headers {
            inner,
            place: Place::Header,
            pending: Vec::new(),
            left: limit,
            coming: Vec::new(),
            current: Vec::new(),
            ended: false,
        }
    }

    /// The PAX records of the file whose header came last.
    ///
    /// # Errors
    /// They aren't made as tar(5) says.
    pub fn records(&self) -> io::Result<HashMap<Vec<u8>, Vec<u8>>> {
        records(&self.current).ok_or_else(|| wrong("its PAX records are damaged"))
    }

    /// Whether the archive was complete: a block of zeros ends it.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Goes on by the bytes `seen`.
    fn watch(&mut self, mut seen: &[u8]) -> io::Result<()> {
        while !seen.is_empty() {
            let wanted = match self.place {
                _ if self.ended => return Ok(()),
                Place::Header | Place::SparseList { .. } => BLOCK - self.pending.len(),
                Place::Records { padded, .. } => padded as usize - self.pending.len(),
                Place::Data(length) => usize::try_from(length).unwrap_or(usize::MAX),
            };
            let (part, rest) = seen.split_at(wanted.min(seen.len()));
            seen = rest;
            if let Place::Data(length) = self.place {
                self.place = match length - part.len() as u64 {
                    0 => Place::Header,
                    left => Place::Data(left),
                };
                continue;
            }
            self.pending.extend_from_slice(part);
            if part.len() == wanted {
                let whole = std::mem::take(&mut self.pending);
                self.place = self.after(&whole)?;
            }
        }
        Ok(())
    }

    /// What follows a header, a list, or records.
    fn after(&mut self, whole: &[u8]) -> io::Result<Place> {
        match self.place {
            Place::Header => self.after_header(whole),
            Place::SparseList { then } if whole[504] == 0 => Ok(data(then)),
            Place::Records { length, .. } => {
                self.coming = whole[..length as usize].to_vec();
                Ok(Place::Header)
            }
            same => Ok(same),
        }
    }

    fn after_header(&mut self, header: &[u8]) -> io::Result<Place> {
        if header.iter().all(|byte| *byte == 0) {
            self.ended = true;
            return Ok(Place::Header);
        }
        // Headers don't count: they are as many as there are files.
        self.left = self.left.saturating_add(BLOCK as u64);
        let size = number(&header[124..136]);
        let kind = header[156];
        if matches!(kind, b'x' | b'g' | b'L' | b'K') {
            if size > LONGEST {
                return Err(wrong("it has a name or records of more than 1 MiB"));
            }
            let padded = size.next_multiple_of(BLOCK as u64);
            return Ok(match (kind, size) {
                (b'x', 1..) => Place::Records {
                    length: size,
                    padded,
                },
                _ => data(padded),
            });
        }
        self.current = std::mem::take(&mut self.coming);
        // A size that the header has no room for.
        let records = records(&self.current).unwrap_or_default();
        let text = records
            .get(b"size".as_slice())
            .map(|size| String::from_utf8_lossy(size));
        let size = text.and_then(|text| text.parse().ok()).unwrap_or(size);
        let then = size
            .checked_next_multiple_of(BLOCK as u64)
            .unwrap_or(u64::MAX);
        Ok(match kind == b'S' && header[482] != 0 {
            true => Place::SparseList { then },
            false => data(then),
        })
    }
}

fn data(length: u64) -> Place {
    match length {
        0 => Place::Header,
        length => Place::Data(length),
    }
}

impl<R: Read> Read for Headers<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.watch(&buffer[..read])?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(too_much)?;
        Ok(read)
    }
}

/// The archive holds more than it may.
pub fn too_much() -> io::Error {
    io::Error::new(
        ErrorKind::FileTooLarge,
        "it holds more than --image-limit allows",
    )
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

/// A number of a header: octal digits, or with the first bit set as it is.
fn number(field: &[u8]) -> u64 {
    if field[0] & 0x80 != 0 {
        return field[field.len() - 8..]
            .iter()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    }
    let digits = field.iter().filter(|byte| byte.is_ascii_digit());
    digits.fold(0, |sum, digit| {
        sum.wrapping_mul(8) + u64::from(digit - b'0')
    })
}

/// `27 mtime=1700000000.123456\n`, one after the other: each says first how long it is, so that its value may
/// hold any byte.
fn records(mut text: &[u8]) -> Option<HashMap<Vec<u8>, Vec<u8>>> {
    let mut records = HashMap::new();
    while !text.is_empty() {
        let blank = text.iter().position(|byte| *byte == b' ')?;
        let length: usize = std::str::from_utf8(&text[..blank]).ok()?.parse().ok()?;
        let record = text.get(blank + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        records.insert(record[..equals].to_vec(), record[equals + 1..].to_vec());
        text = &text[length..];
    }
    Some(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_may_hold_any_byte() {
        let text = b"13 mtime=1.5\n16 SCHILY.x=a\nb\n";
        let records = records(text).unwrap();
        assert_eq!(records[b"mtime".as_slice()], b"1.5");
        assert_eq!(records[b"SCHILY.x".as_slice()], b"a\nb");
        for wrong in [
            &b"12 mtime=1.5\n"[..],
            b"x a=b\n",
            b"99 a=b\n",
            b"6 abc\n",
            b"3 a=b\n",
        ] {
            assert!(
                super::records(wrong).is_none(),
                "{}",
                String::from_utf8_lossy(wrong)
            );
        }
    }

    #[test]
    fn numbers_of_headers() {
        assert_eq!(number(b"00000000017\0"), 15);
        assert_eq!(
            number(&[0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1]),
            (2 << 24 << 8) + 1
        );
    }
}

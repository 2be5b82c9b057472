//! A container's log: what the container has said, line by line, each with its time and its stream.
//!
//! An entry is `2026-11-22T21:48:50.123456789Z stdout F the text`, the form that Kubernetes reads. F ends a line, and P
//! is a part of a line, to be continued. Output is written at once, so that nothing is lost when the monitor is killed,
//! and a question without a newline is seen while the program waits for the answer.

use crate::container::folders::unless_missing;
use anyhow::Result;
use humantime::{format_rfc3339_nanos, parse_rfc3339};
use serde::{Deserialize, Serialize};
use std::fmt::{self, Display, Formatter};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::SystemTime;

/// One of a container's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutputStream {
    /// Standard output, and all output of a terminal.
    Output,
    /// Standard error.
    Error,
    /// The monitor itself, when something kept it from writing.
    Monitor,
}

impl Display for OutputStream {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str(match self {
            OutputStream::Output => "stdout",
            OutputStream::Error => "stderr",
            OutputStream::Monitor => "monitor",
        })
    }
}

/// A bound of a log's size: bytes, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaxSize(pub Option<u64>);

impl Default for MaxSize {
    /// 10 MiB.
    fn default() -> MaxSize {
        MaxSize(Some(10 << 20))
    }
}

impl FromStr for MaxSize {
    type Err = String;

    fn from_str(text: &str) -> Result<MaxSize, String> {
        match step07_cgroups::flags::bytes(text)? {
            0 => Ok(MaxSize(None)),
            bytes @ 1..SMALLEST => Err(format!("{bytes} bytes: it takes {SMALLEST} at least")),
            bytes => Ok(MaxSize(Some(bytes))),
        }
    }
}

/// The least bound of a log's size: a smaller log would have hardly more than the newest line.
const SMALLEST: u64 = 4096;

/// How many bytes of entries are put together before they are written. A piece of output becomes several times as long
/// when its lines are short.
const PIECE: usize = 2 * 1024;

/// A log that is being written.
pub struct Log {
    path: PathBuf,
    file: File,
    /// The length of the file's whole entries.
    size: u64,
    max_size: Option<u64>,
    /// Where entries are put together: always the same memory.
    entries: Vec<u8>,
    /// How many bytes of output couldn't be written, and why.
    lost: Option<(usize, io::Error)>,
}

impl Log {
    /// Opens the log `path` to add to it.
    pub fn open(path: &Path, max_size: MaxSize) -> Result<Log> {
        let file = open(path)?;
        let mut log = Log {
            path: path.to_owned(),
            size: whole_entries(path)?,
            file,
            max_size: max_size.0,
            lost: None,
            entries: Vec::with_capacity(PIECE + 1024),
        };
        log.forget_half_an_entry();
        Ok(log)
    }

    /// Adds output of the container. A disk that is full, or broken, is no reason to end the container: when the disk
    /// can be written again, an entry says how much is missing.
    pub fn write(&mut self, stream: OutputStream, said: &[u8]) {
        let now = format_rfc3339_nanos(SystemTime::now());
        let mut entries = std::mem::take(&mut self.entries);
        let mut held = 0;
        for part in said.split_inclusive(|byte| *byte == b'\n') {
            let (text, tag) = match part.split_last() {
                Some((b'\n', text)) => (text, 'F'),
                _ => (part, 'P'),
            };
            let _ = write!(entries, "{now} {stream} {tag} ");
            entries.extend_from_slice(text);
            entries.push(b'\n');
            held += part.len();
            if entries.len() >= PIECE {
                self.add(&entries, held);
                entries.clear();
                held = 0;
            }
        }
        if held > 0 {
            self.add(&entries, held);
        }
        entries.clear();
        self.entries = entries;
    }

    fn add(&mut self, entries: &[u8], bytes: usize) {
        if let Err(error) = self.try_add(entries) {
            self.forget_half_an_entry();
            let before = self.lost.as_ref().map_or(0, |(bytes, _)| *bytes);
            self.lost = Some((before + bytes, error));
        }
    }

    fn try_add(&mut self, entries: &[u8]) -> io::Result<()> {
        if let Some((bytes, why)) = &self.lost {
            let now = format_rfc3339_nanos(SystemTime::now());
            let stream = OutputStream::Monitor;
            let notice =
                format!("{now} {stream} F {bytes} bytes of output are missing here: {why}\n");
            self.file.write_all(notice.as_bytes())?;
            self.size += notice.len() as u64;
            self.lost = None;
        }
        let is_full = |max| self.size > 0 && self.size + entries.len() as u64 > max;
        if self.max_size.is_some_and(is_full) {
            // The new log is opened first: where there is no room for it, the old one goes on.
            let aside = self.path.with_extension("log.new");
            let new = open(&aside)?;
            // The full log has both names for a moment: a reader finds the newest log at any time.
            let former = former(&self.path);
            unless_missing(fs::remove_file(&former))?;
            unless_missing(fs::hard_link(&self.path, &former))?;
            fs::rename(&aside, &self.path)?;
            (self.file, self.size) = (new, 0);
        }
        self.file.write_all(entries)?;
        self.size += entries.len() as u64;
        Ok(())
    }

    fn forget_half_an_entry(&mut self) {
        let _ = self.file.set_len(self.size);
    }
}

/// The path of the log that came before the one at `path`.
pub fn former(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

fn open(path: &Path) -> io::Result<File> {
    File::options()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

/// The length of a log's whole entries, without half an entry that a crash has left.
fn whole_entries(path: &Path) -> io::Result<u64> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = File::open(path)?;
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut piece = [0; 4096];
    while end > 0 {
        let begin = end.saturating_sub(piece.len() as u64);
        let piece = &mut piece[..(end - begin) as usize];
        file.seek(SeekFrom::Start(begin))?;
        file.read_exact(piece)?;
        if let Some(last) = piece.iter().rposition(|byte| *byte == b'\n') {
            return Ok(begin + last as u64 + 1);
        }
        end = begin;
    }
    Ok(0)
}

/// One entry of a log.
#[derive(Debug, PartialEq, Eq)]
pub struct LogEntry<'a> {
    /// When the text was said.
    pub time: SystemTime,
    /// The same time, as it stands in the log.
    pub time_text: &'a str,
    /// The stream on which the text was said.
    pub stream: OutputStream,
    /// Whether the text ends its line.
    pub is_whole: bool,
    /// The text, without a newline.
    pub text: &'a [u8],
}

impl<'a> LogEntry<'a> {
    /// Reads an entry, without its newline; `None`: the line isn't one.
    pub fn parse(line: &'a [u8]) -> Option<LogEntry<'a>> {
        let mut fields = line.splitn(4, |byte| *byte == b' ');
        let time_text = std::str::from_utf8(fields.next()?).ok()?;
        let stream = match fields.next()? {
            b"stdout" => OutputStream::Output,
            b"stderr" => OutputStream::Error,
            b"monitor" => OutputStream::Monitor,
            _ => return None,
        };
        let is_whole = match fields.next()? {
            b"F" => true,
            b"P" => false,
            _ => return None,
        };
        Some(LogEntry {
            time: parse_rfc3339(time_text).ok()?,
            time_text,
            stream,
            is_whole,
            text: fields.next()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(path: &Path) -> Vec<(OutputStream, bool, Vec<u8>)> {
        let text = fs::read(path).unwrap();
        let lines = text.strip_suffix(b"\n").unwrap_or(&text);
        lines
            .split(|byte| *byte == b'\n')
            .map(|line| {
                let entry = LogEntry::parse(line).unwrap();
                (entry.stream, entry.is_whole, entry.text.to_owned())
            })
            .collect()
    }

    /// Looks for the newest log while the log turns over.
    #[test]
    fn the_newest_is_always_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("container.log");
        let mut log = Log::open(&path, MaxSize(Some(64))).unwrap();
        std::thread::scope(|scope| {
            let turns =
                scope.spawn(|| (0..5000).for_each(|_| log.write(OutputStream::Output, b"x\n")));
            while !turns.is_finished() {
                assert!(path.exists());
            }
        });
        assert!(entries(&former(&path)).len() < 5);
    }

    #[test]
    fn lines_and_parts_of_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("container.log");
        let mut log = Log::open(&path, MaxSize(None)).unwrap();
        log.write(OutputStream::Output, b"one\ntwo\nthr");
        log.write(OutputStream::Error, b"\xff\r\n\n");
        log.write(OutputStream::Output, b"ee\n");
        let said = [
            (OutputStream::Output, true, &b"one"[..]),
            (OutputStream::Output, true, b"two"),
            (OutputStream::Output, false, b"thr"),
            (OutputStream::Error, true, b"\xff\r"),
            (OutputStream::Error, true, b""),
            (OutputStream::Output, true, b"ee"),
        ];
        let said = said.map(|(stream, whole, text)| (stream, whole, text.to_owned()));
        assert_eq!(entries(&path), said);
    }

    #[test]
    fn half_an_entry_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("container.log");
        Log::open(&path, MaxSize(None))
            .unwrap()
            .write(OutputStream::Output, b"whole\n");
        let mut file = open(&path).unwrap();
        file.write_all(b"2026-11-22T21:48").unwrap();
        Log::open(&path, MaxSize(None))
            .unwrap()
            .write(OutputStream::Output, b"next\n");
        let texts: Vec<_> = entries(&path).into_iter().map(|entry| entry.2).collect();
        assert_eq!(texts, [b"whole", &b"next"[..]]);
    }

    #[test]
    fn the_size_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("container.log");
        let mut log = Log::open(&path, MaxSize(Some(SMALLEST))).unwrap();
        for number in 0..1000 {
            log.write(OutputStream::Output, format!("line {number}\n").as_bytes());
        }
        let (now, before) = (entries(&path), entries(&former(&path)));
        for file in [&path, &former(&path)] {
            assert!(fs::metadata(file).unwrap().len() <= SMALLEST);
        }
        assert_eq!(now.last().unwrap().2, b"line 999");
        let next = String::from_utf8(before.last().unwrap().2.clone()).unwrap();
        let number: u32 = next.strip_prefix("line ").unwrap().parse().unwrap();
        assert_eq!(now[0].2, format!("line {}", number + 1).into_bytes());
    }
}

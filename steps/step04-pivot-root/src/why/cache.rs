//! Where glibc's loader finds libraries outside its own directories.

use crate::root::{LONGEST_PATH, path_from};
use std::path::PathBuf;

/// The most libraries that are looked at, and the most paths of one.
const MOST_CACHED: usize = 20_000;
const MOST_PATHS: usize = 64;

/// `/etc/ld.so.cache`, which ldconfig(8) writes: a header of 48 bytes, then entries of 24 whose second
/// and third number say where in the file a library's name and its path begin.
#[derive(Default)]
pub struct Cache {
    bytes: Vec<u8>,
    /// Where the header begins: an older format may come first, for older loaders.
    start: usize,
    count: usize,
}

impl Cache {
    const MAGIC: &'static [u8] = b"glibc-ld.so.cache1.1";
    const HEADER: usize = 48;
    const ENTRY: usize = 24;

    /// Reads the file's contents. A file that makes no sense is a cache without libraries.
    pub fn read(bytes: Vec<u8>) -> Cache {
        let start = bytes
            .windows(Self::MAGIC.len())
            .position(|part| part == Self::MAGIC);
        let Some(start) = start else {
            return Cache::default();
        };
        let mut cache = Cache {
            bytes,
            start,
            count: 0,
        };
        cache.count = cache
            .number(start + 20)
            .unwrap_or_default()
            .min(MOST_CACHED);
        cache
    }

    fn number(&self, at: usize) -> Option<usize> {
        let bytes = self.bytes.get(at..at.checked_add(4)?)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?) as usize)
    }

    /// The paths of the library `name`.
    pub fn paths(&self, name: &[u8]) -> Vec<PathBuf> {
        let entries = (0..self.count).map(|entry| self.start + Self::HEADER + entry * Self::ENTRY);
        let string = |at| self.bytes.get(self.start.checked_add(self.number(at)?)?..);
        let path = |entry: usize| {
            let key = string(entry + 4)?.strip_prefix(name)?;
            if key.first() != Some(&0) {
                return None;
            }
            let path = string(entry + 8)?;
            let end = path.iter().take(LONGEST_PATH).position(|&byte| byte == 0)?;
            Some(path_from(&path[..end]))
        };
        entries.filter_map(path).take(MOST_PATHS).collect()
    }
}

//! Programs that the kernel runs through another one: a foreign processor's through qemu-user, say.
//! See binfmt_misc in the kernel's admin guide.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// An entry of binfmt_misc.
#[derive(Debug, PartialEq, Eq)]
pub struct Handler {
    /// The program that runs such files.
    pub interpreter: PathBuf,
    /// Whether the kernel holds that program open already (flag F), so that no root need have it.
    pub preloaded: bool,
}

/// The enabled entry whose magic number is in `head`, the first bytes of a file.
///
/// # Errors
/// binfmt_misc isn't mounted, so nothing can be said.
pub fn handler(head: &[u8]) -> io::Result<Option<Handler>> {
    let directory = Path::new("/proc/sys/fs/binfmt_misc");
    if fs::read_to_string(directory.join("status"))?.trim() != "enabled" {
        return Ok(None);
    }
    let entries = fs::read_dir(directory)?.flatten();
    let mut texts = entries.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    Ok(texts.find_map(|entry| parse(&entry, head)))
}

/// Reads an entry as the kernel shows it; `None` unless it is enabled and `head` has its magic.
fn parse(entry: &str, head: &[u8]) -> Option<Handler> {
    let value = |key: &str| {
        let line = entry.lines().find(|line| line.starts_with(key))?;
        Some(line[key.len()..].trim())
    };
    if entry.lines().next() != Some("enabled") {
        return None;
    }
    let offset: usize = value("offset ")?.parse().ok()?;
    let magic = bytes(value("magic ")?)?;
    let mask = value("mask ").map_or_else(|| Some(vec![0xff; magic.len()]), bytes)?;
    let found = head.get(offset..)?.get(..magic.len())?;
    let masked = |bytes: &[u8]| -> Vec<u8> {
        bytes
            .iter()
            .zip(&mask)
            .map(|(byte, mask)| byte & mask)
            .collect()
    };
    (masked(found) == masked(&magic)).then(|| Handler {
        interpreter: value("interpreter ").unwrap_or_default().into(),
        preloaded: value("flags: ").is_some_and(|flags| flags.contains('F')),
    })
}

/// The bytes of a hexadecimal number such as `7f45`.
fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.as_bytes().chunks(2);
    digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const QEMU: &str = "enabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: OCF\noffset 0\n\
        magic 7f454c460201\nmask ffffffffffff\n";

    #[test]
    fn an_entry_takes_what_has_its_magic() {
        let found = parse(QEMU, b"\x7fELF\x02\x01\x01 and more").unwrap();
        assert_eq!(found.interpreter, Path::new("/usr/bin/qemu-aarch64-static"));
        assert!(found.preloaded);
        assert_eq!(parse(QEMU, b"\x7fELF\x01\x01"), None);
        assert_eq!(parse(QEMU, b"\x7fE"), None);
        assert_eq!(
            parse(&QEMU.replace("enabled", "disabled"), b"\x7fELF\x02\x01"),
            None
        );
    }

    #[test]
    fn an_entry_for_an_extension_is_passed_over() {
        let entry = "enabled\ninterpreter /usr/bin/wine\nflags: \nextension .exe\n";
        assert_eq!(parse(entry, b"MZ"), None);
    }
}

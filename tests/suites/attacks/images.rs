//! Archives that say one thing to one reader, and another to the next; and what they mustn't bring along.

use super::tried;
use crate::stage::bench::{Bench, STEP};
use crate::stage::{run, step};
use std::fs;
use std::path::Path;
use std::process::Command;
use tar::{EntryType, Header};

/// An archive, block by block.
#[derive(Default)]
struct Blocks(Vec<u8>);

impl Blocks {
    /// A header whose `fields`, by where they begin, are these bytes, and what follows it.
    fn entry(mut self, kind: u8, name: &str, fields: &[(usize, &[u8])], data: &[u8]) -> Blocks {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(data.len() as u64);
        header.set_entry_type(EntryType::new(kind));
        let bytes = header.as_mut_bytes();
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        for (at, field) in fields {
            bytes[*at..at + field.len()].copy_from_slice(field);
        }
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// PAX records for the next entry, each with its length.
    fn records(self, records: &[(&str, &str)]) -> Blocks {
        let text: String = records
            .iter()
            .map(|(key, value)| {
                let rest = key.len() + value.len() + 3;
                // As many digits as the sum has.
                let length = (1..8)
                    .map(|digits| rest + digits)
                    .find(|sum| sum.to_string().len() == sum - rest);
                format!("{} {key}={value}\n", length.unwrap())
            })
            .collect();
        self.entry(b'x', "records", &[], text.as_bytes())
    }

    fn file(self, name: &str) -> Blocks {
        self.entry(b'0', name, &[], b"text")
    }

    fn write(mut self, to: &Path) {
        self.0.extend_from_slice(&[0; 1024]);
        fs::write(to, self.0).unwrap();
    }
}

/// Where in a header they are.
const SIZE: usize = 124;
const UID: usize = 108;
const SPARSE: usize = 386;
const REAL_SIZE: usize = 483;

/// What two readers would understand differently, one of them refuses.
#[test]
fn an_archive_that_can_be_read_in_two_ways() {
    let bench = Bench::new();
    let file = bench.path("two.tar");
    let new = Blocks::default;
    let huge = "15000000000";
    let octal: &[u8] = b"77777777777\0";
    for (what, words, blocks) in [
        (
            "two sizes in the records",
            "record size is there twice",
            new().records(&[("size", "4"), ("size", huge)]).file("f"),
        ),
        (
            "two names in the records",
            "record path is there twice",
            new().records(&[("path", "a"), ("path", "b")]).file("f"),
        ),
        (
            "two sets of records",
            "two sets of records",
            new()
                .records(&[("size", huge)])
                .records(&[("size", "4")])
                .file("f"),
        ),
        (
            "a size of the header and one of the records",
            "its size is 4 and 512",
            new().records(&[("size", "512")]).file("f"),
        ),
        (
            "a size with a sign",
            "is none: +4",
            new().records(&[("size", "+4")]).file("f"),
        ),
        (
            "a size with zeros before it",
            "is none: 04",
            new().records(&[("size", "04")]).file("f"),
        ),
        (
            "a size with more than digits",
            "number of a header is none",
            new().entry(b'0', "f", &[(SIZE, b"0000000000x\0")], b""),
        ),
        (
            "a size that goes on behind its end",
            "number of a header is none",
            new().entry(b'0', "f", &[(SIZE, b"0000\x000777\0")], b""),
        ),
        (
            "a negative size",
            "is negative",
            new().entry(b'0', "f", &[(SIZE, &[0xff; 12])], b""),
        ),
        (
            "a size beyond all",
            "number of a header is none",
            new().entry(
                b'0',
                "f",
                &[(
                    SIZE,
                    &[0x80, 0, 0, 0, 0xff, 255, 255, 255, 255, 255, 255, 255],
                )],
                b"",
            ),
        ),
        (
            "an owner with more than digits",
            "number of a header is none",
            new().entry(b'0', "f", &[(UID, b"000 9x\0")], b""),
        ),
        (
            "a long name in both ways",
            "a long name twice",
            new()
                .records(&[("path", "a")])
                .entry(b'L', "long", &[], b"b\0")
                .file("f"),
        ),
        (
            "records for all files",
            "global record path",
            new().entry(b'g', "all", &[], b"10 path=a\n").file("f"),
        ),
        (
            "a name with a NUL in it",
            "has a NUL",
            new().records(&[("path", "a\0b")]).file("f"),
        ),
        (
            "records without a file",
            "its last records",
            new().records(&[("path", "a")]),
        ),
        (
            "a link with contents",
            "and is no file",
            new().entry(b'2', "f", &[], b"text"),
        ),
        (
            "a directory with contents",
            "and is no file",
            new().entry(b'5', "f", &[], b"text"),
        ),
        (
            "records of a length that can't be",
            "PAX records are damaged",
            new().entry(b'x', "r", &[], b"99 path=a\n").file("f"),
        ),
        (
            "records larger than anybody's",
            "more than 1 MiB",
            new().entry(b'x', "r", &[(SIZE, octal)], b""),
        ),
        (
            "a name larger than anybody's",
            "more than 1 MiB",
            new().entry(b'L', "r", &[(SIZE, octal)], b""),
        ),
        (
            "a sparse file in disorder",
            "out of order",
            new().entry(
                b'S',
                "f",
                &[
                    (SPARSE, b"00000001000\x0000000000004\0"),
                    (SPARSE + 24, b"00000000000\x0000000000004\0"),
                    (REAL_SIZE, b"00000002000\0"),
                ],
                b"texttext",
            ),
        ),
        (
            "a sparse file that doesn't add up",
            "don't make up its size",
            new().entry(
                b'S',
                "f",
                &[
                    (SPARSE, b"00000000000\x0000000000010\0"),
                    (REAL_SIZE, b"00000002000\0"),
                ],
                b"text",
            ),
        ),
        (
            "a sparse file with a gap in its list",
            "gaps between them",
            new().entry(
                b'S',
                "f",
                &[
                    (SPARSE, b"00000000000\x0000000000002\0"),
                    (SPARSE + 48, b"00000001000\x0000000000002\0"),
                    (REAL_SIZE, b"00000002000\0"),
                ],
                b"text",
            ),
        ),
        (
            "a sparse file whose list goes on behind its end",
            "go on behind their end",
            new().entry(
                b'S',
                "f",
                &[
                    (SPARSE, b"00000000000\x0000000000004\0"),
                    (REAL_SIZE - 1, &[1]),
                    (REAL_SIZE, b"00000002000\0"),
                ],
                b"text",
            ),
        ),
        (
            "a sparse file's parts without a length",
            "records of a sparse file are damaged",
            new()
                .records(&[
                    ("GNU.sparse.size", "8"),
                    ("GNU.sparse.numblocks", "1"),
                    ("GNU.sparse.offset", "0"),
                    ("GNU.sparse.offset", "8"),
                ])
                .entry(b'0', "f", &[], b""),
        ),
        (
            "a sparse file without its size",
            "lack its size",
            new()
                .records(&[("GNU.sparse.numblocks", "0"), ("GNU.sparse.map", "")])
                .entry(b'0', "f", &[], b""),
        ),
        (
            "a sparse file with fewer parts than it says",
            "records of a sparse file are damaged",
            new()
                .records(&[
                    ("GNU.sparse.size", "8"),
                    ("GNU.sparse.numblocks", "2"),
                    ("GNU.sparse.map", "0,4"),
                ])
                .entry(b'0', "f", &[], b"text"),
        ),
        (
            "a sparse file with a part behind its end",
            "out of order",
            new()
                .records(&[
                    ("GNU.sparse.size", "8"),
                    ("GNU.sparse.numblocks", "1"),
                    ("GNU.sparse.map", "6,4"),
                ])
                .entry(b'0', "f", &[], b"text"),
        ),
        (
            "a sparse file with parts of more bytes than there are",
            "don't make up its size",
            new()
                .records(&[
                    ("GNU.sparse.size", "99"),
                    ("GNU.sparse.numblocks", "1"),
                    ("GNU.sparse.map", "6,40"),
                ])
                .entry(b'0', "f", &[], b"text"),
        ),
        (
            "a sparse file whose list has no end",
            "have no end",
            new()
                .records(&[
                    ("GNU.sparse.major", "1"),
                    ("GNU.sparse.minor", "0"),
                    ("GNU.sparse.realsize", "8"),
                ])
                .entry(b'0', "f", &[], b"text"),
        ),
        (
            "a sparse file whose list has no numbers",
            "a number in its records is none",
            new()
                .records(&[
                    ("GNU.sparse.major", "1"),
                    ("GNU.sparse.minor", "0"),
                    ("GNU.sparse.realsize", "8"),
                ])
                .entry(b'0', "f", &[], &[b'\n'; 512]),
        ),
        (
            "a sparse file whose list is too long for any",
            "more parts than can be",
            new()
                .records(&[
                    ("GNU.sparse.major", "1"),
                    ("GNU.sparse.minor", "0"),
                    ("GNU.sparse.realsize", "8"),
                ])
                .entry(b'0', "f", &[], &b"9999999\n".repeat(64)),
        ),
        (
            "a sparse file in a way that nobody knows",
            "records of a sparse file are damaged",
            new()
                .records(&[
                    ("GNU.sparse.major", "2"),
                    ("GNU.sparse.minor", "0"),
                    ("GNU.sparse.realsize", "8"),
                ])
                .entry(b'0', "f", &[], b""),
        ),
        (
            "an empty name in the records",
            "has no name",
            new().records(&[("path", "")]).file("f"),
        ),
        ("an empty name", "has no name", new().file("")),
        (
            "a name longer than any path",
            "more bytes than a path",
            new().records(&[("path", &"x".repeat(4096))]).file("f"),
        ),
        (
            "a time with two signs",
            "no time",
            new().records(&[("mtime", "--5")]).file("f"),
        ),
        (
            "a device that hides what is below",
            "overlayfs hides",
            new().entry(b'3', "etc", &[], b""),
        ),
        (
            "a mark of overlayfs that is written otherwise",
            "trusted.overlay.a=b",
            new()
                .records(&[("SCHILY.xattr.trusted.overlay.a%3Db", "y")])
                .file("f"),
        ),
        (
            "a sparse file larger than all disks",
            "--image-limit",
            new().entry(
                b'S',
                "f",
                &[
                    (SPARSE, b"00000000000\x0000000000004\0"),
                    (REAL_SIZE, &[0x80, 0, 0, 0, 0x70, 0, 0, 0, 0, 0, 0, 0]),
                ],
                b"text",
            ),
        ),
    ] {
        let _attack = tried("");
        blocks.write(&file);
        let outcome = bench.run(&["--image", file.to_str().unwrap()], "true");
        assert_eq!(outcome.code, 125, "{what}: {}", outcome.errors);
        assert!(outcome.errors.contains(words), "{what}: {}", outcome.errors);
        let left: Vec<_> = fs::read_dir(bench.path("state/images"))
            .unwrap()
            .flatten()
            .collect();
        let left = left
            .iter()
            .filter(|entry| entry.file_name() != "lock" && entry.file_name() != "known");
        assert_eq!(left.count(), 0, "{what}: something half-made is left");
    }
}

/// Archives that cost little, and take time, memory or inodes that no file of theirs accounts for: all of it is counted.
#[test]
fn an_archive_takes_no_more_than_it_says() {
    let bench = Bench::new();
    let file = bench.path("flood.tar");
    let mut headers = Blocks::default();
    let mut blocks = Blocks::default().entry(
        b'S',
        "f",
        &[
            (SPARSE, b"00000000000\x0000000000001\0"),
            (SPARSE + 24, b"00000000001\x0000000000001\0"),
            (SPARSE + 48, b"00000000002\x0000000000001\0"),
            (SPARSE + 72, b"00000000003\x0000000000001\0"),
            (REAL_SIZE - 1, &[1]),
            (REAL_SIZE, b"00000200000\0"),
        ],
        b"",
    );
    let mut implied = Blocks::default();
    for number in 0..200 {
        headers = headers.entry(b'g', "all", &[], b"");
        for part in 0..21_u32 {
            let at = 4 + number * 21 + part;
            blocks.0.extend(format!("{at:011o}\0{:011o}\0", 0).bytes());
        }
        blocks.0.extend([1; 8]);
        let deep = format!("{number}/{}f", "d/".repeat(40));
        implied = implied.entry(b'0', &deep, &[], b"");
    }
    let headers = headers.file("f");
    for (what, archive) in [
        ("records for nobody", headers),
        ("the list of a sparse file", blocks),
        ("directories that nobody names", implied),
    ] {
        let _attack = tried("");
        archive.write(&file);
        let flags = ["--image-limit", "64k", "--image", file.to_str().unwrap()];
        let outcome = bench.bare(&flags, &["true"]);
        assert_eq!(outcome.code, 125, "{what}: {}", outcome.errors);
        let words = "more than --image-limit";
        assert!(outcome.errors.contains(words), "{what}: {}", outcome.errors);
        bench.is_clean();
    }

    // The same directory, again and again, by a name of 4,000 bytes: it is one directory.
    let _attack = tried("");
    let mut archive = Blocks::default();
    let name = format!("{}/{}/", "x".repeat(200), "y".repeat(200)).repeat(9);
    for _ in 0..20_000 {
        archive = archive
            .records(&[("path", &name)])
            .entry(b'5', "d", &[], b"");
    }
    archive.write(&file);
    let line = "ulimit -v 65536; exec \"$@\"";
    let root = bench.root.path();
    let mut command = Command::new("sh");
    command
        .args(["-c", line, "sh"])
        .arg(step(STEP))
        .args(bench.arguments(
            &[
                "--image",
                file.to_str().unwrap(),
                "--image",
                root.to_str().unwrap(),
            ],
            &["true"],
        ));
    run(&mut command);
}

/// What a layer hides, and where the rest of a file is, the kernel notes by attributes. An archive brings none.
#[test]
fn an_archive_brings_no_marks_of_overlayfs() {
    let bench = Bench::new();
    let file = bench.path("marks.tar");
    for key in [
        "trusted.overlay.opaque",
        "trusted.overlay.redirect",
        "trusted.overlay.metacopy",
        "user.overlay.opaque",
        "user.overlay.whiteout",
    ] {
        let _attack = tried("");
        let record = format!("SCHILY.xattr.{key}");
        Blocks::default()
            .records(&[(&record, "y")])
            .file("f")
            .write(&file);
        let outcome = bench.run(&["--image", file.to_str().unwrap()], "true");
        assert_eq!(outcome.code, 125, "{key}: {}", outcome.errors);
        assert!(outcome.errors.contains(key), "{}", outcome.errors);
    }
}

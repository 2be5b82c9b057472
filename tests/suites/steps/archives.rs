//! Step 8: archives that become images: hostile, damaged, oversized, and sound ones.

use crate::attacks::tried;
use crate::stage::bench::{Bench, STEP};
use crate::stage::{have, run, step};
use crate::steps::commits::odd_root;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use tar::{Builder, EntryType, Header};

/// An archive of our own making, entry by entry.
fn archive(path: &Path, entries: &[(&str, EntryType, &str)]) {
    let mut builder = Builder::new(fs::File::create(path).unwrap());
    for (name, kind, content) in entries {
        let mut header = Header::new_gnu();
        header.set_mode(if *kind == EntryType::Directory {
            0o755
        } else {
            0o644
        });
        header.set_entry_type(*kind);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        let is_link = *kind == EntryType::Symlink || *kind == EntryType::Link;
        let data = if is_link { "" } else { content };
        header.set_size(data.len() as u64);
        // Past the library, which has scruples about such names.
        let raw = header.as_gnu_mut().unwrap();
        raw.name[..name.len()].copy_from_slice(name.as_bytes());
        if is_link {
            raw.linkname[..content.len()].copy_from_slice(content.as_bytes());
        }
        header.set_cksum();
        builder.append(&header, data.as_bytes()).unwrap();
    }
    builder.finish().unwrap();
}

/// Names that lead out, links that are written through: refused or kept inside, and nothing half-made stays.
#[test]
fn hostile_archives() {
    let _attack = tried("");
    use EntryType::{Directory, Link, Regular, Symlink};
    let bench = Bench::new();
    let canary = bench.path("canary");
    fs::write(&canary, "whole").unwrap();
    let outside = bench.folder.path().to_str().unwrap().to_owned();
    let victim = canary.to_str().unwrap().to_owned();
    let file = bench.path("hostile.tar");
    let attempt = || bench.run(&["--image", file.to_str().unwrap()], "true");
    let refused = |what: &str, words: &str| {
        let outcome = attempt();
        assert_eq!(outcome.code, 125, "{what}");
        assert!(outcome.errors.contains(words), "{what}: {}", outcome.errors);
        assert!(
            outcome.errors.starts_with("step08-overlay: --image "),
            "{what}: {}",
            outcome.errors
        );
        let images = fs::read_dir(bench.path("state/images")).unwrap().flatten();
        let left: Vec<_> = images
            .map(|entry| entry.file_name())
            .filter(|name| name.to_string_lossy().starts_with("sha256"))
            .collect();
        assert!(left.is_empty(), "{what}: {left:?}");
        bench.is_clean();
    };
    archive(&file, &[("../../canary", Regular, "spoilt")]);
    refused("a name with ..", "..");
    archive(
        &file,
        &[
            ("d", Directory, ""),
            ("d/../../../canary", Regular, "spoilt"),
        ],
    );
    refused("a name with .. further on", "..");
    archive(&file, &[("x", Link, "../../../../canary")]);
    refused("a hard link out", "..");
    archive(&file, &[("x", Link, &victim)]);
    refused("a hard link to an absolute path", "hard link");
    // By a link: what is written through it stays inside the image.
    let inside = format!("{}/canary", outside.trim_start_matches('/'));
    archive(
        &file,
        &[
            ("way", Symlink, &outside),
            ("way/canary", Regular, "spoilt"),
        ],
    );
    refused("a link to a directory that the image hasn't", "way");
    archive(
        &file,
        &[
            (&outside[1..], Directory, ""),
            ("way", Symlink, &outside),
            ("way/canary", Regular, "inside"),
            (&victim, Regular, "absolute"),
        ],
    );
    let outcome = attempt();
    assert_eq!(outcome.code, 0, "{}", outcome.errors);
    let images: Vec<_> = fs::read_dir(bench.path("state/images"))
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    let image = images
        .iter()
        .find(|path| path.to_string_lossy().contains("sha256"))
        .unwrap();
    assert_eq!(fs::read_to_string(image.join(&inside)).unwrap(), "absolute");
    fs::remove_dir_all(bench.path("state/images")).unwrap();
    // A file is put in the place of a link, never through it.
    archive(
        &file,
        &[("canary", Symlink, &victim), ("canary", Regular, "mine")],
    );
    assert_eq!(attempt().code, 0);
    fs::remove_dir_all(bench.path("state/images")).unwrap();
    archive(&file, &[("d", Symlink, "/etc"), ("d", Directory, "")]);
    refused("a directory in the place of a link", "something else");
    archive(&file, &[("d", Directory, ""), ("d", Regular, "x")]);
    refused(
        "a file in the place of a directory",
        "directory of that name",
    );
    archive(&file, &[("a", Symlink, "a"), ("a/b", Regular, "x")]);
    refused("a link in a circle", "ELOOP");
    assert_eq!(fs::read_to_string(&canary).unwrap(), "whole");
    assert!(bench.folder.path().join("hostile.tar").exists());
}

/// Nobody but root gets near a setuid program or a device that an archive brought.
#[test]
fn images_are_roots_own() {
    if crate::stage::inside() {
        return;
    }
    let bench = Bench::new();
    let root = bench.path("odd");
    odd_root(&root);
    let file = bench.path("odd.tar");
    run(Command::new("tar")
        .args(["--numeric-owner", "-C"])
        .arg(&root)
        .arg("-cf")
        .arg(&file)
        .arg("."));
    assert_eq!(
        bench
            .bare(&["--image", file.to_str().unwrap()], &["true"])
            .code,
        0
    );
    for name in ["state/images", "state/running"] {
        assert_eq!(
            fs::metadata(bench.path(name)).unwrap().permissions().mode() & 0o777,
            0o700,
            "{name}"
        );
    }
}

/// Cut off, damaged, something else, too large: said, and gone.
#[test]
fn damaged_archives() {
    let _attack = tried("");
    let bench = Bench::new();
    let root = bench.root.path();
    let whole = bench.path("whole.tar");
    run(Command::new("tar")
        .arg("-C")
        .arg(&root)
        .arg("-cf")
        .arg(&whole)
        .arg("."));
    let bytes = fs::read(&whole).unwrap();
    let file = bench.path("damaged");
    let gzipped = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let attempt = |flags: &[&str], text: &[u8]| {
        fs::write(&file, text).unwrap();
        bench.bare(
            &[flags, &["--image", file.to_str().unwrap()]].concat(),
            &["true"],
        )
    };
    let mut flipped = gzipped(&bytes);
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x55;
    let zipped = gzipped(&bytes);
    let mut header = bytes.clone();
    header[512 * 3 + 5] ^= 0x7f;
    // An entry further on begins at a block: there is none of it, and all before it is whole.
    let boundary = bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count();
    let boundary = boundary.next_multiple_of(512);
    for (what, text, words) in [
        (
            "cut off in the middle",
            &bytes[..bytes.len() / 2],
            "cut off",
        ),
        ("cut off between two entries", &bytes[..boundary], "cut off"),
        ("cut off, compressed", &zipped[..zipped.len() - 100], ""),
        ("without its checksum", &zipped[..zipped.len() - 8], ""),
        ("damaged, compressed", &flipped[..], ""),
        ("empty", &[], "it is empty"),
        ("zeros", &[0; 10240], "nothing is in it"),
        (
            "text",
            b"hello, this is no archive at all\n",
            "it is no tar archive",
        ),
        ("zip", b"PK\x03\x04 and so on", "zip"),
        ("xz", b"\xfd7zXZ\0 and so on", "unxz"),
        ("bzip2", b"BZh91AY&SY and so on", "bunzip2"),
        ("zstd", b"\x28\xb5\x2f\xfd and so on", ""),
    ] {
        let outcome = attempt(&[], text);
        assert_eq!(outcome.code, 125, "{what}: {}", outcome.errors);
        assert!(
            outcome.errors.contains(words) && outcome.errors.contains("damaged"),
            "{what}: {}",
            outcome.errors
        );
        assert!(
            !outcome.errors.contains("panicked"),
            "{what}: {}",
            outcome.errors
        );
        bench.is_clean();
    }
    let outcome = attempt(&["--image-limit", "1m"], &zipped);
    assert_eq!(outcome.code, 125);
    assert!(
        outcome.errors.contains("--image-limit"),
        "{}",
        outcome.errors
    );
    assert_eq!(attempt(&[], &zipped).code, 0);
    bench.is_clean();
}

/// Ten gigabytes of zeros in ten megabytes, and a file that says it is larger than any disk.
#[test]
fn a_bomb_is_bounded() {
    let _attack = tried("");
    let bench = Bench::new();
    let file = bench.path("bomb.tar");
    let mut header = Header::new_gnu();
    header.set_path("bomb").unwrap();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(1 << 62);
    header.set_cksum();
    fs::write(&file, [header.as_bytes(), &[0; 4096][..]].concat()).unwrap();
    let attempt = || {
        bench.bare(
            &["--image-limit", "64m", "--image", file.to_str().unwrap()],
            &["true"],
        )
    };
    let outcome = attempt();
    assert_eq!(outcome.code, 125);
    assert!(
        outcome.errors.contains("--image-limit"),
        "{}",
        outcome.errors
    );
    // Said to be small, file after file.
    let mut encoder = GzEncoder::new(fs::File::create(&file).unwrap(), Compression::fast());
    header.set_size(1 << 20);
    header.set_cksum();
    for number in 0..100 {
        header.set_path(format!("bomb{number}")).unwrap();
        header.set_cksum();
        encoder.write_all(header.as_bytes()).unwrap();
        encoder.write_all(&vec![0; 1 << 20]).unwrap();
    }
    encoder.finish().unwrap();
    let outcome = attempt();
    assert_eq!(outcome.code, 125);
    assert!(
        outcome.errors.contains("--image-limit"),
        "{}",
        outcome.errors
    );
    bench.is_clean();
}

/// Many small entries: a hundred thousand here; the count is bounded, and nothing is quadratic.
#[test]
fn many_small_entries() {
    let _attack = tried("");
    let bench = Bench::new();
    let file = bench.path("many.tar");
    let mut builder = Builder::new(std::io::BufWriter::new(fs::File::create(&file).unwrap()));
    let count = if crate::stage::inside() {
        5_000
    } else {
        100_000
    };
    for number in 0..count {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(1);
        builder
            .append_data(
                &mut header,
                format!("srv/{}/{number}", number % 100),
                &b"x"[..],
            )
            .unwrap();
    }
    builder.into_inner().unwrap().into_inner().unwrap();
    let outcome = bench.run(&["--image", file.to_str().unwrap()], "ls /srv/7 | wc -l");
    assert_eq!(
        outcome.output,
        format!("{}\n", count / 100),
        "{}",
        outcome.errors
    );
    bench.is_clean();
}

/// The same archive under two names is one image; a changed one is another; eight at once unpack it once.
#[test]
fn an_archive_is_unpacked_once() {
    let bench = Bench::new();
    let file = bench.path("image.tar");
    run(Command::new("tar")
        .arg("-C")
        .arg(bench.root.path())
        .arg("-cf")
        .arg(&file)
        .arg("."));
    let image = ["--image", file.to_str().unwrap()];
    let programs: Vec<_> = (0..8)
        .map(|_| {
            Command::new(step(STEP))
                .args(bench.arguments(&image, &["true"]))
                .spawn()
                .unwrap()
        })
        .collect();
    for mut program in programs {
        assert!(program.wait().unwrap().success());
    }
    let images = || -> Vec<_> {
        let entries = fs::read_dir(bench.path("state/images")).unwrap().flatten();
        let found =
            entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("sha256-"));
        found
            .map(|entry| (entry.file_name(), entry.metadata().unwrap().ino()))
            .collect()
    };
    let first = images();
    assert_eq!(first.len(), 1);
    let copy = bench.path("copy.tar");
    fs::copy(&file, &copy).unwrap();
    assert_eq!(
        bench
            .bare(&["--image", copy.to_str().unwrap()], &["true"])
            .code,
        0
    );
    assert_eq!(images(), first);
    // Each container has its own changes above it.
    assert_eq!(bench.bare(&image, &["sh", "-c", "rm /bin/cat"]).code, 0);
    assert_eq!(bench.bare(&image, &["cat", "/dev/null"]).code, 0);
    run(Command::new("tar")
        .arg("-C")
        .arg(bench.root.path())
        .arg("-cf")
        .arg(&file)
        .args(["--exclude=./tmp", "."]));
    assert_eq!(bench.bare(&image, &["true"]).code, 0);
    assert_eq!(images().len(), 2);
    bench.is_clean();
}

/// Frames and checksums of zstd, as its own tool makes them.
#[test]
fn zstd_is_read_as_a_whole() {
    if !have("zstd", "zstd") {
        return;
    }
    let bench = Bench::new();
    let shell = "set -e; cd \"$0\"; tar -C \"$1\" -cf whole.tar .; split -n 2 whole.tar part; zstd -q --check partaa partab
        printf '\\120\\052\\115\\030\\004\\000\\000\\000skip' >skip; cat partaa.zst skip partab.zst >frames.tar.zst
        zstd -q --check whole.tar -o damaged.tar.zst; size=$(stat -c %s damaged.tar.zst)
        printf '\\377\\377\\377' | dd of=damaged.tar.zst bs=1 seek=$((size - 4)) conv=notrunc 2>/dev/null";
    run(Command::new("sh")
        .args(["-c", shell])
        .arg(bench.folder.path())
        .arg(bench.root.path()));
    let outcome = bench.bare(
        &["--image", bench.path("frames.tar.zst").to_str().unwrap()],
        &["true"],
    );
    assert_eq!(outcome.code, 0, "{}", outcome.errors);
    let outcome = bench.bare(
        &["--image", bench.path("damaged.tar.zst").to_str().unwrap()],
        &["true"],
    );
    assert_eq!(outcome.code, 125);
    assert!(outcome.errors.contains("checksum"), "{}", outcome.errors);
    bench.is_clean();
}

/// Headers that would fill the memory before a byte is unpacked.
#[test]
fn names_are_bounded() {
    let _attack = tried("");
    let bench = Bench::new();
    let file = bench.path("names.tgz");
    for kind in [EntryType::GNULongName, EntryType::XHeader] {
        let mut encoder = GzEncoder::new(fs::File::create(&file).unwrap(), Compression::fast());
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(300 << 20);
        header.set_cksum();
        encoder.write_all(header.as_bytes()).unwrap();
        for _ in 0..30 {
            encoder.write_all(&vec![b'x'; 1 << 20]).unwrap();
        }
        encoder.finish().unwrap();
        let outcome = bench.bare(&["--image", file.to_str().unwrap()], &["true"]);
        assert_eq!(outcome.code, 125);
        assert!(
            outcome.errors.contains("more than 1 MiB") && outcome.errors.len() < 1000,
            "{} bytes",
            outcome.errors.len()
        );
        bench.is_clean();
    }
}

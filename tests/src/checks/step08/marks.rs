//! 8.4: what an archive says of files that lower layers have.

use super::runs::try_out;
use crate::course::workbench::Workbench;
use crate::host::container::RunOutcome;
use crate::host::registry::{archive, digest};
use anyhow::Result;
use probe::Claim;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use step08_overlay::image::xattrs::attributes;
use tar::EntryType;

const NOTE: EntryType = EntryType::Regular;
const FOLDER: EntryType = EntryType::Directory;

/// What the lower layer has.
const LOW: &[(&str, EntryType, &[u8])] = &[
    ("srv/", FOLDER, b""),
    ("srv/file", NOTE, b"low"),
    ("srv/dir/", FOLDER, b""),
    ("srv/dir/low", NOTE, b"low"),
    ("srv/link", EntryType::Symlink, b"file"),
    ("srv/..a", NOTE, b"low"),
    ("srv/stays", NOTE, b"low"),
    ("srv/before/", FOLDER, b""),
    ("srv/before/low", NOTE, b"low"),
    ("srv/behind/", FOLDER, b""),
    ("srv/behind/low", NOTE, b"low"),
    ("srv/mine", NOTE, b"low"),
    ("srv/mine2", NOTE, b"low"),
    ("srv/mylink/", FOLDER, b""),
    ("srv/first/", FOLDER, b""),
    ("srv/first/low", NOTE, b"low"),
    ("srv/last/", FOLDER, b""),
    ("srv/last/low", NOTE, b"low"),
    ("srv/shared/", FOLDER, b""),
    ("srv/shared/low", NOTE, b"low"),
];

/// What the upper layer says.
const HIGH: &[(&str, EntryType, &[u8])] = &[
    ("srv/", FOLDER, b""),
    ("srv/.wh.file", NOTE, b""),
    ("srv/.wh.dir", NOTE, b""),
    ("srv/.wh.link", NOTE, b""),
    ("srv/.wh...a", NOTE, b""),
    ("srv/.wh.before", NOTE, b""),
    ("srv/before/", FOLDER, b""),
    ("srv/before/high", NOTE, b"high"),
    ("srv/behind/", FOLDER, b""),
    ("srv/behind/high", NOTE, b"high"),
    ("srv/.wh.behind", NOTE, b""),
    ("srv/mine", NOTE, b"high"),
    ("srv/.wh.mine", NOTE, b""),
    ("srv/.wh.mine2", NOTE, b""),
    ("srv/mine2", NOTE, b"high"),
    ("srv/shared/", FOLDER, b""),
    ("srv/shared/high", NOTE, b"high"),
    ("srv/mylink", EntryType::Symlink, b"shared"),
    ("srv/.wh.mylink", NOTE, b""),
    ("srv/first/", FOLDER, b""),
    ("srv/first/.wh..wh..opq", NOTE, b""),
    ("srv/first/high", NOTE, b"high"),
    ("srv/last/", FOLDER, b""),
    ("srv/last/high", NOTE, b"high"),
    ("srv/last/.wh..wh..opq", NOTE, b""),
    ("srv/.wh..wh.plnk", NOTE, b""),
    ("srv/.wh..wh.aufs", NOTE, b""),
    ("srv/.why", NOTE, b"high"),
    ("srv/x.wh.y", NOTE, b"high"),
];

/// What each of the upper layer's names has to be, and why.
const MARKS: &[(&str, &str, &str)] = &[
    ("file", HIDDEN, HIDES),
    ("dir", HIDDEN, HIDES),
    ("link", HIDDEN, HIDES),
    ("..a", HIDDEN, "..a is a name like any other"),
    ("before", "an opaque directory", ANYWHERE),
    ("behind", "an opaque directory", ANYWHERE),
    ("mine", "a file", OWN),
    ("mine2", "a file", OWN),
    ("mylink", "a link", OWN),
    (
        "shared",
        "a directory",
        "a link to a directory is no directory, and nobody follows it",
    ),
    ("first", "an opaque directory", OPAQUE),
    ("last", "an opaque directory", OPAQUE),
    (
        ".why",
        "a file",
        "it isn't a mark: it doesn't begin with .wh.",
    ),
    (
        "x.wh.y",
        "a file",
        "it isn't a mark: it doesn't begin with .wh.",
    ),
];

const HIDDEN: &str = "character device 0:0";
const HIDES: &str = "overlayfs hides what lower layers have by a character device 0:0 of that name, and by nothing else";
const ANYWHERE: &str = "wherever the mark stands in the archive, this layer's own directory stays, and shows nothing of those below";
const OWN: &str = "what this layer has itself stays: marks are about lower layers only";
const OPAQUE: &str =
    ".wh..wh..opq is about the directory that it stands in: trusted.overlay.opaque is y";

/// What a file of a layer is, as overlayfs sees it.
fn nature(path: &Path) -> Result<String> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok("nothing".into()),
        found => found?,
    };
    let kind = found.file_type();
    Ok(if kind.is_dir() {
        let all = attributes(&File::open(path)?)?;
        let opaque = all.iter().find(|(key, _)| key == "trusted.overlay.opaque");
        match opaque {
            Some((_, value)) if value == b"y" => "an opaque directory".into(),
            _ => "a directory".into(),
        }
    } else if kind.is_char_device() {
        let (major, minor) = (libc::major(found.rdev()), libc::minor(found.rdev()));
        format!("character device {major}:{minor}")
    } else if kind.is_symlink() {
        "a link".into()
    } else {
        "a file".into()
    })
}

/// What the container of the two layers says, and what it has to say.
const LOOK: &str = "cd /srv && for at in . before behind shared first last; do echo \"$at:\" $(ls -A $at); done; \
                    cat mine mine2 stays";
const SEEN: &str = ".: .why before behind first last mine mine2 mylink shared stays x.wh.y\nbefore: high\n\
                    behind: high\nshared: high low\nfirst: high\nlast: high\nhighhighlow";

/// The exit code of a program that has failed by itself.
const FAILED: u8 = 125;

/// The archive as a file of this name.
fn written(bench: &Workbench, name: &str, bytes: &[u8]) -> Result<String> {
    let path = bench.scratch.join(name);
    fs::write(&path, bytes)?;
    Ok(path.display().to_string())
}

/// Where the program unpacks an archive that others lie below.
fn unpacked(bench: &Workbench, bytes: &[u8]) -> PathBuf {
    let name = digest(bytes).replace(':', "-") + "-above";
    bench.scratch.join("state/images").join(name)
}

/// How a run ended; the words of a program that has failed are its own affair.
fn in_words(outcome: &RunOutcome) -> String {
    match outcome.code {
        FAILED => "it ended with exit code 125".into(),
        _ => outcome.in_words(),
    }
}

/// The names in a folder, which need not be there.
fn entries(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// 8.4: what a layer hides is hidden by overlayfs's own marks, and what it has itself isn't.
pub fn mark(bench: &Workbench) -> Result<Vec<Claim>> {
    let base = bench.root()?.display().to_string();
    let high = archive(HIGH);
    let images = [
        written(bench, "high.tar", &high)?,
        written(bench, "low.tar", &archive(LOW))?,
        base,
    ];
    let flags: Vec<&str> = images.iter().flat_map(|image| ["--image", image]).collect();
    let looked = try_out(bench, &flags, &["sh", "-c", LOOK])?;
    let layer = unpacked(bench, &high);
    let srv = layer.join("srv");
    let mut claims = vec![
        Claim::new(
            "an archive with marks is unpacked, and the container starts",
            in_words(&looked),
            layer.exists() && looked.code != FAILED,
        )
        .because(Some("none of these marks is wrong".into())),
    ];
    if !layer.exists() {
        return Ok(claims);
    }
    for (name, wanted, why) in MARKS {
        let seen = nature(&srv.join(name))?;
        claims.push(
            Claim::new(
                format!("srv/{name} of the layer is {wanted}"),
                format!("lstat of srv/{name} in state/images: {seen}"),
                seen == *wanted,
            )
            .because(Some((*why).into())),
        );
    }
    let known = MARKS.iter().map(|(name, _, _)| *name);
    let known: BTreeSet<&str> = known.collect();
    let names = ["", "before", "behind", "shared", "first", "last"].iter();
    let mut others: Vec<String> = names
        .flat_map(|folder| entries(&srv.join(folder)))
        .filter(|name| !known.contains(&**name) && name != "high")
        .collect();
    others.sort();
    claims.push(
        Claim::new(
            "of the marks' own names nothing is made",
            format!("what else is in the layer: {others:?}"),
            others.is_empty(),
        )
        .because(Some(
            "a mark is no file: the notes of another filesystem aren't, either".into(),
        )),
    );
    claims.push(
        Claim::new(
            format!("a container of the image sees what the layers make up together:\n{SEEN}"),
            match looked.code {
                0 => format!("it sees\n{}", looked.output.trim_end()),
                _ => in_words(&looked),
            },
            looked.output.trim_end() == SEEN,
        )
        .because(Some(
            "what is hidden in a layer is hidden in the container, and nothing else is".into(),
        )),
    );
    for name in [".wh.", ".wh..", ".wh..."] {
        claims.push(refused(bench, name)?);
    }
    Ok(claims)
}

/// A mark that hides no name that a file could have.
fn refused(bench: &Workbench, name: &str) -> Result<Claim> {
    let base = bench.root()?.display().to_string();
    let entry = format!("srv/{name}");
    let bytes = archive(&[("srv/", FOLDER, b""), (&entry, NOTE, b"")]);
    let image = written(bench, "wrong.tar", &bytes)?;
    let outcome = try_out(bench, &["--image", &image, "--image", &base], &["true"])?;
    let is_there = unpacked(bench, &bytes).exists();
    Ok(Claim::new(
        format!("an archive with the mark {name} is refused, with exit code 125"),
        format!(
            "{}; in state/images is {}",
            in_words(&outcome),
            if is_there { "its layer" } else { "no layer of it" }
        ),
        outcome.code == FAILED && !is_there,
    )
    .because(Some(
        "nothing, . and .. are no names that a file has: the maker wants to reach another directory".into(),
    )))
}

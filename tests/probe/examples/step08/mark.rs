//! 8.4: marks in made-up directories of a layer.

use crate::table::{folder, in_memory, opened};
use probe::anyhow::Result;
use probe::nix::errno::Errno;
use probe::nix::unistd::chdir;
use probe::old;
use probe::{Claim, Findings, Outcome, libc};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::Path;
use step08_overlay::image::xattrs::attributes;

/// The calls by which marks are made, and what is there is looked at.
const MARKING: &[(libc::c_long, &str, Errno)] = &[
    (libc::SYS_mknodat, "mknod(2)", Errno::EPERM),
    (old::SYS_mknod, "mknod(2)", Errno::EPERM),
    (libc::SYS_setxattr, "setxattr(2)", Errno::EPERM),
    (libc::SYS_lsetxattr, "lsetxattr(2)", Errno::EPERM),
    (libc::SYS_fsetxattr, "fsetxattr(2)", Errno::EPERM),
    (libc::SYS_openat, "open(2)", Errno::EMFILE),
    (libc::SYS_newfstatat, "stat(2)", Errno::EIO),
    (libc::SYS_statx, "statx(2)", Errno::EIO),
];

/// What the function returned.
const MARKED: &str = "true";
const NO_MARK: &str = "false";
const ERROR: &str = "an error";

/// What a file of a layer is for overlayfs.
const WHITEOUT: &str = "a whiteout";
const DIRECTORY: &str = "a directory";
const OPAQUE: &str = "an opaque directory";
const NONE: &str = "nothing";
const LINK: &str = "a link";
const OWN: &str = "a file with \"own\"";

/// A name in an archive, and what this layer has by then: always a file `file`, directories `dir` (with a file in it)
/// and `empty`, a link `link` to `dir`, a link `dangling` to nothing.
struct Entry {
    claim: &'static str,
    name: &'static [u8],
    returns: &'static str,
    /// What is otherwise afterwards; `.` is the directory itself.
    after: &'static [(&'static str, &'static str)],
    /// What one mistake alone leads to: the name, what it is, and why. The name `returned` stands for what was returned.
    mistakes: &'static [(&'static str, &'static str, &'static str)],
}

const RETURNED: &str = "returned";
const WHITE: &str = "overlayfs hides a name of the layers below by a character device 0:0 of that name, and by nothing else";
const STAYS: &str = "what this layer has itself stays: marks are about the layers below";
const SHOWS: &str = "this layer's own directory has to be opaque, or it shows what the one below has, which the mark hides";
const NO_DOTS: &str =
    "nothing, . and .. are no names that a file has: the maker wants to reach another directory";
const NOTES: &str = "names that begin with .wh..wh. are notes of another filesystem: no file is called so, and none is hidden";

const ENTRIES: &[Entry] = &[
    Entry {
        claim: "a name without .wh. in front is no mark",
        name: b"usual",
        returns: NO_MARK,
        after: &[],
        mistakes: &[],
    },
    Entry {
        claim: "a name that has .wh. further back is no mark",
        name: b"x.wh.file",
        returns: NO_MARK,
        after: &[],
        mistakes: &[(
            RETURNED,
            MARKED,
            ".wh. makes a mark only where the name begins with it",
        )],
    },
    Entry {
        claim: "a name that begins with .wh and no second dot is no mark",
        name: b".why",
        returns: NO_MARK,
        after: &[],
        mistakes: &[(
            RETURNED,
            MARKED,
            ".why doesn't begin with .wh., the second dot belongs to it",
        )],
    },
    Entry {
        claim: ".wh.NAME makes a whiteout for a NAME of the layers below",
        name: b".wh.below",
        returns: MARKED,
        after: &[("below", WHITEOUT)],
        mistakes: &[
            ("below", NONE, WHITE),
            (
                RETURNED,
                NO_MARK,
                "it is a mark: where false is returned, a file of that name is made, too",
            ),
        ],
    },
    Entry {
        claim: "..a is a NAME like any other",
        name: b".wh...a",
        returns: MARKED,
        after: &[("..a", WHITEOUT)],
        mistakes: &[(
            RETURNED,
            ERROR,
            "the whole NAME counts: ..a only begins with two dots, and is a file's name",
        )],
    },
    Entry {
        claim: ".wh is a NAME like any other",
        name: b".wh..wh",
        returns: MARKED,
        after: &[(".wh", WHITEOUT)],
        mistakes: &[(
            ".wh",
            NONE,
            "only names that begin with .wh..wh. are notes; here the last dot is missing",
        )],
    },
    Entry {
        claim: "a NAME need be no text",
        name: b".wh.\xff\xfe",
        returns: MARKED,
        after: &[("\\xff\\xfe", WHITEOUT)],
        mistakes: &[
            (
                "\u{fffd}\u{fffd}",
                WHITEOUT,
                "a name is bytes, any but / and NUL: to make a text of it changes it, and hides another name",
            ),
            (
                RETURNED,
                NO_MARK,
                "a name is bytes, any but / and NUL: these are no UTF-8, and a mark all the same",
            ),
            (
                RETURNED,
                ERROR,
                "a name is bytes, any but / and NUL: these are no UTF-8, and a mark all the same",
            ),
        ],
    },
    Entry {
        claim: "a file of this layer stays",
        name: b".wh.file",
        returns: MARKED,
        after: &[],
        mistakes: &[
            ("file", WHITEOUT, STAYS),
            ("file", NONE, STAYS),
            (
                RETURNED,
                ERROR,
                "EEXIST was taken for an error: this layer has a file of that name, and it stays",
            ),
        ],
    },
    Entry {
        claim: "a directory of this layer stays, and is opaque",
        name: b".wh.dir",
        returns: MARKED,
        after: &[("dir", OPAQUE)],
        mistakes: &[
            ("dir", DIRECTORY, SHOWS),
            ("dir", WHITEOUT, STAYS),
            ("dir", NONE, STAYS),
        ],
    },
    Entry {
        claim: "an empty directory of this layer stays, and is opaque",
        name: b".wh.empty",
        returns: MARKED,
        after: &[("empty", OPAQUE)],
        mistakes: &[
            ("empty", DIRECTORY, SHOWS),
            ("empty", WHITEOUT, STAYS),
            ("empty", NONE, STAYS),
        ],
    },
    Entry {
        claim: "a link of this layer stays, and nobody follows it",
        name: b".wh.link",
        returns: MARKED,
        after: &[],
        mistakes: &[
            (
                "dir",
                OPAQUE,
                "the link was followed: it leads to a directory, and is none",
            ),
            ("link", WHITEOUT, STAYS),
            ("link", NONE, STAYS),
            (
                RETURNED,
                ERROR,
                "a link to a directory is no directory: look without following it (AT_SYMLINK_NOFOLLOW)",
            ),
        ],
    },
    Entry {
        claim: "a link that leads nowhere stays, too",
        name: b".wh.dangling",
        returns: MARKED,
        after: &[],
        mistakes: &[
            ("dangling", WHITEOUT, STAYS),
            ("dangling", NONE, STAYS),
            (
                RETURNED,
                ERROR,
                "a link is there, although it leads nowhere: look without following it",
            ),
        ],
    },
    Entry {
        claim: ".wh..wh..opq makes its own directory opaque",
        name: b".wh..wh..opq",
        returns: MARKED,
        after: &[(".", OPAQUE)],
        mistakes: &[
            (
                ".wh..opq",
                WHITEOUT,
                "it was taken for a mark that hides the name .wh..opq",
            ),
            (
                ".",
                DIRECTORY,
                "overlayfs takes a directory for opaque by its attribute trusted.overlay.opaque, which is y",
            ),
        ],
    },
    Entry {
        claim: "of .wh..wh.plnk nothing is made",
        name: b".wh..wh.plnk",
        returns: MARKED,
        after: &[],
        mistakes: &[
            (".wh.plnk", WHITEOUT, NOTES),
            (RETURNED, NO_MARK, NOTES),
            (RETURNED, ERROR, NOTES),
        ],
    },
    Entry {
        claim: "of .wh..wh..opqx nothing is made",
        name: b".wh..wh..opqx",
        returns: MARKED,
        after: &[],
        mistakes: &[
            (
                ".",
                OPAQUE,
                "it only begins with .wh..wh..opq, and names are compared whole",
            ),
            (".wh..opqx", WHITEOUT, NOTES),
            (RETURNED, NO_MARK, NOTES),
        ],
    },
    Entry {
        claim: "of .wh..wh. nothing is made",
        name: b".wh..wh.",
        returns: MARKED,
        after: &[],
        mistakes: &[
            (".wh.", WHITEOUT, NOTES),
            (RETURNED, NO_MARK, NOTES),
            (RETURNED, ERROR, NOTES),
        ],
    },
    Entry {
        claim: "a mark without a NAME is an error",
        name: b".wh.",
        returns: ERROR,
        after: &[],
        mistakes: &[(RETURNED, MARKED, NO_DOTS), (RETURNED, NO_MARK, NO_DOTS)],
    },
    Entry {
        claim: "a mark for . is an error",
        name: b".wh..",
        returns: ERROR,
        after: &[],
        mistakes: &[
            (".", OPAQUE, NO_DOTS),
            (RETURNED, MARKED, NO_DOTS),
            (RETURNED, NO_MARK, NO_DOTS),
        ],
    },
    Entry {
        claim: "a mark for .. is an error",
        name: b".wh...",
        returns: ERROR,
        after: &[],
        mistakes: &[
            ("..", OPAQUE, NO_DOTS),
            (RETURNED, MARKED, NO_DOTS),
            (RETURNED, NO_MARK, NO_DOTS),
        ],
    },
];

pub fn mark(findings: &Findings) -> Result<()> {
    in_memory(findings)?;
    for entry in ENTRIES {
        if findings.all_hold() {
            try_out(findings, entry)?;
        }
    }
    findings.play(&[whiteout_twice, each_call])
}

/// Makes a layer's directory anew, beside another one in which nothing may be made.
fn begin_again(findings: &Findings) -> Result<()> {
    let layer = findings.scratch.join("layer");
    folder(
        &layer,
        &[("as-it-was/file", "own"), ("as-it-was/dir/inside", "own")],
    )?;
    let parent = layer.join("as-it-was");
    fs::create_dir(parent.join("empty"))?;
    symlink("dir", parent.join("link"))?;
    symlink("nowhere", parent.join("dangling"))?;
    folder(&findings.scratch.join("elsewhere"), &[])
}

/// Calls the learner's function with a directory that is found by its descriptor alone: it has another name by then,
/// and the caller is elsewhere.
fn marked(findings: &Findings, subject: probe::Subject, name: &[u8]) -> Result<Outcome> {
    let layer = findings.scratch.join("layer");
    subject.call_in(
        || {
            chdir(&findings.scratch.join("elsewhere"))?;
            let parent = opened(&layer.join("as-it-was"))?;
            fs::rename(layer.join("as-it-was"), layer.join("parent"))?;
            Ok(std::mem::ManuallyDrop::new(parent))
        },
        |parent| step08_overlay::mark(&parent, OsStr::from_bytes(name)),
        |_| Ok(()),
    )
}

/// What a file is, as overlayfs sees it.
fn nature(path: &Path) -> Result<String> {
    let Ok(found) = fs::symlink_metadata(path) else {
        return Ok(NONE.into());
    };
    let kind = found.file_type();
    let device = (libc::major(found.rdev()), libc::minor(found.rdev()));
    Ok(if kind.is_dir() {
        let all = attributes(&File::open(path)?)?;
        let opaque = all.iter().find(|(key, _)| key == "trusted.overlay.opaque");
        match opaque.map(|(_, value)| &value[..]) {
            None => DIRECTORY.into(),
            Some(b"y") => OPAQUE.into(),
            Some(value) => format!(
                "a directory that is opaque={:?}",
                String::from_utf8_lossy(value)
            ),
        }
    } else if kind.is_char_device() && device == (0, 0) {
        WHITEOUT.into()
    } else if kind.is_char_device() {
        format!("a character device {}:{}", device.0, device.1)
    } else if kind.is_symlink() {
        LINK.into()
    } else {
        format!(
            "a file with {:?}",
            fs::read_to_string(path).unwrap_or_default()
        )
    })
}

/// All that is in the layer's directory, its own nature and that of the one above included.
fn natures(findings: &Findings) -> Result<BTreeMap<String, String>> {
    let parent = findings.scratch.join("layer/parent");
    let mut all = BTreeMap::from([
        (".".into(), nature(&parent)?),
        ("..".into(), nature(&findings.scratch.join("layer"))?),
        ("dir/inside".into(), nature(&parent.join("dir/inside"))?),
    ]);
    for entry in fs::read_dir(&parent)? {
        let entry = entry?;
        all.insert(plain(&entry.file_name()), nature(&entry.path())?);
    }
    for entry in fs::read_dir(findings.scratch.join("elsewhere"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        all.insert(
            format!("{name} in the caller's directory"),
            nature(&entry.path())?,
        );
    }
    Ok(all)
}

/// A name as text; one that is none, with its bytes.
fn plain(name: &OsStr) -> String {
    match name.to_str() {
        Some(text) => text.into(),
        None => name.as_bytes().escape_ascii().to_string(),
    }
}

/// What is there before and stays.
fn before() -> BTreeMap<String, String> {
    let each = [
        (".", DIRECTORY),
        ("..", DIRECTORY),
        ("dir", DIRECTORY),
        ("dir/inside", OWN),
        ("empty", DIRECTORY),
        ("file", OWN),
        ("link", LINK),
        ("dangling", LINK),
    ];
    each.map(|(name, nature)| (name.into(), nature.into()))
        .into()
}

/// What was returned, in the words of [`Entry::returns`].
fn returned(outcome: &Outcome) -> &'static str {
    match outcome.value::<bool>() {
        Some(true) => MARKED,
        Some(false) => NO_MARK,
        None if outcome.is_error() => ERROR,
        None => "no end",
    }
}

/// Where natures differ from those that were wanted, for the learner.
fn differences(seen: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> Vec<String> {
    let nothing = NONE.to_owned();
    let names = seen
        .keys()
        .chain(wanted.keys().filter(|name| !seen.contains_key(*name)));
    names
        .filter(|name| seen.get(*name) != wanted.get(*name))
        .map(|name| format!("{name} is {}", seen.get(name).unwrap_or(&nothing)))
        .collect()
}

fn try_out(findings: &Findings, entry: &Entry) -> Result<()> {
    let name = String::from_utf8_lossy(entry.name).into_owned();
    let mut what: Vec<String> = entry
        .after
        .iter()
        .map(|(name, nature)| format!("{name} is then {nature}"))
        .collect();
    what.push(format!("mark({name:?}) returns {}", entry.returns));
    let expected = format!("{}: {}", entry.claim, what.join(", and "));
    findings.begin(&expected);
    begin_again(findings)?;
    let outcome = marked(findings, findings.subject(), entry.name)?;
    let natures = natures(findings)?;
    let mut wanted = before();
    let after = entry.after.iter();
    wanted.extend(after.map(|(name, nature)| ((*name).to_owned(), (*nature).to_owned())));
    let mut different = differences(&natures, &wanted);
    let ended = returned(&outcome);
    match outcome.value::<bool>() {
        Some(_) if ended == entry.returns => {}
        Some(value) => different.push(format!("it returned {value}")),
        None if ended == entry.returns => {}
        None => different.push(outcome.in_words()),
    }
    let shows = |(name, nature, _): &&(&str, &str, &str)| match *name {
        RETURNED => ended == *nature,
        name => natures.get(name).map_or(NONE, String::as_str) == *nature,
    };
    let why = entry.mistakes.iter().find(shows).map(|(_, _, why)| *why);
    let seen = match different.is_empty() {
        true => "so it is".into(),
        false => different.join("; "),
    };
    let holds = different.is_empty();
    let claim = Claim::new(expected, seen, holds);
    findings.claim(claim.because(why.filter(|_| !holds).map(Into::into)));
    findings.caller_stays(&outcome, &[]);
    Ok(())
}

/// An archive may have the same mark twice.
fn whiteout_twice(findings: &Findings) -> Result<()> {
    let expected = "a mark that the archive has twice is no error";
    findings.begin(expected);
    begin_again(findings)?;
    let layer = findings.scratch.join("layer");
    let outcome = findings.subject().call_in(
        || {
            Ok(std::mem::ManuallyDrop::new(opened(
                &layer.join("as-it-was"),
            )?))
        },
        |parent| {
            let name = OsStr::new(".wh.below");
            let first = step08_overlay::mark(&parent, name)?;
            Ok(first && step08_overlay::mark(&parent, name)?)
        },
        |_| Ok(()),
    )?;
    let there = nature(&layer.join("as-it-was/below"))?;
    let holds = returned(&outcome) == MARKED && there == WHITEOUT;
    let seen = match outcome.value::<bool>() {
        Some(value) => format!("it returned {value}, and the name is {there}"),
        None => outcome.in_words(),
    };
    findings.claim(Claim::new(expected, seen, holds));
    Ok(())
}

/// No call's error is thrown away.
fn each_call(findings: &Findings) -> Result<()> {
    for (name, place, wanted) in [
        (".wh.below", "below", WHITEOUT),
        (".wh.dir", "dir", OPAQUE),
        (".wh..wh..opq", ".", OPAQUE),
    ] {
        if !findings.all_hold() {
            break;
        }
        findings.each_call_fails(
            &format!("mark({name:?})"),
            MARKING,
            |subject| {
                begin_again(findings)?;
                marked(findings, subject, name.as_bytes())
            },
            || {
                let parent = findings.scratch.join("layer/parent");
                nature(&parent.join(place)).is_ok_and(|nature| nature == wanted)
            },
            |outcome| outcome.changes(&[]),
        )?;
    }
    Ok(())
}

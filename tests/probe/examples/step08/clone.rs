//! 8.2: copies of a made-up tree of mounts.

use crate::table::{Mounted, folder, in_memory, mounts_at, propagation, text_of, tmpfs};
use probe::anyhow::{Context, Result};
use probe::nix::errno::Errno;
use probe::nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open};
use probe::nix::mount::{MntFlags, MsFlags, umount2};
use probe::nix::sys::stat::Mode;
use probe::{Claim, Findings, Outcome, Watcher, libc, private_mounts};
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use step01_uts::Refused;
use step08_overlay::{MountAttributes, move_mount};

/// What is said of a copy that no mount can be made of.
const NOT_MOUNTED: &str = "the copy can't be mounted";

/// The calls by which a copy is made and changed.
const COPYING: &[(libc::c_long, &str, Errno)] = &[
    (libc::SYS_open_tree, "open_tree(2)", Errno::EPERM),
    (libc::SYS_mount_setattr, "mount_setattr(2)", Errno::EPERM),
    (libc::SYS_mount, "mount(2)", Errno::EPERM),
    (libc::SYS_move_mount, "move_mount(2)", Errno::EPERM),
];

/// A copy that is to be made.
struct Copy {
    claim: &'static str,
    attributes: MountAttributes,
    /// What each of the three mounts has more, and what less.
    more: [&'static [&'static str]; 3],
    less: [&'static [&'static str]; 3],
    /// How each is tied to others.
    tied: [&'static str; 3],
}

const PLAIN: MountAttributes = MountAttributes {
    set: 0,
    clear: 0,
    propagation: 0,
    topmost: false,
};

const NOTHING: [&[&str]; 3] = [&[]; 3];
/// How the three mounts of the original are tied to others.
const AS_BEFORE: [&str; 3] = ["shared", "shared", ""];

const COPIES: &[Copy] = &[
    Copy {
        claim: "without attributes the copy is like the original",
        attributes: PLAIN,
        more: NOTHING,
        less: NOTHING,
        tied: AS_BEFORE,
    },
    Copy {
        claim: "with MOUNT_ATTR_RDONLY all of it is read-only, and nothing else is different",
        attributes: MountAttributes {
            set: libc::MOUNT_ATTR_RDONLY,
            ..PLAIN
        },
        more: [&["ro"]; 3],
        less: [&["rw"]; 3],
        tied: AS_BEFORE,
    },
    Copy {
        claim: "with `topmost` only the topmost mount is changed",
        attributes: MountAttributes {
            set: libc::MOUNT_ATTR_RDONLY,
            topmost: true,
            ..PLAIN
        },
        more: [&["ro"], &[], &[]],
        less: [&["rw"], &[], &[]],
        tied: AS_BEFORE,
    },
    Copy {
        claim: "what is to be cleared is cleared, and what is to be set is set",
        attributes: MountAttributes {
            set: libc::MOUNT_ATTR_NOEXEC | libc::MOUNT_ATTR_NODEV,
            clear: libc::MOUNT_ATTR_NOSUID,
            ..PLAIN
        },
        more: [
            &["noexec", "nodev"],
            &["noexec", "nodev"],
            &["noexec", "nodev"],
        ],
        less: [&["nosuid"]; 3],
        tied: AS_BEFORE,
    },
    Copy {
        claim: "with MS_PRIVATE nothing ties the copy to other mounts",
        attributes: MountAttributes {
            propagation: libc::MS_PRIVATE,
            ..PLAIN
        },
        more: NOTHING,
        less: NOTHING,
        tied: ["", "", ""],
    },
    Copy {
        claim: "with MS_SLAVE the copy hears of the original's mounts, and tells it of none",
        attributes: MountAttributes {
            propagation: libc::MS_SLAVE,
            ..PLAIN
        },
        more: NOTHING,
        less: NOTHING,
        tied: ["master", "master", ""],
    },
    Copy {
        claim: "with MS_SHARED all of it tells others of its mounts",
        attributes: MountAttributes {
            propagation: libc::MS_SHARED,
            ..PLAIN
        },
        more: NOTHING,
        less: NOTHING,
        tied: ["shared", "shared", "shared"],
    },
    Copy {
        claim: "with MS_UNBINDABLE and an option all of it gets both",
        attributes: MountAttributes {
            set: libc::MOUNT_ATTR_RDONLY,
            propagation: libc::MS_UNBINDABLE,
            ..PLAIN
        },
        more: [&["ro"]; 3],
        less: [&["rw"]; 3],
        tied: ["unbindable"; 3],
    },
];

pub fn clone_tree(findings: &Findings) -> Result<()> {
    in_memory(findings)?;
    findings.play(&[
        copies,
        by_a_link,
        of_a_file,
        of_a_directory,
        of_nothing,
        by_an_old_kernel,
        each_call,
    ])
}

/// The tree of mounts, and where its copy is looked at.
struct Tree {
    source: PathBuf,
    place: PathBuf,
}

/// The three mounts of the tree, from the topmost on.
const MOUNTS: [(&str, MsFlags); 3] = [
    ("", MsFlags::MS_NOSUID),
    ("below", MsFlags::MS_NODEV),
    ("below/deep", MsFlags::MS_NOEXEC),
];

impl Tree {
    fn of(findings: &Findings) -> Result<Tree> {
        let tree = Tree {
            source: findings.scratch.join("a source"),
            place: findings.scratch.join("place"),
        };
        folder(&tree.source, &[])?;
        folder(&tree.place, &[])?;
        Ok(tree)
    }

    /// Mounts it, in a process that has mounts of its own from then on.
    fn mount(&self) -> Result<()> {
        private_mounts()?;
        for (name, flags) in MOUNTS {
            tmpfs(&self.source.join(name), flags)?;
        }
        fs::write(self.source.join("file"), "text")?;
        fs::create_dir(self.source.join("plain"))?;
        fs::write(self.source.join("plain/file"), "deep")?;
        for name in ["", "below"] {
            propagation(&self.source.join(name), MsFlags::MS_SHARED)?;
        }
        Ok(())
    }
}

/// A copy as it was seen: what changed before it was mounted anywhere, whether it closes on execve, its mounts (name,
/// options, tags), and the original's.
type Seen = (Vec<String>, bool, Vec<Row>, Vec<Row>);
type Row = (String, BTreeSet<String>, Vec<String>);

fn rows(place: &Path) -> Result<Vec<Row>> {
    let row = |mounted: Mounted| {
        let name = mounted.target.strip_prefix(place).map(Path::to_owned);
        let name = name.unwrap_or_default().display().to_string();
        (name, mounted.options, mounted.tags)
    };
    Ok(mounts_at(place)?.into_iter().map(row).collect())
}

/// What is otherwise in the table of all mounts.
fn new_lines(before: &[Mounted]) -> Result<Vec<String>> {
    let after = mounts_at(Path::new("/"))?;
    let line = |mounted: &Mounted| format!("{}: {}", mounted.target.display(), mounted.in_words());
    let new = after.iter().filter(|each| !before.contains(each));
    let gone = before.iter().filter(|each| !after.contains(each));
    Ok(new
        .map(|each| format!("there is {}", line(each)))
        .chain(gone.map(|each| format!("there was {}", line(each))))
        .collect())
}

/// Looks at the copy that the learner's function has made.
fn look(tree: &Tree, copy: &OwnedFd, before: &[Mounted]) -> Result<Seen> {
    let new = new_lines(before)?;
    let flags = FdFlag::from_bits_truncate(fcntl(copy, FcntlArg::F_GETFD)?);
    let point = open(&tree.place, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    move_mount(copy, &point).context(NOT_MOUNTED)?;
    let seen = (
        new,
        flags.contains(FdFlag::FD_CLOEXEC),
        rows(&tree.place)?,
        rows(&tree.source)?,
    );
    // Otherwise what goes here goes in the original, too.
    propagation(&tree.place, MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
    umount2(&tree.place, MntFlags::MNT_DETACH)?;
    Ok(seen)
}

fn copied(findings: &Findings, tree: &Tree, attributes: &MountAttributes) -> Result<Outcome> {
    findings.subject().call_in(
        || {
            tree.mount()?;
            mounts_at(Path::new("/"))
        },
        |before| {
            let copy = step08_overlay::clone_tree(&tree.source, attributes)?;
            look(tree, &copy, &before)
        },
        |_| Ok(()),
    )
}

fn copies(findings: &Findings) -> Result<()> {
    let tree = Tree::of(findings)?;
    for copy in COPIES {
        if findings.all_hold() {
            findings.begin(copy.claim);
            let outcome = copied(findings, &tree, &copy.attributes)?;
            judge(findings, copy, &outcome);
        }
    }
    Ok(())
}

/// The kinds of a mount's tags: `shared:7` without the number, and nothing of how it came to be.
fn kinds(tags: &[String]) -> String {
    let kinds = tags.iter().map(|tag| tag.split(':').next().unwrap_or(tag));
    kinds.collect::<Vec<_>>().join(" ")
}

fn row_in_words((name, options, tags): &Row) -> String {
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let place = Path::new("copy").join(name);
    let place = place.display().to_string();
    let place = place.trim_end_matches('/');
    match kinds(tags) {
        tied if tied.is_empty() => format!("{place}: {}", options.join(",")),
        tied => format!("{place}: {} {tied}", options.join(",")),
    }
}

/// What the copy's mounts have to be, by the original's.
fn wanted(copy: &Copy, original: &[Row]) -> Vec<Row> {
    let each = original.iter().enumerate();
    each.map(|(at, (name, options, _))| {
        let mut options = options.clone();
        copy.less[at].iter().for_each(|less| {
            options.remove(*less);
        });
        options.extend(copy.more[at].iter().map(|more| (*more).to_owned()));
        let tags = match copy.tied[at] {
            "" => Vec::new(),
            tied => vec![tied.to_owned()],
        };
        (name.clone(), options, tags)
    })
    .collect()
}

/// A row, but for the numbers of its tags.
fn plain((name, options, tags): &Row) -> Row {
    (name.clone(), options.clone(), vec![kinds(tags)])
}

/// The options that some mount of `rows` has and the same mount of `others` hasn't.
fn more_options(rows: &[Row], others: &[Row]) -> Vec<String> {
    let pairs = rows.iter().zip(others);
    let each = pairs.flat_map(|((_, options, _), (_, others, _))| options.difference(others));
    each.cloned().collect::<BTreeSet<_>>().into_iter().collect()
}

/// Why a copy isn't what was wanted, as far as one mistake alone leads to it.
fn what_is_wrong(copy: &Copy, seen: &[Row], wanted: &[Row], original: &[Row]) -> Option<String> {
    let tied =
        |rows: &[Row]| -> Vec<String> { rows.iter().map(|(.., tags)| kinds(tags)).collect() };
    let topmost = copy.attributes.topmost;
    let (more, less) = (more_options(seen, wanted), more_options(wanted, seen));
    let beyond = more_options(seen, original);
    let unasked: Vec<&str> = beyond
        .iter()
        .map(String::as_str)
        .filter(|option| !copy.more.iter().any(|more| more.contains(option)))
        .collect();
    Some(if seen.len() < wanted.len() && topmost {
        "the mounts below aren't copied: `topmost` says whose attributes are changed, and not what is copied".into()
    } else if seen.len() < wanted.len() {
        "the mounts below aren't copied: open_tree copies them with AT_RECURSIVE alone".into()
    } else if !unasked.is_empty() {
        format!("nobody asked for {}", unasked.join(","))
    } else if topmost && !more.is_empty() {
        "`topmost` isn't heeded: the mounts below keep what they have".into()
    } else if copy.attributes != PLAIN && seen == original {
        "the attributes aren't heeded: the copy is like the original".into()
    } else if seen[0] == wanted[0] && seen[1..] == original[1..] {
        "every mount has attributes of its own: those below the topmost are changed only with AT_RECURSIVE".into()
    } else if copy.attributes.propagation == 0 && tied(seen) != tied(original) {
        "nobody asked for another propagation: with 0 the copy is tied to others as the original is"
            .into()
    } else if copy.attributes.propagation != 0
        && more.is_empty()
        && less.is_empty()
        && tied(seen) == tied(original)
    {
        "`propagation` isn't heeded".into()
    } else if less.is_empty()
        && more
            .iter()
            .all(|option| copy.less.iter().any(|less| less.contains(&&**option)))
    {
        "`clear` isn't heeded: what the original has, and the copy isn't to have, is still there"
            .into()
    } else {
        return None;
    })
}

fn judge(findings: &Findings, copy: &Copy, outcome: &Outcome) {
    let Some((new, closes, mounts, original)) = outcome.value::<Seen>() else {
        findings.claim(Claim::new(copy.claim, outcome.in_words(), false));
        return;
    };
    let wanted = wanted(copy, &original);
    let [seen, due, was] =
        [&mounts, &wanted, &original].map(|rows| rows.iter().map(plain).collect::<Vec<_>>());
    let holds = seen == due;
    let why = what_is_wrong(copy, &seen, &due, &was);
    let words = |rows: &[Row]| rows.iter().map(row_in_words).collect::<Vec<_>>().join("; ");
    let expected = format!("{}: {}", copy.claim, words(&wanted));
    let claim = Claim::new(expected, words(&mounts), holds);
    findings.claim(claim.because(why.filter(|_| !holds)));
    let seen = match new.is_empty() {
        true => "the table of mounts is the same".into(),
        false => new.join("; "),
    };
    let expected =
        "the original stays as it is, and the copy is mounted nowhere (/proc/PID/mountinfo)";
    let claim = Claim::new(expected, seen, new.is_empty());
    let why = "the copy is a mount of its own: whatever is changed is changed in the copy, by its descriptor";
    findings.claim(claim.because((!new.is_empty()).then(|| why.into())));
    if !new.is_empty() {
        return;
    }
    let seen = if closes {
        "FD_CLOEXEC is set"
    } else {
        "FD_CLOEXEC isn't set"
    };
    let claim = Claim::new("the copy's descriptor closes on execve", seen, closes);
    let why = "a command would get it: a directory of the host, open (OPEN_TREE_CLOEXEC)";
    findings.claim(claim.because((!closes).then(|| why.into())));
    findings.caller_stays(outcome, &[]);
}

/// Copies another source of the same tree, and reads a file of the copy.
fn read_in_copy(findings: &Findings, source: &str, file: &str) -> Result<Outcome> {
    let tree = Tree::of(findings)?;
    let link = findings.scratch.join("link");
    if !link.is_symlink() {
        symlink(&tree.source, link)?;
    }
    let source = findings.scratch.join(source);
    let read_only = MountAttributes {
        set: libc::MOUNT_ATTR_RDONLY,
        ..PLAIN
    };
    findings.subject().call_in(
        || {
            tree.mount()?;
            // What isn't a directory needs a file to lie on.
            let place = findings.scratch.join("file-place");
            fs::write(&place, "")?;
            Ok(if source.is_dir() {
                tree.place.clone()
            } else {
                place
            })
        },
        |place| {
            let copy = step08_overlay::clone_tree(&source, &read_only)?;
            let point = open(&place, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
            move_mount(&copy, &point).context(NOT_MOUNTED)?;
            let top = mounts_at(&place)?.into_iter().next();
            let options = top.map(|mounted| mounted.in_words());
            let text = text_of(&place.join(file).components().collect::<PathBuf>());
            propagation(&place, MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
            umount2(&place, MntFlags::MNT_DETACH)?;
            Ok((text, options))
        },
        |_| Ok(()),
    )
}

fn claim_text(
    findings: &Findings,
    expected: &str,
    outcome: &Outcome,
    text: &str,
    why: Option<&str>,
) {
    let seen: Option<(String, Option<String>)> = outcome.value();
    let holds = seen.as_ref().is_some_and(|(there, options)| {
        let options = options.as_deref().unwrap_or_default();
        there == text && options.split([',', ' ']).any(|option| option == "ro")
    });
    let seen = match seen {
        Some((there, options)) => format!(
            "its file has {there:?}, its options are {}",
            options.unwrap_or_default()
        ),
        None => outcome.in_words(),
    };
    let claim = Claim::new(expected, seen, holds);
    findings.claim(claim.because(why.filter(|_| !holds).map(Into::into)));
    findings.caller_stays(outcome, &[]);
}

fn by_a_link(findings: &Findings) -> Result<()> {
    let expected = "of a link that which it leads to is copied, read-only if that was asked for";
    findings.begin(expected);
    let outcome = read_in_copy(findings, "link", "file")?;
    let is_the_link = outcome.error().contains(NOT_MOUNTED);
    let why = "the link itself was copied, and not what it leads to: nobody asked for AT_SYMLINK_NOFOLLOW";
    claim_text(
        findings,
        expected,
        &outcome,
        "text",
        is_the_link.then_some(why),
    );
    Ok(())
}

fn of_a_file(findings: &Findings) -> Result<()> {
    let expected = "a file can be copied as a mount, too, read-only if that was asked for";
    findings.begin(expected);
    let outcome = read_in_copy(findings, "a source/file", "")?;
    claim_text(findings, expected, &outcome, "text", None);
    Ok(())
}

fn of_a_directory(findings: &Findings) -> Result<()> {
    let expected =
        "a directory on which nothing is mounted can be copied, read-only if that was asked for";
    findings.begin(expected);
    let outcome = read_in_copy(findings, "a source/plain", "file")?;
    claim_text(findings, expected, &outcome, "deep", None);
    Ok(())
}

/// Claims that an error is a [`Refused`] with `errno`.
fn claim_refused(
    findings: &Findings,
    subject: probe::Subject,
    source: &str,
    expected: &str,
    errno: Errno,
) -> Result<()> {
    let tree = Tree::of(findings)?;
    let source = findings.scratch.join(source);
    let read_only = MountAttributes {
        set: libc::MOUNT_ATTR_RDONLY,
        ..PLAIN
    };
    let outcome = subject.call_in(
        || tree.mount(),
        |()| {
            let error = step08_overlay::clone_tree(&source, &read_only).err();
            Ok(error.map(|error| {
                let refused = error.downcast_ref::<Refused>();
                let errno = refused.map(|refused| refused.errno);
                (format!("{error:#}"), errno)
            }))
        },
        |_| Ok(()),
    )?;
    let error: Option<Option<(String, Option<i32>)>> = outcome.value();
    let (seen, why) = match &error {
        None => (outcome.in_words(), outcome.why_no_error()),
        Some(None) => (
            "it returned Ok".into(),
            Some("the error is thrown away: the copy isn't what was asked for, and nobody is told".into()),
        ),
        Some(Some((text, None))) => (
            format!("the error isn't a Refused: {text}"),
            Some("the error has lost its type: call! makes a Refused, which names the call, and ? hands it on".into()),
        ),
        Some(Some((text, _))) => (format!("it returned the error: {text}"), None),
    };
    let holds = matches!(error, Some(Some((_, Some(seen)))) if seen == errno as i32);
    findings.claim(Claim::new(expected, seen, holds).because(why.filter(|_| !holds)));
    findings.claim(outcome.keeps_caller("clone_tree, which failed,", &[]));
    Ok(())
}

fn of_nothing(findings: &Findings) -> Result<()> {
    let expected = "where there is no source the error is a Refused with ENOENT";
    findings.begin(expected);
    claim_refused(
        findings,
        findings.subject(),
        "missing",
        expected,
        Errno::ENOENT,
    )?;
    let was_made = findings.scratch.join("missing").exists();
    let seen = if was_made {
        "the source was made"
    } else {
        "there is none"
    };
    findings.claim(Claim::new("clone_tree makes no directory", seen, !was_made));
    Ok(())
}

fn by_an_old_kernel(findings: &Findings) -> Result<()> {
    let expected =
        "where the kernel has no mount_setattr (ENOSYS) the error is a Refused with ENOSYS";
    findings.begin(expected);
    let watcher = Watcher::refuses_all(libc::SYS_mount_setattr, Errno::ENOSYS);
    claim_refused(
        findings,
        findings.subject().watch(watcher),
        "a source",
        expected,
        Errno::ENOSYS,
    )
}

/// No call's error is thrown away.
fn each_call(findings: &Findings) -> Result<()> {
    let tree = Tree::of(findings)?;
    let attributes = MountAttributes {
        set: libc::MOUNT_ATTR_RDONLY,
        propagation: libc::MS_PRIVATE,
        ..PLAIN
    };
    findings.each_call_fails(
        "clone_tree",
        COPYING,
        |subject| {
            subject.call_in(
                || tree.mount(),
                |()| step08_overlay::clone_tree(&tree.source, &attributes).map(drop),
                |_| Ok(()),
            )
        },
        || false,
        |outcome| outcome.changes(&[]),
    )?;
    Ok(())
}

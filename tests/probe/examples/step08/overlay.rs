//! 8.1: overlays of made-up layers, beside one that is mounted as the docs say.

use crate::table::{Mounted, folder, in_memory, mounts_at, opened, text_of, tmpfs};
use probe::anyhow::{Context, Result};
use probe::nix::errno::Errno;
use probe::nix::mount::{MntFlags, MsFlags, mount, umount2};
use probe::nix::unistd::chdir;
use probe::{Claim, Findings, Outcome, libc, private_mounts};
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use step01_uts::Refused;

/// The calls by which an overlay is mounted, and the caller goes to its layers and back.
const MOUNTING: &[(libc::c_long, &str, Errno)] = &[
    (libc::SYS_mount, "mount(2)", Errno::EINVAL),
    (libc::SYS_fsopen, "fsopen(2)", Errno::EPERM),
    (libc::SYS_fsconfig, "fsconfig(2)", Errno::EINVAL),
    (libc::SYS_fsmount, "fsmount(2)", Errno::EPERM),
    (libc::SYS_move_mount, "move_mount(2)", Errno::EPERM),
    (libc::SYS_openat, "open(2)", Errno::EMFILE),
    (libc::SYS_chdir, "chdir(2)", Errno::EACCES),
    (libc::SYS_fchdir, "fchdir(2)", Errno::EACCES),
];

/// More layers than have room in a page by paths, and as many as have it by numbers.
const MANY: usize = 400;

pub fn mount_overlay(findings: &Findings) -> Result<()> {
    in_memory(findings)?;
    findings.play(&[
        layers,
        volatile,
        odd_names,
        many,
        on_two_mounts,
        no_target,
        each_call,
        without_directory,
    ])
}

/// The directories of an overlay to come, below one place.
struct Place(PathBuf);

impl Place {
    /// Makes them anew: some layers, the topmost first, and what they have.
    fn make(findings: &Findings, layers: &[(&str, &[(&str, &str)])]) -> Result<Place> {
        let place = Place(findings.scratch.join("overlay"));
        folder(&place.0, &[])?;
        for (name, files) in layers {
            folder(&place.0.join(name), files)?;
        }
        for name in ["upper", "work", "target"] {
            folder(&place.0.join(name), &[])?;
        }
        Ok(place)
    }

    fn target(&self) -> PathBuf {
        self.0.join("target")
    }

    /// These directories, open.
    fn open(&self, names: &[&str]) -> Result<Vec<OwnedFd>> {
        names
            .iter()
            .map(|name| opened(&self.0.join(name)))
            .collect()
    }
}

/// What an overlay has to be made of.
struct Parts {
    lower: Vec<OwnedFd>,
    upper: OwnedFd,
    work: OwnedFd,
}

impl Parts {
    fn open(place: &Place, layers: &[&str]) -> Result<Parts> {
        Ok(Parts {
            lower: place.open(layers)?,
            upper: opened(&place.0.join("upper"))?,
            work: opened(&place.0.join("work"))?,
        })
    }

    /// Has the learner's function mount them.
    fn mount(&self, volatile: bool, target: &Path) -> Result<()> {
        step08_overlay::mount_overlay(&self.lower, &self.upper, &self.work, volatile, target)
    }
}

/// The options of an overlay on `target`, without those that name directories; nothing where there is none.
fn options(target: &Path) -> Result<Option<(BTreeSet<String>, BTreeSet<String>)>> {
    let top = mounts_at(target)?.pop();
    let overlay = top.filter(|mounted| mounted.kind == "overlay" && mounted.target == target);
    let names_one = |option: &String| {
        let key = option.split('=').next().unwrap_or_default();
        ["lowerdir", "upperdir", "workdir", "lowerdir+", "datadir+"].contains(&key)
    };
    Ok(overlay.map(
        |Mounted {
             options, of_all, ..
         }| {
            let of_all = of_all.into_iter().filter(|option| !names_one(option));
            (options, of_all.collect())
        },
    ))
}

/// The same of an overlay that is mounted as the docs say, somewhere else.
fn options_of_ours(place: &Path, volatile: bool) -> Result<(BTreeSet<String>, BTreeSet<String>)> {
    let parts = ["low", "up", "work", "target"].map(|name| place.join("ours").join(name));
    for part in &parts {
        folder(part, &[])?;
    }
    let [low, up, work, target] = &parts;
    let end = if volatile { ",volatile" } else { "" };
    let (low, up, work) = (low.display(), up.display(), work.display());
    let data = format!("lowerdir={low},upperdir={up},workdir={work}{end}");
    let overlay = Some("overlay");
    mount(overlay, target, overlay, MsFlags::empty(), Some(&*data))
        .context("an overlay of ours")?;
    let options = options(target)?.context("an overlay of ours isn't there")?;
    umount2(target, MntFlags::empty())?;
    Ok(options)
}

const HIGH: (&str, &[(&str, &str)]) = ("high", &[("both", "high"), ("all", "high")]);
const LOW: (&str, &[(&str, &str)]) = (
    "low",
    &[
        ("both", "low"),
        ("all", "low"),
        ("low", "low"),
        ("gone", "low"),
    ],
);

/// What is read through the overlay, and where options differ from those that were asked for.
type Seen = (Vec<String>, Vec<String>);

/// The words for options that are there and shouldn't, and for those that should be there and aren't.
fn differences(seen: &BTreeSet<String>, wanted: &BTreeSet<String>, whose: &str) -> Vec<String> {
    let more = seen
        .difference(wanted)
        .map(|each| format!("{each} is set for {whose}"));
    let less = wanted
        .difference(seen)
        .map(|each| format!("{each} isn't set for {whose}"));
    more.chain(less).collect()
}

/// Mounts, looks, changes something through the overlay, and unmounts.
fn looked_through(findings: &Findings, place: &Place, volatile: bool) -> Result<Outcome> {
    fs::write(place.0.join("upper/all"), "upper")?;
    let target = place.target();
    findings.subject().call_in(
        || {
            private_mounts()?;
            chdir(&place.0)?;
            Ok((
                Parts::open(place, &["high", "low"])?,
                options_of_ours(&place.0, volatile)?,
            ))
        },
        |(parts, (of_ours, of_all_ours))| {
            let parts = std::mem::ManuallyDrop::new(parts);
            parts.mount(volatile, &target)?;
            let texts = ["both", "low", "all"].map(|name| text_of(&target.join(name)));
            let different = match options(&target)? {
                None => vec!["there is no overlay on it".into()],
                Some((of_mount, of_all)) => [
                    differences(&of_mount, &of_ours, "the mount"),
                    differences(&of_all, &of_all_ours, "the overlay"),
                ]
                .concat(),
            };
            let _ = fs::write(target.join("low"), "changed");
            let _ = fs::remove_file(target.join("gone"));
            umount2(&target, MntFlags::empty())?;
            Ok::<Seen, _>((texts.into(), different))
        },
        |_| Ok(()),
    )
}

/// Which directory wins, and where changes go.
fn layers(findings: &Findings) -> Result<()> {
    let expected = "of two layers the first one lies above the second, and upper above both";
    findings.begin(expected);
    let place = Place::make(findings, &[HIGH, LOW])?;
    let outcome = looked_through(findings, &place, false)?;
    let Some((texts, different)) = outcome.value::<Seen>() else {
        findings.claim(Claim::new(expected, outcome.in_words(), false));
        return Ok(());
    };
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let why = match &texts[..] {
        ["high", "low", "upper"] => None,
        ["low", "low", "upper"] => {
            Some("the order is reversed: in lowerdir= the topmost comes first, as in `lower`")
        }
        ["high", missing, "upper"] if *missing != "low" => {
            Some("the layers behind the first one are left out")
        }
        ["high", "low", "high"] => Some("upper isn't above the layers"),
        _ => None,
    };
    let holds = texts == ["high", "low", "upper"];
    let seen = format!(
        "a file of both layers has {:?}, one of the second has {:?}, one of all has {:?}",
        texts[0], texts[1], texts[2]
    );
    findings.claim(Claim::new(expected, seen, holds).because(why.map(Into::into)));
    if holds {
        changes_are_above(findings, &place);
    }
    nothing_more(findings, &different, false);
    findings.caller_stays(&outcome, &[]);
    Ok(())
}

/// Whether what was changed through the overlay is in upper, and nowhere else.
fn changes_are_above(findings: &Findings, place: &Place) {
    let changed = text_of(&place.0.join("upper/low"));
    findings.claim(Claim::equal(
        "a file that is written through the overlay is then in upper",
        "upper/low",
        &changed.as_str(),
        &"changed",
    ));
    let mark = fs::symlink_metadata(place.0.join("upper/gone"));
    let is_mark = mark.is_ok_and(|mark| mark.file_type().is_char_device() && mark.rdev() == 0);
    let seen = if is_mark { "it is" } else { "it isn't" };
    findings.claim(Claim::new(
        "for a file that is removed upper has a character device 0:0",
        format!("upper/gone: {seen}"),
        is_mark,
    ));
    let below = ["low", "gone"].map(|name| text_of(&place.0.join("low").join(name)));
    findings.claim(Claim::equal(
        "the layers stay as they are",
        "low/low and low/gone",
        &below.each_ref().map(String::as_str),
        &["low", "low"],
    ));
}

/// A claim that the overlay has the options that were asked for.
fn nothing_more(findings: &Findings, different: &[String], volatile: bool) {
    let is_about = different.len() == 1 && different[0].contains("volatile");
    let why = match (is_about, volatile) {
        (true, true) => {
            "`volatile` isn't heeded: the kernel forces changes onto the disk that nobody will want"
        }
        (true, false) => {
            "it is volatile although nobody asked for that: what is to be kept may be lost in a crash"
        }
        _ => {
            "the docs name all options, and no flags: any other changes what a container can do, or what its files are"
        }
    };
    let seen = match different.is_empty() {
        true => "the same options as for one of ours".into(),
        false => different.join("; "),
    };
    let asked = if volatile { "volatile" } else { "no volatile" };
    let expected =
        format!("with {asked}, the overlay's options are those of the docs (/proc/PID/mountinfo)");
    let claim = Claim::new(expected, seen, different.is_empty());
    findings.claim(claim.because((!different.is_empty()).then(|| why.into())));
}

/// The option that isn't always asked for.
fn volatile(findings: &Findings) -> Result<()> {
    let expected = "mount_overlay mounts a volatile overlay, too";
    findings.begin(expected);
    let place = Place::make(findings, &[HIGH, LOW])?;
    let outcome = looked_through(findings, &place, true)?;
    match outcome.value::<Seen>() {
        Some((_, different)) => nothing_more(findings, &different, true),
        None => findings.claim(Claim::new(expected, outcome.in_words(), false)),
    }
    Ok(())
}

/// Mounts these layers, reads the files of that name, and unmounts. The caller is in `directory`, which then is removed.
fn read_through(
    findings: &Findings,
    place: &Place,
    names: &[&str],
    file: &str,
    directory: Option<&Path>,
) -> Result<Outcome> {
    let target = place.target();
    findings.subject().call_in(
        || {
            private_mounts()?;
            if let Some(directory) = directory {
                folder(directory, &[])?;
                chdir(directory)?;
                fs::remove_dir(directory)?;
            }
            Parts::open(place, names)
        },
        |parts| {
            let parts = std::mem::ManuallyDrop::new(parts);
            parts.mount(false, &target)?;
            let text = text_of(&target.join(file));
            umount2(&target, MntFlags::MNT_DETACH)?;
            Ok(text)
        },
        |_| Ok(()),
    )
}

/// A text without what is too long to be read in it.
fn shortened(text: &str) -> String {
    const ENDS: usize = 150;
    let length = text.chars().count();
    if length <= 3 * ENDS {
        return text.to_owned();
    }
    let first: String = text.chars().take(ENDS).collect();
    let last: String = text.chars().skip(length - ENDS).collect();
    format!("{first} … {last}")
}

/// Claims that the overlay shows a file of its last layer.
fn shows(findings: &Findings, outcome: &Outcome, expected: &str, why: &str) {
    let text: Option<String> = outcome.value();
    let seen = match &text {
        Some(text) => format!("a file of the last layer has {text:?}"),
        None => {
            let scratch = findings.scratch.display().to_string();
            shortened(&outcome.in_words().replace(&scratch, "SCRATCH"))
        }
    };
    let holds = text.as_deref() == Some("last");
    let is_it = outcome.is_error();
    let claim = Claim::new(expected, seen, holds);
    findings.claim(claim.because((is_it && !holds).then(|| why.into())));
    findings.caller_stays(outcome, &[]);
}

/// Names that mean something in the options.
fn odd_names(findings: &Findings) -> Result<()> {
    let expected = "layers whose names have : and , in them can be mounted";
    findings.begin(expected);
    let odd = ["a:b,upperdir=c", "d\\,e f"];
    let place = Place::make(findings, &[(odd[0], &[]), (odd[1], &[("file", "last")])])?;
    let outcome = read_through(findings, &place, &odd, "file", None)?;
    let why = "paths stand in the options, where : and , end them; a descriptor's number has none";
    shows(findings, &outcome, expected, why);
    Ok(())
}

/// More layers than the options have room for by their paths.
fn many(findings: &Findings) -> Result<()> {
    let expected = format!("{MANY} layers can be mounted");
    findings.begin(&expected);
    let names: Vec<String> = (0..MANY).map(|number| format!("layer{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let place = Place::make(findings, &[])?;
    for name in &names {
        fs::create_dir(place.0.join(name))?;
    }
    fs::write(place.0.join(names[MANY - 1]).join("file"), "last")?;
    let outcome = read_through(findings, &place, &names, "file", None)?;
    let why = "all options have to fit into a page, 4096 bytes: bare numbers do, paths (/proc/self/fd/7 too) don't";
    shows(findings, &outcome, &expected, why);
    Ok(())
}

/// The caller's own directory can be named by no path.
fn without_directory(findings: &Findings) -> Result<()> {
    let expected = "an overlay is mounted also where the caller's directory has been removed";
    findings.begin(expected);
    let place = Place::make(findings, &[("low", &[("file", "last")])])?;
    let gone = findings.scratch.join("gone");
    let outcome = read_through(findings, &place, &["low"], "file", Some(&gone))?;
    let why = "the way back was remembered by its path, and here it has none: a descriptor leads back in any case";
    shows(findings, &outcome, expected, why);
    Ok(())
}

/// Tries to mount what the kernel refuses, and returns the error's errno where it is a [`Refused`].
fn refused(findings: &Findings, place: &Place, target: &Path, on_two: bool) -> Result<Outcome> {
    findings.subject().call_in(
        || {
            private_mounts()?;
            chdir(&place.0)?;
            if on_two {
                tmpfs(&place.0.join("work"), MsFlags::empty())?;
            }
            Parts::open(place, &["low"])
        },
        |parts| {
            let parts = std::mem::ManuallyDrop::new(parts);
            let error = match parts.mount(false, target) {
                Ok(()) => return Ok(None),
                Err(error) => error,
            };
            let refused = error.downcast_ref::<Refused>();
            let errno = refused.map(|refused| refused.errno);
            Ok(Some((format!("{error:#}"), errno)))
        },
        |_| Ok(()),
    )
}

/// Claims that it was refused with `errno`, by that type, and that nothing is left of it.
fn claim_refused(findings: &Findings, outcome: &Outcome, expected: &str, errno: Errno) {
    let error: Option<Option<(String, Option<i32>)>> = outcome.value();
    let (seen, why) = match &error {
        None => (outcome.in_words(), outcome.why_no_error()),
        Some(None) => (
            "it returned Ok".into(),
            Some("the error of the mount is thrown away: nothing is mounted, and nobody is told".into()),
        ),
        Some(Some((text, None))) => (
            format!("the error isn't a Refused: {text}"),
            Some("the error has lost its type: call! makes a Refused, which names the call, and ? hands it on".into()),
        ),
        Some(Some((text, _))) => (format!("it returned the error: {text}"), None),
    };
    let holds = matches!(error, Some(Some((_, Some(seen)))) if seen == errno as i32);
    let claim = Claim::new(expected, seen, holds);
    findings.claim(claim.because(why.filter(|_| !holds)));
    findings.claim(outcome.keeps_caller("mount_overlay, which failed,", &[]));
}

/// What can't be an overlay.
fn on_two_mounts(findings: &Findings) -> Result<()> {
    let expected = "with upper and work on different mounts the error is a Refused with EINVAL";
    findings.begin(expected);
    let place = Place::make(findings, &[LOW])?;
    let outcome = refused(findings, &place, &place.target(), true)?;
    claim_refused(findings, &outcome, expected, Errno::EINVAL);
    Ok(())
}

/// Where nothing can be mounted.
fn no_target(findings: &Findings) -> Result<()> {
    let expected = "where there is no target the error is a Refused with ENOENT";
    findings.begin(expected);
    let place = Place::make(findings, &[LOW])?;
    let missing = place.0.join("missing");
    let outcome = refused(findings, &place, &missing, false)?;
    let was_made = missing.exists();
    let seen = match was_made {
        true => "the target was made",
        false => "the target isn't there",
    };
    let why = "nobody asked for a directory: where the target is missing something is wrong, and the caller has to know";
    let claim = Claim::new("mount_overlay makes no directory", seen, !was_made);
    findings.claim(claim.because(was_made.then(|| why.into())));
    if !was_made {
        claim_refused(findings, &outcome, expected, Errno::ENOENT);
    }
    Ok(())
}

/// No call's error is thrown away, and the caller is back in any case.
fn each_call(findings: &Findings) -> Result<()> {
    let place = Place::make(findings, &[LOW])?;
    let target = place.target();
    findings.each_call_fails(
        "mount_overlay",
        MOUNTING,
        |subject| {
            folder(&place.0.join("work"), &[])?;
            subject.call_in(
                || {
                    private_mounts()?;
                    chdir(&place.0)?;
                    Parts::open(&place, &["low"])
                },
                |parts| std::mem::ManuallyDrop::new(parts).mount(false, &target),
                |_| Ok(()),
            )
        },
        || false,
        |outcome| {
            let going = [libc::SYS_chdir, libc::SYS_fchdir];
            let is_going = outcome
                .calls
                .iter()
                .any(|call| going.contains(&call.number));
            match (is_going, outcome.is_error()) {
                // Who couldn't go back isn't back, and may have mounted it by then.
                (true, true) => outcome.changes(&["directory", "mounts"]),
                (true, false) => outcome.changes(&["mounts"]),
                (false, true) => outcome.changes(&[]),
                (false, false) => Vec::new(),
            }
        },
    )?;
    Ok(())
}

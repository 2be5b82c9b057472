//! 8.3: folders with mounts in them, that are to go.

use crate::table::{folder, in_memory, mounts_at, text_of, tmpfs};
use probe::anyhow::Result;
use probe::nix::errno::Errno;
use probe::nix::mount::{MsFlags, mount};
use probe::old;
use probe::{Claim, Findings, Outcome, Verdict, Watcher, libc, private_mounts};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// The calls by which mounts are found and go, and files are removed.
const REMOVING: &[(libc::c_long, &str, Errno)] = &[
    (libc::SYS_umount2, "umount2(2)", Errno::EBUSY),
    (libc::SYS_openat, "open(2)", Errno::EMFILE),
    (libc::SYS_openat2, "openat2(2)", Errno::EMFILE),
    (old::SYS_unlink, "unlink(2)", Errno::EPERM),
    (libc::SYS_unlinkat, "unlinkat(2)", Errno::EPERM),
    (old::SYS_rmdir, "rmdir(2)", Errno::EPERM),
];

pub fn tear_down(findings: &Findings) -> Result<()> {
    in_memory(findings)?;
    findings.play(&[
        plain,
        absent,
        mounted,
        in_use,
        beside,
        stays_mounted,
        without_table,
        each_call,
    ])
}

/// Files of the folder's own.
const OWN: [&str; 4] = ["own", "upper/own", "upper/a/b/c", "work/x"];

/// A folder that is to go, and what is beside it and has to stay.
struct Yard {
    folder: PathBuf,
    volume: PathBuf,
    /// Its name begins with the folder's.
    neighbour: PathBuf,
}

impl Yard {
    /// Makes all of it anew.
    fn of(findings: &Findings) -> Result<Yard> {
        let top = findings.scratch.join("yard");
        folder(&top, &[])?;
        let yard = Yard {
            folder: top.join("left over"),
            volume: top.join("volume"),
            neighbour: top.join("left over-2"),
        };
        folder(
            &yard.folder,
            &[
                ("own", "own"),
                ("upper/own", "own"),
                ("upper/a/b/c", "deep"),
                ("work/x", "x"),
            ],
        )?;
        folder(
            &yard.volume,
            &[("file", "precious"), ("sub/file", "precious")],
        )?;
        folder(&yard.neighbour, &[("file", "precious")])?;
        symlink(&yard.volume, yard.folder.join("upper/link"))?;
        symlink(
            yard.volume.join("file"),
            yard.folder.join("upper/file-link"),
        )?;
        fs::set_permissions(yard.folder.join("upper/a"), Permissions::from_mode(0o000))?;
        Ok(yard)
    }

    /// Shows the volume in the folder, in a process that has mounts of its own from then on.
    fn with_volume(&self) -> Result<()> {
        private_mounts()?;
        bind(&self.volume, &self.folder.join("upper/mnt"))
    }

    /// What of the others is lost.
    fn lost(&self) -> Vec<String> {
        let each = [
            (self.volume.join("file"), "the volume's file"),
            (
                self.volume.join("sub/file"),
                "the volume's file in a directory",
            ),
            (self.neighbour.join("file"), "the file of another folder"),
        ];
        each.iter()
            .filter(|(path, _)| text_of(path) != "precious")
            .map(|(_, what)| format!("{what} is lost"))
            .collect()
    }

    fn is_gone(&self) -> bool {
        !self.folder.exists()
    }
}

fn bind(source: &Path, target: &Path) -> Result<()> {
    fs::create_dir_all(target)?;
    let none = None::<&str>;
    Ok(mount(Some(source), target, none, MsFlags::MS_BIND, none)?)
}

/// Removes the folder of `yard` in a world, and looks what is mounted in the yard afterwards.
fn torn_down<W>(
    findings: &Findings,
    yard: &Yard,
    world: impl FnOnce() -> Result<W>,
) -> Result<Outcome> {
    let top = findings.scratch.join("yard");
    findings.subject().call_in(
        world,
        |world| {
            let _stays = std::mem::ManuallyDrop::new(world);
            step08_overlay::tear_down(&yard.folder)?;
            let left = mounts_at(&top)?;
            let left: Vec<PathBuf> = left.into_iter().map(|mounted| mounted.target).collect();
            Ok(left)
        },
        |_| Ok(()),
    )
}

/// Claims that the folder has gone, and nothing else.
fn claim_gone(
    findings: &Findings,
    yard: &Yard,
    outcome: &Outcome,
    expected: &str,
    why: Option<&str>,
) {
    let lost = yard.lost();
    let claim = Claim::new(
        "what others have is whole",
        match lost.is_empty() {
            true => "their files are there".into(),
            false => lost.join("; "),
        },
        lost.is_empty(),
    );
    let eaten = "files were removed through a mount, or through a link: they are somebody else's";
    findings.claim(claim.because((!lost.is_empty()).then(|| eaten.into())));
    if !lost.is_empty() {
        return;
    }
    let holds = outcome.is_ok() && yard.is_gone();
    let inside = fs::read_dir(&yard.folder).map_or(0, Iterator::count);
    let (seen, why) = match (outcome.is_ok(), yard.is_gone()) {
        (true, true) => ("it has gone".into(), None),
        (true, false) if inside == 0 => (
            "it returned Ok, and the folder is still there, empty".into(),
            Some("the folder itself goes, too, and not only what is in it"),
        ),
        (true, false) => (
            "it returned Ok, and the folder is still there, with files in it".into(),
            why.map(
                |_| "an error was thrown away: what can't be removed stays, and nobody is told",
            ),
        ),
        _ => (outcome.in_words(), why.filter(|_| outcome.is_error())),
    };
    let claim = Claim::new(expected, seen, holds);
    findings.claim(claim.because(why.map(Into::into)));
}

/// Files, directories and links, and no mounts.
fn plain(findings: &Findings) -> Result<()> {
    let expected = "tear_down removes the folder and all that is in it";
    findings.begin(expected);
    let yard = Yard::of(findings)?;
    let outcome = torn_down(findings, &yard, private_mounts)?;
    claim_gone(findings, &yard, &outcome, expected, None);
    findings.caller_stays(&outcome, &[]);
    Ok(())
}

/// There is no such folder.
fn absent(findings: &Findings) -> Result<()> {
    let expected = "without such a directory nothing happens, and that is no error";
    findings.begin(expected);
    let yard = Yard::of(findings)?;
    fs::remove_dir_all(&yard.folder)?;
    let outcome = torn_down(findings, &yard, private_mounts)?;
    let claim = Claim::new(
        expected,
        outcome.in_words(),
        outcome.is_ok() && yard.is_gone(),
    );
    let why = "ENOENT was taken for an error: what was to be removed isn't there";
    findings.claim(claim.because(outcome.is_error().then(|| why.into())));
    Ok(())
}

/// Claims that nothing is mounted in the folder any more.
fn claim_unmounted(findings: &Findings, yard: &Yard, outcome: &Outcome) {
    if !findings.all_hold() {
        return;
    }
    let left: Vec<PathBuf> = outcome.value().unwrap_or_default();
    let inside: Vec<String> = left
        .iter()
        .filter_map(|target| target.strip_prefix(&yard.folder).ok())
        .map(|target| format!("folder/{}", target.display()))
        .collect();
    let seen = match inside.is_empty() {
        true => "nothing is mounted there".into(),
        false => inside.join(", "),
    };
    let expected = "no mount is left where the folder was (/proc/PID/mountinfo)";
    findings.claim(Claim::new(expected, seen, inside.is_empty()));
}

/// Mounts at the folder, in it, on each other, and two on one directory.
fn mounted(findings: &Findings) -> Result<()> {
    let expected = "mounts in the folder go before it does, also where they lie on each other";
    findings.begin(expected);
    let yard = Yard::of(findings)?;
    let outcome = torn_down(findings, &yard, || {
        yard.with_volume()?;
        let stacked = yard.folder.join("a stack");
        for _ in 0..2 {
            bind(&yard.volume, &stacked)?;
        }
        tmpfs(&yard.folder.join("top"), MsFlags::empty())?;
        tmpfs(&yard.folder.join("top/below"), MsFlags::empty())?;
        bind(&yard.volume, &yard.folder.join("top/below/mnt"))?;
        // The overlay lies on the folder that its layers are in.
        tmpfs(&yard.folder, MsFlags::empty())?;
        bind(&yard.volume, &yard.folder.join("mnt"))
    })?;
    let why = "a mount lies below another, or on the same directory: they go from the last to the first, each of them";
    let is_it = ["umount2(", "EINVAL", "EBUSY", "busy"]
        .iter()
        .any(|word| outcome.error().contains(word));
    claim_gone(
        findings,
        &yard,
        &outcome,
        expected,
        (is_it || outcome.is_ok()).then_some(why),
    );
    claim_unmounted(findings, &yard, &outcome);
    findings.caller_stays(&outcome, &["mounts"]);
    Ok(())
}

/// A mount that somebody uses.
fn in_use(findings: &Findings) -> Result<()> {
    let expected = "a mount that is in use goes, too";
    findings.begin(expected);
    let yard = Yard::of(findings)?;
    let outcome = torn_down(findings, &yard, || {
        yard.with_volume()?;
        let inside = yard.folder.join("tmp");
        tmpfs(&inside, MsFlags::empty())?;
        fs::write(inside.join("open"), "")?;
        Ok([
            File::open(inside.join("open"))?,
            File::open(yard.folder.join("upper/mnt"))?,
        ])
    })?;
    let why = "a mount with open files is busy (EBUSY): with MNT_DETACH it goes all the same";
    let is_it = outcome.error().contains("busy") || outcome.error().contains("EBUSY");
    claim_gone(
        findings,
        &yard,
        &outcome,
        expected,
        (is_it || outcome.is_ok()).then_some(why),
    );
    claim_unmounted(findings, &yard, &outcome);
    Ok(())
}

/// Mounts above the folder and beside it.
fn beside(findings: &Findings) -> Result<()> {
    let expected = "what is mounted beside the folder, and above it, stays mounted";
    findings.begin(expected);
    let yard = Yard::of(findings)?;
    let top = findings.scratch.join("yard");
    let outcome = torn_down(findings, &yard, || {
        private_mounts()?;
        bind(&top, &top)?;
        bind(&yard.volume, &yard.neighbour.join("mnt"))?;
        bind(&yard.volume, &yard.folder.join("upper/mnt"))
    })?;
    claim_gone(
        findings,
        &yard,
        &outcome,
        "the folder beside them goes",
        None,
    );
    let wanted = [top, yard.neighbour.join("mnt")];
    let left: Vec<PathBuf> = outcome.value().unwrap_or_default();
    let missing: Vec<&str> = wanted
        .iter()
        .zip(["that above", "that beside"])
        .filter(|(target, _)| !left.contains(target))
        .map(|(_, what)| what)
        .collect();
    let seen = match missing.is_empty() {
        true => "they are mounted".into(),
        false => format!("{} isn't mounted any more", missing.join(" and ")),
    };
    let why = match missing[..] {
        ["that beside"] => Some(
            "its path only begins with the same text: names are compared whole (Path::starts_with)",
        ),
        _ => None,
    };
    let claim = Claim::new(expected, seen, missing.is_empty());
    findings.claim(claim.because(why.map(Into::into)));
    findings.caller_stays(&outcome, &["mounts"]);
    Ok(())
}

/// A mount doesn't go.
fn stays_mounted(findings: &Findings) -> Result<()> {
    let watcher = Watcher::refuses_all(libc::SYS_umount2, Errno::EBUSY);
    let why = "the error of umount2 was passed over, and the removal went on";
    nothing_goes(findings, watcher, "where a mount doesn't go (EBUSY)", why)
}

/// Nobody can say what is mounted.
fn without_table(findings: &Findings) -> Result<()> {
    let watcher = Watcher::new(&[libc::SYS_openat], |call| {
        match call.text(1).contains("mountinfo") {
            true => Verdict::Fail(Errno::EMFILE),
            false => Verdict::Go,
        }
    });
    let why =
        "that the mounts can't be known was taken for that there are none, and the removal went on";
    nothing_goes(
        findings,
        watcher,
        "where the table of mounts can't be read (EMFILE)",
        why,
    )
}

/// Claims that nothing is removed, and that this is an error.
fn nothing_goes(findings: &Findings, watcher: Watcher, when: &str, why: &str) -> Result<()> {
    let expected = format!("{when} it returns an error, and nothing is removed");
    findings.begin(&expected);
    let yard = Yard::of(findings)?;
    let outcome = findings.subject().watch(watcher).call_in(
        || yard.with_volume(),
        |()| step08_overlay::tear_down(&yard.folder),
        |_| Ok(()),
    )?;
    // Who found another way has done what was asked for.
    if outcome.is_ok() && yard.is_gone() && yard.lost().is_empty() {
        return Ok(());
    }
    let gone: Vec<&str> = OWN
        .into_iter()
        .filter(|own| !yard.folder.join(own).exists())
        .collect();
    let lost = yard.lost();
    let whole = gone.is_empty() && lost.is_empty();
    let seen = match whole {
        true => outcome.in_words(),
        false => format!(
            "{}; {} files of the folder are removed, {} of others",
            outcome.in_words(),
            gone.len(),
            lost.len()
        ),
    };
    let why = match whole {
        true => outcome.why_no_error().or_else(|| {
            Some("the error is thrown away: the folder is still there, and nobody is told".into())
        }),
        false => Some(why.into()),
    };
    let holds = whole && outcome.is_error();
    findings.claim(Claim::new(expected, seen, holds).because(why.filter(|_| !holds)));
    Ok(())
}

/// No call's error is thrown away, and what others have is whole whatever fails.
fn each_call(findings: &Findings) -> Result<()> {
    let yard = Yard::of(findings)?;
    findings.each_call_fails(
        "tear_down",
        REMOVING,
        |subject| {
            Yard::of(findings)?;
            subject.call_in(
                || yard.with_volume(),
                |()| step08_overlay::tear_down(&yard.folder),
                |_| Ok(()),
            )
        },
        || yard.is_gone() && yard.lost().is_empty(),
        |outcome| {
            let mut left = outcome.changes(&["mounts"]);
            left.extend(yard.lost());
            left
        },
    )?;
    Ok(())
}

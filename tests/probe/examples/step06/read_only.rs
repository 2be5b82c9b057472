//! 6.4: a path that can only be read, in a filesystem that can be written.

use probe::anyhow::{Context, Result};
use probe::libc::{self, c_long};
use probe::nix::errno::Errno;
use probe::nix::mount::{MsFlags, mount};
use probe::{Findings, Outcome, Subject, names, private_mounts};
use std::cell::Cell;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

pub fn make_read_only(findings: &Findings) -> Result<()> {
    private_mounts()?;
    findings.play(&[
        with_each_flag,
        a_file,
        with_a_mount_below,
        a_mount_itself,
        where_nothing_is,
        a_call_fails,
    ])
}

const MOUNTING: &[(c_long, &str, Errno)] = &[
    (libc::SYS_mount, "mount(2)", Errno::EPERM),
    (libc::SYS_open_tree, "open_tree(2)", Errno::EPERM),
    (libc::SYS_move_mount, "move_mount(2)", Errno::EPERM),
    (libc::SYS_mount_setattr, "mount_setattr(2)", Errno::EPERM),
    (libc::SYS_statfs, "statfs(2)", Errno::EIO),
    (libc::SYS_fstatfs, "fstatfs(2)", Errno::EIO),
];

/// Flags of the mount that the path is on, and how mountinfo has them.
const FLAGS: [(&str, MsFlags); 4] = [
    (
        "nosuid,nodev,noexec,relatime",
        MsFlags::MS_NOSUID
            .union(MsFlags::MS_NODEV)
            .union(MsFlags::MS_NOEXEC),
    ),
    ("relatime", MsFlags::empty()),
    (
        "nosuid,noatime",
        MsFlags::MS_NOSUID.union(MsFlags::MS_NOATIME),
    ),
    (
        "noexec,nodiratime,relatime",
        MsFlags::MS_NOEXEC
            .union(MsFlags::MS_NODIRATIME)
            .union(MsFlags::MS_RELATIME),
    ),
];

/// Where it is mounted: every machine has such a directory.
const TOP: &str = "/tmp";

/// A filesystem in the process's own mounts: directories `pro`, `process` and `a path`, with files.
struct World {
    top: PathBuf,
}

impl World {
    /// Is made in the process that calls the function, and goes with it.
    fn make(flags: MsFlags) -> Result<World> {
        private_mounts()?;
        let world = World { top: TOP.into() };
        tmpfs(&world.top, MsFlags::MS_NODEV)?;
        // A second one over it: what is below is nobody's any more.
        tmpfs(&world.top, flags)?;
        for name in ["pro", "process", "a path"] {
            let folder = world.path(name);
            fs::create_dir_all(folder.join("below/deep"))?;
            for file in ["file", "below/file", "below/deep/file"] {
                fs::write(folder.join(file), "text")?;
            }
        }
        // Its name begins the name of another, and it has other flags.
        tmpfs(&world.path("pro"), MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC)?;
        Ok(world)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.top.join(name)
    }
}

fn tmpfs(folder: &Path, flags: MsFlags) -> Result<()> {
    let kind = Some("tmpfs");
    mount(kind, folder, kind, flags, None::<&str>).context("a tmpfs of the probe's")
}

/// The options of the last mount at `path` in a table as [`probe::State`] has it, and those of its filesystem.
fn options(mounts: &[String], path: &Path) -> Option<[String; 2]> {
    let name = path.display().to_string().replace(' ', "\\040");
    let mut lines = mounts.iter().rev();
    // Device, root, mount point, options; behind the hyphen type, source and the filesystem's options.
    let line = lines.find(|line| line.split(' ').nth(2) == Some(&name))?;
    let (mount, filesystem) = line.split_once(" - ")?;
    Some([
        mount.split(' ').nth(3)?.to_owned(),
        filesystem.split(' ').nth(2)?.to_owned(),
    ])
}

/// Tries to write the file `path`.
fn write(path: &Path) -> Result<(), Errno> {
    let opened = File::options().write(true).open(path);
    opened
        .map(drop)
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or_default()))
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| error.to_string())
}

/// What can be written and read in there afterwards, as the process sees it.
fn look(world: &World, name: &str) -> Vec<String> {
    let folder = world.path(name);
    let mut wrong = Vec::new();
    for file in ["file", "below/file", "below/deep/file"] {
        match write(&folder.join(file)) {
            Err(Errno::EROFS) => {}
            Ok(()) => wrong.push(format!("{name:?}/{file} can be written")),
            Err(errno) => wrong.push(format!("{name:?}/{file} isn't there as it was: {errno}")),
        }
        let read = text(&folder.join(file));
        if wrong.is_empty() && read != "text" {
            wrong.push(format!("{name:?}/{file} doesn't read as it did: {read}"));
        }
    }
    if wrong.is_empty() && File::create(folder.join("new")).is_ok() {
        wrong.push(format!("a file can be made in {name:?}"));
    }
    let mut others = ["process", "a path"]
        .into_iter()
        .filter(|each| *each != name);
    let outside = others.find(|other| write(&world.path(other).join("file")).is_err());
    if let Some(outside) = outside {
        wrong.push(format!(
            "{outside:?}, beside it on the same filesystem, can't be written any more: not only {name:?} became read-only"
        ));
    }
    wrong
}

fn call(
    subject: Subject,
    name: &str,
    flags: MsFlags,
    more: impl FnOnce(&World) -> Result<()>,
    look: impl FnOnce(&World) -> Vec<String>,
) -> Result<Outcome> {
    subject.call_in(
        || {
            let world = World::make(flags)?;
            more(&world)?;
            Ok(world)
        },
        |world| {
            let path = world.path(name);
            step06_caps::make_read_only(&path.display().to_string())?;
            Ok(look(&world))
        },
        |_| Ok(()),
    )
}

/// What the mount table says of the path and of the mount that it is on.
fn flags_kept(outcome: &Outcome, top: &Path, name: &str, flags: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let after = &outcome.after.mounts;
    match options(after, &top.join(name)) {
        None => wrong.push(format!("{name:?} isn't a mount of its own")),
        Some([options, _]) if options != format!("ro,{flags}") => {
            wrong.push(format!(
                "/proc/PID/mountinfo: {name:?} is {options}, and not ro,{flags}, as the mount has it that it is on"
            ));
        }
        Some(_) => {}
    }
    if options(after, top) != options(&outcome.before.mounts, top) {
        let is = options(after, top)
            .unwrap_or_default()
            .join(", filesystem ");
        wrong.push(format!(
            "/proc/PID/mountinfo: the mount that {name:?} is on was changed: {is}"
        ));
    }
    wrong
}

/// Why it is so, if one mistake explains it.
fn why(outcome: &Outcome, top: &Path, name: &str, flags: &str) -> Option<String> {
    if !outcome.is_ok() {
        return None;
    }
    let after = &outcome.after.mounts;
    let has = |options: &str, option: &str| options.split(',').any(|each| each == option);
    let [mount, filesystem] = options(after, top)?;
    if has(&filesystem, "ro") {
        return Some(
            "a remount without MS_BIND is one of the whole filesystem, in whatever mount".into(),
        );
    }
    if has(&mount, "ro") {
        return Some(
            "the mount that the path is on became read-only: the path has to be a mount of its own"
                .into(),
        );
    }
    let [is, _] = options(after, &top.join(name))?;
    let lost = flags.split(',').any(|flag| !has(&is, flag));
    let added = is
        .split(',')
        .any(|flag| !has(flags, flag) && !["ro", "rw"].contains(&flag));
    let text = match (has(&is, "ro"), lost, added) {
        (false, false, false) => {
            "the path became a mount, and MS_RDONLY had no effect: the call that makes a bind mount looks at no other flag"
        }
        (true, true, false) => {
            "the remount sets all flags of the mount, and those that it doesn't name are lost"
        }
        (true, false, true) => "the remount names flags that the mount hadn't got before",
        _ => return None,
    };
    Some(text.into())
}

fn judge(findings: &Findings, name: &str, (words, flags): (&str, MsFlags)) -> Result<()> {
    let expected =
        format!("on a mount with {words} just {name:?} becomes read-only, and keeps these flags");
    findings.begin(&expected);
    let outcome = call(
        findings.subject(),
        name,
        flags,
        |_| Ok(()),
        |world| look(world, name),
    )?;
    let mut wrong: Vec<String> = outcome.value().unwrap_or_default();
    let top = Path::new(TOP);
    if wrong.is_empty() {
        wrong = flags_kept(&outcome, top, name, words);
    }
    let reason = || why(&outcome, top, name, words);
    if findings.holds(&expected, &outcome, &wrong, reason) {
        findings.caller_stays(&outcome, &["mounts"]);
    }
    Ok(())
}

fn with_each_flag(findings: &Findings) -> Result<()> {
    for (at, flags) in FLAGS.into_iter().enumerate() {
        judge(findings, ["process", "a path"][at % 2], flags)?;
        if !findings.all_hold() {
            break;
        }
    }
    Ok(())
}

fn a_file(findings: &Findings) -> Result<()> {
    let expected = "of a directory just one file becomes read-only";
    findings.begin(expected);
    let look = |world: &World| {
        let mut wrong = Vec::new();
        if write(&world.path("process/file")) != Err(Errno::EROFS) {
            wrong.push("process/file can be written".to_owned());
        }
        if text(&world.path("process/file")) != "text" {
            wrong.push("process/file doesn't read as it did".to_owned());
        }
        if write(&world.path("process/below/file")).is_err() {
            wrong.push("process/below/file can't be written any more".to_owned());
        }
        wrong
    };
    let (words, flags) = FLAGS[0];
    let outcome = call(findings.subject(), "process/file", flags, |_| Ok(()), look)?;
    let mut wrong: Vec<String> = outcome.value().unwrap_or_default();
    let top = Path::new(TOP);
    wrong.extend(flags_kept(&outcome, top, "process/file", words));
    findings.holds(expected, &outcome, &wrong, || None);
    Ok(())
}

fn with_a_mount_below(findings: &Findings) -> Result<()> {
    let expected =
        "where another filesystem is mounted below the path, nothing there can be written either";
    findings.begin(expected);
    let more = |world: &World| {
        let below = world.path("process/below");
        tmpfs(&below, MsFlags::MS_NOSUID)?;
        Ok(fs::write(below.join("file"), "text")?)
    };
    let look = |world: &World| {
        let file = world.path("process/below/file");
        match write(&file) {
            Err(Errno::EROFS) => Vec::new(),
            Ok(()) => vec!["process/below/file can be written".to_owned()],
            Err(errno) => vec![format!("process/below/file: {errno}")],
        }
    };
    let (_, flags) = FLAGS[0];
    let outcome = call(findings.subject(), "process", flags, more, look)?;
    let wrong: Vec<String> = outcome.value().unwrap_or_default();
    findings.holds(expected, &outcome, &wrong, || {
        let text = "the mount below came along (MS_REC), and has flags of its own: a remount changes one mount only";
        outcome.is_ok().then(|| text.into())
    });
    Ok(())
}

fn a_mount_itself(findings: &Findings) -> Result<()> {
    let expected = "where the path is a mount already, that is read-only afterwards";
    findings.begin(expected);
    let more = |world: &World| {
        let path = world.path("process");
        tmpfs(&path, MsFlags::MS_NODEV)?;
        Ok(fs::write(path.join("file"), "text")?)
    };
    let look = |world: &World| match write(&world.path("process/file")) {
        Err(Errno::EROFS) => Vec::new(),
        _ => vec!["process/file can be written, or isn't there any more".to_owned()],
    };
    let (_, flags) = FLAGS[0];
    let outcome = call(findings.subject(), "process", flags, more, look)?;
    let mut wrong: Vec<String> = outcome.value().unwrap_or_default();
    let top = Path::new(TOP);
    if wrong.is_empty() {
        wrong = flags_kept(&outcome, top, "process", "nodev,relatime");
    }
    findings.holds(expected, &outcome, &wrong, || None);
    Ok(())
}

fn where_nothing_is(findings: &Findings) -> Result<()> {
    for name in ["missing", "missing/below"] {
        let expected = format!("nothing happens for {name}, where no such path is");
        findings.begin(&expected);
        let look = |world: &World| match world.path("missing").exists() {
            true => vec!["it was made".to_owned()],
            false => Vec::new(),
        };
        let (_, flags) = FLAGS[0];
        let outcome = call(findings.subject(), name, flags, |_| Ok(()), look)?;
        let wrong: Vec<String> = outcome.value().unwrap_or_default();
        findings.holds(&expected, &outcome, &wrong, || {
            let is_told = names(outcome.error(), Errno::ENOENT);
            is_told.then(|| "not every kernel has every path: ENOENT is no error here".into())
        });
        findings.caller_stays(&outcome, &[]);
        if !findings.all_hold() {
            break;
        }
    }
    Ok(())
}

fn a_call_fails(findings: &Findings) -> Result<()> {
    let is_done = Cell::new(false);
    let (words, flags) = FLAGS[0];
    let top = Path::new(TOP);
    findings.each_call_fails(
        "make_read_only",
        MOUNTING,
        |subject| {
            let outcome = call(
                subject,
                "process",
                flags,
                |_| Ok(()),
                |world| look(world, "process"),
            )?;
            let wrong: Vec<String> = outcome.value().unwrap_or_default();
            is_done.set(wrong.is_empty() && flags_kept(&outcome, top, "process", words).is_empty());
            Ok(outcome)
        },
        || is_done.get(),
        |outcome| outcome.changes(&["mounts"]),
    )?;
    Ok(())
}

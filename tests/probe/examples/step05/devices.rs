//! 5.1: device files, each with just its number, its mode and its owner.

use probe::anyhow::Result;
use probe::libc::{self, c_long};
use probe::nix::errno::Errno;
use probe::nix::sys::stat::{Mode, SFlag, major, makedev, minor, mknod, umask};
use probe::{Claim, Findings, Outcome, State, Subject};
use std::borrow::Cow;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use step05_tty::{COMMANDS_UMASK, Device, Number};

pub fn make_devices(findings: &Findings) -> Result<()> {
    findings.play(&[
        whatever_the_umask,
        nothing_to_make,
        something_is_there,
        a_call_fails,
    ])
}

/// The umask of the processes that call, 0077.
const NARROW: Mode = Mode::S_IRWXG.union(Mode::S_IRWXO);

/// The calls that make a device file what it is to be.
const MAKING: &[(c_long, &str, Errno)] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mknod, "mknod(2)", Errno::EPERM),
    (libc::SYS_mknodat, "mknod(2)", Errno::EPERM),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chown, "chown(2)", Errno::EPERM),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_lchown, "lchown(2)", Errno::EPERM),
    (libc::SYS_fchown, "fchown(2)", Errno::EPERM),
    (libc::SYS_fchownat, "chown(2)", Errno::EPERM),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chmod, "chmod(2)", Errno::EPERM),
    (libc::SYS_fchmod, "fchmod(2)", Errno::EPERM),
    (libc::SYS_fchmodat, "chmod(2)", Errno::EPERM),
    (libc::SYS_fchmodat2, "chmod(2)", Errno::EPERM),
];

/// Devices that no list of anybody's has: of both kinds, with large numbers, several modes and owners.
fn devices(folder: &Path) -> Vec<Device<'static>> {
    let device = |name: &str, kind, (major, minor), mode, owner| Device {
        path: Cow::Owned(folder.join(name).display().to_string()),
        kind,
        number: Number { major, minor },
        mode,
        owner,
    };
    vec![
        device("all", SFlag::S_IFCHR, (1, 3), 0o666, (0, 0)),
        device("disk", SFlag::S_IFBLK, (259, 300), 0o660, (0, 6)),
        device("owned", SFlag::S_IFCHR, (10, 200), 0o622, (4711, 0)),
        device("closed", SFlag::S_IFCHR, (511, 70000), 0o000, (4711, 4712)),
        device("last", SFlag::S_IFBLK, (7, 1), 0o777, (0, 0)),
    ]
}

/// What is otherwise than `device` says.
fn wrong(device: &Device) -> Option<String> {
    let name = Path::new(&*device.path).file_name()?.to_string_lossy();
    let seen = match fs::symlink_metadata(&*device.path) {
        Ok(seen) => seen,
        Err(error) => return Some(format!("{name}: {error}")),
    };
    let kind = match seen.file_type() {
        kind if kind.is_char_device() => "a character device",
        kind if kind.is_block_device() => "a block device",
        _ => "no device",
    };
    let is = [
        format!("{kind} {}:{}", major(seen.rdev()), minor(seen.rdev())),
        format!("mode {:04o}", seen.mode() & 0o7777),
        format!("owner {}:{}", seen.uid(), seen.gid()),
    ];
    let wanted_kind = match device.kind {
        SFlag::S_IFBLK => "a block device",
        _ => "a character device",
    };
    let wanted = [
        format!(
            "{wanted_kind} {}:{}",
            device.number.major, device.number.minor
        ),
        format!("mode {:04o}", device.mode),
        format!("owner {}:{}", device.owner.0, device.owner.1),
    ];
    let both = is.into_iter().zip(wanted);
    let (is, wanted): (Vec<_>, Vec<_>) = both.filter(|(is, wanted)| is != wanted).unzip();
    (!is.is_empty()).then(|| {
        format!(
            "{name:?} has {}, and not {}",
            is.join(", "),
            wanted.join(", ")
        )
    })
}

/// The first two that aren't as they are to be: what is wrong with more is mostly the same.
fn all_wrong(devices: &[Device]) -> Vec<String> {
    devices.iter().filter_map(wrong).take(2).collect()
}

/// Why devices are as they are, if one mistake explains all of them.
fn why(devices: &[Device], outcome: &Outcome) -> Option<String> {
    let seen = |device: &Device| fs::symlink_metadata(&*device.path).ok();
    let all: Option<Vec<_>> = devices.iter().map(seen).collect();
    let pairs: Vec<_> = devices.iter().zip(all?).collect();
    let differ = |is_right: &dyn Fn(&Device, &fs::Metadata) -> bool| {
        pairs.iter().any(|(device, seen)| !is_right(device, seen))
    };
    let mode = differ(&|device, seen| device.mode == seen.mode() & 0o7777);
    let owner = differ(&|device, seen| device.owner == (seen.uid(), seen.gid()));
    let rest = differ(&|device, seen| {
        let is = (major(seen.rdev()), minor(seen.rdev()));
        is == (device.number.major.into(), device.number.minor.into())
            && seen.mode() & libc::S_IFMT == device.kind.bits()
    });
    let umask = mask(&outcome.before);
    let lost = pairs
        .iter()
        .all(|(device, seen)| seen.mode() & 0o7777 == device.mode & !umask);
    match (mode, owner, rest) {
        (true, false, false) if lost => Some(format!(
            "the process's umask, {umask:04o}, was taken away from the modes that mknod(2) got"
        )),
        (false, true, false) => {
            Some("mknod(2) gives a file to its maker: another owner or group has to be set".into())
        }
        _ => None,
    }
}

fn mask(state: &State) -> u32 {
    u32::from_str_radix(state.status("Umask"), 8).unwrap_or_default()
}

fn begin_again(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    Ok(fs::create_dir(folder)?)
}

/// Calls the function in a process with a narrow umask.
fn call(subject: Subject, devices: &[Device]) -> Result<Outcome> {
    let narrow = || {
        umask(NARROW);
        Ok(())
    };
    subject.call_in(narrow, |()| step05_tty::make_devices(devices), |_| Ok(()))
}

fn whatever_the_umask(findings: &Findings) -> Result<()> {
    let folder = findings.scratch.join("dev");
    begin_again(&folder)?;
    let devices = devices(&folder);
    let expected =
        "each device has just its kind, number, mode and owner, whatever the caller's umask";
    findings.begin(expected);
    let outcome = call(findings.subject(), &devices)?;
    let wrong = all_wrong(&devices);
    if findings.holds(expected, &outcome, &wrong, || why(&devices, &outcome)) {
        nothing_else(findings, &folder, &devices)?;
        umask_afterwards(findings, &outcome, "afterwards");
        findings.caller_stays(&outcome, &["Umask"]);
    }
    Ok(())
}

fn nothing_else(findings: &Findings, folder: &Path, devices: &[Device]) -> Result<()> {
    let is_asked = |path: &PathBuf| devices.iter().any(|each| Path::new(&*each.path) == path);
    let entries: Result<Vec<_>, _> = fs::read_dir(folder)?.collect();
    let paths = entries?.into_iter().map(|entry| entry.path());
    let others: Vec<_> = paths.filter(|path| !is_asked(path)).collect();
    let expected = "nothing else is made beside the devices";
    findings.claim(Claim::new(
        expected,
        format!("{others:?}"),
        others.is_empty(),
    ));
    Ok(())
}

/// What the umask is afterwards, if it isn't what it may be.
fn umask_left(outcome: &Outcome) -> Option<String> {
    let [before, after] = [&outcome.before, &outcome.after].map(|state| state.status("Umask"));
    let commands = format!("{:04o}", COMMANDS_UMASK.bits());
    let holds = after == before || after == commands;
    (!holds).then(|| format!("/proc/PID/status: Umask: {after}, before {before}"))
}

fn umask_afterwards(findings: &Findings, outcome: &Outcome, when: &str) {
    let left = umask_left(outcome);
    let is_none = mask(&outcome.after) == 0;
    let why = (left.is_some() && is_none).then(|| {
        "the umask stays as it was set for mknod(2): what the process makes later is for everybody to write".into()
    });
    let expected = format!("{when} the umask is COMMANDS_UMASK, or the caller's own again");
    let holds = left.is_none();
    findings.claim(Claim::new(expected, left.unwrap_or_default(), holds).because(why));
}

fn nothing_to_make(findings: &Findings) -> Result<()> {
    let expected = "with no device at all nothing is made, and it is no error";
    findings.begin(expected);
    let folder = findings.scratch.join("empty");
    begin_again(&folder)?;
    let outcome = call(findings.subject(), &[])?;
    findings.holds(expected, &outcome, &[], || None);
    findings.caller_stays(&outcome, &["Umask"]);
    Ok(())
}

/// What may be where a device is to be.
const THERE: [&str; 4] = [
    "a link to a file",
    "a link that leads nowhere",
    "a file",
    "the same device",
];

fn put(what: &str, device: &Device, aim: &Path) -> Result<()> {
    let path = Path::new(&*device.path);
    match what {
        "a link that leads nowhere" => symlink(aim, path)?,
        "a link to a file" => {
            fs::write(aim, "mine")?;
            symlink(aim, path)?;
        }
        "a file" => fs::write(path, "mine")?,
        _ => {
            let number = makedev(device.number.major.into(), device.number.minor.into());
            mknod(path, device.kind, Mode::S_IRUSR, number)?;
        }
    }
    Ok(())
}

/// What tells whether somebody has touched a file: its text, mode, kind and number.
fn look(path: &Path) -> Option<(String, u32, u64, u64)> {
    let seen = fs::symlink_metadata(path).ok()?;
    let text = match seen.is_file() {
        true => fs::read_to_string(path).unwrap_or_default(),
        false => fs::read_link(path)
            .unwrap_or_default()
            .display()
            .to_string(),
    };
    Some((text, seen.mode(), seen.rdev(), seen.ino()))
}

fn something_is_there(findings: &Findings) -> Result<()> {
    for what in THERE {
        let expected = format!("where {what} is at a device's path already, it returns an error");
        findings.begin(&expected);
        let folder = findings.scratch.join("taken");
        begin_again(&folder)?;
        let devices = devices(&folder);
        let aim = folder.join("elsewhere");
        let second = Path::new(&*devices[1].path);
        put(what, &devices[1], &aim)?;
        let before = (look(second), look(&aim));
        let outcome = call(findings.subject(), &devices)?;
        let stays = before == (look(second), look(&aim));
        let why = match stays {
            true => {
                "the error of mknod(2), EEXIST, is thrown away: what is there is taken for the device"
            }
            false => {
                "what is there was changed or replaced, or what it leads to: only mknod(2) itself may decide that the place is free"
            }
        };
        if !findings.refuses(&expected, &outcome, Errno::EEXIST, why) {
            break;
        }
        let expected = format!("{what} at a device's path stays as it is");
        let seen = match stays {
            true => "as it was",
            false => "it was replaced or changed, or what it leads to",
        };
        findings.claim(Claim::new(expected, seen, stays));
        umask_afterwards(findings, &outcome, "after an error");
        findings.caller_stays(&outcome, &["Umask"]);
        if !findings.all_hold() {
            break;
        }
    }
    Ok(())
}

fn a_call_fails(findings: &Findings) -> Result<()> {
    let folder = findings.scratch.join("refused");
    let devices = devices(&folder);
    findings.each_call_fails(
        "make_devices",
        MAKING,
        |subject| {
            begin_again(&folder)?;
            call(subject, &devices)
        },
        || all_wrong(&devices).is_empty(),
        |outcome| outcome.changes(&["Umask"]),
    )?;
    Ok(())
}

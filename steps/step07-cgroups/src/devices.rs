//! Which devices a container may make and open.
//!
//! Root in a container may make any device file (CAP_MKNOD), and a file with the number of the host's
//! disk is the host's disk. But root may not open that file: the rules of the container's control group
//! forbid it.

pub mod program;

use anyhow::{Context, Result, bail};
use nix::sys::stat::{SFlag, major, minor};
use serde::{Deserialize, Serialize};
use std::fmt::{self, Display, Formatter};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use step05_tty::mounts::mount_point;
use step05_tty::{Device, Number, make_devices};

/// One rule: what may be done to which devices. Of several the last one that fits decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRule {
    /// S_IFCHR or S_IFBLK.
    pub kind: SFlag,
    /// The driver; `None`: any.
    pub major: Option<u32>,
    /// Which of the driver's devices; `None`: any.
    pub minor: Option<u32>,
    /// Of `r`, `w` and `m` (read, write, mknod) those that the rule is about.
    pub access: Access,
    /// Whether it allows them, or denies them.
    pub allow: bool,
}

/// What may be done to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// Reading it.
    pub read: bool,
    /// Writing it.
    pub write: bool,
    /// Making a file with its number.
    pub mknod: bool,
}

impl Access {
    /// All three.
    pub const ALL: Access = Access {
        read: true,
        write: true,
        mknod: true,
    };
    const MKNOD: Access = Access {
        read: false,
        write: false,
        mknod: true,
    };

    fn has_some_of(self, other: Access) -> bool {
        self.read && other.read || self.write && other.write || self.mknod && other.mknod
    }
}

// ANCHOR: DEFAULT_RULES
/// What every container may do: make any device file, and use those of `DEVICES` in step 5, and its
/// pseudo-terminals. The rules are Docker's and runc's, except for one: c 5:1 is the *host's* console, and
/// a container has a pseudo-terminal at /dev/console.
pub const DEFAULT_RULES: &[DeviceRule] = &[
    rule(SFlag::S_IFCHR, None, None, Access::MKNOD),
    rule(SFlag::S_IFBLK, None, None, Access::MKNOD),
    rule(SFlag::S_IFCHR, Some(1), Some(3), Access::ALL), // null
    rule(SFlag::S_IFCHR, Some(1), Some(5), Access::ALL), // zero
    rule(SFlag::S_IFCHR, Some(1), Some(7), Access::ALL), // full
    rule(SFlag::S_IFCHR, Some(1), Some(8), Access::ALL), // random
    rule(SFlag::S_IFCHR, Some(1), Some(9), Access::ALL), // urandom
    rule(SFlag::S_IFCHR, Some(5), Some(0), Access::ALL), // tty
    rule(SFlag::S_IFCHR, Some(5), Some(2), Access::ALL), // ptmx
    rule(SFlag::S_IFCHR, Some(136), None, Access::ALL),  // pts/0 and so on
];
// ANCHOR_END: DEFAULT_RULES

const fn rule(kind: SFlag, major: Option<u32>, minor: Option<u32>, access: Access) -> DeviceRule {
    DeviceRule {
        kind,
        major,
        minor,
        access,
        allow: true,
    }
}

/// A rule as cgroups version 1 reads it: `c 136:* rwm`.
impl Display for DeviceRule {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let kind = if self.kind == SFlag::S_IFBLK {
            'b'
        } else {
            'c'
        };
        let number = |number: Option<u32>| number.map_or("*".into(), |number| number.to_string());
        let (major, minor) = (number(self.major), number(self.minor));
        write!(f, "{kind} {major}:{minor} {}", self.access)
    }
}

impl Display for Access {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        for (is, letter) in [(self.read, "r"), (self.write, "w"), (self.mknod, "m")] {
            f.write_str(if is { letter } else { "" })?;
        }
        Ok(())
    }
}

/// Whether version 1 of control groups can follow `rules`. It keeps a list of what is allowed, and takes from it only what
/// is there in the same words: what else a rule denies would stay allowed, and nobody would hear of it.
///
/// # Errors
/// The text names the rule, and the one before it.
pub fn can_be_written(rules: &[DeviceRule]) -> Result<()> {
    let same =
        |one: Option<u32>, other: Option<u32>| one == other || one.is_none() || other.is_none();
    for (place, denied) in rules.iter().enumerate().filter(|(_, rule)| !rule.allow) {
        let stays = rules[..place].iter().find(|allowed| {
            let words = (denied.major, denied.minor);
            allowed.allow
                && allowed.kind == denied.kind
                && (allowed.major, allowed.minor) != words
                && same(allowed.major, denied.major)
                && same(allowed.minor, denied.minor)
                && allowed.access.has_some_of(denied.access)
        });
        if let Some(allowed) = stays {
            bail!(
                "the rules for devices deny {denied}, after they have allowed {allowed}\nhelp: version 1 of control groups \
                 can't do that: allow only what the container needs"
            );
        }
    }
    Ok(())
}

/// What one `--device` asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Devices {
    on_host: PathBuf,
    inside: String,
    access: Access,
}

impl Devices {
    /// Reads `PATH[:PATH-INSIDE[:rwm]]`.
    pub fn parse(text: &str) -> Result<Devices, String> {
        let parts: Vec<_> = text.split(':').collect();
        let (on_host, inside, letters) = match parts[..] {
            [path] => (path, path, "rwm"),
            [path, inside] if inside.starts_with('/') => (path, inside, "rwm"),
            [path, letters] => (path, path, letters),
            [path, inside, letters] => (path, inside, letters),
            _ => ("", "", ""),
        };
        let known = !letters.is_empty() && letters.chars().all(|letter| "rwm".contains(letter));
        let below_dev = inside.starts_with("/dev/") && !inside.contains("/../");
        if !on_host.starts_with('/') || !below_dev || !known {
            return Err(
                "it has to be PATH, PATH:PATH-INSIDE or PATH:PATH-INSIDE:rwm (r: read, w: write, \
                        m: mknod), with PATH-INSIDE below /dev"
                    .into(),
            );
        }
        let has = |letter| letters.contains(letter);
        Ok(Devices {
            on_host: on_host.into(),
            inside: inside.into(),
            access: Access {
                read: has('r'),
                write: has('w'),
                mknod: has('m'),
            },
        })
    }

    /// The devices that the flag means, each with its rule: one device, or all in a directory.
    ///
    /// # Errors
    /// There is no device at that path of the host.
    pub fn resolve(&self) -> Result<Vec<(Device<'static>, DeviceRule)>> {
        let shown = self.on_host.display();
        let mut found = Vec::new();
        collect(&self.on_host, Path::new(&self.inside), &mut found)
            .with_context(|| format!("--device {shown}"))?;
        if found.is_empty() {
            bail!(
                "--device {shown}: that is no device\nhelp: name a device file of the host, such as /dev/fuse"
            );
        }
        let rule = |device: &Device| {
            rule(
                device.kind,
                Some(device.number.major),
                Some(device.number.minor),
                self.access,
            )
        };
        Ok(found
            .into_iter()
            .map(|device| (device.clone(), rule(&device)))
            .collect())
    }
}

/// Makes `devices`, and the directories for them that are missing.
pub fn make_devices_and_folders(devices: &[Device]) -> Result<()> {
    for device in devices {
        if let Some(folder) = Path::new(&*device.path).parent() {
            if folder != Path::new("/dev") {
                mount_point(folder, SFlag::S_IFDIR)?;
            }
        }
    }
    make_devices(devices)
}

/// All devices of the host, for a container that may use all. Terminals are left out: the container has
/// its own.
pub fn all_of_the_host() -> Result<Vec<Device<'static>>> {
    let mut found = Vec::new();
    collect(Path::new("/dev"), Path::new("/dev"), &mut found).context("/dev")?;
    Ok(found)
}

fn collect(on_host: &Path, inside: &Path, found: &mut Vec<Device<'static>>) -> std::io::Result<()> {
    // The names in /dev that a container has of its own.
    const OWN: [&str; 6] = ["pts", "shm", "mqueue", "console", "ptmx", "fd"];
    let metadata = fs::metadata(on_host)?;
    let kind = SFlag::from_bits_truncate(metadata.mode() & SFlag::S_IFMT.bits());
    if kind == SFlag::S_IFDIR {
        for entry in fs::read_dir(on_host)? {
            let entry = entry?;
            let name = entry.file_name();
            if OWN.contains(&name.to_string_lossy().as_ref()) {
                continue;
            }
            let link = entry.file_type().map(|kind| kind.is_symlink());
            let collected = link.and_then(|link| match link {
                true => Ok(()),
                false => collect(&entry.path(), &inside.join(&name), found),
            });
            match collected {
                // The device has gone since the directory was read.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                collected => collected?,
            }
        }
    } else if kind == SFlag::S_IFCHR || kind == SFlag::S_IFBLK {
        found.push(Device {
            path: inside.to_string_lossy().into_owned().into(),
            kind,
            number: Number {
                major: major(metadata.rdev()) as u32,
                minor: minor(metadata.rdev()) as u32,
            },
            mode: metadata.mode() & 0o7777,
            owner: (metadata.uid(), metadata.gid()),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_written_as_the_kernel_reads_them() {
        let written: Vec<_> = DEFAULT_RULES.iter().map(ToString::to_string).collect();
        assert_eq!(written[0], "c *:* m");
        assert_eq!(written[2], "c 1:3 rwm");
        assert_eq!(written[9], "c 136:* rwm");
    }

    #[test]
    fn what_version_1_would_ignore() {
        let char = |major, minor, access, allow| DeviceRule {
            allow,
            ..rule(SFlag::S_IFCHR, major, minor, access)
        };
        let all = char(None, None, Access::ALL, true);
        let null = char(Some(1), Some(3), Access::MKNOD, false);
        let check = |rules: &[&DeviceRule]| {
            let rules: Vec<_> = rules.iter().map(|rule| (*rule).clone()).collect();
            can_be_written(&rules).map_err(|error| error.to_string())
        };
        let said = check(&[&all, &null]).unwrap_err();
        assert!(said.contains("c 1:3 m, after"), "{said}");
        assert!(said.contains("c *:* rwm\n"), "{said}");
        let memory = char(Some(1), None, Access::ALL, false);
        let one = char(Some(1), Some(3), Access::ALL, true);
        check(&[&one, &memory]).unwrap_err();
        // In the same words, about others, or before.
        check(&[&one, &null]).unwrap();
        check(&[&one, &char(Some(5), None, Access::ALL, false)]).unwrap();
        check(&[&null, &all]).unwrap();
        let block = rule(SFlag::S_IFBLK, None, None, Access::ALL);
        check(&[&block, &null]).unwrap();
        can_be_written(DEFAULT_RULES).unwrap();
    }

    /// Devices come and go while all of them are listed.
    #[test]
    fn devices_that_come_and_go() {
        let folder = tempfile::tempdir().unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        let is_done = || done.load(std::sync::atomic::Ordering::Relaxed);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for turn in 0.. {
                    let below = folder.path().join(format!("d{}", turn % 5));
                    let _ = fs::create_dir(&below);
                    let _ = fs::write(below.join("file"), "");
                    let _ = fs::remove_dir_all(&below);
                    if is_done() {
                        break;
                    }
                }
            });
            let listed =
                (0..2000).map(|_| collect(folder.path(), Path::new("/dev"), &mut Vec::new()));
            let listed: Vec<_> = listed.filter_map(Result::err).collect();
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(
                listed.is_empty(),
                "{} of 2000: {:?}",
                listed.len(),
                listed[0]
            );
        });
    }

    #[test]
    fn a_flag_is_read_as_docker_reads_it() {
        let fuse = Devices::parse("/dev/fuse").unwrap();
        assert_eq!(
            (fuse.inside.as_str(), fuse.access),
            ("/dev/fuse", Access::ALL)
        );
        let read = Devices::parse("/dev/fuse:r").unwrap();
        assert_eq!(
            (read.inside.as_str(), read.access.write),
            ("/dev/fuse", false)
        );
        assert_eq!(Devices::parse("/dev/a:/dev/b:rw").unwrap().inside, "/dev/b");
        for wrong in [
            "",
            "fuse",
            "/dev/a:b:rw",
            "/dev/a:/b:rwx",
            "/dev/a:/b:",
            "/a:/b:r:w",
        ] {
            assert!(Devices::parse(wrong).is_err(), "{wrong}");
        }
        let nothing = Devices::parse("/etc/passwd:/dev/x").unwrap().resolve();
        assert!(nothing.unwrap_err().to_string().contains("no device"));
    }
}

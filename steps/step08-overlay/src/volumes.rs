//! Directories and files of the host in a container.

use crate::{MountAttributes, attach, clone_tree};
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::mount::MsFlags;
use nix::sys::stat::SFlag;
use nix::sys::statfs::PROC_SUPER_MAGIC;
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use step01_uts::Refused;
use step05_tty::mounts::{Mount, MountPoint, mount_on, mount_point, mount_point_in};
use step05_tty::options::Options;

/// One `-v`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// The path on the host.
    pub source: PathBuf,
    /// The path in the container.
    pub target: PathBuf,
    /// Whether the container may only read it.
    pub read_only: bool,
    /// Whether a mount that is made below it later is seen on the other side.
    pub propagation: Propagation,
}

/// Whether two copies of a mount share the new mounts below them: mount_namespaces(7).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    /// Not at all.
    #[default]
    Private,
    /// The container sees the host's new mounts.
    Slave,
    /// Each side sees the other's new mounts.
    Shared,
}

impl Volume {
    /// Reads `SRC:DST[:OPTION,…]`. SRC is a path; DST an absolute one.
    pub fn parse(text: &str) -> Result<Volume, String> {
        let parts: Vec<_> = text.split(':').collect();
        let (source, target, options) = match parts[..] {
            [source, target] => (source, target, ""),
            [source, target, options] => (source, target, options),
            _ => {
                return Err(
                    "it has to be SRC:DST or SRC:DST:OPTIONS, as in /srv/data:/data:ro".into(),
                );
            }
        };
        let mut volume = Volume {
            source: source.into(),
            target: destination(target)?,
            read_only: false,
            propagation: Propagation::Private,
        };
        if source.is_empty() {
            return Err("SRC is empty: name a directory or a file of the host".into());
        }
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option {
                "ro" => volume.read_only = true,
                "rw" => volume.read_only = false,
                "rprivate" | "private" => volume.propagation = Propagation::Private,
                "rslave" | "slave" => volume.propagation = Propagation::Slave,
                "rshared" | "shared" => volume.propagation = Propagation::Shared,
                // Labels of SELinux, which this program doesn't set.
                "z" | "Z" => {}
                _ => {
                    return Err(format!(
                        "there is no option {option:?}: there are ro, rw, rprivate, rslave and rshared"
                    ));
                }
            }
        }
        Ok(volume)
    }

    /// The host's `source` at `target`, writable.
    ///
    /// # Errors
    /// No volume can be at `target`.
    pub fn at(source: PathBuf, target: &str) -> Result<Volume, String> {
        Ok(Volume {
            source,
            target: destination(target)?,
            read_only: false,
            propagation: Propagation::default(),
        })
    }

    /// Opens what the host has at SRC just now, as a copy of its mounts.
    ///
    /// # Errors
    /// The host has nothing at SRC.
    pub fn open(&self) -> Result<OpenVolume> {
        let shown = self.source.display();
        let flag = || format!("-v {shown}:{}", self.target.display());
        let is_directory = match self.source.metadata() {
            Ok(found) => found.is_dir(),
            Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => {
                bail!(
                    "{}: the host has no {shown}\nhelp: mkdir -p {shown}",
                    flag()
                )
            }
            Err(error) => return Err(error).with_context(flag),
        };
        let attributes = MountAttributes {
            set: if self.read_only {
                libc::MOUNT_ATTR_RDONLY
            } else {
                0
            },
            propagation: match self.propagation {
                Propagation::Private => libc::MS_PRIVATE,
                Propagation::Slave => libc::MS_SLAVE,
                Propagation::Shared => libc::MS_SHARED,
            },
            ..MountAttributes::default()
        };
        let tree = clone_tree(&self.source, &attributes);
        let tree = tree.map_err(|error| match error.downcast::<Refused>() {
            Ok(refused) if refused.errno() == Errno::ENOSYS => {
                anyhow::anyhow!("{refused}: volumes take Linux 5.12 or newer")
            }
            Ok(refused) => refused.into(),
            Err(error) => error,
        });
        Ok(OpenVolume {
            tree: tree.with_context(flag)?,
            target: self.target.clone(),
            kind: if is_directory {
                SFlag::S_IFDIR
            } else {
                SFlag::S_IFREG
            },
        })
    }
}

/// A volume that is copied from the host's mounts, and ready to be attached.
pub struct OpenVolume {
    tree: OwnedFd,
    target: PathBuf,
    kind: SFlag,
}

impl OpenVolume {
    /// Mounts the volume in the caller's root, or in the directory `root`. Where DST is missing it is made. A link on the
    /// way leads to what it means *in that root*.
    pub fn attach(&self, root: Option<&OwnedFd>) -> Result<()> {
        let flag = || format!("-v …:{}", self.target.display());
        let point = point_in(root, &self.target, self.kind).with_context(flag)?;
        outside_of_proc(&point).with_context(flag)?;
        self.attach_on(&point)
    }

    /// Mounts the volume on `point`, wherever that is.
    pub fn attach_on(&self, point: &MountPoint) -> Result<()> {
        attach(&self.tree, point)
    }

    /// DST.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// The depth of DST: a volume below another comes after it.
    pub fn depth(&self) -> usize {
        self.target.components().count()
    }
}

/// One `--tmpfs`: a place for files that need no disk and are gone at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    target: PathBuf,
    options: Vec<String>,
}

impl Tmpfs {
    /// Reads `DST[:OPTION,…]`, with the options of tmpfs(5), and those of mount(8) that a tmpfs knows.
    pub fn parse(text: &str) -> Result<Tmpfs, String> {
        let (target, options) = text.split_once(':').unwrap_or((text, ""));
        let options: Vec<_> = options
            .split(',')
            .filter(|option| !option.is_empty())
            .map(str::to_owned)
            .collect();
        let known = [
            "size",
            "mode",
            "uid",
            "gid",
            "nr_inodes",
            "nr_blocks",
            "huge",
            "mpol",
        ];
        for option in &options {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            let has_value = known.contains(&key) && !value.is_empty();
            let read = Options::read([option.as_str()]);
            let is_flag = read.data.is_empty() && KNOWN.contains(read.set | read.clear);
            let is_known = is_flag && read.propagation.is_empty();
            if !has_value && !is_known {
                return Err(format!(
                    "there is no option {option:?}: there are rw, ro, exec, noexec, suid, nosuid, dev, nodev, \
                     and with a value {}",
                    known.join(", ")
                ));
            }
        }
        Ok(Tmpfs {
            target: destination(target)?,
            options,
        })
    }

    /// Mounts the tmpfs in the caller's root, or in the directory `root`.
    pub fn attach(&self, root: Option<&OwnedFd>) -> Result<()> {
        let flag_of = || format!("--tmpfs {}", self.target.display());
        let point = point_in(root, &self.target, SFlag::S_IFDIR).with_context(flag_of)?;
        outside_of_proc(&point).with_context(flag_of)?;
        let options = Options::read(self.options.iter().map(String::as_str));
        let usual = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let tmpfs = Mount {
            source: "tmpfs",
            target: "",
            kind: "tmpfs",
            flags: options.over(usual),
            data: &options.data.join(","),
        };
        mount_on(&point, &tmpfs).with_context(flag_of)
    }

    /// DST.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// The depth of DST: a mount below another comes after it.
    pub fn depth(&self) -> usize {
        self.target.components().count()
    }
}

/// The flags that a tmpfs may have.
const KNOWN: MsFlags = MsFlags::MS_RDONLY
    .union(MsFlags::MS_NOEXEC)
    .union(MsFlags::MS_NOSUID)
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOATIME);

fn point_in(root: Option<&OwnedFd>, path: &Path, wanted: SFlag) -> Result<MountPoint> {
    match root {
        None => mount_point(path, wanted),
        Some(root) => mount_point_in(root, path, wanted),
    }
}

/// Fails when `point` is in a procfs, where a link in the root may have led. The filesystem's type shows that,
/// whatever the path is.
fn outside_of_proc(point: &MountPoint) -> Result<()> {
    match point.filesystem()? {
        PROC_SUPER_MAGIC => bail!(
            "a link in the root leads to {}, by which the container knows itself",
            point.shown()
        ),
        _ => Ok(()),
    }
}

/// Reads DST, the place of a volume or a tmpfs in the container.
fn destination(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    let plain = path
        .components()
        .all(|part| !matches!(part, Component::ParentDir));
    match path {
        _ if !path.is_absolute() || !plain => {
            Err("DST has to be an absolute path, without ..".into())
        }
        _ if path.parent().is_none() => {
            Err("DST can't be the root itself: that is what --rootfs and --image are for".into())
        }
        _ if path.starts_with("/proc") => {
            Err("DST can't be in /proc, by which the container knows itself".into())
        }
        _ => Ok(path.components().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_read() {
        let volume = Volume::parse("/srv:/data:ro,rslave").unwrap();
        assert_eq!(
            (volume.read_only, volume.propagation),
            (true, Propagation::Slave)
        );
        assert_eq!(Volume::parse("a:/b//c/").unwrap().target, Path::new("/b/c"));
        for wrong in [
            "",
            "/a",
            "/a:",
            ":/b",
            "/a:b",
            "/a:/",
            "/a:/b:rx",
            "/a:/b:ro:x",
            "/a:/b/../..",
            "/a:/proc/sys",
        ] {
            assert!(Volume::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn tmpfs_are_read() {
        assert_eq!(Tmpfs::parse("/run:size=1m,exec").unwrap().options.len(), 2);
        for wrong in ["", "run", "/run:size", "/run:colour=red", "/"] {
            assert!(Tmpfs::parse(wrong).is_err(), "{wrong}");
        }
    }
}

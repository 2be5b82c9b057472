//! What each mount of config.json asks for.

use crate::config::read::MountSpec;
use crate::trees::recursive;
use anyhow::{Context, Result, bail};
use nix::mount::MsFlags;
use std::path::{Path, PathBuf};
use step05_tty::options::Options;

/// One mount.
#[derive(Debug, Clone)]
pub struct Mount {
    /// Its place in the list, for errors.
    pub place: usize,
    /// The mount point's path in the container.
    pub target: PathBuf,
    /// What is mounted.
    pub what: What,
    /// Its options, without those below.
    pub options: Options,
    /// Attributes for all mounts of a tree, to be set and to be cleared, in order.
    pub recursive: Vec<(u64, u64)>,
    /// Whether the files that the root has at `target` are copied into it: `tmpcopyup`.
    pub copy_up: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A file or a directory of the host; with `below`, with the mounts below it.
    Bind {
        /// Its path.
        source: PathBuf,
        /// Whether the mounts below come along.
        below: bool,
    },
    /// A filesystem that the kernel makes up for whoever mounts it: it has to be made in the container.
    Kernels {
        /// Its type.
        kind: String,
        /// Its name in the mount table.
        source: String,
    },
    /// Any other filesystem, which is made from something that the host has.
    Hosts {
        /// Its type.
        kind: String,
        /// A device, or a name.
        source: String,
    },
    /// The container's control groups.
    Cgroups,
}

/// The types of filesystems that need nothing of the host's.
const KERNELS: [&str; 8] = [
    "proc",
    "sysfs",
    "tmpfs",
    "devpts",
    "mqueue",
    "ramfs",
    "securityfs",
    "binfmt_misc",
];

impl Mount {
    /// Reads all mounts. The source of a bind mount may be relative to `bundle`. `label` is for filesystems that SELinux
    /// labels.
    ///
    /// # Errors
    /// The text names the property.
    pub fn read_all(specs: &[MountSpec], bundle: &Path, label: &str) -> Result<Vec<Mount>> {
        let read = |(place, spec)| {
            Mount::read(place, spec, bundle, label).with_context(|| format!("mounts[{place}]"))
        };
        specs.iter().enumerate().map(read).collect()
    }

    fn read(place: usize, spec: &MountSpec, bundle: &Path, label: &str) -> Result<Mount> {
        let mut words: Vec<&str> = spec.options.iter().map(String::as_str).collect();
        let mut all = Vec::new();
        let mut copy_up = false;
        words.retain(|word| match *word {
            "tmpcopyup" => {
                copy_up = true;
                false
            }
            "nosymfollow" | "symfollow" => {
                // Of a new mount the topmost one is all of it.
                all.extend(recursive(&format!("r{word}")));
                false
            }
            word => match recursive(word) {
                Some(attributes) => {
                    all.push(attributes);
                    false
                }
                None => true,
            },
        });
        if let Some(word) = words
            .iter()
            .find(|word| ["idmap", "ridmap"].contains(*word))
        {
            bail!("options: {word}: this runtime doesn't do that");
        }
        let mut options = Options::read(words);
        if options.set.contains(MsFlags::MS_REMOUNT) {
            bail!("options: remount: this runtime doesn't do that");
        }
        let binds = options.set.contains(MsFlags::MS_BIND);
        let what = match (spec.kind.as_deref(), spec.source.as_deref()) {
            (kind, source) if binds || kind == Some("bind") => {
                let source = source.filter(|source| !source.is_empty());
                let source = bundle.join(source.context("source: missing field")?);
                let below = options.set.contains(MsFlags::MS_REC);
                // What is left is for a filesystem, and a bind mount makes none.
                options.data.clear();
                What::Bind { source, below }
            }
            (Some("cgroup" | "cgroup2"), _) => What::Cgroups,
            (Some(kind), source) if !kind.is_empty() => {
                let source = source.filter(|source| !source.is_empty()).unwrap_or(kind);
                if !label.is_empty() && ["tmpfs", "mqueue", "ramfs"].contains(&kind) {
                    options.data.push(format!("context=\"{label}\""));
                }
                let (kind, source) = (kind.to_owned(), source.to_owned());
                match KERNELS.contains(&&*kind) {
                    true => What::Kernels { kind, source },
                    false => What::Hosts { kind, source },
                }
            }
            _ => bail!("type: missing field"),
        };
        Ok(Mount {
            place,
            target: spec.destination.clone(),
            what,
            options,
            recursive: all,
            copy_up,
        })
    }

    /// Whether nothing may change in it.
    pub fn is_read_only(&self) -> bool {
        self.options.set.contains(MsFlags::MS_RDONLY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(text: &str) -> Result<Mount> {
        let spec = serde_json::from_str(text).unwrap();
        Mount::read(0, &spec, Path::new("/bundle"), "")
    }

    #[test]
    fn what_is_mounted() {
        let bind = mount(
            r#"{"destination": "/a", "type": "none", "source": "x", "options": ["rbind", "rro", "z=1"]}"#,
        );
        let bind = bind.unwrap();
        let source = "/bundle/x".into();
        assert_eq!(
            bind.what,
            What::Bind {
                source,
                below: true
            }
        );
        assert_eq!(bind.recursive, [(libc::MOUNT_ATTR_RDONLY, 0)]);
        assert!(bind.options.data.is_empty() && !bind.is_read_only());

        let tmpfs = mount(
            r#"{"destination": "/a", "type": "tmpfs", "options": ["tmpcopyup", "mode=1777", "ro"]}"#,
        );
        let tmpfs = tmpfs.unwrap();
        assert!(tmpfs.copy_up && tmpfs.is_read_only());
        assert_eq!(tmpfs.options.data, ["mode=1777"]);
        let (kind, source) = ("tmpfs".to_owned(), "tmpfs".to_owned());
        assert_eq!(tmpfs.what, What::Kernels { kind, source });

        let cgroups = mount(r#"{"destination": "/sys/fs/cgroup", "type": "cgroup"}"#).unwrap();
        assert_eq!(cgroups.what, What::Cgroups);
        for (text, said) in [
            (r#"{"destination": "/a"}"#, "type: missing"),
            (
                r#"{"destination": "/a", "type": "bind"}"#,
                "source: missing",
            ),
            (
                r#"{"destination": "/a", "type": "bind", "source": "/", "options": ["idmap"]}"#,
                "idmap",
            ),
        ] {
            let error = format!("{:#}", mount(text).unwrap_err());
            assert!(error.contains(said), "{error}");
        }
    }
}

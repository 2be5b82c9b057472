//! `spec`: a config.json to begin with.

use anyhow::{Context, Result, bail};
use clap::Args;
use nix::unistd::{getegid, geteuid};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use step01_uts::PATH;
use step05_tty::DEV;
use step05_tty::options::names_of;
use step06_caps::paths::{MASKED_PATHS, READ_ONLY_PATHS};

/// Write a config.json to begin with
#[derive(Debug, Args)]
pub(crate) struct Spec {
    /// The directory to write it to
    #[arg(
        short,
        long,
        value_name = "DIR",
        default_value = ".",
        hide_default_value = true
    )]
    bundle: PathBuf,

    /// One that takes no root
    #[arg(long)]
    rootless: bool,
}

impl Spec {
    pub(crate) fn run(&self) -> Result<u8> {
        let path = self.bundle.join("config.json");
        let text = serde_json::to_string_pretty(&configuration(self.rootless))?;
        let named = || path.display().to_string();
        match File::create_new(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                bail!(
                    "{}: there is one already\nhelp: remove it first",
                    path.display()
                )
            }
            file => writeln!(file.with_context(named)?, "{text}").with_context(named)?,
        }
        Ok(0)
    }
}

/// What a shell in a root beside the file needs. A `rootless` one has a user namespace, in which the caller is root.
fn configuration(rootless: bool) -> Value {
    let few = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    let mut mounts = vec![json!({"destination": "/proc", "type": "proc", "source": "proc"})];
    for mount in DEV {
        let data = mount.data.split(',').filter(|word| !word.is_empty());
        // A user namespace with one ID has no group 5.
        let data = data.filter(|word| !(rootless && word.starts_with("gid=")));
        let options: Vec<&str> = names_of(mount.flags).chain(data).collect();
        mounts.push(json!({
            "destination": mount.target, "type": mount.kind, "source": mount.source, "options": options,
        }));
    }
    let safe = ["nosuid", "noexec", "nodev", "ro"];
    mounts.push(match rootless {
        false => {
            json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": safe})
        }
        // The network is the host's, and so is its sysfs.
        true => json!({
            "destination": "/sys", "type": "none", "source": "/sys",
            "options": ["rbind", "nosuid", "noexec", "nodev", "ro"],
        }),
    });
    if !rootless {
        mounts.push(json!({
            "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
        }));
    }
    let mut namespaces = vec!["pid", "ipc", "uts", "mount", "cgroup"];
    namespaces.push(if rootless { "user" } else { "network" });
    let namespaces: Vec<_> = namespaces
        .into_iter()
        .map(|kind| json!({"type": kind}))
        .collect();
    let mut linux = json!({
        "resources": {"devices": [{"allow": false, "access": "rwm"}]},
        "namespaces": namespaces,
        "maskedPaths": MASKED_PATHS,
        "readonlyPaths": READ_ONLY_PATHS,
    });
    if rootless {
        let map = |id: u32| json!([{"containerID": 0, "hostID": id, "size": 1}]);
        linux["uidMappings"] = map(geteuid().as_raw());
        linux["gidMappings"] = map(getegid().as_raw());
        linux["resources"] = json!({});
    }
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": [format!("PATH={PATH}"), "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": few, "effective": few, "permitted": few},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "box",
        "mounts": mounts,
        "linux": linux,
    })
}

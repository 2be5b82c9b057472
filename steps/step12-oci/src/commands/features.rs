//! `features`: what this runtime can do, as the specification has it told.

use crate::KINDS;
use anyhow::Result;
use clap::Args;
use serde_json::{json, to_string_pretty};
use step01_uts::say;
use step05_tty::options::names;
use step06_caps::capabilities::Capability;
use step06_caps::seccomp::profile::{ACTIONS, OPERATORS, SECCOMP_FLAGS, architectures};

/// Print what this runtime can do, as JSON
#[derive(Debug, Args)]
pub(crate) struct Features {}

impl Features {
    pub(crate) fn run(&self) -> Result<u8> {
        let recursive = [
            "atime",
            "dev",
            "diratime",
            "exec",
            "noatime",
            "nodev",
            "nodiratime",
            "noexec",
            "norelatime",
            "nostrictatime",
            "nosuid",
            "nosymfollow",
            "relatime",
            "ro",
            "rw",
            "strictatime",
            "suid",
            "symfollow",
        ];
        let mut options: Vec<String> = names().map(str::to_owned).collect();
        options.extend(recursive.map(|word| format!("r{word}")));
        options.extend(["nosymfollow", "symfollow", "tmpcopyup"].map(str::to_owned));
        options.sort();
        let namespaces: Vec<_> = KINDS.iter().map(|(name, _)| name).collect();
        let capabilities: Vec<_> = Capability::all()
            .map(|each| format!("CAP_{}", each.name()))
            .collect();
        say(to_string_pretty(&json!({
            "ociVersionMin": "1.0.0",
            "ociVersionMax": "1.3.0",
            "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
            "mountOptions": options,
            "linux": {
                "namespaces": namespaces,
                "capabilities": capabilities,
                "cgroup": {"v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": true},
                "seccomp": {
                    "enabled": true,
                    "actions": ACTIONS.map(|(name, _)| name),
                    "operators": OPERATORS,
                    "archs": architectures().collect::<Vec<_>>(),
                    "knownFlags": SECCOMP_FLAGS.map(|(name, _)| name),
                    "supportedFlags": SECCOMP_FLAGS.map(|(name, _)| name),
                },
                "apparmor": {"enabled": true},
                "selinux": {"enabled": true},
                "intelRdt": {"enabled": false},
                "mountExtensions": {"idmap": {"enabled": false}},
                "netDevices": {"enabled": false},
            },
        }))?)?;
        Ok(0)
    }
}

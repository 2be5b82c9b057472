//! The privileges that a container is to have, and what they come to on this machine.

use crate::capabilities::{CapSets, Capability, DEFAULT, permitted};
use crate::paths::{MASKED_PATHS, READ_ONLY_PATHS, seal};
use crate::seccomp::Filter;
use crate::seccomp::profile::Profile;
use crate::users::User;
use crate::{Process, remount_read_only};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use step05_tty::mounts::MountPoint;

/// What the container's root may do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Security {
    /// Capabilities besides Docker's fourteen; ALL is every one.
    pub cap_add: Vec<String>,
    /// Capabilities that are taken away; ALL is every one.
    pub cap_drop: Vec<String>,
    /// Seccomp profiles, no_new_privs, masked paths; of those about the same the last holds.
    pub security_opt: Vec<SecurityOption>,
    /// Whether the container's root may do all that this program may do itself, every device included.
    pub privileged: bool,
}

/// One `--security-opt`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecurityOption {
    /// The profile in a file.
    Seccomp(PathBuf),
    /// No filter.
    SeccompUnconfined,
    /// Whether no_new_privs is on: `execve` can bring no more privileges.
    NoNewPrivileges(bool),
    /// No masked and no read-only paths.
    SystempathsUnconfined,
}

/// The privileges that a container has.
#[derive(Debug)]
pub struct Privileges {
    /// What root may do: a bit for each capability.
    pub capabilities: u64,
    no_new_privileges: bool,
    filter: Option<Filter>,
    sealed: bool,
    privileged: bool,
}

impl Security {
    /// Reads the profile and weighs the flags against what this process may do itself.
    ///
    /// # Errors
    /// A profile that can't be read or makes no sense; a capability that was asked for by name and
    /// that this process hasn't got.
    pub fn resolve(&self) -> Result<Privileges> {
        let capabilities = self.capabilities(permitted())?;
        let mut privileges = Privileges {
            capabilities,
            no_new_privileges: !self.privileged,
            filter: None,
            sealed: !self.privileged,
            privileged: self.privileged,
        };
        let mut profile = (!self.privileged).then(Profile::default);
        for option in &self.security_opt {
            match option {
                SecurityOption::Seccomp(file) => profile = Some(Profile::read(file)?),
                SecurityOption::SeccompUnconfined => profile = None,
                SecurityOption::NoNewPrivileges(on) => privileges.no_new_privileges = *on,
                SecurityOption::SystempathsUnconfined => privileges.sealed = false,
            }
        }
        if let Some(profile) = profile {
            privileges.filter = Some(profile.compile(capabilities)?);
        }
        Ok(privileges)
    }

    /// The capabilities of the container's root, out of those that this process `may` use: first Docker's
    /// default, or ALL; then without those dropped; then with those added.
    fn capabilities(&self, may: u64) -> Result<u64> {
        let all = |names: &[String]| names.iter().any(|name| name == "ALL");
        let bits = |names: &[&str]| -> Result<u64> {
            let bit = |name: &&str| Capability::named(name).map(Capability::bit);
            let bits: Result<Vec<u64>, String> = names.iter().map(bit).collect();
            Ok(bits.map_err(anyhow::Error::msg)?.into_iter().sum())
        };
        if self.privileged {
            return Ok(may);
        }
        let mut set = match (all(&self.cap_add), all(&self.cap_drop)) {
            (true, _) => may,
            (false, true) => 0,
            (false, false) => bits(&DEFAULT)? & may,
        };
        for name in self.cap_drop.iter().filter(|name| *name != "ALL") {
            set &= !bits(&[name])?;
        }
        for name in self.cap_add.iter().filter(|name| *name != "ALL") {
            let bit = bits(&[name])?;
            if may & bit == 0 {
                bail!(
                    "--cap-add {name}: this program hasn't got it itself, and can't give it\nhelp: \
                     start what is around it with more privileges: `docker run --privileged`, or root"
                );
            }
            set |= bit;
        }
        Ok(set)
    }
}

impl Privileges {
    /// What a process of `user` may do.
    pub fn process(&self, user: User) -> Process {
        Process {
            capabilities: CapSets::of(self.capabilities, user.uid),
            no_new_privileges: self.no_new_privileges,
            filter: self.filter.clone(),
            user,
        }
    }

    /// Makes /sys read-only, masks the paths that tell about the host with `null`, and makes those that change the
    /// host read-only, unless the flags want them open.
    pub fn seal(&self, null: &MountPoint) -> Result<()> {
        if self.privileged {
            return Ok(());
        }
        remount_read_only("/sys")?;
        match self.sealed {
            true => seal(null, MASKED_PATHS, READ_ONLY_PATHS).context("masked and read-only paths"),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capabilities::kept_name;

    fn set(add: &[&str], drop: &[&str], may: u64) -> Result<u64> {
        let names = |names: &[&str]| names.iter().map(|name| kept_name(name).unwrap()).collect();
        let args = Security {
            cap_add: names(add),
            cap_drop: names(drop),
            ..Security::default()
        };
        args.capabilities(may)
    }

    #[test]
    fn adding_and_dropping() {
        let all = (1 << 41) - 1;
        let default = set(&[], &[], all).unwrap();
        assert_eq!(
            default, 0xa80425fb,
            "the mask that Docker's containers show in CapBnd"
        );
        assert_eq!(set(&["all"], &[], all).unwrap(), all);
        assert_eq!(set(&[], &["ALL"], all).unwrap(), 0);
        assert_eq!(set(&["cap_kill"], &["all"], all).unwrap(), 1 << 5);
        assert_eq!(set(&["ALL"], &["kill"], all).unwrap(), all & !(1 << 5));
        assert_eq!(set(&[], &["chown"], all).unwrap(), default & !1);
        // A capability that we haven't got ourselves.
        assert_eq!(set(&[], &[], 1).unwrap(), 1);
        assert!(set(&["sys_resource"], &[], 1).is_err());
    }
}

//! The flags for privileges, and what they come to.

use crate::capabilities::{CapSets, Capability, DEFAULT, permitted};
use crate::paths::{MASKED_PATHS, READ_ONLY_PATHS, seal};
use crate::seccomp::Filter;
use crate::seccomp::profile::Profile;
use crate::users::User;
use crate::{Process, remount_read_only};
use anyhow::{Context, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::str::FromStr;
use step05_tty::mounts::MountPoint;

/// What the container's root may do.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[command(next_help_heading = "Privileges")]
pub struct PrivilegeArgs {
    /// Add a capability to Docker's fourteen; ALL adds every one
    #[arg(long, value_name = "CAPABILITY", value_parser = capability)]
    pub cap_add: Vec<String>,

    /// Take a capability away; ALL takes every one
    #[arg(long, value_name = "CAPABILITY", value_parser = capability)]
    pub cap_drop: Vec<String>,

    /// seccomp=FILE or seccomp=unconfined, no-new-privileges=true or false, systempaths=unconfined
    #[arg(long, value_name = "OPTION", value_parser = SecurityOption::from_str)]
    pub security_opt: Vec<SecurityOption>,

    /// Leave the container's root all that this program may do itself, every device included
    #[arg(long)]
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

impl FromStr for SecurityOption {
    type Err = String;

    fn from_str(text: &str) -> Result<SecurityOption, String> {
        // Docker's older form has a colon, which Docker still accepts.
        let (key, value) = text.split_once(['=', ':']).unwrap_or((text, ""));
        match (key, value) {
            ("seccomp", "unconfined") => Ok(SecurityOption::SeccompUnconfined),
            ("seccomp", file) if !file.is_empty() => Ok(SecurityOption::Seccomp(file.into())),
            ("no-new-privileges", "true" | "") => Ok(SecurityOption::NoNewPrivileges(true)),
            ("no-new-privileges", "false") => Ok(SecurityOption::NoNewPrivileges(false)),
            ("systempaths", "unconfined") => Ok(SecurityOption::SystempathsUnconfined),
            _ => Err(
                "it has to be seccomp=FILE, seccomp=unconfined, no-new-privileges[=true|false] or \
                      systempaths=unconfined"
                    .into(),
            ),
        }
    }
}

fn capability(text: &str) -> Result<String, String> {
    if text.eq_ignore_ascii_case("ALL") {
        return Ok("ALL".into());
    }
    Capability::named(text).map(|capability| capability.name().into())
}

/// The privileges that the flags come to.
#[derive(Debug)]
pub struct Privileges {
    /// What root may do: a bit for each capability.
    pub capabilities: u64,
    no_new_privileges: bool,
    filter: Option<Filter>,
    sealed: bool,
    privileged: bool,
}

impl PrivilegeArgs {
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

    fn set(add: &[&str], drop: &[&str], may: u64) -> Result<u64> {
        let names = |names: &[&str]| names.iter().map(|name| capability(name).unwrap()).collect();
        let args = PrivilegeArgs {
            cap_add: names(add),
            cap_drop: names(drop),
            ..PrivilegeArgs::default()
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

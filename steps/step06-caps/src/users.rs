//! Users and groups by the names that the container's own root gives them.

use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::unistd::Gid;
use serde::{Deserialize, Serialize};
use std::path::Path;
use step04_pivot_root::root::Root;

/// Who the command runs as.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UserName {
    /// `USER[:GROUP]`, by number or by the root's own names; root, without.
    pub user: Option<String>,
}

/// A process's user and groups: credentials(7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// The supplementary groups.
    pub groups: Vec<u32>,
    /// Its home directory, which becomes HOME.
    pub home: String,
}

/// The most bytes of a file that are read: enough for many thousand users.
const LONGEST_FILE: usize = 4 * 1024 * 1024;

/// The largest number of a user or a group: chown(2) takes the next one for "leave it as it is".
const LARGEST: u32 = u32::MAX - 1;

impl UserName {
    /// Looks the user up in the root that the caller is in. Where no user is named it is root.
    ///
    /// # Errors
    /// The root knows no such user or group.
    pub fn find(&self) -> Result<User> {
        let root = Root::at(Path::new("/"))?;
        let read = |path| String::from_utf8_lossy(&root.text(path, LONGEST_FILE)).into_owned();
        let (passwd, group) = (read("/etc/passwd"), read("/etc/group"));
        find(self.user.as_deref().unwrap_or("0"), &passwd, &group)
    }
}

/// Sets the supplementary groups: setgroups(2). Where a user namespace denies that (/proc/self/setgroups), a process keeps
/// the groups that it has, and to want none is no error.
pub fn setgroups(groups: &[Gid]) -> nix::Result<()> {
    match nix::unistd::setgroups(groups) {
        Err(Errno::EPERM) if groups.is_empty() => {
            let denied = std::fs::read_to_string("/proc/self/setgroups");
            match denied.is_ok_and(|text| text.trim() == "deny") {
                true => Ok(()),
                false => Err(Errno::EPERM),
            }
        }
        set => set,
    }
}

impl User {
    /// The variables that the user adds to the environment.
    pub fn environment(&self) -> Vec<String> {
        vec![format!("HOME={}", self.home)]
    }
}

/// The user that `text` means, by the contents of passwd(5) and group(5).
fn find(text: &str, passwd: &str, group: &str) -> Result<User> {
    let (user, wanted_group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    // A name comes before a number: passwd(5) allows a user to be called 1000.
    let entries: Vec<Vec<&str>> = lines(passwd, 7);
    let by_name = entries.iter().find(|entry| entry[0] == user);
    let by_number = || entries.iter().find(|entry| entry[2] == user);
    let entry = by_name.or_else(by_number);
    if let Some(entry) =
        entry.filter(|entry| number(entry[2]).is_none() || number(entry[3]).is_none())
    {
        bail!(
            "-u {text}: the root's /etc/passwd gives {} a number that can't be: {}",
            entry[0],
            entry.join(":")
        );
    }
    let uid = match (entry.and_then(|entry| number(entry[2])), number(user)) {
        (Some(uid), _) | (None, Some(uid)) => uid,
        (None, None) => bail!(
            "-u {text}: the root's /etc/passwd has no user {user}\nhelp: {}, or name one by its number",
            known(&entries)
        ),
    };
    let groups: Vec<Vec<&str>> = lines(group, 4);
    let own = entry.and_then(|entry| number(entry[3])).unwrap_or(0);
    let (gid, supplementary) = match wanted_group {
        None => (own, groups_of(entry.map(|entry| entry[0]), &groups)),
        Some(wanted) => {
            let by_name = groups.iter().find(|entry| entry[0] == wanted);
            let gid = by_name.and_then(|entry| number(entry[2]));
            match gid.or(number(wanted)) {
                Some(gid) => (gid, Vec::new()),
                None => bail!(
                    "-u {text}: the root's /etc/group has no group {wanted}\nhelp: {}, or name one \
                     by its number",
                    known(&groups)
                ),
            }
        }
    };
    let home = entry.map_or("", |entry| entry[5]);
    // Where no file names a home, root's is /root, and any other user's /.
    let home = match (home, uid) {
        ("", 0) => "/root",
        ("", _) => "/",
        (home, _) => home,
    };
    Ok(User {
        uid,
        gid,
        groups: supplementary,
        home: home.into(),
    })
}

fn lines(text: &str, fields: usize) -> Vec<Vec<&str>> {
    let lines = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    lines.filter(|entry| entry.len() >= fields).collect()
}

fn groups_of(user: Option<&str>, groups: &[Vec<&str>]) -> Vec<u32> {
    let Some(user) = user else { return Vec::new() };
    let members = |entry: &&Vec<&str>| entry[3].split(',').any(|member| member == user);
    let found = groups.iter().filter(members);
    found.filter_map(|entry| number(entry[2])).collect()
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number| *number <= LARGEST)
}

fn known(entries: &[Vec<&str>]) -> String {
    let names: Vec<_> = entries.iter().take(8).map(|entry| entry[0]).collect();
    match names[..] {
        [] => "it has none at all".into(),
        _ => format!("it has {}", names.join(", ")),
    }
}

/// Checks what is given for a user, as far as that goes without a root.
pub fn shape(text: &str) -> Result<String, String> {
    let whole = text.split(':').all(|part| !part.is_empty());
    let negative = text.split(':').any(|part| part.starts_with('-'));
    let too_large = text.split(':').any(|part| {
        part.parse::<u64>()
            .is_ok_and(|number| number > LARGEST.into())
    });
    match whole && text.split(':').count() <= 2 && !negative && !too_large {
        true => Ok(text.into()),
        false => Err(format!(
            "it has to be USER or USER:GROUP, each a name or a number up to {LARGEST}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nmail:x:8:8::/var/mail:/bin/sh\n\
        1234:x:77:78::/home/odd:/bin/sh\nbroken:x\n";
    const GROUP: &str = "root:x:0:\nmail:x:8:\nstaff:x:50:mail,root\naudio:x:29:mail\n";

    fn ids(text: &str) -> (u32, u32, Vec<u32>, String) {
        let user = find(text, PASSWD, GROUP).unwrap();
        (user.uid, user.gid, user.groups, user.home)
    }

    #[test]
    fn a_user_is_found_by_name_and_by_number() {
        assert_eq!(ids("mail"), (8, 8, vec![50, 29], "/var/mail".into()));
        assert_eq!(ids("8"), ids("mail"));
        assert_eq!(ids("1234"), (77, 78, vec![], "/home/odd".into()));
        assert_eq!(ids("4711"), (4711, 0, vec![], "/".into()));
        assert_eq!(ids("mail:staff"), (8, 50, vec![], "/var/mail".into()));
        assert_eq!(ids("4711:4712"), (4711, 4712, vec![], "/".into()));
        assert_eq!(ids("0"), (0, 0, vec![50], "/root".into()));
    }

    #[test]
    fn who_is_not_there_is_named() {
        for (text, name) in [
            ("bob", "no user bob"),
            ("mail:bobs", "no group bobs"),
            ("broken", "no user"),
        ] {
            let said = find(text, PASSWD, GROUP).unwrap_err().to_string();
            assert!(said.contains(name) && said.contains("root"), "{said}");
        }
        // As a system call's argument this number means: leave it as it is.
        let trap = "evil:x:4294967295:4294967295::/:/bin/sh\n";
        assert!(
            find("evil", trap, GROUP)
                .unwrap_err()
                .to_string()
                .contains("can't be")
        );
        for text in ["", ":", "a:b:c", "-1", "4294967295", "0:"] {
            assert!(shape(text).is_err(), "{text}");
        }
    }
}

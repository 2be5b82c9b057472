//! Devices, maps of IDs and settings of config.json, in the types of the earlier steps.

use crate::config::read::{DeviceRuleSpec, DeviceSpec, IdMapping, Linux};
use anyhow::{Context, Result, bail};
use nix::mount::MsFlags;
use nix::sys::stat::SFlag;
use step02_pid::gate::IdMap;
use step05_tty::{DEVICES, Device, Number};
use step07_cgroups::devices::{Access, DEFAULT_RULES, DeviceRule};

/// The devices that the container has: those that every container has, and those of the list.
///
/// # Errors
/// The text names the property.
pub fn devices(specs: &[DeviceSpec]) -> Result<Vec<Device<'static>>> {
    let mut devices = DEVICES.to_vec();
    for (place, spec) in specs.iter().enumerate() {
        let device = device(spec).with_context(|| format!("linux.devices[{place}]"))?;
        devices.retain(|other| other.path != device.path);
        devices.push(device);
    }
    Ok(devices)
}

fn device(spec: &DeviceSpec) -> Result<Device<'static>> {
    if !spec.path.starts_with('/') {
        bail!("path: {:?} has to be an absolute path", spec.path);
    }
    let number = |field: &str, number: Option<i64>| {
        let number = number.with_context(|| format!("{field}: missing field"))?;
        u32::try_from(number).with_context(|| format!("{field}: {number} can't be"))
    };
    let kind = match spec.kind.as_str() {
        "c" | "u" => SFlag::S_IFCHR,
        "b" => SFlag::S_IFBLK,
        "p" => SFlag::S_IFIFO,
        other => bail!("type: {other:?} is no type of a device: c, u, b or p"),
    };
    let number = match kind {
        // A pipe has no number.
        SFlag::S_IFIFO => Number { major: 0, minor: 0 },
        _ => Number {
            major: number("major", spec.major)?,
            minor: number("minor", spec.minor)?,
        },
    };
    Ok(Device {
        path: spec.path.clone().into(),
        kind,
        number,
        mode: spec.file_mode.unwrap_or(0o666) & 0o7777,
        owner: (spec.uid.unwrap_or(0), spec.gid.unwrap_or(0)),
    })
}

/// The rules for devices, with those that every container has at their end; `None`: all are allowed.
///
/// # Errors
/// The text names the property.
pub fn device_rules(specs: &[DeviceRuleSpec]) -> Result<Option<Vec<DeviceRule>>> {
    // Without any rule a group may do what the group above it may.
    let mut all = true;
    let mut rules: Vec<DeviceRule> = Vec::new();
    for (place, spec) in specs.iter().enumerate() {
        let read = device_rule(spec);
        match read.with_context(|| format!("linux.resources.devices[{place}]"))? {
            Some(rule) => rules.push(rule),
            // A rule about everything: what came before it means nothing any more.
            None => {
                rules.clear();
                all = spec.allow;
            }
        }
    }
    if all && rules.is_empty() {
        return Ok(None);
    }
    if all {
        let everything = |kind| DeviceRule {
            kind,
            major: None,
            minor: None,
            access: Access::ALL,
            allow: true,
        };
        rules.splice(0..0, [SFlag::S_IFCHR, SFlag::S_IFBLK].map(everything));
    }
    rules.extend(DEFAULT_RULES.iter().cloned());
    Ok(Some(rules))
}

/// One rule; `None` for one about all devices and all that may be done to them.
fn device_rule(spec: &DeviceRuleSpec) -> Result<Option<DeviceRule>> {
    let access = access(spec.access.as_deref())?;
    // -1 stands for any, too.
    let number = |field: &str, number: Option<i64>| match number {
        None | Some(-1) => Ok(None),
        Some(number) => u32::try_from(number)
            .map(Some)
            .with_context(|| format!("{field}: {number} can't be")),
    };
    let (major, minor) = (number("major", spec.major)?, number("minor", spec.minor)?);
    let kind = match spec.kind.as_deref() {
        None | Some("" | "a") => {
            let everything = access.read && access.write && access.mknod;
            if major.is_some() || minor.is_some() || !everything {
                bail!("type: a rule about both types is about all devices and rwm; name c or b");
            }
            return Ok(None);
        }
        Some("c" | "u") => SFlag::S_IFCHR,
        Some("b") => SFlag::S_IFBLK,
        Some(other) => bail!("type: {other:?} is no type of a rule: a, c or b"),
    };
    Ok(Some(DeviceRule {
        kind,
        major,
        minor,
        access,
        allow: spec.allow,
    }))
}

fn access(letters: Option<&str>) -> Result<Access> {
    let letters = letters
        .filter(|letters| !letters.is_empty())
        .unwrap_or("rwm");
    if let Some(other) = letters.chars().find(|letter| !"rwm".contains(*letter)) {
        bail!("access: {other:?} is none of r, w and m");
    }
    Ok(Access {
        read: letters.contains('r'),
        write: letters.contains('w'),
        mknod: letters.contains('m'),
    })
}

/// The pieces of a user namespace's map.
pub fn id_maps(mappings: &[IdMapping]) -> Vec<IdMap> {
    let map = |each: &IdMapping| IdMap {
        inside: each.container_id,
        outside: each.host_id,
        count: each.size,
    };
    mappings.iter().map(map).collect()
}

/// How the root is to hear of new mounts; `None`: as it does.
///
/// # Errors
/// The word means nothing.
pub fn propagation(word: &str) -> Result<Option<MsFlags>> {
    use step05_tty::options::Options;
    if word.is_empty() {
        return Ok(None);
    }
    match Options::read([word]).propagation[..] {
        [flags] => Ok(Some(flags)),
        _ => bail!(
            "linux.rootfsPropagation: {word:?} is none of shared, slave, private and unbindable, with an r before it for \
             the mounts below, too"
        ),
    }
}

/// The files of settings in /proc/sys, with their values: `net.ipv4.ip_forward` is net/ipv4/ip_forward.
///
/// # Errors
/// A setting of a namespace that the container hasn't got of its own: it would change the host.
pub fn sysctl(linux: &Linux) -> Result<Vec<(String, String)>> {
    let own = |kind: &str| {
        let mut namespaces = linux.namespaces.iter();
        namespaces.any(|namespace| namespace.kind == kind)
    };
    let setting = |(name, value): (&String, &String)| {
        let path = match name.contains('/') {
            true => name.clone(),
            false => name.replace('.', "/"),
        };
        let field = || format!("linux.sysctl.{name}");
        if path.split('/').any(|part| part.is_empty() || part == "..") {
            bail!("{}: that is no setting", field());
        }
        let of_ipc = ["kernel/msg", "kernel/sem", "kernel/shm", "fs/mqueue/"]
            .iter()
            .any(|begin| path.starts_with(begin));
        let needs = match path.as_str() {
            "kernel/domainname" | "kernel/hostname" => "uts",
            _ if of_ipc => "ipc",
            _ if path.starts_with("net/") => "network",
            _ if path.starts_with("user/") => "user",
            _ => bail!(
                "{}: it has no namespace, so it would change the host",
                field()
            ),
        };
        match own(needs) {
            true => Ok((path, value.clone())),
            false => bail!(
                "{}: without a {needs} namespace of its own, the container would change the host",
                field()
            ),
        }
    };
    linux.sysctl.iter().map(setting).collect()
}

/// The execution domain: personality(2).
///
/// # Errors
/// One that there isn't, or flags, of which none are specified.
pub fn personality(linux: &Linux) -> Result<Option<libc::c_ulong>> {
    let Some(personality) = &linux.personality else {
        return Ok(None);
    };
    if !personality.flags.is_empty() {
        bail!("linux.personality.flags: there are none");
    }
    match personality.domain.as_str() {
        "LINUX" => Ok(Some(0)),
        "LINUX32" => Ok(Some(8)),
        other => bail!("linux.personality.domain: {other:?} is neither LINUX nor LINUX32"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Result<Option<Vec<DeviceRule>>> {
        device_rules(&serde_json::from_str::<Vec<DeviceRuleSpec>>(text).unwrap())
    }

    #[test]
    fn rules_for_devices() {
        let shown = |text: &str| -> Vec<String> {
            let rules = rules(text).unwrap().unwrap();
            let own = &rules[..rules.len() - DEFAULT_RULES.len()];
            let sign = |rule: &DeviceRule| if rule.allow { '+' } else { '-' };
            own.iter()
                .map(|rule| format!("{}{rule}", sign(rule)))
                .collect()
        };
        assert!(rules("[]").unwrap().is_none());
        assert!(
            rules(r#"[{"allow": false}, {"allow": true, "type": "a", "access": "rwm"}]"#)
                .unwrap()
                .is_none()
        );
        let one = r#"[{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 10, "minor": 229}]"#;
        assert_eq!(shown(one), ["+c 10:229 rwm"]);
        let but = r#"[{"allow": false, "type": "b", "major": 8, "minor": -1, "access": "w"}]"#;
        assert_eq!(shown(but), ["+c *:* rwm", "+b *:* rwm", "-b 8:* w"]);
        for (wrong, said) in [
            (r#"[{"allow": true, "type": "x"}]"#, "devices[0]: type"),
            (
                r#"[{"allow": true, "type": "c", "access": "x"}]"#,
                "devices[0]: access",
            ),
            (r#"[{"allow": true, "major": 1}]"#, "devices[0]: type"),
            (
                r#"[{"allow": true, "type": "c", "major": -2}]"#,
                "devices[0]: major",
            ),
        ] {
            let error = format!("{:#}", rules(wrong).unwrap_err());
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn settings_that_would_change_the_host() {
        let linux = |text: &str| sysctl(&serde_json::from_str::<Linux>(text).unwrap());
        let net =
            r#"{"namespaces": [{"type": "network"}], "sysctl": {"net.ipv4.ip_forward": "1"}}"#;
        let files = linux(net).unwrap();
        assert_eq!(files, [("net/ipv4/ip_forward".to_owned(), "1".to_owned())]);
        for wrong in [
            r#"{"sysctl": {"net.ipv4.ip_forward": "1"}}"#,
            r#"{"namespaces": [{"type": "network"}], "sysctl": {"kernel.panic": "1"}}"#,
            r#"{"namespaces": [{"type": "network"}], "sysctl": {"net/../kernel/panic": "1"}}"#,
            r#"{"sysctl": {"kernel.shmmax": "1"}}"#,
        ] {
            linux(wrong).unwrap_err();
        }
    }
}

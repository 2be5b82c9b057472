//! What a process of config.json may do, in the types of steps 6 and 7.

use crate::config::read::{CapabilitySets, ProcessSpec};
use crate::report;
use anyhow::{Context, Result, anyhow, bail};
use nix::sys::resource::{RLIM_INFINITY, getrlimit, setrlimit};
use step06_caps::capabilities::{CapSets, Capability, permitted};
use step06_caps::users::User;
use step07_cgroups::rlimits::{NAMES, Ulimit};

/// A process's five sets, as far as this process `may` give them: a bit for each capability. What it can't give is dropped
/// with a warning, as the specification wants it.
pub fn capabilities(sets: &CapabilitySets, may: u64) -> CapSets {
    let mut dropped: Vec<String> = Vec::new();
    let mut bits = |field: &str, names: &[String], within: u64| {
        let bit = |name: &String| match Capability::named(name).map(Capability::bit) {
            Ok(bit) if within & bit != 0 => bit,
            _ => {
                dropped.push(format!("{field}: {name}"));
                0
            }
        };
        names.iter().map(bit).fold(0, |set, bit| set | bit)
    };
    let bounding = bits("bounding", &sets.bounding, may);
    let permitted = bits("permitted", &sets.permitted, may);
    let effective = bits("effective", &sets.effective, permitted);
    let inheritable = bits("inheritable", &sets.inheritable, may);
    // The kernel has none that isn't in both, and engines name them without minding.
    let ambient = bits("ambient", &sets.ambient, u64::MAX) & permitted & inheritable;
    if !dropped.is_empty() {
        report::warn(&format!(
            "process.capabilities: these can't be granted here, and are left out: {}",
            dropped.join(", ")
        ));
    }
    CapSets {
        bounding,
        permitted,
        effective,
        inheritable,
        ambient,
    }
}

/// The capabilities that this process can give to one in a user namespace of its own (`all` of them), or in ours.
pub fn to_be_given(in_user_namespace: bool) -> u64 {
    match in_user_namespace {
        true => Capability::all().fold(0, |set, each| set | each.bit()),
        false => permitted(),
    }
}

/// The limits of setrlimit(2).
///
/// # Errors
/// A limit that there isn't, or is given twice; a soft one above its hard one; one above what the kernel grants to this
/// process: the text names the property, what is wanted and what is allowed.
pub fn rlimits(process: &ProcessSpec) -> Result<Vec<Ulimit>> {
    const SYS_RESOURCE: u64 = 1 << 24;
    let may_raise = permitted() & SYS_RESOURCE != 0;
    let mut limits: Vec<Ulimit> = Vec::new();
    for (place, limit) in process.rlimits.iter().enumerate() {
        let field = format!("process.rlimits[{place}]");
        let (kind, soft, hard) = (&limit.kind, limit.soft, limit.hard);
        let name = kind.strip_prefix("RLIMIT_").unwrap_or("").to_lowercase();
        let Some((_, resource)) = NAMES.iter().find(|(known, _)| *known == name) else {
            bail!("{field}.type: there is no limit {kind:?}");
        };
        if process.rlimits[..place]
            .iter()
            .any(|other| other.kind == *kind)
        {
            bail!("{field}.type: {kind} is given twice");
        }
        let (_, allowed) = getrlimit(*resource)?;
        if hard > allowed && !may_raise {
            bail!(
                "{field}: {kind}: {} is wanted, and the kernel grants this process {}\nhelp: ask for less, or start the \
                 runtime with CAP_SYS_RESOURCE",
                shown(hard),
                shown(allowed)
            );
        }
        let ulimit = format!("{name}={soft}:{hard}").parse::<Ulimit>();
        limits.push(ulimit.map_err(|error| anyhow!("{field}: {kind}: {error}"))?);
    }
    Ok(limits)
}

/// Raises this process's own hard limits to what `process` wants, so that it inherits them: in a user namespace of its own it
/// couldn't raise them.
pub fn raise_hard_limits(process: &ProcessSpec) -> Result<()> {
    for limit in &process.rlimits {
        let name = limit
            .kind
            .strip_prefix("RLIMIT_")
            .unwrap_or("")
            .to_lowercase();
        let Some((_, resource)) = NAMES.iter().find(|(known, _)| *known == name) else {
            continue;
        };
        let (soft, hard) = getrlimit(*resource)?;
        if limit.hard > hard {
            setrlimit(*resource, soft, limit.hard)
                .with_context(|| format!("process.rlimits: {}", limit.kind))?;
        }
    }
    Ok(())
}

fn shown(limit: u64) -> String {
    match limit {
        RLIM_INFINITY => "no limit".into(),
        limit => limit.to_string(),
    }
}

/// The process's user and groups.
pub fn user(process: &ProcessSpec) -> User {
    User {
        uid: process.user.uid,
        gid: process.user.gid,
        groups: process.user.additional_gids.clone(),
        home: String::new(),
    }
}

//! A seccomp profile in Docker's JSON format, and how it becomes a filter.
//!
//! A profile says by name what each system call gets, perhaps only with certain arguments, and only
//! for containers with certain capabilities, on certain architectures or kernels. A name stands for
//! another number on each architecture, and a 64-bit machine runs 32-bit programs too, so a filter
//! has a table for each architecture.

use crate::capabilities::Capability;
use crate::seccomp::arches::{ARCHES, AUDIT_ARCH_X86_64, Arch, FAR, X32_SYSCALL_BIT, is_known};
use crate::seccomp::{Action, Condition, Filter, MOST_INSTRUCTIONS, Rules, Table, Test, compile};
use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use step01_uts::narration::warn;

/// A profile as it stands in its file. As for Docker and runc, fields that nobody knows mean nothing, and `null` means
/// what a field without a value means.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    /// The profile's source, to be named in errors.
    #[serde(skip)]
    origin: String,
    default_action: String,
    #[serde(default, deserialize_with = "or_nothing")]
    default_errno_ret: Option<u16>,
    #[serde(default, deserialize_with = "or_nothing")]
    arch_map: Vec<ArchMap>,
    #[serde(default, deserialize_with = "or_nothing")]
    architectures: Vec<String>,
    #[serde(default, deserialize_with = "or_nothing")]
    syscalls: Vec<Rule>,
    /// Options of seccomp(2), by name.
    #[serde(default, deserialize_with = "or_nothing")]
    flags: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: String,
    #[serde(default, deserialize_with = "or_nothing")]
    sub_architectures: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default, deserialize_with = "or_nothing")]
    names: Vec<String>,
    #[serde(default, deserialize_with = "or_nothing")]
    name: Option<String>,
    action: String,
    #[serde(default, deserialize_with = "or_nothing")]
    errno_ret: Option<u16>,
    #[serde(default, deserialize_with = "or_nothing")]
    args: Option<Vec<Arg>>,
    #[serde(default, deserialize_with = "or_nothing")]
    includes: Only,
    #[serde(default, deserialize_with = "or_nothing")]
    excludes: Only,
    #[serde(default, rename = "comment", deserialize_with = "or_nothing")]
    _comment: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Arg {
    index: u32,
    #[serde(default, deserialize_with = "or_nothing")]
    value: u64,
    #[serde(default, deserialize_with = "or_nothing")]
    value_two: u64,
    op: String,
}

/// The capabilities, architectures and kernels for which a rule is meant, or not meant.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Only {
    #[serde(default, deserialize_with = "or_nothing")]
    caps: Option<Vec<String>>,
    #[serde(default, deserialize_with = "or_nothing")]
    arches: Option<Vec<String>>,
    #[serde(default, deserialize_with = "or_nothing")]
    min_kernel: Option<String>,
}

/// A value, or nothing for `null`: the JSON libraries of Go write an empty list so.
fn or_nothing<'a, T: Default + Deserialize<'a>, D: Deserializer<'a>>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Our own profile: what isn't named in it is refused.
const DEFAULT: &str = include_str!("default-profile.json");

impl Default for Profile {
    fn default() -> Profile {
        Profile::parse(DEFAULT, "the default profile".into()).expect("a test reads it")
    }
}

impl Profile {
    /// Reads the profile in `file`. A system call that nobody knows is passed over, with a warning: it may be newer than we
    /// are, and it may be mistyped.
    ///
    /// # Errors
    /// There is no such file, or it isn't a profile: the text says where and what is allowed there.
    pub fn read(file: &Path) -> Result<Profile> {
        let origin = format!("--security-opt seccomp={}", file.display());
        let text = fs::read_to_string(file).with_context(|| origin.clone())?;
        let profile = Profile::parse(&text, origin)?;
        for name in profile.unknown() {
            let origin = &profile.origin;
            let text = format!("{origin}: no architecture has a system call {name:?}");
            warn("warning", &text);
        }
        Ok(profile)
    }

    /// The names that stand for a system call of no architecture.
    fn unknown(&self) -> impl Iterator<Item = &String> {
        let names = self.syscalls.iter();
        let names = names.flat_map(|rule| rule.names.iter().chain(&rule.name));
        names.filter(|name| !is_known(name))
    }

    /// The same profile as a part of something else, to be called `origin` in errors.
    pub fn part_of(self, origin: &str) -> Profile {
        Profile {
            origin: origin.into(),
            ..self
        }
    }

    fn parse(text: &str, origin: String) -> Result<Profile> {
        let profile: Profile = serde_json::from_str(text).with_context(|| origin.clone())?;
        Ok(Profile { origin, ..profile })
    }

    /// Translates the profile for a container whose root may have `capabilities`.
    ///
    /// # Errors
    /// A name, an action or a comparison that isn't known.
    pub fn compile(&self, capabilities: u64) -> Result<Filter> {
        self.translate(capabilities)
            .with_context(|| self.origin.clone())
    }

    fn translate(&self, capabilities: u64) -> Result<Filter> {
        let errno = self.default_errno_ret.unwrap_or(Errno::EPERM as u16);
        let default = action(&self.default_action, errno)?;
        let mut tables = Vec::new();
        for arch in self.arches() {
            let architecture = arch.audit;
            let calls = BTreeMap::new();
            tables.push((
                arch.number,
                Table {
                    architecture,
                    calls,
                    newest: None,
                    from: Vec::new(),
                },
            ));
        }
        let kernel = kernel_version();
        // A program for another architecture would mean other calls by the same numbers.
        let foreign = libc::SECCOMP_RET_KILL_PROCESS;
        for rule in &self.syscalls {
            let meant = rule.is_meant(capabilities, kernel)?;
            let action = action(&rule.action, rule.errno_ret.unwrap_or(Errno::EPERM as u16))?;
            let alternatives = rule.alternatives()?;
            for name in rule.names.iter().chain(&rule.name) {
                for (number_of, table) in &mut tables {
                    let Some(number) = number_of(name) else {
                        continue;
                    };
                    // ARM's own calls lie far above the others.
                    if number < FAR {
                        table.newest = table.newest.max(Some(number));
                    }
                    if meant && action != default {
                        add(
                            table.calls.entry(number).or_default(),
                            &alternatives,
                            action,
                        );
                    }
                }
            }
        }
        let mut tables: Vec<_> = tables.into_iter().map(|(_, table)| table).collect();
        for table in &mut tables {
            // A call that is newer than the profile isn't refused, but answered as a missing one (ENOSYS): then the C
            // library takes an older call.
            let is_refused = default & libc::SECCOMP_RET_ACTION_FULL == libc::SECCOMP_RET_ERRNO;
            if let (true, Some(newest)) = (is_refused, table.newest) {
                table
                    .from
                    .push((newest + 1, libc::SECCOMP_RET_ERRNO | Errno::ENOSYS as u32));
            }
            // The numbers of x32, which has the same AUDIT_ARCH_… number, and other calls.
            if table.architecture == AUDIT_ARCH_X86_64 {
                table.from.push((X32_SYSCALL_BIT, foreign));
            }
        }
        let mut filter = compile(&tables, default, foreign).map_err(|length| {
            anyhow!("it makes {length} instructions, and the kernel takes {MOST_INSTRUCTIONS}")
        })?;
        for name in &self.flags {
            filter.flags |= flag(name)?;
        }
        Ok(filter)
    }

    /// The architectures of this machine that the profile is for. The machine's own is always among them.
    fn arches(&self) -> Vec<&'static Arch> {
        let native = ARCHES[0].name;
        let map = self.arch_map.iter().find(|map| map.architecture == native);
        let sub = map.and_then(|map| map.sub_architectures.as_ref());
        let named = |name: &str| {
            let in_list = |list: &Vec<String>| list.iter().any(|each| each == name);
            sub.is_some_and(in_list) || in_list(&self.architectures)
        };
        let wanted = ARCHES.iter().enumerate();
        let wanted = wanted.filter(|(position, arch)| *position == 0 || named(arch.name));
        wanted.map(|(_, arch)| arch).collect()
    }
}

impl Rule {
    fn is_meant(&self, capabilities: u64, kernel: (u32, u32)) -> Result<bool> {
        let has = |name: &String| -> Result<bool> {
            let capability = Capability::named(name).map_err(anyhow::Error::msg)?;
            Ok(capabilities & capability.bit() != 0)
        };
        let has: Vec<bool> = self
            .includes
            .caps
            .iter()
            .flatten()
            .map(has)
            .collect::<Result<_>>()?;
        let hasnt = |name: &String| -> Result<bool> {
            let capability = Capability::named(name).map_err(anyhow::Error::msg)?;
            Ok(capabilities & capability.bit() == 0)
        };
        let hasnt: Vec<bool> = self
            .excludes
            .caps
            .iter()
            .flatten()
            .map(hasnt)
            .collect::<Result<_>>()?;
        let here = |arch: &String| arch == ARCHES[0].short;
        let among = |arches: &Vec<String>| arches.iter().any(here);
        let new_enough = |least: &String| version(least).map(|least| kernel >= least);
        Ok(has.into_iter().all(|has| has)
            && hasnt.into_iter().all(|hasnt| hasnt)
            && self
                .includes
                .arches
                .as_ref()
                .is_none_or(|arches| arches.is_empty() || among(arches))
            && !self.excludes.arches.as_ref().is_some_and(among)
            && self
                .includes
                .min_kernel
                .as_ref()
                .map_or(Ok(true), new_enough)?
            && !self
                .excludes
                .min_kernel
                .as_ref()
                .map_or(Ok(false), new_enough)?)
    }

    /// The rule's conditions, which all have to hold. But when two are about one argument, each condition
    /// becomes a rule of its own, as in libseccomp.
    fn alternatives(&self) -> Result<Vec<Vec<Condition>>> {
        let conditions = self.args.iter().flatten().map(Arg::condition);
        let conditions = conditions.collect::<Result<Vec<_>>>()?;
        let mut indices: Vec<_> = conditions.iter().map(|each| each.index).collect();
        indices.sort_unstable();
        indices.dedup();
        Ok(match indices.len() == conditions.len() {
            true => vec![conditions],
            false => conditions.into_iter().map(|each| vec![each]).collect(),
        })
    }
}

impl Arg {
    fn condition(&self) -> Result<Condition> {
        if self.index > 5 {
            bail!("a system call has arguments 0 to 5, and no {}", self.index);
        }
        let test = match self.op.as_str() {
            "SCMP_CMP_EQ" => Test::Equal(self.value),
            "SCMP_CMP_NE" => Test::NotEqual(self.value),
            "SCMP_CMP_GT" => Test::Greater(self.value),
            "SCMP_CMP_GE" => Test::GreaterOrEqual(self.value),
            "SCMP_CMP_LT" => Test::Less(self.value),
            "SCMP_CMP_LE" => Test::LessOrEqual(self.value),
            "SCMP_CMP_MASKED_EQ" => Test::MaskedEqual {
                mask: self.value,
                bits: self.value_two,
            },
            other => bail!(
                "unknown op {other:?}\nhelp: SCMP_CMP_ with EQ, NE, GT, GE, LT, LE or MASKED_EQ"
            ),
        };
        let index = self.index;
        Ok(Condition { index, test })
    }
}

/// Puts a rule behind those that a call has. A rule without conditions comes before all others, as in
/// libseccomp.
fn add(rules: &mut Rules, alternatives: &[Vec<Condition>], action: Action) {
    for conditions in alternatives {
        match conditions.is_empty() {
            true if rules.first().is_none_or(|(first, _)| !first.is_empty()) => {
                rules.insert(0, (vec![], action));
            }
            true => {}
            false => rules.push((conditions.clone(), action)),
        }
    }
}

/// The actions by their names, each with what the filter answers. Some carry a number besides.
pub const ACTIONS: [(&str, Action); 8] = [
    ("SCMP_ACT_ALLOW", libc::SECCOMP_RET_ALLOW),
    ("SCMP_ACT_ERRNO", libc::SECCOMP_RET_ERRNO),
    ("SCMP_ACT_KILL", libc::SECCOMP_RET_KILL_THREAD),
    ("SCMP_ACT_KILL_PROCESS", libc::SECCOMP_RET_KILL_PROCESS),
    ("SCMP_ACT_KILL_THREAD", libc::SECCOMP_RET_KILL_THREAD),
    ("SCMP_ACT_LOG", libc::SECCOMP_RET_LOG),
    ("SCMP_ACT_TRACE", libc::SECCOMP_RET_TRACE),
    ("SCMP_ACT_TRAP", libc::SECCOMP_RET_TRAP),
];

fn action(name: &str, errno: u16) -> Result<Action> {
    match ACTIONS.iter().find(|(known, _)| *known == name) {
        Some(&(_, action @ (libc::SECCOMP_RET_ERRNO | libc::SECCOMP_RET_TRACE))) => {
            Ok(action | u32::from(errno))
        }
        Some(&(_, action)) => Ok(action),
        None => bail!(
            "unknown action {name:?}\nhelp: SCMP_ACT_ with ALLOW, ERRNO, KILL, KILL_THREAD, KILL_PROCESS, \
             TRAP, TRACE or LOG"
        ),
    }
}

/// The comparisons by their names.
pub const OPERATORS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];

/// The names of this machine's architectures.
pub fn architectures() -> impl Iterator<Item = &'static str> {
    ARCHES.iter().map(|arch| arch.name)
}

/// The options of seccomp(2) by their names. All processes of ours have one thread, and are the same with TSYNC as without.
pub const SECCOMP_FLAGS: [(&str, libc::c_ulong); 3] = [
    ("SECCOMP_FILTER_FLAG_TSYNC", libc::SECCOMP_FILTER_FLAG_TSYNC),
    ("SECCOMP_FILTER_FLAG_LOG", libc::SECCOMP_FILTER_FLAG_LOG),
    (
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
    ),
];

fn flag(name: &str) -> Result<libc::c_ulong> {
    match SECCOMP_FLAGS.iter().find(|(known, _)| *known == name) {
        Some((_, flag)) => Ok(*flag),
        None => {
            bail!("unknown flag {name:?}\nhelp: SECCOMP_FILTER_FLAG_ with TSYNC, LOG or SPEC_ALLOW")
        }
    }
}

/// The running kernel's version, major and minor.
fn kernel_version() -> (u32, u32) {
    let release = nix::sys::utsname::uname().ok();
    let release = release.and_then(|name| name.release().to_str().map(str::to_owned));
    release
        .and_then(|text| version(&text).ok())
        .unwrap_or((0, 0))
}

/// `6.1.0-18-amd64` as (6, 1).
fn version(text: &str) -> Result<(u32, u32)> {
    let mut numbers = text.split(['.', '-']).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => bail!("{text:?} is no version of a kernel, such as 4.8"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::tests::run;

    fn compiled(text: &str) -> Result<Filter> {
        Profile::parse(text, "here".into())?.compile(0)
    }

    #[test]
    fn our_own_profile_makes_a_filter() {
        let whole = Profile::default().compile(0).unwrap();
        assert!(whole.instructions().len() < 1500);
        let more = Profile::default().compile(u64::MAX).unwrap();
        assert_ne!(whole.instructions().len(), more.instructions().len());
    }

    /// The answers to this machine's own calls, as the kernel would give them.
    #[test]
    fn what_our_own_profile_answers() {
        let refused = libc::SECCOMP_RET_ERRNO | Errno::EPERM as u32;
        let absent = libc::SECCOMP_RET_ERRNO | Errno::ENOSYS as u32;
        let allowed = libc::SECCOMP_RET_ALLOW;
        let filter = Profile::default().compile(0).unwrap();
        let ask = |call: i64, first: u64| {
            run(
                &filter,
                ARCHES[0].audit,
                call as u32,
                [first, 0, 0, 0, 0, 0],
            )
        };
        assert_eq!(ask(libc::SYS_read, 0), allowed);
        assert_eq!(ask(libc::SYS_unshare, 0), refused);
        assert_eq!(ask(libc::SYS_clone, libc::SIGCHLD as u64), allowed);
        assert_eq!(ask(libc::SYS_clone, libc::CLONE_NEWUSER as u64), refused);
        assert_eq!(ask(libc::SYS_clone3, 0), absent);
        let (inet, alg, vsock) = (2, 38, 40);
        assert_eq!(ask(libc::SYS_socket, inet), allowed);
        // The kernel looks at the lower half of the argument only.
        for family in [alg, vsock, 1 << 32 | vsock] {
            assert_eq!(ask(libc::SYS_socket, family), refused, "{family:#x}");
        }
        // A number that is newer than the profile, and one of x32's.
        assert_eq!(ask(0xf000, 0), absent);
        if cfg!(target_arch = "x86_64") {
            assert_eq!(
                ask(libc::SYS_read | i64::from(X32_SYSCALL_BIT), 0),
                libc::SECCOMP_RET_KILL_PROCESS
            );
        }
    }

    /// A profile that says nothing means what Docker and runc take it for.
    #[test]
    fn what_a_profile_leaves_out() {
        let filter = compiled(
            r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 13, "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ERRNO"},
            {"names": ["write"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": [], "caps": []}}]}"#,
        );
        let filter = filter.unwrap();
        let ask = |call: i64| run(&filter, ARCHES[0].audit, call as u32, [0; 6]);
        assert_eq!(
            ask(libc::SYS_read),
            libc::SECCOMP_RET_ERRNO | Errno::EPERM as u32
        );
        assert_eq!(ask(libc::SYS_write), libc::SECCOMP_RET_ALLOW);
        // A number in between gets what the profile says of all others.
        let between = libc::SYS_read.min(libc::SYS_write) - 1;
        assert!(between < 0 || ask(between) == libc::SECCOMP_RET_ERRNO | 13);
    }

    #[test]
    fn flags_of_seccomp_are_handed_on() {
        let with = |flags: &str| {
            compiled(&format!(
                r#"{{"defaultAction": "SCMP_ACT_ALLOW", "flags": {flags}}}"#
            ))
        };
        assert_eq!(with("[]").unwrap().flags, 0);
        let both = with(r#"["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]"#);
        let wanted = libc::SECCOMP_FILTER_FLAG_LOG | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
        assert_eq!(both.unwrap().flags, wanted);
        assert!(with(r#"["SECCOMP_FILTER_FLAG_NEW_LISTENER"]"#).is_err());
    }

    #[test]
    fn calls_of_other_machines_are_passed_over_and_no_mans_are_told() {
        let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"action": "SCMP_ACT_ERRNO", "names":
            ["mkdir", "s390_pci_mmio_read", "cacheflush", "subpage_prot", "riscv_flush_icache", "mkdri"]}]}"#;
        let profile = Profile::parse(text, "here".into()).unwrap();
        assert_eq!(profile.unknown().collect::<Vec<_>>(), ["mkdri"]);
        let filter = profile.compile(0).unwrap();
        let mkdir = run(&filter, ARCHES[0].audit, libc::SYS_mkdirat as u32, [0; 6]);
        assert_eq!(mkdir, libc::SECCOMP_RET_ALLOW);
    }

    /// Whatever may be left out may be `null`, as Go's libraries write it.
    #[test]
    fn null_is_nothing() {
        let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": null, "archMap": null, "architectures": null,
            "flags": null, "syscalls": [{"names": ["getpid"], "name": null, "action": "SCMP_ACT_ERRNO", "args": null,
            "errnoRet": null, "comment": null, "includes": null, "excludes": {"caps": null, "arches": null,
            "minKernel": null}}, {"names": null, "action": "SCMP_ACT_ERRNO"}]}"#;
        let filter = compiled(text).unwrap();
        let answer = run(&filter, ARCHES[0].audit, libc::SYS_getpid as u32, [0; 6]);
        assert_eq!(answer, libc::SECCOMP_RET_ERRNO | Errno::EPERM as u32);
        compiled(r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": null}"#).unwrap();
    }

    #[test]
    fn what_is_no_profile_is_said() {
        for (text, what) in [
            ("", "EOF"),
            ("{}", "defaultAction"),
            (r#"{"defaultAction": "ALLOW"}"#, "unknown action \"ALLOW\""),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls":
                [{"names": ["read"], "action": "SCMP_ACT_NOTIFY"}]}"#,
                "SCMP_ACT_NOTIFY",
            ),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"],
                "action": "SCMP_ACT_KILL", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]}"#,
                "arguments 0 to 5",
            ),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"],
                "action": "SCMP_ACT_KILL", "args": [{"index": 1, "value": 0, "op": "EQ"}]}]}"#,
                "unknown op",
            ),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"],
                "action": "SCMP_ACT_KILL", "includes": {"caps": ["CAP_ALMIGHTY"]}}]}"#,
                "ALMIGHTY",
            ),
        ] {
            let said = format!("{:#}", compiled(text).unwrap_err());
            assert!(said.starts_with("here: ") && said.contains(what), "{said}");
        }
    }
}

//! config.json as it stands in its file: the types of the OCI runtime specification, and how they are read.
//!
//! A property that is null is one that isn't there: programs in Go write an empty list so. Properties that nobody knows
//! are passed over, as the specification wants it. A property that is known and can't be honoured is refused.

use crate::config::place;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use step06_caps::seccomp::profile::Profile;

/// The most bytes of a file that are read: a config.json of Kubernetes has some ten thousand.
const LONGEST: u64 = 16 << 20;

/// A bundle's config.json.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// The version of the specification that it keeps to: 1.x.
    pub oci_version: String,
    /// The container's root.
    pub root: Option<RootDirectory>,
    /// The container's process.
    pub process: Option<ProcessSpec>,
    /// The name of the container's UTS namespace.
    pub hostname: Option<String>,
    /// Its NIS domain name.
    pub domainname: Option<String>,
    /// What is mounted, in this order.
    #[serde(default)]
    pub mounts: Vec<MountSpec>,
    /// Programs that are run as the container comes and goes.
    #[serde(default)]
    pub hooks: Hooks,
    /// Notes that mean nothing to us.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// What only Linux has.
    #[serde(default)]
    pub linux: Linux,
}

/// The container's root.
#[derive(Debug, Deserialize)]
pub struct RootDirectory {
    /// The directory, relative to the bundle's.
    pub path: PathBuf,
    /// Whether it is for reading only.
    #[serde(default)]
    pub readonly: bool,
}

/// A process: the container's first, or one that joins.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProcessSpec {
    /// Whether it has a terminal.
    pub terminal: bool,
    /// The terminal's size at the beginning.
    pub console_size: Option<ConsoleSize>,
    /// Its user and groups.
    pub user: UserSpec,
    /// The command and its arguments.
    pub args: Vec<String>,
    /// Its environment, `KEY=VALUE`.
    pub env: Vec<String>,
    /// Its working directory.
    pub cwd: String,
    /// Its capabilities; none of them where nothing is said.
    pub capabilities: CapabilitySets,
    /// What it may use up by itself.
    pub rlimits: Vec<Rlimit>,
    /// Whether `execve` can bring no more privileges.
    pub no_new_privileges: bool,
    /// How soon the kernel ends it when memory runs out: proc_pid_oom_score_adj(5).
    pub oom_score_adj: Option<i32>,
    /// Its AppArmor profile.
    pub apparmor_profile: String,
    /// Its SELinux label.
    pub selinux_label: String,
    /// What we don't do, to be refused.
    pub scheduler: Option<Value>,
    /// The same.
    #[serde(rename = "ioPriority")]
    pub io_priority: Option<Value>,
    /// The same.
    #[serde(rename = "execCPUAffinity")]
    pub exec_cpu_affinity: Option<Value>,
}

/// A terminal's rows and columns.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct ConsoleSize {
    /// Its rows.
    pub height: u16,
    /// Its columns.
    pub width: u16,
}

/// A user by number, as the container's user namespace has it.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct UserSpec {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The umask.
    pub umask: Option<u32>,
    /// The supplementary groups.
    pub additional_gids: Vec<u32>,
}

/// The names of capabilities in each of a process's five sets.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub struct CapabilitySets {
    /// The most that `execve` can give.
    pub bounding: Vec<String>,
    /// What the process may do.
    pub effective: Vec<String>,
    /// What stays for files that have the same.
    pub inheritable: Vec<String>,
    /// What the process may take up.
    pub permitted: Vec<String>,
    /// What stays across any `execve`.
    pub ambient: Vec<String>,
}

/// A limit of setrlimit(2).
#[derive(Debug, Clone, Deserialize)]
pub struct Rlimit {
    /// `RLIMIT_NOFILE`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The limit that holds.
    pub soft: u64,
    /// The most that it may be raised to.
    pub hard: u64,
}

/// A mount.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MountSpec {
    /// The mount point's path in the container.
    pub destination: PathBuf,
    /// The filesystem's type.
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    /// A device, a name to be shown, or for a bind mount the path on the host.
    #[serde(default)]
    pub source: Option<String>,
    /// Options by their names.
    #[serde(default)]
    pub options: Vec<String>,
    /// What we don't do, to be refused.
    #[serde(default)]
    pub uid_mappings: Vec<Value>,
    /// The same.
    #[serde(default)]
    pub gid_mappings: Vec<Value>,
}

/// Programs that are run at certain moments.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Hooks {
    /// As `create_runtime`, and before it.
    pub prestart: Vec<Hook>,
    /// On the host, when the container's mounts are made and its root isn't entered yet.
    pub create_runtime: Vec<Hook>,
    /// The same moment, in the container's namespaces.
    pub create_container: Vec<Hook>,
    /// In the container, before the command.
    pub start_container: Vec<Hook>,
    /// On the host, after the command has begun.
    pub poststart: Vec<Hook>,
    /// On the host, when the container is removed.
    pub poststop: Vec<Hook>,
}

/// One such program.
#[derive(Debug, Clone, Deserialize)]
pub struct Hook {
    /// The program.
    pub path: PathBuf,
    /// Its arguments, with its name.
    #[serde(default)]
    pub args: Vec<String>,
    /// Its environment.
    #[serde(default)]
    pub env: Vec<String>,
    /// The seconds after which it is ended.
    pub timeout: Option<i64>,
}

/// What only Linux has.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Linux {
    /// The namespaces that are made or joined; what isn't named is the runtime's.
    pub namespaces: Vec<NamespaceSpec>,
    /// The users of a new user namespace.
    pub uid_mappings: Vec<IdMapping>,
    /// Its groups.
    pub gid_mappings: Vec<IdMapping>,
    /// Offsets of the clocks of a new time namespace, by the clock's name.
    pub time_offsets: BTreeMap<String, TimeOffset>,
    /// Devices besides those that every container has.
    pub devices: Vec<DeviceSpec>,
    /// The path of the container's control groups.
    pub cgroups_path: String,
    /// What the container may use up.
    pub resources: Resources,
    /// Settings of the kernel, by their names in /proc/sys with dots.
    pub sysctl: BTreeMap<String, String>,
    /// The filter of system calls.
    pub seccomp: Option<Profile>,
    /// How the root hears of new mounts.
    pub rootfs_propagation: String,
    /// Paths that read as empty.
    pub masked_paths: Vec<String>,
    /// Paths that can't be written.
    pub readonly_paths: Vec<String>,
    /// The execution domain: personality(2).
    pub personality: Option<Personality>,
    /// The SELinux label of mounts.
    pub mount_label: String,
    /// What we don't do, to be refused.
    pub intel_rdt: Option<Value>,
    /// The same.
    pub net_devices: BTreeMap<String, Value>,
    /// The same.
    pub memory_policy: Option<Value>,
}

/// A namespace that is made, or joined by its file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct NamespaceSpec {
    /// `pid`, `network`, `mount`, `ipc`, `uts`, `user`, `cgroup` or `time`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The file of one that is there already.
    #[serde(default)]
    pub path: Option<PathBuf>,
}

/// A piece of a user namespace's map.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IdMapping {
    /// The first ID in the container.
    #[serde(rename = "containerID")]
    pub container_id: u32,
    /// The first ID outside.
    #[serde(rename = "hostID")]
    pub host_id: u32,
    /// How many.
    pub size: u32,
}

/// The offset of a clock.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub struct TimeOffset {
    /// Seconds.
    pub secs: i64,
    /// And nanoseconds.
    pub nanosecs: u32,
}

/// A device file.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceSpec {
    /// `c`, `u`, `b` or `p`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The file's path.
    pub path: String,
    /// The driver.
    #[serde(default)]
    pub major: Option<i64>,
    /// Which of its devices.
    #[serde(default)]
    pub minor: Option<i64>,
    /// Its permissions.
    #[serde(default)]
    pub file_mode: Option<u32>,
    /// Its owner.
    #[serde(default)]
    pub uid: Option<u32>,
    /// Its group.
    #[serde(default)]
    pub gid: Option<u32>,
}

/// An execution domain.
#[derive(Debug, Deserialize)]
pub struct Personality {
    /// `LINUX` or `LINUX32`.
    pub domain: String,
    /// None are specified.
    #[serde(default)]
    pub flags: Vec<String>,
}

/// What control groups limit.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Resources {
    /// Rules for devices, of which the last one that fits decides.
    pub devices: Vec<DeviceRuleSpec>,
    /// Memory.
    pub memory: Memory,
    /// Processor time.
    pub cpu: Cpu,
    /// Processes and threads.
    pub pids: Option<Pids>,
    /// Disks.
    #[serde(rename = "blockIO")]
    pub block_io: BlockIo,
    /// Huge pages.
    pub hugepage_limits: Vec<HugepageLimit>,
    /// The network's classes.
    pub network: Network,
    /// RDMA devices, by their names.
    pub rdma: BTreeMap<String, Rdma>,
    /// Files of version 2, by their names.
    pub unified: BTreeMap<String, String>,
}

/// A rule for devices.
#[derive(Debug, Clone, Deserialize)]
pub struct DeviceRuleSpec {
    /// Whether it allows or denies.
    pub allow: bool,
    /// `a`, `c` or `b`; all, without.
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    /// The driver; any, without.
    #[serde(default)]
    pub major: Option<i64>,
    /// Which of its devices; any, without.
    #[serde(default)]
    pub minor: Option<i64>,
    /// Of `rwm` those that it is about.
    #[serde(default)]
    pub access: Option<String>,
}

/// Memory, in bytes; -1 is no limit.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Memory {
    /// The limit.
    pub limit: Option<i64>,
    /// What is left to the container when memory is scarce.
    pub reservation: Option<i64>,
    /// The limit of memory and swap together.
    pub swap: Option<i64>,
    /// Deprecated: the kernel has no such limit any more.
    pub kernel: Option<i64>,
    /// The limit of the buffers of TCP.
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: Option<i64>,
    /// How soon pages are swapped out, 0 to 100.
    pub swappiness: Option<u64>,
    /// Whether processes wait when memory has run out, and aren't ended.
    #[serde(rename = "disableOOMKiller")]
    pub disable_oom_killer: bool,
    /// Deprecated: it is always so.
    pub use_hierarchy: Option<bool>,
    /// Whether a limit below what is used already is refused.
    pub check_before_update: bool,
}

/// Processor time.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Cpu {
    /// A weight, 2 to 262144.
    pub shares: Option<u64>,
    /// Microseconds in each period; -1 is no limit.
    pub quota: Option<i64>,
    /// Microseconds that may be saved up.
    pub burst: Option<u64>,
    /// The period, in microseconds.
    pub period: Option<u64>,
    /// Microseconds for real-time processes.
    pub realtime_runtime: Option<i64>,
    /// Their period.
    pub realtime_period: Option<u64>,
    /// Processors, `0-2,4`.
    pub cpus: String,
    /// Memory nodes.
    pub mems: String,
    /// Whether others always come first.
    pub idle: Option<i64>,
}

/// Processes and threads.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Pids {
    /// The limit; -1 is no limit, and 0 is one.
    pub limit: i64,
}

/// Disks.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BlockIo {
    /// A weight, 10 to 1000.
    pub weight: Option<u16>,
    /// That of the group's own processes.
    pub leaf_weight: Option<u16>,
    /// Weights for a device.
    pub weight_device: Vec<WeightDevice>,
    /// Bytes a second that are read.
    pub throttle_read_bps_device: Vec<ThrottleDevice>,
    /// Bytes a second that are written.
    pub throttle_write_bps_device: Vec<ThrottleDevice>,
    /// Reads a second.
    #[serde(rename = "throttleReadIOPSDevice")]
    pub throttle_read_iops_device: Vec<ThrottleDevice>,
    /// Writes a second.
    #[serde(rename = "throttleWriteIOPSDevice")]
    pub throttle_write_iops_device: Vec<ThrottleDevice>,
}

/// Weights for a device.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WeightDevice {
    /// The driver.
    pub major: i64,
    /// Which of its devices.
    pub minor: i64,
    /// The weight.
    pub weight: Option<u16>,
    /// That of the group's own processes.
    pub leaf_weight: Option<u16>,
}

/// A limit for a device.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct ThrottleDevice {
    /// The driver.
    pub major: i64,
    /// Which of its devices.
    pub minor: i64,
    /// How much a second.
    pub rate: u64,
}

/// A limit for huge pages of one size.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HugepageLimit {
    /// `2MB`.
    pub page_size: String,
    /// Bytes.
    pub limit: u64,
}

/// The network's classes.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub struct Network {
    /// The class of packets, for tc(8).
    #[serde(rename = "classID")]
    pub class_id: Option<u32>,
    /// Priorities by interface.
    pub priorities: Vec<Priority>,
}

/// An interface's priority.
#[derive(Debug, Clone, Deserialize)]
pub struct Priority {
    /// The interface.
    pub name: String,
    /// Its priority.
    pub priority: u32,
}

/// A limit for an RDMA device.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Rdma {
    /// Handles.
    pub hca_handles: Option<u32>,
    /// Objects.
    pub hca_objects: Option<u32>,
}

impl Config {
    /// Reads the text of a config.json of the directory `bundle`. `unknown` gets the path of each property that nobody
    /// knows.
    ///
    /// # Errors
    /// It is no JSON (the text says where), a property is missing or of another kind, or says what we don't do: the text says
    /// which.
    pub fn of(text: &str, bundle: &Path, unknown: &mut dyn FnMut(String)) -> Result<Config> {
        let mut read = || -> Result<Config> {
            let mut config: Config = parse(text, unknown)?;
            config.check()?;
            let seccomp = config.linux.seccomp.take();
            config.linux.seccomp = seccomp.map(|profile| profile.part_of("linux.seccomp"));
            Ok(config)
        };
        read().with_context(|| bundle.join("config.json").display().to_string())
    }

    /// Whether it keeps to the specification's version `major.minor`, or a later one.
    pub fn is_at_least(&self, major: u32, minor: u32) -> bool {
        let mut numbers = self.oci_version.split(['.', '-']).map(str::parse::<u32>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(one)), Some(Ok(other))) => (one, other) >= (major, minor),
            _ => false,
        }
    }

    /// Whether the process has a terminal.
    pub fn has_terminal(&self) -> bool {
        self.process
            .as_ref()
            .is_some_and(|process| process.terminal)
    }

    fn check(&self) -> Result<()> {
        if !self.oci_version.starts_with("1.") {
            bail!(
                "ociVersion: {:?} is no version that we know\nhelp: 1.0.0 to 1.3",
                self.oci_version
            );
        }
        for (field, is_there) in [
            ("linux.intelRdt", self.linux.intel_rdt.is_some()),
            ("linux.memoryPolicy", self.linux.memory_policy.is_some()),
            ("linux.netDevices", !self.linux.net_devices.is_empty()),
        ] {
            if is_there {
                bail!("{field}: this runtime doesn't do that");
            }
        }
        if Path::new(&self.linux.cgroups_path)
            .components()
            .any(|part| part == Component::ParentDir)
        {
            bail!(
                "linux.cgroupsPath: {:?} has .. in it",
                self.linux.cgroups_path
            );
        }
        for (place, mount) in self.mounts.iter().enumerate() {
            if !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty() {
                bail!("mounts[{place}].uidMappings: this runtime doesn't do that");
            }
            if !mount.destination.is_absolute() {
                bail!(
                    "mounts[{place}].destination: {} has to be an absolute path",
                    mount.destination.display()
                );
            }
        }
        if self.root.is_none() {
            bail!("root: missing field");
        }
        match &self.process {
            Some(process) => process.check("process"),
            None => bail!("process: missing field"),
        }
    }
}

impl ProcessSpec {
    /// Reads the process that joins a container.
    ///
    /// # Errors
    /// As [`Config::of`].
    pub fn read(path: &Path) -> Result<ProcessSpec> {
        let process: ProcessSpec = read(path)?;
        let checked = process.check("process");
        checked.with_context(|| path.display().to_string())?;
        Ok(process)
    }

    /// Checks the process, whose property is called `at`.
    pub fn check(&self, at: &str) -> Result<()> {
        if self.args.is_empty() {
            bail!("{at}.args: it is empty");
        }
        if self.args[0].is_empty() {
            bail!("{at}.args[0]: it is an empty word");
        }
        if !self.cwd.starts_with('/') {
            bail!("{at}.cwd: {:?} has to be an absolute path", self.cwd);
        }
        for (place, variable) in self.env.iter().enumerate() {
            if !variable.contains('=') {
                bail!("{at}.env[{place}]: {variable:?} is no KEY=VALUE");
            }
        }
        for (field, is_there) in [
            ("scheduler", self.scheduler.is_some()),
            ("ioPriority", self.io_priority.is_some()),
            ("execCPUAffinity", self.exec_cpu_affinity.is_some()),
        ] {
            if is_there {
                bail!("{at}.{field}: this runtime doesn't do that");
            }
        }
        Ok(())
    }
}

/// The text of the file `path`; "-" is standard input.
pub fn text_of(path: &Path) -> Result<String> {
    let named = || path.display().to_string();
    let mut text = String::new();
    let input: Box<dyn Read> = match path == Path::new("-") {
        true => Box::new(std::io::stdin()),
        false => Box::new(File::open(path).with_context(named)?),
    };
    let read = input.take(LONGEST + 1).read_to_string(&mut text);
    read.with_context(named)?;
    if text.len() as u64 > LONGEST {
        bail!("{}: it has more than {LONGEST} bytes", path.display());
    }
    Ok(text)
}

/// Reads the JSON file `path`; "-" is standard input.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    parse(&text_of(path)?, &mut |_| {}).with_context(|| path.display().to_string())
}

/// Reads JSON from a text.
pub fn parse<T: DeserializeOwned>(text: &str, unknown: &mut dyn FnMut(String)) -> Result<T> {
    let mut value: Value = serde_json::from_str(text)?;
    remove_nulls(&mut value);
    place::read(value, unknown)
}

fn remove_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(remove_nulls);
        }
        Value::Array(elements) => elements.iter_mut().for_each(remove_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<Config> {
        let config: Config = parse(text, &mut |_| {})?;
        config.check().map(|()| config)
    }

    #[test]
    fn what_is_null_is_not_there() {
        let text = r#"{"ociVersion": "1.0.2", "mounts": null, "root": {"path": "rootfs"},
            "process": {"args": ["sh"], "env": null, "cwd": "/", "capabilities": {"ambient": null}},
            "linux": {"resources": {"memory": {"limit": null}}, "seccomp": null}}"#;
        assert!(config(text).unwrap().mounts.is_empty());
    }

    #[test]
    fn errors_name_the_place() {
        let with = |process: &str, rest: &str| {
            format!(
                r#"{{"ociVersion": "1.2.0", "root": {{"path": "r"}}, "process": {process}{rest}}}"#
            )
        };
        let fine = r#"{"args": ["sh"], "cwd": "/"}"#;
        for (text, said) in [
            ("{".to_owned(), "line 1 column 1"),
            ("{\n \"a\": tru}".to_owned(), "line 2"),
            (r#"{"root": {}}"#.to_owned(), "root: missing field `path`"),
            (
                with(r#"{"args": [], "cwd": "/"}"#, ""),
                "process.args: it is empty",
            ),
            (
                with(r#"{"args": ["sh"]}"#, ""),
                "process.cwd: \"\" has to be",
            ),
            (with(r#"{"args": ["sh"], "cwd": "x"}"#, ""), "process.cwd"),
            (
                with(r#"{"args": [1], "cwd": "/"}"#, ""),
                "process.args[0]: invalid type",
            ),
            (
                with(fine, r#", "mounts": [{"type": "proc"}]"#),
                "mounts[0]: missing field `destination`",
            ),
            (
                with(fine, r#", "mounts": [{"destination": "p"}]"#),
                "mounts[0].destination",
            ),
            (
                with(fine, r#", "linux": {"intelRdt": {}}"#),
                "linux.intelRdt: this runtime",
            ),
            (
                with(
                    fine,
                    r#", "linux": {"resources": {"pids": {"limit": "x"}}}"#,
                ),
                "linux.resources.pids.limit: invalid",
            ),
        ] {
            let error = format!("{:#}", config(&text).unwrap_err());
            assert!(error.contains(said), "{error}, and not {said}");
        }
        assert!(config(&with(fine, "").replace("1.2.0", "2.0")).is_err());
        config(&with(fine, "")).unwrap();
    }

    #[test]
    fn unknown_properties_are_told() {
        let text =
            r#"{"ociVersion": "1.2.0", "linux": {"resources": {"memori": 1}}, "windows": {}}"#;
        let mut unknown = Vec::new();
        parse::<Config>(text, &mut |path| unknown.push(path)).unwrap();
        unknown.sort();
        assert_eq!(unknown, ["linux.resources.memori", "windows"]);
    }
}

//! What the container may use up, as values for the files of its control groups.
//!
//! Version 1 and version 2 call their files differently, and count differently: shares become a weight, a limit of memory
//! and swap together becomes one of swap alone. [`limits`] has a table of both.

use crate::config::linux::device_rules;
use crate::config::read::{BlockIo, Cpu, Memory, Resources, ThrottleDevice};
use anyhow::{Result, bail};
use std::cell::OnceCell;
use step07_cgroups::Version;
use step07_cgroups::cgroup::places::versions;
use step07_cgroups::cgroup::settings::weight;
use step07_cgroups::limits::{Limits, Other, PERIOD};

/// The values that are written, collected field by field.
struct Table {
    /// The controllers that this machine has, with the version of each; looked up when somebody asks.
    versions: OnceCell<Vec<(String, Version)>>,
    values: Vec<Other>,
}

/// A file and what is written to it; `None`: this version has no such thing.
type Value = Option<(String, String)>;

/// The controllers that any property is about.
const CONTROLLERS: [&str; 10] = [
    "memory", "cpu", "cpuset", "pids", "blkio", "io", "hugetlb", "net_cls", "net_prio", "rdma",
];

/// The limits that `resources` mean on this machine.
///
/// # Errors
/// A property that this machine, or its version of control groups, can't honour: the text names it.
pub fn limits(resources: &Resources) -> Result<Limits> {
    let mut limits = values(resources)?;
    limits.devices = device_rules(&resources.devices)?;
    limits.freezer = true;
    limits.everywhere = true;
    Ok(limits)
}

/// The same without the rules for devices: for groups that are there already.
pub fn values(resources: &Resources) -> Result<Limits> {
    let mut table = Table {
        versions: OnceCell::new(),
        values: Vec::new(),
    };
    table.memory(&resources.memory)?;
    table.cpu(&resources.cpu)?;
    if let Some(pids) = resources.pids {
        let most = number(pids.limit, "max");
        table.both("pids.limit", "pids", "pids.max", most)?;
    }
    table.block_io(&resources.block_io)?;
    for limit in &resources.hugepage_limits {
        let (size, bytes) = (&limit.page_size, limit.limit.to_string());
        let plain = size.chars().all(|letter| letter.is_ascii_alphanumeric());
        if !plain || size.is_empty() {
            bail!("linux.resources.hugepageLimits: {size:?} is no size of pages, such as 2MB");
        }
        let v1 = Some((format!("hugetlb.{size}.limit_in_bytes"), bytes.clone()));
        let v2 = Some((format!("hugetlb.{size}.max"), bytes));
        table.add("hugepageLimits", "hugetlb", v1, v2)?;
    }
    if let Some(class) = resources.network.class_id {
        let v1 = Some(("net_cls.classid".into(), class.to_string()));
        table.add("network.classID", "net_cls", v1, None)?;
    }
    for priority in &resources.network.priorities {
        let text = format!("{} {}", priority.name, priority.priority);
        let v1 = Some(("net_prio.ifpriomap".into(), text));
        table.add("network.priorities", "net_prio", v1, None)?;
    }
    for (device, limit) in &resources.rdma {
        let part = |name: &str, most: Option<u32>| most.map(|most| format!(" {name}={most}"));
        let handles = part("hca_handle", limit.hca_handles).unwrap_or_default();
        let objects = part("hca_object", limit.hca_objects).unwrap_or_default();
        table.both(
            "rdma",
            "rdma",
            "rdma.max",
            format!("{device}{handles}{objects}"),
        )?;
    }
    table.unified(resources)?;
    Ok(Limits {
        others: table.values,
        ..Limits::default()
    })
}

impl Table {
    fn version(&self, controller: &str) -> Option<Version> {
        let known = self
            .versions
            .get_or_init(|| versions(&CONTROLLERS).unwrap_or_default());
        let found = known.iter().find(|(name, _)| name == controller);
        found.map(|(_, version)| *version)
    }

    /// Adds the value for the version that `controller` has here.
    fn add(&mut self, field: &str, controller: &str, v1: Value, v2: Value) -> Result<()> {
        let (value, version) = match self.version(controller) {
            Some(Version::V1) => (v1, 1),
            Some(Version::V2) => (v2, 2),
            None => bail!("linux.resources.{field}: this machine has no {controller} controller"),
        };
        let Some((file, value)) = value else {
            bail!("linux.resources.{field}: version {version} of control groups has no such thing");
        };
        self.values.push(Other {
            controller: controller.into(),
            file,
            value,
        });
        Ok(())
    }

    /// The same where both versions have it by the same name.
    fn both(&mut self, field: &str, controller: &str, file: &str, value: String) -> Result<()> {
        let value = Some((file.to_owned(), value));
        self.add(field, controller, value.clone(), value)
    }

    fn memory(&mut self, memory: &Memory) -> Result<()> {
        // 0 stands for "nothing is said", as for runc.
        let given = |number: Option<i64>| number.filter(|number| *number != 0);
        let v1 = |file: &str, value: i64| Some((file.to_owned(), value.to_string()));
        let v2 = |file: &str, value: i64| Some((file.to_owned(), number(value, "max")));
        if let Some(least) = given(memory.reservation) {
            let files = (
                v1("memory.soft_limit_in_bytes", least),
                v2("memory.low", least),
            );
            self.add("memory.reservation", "memory", files.0, files.1)?;
        }
        if let Some(most) = given(memory.limit) {
            let files = (v1("memory.limit_in_bytes", most), v2("memory.max", most));
            self.add("memory.limit", "memory", files.0, files.1)?;
        }
        if let Some(both) = given(memory.swap) {
            // Version 2 limits swap alone.
            let alone = match (both, given(memory.limit)) {
                (-1, _) => Some(-1),
                (both, Some(memory)) if memory > 0 && both >= memory => Some(both - memory),
                _ => None,
            };
            let v2 = alone.map(|swap| ("memory.swap.max".to_owned(), number(swap, "max")));
            if v2.is_none() && self.version("memory") == Some(Version::V2) {
                bail!(
                    "linux.resources.memory.swap: it is memory and swap together, so it needs a memory.limit that isn't more"
                );
            }
            let v1 = v1("memory.memsw.limit_in_bytes", both);
            self.add("memory.swap", "memory", v1, v2)?;
        }
        if let Some(most) = given(memory.kernel_tcp) {
            let v1 = v1("memory.kmem.tcp.limit_in_bytes", most);
            self.add("memory.kernelTCP", "memory", v1, None)?;
        }
        if let Some(swappiness) = memory.swappiness {
            if swappiness > 100 {
                bail!("linux.resources.memory.swappiness: {swappiness} isn't 0 to 100");
            }
            let v1 = Some(("memory.swappiness".into(), swappiness.to_string()));
            self.add("memory.swappiness", "memory", v1, None)?;
        }
        if memory.disable_oom_killer {
            let v1 = Some(("memory.oom_control".into(), "1".into()));
            self.add("memory.disableOOMKiller", "memory", v1, None)?;
        }
        Ok(())
    }

    fn cpu(&mut self, cpu: &Cpu) -> Result<()> {
        let given = |number: Option<u64>| number.filter(|number| *number != 0);
        if let Some(shares) = given(cpu.shares) {
            let v1 = Some(("cpu.shares".into(), shares.to_string()));
            let v2 = Some(("cpu.weight".into(), weight(shares).to_string()));
            self.add("cpu.shares", "cpu", v1, v2)?;
        }
        let quota = cpu.quota.filter(|quota| *quota != 0);
        if let Some(period) = given(cpu.period) {
            if self.version("cpu") != Some(Version::V2) {
                let v1 = Some(("cpu.cfs_period_us".into(), period.to_string()));
                self.add("cpu.period", "cpu", v1, None)?;
            }
        }
        if quota.is_some() || given(cpu.period).is_some() {
            let period = given(cpu.period).unwrap_or(PERIOD);
            let max = format!("{} {period}", number(quota.unwrap_or(-1), "max"));
            let v2 = Some(("cpu.max".into(), max));
            match (self.version("cpu"), quota) {
                (Some(Version::V1), None) => {}
                (_, quota) => {
                    let quota = quota.unwrap_or(-1).max(-1).to_string();
                    let v1 = Some(("cpu.cfs_quota_us".into(), quota));
                    self.add("cpu.quota", "cpu", v1, v2)?;
                }
            }
        }
        if let Some(burst) = cpu.burst {
            let v1 = Some(("cpu.cfs_burst_us".into(), burst.to_string()));
            let v2 = Some(("cpu.max.burst".into(), burst.to_string()));
            self.add("cpu.burst", "cpu", v1, v2)?;
        }
        if let Some(period) = given(cpu.realtime_period) {
            let v1 = Some(("cpu.rt_period_us".into(), period.to_string()));
            self.add("cpu.realtimePeriod", "cpu", v1, None)?;
        }
        if let Some(runtime) = cpu.realtime_runtime.filter(|runtime| *runtime != 0) {
            let v1 = Some(("cpu.rt_runtime_us".into(), runtime.to_string()));
            self.add("cpu.realtimeRuntime", "cpu", v1, None)?;
        }
        if let Some(idle) = cpu.idle {
            self.both("cpu.idle", "cpu", "cpu.idle", idle.to_string())?;
        }
        if !cpu.cpus.is_empty() {
            self.both("cpu.cpus", "cpuset", "cpuset.cpus", cpu.cpus.clone())?;
        }
        if !cpu.mems.is_empty() {
            self.both("cpu.mems", "cpuset", "cpuset.mems", cpu.mems.clone())?;
        }
        Ok(())
    }

    fn block_io(&mut self, block: &BlockIo) -> Result<()> {
        let asked = block.weight.is_some()
            || block.leaf_weight.is_some()
            || !block.weight_device.is_empty()
            || !block.throttle_read_bps_device.is_empty()
            || !block.throttle_write_bps_device.is_empty()
            || !block.throttle_read_iops_device.is_empty()
            || !block.throttle_write_iops_device.is_empty();
        if !asked {
            return Ok(());
        }
        // The controller has another name in each version.
        let name = match self.version("blkio") {
            Some(Version::V1) => "blkio",
            _ => "io",
        };
        let weights = [
            ("weight", block.weight, "blkio.weight", "io.weight"),
            ("leafWeight", block.leaf_weight, "blkio.leaf_weight", ""),
        ];
        for (field, weight, v1, v2) in weights {
            let Some(weight) = weight.filter(|weight| *weight != 0) else {
                continue;
            };
            // 10 to 1000 become 1 to 10000.
            let wide = 1 + (u64::from(weight).saturating_sub(10)) * 9999 / 990;
            let v1 = Some((v1.to_owned(), weight.to_string()));
            let v2 = (!v2.is_empty()).then(|| (v2.to_owned(), format!("default {wide}")));
            self.add(&format!("blockIO.{field}"), name, v1, v2)?;
        }
        for each in &block.weight_device {
            let of_device = |weight: u16| format!("{}:{} {weight}", each.major, each.minor);
            if let Some(weight) = each.weight {
                let v1 = Some(("blkio.weight_device".into(), of_device(weight)));
                let v2 = Some(("io.bfq.weight".into(), of_device(weight)));
                self.add("blockIO.weightDevice", name, v1, v2)?;
            }
            if let Some(weight) = each.leaf_weight {
                let v1 = Some(("blkio.leaf_weight_device".into(), of_device(weight)));
                self.add("blockIO.weightDevice", name, v1, None)?;
            }
        }
        let throttles: [(&str, &[ThrottleDevice], &str, &str); 4] = [
            (
                "throttleReadBpsDevice",
                &block.throttle_read_bps_device,
                "read_bps_device",
                "rbps",
            ),
            (
                "throttleWriteBpsDevice",
                &block.throttle_write_bps_device,
                "write_bps_device",
                "wbps",
            ),
            (
                "throttleReadIOPSDevice",
                &block.throttle_read_iops_device,
                "read_iops_device",
                "riops",
            ),
            (
                "throttleWriteIOPSDevice",
                &block.throttle_write_iops_device,
                "write_iops_device",
                "wiops",
            ),
        ];
        for (field, devices, file, key) in throttles {
            for ThrottleDevice { major, minor, rate } in devices {
                let v1 = format!("{major}:{minor} {rate}");
                let v2 = match rate {
                    0 => format!("{major}:{minor} {key}=max"),
                    rate => format!("{major}:{minor} {key}={rate}"),
                };
                let v1 = Some((format!("blkio.throttle.{file}"), v1));
                let v2 = Some(("io.max".into(), v2));
                self.add(&format!("blockIO.{field}"), name, v1, v2)?;
            }
        }
        Ok(())
    }

    fn unified(&mut self, resources: &Resources) -> Result<()> {
        for (file, value) in &resources.unified {
            let field = format!("unified.{file}");
            let controller = file.split('.').next().unwrap_or_default();
            if file.contains('/') || controller == "cgroup" || controller == file {
                bail!("linux.resources.{field}: that is no file of a controller");
            }
            let v2 = Some((file.clone(), value.clone()));
            match self.version(controller) {
                Some(_) => self.add(&field, controller, None, v2)?,
                // A controller that no other property is about.
                None if versions(&[controller])?
                    .iter()
                    .any(|(_, version)| *version == Version::V2) =>
                {
                    self.values.push(Other {
                        controller: controller.into(),
                        file: file.clone(),
                        value: value.clone(),
                    });
                }
                None => {
                    bail!("linux.resources.{field}: version 2 has no {controller} controller here")
                }
            }
        }
        Ok(())
    }
}

/// A number as the kernel takes it; a negative one is no limit, which the file calls `most`.
fn number(number: i64, most: &str) -> String {
    match number {
        ..0 => most.into(),
        number => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str, version: Version) -> Result<Vec<String>> {
        let resources: Resources = serde_json::from_str(text).unwrap();
        let has = |name: &&str| match version {
            Version::V1 => *name != "io",
            Version::V2 => !["blkio", "net_cls", "net_prio"].contains(name),
        };
        let known = CONTROLLERS.into_iter().filter(has);
        let mut table = Table {
            versions: OnceCell::from(
                known
                    .map(|name| (name.to_owned(), version))
                    .collect::<Vec<_>>(),
            ),
            values: Vec::new(),
        };
        table.memory(&resources.memory)?;
        table.cpu(&resources.cpu)?;
        table.block_io(&resources.block_io)?;
        table.unified(&resources)?;
        let line = |each: &Other| format!("{}={}", each.file, each.value);
        Ok(table.values.iter().map(line).collect())
    }

    #[test]
    fn both_versions_files() {
        use Version::{V1, V2};
        let memory = r#"{"memory": {"limit": 1000, "swap": 3000, "reservation": -1}}"#;
        let v1 = [
            "memory.soft_limit_in_bytes=-1",
            "memory.limit_in_bytes=1000",
            "memory.memsw.limit_in_bytes=3000",
        ];
        assert_eq!(written(memory, V1).unwrap(), v1);
        let v2 = ["memory.low=max", "memory.max=1000", "memory.swap.max=2000"];
        assert_eq!(written(memory, V2).unwrap(), v2);
        let cpu = r#"{"cpu": {"quota": 50000, "period": 200000, "shares": 1024}}"#;
        let v1 = [
            "cpu.shares=1024",
            "cpu.cfs_period_us=200000",
            "cpu.cfs_quota_us=50000",
        ];
        assert_eq!(written(cpu, V1).unwrap(), v1);
        assert_eq!(
            written(cpu, V2).unwrap(),
            ["cpu.weight=100", "cpu.max=50000 200000"]
        );
        assert_eq!(
            written(r#"{"cpu": {"quota": -1}}"#, V2).unwrap(),
            ["cpu.max=max 100000"]
        );
        assert_eq!(
            written(
                r#"{"cpu": {"shares": 0, "quota": 0}, "memory": {"limit": 0}}"#,
                V1
            )
            .unwrap(),
            [""; 0]
        );
        let disks = r#"{"blockIO": {"weight": 1000, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 7}]}}"#;
        let v1 = ["blkio.weight=1000", "blkio.throttle.read_bps_device=8:0 7"];
        assert_eq!(written(disks, V1).unwrap(), v1);
        assert_eq!(
            written(disks, V2).unwrap(),
            ["io.weight=default 10000", "io.max=8:0 rbps=7"]
        );
        let unified = r#"{"unified": {"memory.high": "5000"}}"#;
        assert_eq!(written(unified, V2).unwrap(), ["memory.high=5000"]);
    }

    #[test]
    fn what_a_version_has_not() {
        use Version::{V1, V2};
        for (text, version, said) in [
            (
                r#"{"memory": {"swappiness": 60}}"#,
                V2,
                "memory.swappiness: version 2",
            ),
            (r#"{"memory": {"swappiness": 101}}"#, V1, "swappiness: 101"),
            (
                r#"{"memory": {"swap": 5}}"#,
                V2,
                "memory.swap: it is memory and swap",
            ),
            (
                r#"{"unified": {"memory.high": "5"}}"#,
                V1,
                "unified.memory.high: version 1",
            ),
            (
                r#"{"unified": {"cgroup.procs": "5"}}"#,
                V2,
                "unified.cgroup.procs: that is no file",
            ),
        ] {
            let error = written(text, version).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}

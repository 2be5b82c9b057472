//! `update`: other limits for a container that is there.

use crate::Status;
use crate::commands::global::Global;
use crate::config::read::{Pids, Resources, read};
use crate::report::Trouble;
use crate::resources::values;
use crate::state::known::Known;
use anyhow::{Context, Result, bail};
use clap::Args;
use std::fs;
use std::path::PathBuf;
use step07_cgroups::flags::bytes;
use step07_cgroups::limits::{Other, Setting};
use step07_cgroups::{Version, limit};

/// Change what a container may use up
#[derive(Debug, Args)]
pub(crate) struct Update {
    /// The new limits as JSON, in FILE or, with -, on standard input
    #[arg(short, long, value_name = "FILE")]
    resources: Option<PathBuf>,

    /// Bytes of memory; -1: no limit
    #[arg(long, value_name = "BYTES", value_parser = bytes_or_none, allow_hyphen_values = true)]
    memory: Option<i64>,

    /// Bytes that are left to it when memory is scarce
    #[arg(long, value_name = "BYTES", value_parser = bytes_or_none, allow_hyphen_values = true)]
    memory_reservation: Option<i64>,

    /// Bytes of memory and swap together; -1: no limit
    #[arg(long, value_name = "BYTES", value_parser = bytes_or_none, allow_hyphen_values = true)]
    memory_swap: Option<i64>,

    /// A weight, 2 to 262144
    #[arg(long, alias = "cpu-shares", value_name = "SHARES")]
    cpu_share: Option<u64>,

    /// Microseconds of processor time in each period; -1: no limit
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,

    /// The period
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<u64>,

    /// Microseconds that may be saved up
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_burst: Option<u64>,

    /// Microseconds for real-time processes
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_rt_runtime: Option<i64>,

    /// Their period
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_period: Option<u64>,

    /// Whether others always come first: 1 or 0
    #[arg(long, value_name = "WHETHER")]
    cpu_idle: Option<i64>,

    /// Processors, such as 0-2,4
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,

    /// Memory nodes
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,

    /// A weight for disks, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,

    /// Processes and threads; -1: no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pids_limit: Option<i64>,

    /// Refused
    #[arg(long, value_name = "SCHEMA", hide = true)]
    l3_cache_schema: Option<String>,

    /// Refused
    #[arg(long, value_name = "SCHEMA", hide = true)]
    mem_bw_schema: Option<String>,

    /// The container's ID
    id: String,
}

/// Reads bytes, or -1 for no limit.
fn bytes_or_none(text: &str) -> Result<i64, String> {
    match text {
        "-1" => Ok(-1),
        text => bytes(text).map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
    }
}

impl Update {
    pub(crate) fn run(&self, global: &Global) -> Result<u8> {
        let known = global.find(&self.id)?;
        if known.status()? == Status::Stopped {
            return Err(Trouble::NotRunning.into());
        }
        if self.l3_cache_schema.is_some() || self.mem_bw_schema.is_some() {
            bail!("--l3-cache-schema, --mem-bw-schema: this runtime doesn't do that");
        }
        let resources = match &self.resources {
            Some(path) => read(path).context("--resources")?,
            None => self.typed(),
        };
        let resources = completed(resources, &known);
        let values = values(&resources)?.others;
        if resources.memory.check_before_update {
            check(&known, &values)?;
        }
        write(&known, &values)?;
        Ok(0)
    }

    fn typed(&self) -> Resources {
        let mut resources = Resources::default();
        resources.memory.limit = self.memory;
        resources.memory.reservation = self.memory_reservation;
        resources.memory.swap = self.memory_swap;
        resources.cpu.shares = self.cpu_share;
        resources.cpu.quota = self.cpu_quota;
        resources.cpu.period = self.cpu_period;
        resources.cpu.burst = self.cpu_burst;
        resources.cpu.realtime_runtime = self.cpu_rt_runtime;
        resources.cpu.realtime_period = self.cpu_rt_period;
        resources.cpu.idle = self.cpu_idle;
        resources.cpu.cpus = self.cpuset_cpus.clone().unwrap_or_default();
        resources.cpu.mems = self.cpuset_mems.clone().unwrap_or_default();
        resources.block_io.weight = self.blkio_weight;
        resources.pids = self.pids_limit.map(|limit| Pids { limit });
        resources
    }
}

/// `resources` with what the groups have already, where version 2 has one file for two of them: a quota and its period, and
/// swap, which is counted together with memory.
fn completed(mut resources: Resources, known: &Known) -> Resources {
    let text = |controller: &str, file: &str| {
        let (folder, version) = known.groups.folder(controller)?;
        let text = fs::read_to_string(folder.join(file)).ok()?;
        (version == Version::V2).then(|| text.trim().to_owned())
    };
    let number = |text: &str| text.parse::<i64>().unwrap_or(-1);
    let cpu = &mut resources.cpu;
    if cpu.quota.is_some() != cpu.period.is_some() {
        if let Some((quota, period)) = text("cpu", "cpu.max")
            .as_deref()
            .and_then(|text| text.split_once(' '))
        {
            cpu.quota = cpu.quota.or(Some(number(quota)));
            cpu.period = cpu.period.or(period.parse().ok());
        }
    }
    let memory = &mut resources.memory;
    if memory.swap.is_some() && memory.limit.is_none() {
        memory.limit = text("memory", "memory.max").map(|text| number(&text));
    }
    resources
}

/// Fails when a new limit of memory is below what is used already. Version 1 refuses that itself.
fn check(known: &Known, values: &[Other]) -> Result<()> {
    let now = known.groups.current().memory;
    for value in values.iter().filter(|value| value.file == "memory.max") {
        if value.value.parse::<u64>().is_ok_and(|limit| limit < now) {
            bail!(
                "linux.resources.memory.limit: {} is less than the {now} bytes that are used",
                value.value
            );
        }
    }
    Ok(())
}

/// Writes `values` into the files of the container's groups. A limit of memory can't be more than that of memory and swap,
/// nor a quota more than its period allows: what the kernel doesn't take at first it may take when the others are written.
fn write(known: &Known, values: &[Other]) -> Result<()> {
    let write = |value: &Other| {
        let folder = known.groups.folder(&value.controller);
        let (folder, _) = folder.with_context(|| {
            format!(
                "the container has no group of the {} controller",
                value.controller
            )
        })?;
        let setting = Setting {
            flag: &value.file,
            controller: &value.controller,
            file: &value.file,
            value: value.value.clone(),
            required: true,
        };
        limit(folder, &[setting])
    };
    let refused: Vec<&Other> = values
        .iter()
        .filter(|value| write(value).is_err())
        .collect();
    refused.into_iter().try_for_each(write)
}

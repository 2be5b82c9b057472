//! `top`: the processes of a container, as the host sees them.

use anyhow::{Context, Result};
use clap::Args;
use nix::unistd::{SysconfVar, sysconf};
use std::fs;
use step01_uts::say;
use step04_pivot_root::state::StateDir;
use step07_cgroups::cgroup::group::processes;
use step07_cgroups::cgroup::places::Groups;
use step09_detach::Stat;
use step09_detach::commands::ps::table;
use step09_detach::container::store::Store;

/// Show the processes of a container
#[derive(Debug, Args)]
pub struct Top {
    /// The container, by its name or its ID
    #[arg(value_name = "CONTAINER")]
    container: String,

    #[command(flatten)]
    state: StateDir,
}

impl Top {
    /// Shows the processes: their numbers on the host and in the container, where these differ.
    pub fn run(&self) -> Result<u8> {
        let container = Store::open(&self.state)?.find(&self.container)?;
        let record = container.up()?;
        let groups = Groups::of(&record.id)?;
        let (folder, _) = ["pids", "memory", "cpu", "devices"]
            .into_iter()
            .find_map(|controller| groups.folder(controller))
            .context(
                "this machine has no control groups, by which a container's processes are found",
            )?;
        let mut pids = processes(folder);
        pids.sort_unstable();
        let ticks = sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100).max(1) as u64;
        // A process that has ended meanwhile is left out.
        let lines = pids.into_iter().filter_map(|pid| describe(pid, ticks));
        let heading = ["UID", "PID", "PPID", "INSIDE", "STAT", "TIME", "CMD"];
        say(table(heading, lines))?;
        Ok(0)
    }
}

fn describe(pid: i32, ticks: u64) -> Option<[String; 7]> {
    let read = |file| fs::read(format!("/proc/{pid}/{file}")).ok();
    let status = String::from_utf8_lossy(&read("status")?).into_owned();
    let field = |key| {
        let value = status.lines().find_map(|line| line.strip_prefix(key))?;
        Some(
            value
                .split_whitespace()
                .map(String::from)
                .collect::<Vec<_>>(),
        )
    };
    let stat = Stat::of(pid).ok()?;
    let seconds = stat.time / ticks;
    let words = read("cmdline")?;
    let words = words
        .strip_suffix(b"\0")
        .unwrap_or(&words)
        .split(|byte| *byte == 0);
    let command: Vec<_> = words.map(String::from_utf8_lossy).collect();
    let command = match command.join(" ") {
        // A zombie has no command line any more.
        empty if empty.is_empty() => format!("[{}]", field("Name:")?.join(" "))
            .escape_debug()
            .to_string(),
        command => command.escape_debug().to_string(),
    };
    Some([
        field("Uid:")?.first()?.clone(),
        pid.to_string(),
        field("PPid:")?.first()?.clone(),
        field("NSpid:")?.last()?.clone(),
        stat.state.to_string(),
        format!(
            "{:02}:{:02}:{:02}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60
        ),
        command,
    ])
}

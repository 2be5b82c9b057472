//! Chapter 1: a hostname of its own.

use super::{Claim, Workbench, in_its_own};
use crate::container::{Container, run};
use crate::host::NAME;
use anyhow::Result;
use std::fs;

/// 1.1: another UTS namespace, and the host's name unchanged.
pub fn enter_uts(bench: &Workbench) -> Result<Vec<Claim>> {
    // This file shows each reader the name in the reader's own UTS namespace.
    let arguments = [
        "--hostname",
        "inside",
        "cat",
        "/proc/sys/kernel/hostname",
        "-",
    ];
    let container = Container::start(&bench.program, &arguments)?;
    let host = fs::read_to_string("/proc/sys/kernel/hostname")?;
    Ok(vec![
        in_its_own(&container, "uts")?,
        Claim::equal(
            "the container has the name that it was given",
            "/proc/sys/kernel/hostname in the container",
            &container.first_line().as_str(),
            &"inside",
        ),
        Claim::equal(
            "the host has kept its name",
            "/proc/sys/kernel/hostname on the host",
            &host.trim(),
            &NAME,
        ),
    ])
}

/// 1.2: every word arrives as it is, and a failure has the exit code that tells it.
pub fn exec(bench: &Workbench) -> Result<Vec<Claim>> {
    let command = [
        "sh",
        "-c",
        "echo ready; read end",
        "two words",
        "",
        "*",
        "$HOME",
    ];
    let container = Container::start(&bench.program, &command)?;
    let words = container.first_process().strings("cmdline")?;
    let absent = run(&bench.program, &["no-such-program"])?;
    let forbidden = run(&bench.program, &["/etc/passwd"])?;
    let status = run(&bench.program, &["sh", "-c", "exit 7"])?;
    Ok(vec![
        Claim::equal(
            "the command has the words that were typed, unchanged",
            "/proc/PID/cmdline",
            &words,
            &command.map(String::from).to_vec(),
        ),
        Claim::equal(
            "a command that isn't found",
            "exit code",
            &absent.code,
            &127,
        ),
        Claim::equal(
            "a file without an x bit",
            "exit code",
            &forbidden.code,
            &126,
        ),
        Claim::equal("a command that exits with 7", "exit code", &status.code, &7),
    ])
}

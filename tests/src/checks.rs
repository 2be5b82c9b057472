//! One function an exercise: what the kernel says of a program that does it.
//!
//! A check runs on the pretend host. It starts the chapter's program and reads the evidence; the
//! program's own word counts for nothing.

pub mod report;
pub mod step01;
pub mod step02;
pub mod step03;
pub mod step04;
pub mod step05;
pub mod step06;
pub mod step07;
pub mod step08;
pub mod step09;
pub mod step10;
pub mod step11;
pub mod step12;

use crate::course::Chapter;
use crate::course::workbench::on_workbench;
use crate::host::as_root;
use anyhow::{Result, bail};
use report::Report;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// Runs the checks of a chapter right here, of all its exercises or of `only` one, and hands each
/// report on. Everything that they make is in one folder, which goes away.
///
/// # Errors
/// This isn't a pretend host: what a check undoes would be somebody's.
pub fn examine(
    chapter: &Chapter,
    program: &Path,
    only: Option<usize>,
    broken: Option<PathBuf>,
    mut tell: impl FnMut(&Report) -> Result<()>,
) -> Result<()> {
    on_workbench(program, broken, |bench| {
        let positions = 0..chapter.exercises.len();
        let mut over = false;
        for position in positions.filter(|&position| only.is_none_or(|only| only == position)) {
            let report = match over {
                true => Report::unseen(chapter, position),
                false => Report::of(chapter, position, bench)?,
            };
            tell(&report)?;
            over = report.is_last;
        }
        Ok(())
    })
}

/// What the hidden commands of `progress` say, which run on a pretend host: a line of JSON each.
pub fn elsewhere<T: for<'a> Deserialize<'a>>(progress: &Path, words: &[&str]) -> Result<Vec<T>> {
    // The same few directories come first everywhere.
    let path = std::env::var("PATH").unwrap_or_default();
    let output = as_root(progress)
        .args(["pretend-host", "--"])
        .arg(progress)
        .args(words)
        .env("PATH", format!("{}:{path}", step01_uts::PATH))
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .output()?;
    let lines = serde_json::Deserializer::from_slice(&output.stdout).into_iter();
    let lines = lines.collect::<Result<Vec<T>, _>>()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "the pretend host ended before the checks were through: {} {}",
            output.status,
            said.trim()
        );
    }
    Ok(lines)
}

/// Has the checks of a chapter run on a pretend host, by the program `progress`, on the program `step`.
pub fn examine_elsewhere(
    progress: &Path,
    chapter: &Chapter,
    step: &Path,
    only: Option<usize>,
    broken: Option<&Path>,
) -> Result<Vec<Report>> {
    let number = chapter.number.to_string();
    let step = step.to_string_lossy();
    let mut words = vec!["examine", &number, &step];
    let only = only.map(|position| position.to_string());
    if let Some(only) = &only {
        words.extend(["--only", only]);
    }
    let broken = broken.map(Path::to_string_lossy);
    if let Some(broken) = &broken {
        words.extend(["--broken", broken]);
    }
    elsewhere(progress, &words)
}

//! The exercises of chapter 9, called one by one.

use probe::anyhow::Result;
use probe::libc::{self, c_long};
use probe::nix::errno::Errno;
use probe::{Claim, Findings, Watcher};
use std::fs;
use std::path::PathBuf;

fn main() -> Result<()> {
    probe::main(&[("save", save)])
}

/// The calls that make, fill and name a file.
const WRITING: &[(c_long, &str, Errno)] = &[
    (libc::SYS_write, "write(2)", Errno::ENOSPC),
    (libc::SYS_fsync, "fsync(2)", Errno::EIO),
    (libc::SYS_fdatasync, "fdatasync(2)", Errno::EIO),
    (libc::SYS_rename, "rename(2)", Errno::EACCES),
    (libc::SYS_renameat, "renameat(2)", Errno::EACCES),
    (libc::SYS_renameat2, "renameat2(2)", Errno::EACCES),
];

fn save(findings: &Findings) -> Result<()> {
    let folder = findings.scratch.join("records");
    let path = folder.join("config.json");
    let is_there = |text: &[u8]| fs::read(&path).is_ok_and(|there| there == text);
    let begin_again = || -> Result<()> {
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir(&folder)?;
        Ok(fs::write(&path, "old")?)
    };
    let names = || -> Vec<String> {
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };

    begin_again()?;
    findings.begin("save replaces a text by a shorter one");
    let outcome = findings
        .subject()
        .call(|| step09_detach::save(&path, b"n", false))?;
    findings.claim(Claim::new(
        "save replaces the whole of the old text",
        format!(
            "{}; the file has {:?}",
            outcome.in_words(),
            fs::read_to_string(&path)?
        ),
        outcome.is_ok() && is_there(b"n"),
    ));
    findings.claim(Claim::equal(
        "nothing else stays in the directory",
        "its names",
        &names(),
        &vec!["config.json".into()],
    ));
    let changes = outcome.changes(&[]);
    findings.claim(Claim::new(
        "the caller is what it was",
        changes.join("; "),
        changes.is_empty(),
    ));

    findings.begin("with durable the contents reach the disk before the name does");
    let orders: Vec<c_long> = WRITING.iter().map(|(number, ..)| *number).collect();
    let outcome = findings
        .subject()
        .watch(Watcher::records(&orders))
        .call(|| step09_detach::save(&path, b"new", true))?;
    let at = |wanted: &[c_long]| {
        outcome
            .calls
            .iter()
            .position(|call| wanted.contains(&call.number))
    };
    let (synced, renamed) = (
        at(&[libc::SYS_fsync, libc::SYS_fdatasync]),
        at(&[libc::SYS_rename, libc::SYS_renameat, libc::SYS_renameat2]),
    );
    let seen = match (synced, renamed) {
        (None, _) => "neither fsync nor fdatasync was called",
        (Some(synced), Some(renamed)) if synced > renamed => "fsync was called after the rename",
        (_, None) => "no file was renamed",
        _ => "fsync, then rename",
    };
    let holds = seen == "fsync, then rename";
    findings.claim(Claim::new(
        "with durable the contents reach the disk before the name does",
        seen,
        holds,
    ));

    findings.each_call_fails(
        "save",
        WRITING,
        |subject| {
            begin_again()?;
            subject.call(|| step09_detach::save(&path, b"new", true))
        },
        || is_there(b"new"),
        |outcome| {
            let mut left = outcome.changes(&[]);
            let others: Vec<String> = names()
                .into_iter()
                .filter(|name| name != "config.json")
                .collect();
            left.extend(
                others
                    .iter()
                    .map(|name| format!("{name} is left in the directory")),
            );
            if outcome.is_error() && !is_there(b"old") {
                left.push("the old text is lost".into());
            }
            left
        },
    )?;
    let _: PathBuf = path;
    Ok(())
}

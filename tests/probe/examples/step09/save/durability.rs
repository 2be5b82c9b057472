//! What has come to the disk when the name does.

use super::records::{NEW, RENAMING, Records, SYNCING, nothing_left};
use probe::anyhow::Result;
use probe::libc;
use probe::nix::errno::Errno;
use probe::{Call, Claim, Findings, Verdict, Watcher};
use std::fs;
use std::sync::{Arc, Mutex};
use step09_detach::save;

/// What has come to the disk when the name does.
#[derive(Debug, Default)]
struct Order {
    /// How much of the new text was in the file when it was last sent there.
    sent: Option<usize>,
    /// What was sent was a file that the name never led to.
    sent_another: bool,
    /// Each write waits for the disk: O_SYNC.
    writes_wait: bool,
    renamed: bool,
    sent_after: bool,
}

impl Order {
    fn heed(&mut self, call: &Call) {
        match call.number {
            number if RENAMING.contains(&number) => self.renamed = true,
            libc::SYS_openat => {
                let flags = call.arguments[2] as i32;
                self.writes_wait |= flags & libc::O_DSYNC != 0;
            }
            libc::SYS_sync | libc::SYS_syncfs if !self.renamed => self.sent = Some(NEW.len()),
            libc::SYS_fsync | libc::SYS_fdatasync => self.heed_fsync(call),
            _ => {}
        }
    }

    fn heed_fsync(&mut self, call: &Call) {
        let link = format!("/proc/{}/fd/{}", call.pid, call.arguments[0] as i32);
        let is_file = fs::metadata(&link).is_ok_and(|file| file.is_file());
        match (is_file, self.renamed) {
            (true, false) => self.sent = fs::read(&link).ok().map(|there| there.len()),
            (true, true) => self.sent_after = true,
            // A directory's names: before the rename they are the old ones.
            (false, false) => self.sent_another = true,
            (false, true) => {}
        }
    }

    /// What is wrong with it, as it is seen, and why.
    fn fault(&self) -> Option<(String, &'static str)> {
        if self.writes_wait {
            return None;
        }
        match self.sent {
            Some(length) if length == NEW.len() => None,
            Some(length) => Some((
                format!(
                    "fsync was called when {length} of {} bytes were written",
                    NEW.len()
                ),
                "what is still in a buffer of the process, or is written later, isn't sent to the disk by fsync(2): it comes \
                 after the last write",
            )),
            None if self.sent_after => Some((
                "fsync was called after the rename".into(),
                "between the rename and fsync the power may fail: then the name is on the disk, and leads to a file without \
                 contents",
            )),
            None if self.sent_another => Some((
                "fsync was called for the directory, and not for the file".into(),
                "a directory on the disk has names, and not the contents of the files: these are sent there by fsync of the \
                 file",
            )),
            None => Some((
                "neither fsync nor fdatasync was called".into(),
                "durable isn't heeded: what was written is in the kernel's memory, and a power failure leaves a name that \
                 leads to an empty file",
            )),
        }
    }
}

pub fn durable(findings: &Findings, records: &Records) -> Result<()> {
    let expected = "with durable the contents reach the disk before the name does";
    records.begin_again()?;
    findings.begin(expected);
    let order = Arc::new(Mutex::new(Order::default()));
    let numbers = [SYNCING, RENAMING, &[libc::SYS_openat]].concat();
    let watcher = Watcher::new(&numbers, {
        let order = order.clone();
        move |call| {
            if let Ok(mut order) = order.lock() {
                order.heed(call);
            }
            Verdict::Go
        }
    });
    let outcome = findings
        .subject()
        .watch(watcher)
        .call(|| save(&records.path, NEW, true))?;
    let fault = order.lock().ok().and_then(|order| order.fault());
    let (seen, why) = fault.map_or(("fsync, then rename".into(), None), |(seen, why)| {
        (seen, Some(why.to_owned()))
    });
    let holds = why.is_none() && outcome.is_ok();
    findings.claim(Claim::new(expected, seen, holds).because(why));
    Ok(())
}

pub fn not_durable(findings: &Findings, records: &Records) -> Result<()> {
    let expected = "without durable nothing waits for the disk";
    records.begin_again()?;
    findings.begin(expected);
    let outcome = findings
        .subject()
        .watch(Watcher::records(SYNCING))
        .call(|| save(&records.path, NEW, false))?;
    let why = "durable isn't heeded: it is false, and the call waits for the disk all the same";
    let holds = outcome.calls.is_empty();
    let seen = match holds {
        true => "fsync wasn't called",
        false => "fsync, or a call like it, was called",
    };
    let claim = Claim::new(expected, seen, holds);
    findings.claim(claim.because((!holds).then(|| why.into())));
    Ok(())
}

/// The contents can't be sent to the disk.
pub fn the_disk_fails(findings: &Findings, records: &Records) -> Result<()> {
    let expected = "when fsync fails (EIO), save with durable returns an error";
    records.begin_again()?;
    findings.begin(expected);
    let watcher = Watcher::new(SYNCING, |call| {
        let link = format!("/proc/{}/fd/{}", call.pid, call.arguments[0] as i32);
        // The names of the directory may be sent there, too: that is more than is asked for.
        match fs::metadata(link).is_ok_and(|file| file.is_dir()) {
            true => Verdict::Go,
            false => Verdict::Fail(Errno::EIO),
        }
    });
    let outcome = findings
        .subject()
        .watch(watcher)
        .call(|| save(&records.path, NEW, true))?;
    if !outcome.refused {
        // Each write waits by itself.
        return Ok(());
    }
    let why = outcome.is_ok().then(|| {
        "the error of fsync is thrown away: the disk didn't take the contents, and nobody is told".into()
    });
    let holds = outcome.is_error();
    findings.claim(Claim::new(expected, outcome.in_words(), holds).because(why));
    nothing_left(findings, "when fsync fails", records, &outcome);
    Ok(())
}

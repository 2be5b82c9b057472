//! 9.2: whoever opens the file, at whatever moment, reads one whole text.

use probe::anyhow::{Context, Result};
use probe::libc::{self, c_long};
use probe::nix::errno::Errno;
use probe::nix::mount::{MsFlags, mount};
use probe::nix::sched::{CloneFlags, unshare};
use probe::nix::sys::signal::{SigHandler, Signal, signal};
use probe::nix::sys::stat::{Mode, umask};
use probe::nix::unistd::chdir;
use probe::{Call, Claim, Findings, Outcome, Subject, Verdict, Watcher};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use step09_detach::save;

/// The calls that make, fill and name a file.
const WRITING: &[(c_long, &str, Errno)] = &[
    (libc::SYS_openat, "open(2)", Errno::ENOSPC),
    (libc::SYS_write, "write(2)", Errno::ENOSPC),
    (libc::SYS_writev, "writev(2)", Errno::ENOSPC),
    (libc::SYS_pwrite64, "pwrite(2)", Errno::ENOSPC),
    (libc::SYS_rename, "rename(2)", Errno::EACCES),
    (libc::SYS_renameat, "renameat(2)", Errno::EACCES),
    (libc::SYS_renameat2, "renameat2(2)", Errno::EACCES),
];

/// The calls that name a file.
const RENAMING: &[c_long] = &[libc::SYS_rename, libc::SYS_renameat, libc::SYS_renameat2];

/// The calls that wait for the disk.
const SYNCING: &[c_long] = &[
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync,
    libc::SYS_syncfs,
];

/// What else can be done to a file.
const OTHERS: &[c_long] = &[
    libc::SYS_creat,
    libc::SYS_open,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_link,
    libc::SYS_linkat,
    libc::SYS_truncate,
    libc::SYS_ftruncate,
    libc::SYS_close,
    libc::SYS_sendfile,
    libc::SYS_copy_file_range,
];

const OLD: &[u8] = b"the old text, which is longer than some of the new ones\n";
const NEW: &[u8] = b"the new text\n";

/// A folder with a record, on a filesystem of its own.
struct Records {
    folder: PathBuf,
    path: PathBuf,
}

pub fn judge(findings: &Findings) -> Result<()> {
    let records = Records::new(&findings.scratch)?;
    replaces(findings, &records)?;
    opened_before(findings, &records)?;
    every_text(findings, &records)?;
    at_every_moment(findings, &records)?;
    in_the_current_directory(findings, &records)?;
    beside_what_a_killed_one_left(findings, &records)?;
    has_the_mode_of_a_new_file(findings, &records)?;
    durable(findings, &records)?;
    not_durable(findings, &records)?;
    only_a_part_fits(findings, &records)?;
    each_call_fails(findings, &records)?;
    the_disk_fails(findings, &records)
}

impl Records {
    /// The mount is seen by this process and its children alone, and goes with them.
    fn new(scratch: &Path) -> Result<Records> {
        let folder = scratch.join("records");
        fs::create_dir(&folder)?;
        unshare(CloneFlags::CLONE_NEWNS)?;
        let (none, private) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
        mount(none, "/", none, private, none)?;
        mount(
            Some("records"),
            &folder,
            Some("tmpfs"),
            MsFlags::empty(),
            none,
        )
        .context("a filesystem for records")?;
        let path = folder.join("config.json");
        Ok(Records { folder, path })
    }

    /// As at the beginning: one file, with the old text.
    fn begin_again(&self) -> Result<()> {
        for name in self.names() {
            fs::remove_file(self.folder.join(name))?;
        }
        Ok(fs::write(&self.path, OLD)?)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    fn has(&self, text: &[u8]) -> bool {
        fs::read(&self.path).is_ok_and(|there| there == text)
    }

    /// What a process reads that opens the file now.
    fn in_words(&self) -> String {
        in_words(&self.path)
    }

    /// What lies beside the record.
    fn left(&self) -> Vec<String> {
        let mut names = self.names();
        names.retain(|name| name != "config.json");
        names
            .iter()
            .map(|name| format!("{name} is left in the directory"))
            .collect()
    }
}

fn in_words(path: &Path) -> String {
    match fs::read(path) {
        Ok(bytes) if bytes.len() > 80 => format!("the file has {} bytes", bytes.len()),
        Ok(bytes) => format!("the file has {:?}", String::from_utf8_lossy(&bytes)),
        Err(error) => format!("the file can't be read: {error}"),
    }
}

fn replaces(findings: &Findings, records: &Records) -> Result<()> {
    records.begin_again()?;
    findings.begin("save replaces a text by a shorter one");
    let outcome = findings
        .subject()
        .call(|| save(&records.path, NEW, false))?;
    findings.claim(Claim::new(
        "save replaces the whole of the old text",
        format!("{}; {}", outcome.in_words(), records.in_words()),
        outcome.is_ok() && records.has(NEW),
    ));
    if !outcome.is_ok() {
        return Ok(());
    }
    let left = records.left();
    findings.claim(Claim::new(
        "nothing else stays in the directory",
        match left.is_empty() {
            true => "it has config.json".into(),
            false => left.join("; "),
        },
        left.is_empty(),
    ));
    findings.same_caller(&outcome, &[]);
    Ok(())
}

/// Somebody has the file open.
fn opened_before(findings: &Findings, records: &Records) -> Result<()> {
    let expected = "who has opened the file before reads on in the whole of the old text";
    records.begin_again()?;
    findings.begin(expected);
    let mut reader = File::open(&records.path)?;
    let outcome = findings
        .subject()
        .call(|| save(&records.path, NEW, false))?;
    let mut read = Vec::new();
    reader.read_to_end(&mut read)?;
    let why = (read != OLD && outcome.is_ok()).then(|| {
        "the old file itself was written into: who has it open reads a mixture of both texts, or half of one. The new text \
         has to be another file, which takes the name when it is whole"
            .into()
    });
    let seen = format!("it reads {:?}", String::from_utf8_lossy(&read));
    findings.claim(Claim::new(expected, seen, read == OLD).because(why));
    Ok(())
}

/// Texts of all kinds, and a name that nobody has yet.
fn every_text(findings: &Findings, records: &Records) -> Result<()> {
    let long: Vec<u8> = (0..300_000_u32).map(|at| at as u8).collect();
    let fresh = records.folder.join("fresh");
    for (what, path, text) in [
        ("a text that is empty", &records.path, &b""[..]),
        ("a long one, of any bytes", &records.path, &long),
        ("a file that wasn't there before", &fresh, NEW),
    ] {
        records.begin_again()?;
        findings.begin(format!("save writes {what}"));
        let outcome = findings.subject().call(|| save(path, text, true))?;
        findings.claim(Claim::new(
            format!("save writes {what}"),
            format!("{}; {}", outcome.in_words(), in_words(path)),
            outcome.is_ok() && fs::read(path).is_ok_and(|there| there == text),
        ));
    }
    Ok(())
}

/// Before each call that could change a file it is opened and read.
fn at_every_moment(findings: &Findings, records: &Records) -> Result<()> {
    let expected =
        "at every moment who opens the file reads the whole of the old text or of the new one";
    records.begin_again()?;
    findings.begin(expected);
    let torn = Arc::new(Mutex::new(None));
    let watcher = Watcher::new(&writing_and(&[SYNCING, OTHERS]), {
        let (torn, path) = (torn.clone(), records.path.clone());
        move |_| {
            let is_whole = fs::read(&path).is_ok_and(|there| there == OLD || there == NEW);
            if !is_whole && let Ok(mut torn) = torn.lock() {
                torn.get_or_insert_with(|| in_words(&path));
            }
            Verdict::Go
        }
    });
    let outcome = findings
        .subject()
        .watch(watcher)
        .call(|| save(&records.path, NEW, true))?;
    let torn = torn.lock().ok().and_then(|mut torn| torn.take());
    let why = torn.as_ref().map(|seen| {
        match seen.contains("can't be read") {
            true => {
                "the old file was removed before the new one had its name: rename(2) puts one in the place of the other in \
                 one go"
            }
            false => {
                "the file that has the name is the one that is being written: write another one beside it, and rename(2) \
                 that one when it is whole"
            }
        }
        .into()
    });
    let seen = match &torn {
        Some(seen) => format!("between two calls of save {seen}"),
        None => format!(
            "{}; it was one of the two before each call",
            outcome.in_words()
        ),
    };
    findings.claim(Claim::new(expected, seen, torn.is_none()).because(why));
    Ok(())
}

/// The numbers of [`WRITING`], and others.
fn writing_and(others: &[&[c_long]]) -> Vec<c_long> {
    let writing: Vec<c_long> = WRITING.iter().map(|(number, ..)| *number).collect();
    [&[&writing[..]], others].concat().concat()
}

/// A path may be a name alone; then its folder is the current directory.
fn in_the_current_directory(findings: &Findings, records: &Records) -> Result<()> {
    let expected = "a path that is a name alone is a file in the current directory";
    records.begin_again()?;
    findings.begin(expected);
    let outcome = findings.subject().call_in(
        || Ok(chdir(&records.folder)?),
        |()| save(Path::new("config.json"), NEW, true),
        |_| Ok(()),
    )?;
    let why = outcome.is_error().then(|| {
        "the parent() of a path that is a name alone is the empty path, which can't be opened"
            .into()
    });
    let seen = format!("{}; {}", outcome.in_words(), records.in_words());
    let holds = outcome.is_ok() && records.has(NEW);
    findings.claim(Claim::new(expected, seen, holds).because(why));
    Ok(())
}

/// The name that the new file has meanwhile is taken: by what a process left that was killed while it wrote.
fn beside_what_a_killed_one_left(findings: &Findings, records: &Records) -> Result<()> {
    records.begin_again()?;
    findings.begin("save renames a file");
    let outcome = recorded(findings.subject(), records, false, RENAMING)?;
    let from = outcome.calls.first().map(|call| match call.number {
        libc::SYS_rename => call.text(0).to_owned(),
        _ => call.text(1).to_owned(),
    });
    let Some(name) = from.as_deref().and_then(|from| Path::new(from).file_name()) else {
        return Ok(());
    };
    let aside = records.folder.join(name);
    if aside == records.path {
        return Ok(());
    }
    let expected = "what a killed process left under the name that the new file has meanwhile isn't in the way";
    records.begin_again()?;
    fs::write(&aside, [OLD, OLD].concat())?;
    findings.begin(expected);
    let outcome = findings
        .subject()
        .call(|| save(&records.path, NEW, false))?;
    let why = match (outcome.is_ok(), records.has(NEW)) {
        (true, false) => Some(
            "the file was opened without O_TRUNC: the end of what was in it before is still there",
        ),
        (false, _) if outcome.is_error() => Some(
            "the file was to be new (O_EXCL): once a process is killed while it writes, no other can ever save again",
        ),
        _ => None,
    };
    findings.claim(
        Claim::new(
            expected,
            format!("{}; {}", outcome.in_words(), records.in_words()),
            outcome.is_ok() && records.has(NEW),
        )
        .because(why.map(String::from)),
    );
    Ok(())
}

/// A call of save, with the system calls of these kinds.
fn recorded(
    subject: Subject,
    records: &Records,
    durable: bool,
    numbers: &[c_long],
) -> Result<Outcome> {
    subject
        .watch(Watcher::records(numbers))
        .call(|| save(&records.path, NEW, durable))
}

fn has_the_mode_of_a_new_file(findings: &Findings, records: &Records) -> Result<()> {
    let fresh = records.folder.join("fresh");
    for (mask, wanted) in [(0o022, 0o644), (0o077, 0o600)] {
        records.begin_again()?;
        let expected = format!("with umask {mask:03o} a new file has mode {wanted:04o}");
        findings.begin(&expected);
        let outcome = findings.subject().call_in(
            || {
                umask(Mode::from_bits_truncate(mask));
                Ok(())
            },
            |()| save(&fresh, NEW, false),
            |_| Ok(()),
        )?;
        let mode = fs::metadata(&fresh).map(|file| file.mode() & 0o7777);
        let seen = match &mode {
            Ok(mode) => format!("its mode is {mode:04o}"),
            Err(error) => format!("{}; {}: {error}", outcome.in_words(), fresh.display()),
        };
        let holds = mode.is_ok_and(|mode| mode == wanted);
        findings.claim(Claim::new(expected, seen, holds));
        findings.same_caller(&outcome, &[]);
    }
    Ok(())
}

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

fn durable(findings: &Findings, records: &Records) -> Result<()> {
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

fn not_durable(findings: &Findings, records: &Records) -> Result<()> {
    let expected = "without durable nothing waits for the disk";
    records.begin_again()?;
    findings.begin(expected);
    let outcome = recorded(findings.subject(), records, false, SYNCING)?;
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

/// The kernel takes a part of the text, and no more.
fn only_a_part_fits(findings: &Findings, records: &Records) -> Result<()> {
    let expected = "when only a part of the text can be written, save returns an error, and the old text stays";
    records.begin_again()?;
    findings.begin(expected);
    let limited = || -> Result<()> {
        let (soft, hard) = (5, libc::RLIM_INFINITY);
        let limit = libc::rlimit {
            rlim_cur: soft,
            rlim_max: hard,
        };
        // SAFETY: nothing is handled; the kernel reads two numbers.
        unsafe {
            signal(Signal::SIGXFSZ, SigHandler::SigIgn)?;
            Errno::result(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit))?;
        }
        Ok(())
    };
    let outcome =
        findings
            .subject()
            .call_in(limited, |()| save(&records.path, NEW, false), |_| Ok(()))?;
    let why = outcome.is_ok().then(|| {
        "write(2) may take a part of what it is given, and says how much: the rest has to be written, too, or the error \
         of that has to be returned"
            .into()
    });
    let holds = outcome.is_error() && records.has(OLD);
    let seen = format!("{}; {}", outcome.in_words(), records.in_words());
    findings.claim(Claim::new(expected, seen, holds).because(why));
    nothing_left(
        findings,
        "when only a part can be written",
        records,
        &outcome,
    );
    Ok(())
}

/// That an error has left the old text, and nothing else.
fn nothing_left(findings: &Findings, when: &str, records: &Records, outcome: &Outcome) {
    let left = traces(records, outcome);
    let holds = left.is_empty();
    let why = "on the way that fails the new file has to be removed: whoever looks into the directory takes it for a record";
    let seen = match holds {
        true => "config.json alone".into(),
        false => left.join("; "),
    };
    let expected = format!("{when}, an error leaves the old text, and nothing else");
    let is_file = left.iter().all(|left| left.contains("in the directory"));
    let why = (!holds && is_file).then(|| why.into());
    findings.claim(Claim::new(expected, seen, holds).because(why));
}

/// What an error has left that it shouldn't.
fn traces(records: &Records, outcome: &Outcome) -> Vec<String> {
    let mut left = outcome.changes(&[]);
    left.extend(records.left());
    if outcome.is_error() && !records.has(OLD) {
        left.push(format!("the old text is lost: {}", records.in_words()));
    }
    left
}

fn each_call_fails(findings: &Findings, records: &Records) -> Result<()> {
    findings.each_call_fails(
        "save",
        WRITING,
        |subject| {
            records.begin_again()?;
            subject.call(|| save(&records.path, NEW, true))
        },
        || records.has(NEW),
        |outcome| traces(records, outcome),
    )?;
    Ok(())
}

/// The contents can't be sent to the disk.
fn the_disk_fails(findings: &Findings, records: &Records) -> Result<()> {
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

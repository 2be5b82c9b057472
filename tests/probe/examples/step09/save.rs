//! 9.2: whoever opens the file, at whatever moment, reads one whole text.

#[path = "save/durability.rs"]
mod durability;
#[path = "save/records.rs"]
mod records;

use durability::{durable, not_durable, the_disk_fails};
use probe::anyhow::Result;
use probe::libc::{self, c_long};
use probe::nix::errno::Errno;
use probe::nix::sys::signal::{SigHandler, Signal, signal};
use probe::nix::sys::stat::{Mode, umask};
use probe::old;
use probe::{Claim, Findings, Verdict, Watcher};
use records::{NEW, OLD, RENAMING, Records, SYNCING, in_words, nothing_left, traces};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use step09_detach::save;

/// The calls that make, fill and name a file.
const WRITING: &[(c_long, &str, Errno)] = &[
    (libc::SYS_openat, "open(2)", Errno::ENOSPC),
    (libc::SYS_write, "write(2)", Errno::ENOSPC),
    (libc::SYS_writev, "writev(2)", Errno::ENOSPC),
    (libc::SYS_pwrite64, "pwrite(2)", Errno::ENOSPC),
    (old::SYS_rename, "rename(2)", Errno::EACCES),
    (libc::SYS_renameat, "renameat(2)", Errno::EACCES),
    (libc::SYS_renameat2, "renameat2(2)", Errno::EACCES),
];

/// What else can be done to a file.
const OTHERS: &[c_long] = &[
    old::SYS_creat,
    old::SYS_open,
    old::SYS_unlink,
    libc::SYS_unlinkat,
    old::SYS_link,
    libc::SYS_linkat,
    libc::SYS_truncate,
    libc::SYS_ftruncate,
    libc::SYS_close,
    libc::SYS_sendfile,
    libc::SYS_copy_file_range,
];

pub fn judge(findings: &Findings) -> Result<()> {
    findings.play_in(
        &Records::new(&findings.scratch)?,
        &[
            replaces,
            opened_before,
            every_text,
            at_every_moment,
            beside_what_a_killed_one_left,
            has_the_mode_of_a_new_file,
            durable,
            not_durable,
            only_a_part_fits,
            each_call_fails,
            the_disk_fails,
        ],
    )
}

fn replaces(findings: &Findings, records: &Records) -> Result<()> {
    records.begin_again()?;
    findings.begin("save replaces a text by a shorter one");
    let outcome = findings
        .subject()
        .call(|| save(&records.path, NEW, false))?;
    let why = outcome.error().contains("os error 18").then(|| {
        "the new file was written on another filesystem, from which it can't be renamed (EXDEV): it belongs beside the old one"
            .into()
    });
    let expected = "save replaces the whole of the old text";
    let seen = format!("{}; {}", outcome.in_words(), records.in_words());
    let holds = outcome.is_ok() && records.has(NEW);
    findings.claim(Claim::new(expected, seen, holds).because(why));
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
    findings.caller_stays(&outcome, &[]);
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

/// The name that the new file has meanwhile is taken: by what a process left that was killed while it wrote.
fn beside_what_a_killed_one_left(findings: &Findings, records: &Records) -> Result<()> {
    records.begin_again()?;
    findings.begin("save renames a file");
    let outcome = findings
        .subject()
        .watch(Watcher::records(RENAMING))
        .call(|| save(&records.path, NEW, false))?;
    let from = outcome.calls.first().map(|call| match call.number {
        old::SYS_rename => call.text(0).to_owned(),
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
        findings.caller_stays(&outcome, &[]);
    }
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

//! 7.2: settings for a folder of plain files, which has whatever files it is given.

use probe::anyhow::Result;
use probe::nix::errno::Errno;
use probe::{Claim, Findings, Outcome, Verdict, Watcher, libc};
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use step07_cgroups::limit as write_all_of;
use step07_cgroups::limits::Setting;

const FLAG: &str = "--umbrella";
const CONTROLLER: &str = "rainfall";

/// The calls by which a file is opened and written.
const WRITING: &[(libc::c_long, &str, Errno)] = &[
    (libc::SYS_openat, "open(2)", Errno::EACCES),
    (libc::SYS_openat2, "openat2(2)", Errno::EACCES),
    (libc::SYS_write, "write(2)", Errno::EINVAL),
    (libc::SYS_pwrite64, "pwrite(2)", Errno::EINVAL),
    (libc::SYS_writev, "writev(2)", Errno::EINVAL),
];

pub fn limit(findings: &Findings) -> Result<()> {
    findings.play(&[
        writes,
        passes_over,
        misses,
        is_refused,
        is_refused_what_is_not_required,
        each_call,
    ])
}

fn setting(file: &'static str, value: &str, required: bool) -> Setting<'static> {
    Setting {
        flag: FLAG,
        controller: CONTROLLER,
        file,
        value: value.into(),
        required,
    }
}

/// A folder with these files, empty each.
fn folder_of(findings: &Findings, files: &[&str]) -> Result<PathBuf> {
    let folder = findings.scratch.join("group");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir(&folder)?;
    for file in files {
        fs::write(folder.join(file), "")?;
    }
    Ok(folder)
}

/// The names in a folder.
fn names(folder: &PathBuf) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Writes as they come: the file's name and the text of each.
type Notes = Arc<Mutex<Vec<(String, String)>>>;

/// A watcher that notes each write: the file's name and the text.
fn notes_writes() -> (Watcher, Notes) {
    let written = Arc::new(Mutex::new(Vec::new()));
    let notes = written.clone();
    let watcher = Watcher::new(&[libc::SYS_write, libc::SYS_pwrite64], move |call| {
        let file = call.target(0).unwrap_or_default();
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let bytes = call.bytes(1, call.arguments[2] as usize);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Ok(mut notes) = notes.lock() {
            notes.push((name.into_owned(), text));
        }
        Verdict::Go
    });
    (watcher, written)
}

/// Writes for the learner: `drops.max ← "1"`.
fn in_words(writes: &[(String, String)]) -> String {
    let each: Vec<String> = writes
        .iter()
        .map(|(file, text)| format!("{text:?} to {file}"))
        .collect();
    match each.is_empty() {
        true => "nothing was written".into(),
        false => format!("it wrote {}", each.join(", then ")),
    }
}

/// Why these writes aren't those that were wanted, if one mistake alone leads to them.
fn what_is_wrong(writes: &[(String, String)], wanted: &[(String, String)]) -> Option<&'static str> {
    let sorted = |writes: &[(String, String)]| {
        let mut writes = writes.to_vec();
        writes.sort();
        writes
    };
    let mut of_each = wanted.to_vec();
    of_each.dedup_by(|later, earlier| later.0 == earlier.0);
    if sorted(writes) == sorted(wanted) {
        Some(
            "the order of the settings counts: what comes later may need what came before, or takes it back",
        )
    } else if wanted.starts_with(writes) && !writes.is_empty() {
        Some("it stopped before the last setting")
    } else if writes.len() < wanted.len() && sorted(writes) == sorted(&of_each) {
        Some(
            "two settings may go to one file, and each counts: the kernel takes each write by itself",
        )
    } else if writes.len() > wanted.len() {
        let texts = |writes: &[(String, String)]| -> String {
            writes.iter().map(|(_, text)| text.trim_end()).collect()
        };
        let is_cut = texts(writes) == texts(wanted);
        is_cut.then_some(
            "a value was written in pieces: the kernel takes each write(2) for a whole value",
        )
    } else {
        None
    }
}

/// Every value reaches its file, in the order of the settings.
fn writes(findings: &Findings) -> Result<()> {
    let folder = folder_of(findings, &["drops.max", "wind.max", "clouds"])?;
    let settings = [
        setting("wind.max", "8:16 rbps=1048576", true),
        setting("drops.max", "4711", false),
        setting("clouds", "a", true),
        setting("clouds", "c 1:3 rw", true),
    ];
    let expected =
        "limit writes each value to its file, in the order of the settings, by one write";
    findings.begin(expected);
    let (watcher, written) = notes_writes();
    let subject = findings.subject().watch(watcher);
    let outcome = subject.call(|| write_all_of(&folder, &settings))?;
    let wanted = settings.map(|setting| (setting.file.to_owned(), setting.value));
    let written = written.lock().map(|all| all.clone()).unwrap_or_default();
    // A line's end behind a value changes nothing, as long as it comes with it.
    let plain: Vec<_> = written
        .iter()
        .map(|(file, text)| (file.clone(), text.strip_suffix('\n').unwrap_or(text).into()))
        .collect();
    let holds = outcome.is_ok() && plain == wanted;
    let why = what_is_wrong(&plain, &wanted).filter(|_| !holds && outcome.is_ok());
    let seen = format!("{}; {}", outcome.in_words(), in_words(&written));
    findings.claim(Claim::new(expected, seen, holds).because(why.map(Into::into)));
    findings.caller_stays(&outcome, &[]);
    Ok(())
}

/// What isn't required may be missing, and hinders nothing else.
fn passes_over(findings: &Findings) -> Result<()> {
    let folder = folder_of(findings, &["drops.max"])?;
    let settings = [
        setting("missing", "1", false),
        setting("drops.max", "4711", true),
    ];
    let expected = "a setting that isn't required is passed over when its file isn't there";
    findings.begin(expected);
    let outcome = findings
        .subject()
        .call(|| write_all_of(&folder, &settings))?;
    let why = outcome.is_error().then(|| {
        "it was taken for an error: `required` says whether it is one when there is no such file".into()
    });
    let claim = Claim::new(expected, outcome.in_words(), outcome.is_ok());
    findings.claim(claim.because(why));
    let there = fs::read_to_string(folder.join("drops.max"))?;
    let holds = there.trim_end() == "4711";
    let claim = Claim::new(
        "the settings behind one that is passed over are written all the same",
        format!("drops.max has {there:?}"),
        holds || !outcome.is_ok(),
    );
    let why = "it ended with the setting that was passed over: the others have files";
    findings.claim(claim.because((!holds).then(|| why.into())));
    findings.claim(makes_none(&folder, &["drops.max"]));
    Ok(())
}

/// A claim that there are these files in the folder and no others.
fn makes_none(folder: &PathBuf, files: &[&str]) -> Claim {
    let names = names(folder);
    let holds = names == files;
    let why = "a file that isn't there was made: the files of a control group are the kernel's (so O_CREAT fails with \
               EACCES in there, and a missing file isn't known by ENOENT any more)";
    let claim = Claim::new(
        "limit makes no file",
        format!("in the folder are {}", names.join(", ")),
        holds,
    );
    claim.because((!holds).then(|| why.into()))
}

/// What is required may not be missing.
fn misses(findings: &Findings) -> Result<()> {
    let folder = folder_of(findings, &["drops.max"])?;
    let settings = [
        setting("drops.max", "1", true),
        setting("wind.max", "4711", true),
    ];
    let expected = "a setting that is required and has no file is an error";
    findings.begin(expected);
    let outcome = findings
        .subject()
        .call(|| write_all_of(&folder, &settings))?;
    let why = outcome.is_ok().then(|| {
        "it was passed over: without its file the limit doesn't hold, and whoever asked for it isn't told".into()
    });
    let why = why.or_else(|| outcome.why_no_error());
    let claim = Claim::new(expected, outcome.in_words(), outcome.is_error());
    findings.claim(claim.because(why.filter(|_| !outcome.is_error())));
    findings.claim(makes_none(&folder, &["drops.max"]));
    if outcome.is_error() {
        findings.claim(names_all(&outcome, "wind.max", "4711", Errno::ENOENT));
    }
    Ok(())
}

/// A claim that an error's text has all that helps.
fn names_all(outcome: &Outcome, file: &str, value: &str, errno: Errno) -> Claim {
    let text = outcome.error();
    let has_errno = text.contains(errno.desc())
        || text.contains(&format!("{errno:?}"))
        || text.contains(&format!("os error {}", errno as i32));
    let parts = [
        ("the flag", text.contains(FLAG)),
        ("the controller", text.contains(CONTROLLER)),
        ("the file", text.contains(file)),
        ("the value", text.contains(value)),
        ("what the kernel said", has_errno),
    ];
    let missing: Vec<&str> = parts
        .iter()
        .filter(|(_, is_there)| !is_there)
        .map(|(what, _)| *what)
        .collect();
    let expected = format!(
        "the error names the flag, {FLAG}, the controller, {CONTROLLER}, the file, {file}, the value, {value}, and what \
         the kernel said, {}",
        errno.desc()
    );
    let why = format!("it lacks {}", missing.join(", "));
    let claim = Claim::new(expected, format!("it says: {text}"), missing.is_empty());
    claim.because((!missing.is_empty()).then_some(why))
}

/// What the kernel refuses is told with all that helps, also behind a value that was taken.
fn is_refused(findings: &Findings) -> Result<()> {
    refused(findings, true, 1)
}

/// Only a missing file is nothing: a value that the kernel refuses is an error.
fn is_refused_what_is_not_required(findings: &Findings) -> Result<()> {
    refused(findings, false, 0)
}

fn refused(findings: &Findings, required: bool, at: usize) -> Result<()> {
    let folder = folder_of(findings, &["drops.max", "wind.max"])?;
    let mut settings = [
        setting("drops.max", "1", true),
        setting("wind.max", "2", true),
    ];
    settings[at].value = "4711".into();
    settings[at].required = required;
    let file = settings[at].file;
    let expected = match required {
        true => "a value that the kernel doesn't take (EINVAL) is an error",
        false => {
            "a value that the kernel doesn't take (EINVAL) is an error, also where `required` is false"
        }
    };
    findings.begin(expected);
    let mut written = 0;
    let watcher = Watcher::new(&[libc::SYS_write, libc::SYS_pwrite64], move |_| {
        written += 1;
        match written == at + 1 {
            true => Verdict::Fail(Errno::EINVAL),
            false => Verdict::Go,
        }
    });
    let subject = findings.subject().watch(watcher);
    let outcome = subject.call(|| write_all_of(&folder, &settings))?;
    let why = outcome.is_ok().then_some(match required {
        true => "the error of write(2) is thrown away: the limit doesn't hold, and nobody is told",
        false => "`required` is about a file that isn't there, and about no other error",
    });
    let why = why.map(String::from).or_else(|| outcome.why_no_error());
    let claim = Claim::new(expected, outcome.in_words(), outcome.is_error());
    findings.claim(claim.because(why.filter(|_| !outcome.is_error())));
    if outcome.is_error() {
        findings.claim(names_all(&outcome, file, "4711", Errno::EINVAL));
    }
    findings.caller_stays(&outcome, &[]);
    Ok(())
}

/// No call's error is thrown away.
fn each_call(findings: &Findings) -> Result<()> {
    let files = ["drops.max", "wind.max"];
    let settings = [
        setting("drops.max", "1", true),
        setting("wind.max", "2", false),
    ];
    let folder = folder_of(findings, &files)?;
    let has = |file: &str, value: &str| {
        let text = fs::read_to_string(folder.join(file)).unwrap_or_default();
        text.trim_end() == value
    };
    findings.each_call_fails(
        "limit",
        WRITING,
        |subject| {
            folder_of(findings, &files)?;
            subject.call(|| write_all_of(&folder, &settings))
        },
        || has("drops.max", "1") && has("wind.max", "2"),
        |outcome| outcome.changes(&[]),
    )?;
    Ok(())
}

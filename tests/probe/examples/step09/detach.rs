//! 9.1: who detaches has nothing of the caller's any more, and is still the same process.

use probe::anyhow::Result;
use probe::libc::{self, c_long};
use probe::nix::errno::Errno;
use probe::nix::fcntl::OFlag;
use probe::nix::sys::resource::{Resource, getrlimit, setrlimit};
use probe::nix::unistd::{Pid, chdir, pipe2, setpgid};
use probe::old;
use probe::{Claim, Descriptor, Ending, Findings, Outcome, State, high_number, place};
use std::cell::RefCell;
use std::fs::{File, create_dir_all};
use std::os::fd::RawFd;
use std::path::Path;
use step09_detach::detach;

/// Descriptors that are to stay: one is closed by execve, and one is higher than the process may open any more.
const KEPT: [RawFd; 2] = [40, 300];

/// Descriptors that nobody wants, and another one with a number as high as can be.
const OTHERS: [RawFd; 5] = [3, 42, 43, 45, 301];

/// What may not fail without anybody's knowing. A close(2) that fails has closed all the same.
const CALLS: &[(c_long, &str, Errno)] = &[
    (libc::SYS_setsid, "setsid(2)", Errno::EPERM),
    (libc::SYS_chdir, "chdir(2)", Errno::EACCES),
    (libc::SYS_fchdir, "fchdir(2)", Errno::EACCES),
    (libc::SYS_openat, "open(2)", Errno::EMFILE),
    (old::SYS_dup2, "dup2(2)", Errno::EBUSY),
    (libc::SYS_dup3, "dup3(2)", Errno::EBUSY),
    (libc::SYS_close_range, "close_range(2)", Errno::ENOSYS),
];

pub fn judge(findings: &Findings) -> Result<()> {
    let folder = findings.scratch.join("directory");
    create_dir_all(&folder)?;
    findings.play_in(
        folder.as_path(),
        &[
            from_everything,
            keeping_nothing,
            as_the_leader_of_a_group,
            each_call_fails,
        ],
    )
}

/// The caller has files, directories and pipes open, with low numbers and high ones.
fn world(folder: &Path) -> Result<()> {
    chdir(folder)?;
    let file = File::create(folder.join("file"))?;
    let directory = File::open(folder)?;
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    place(&file, 0, 0)?;
    place(&file, 1, 0)?;
    place(&writer, 2, 0)?;
    place(&file, KEPT[0], libc::O_CLOEXEC)?;
    place(&writer, KEPT[1], 0)?;
    place(&directory, OTHERS[1], 0)?;
    place(&writer, OTHERS[2], libc::O_CLOEXEC)?;
    place(&reader, OTHERS[3], 0)?;
    place(&directory, OTHERS[4], libc::O_CLOEXEC)?;
    place(&file, high_number()?, 0)?;
    drop((file, directory, reader, writer));
    place(&std::io::stdin(), OTHERS[0], 0)?;
    // Who counts up to this limit doesn't come to those that were opened before it was lowered.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, 64, hard)?)
}

fn from_everything(findings: &Findings, folder: &Path) -> Result<()> {
    findings.begin("detach comes back, and says that it went well");
    let keep = [KEPT[1], KEPT[0], KEPT[0]];
    let outcome = findings
        .subject()
        .call_in(|| world(folder), |()| detach(&keep), |_| Ok(()))?;
    findings.claim(it_comes_back(&outcome));
    if !outcome.is_ok() {
        return Ok(());
    }
    findings.claim(session(&outcome.after));
    findings.claim(
        Claim::equal(
            "it keeps nobody's directory busy",
            "/proc/PID/cwd",
            &outcome.after.directories[0],
            &"/".into(),
        )
        .why("the process still stands where its caller stood, and nobody can unmount that: chdir to / is missing"),
    );
    findings.claim(standard(&outcome.after));
    findings.claim(others(&outcome.after, &keep));
    KEPT.iter()
        .for_each(|number| findings.claim(kept(&outcome, *number)));
    findings.caller_stays(&outcome, &["descriptors", "directory", "session"]);
    Ok(())
}

fn it_comes_back(outcome: &Outcome) -> Claim {
    let is_another = outcome.came_back_twice || matches!(outcome.ending, Ending::Left(..128));
    let why = is_another.then(|| {
        "the process that called detach has ended, or a child came back in its place: whoever calls goes on in the same \
         process. It begins a session by itself, unless it leads its group"
            .into()
    });
    let is_aborted = outcome.ending == Ending::Left(128 + libc::SIGABRT as u8);
    let why = why.or(is_aborted.then(|| {
        "a descriptor that an OwnedFd has was closed by its number, and again when the OwnedFd was dropped, which Rust takes \
         for a reason to end the process"
            .into()
    }));
    Claim::new(
        "detach comes back in the process that called it, with Ok",
        outcome.in_words(),
        outcome.is_ok() && !outcome.came_back_twice,
    )
    .because(why)
}

/// That the process leads a session: the process group and the session are fields of proc_pid_stat(5).
fn session(state: &State) -> Claim {
    let is_own = |at: usize| {
        state
            .stat
            .get(at)
            .is_some_and(|field| field == state.status("Pid"))
    };
    let (group, session) = (is_own(2), is_own(3));
    let why = match group {
        true => {
            "a process group of one's own is no session: the terminal still hangs up the session that it is in. setsid(2) \
             begins one"
        }
        false => {
            "no session was begun: the terminal of the caller's session hangs this process up, too. See setsid(2)"
        }
    };
    let whose = |own: bool| if own { "its own" } else { "another process's" };
    Claim::new(
        "it leads a session of its own",
        format!(
            "/proc/PID/stat: the session is {}, the process group {}",
            whose(session),
            whose(group)
        ),
        group && session,
    )
    .because((!session).then(|| why.into()))
}

/// What a descriptor leads to, in short.
fn name(descriptor: &Descriptor) -> String {
    let target = descriptor.target.display().to_string();
    match (target.rsplit_once('/'), target.split_once(":[")) {
        _ if target.starts_with("/dev/") => target,
        (Some((_, name)), _) => format!("the caller's {name}"),
        (_, Some((kind, _))) => format!("a {kind}"),
        _ => target,
    }
}

/// What each standard descriptor must be: /dev/null, open for what the descriptor is for, and still there after execve.
fn standard(state: &State) -> Claim {
    let wrong = |number: RawFd| -> Option<(String, &str)> {
        let Some(found) = state.descriptors.get(&number) else {
            let why = "a standard descriptor was closed: the next file that is opened gets its number, and whoever prints \
                prints into that file. /dev/null takes its place by dup2(2). If it was /dev/null itself that got the number, \
                dropping its OwnedFd has closed it again";
            return Some((format!("{number} is closed"), why));
        };
        if found.target != Path::new("/dev/null") {
            let seen = format!("{number} leads to {}", name(found));
            let why = "a standard descriptor of the caller's is still open: whoever reads the other end of its pipe doesn't \
                come to the end";
            return Some((seen, why));
        }
        let access = found.flags & libc::O_ACCMODE;
        let wanted = if number == 0 {
            libc::O_RDONLY
        } else {
            libc::O_WRONLY
        };
        if access != libc::O_RDWR && access != wanted {
            let why = "/dev/null was opened for one direction only: input is read, output and errors are written";
            return Some((format!("{number} can't be {}", verb(number)), why));
        }
        found.is_closed_on_exec().then(|| {
            let why = "/dev/null has close-on-exec here: when this process executes a program, the program begins with its \
                standard descriptors closed";
            (format!("{number} is closed by execve"), why)
        })
    };
    let found: Vec<_> = (0..3).filter_map(wrong).collect();
    let seen: Vec<String> = found.iter().map(|(seen, _)| seen.clone()).collect();
    let why = found.first().map(|(_, why)| (*why).to_owned());
    Claim::new(
        "its standard input, output and error are /dev/null, to be read and to be written",
        match seen.is_empty() {
            true => "/proc/PID/fd/0, 1, 2: /dev/null".into(),
            false => format!("/proc/PID/fd: {}", seen.join("; ")),
        },
        seen.is_empty(),
    )
    .because(why)
}

fn verb(number: RawFd) -> &'static str {
    if number == 0 { "read" } else { "written" }
}

/// That nothing is open but the standard descriptors and `keep`.
fn others(state: &State, keep: &[RawFd]) -> Claim {
    let is_left = |(number, _): &(&RawFd, &Descriptor)| **number > 2 && !keep.contains(number);
    let left: Vec<(&RawFd, &Descriptor)> = state.descriptors.iter().filter(is_left).collect();
    let words = |(number, descriptor): &(&RawFd, &Descriptor)| {
        format!("{number} leads to {}", name(descriptor))
    };
    let seen: Vec<String> = left.iter().map(words).collect();
    let is_null = left
        .iter()
        .all(|(_, descriptor)| descriptor.target == Path::new("/dev/null"));
    let high = left.iter().all(|(number, _)| **number > 255);
    let cloexec = left
        .iter()
        .all(|(_, descriptor)| descriptor.is_closed_on_exec());
    let why = match left.is_empty() {
        true => None,
        false if is_null => Some(
            "the descriptor from which /dev/null was copied is still open: it isn't one of those in keep",
        ),
        false if high => Some(
            "descriptors with high numbers are left: no number is the highest, and the limit of open files (RLIMIT_NOFILE) \
             only says what can be opened from now on. /proc/self/fd tells what is open",
        ),
        false if cloexec => Some(
            "close-on-exec closes nothing before an execve, and nobody says that this process executes anything: its \
             descriptors have to be closed now",
        ),
        false => None,
    };
    Claim::new(
        "of all others only the descriptors in keep are open",
        match seen.is_empty() {
            true => "/proc/PID/fd: no others".into(),
            false => format!("/proc/PID/fd: {}", seen.join("; ")),
        },
        seen.is_empty(),
    )
    .because(why.map(String::from))
}

/// That a descriptor is what it was.
fn kept(outcome: &Outcome, number: RawFd) -> Claim {
    let (was, is) = (
        outcome.before.descriptors.get(&number),
        outcome.after.descriptors.get(&number),
    );
    let words = |found: Option<&Descriptor>| match found {
        None => "closed".to_owned(),
        Some(found) => {
            let target = name(found);
            let on_exec = if found.is_closed_on_exec() {
                ""
            } else {
                "not "
            };
            format!("{target}, {on_exec}closed by execve")
        }
    };
    Claim::new(
        format!("descriptor {number}, which keep names, is as it was"),
        format!("before: {}; after: {}", words(was), words(is)),
        was == is,
    )
}

/// With nothing to keep, and with a standard descriptor in `keep`.
fn keeping_nothing(findings: &Findings, folder: &Path) -> Result<()> {
    for (keep, what) in [
        (vec![], "with nothing to keep"),
        (vec![1], "with descriptor 1 among those to keep"),
    ] {
        findings.begin(format!("{what}, detach comes back"));
        let outcome =
            findings
                .subject()
                .call_in(|| world(folder), |()| detach(&keep), |_| Ok(()))?;
        for claim in [
            it_comes_back(&outcome),
            standard(&outcome.after),
            others(&outcome.after, &keep),
        ] {
            let expected = format!("{what}: {}", claim.expected);
            findings.claim(Claim { expected, ..claim });
        }
    }
    Ok(())
}

/// The kernel itself refuses a session.
fn as_the_leader_of_a_group(findings: &Findings, folder: &Path) -> Result<()> {
    let expected = "a process that leads its group can't begin a session, and is told so: detach returns an error";
    findings.begin(expected);
    let lead = || -> Result<()> {
        world(folder)?;
        Ok(setpgid(Pid::from_raw(0), Pid::from_raw(0))?)
    };
    let outcome = findings
        .subject()
        .call_in(lead, |()| detach(&KEPT), |_| Ok(()))?;
    let why = outcome.is_ok().then(|| {
        "what setsid(2) answered wasn't looked at: it was EPERM, and the process is in the caller's session".into()
    });
    findings.claim(Claim::new(expected, outcome.in_words(), outcome.is_error()).because(why));
    Ok(())
}

fn each_call_fails(findings: &Findings, folder: &Path) -> Result<()> {
    let last = RefCell::new(None);
    findings.each_call_fails(
        "detach",
        CALLS,
        |subject| {
            let outcome = subject.call_in(|| world(folder), |()| detach(&KEPT), |_| Ok(()))?;
            *last.borrow_mut() = Some(outcome.after.clone());
            Ok(outcome)
        },
        || {
            let last = last.borrow();
            last.as_ref().is_some_and(|state: &State| {
                let claims = [session(state), standard(state), others(state, &KEPT)];
                let is_away = state.directories[0] == Path::new("/");
                is_away && claims.iter().all(|claim| claim.holds)
            })
        },
        |_| Vec::new(),
    )?;
    Ok(())
}

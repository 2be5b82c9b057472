//! 10.3: no directory of the host's is open any more when a directory of the container's is entered.

use probe::anyhow::{Context, Result};
use probe::libc::{self, c_long};
use probe::nix::errno::Errno;
use probe::nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use probe::nix::mount::{MsFlags, mount};
use probe::nix::sched::{CloneFlags, unshare};
use probe::nix::sys::stat::Mode;
use probe::nix::unistd::{chdir, chroot, pipe2};
use probe::{Claim, Descriptor, Findings, Outcome, State, high_number, place};
use std::cell::RefCell;
use std::fs::{self, File};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use step10_exec::close_behind;

/// The descriptors that lead to directories, most of them the host's. One of the container's own betrays whether it was
/// still open when the working directory was changed: nothing else forbids to go there.
const DOORS: [(RawFd, &str); 6] = [
    (3, "a directory with the lowest number"),
    (30, "a directory"),
    (31, "a directory with O_PATH"),
    (32, "a directory with close-on-exec"),
    (33, "a directory of the container's own"),
    (200, "a directory with a high number"),
];

/// Descriptors of other kinds.
const FILES: [RawFd; 4] = [40, 41, 42, 43];

/// What may not fail without anybody's knowing.
const CALLS: &[(c_long, &str, Errno)] = &[
    (libc::SYS_openat, "open(2)", Errno::EMFILE),
    (libc::SYS_chdir, "chdir(2)", Errno::EACCES),
    (libc::SYS_fchdir, "fchdir(2)", Errno::EACCES),
    (libc::SYS_getcwd, "getcwd(2)", Errno::EACCES),
    (libc::SYS_close_range, "close_range(2)", Errno::ENOSYS),
];

/// A root that isn't the host's, and a directory that isn't in it.
struct Place {
    root: PathBuf,
    outside: PathBuf,
}

impl Place {
    /// The mounts are seen by this process and its children alone, and go with them.
    fn new(scratch: &Path) -> Result<Place> {
        let (root, outside) = (scratch.join("root"), scratch.join("outside"));
        fs::create_dir(&root)?;
        fs::create_dir_all(outside.join("inner"))?;
        unshare(CloneFlags::CLONE_NEWNS)?;
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        mount(Some("root"), &root, Some("tmpfs"), MsFlags::empty(), none).context("a root")?;
        fs::create_dir(root.join("proc"))?;
        fs::create_dir_all(root.join("work"))?;
        let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some("/proc"), &root.join("proc"), none, bind, none).context("its /proc")?;
        Ok(Place { root, outside })
    }

    /// The caller is in the root, and has been careless: doors are open.
    fn enter(&self) -> Result<()> {
        let inner = self.outside.join("inner");
        let directory = File::open(&inner)?;
        let path = open(&inner, OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty())?;
        let file = File::create(self.outside.join("file"))?;
        let path_of_file = open(&self.outside.join("file"), OFlag::O_PATH, Mode::empty())?;
        let (reader, _writer) = pipe2(OFlag::O_CLOEXEC)?;
        // Its standard input is a directory: that isn't for this function to close.
        place(&directory, 0, 0)?;
        place(&directory, DOORS[1].0, 0)?;
        place(&path, DOORS[2].0, 0)?;
        place(&directory, DOORS[3].0, libc::O_CLOEXEC)?;
        place(&directory, DOORS[5].0, 0)?;
        place(&directory, high_number()?, 0)?;
        place(&file, FILES[0], 0)?;
        place(&file, FILES[1], libc::O_CLOEXEC)?;
        place(&reader, FILES[2], 0)?;
        place(&path_of_file, FILES[3], 0)?;
        place(&File::open(self.root.join("work"))?, DOORS[4].0, 0)?;
        let lowest = fcntl(&directory, FcntlArg::F_DUPFD(DOORS[1].0))?;
        drop((directory, path, file, path_of_file, reader));
        // SAFETY: nobody has this descriptor but this function.
        let directory = unsafe { OwnedFd::from_raw_fd(lowest) };
        place(&directory, DOORS[0].0, 0)?;
        chroot(&self.root)?;
        Ok(chdir("/")?)
    }

    fn call(&self, findings: &Findings, workdir: &str) -> Result<Outcome> {
        findings
            .subject()
            .call_in(|| self.enter(), |()| close_behind(workdir), |_| Ok(()))
    }
}

pub fn judge(findings: &Findings) -> Result<()> {
    findings.play_in(
        &Place::new(&findings.scratch)?,
        &[
            closes_doors,
            to_where_nothing_is,
            through_a_door,
            through_the_standard_input,
            each_call_fails,
        ],
    )
}

fn closes_doors(findings: &Findings, place: &Place) -> Result<()> {
    findings.begin("close_behind comes back with Ok");
    let outcome = place.call(findings, "/work")?;
    let expected = "close_behind comes back with Ok";
    findings.claim(Claim::new(expected, outcome.in_words(), outcome.is_ok()));
    if !outcome.is_ok() {
        return Ok(());
    }
    findings.claim(doors(&outcome.before, &outcome.after));
    findings.claim(others(&outcome));
    findings.claim(standard(&outcome));
    findings.claim(new(&outcome));
    findings.claim(workdir(place, &outcome.after));
    findings.caller_stays(&outcome, &["descriptors", "directory"]);
    Ok(())
}

/// That no directory is open above the standard descriptors.
fn doors(before: &State, state: &State) -> Claim {
    let is_door = |(number, found): &(&RawFd, &Descriptor)| **number > 2 && found.target.is_dir();
    let left: Vec<RawFd> = state
        .descriptors
        .iter()
        .filter(is_door)
        .map(|(number, _)| *number)
        .collect();
    let what = |number: &RawFd| {
        let known = DOORS.iter().find(|(known, _)| known == number);
        known.map_or("a directory with a high number", |(_, what)| what)
    };
    let words: Vec<String> = left
        .iter()
        .map(|number| format!("{number}, {}", what(number)))
        .collect();
    let on_exec = |number| {
        state
            .descriptors
            .get(number)
            .is_some_and(Descriptor::is_closed_on_exec)
    };
    let all_on_exec = left.iter().all(on_exec);
    let was_opened_so = |found: &Descriptor| found.flags & libc::O_DIRECTORY != 0;
    let has_one = |state: &State| state.descriptors.values().any(was_opened_so);
    let only_those_are_closed = has_one(before) && !has_one(state);
    let why = match left[..] {
        [3] => Some("the standard descriptors are 0, 1 and 2: the first above them is 3"),
        [31] => Some(
            "a directory that was opened with O_PATH can't be read, and is a door all the same: fstat(2) says of it, too, \
             that it is a directory",
        ),
        [_, ..] if only_those_are_closed => Some(
            "what was opened without O_DIRECTORY may be a directory, too: fstat(2) tells what a descriptor leads to, the flags \
             of its open don't",
        ),
        [_, ..] if all_on_exec => Some(
            "close-on-exec closes nothing yet: until execve the descriptor is a door, and workdir may lead through it",
        ),
        [first, ..] if first >= 200 => {
            Some("descriptors may have any number: /proc/self/fd tells which are open")
        }
        _ => None,
    };
    Claim::new(
        "every directory above the standard descriptors is closed",
        match words.is_empty() {
            true => "/proc/PID/fd: no directory above 2".into(),
            false => format!("/proc/PID/fd: open are {}", words.join("; ")),
        },
        left.is_empty(),
    )
    .because(why.map(String::from))
}

/// That what is no directory is as it was.
fn others(outcome: &Outcome) -> Claim {
    let get = |state: &State, number| state.descriptors.get(&number).cloned();
    let is_other =
        |number: &&RawFd| get(&outcome.before, **number) != get(&outcome.after, **number);
    let changed: Vec<String> = FILES
        .iter()
        .filter(is_other)
        .map(|number| match get(&outcome.after, *number) {
            None => format!("{number} is closed"),
            Some(_) => format!("{number} is another, or has other flags"),
        })
        .collect();
    let why = "more than directories was closed: among the other descriptors is the pipe by which this process says why its \
        command doesn't start, and the control groups that it is to join";
    let is_closed = changed.iter().any(|text| text.ends_with("closed"));
    Claim::new(
        "descriptors that lead to files and pipes stay as they are",
        match changed.is_empty() {
            true => "/proc/PID/fd: as before".into(),
            false => format!("/proc/PID/fd: {}", changed.join("; ")),
        },
        changed.is_empty(),
    )
    .because(is_closed.then(|| why.into()))
}

/// That the standard descriptors are as they were.
fn standard(outcome: &Outcome) -> Claim {
    let of = |state: &State| -> Vec<Option<Descriptor>> {
        (0..3)
            .map(|number| state.descriptors.get(&number).cloned())
            .collect()
    };
    let (was, is) = (of(&outcome.before), of(&outcome.after));
    let why = "only what is above the standard descriptors is to be closed: 0, 1 and 2 are what the command was given";
    let holds = was == is;
    let seen = match (holds, &is[0]) {
        (true, _) => "/proc/PID/fd/0, 1, 2: as before",
        (_, None) => "/proc/PID/fd/0: closed; it led to a directory",
        _ => "/proc/PID/fd/0, 1, 2: not as before",
    };
    let expected = "the standard descriptors stay, also one that leads to a directory";
    Claim::new(expected, seen, holds).because((!holds).then(|| why.into()))
}

/// That nothing new is open.
fn new(outcome: &Outcome) -> Claim {
    let new = outcome.before.left_open(&outcome.after);
    let seen = match new.is_empty() {
        true => "/proc/PID/fd: nothing new".into(),
        false => new.join("; "),
    };
    Claim::new(
        "nothing that close_behind opened stays open",
        seen,
        new.is_empty(),
    )
}

/// Where the caller stands.
fn workdir(place: &Place, state: &State) -> Claim {
    let cwd = &state.directories[0];
    let seen = cwd.strip_prefix(&place.root).map_or_else(
        |_| "/proc/PID/cwd: not in the root".into(),
        |inside| format!("/proc/PID/cwd: /{} in the root", inside.display()),
    );
    let expected = "the working directory is the one that was asked for, /work";
    Claim::new(expected, seen, *cwd == place.root.join("work"))
}

/// The container chooses a way through a door.
fn through_a_door(findings: &Findings, place: &Place) -> Result<()> {
    for (number, what) in DOORS {
        for workdir in [
            format!("/proc/self/fd/{number}"),
            format!("/proc/self/fd/{number}/.."),
        ] {
            let expected =
                format!("{workdir}, {what}, is no way out: close_behind returns an error");
            findings.begin(&expected);
            let outcome = place.call(findings, &workdir)?;
            let is_open = outcome.after.descriptors.contains_key(&number);
            let why = match outcome.is_ok() {
                true if is_open => Some(
                    "the door is open, and nobody looked whether it leads out of the container",
                ),
                true => Some(
                    "the working directory was changed while the door was open, and the door was closed afterwards: the doors \
                     have to be closed first",
                ),
                false => None,
            };
            findings.claim(refused(expected, place, &outcome).because(why.map(String::from)));
            if !outcome.is_error() {
                // All doors are one fault.
                return Ok(());
            }
        }
    }
    Ok(())
}

fn is_outside(place: &Place, outcome: &Outcome) -> bool {
    !outcome.after.directories[0].starts_with(&place.root)
}

/// A claim that there was an error.
fn refused(expected: String, place: &Place, outcome: &Outcome) -> Claim {
    let mut seen = outcome.in_words();
    if outcome.is_ok() && is_outside(place, outcome) {
        seen += ", and stands in a directory of the host's";
    }
    Claim::new(expected, seen, outcome.is_error())
}

/// A standard descriptor isn't closed, and may be a directory of the host's: only a look tells.
fn through_the_standard_input(findings: &Findings, place: &Place) -> Result<()> {
    let expected = "standard input is a directory of the host's, and /proc/self/fd/0 no way out: close_behind returns an error";
    findings.begin(expected);
    let outcome = place.call(findings, "/proc/self/fd/0")?;
    let why = outcome.is_ok().then(|| {
        "chdir(2) went well, and nobody looked where it led: getcwd(2) says whether the directory is below the root. \
         enter_workdir of step 4 does both"
            .into()
    });
    findings.claim(refused(expected.into(), place, &outcome).because(why));
    Ok(())
}

fn to_where_nothing_is(findings: &Findings, place: &Place) -> Result<()> {
    let expected = "for a directory that isn't there, close_behind returns an error";
    findings.begin(expected);
    let outcome = place.call(findings, "/missing")?;
    let why = outcome
        .is_ok()
        .then(|| "the error of changing the working directory is thrown away".into());
    findings.claim(refused(expected.into(), place, &outcome).because(why));
    Ok(())
}

fn each_call_fails(findings: &Findings, place: &Place) -> Result<()> {
    let last = RefCell::new(None);
    findings.each_call_fails(
        "close_behind",
        CALLS,
        |subject| {
            let outcome =
                subject.call_in(|| place.enter(), |()| close_behind("/work"), |_| Ok(()))?;
            *last.borrow_mut() = Some(outcome.after.clone());
            Ok(outcome)
        },
        || {
            let last = last.borrow();
            last.as_ref()
                .is_some_and(|state| doors(state, state).holds && workdir(place, state).holds)
        },
        |_| Vec::new(),
    )?;
    Ok(())
}

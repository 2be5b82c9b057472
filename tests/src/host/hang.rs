//! When a program hangs, and what it waits for.
//!
//! A slow machine isn't a hang. A program hangs when all threads of its processes sleep and none has run for
//! a while: their context switches, which the kernel counts, stand still. On a pretend host so must everybody
//! else's: a program may wait for one that isn't its child, and that one for the disk.

use crate::host::evidence::Process;
use crate::host::is_pretend;
use nix::unistd::gettid;
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::Duration;
use syscalls::Sysno;

/// What hasn't happened for so many times as long doesn't happen, on however busy a machine.
pub const TOO_LONG: u32 = 6;

/// How many times as long everything takes on a machine in software: $TEN_STEPS_PATIENCE.
pub fn patience() -> u32 {
    let times = std::env::var("TEN_STEPS_PATIENCE").ok();
    times.and_then(|times| times.parse().ok()).unwrap_or(1)
}

/// Between two looks.
pub const LOOK: Duration = Duration::from_millis(50);

/// So many looks in a row without a change are a hang.
const STILL: u32 = 30;

/// Who is busy at so many looks in a row, those not counted at which somebody waited for the disk, will not end by
/// itself: it looks again and again for what doesn't come. No program of the course takes half as long. A machine that
/// is busy itself looks less often, too.
const BUSY: u32 = 160;

/// On a pretend host, in clock ticks of a processor, of which a second has a hundred: more than any program of the
/// course needs in one go. Who has used that up goes in a circle.
const TURNS: u64 = 200;

/// More processes than any program of the course makes: a fork bomb.
pub const MANY: usize = 64;

/// What a process and those it may wait for do, from look to look.
pub struct Watch {
    program: Process,
    is_pretend: bool,
    last: Vec<String>,
    still: u32,
    busy: u32,
    /// The processor's time that each process of the program had used when it was first seen.
    used: HashMap<i32, u64>,
}

impl Watch {
    /// Begins to look at `program`.
    pub fn of(program: Process) -> Watch {
        Watch {
            program,
            is_pretend: is_pretend(),
            last: Vec::new(),
            still: 0,
            busy: 0,
            used: HashMap::new(),
        }
    }

    /// Looks once more, and says what the program waits for when it hangs.
    pub fn look(&mut self) -> Option<String> {
        let tree = self.program.tree();
        if tree.len() > MANY {
            return Some(format!("it makes processes on and on: more than {MANY}"));
        }
        let company = self.company(&tree);
        let now: Vec<String> = company.iter().flat_map(fingerprints).collect();
        let is_any = |state| now.iter().any(|print| print.starts_with(state));
        self.busy += u32::from(!is_any('D'));
        self.still = match !is_any('R') && !is_any('D') && now == self.last {
            true => self.still + 1,
            false => 0,
        };
        self.last = now;
        let patience = patience();
        // On a person's own host others are busy, too.
        let share = if self.is_pretend { 1 } else { TOO_LONG };
        let late = self.busy > BUSY * share * patience;
        let busiest = self.busiest(&tree);
        let ticks = busiest.as_ref().map_or(0, |(ticks, _)| *ticks);
        let circles = self.is_pretend && ticks > TURNS * u64::from(patience);
        if self.still < STILL * patience && !late && !circles {
            return None;
        }
        let asleep = tree
            .iter()
            .flat_map(fingerprints)
            .all(|print| print.starts_with('S'));
        if circles || late && !asleep {
            let name = busiest.map(|(_, name)| name).unwrap_or_default();
            return Some(format!(
                "it runs on and on, and doesn't come to an end: {name}"
            ));
        }
        // Who judges waits, too, and that is nobody's fault.
        let theirs = tree.iter().filter(|process| !is_a_probe(process));
        let each: Vec<_> = theirs.take(4).filter_map(waits).collect();
        Some(match each.is_empty() {
            true => "it hangs: nobody is left who could go on".into(),
            false => format!("it hangs: {}", each.join("; ")),
        })
    }

    /// Of the program's processes the one that has used a processor most since it was first seen: its time, in clock ticks,
    /// and its name.
    fn busiest(&mut self, tree: &[Process]) -> Option<(u64, String)> {
        let used = tree.iter().map(|process| {
            let now = processors_time(process).unwrap_or_default();
            let first = *self.used.entry(process.0.as_raw()).or_insert(now);
            (now - first.min(now), process)
        });
        let (ticks, process) = used.max_by_key(|(ticks, _)| *ticks)?;
        Some((ticks, process.status("Name").unwrap_or_default()))
    }

    /// Who has to stand still, too.
    fn company(&self, tree: &[Process]) -> Vec<Process> {
        let mut company = match self.is_pretend {
            true => Process::all(),
            false => tree.to_vec(),
        };
        // Who judges looks again and again by itself.
        company.retain(|process| !is_a_probe(process));
        company
    }
}

/// Whether the words `hang` say that a process called `name` waits, or goes in a circle.
pub fn is_stuck(hang: &str, name: &str) -> bool {
    // A process's name has 15 bytes: PR_SET_NAME(2const).
    let name: String = name.chars().take(15).collect();
    hang.contains(&format!("it hangs: {name} "))
        || hang.ends_with(&format!("come to an end: {name}"))
}

/// Whether the words `hang` say that somebody waits for the other end of a descriptor.
pub fn is_about_a_descriptor(hang: &str) -> bool {
    hang.contains(" descriptor ")
}

/// Whether a process is one that calls a learner's functions, and not one in which they run.
fn is_a_probe(process: &Process) -> bool {
    let executable = process.executable().unwrap_or_default();
    let name = executable.file_name().unwrap_or_default().to_string_lossy();
    let begins = |name: &str| {
        process
            .status("Name")
            .is_ok_and(|own| name.starts_with(&own))
    };
    name.ends_with("-probe") && begins(&name)
}

/// For how long a process has had a processor, in clock ticks: utime and stime of proc_pid_stat(5).
fn processors_time(process: &Process) -> Option<u64> {
    let stat = fs::read(process.file("stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

/// Of each thread its state and how often it has run. Who looks is left out, and whoever serves the program beside it isn't.
fn fingerprints(process: &Process) -> Vec<String> {
    let threads = fs::read_dir(process.file("task")).into_iter().flatten();
    let own = gettid().to_string();
    let others = threads
        .flatten()
        .filter(|thread| thread.file_name() != *own);
    let texts = others
        .map(|thread| thread.path().join("status"))
        .filter_map(|status| fs::read_to_string(status).ok());
    let print = |text: String| {
        let line = |key| {
            let mut lines = text.lines();
            let found = lines.find_map(|line: &str| line.strip_prefix(key)?.strip_prefix(':'));
            found.unwrap_or_default().trim().to_owned()
        };
        let (voluntary, forced) = (
            line("voluntary_ctxt_switches"),
            line("nonvoluntary_ctxt_switches"),
        );
        let (state, number) = (line("State"), line("Pid"));
        format!("{state} {number} {voluntary} {forced}")
    };
    texts.map(print).collect()
}

/// What `process` waits for: the system call that it is in, from proc_pid_syscall(5).
fn waits(process: &Process) -> Option<String> {
    let name = process.status("Name").ok()?;
    let call = fs::read_to_string(process.file("syscall")).ok()?;
    let mut words = call.split_whitespace();
    let number: i64 = words.next()?.parse().ok()?;
    let descriptor = words.next().and_then(|word| {
        let digits = word.strip_prefix("0x")?;
        i32::from_str_radix(digits, 16).ok()
    });
    let what = match number {
        // A zombie waits for its parent.
        ..0 => return None,
        libc::SYS_read => reads(process, descriptor?),
        libc::SYS_write => "writes, and nobody reads".into(),
        libc::SYS_openat => "opens a file, and waits for its other end".into(),
        libc::SYS_accept | libc::SYS_accept4 => "waits for a connection (accept)".into(),
        libc::SYS_wait4 | libc::SYS_waitid => "waits for a child to end".into(),
        libc::SYS_rt_sigtimedwait | libc::SYS_rt_sigsuspend => "waits for a signal".into(),
        libc::SYS_futex => "waits for another thread (futex)".into(),
        libc::SYS_nanosleep | libc::SYS_clock_nanosleep => "sleeps".into(),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_pause => "waits for a signal (pause)".into(),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_poll => "waits in poll".into(),
        libc::SYS_ppoll => "waits in ppoll".into(),
        number => format!("waits in {}(2)", name_of(number)),
    };
    Some(format!("{name} {what}"))
}

/// The name of a system call.
fn name_of(number: i64) -> String {
    let known = usize::try_from(number).ok().and_then(Sysno::new);
    known.map_or_else(
        || format!("system call {number}"),
        |call| call.name().into(),
    )
}

/// What a process reads that waits in read(2), and who could still write it.
fn reads(process: &Process, descriptor: i32) -> String {
    let link = process.file(&format!("fd/{descriptor}"));
    let file = fs::read_link(link).unwrap_or_default();
    let name = file.to_string_lossy();
    if name.contains("signalfd") {
        return "waits for a signal (signalfd)".into();
    }
    if !name.starts_with("pipe:") {
        return format!("reads descriptor {descriptor}, {name}");
    }
    let writers: Vec<_> = Process::all()
        .into_iter()
        .filter(|other| holds_writing_end(other, &file))
        .map(|other| match other == *process {
            true => "itself".to_owned(),
            false => other.status("Name").unwrap_or_default(),
        })
        .collect();
    // The check holds the writing end of standard input.
    match (descriptor, writers.as_slice()) {
        (0, _) => "reads its standard input".into(),
        (_, []) => format!("reads descriptor {descriptor}, a pipe"),
        (_, writers) => format!(
            "reads descriptor {descriptor}, a pipe whose writing end is still open in {}",
            writers.join(", ")
        ),
    }
}

/// Whether `process` has `pipe` open for writing: the flags in proc_pid_fdinfo(5).
fn holds_writing_end(process: &Process, pipe: &Path) -> bool {
    let entries = fs::read_dir(process.file("fd")).into_iter().flatten();
    entries.flatten().any(|entry| {
        let info = process.file("fdinfo").join(entry.file_name());
        let text = fs::read_to_string(info).unwrap_or_default();
        let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
        fs::read_link(entry.path()).is_ok_and(|link| link == pipe)
            && flags.is_some_and(|flags| flags & libc::O_ACCMODE != libc::O_RDONLY)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::{Signal, killpg};
    use nix::unistd::Pid;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    #[test]
    fn of_several_the_busy_one_is_named() {
        let mut shell = Command::new("sh")
            .args(["-c", "sleep 1000 & yes & wait"])
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(shell.id() as i32);
        let mut watch = Watch::of(Process(pid));
        let found = (0..1000).find_map(|_| {
            std::thread::sleep(LOOK);
            let tree = watch.program.tree();
            watch.busiest(&tree).filter(|(ticks, _)| *ticks > 10)
        });
        killpg(pid, Signal::SIGKILL).unwrap();
        shell.wait().unwrap();
        assert_eq!(found.map(|(_, name)| name).as_deref(), Some("yes"));
    }
}

//! The system calls of a program, by strace(1): what the *why* of a check is chosen by, and what
//! `cargo progress trace` lays side by side.

use crate::host::container::let_end;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The calls that make a container. `?` has strace pass over one that this machine doesn't have.
const CALLS: &str = "?unshare,?setns,?sethostname,?execve,?execveat,?fork,?vfork,?clone,?clone3,\
    ?mount,?umount2,?pivot_root,?chroot,?chdir,?fchdir,?mkdir,?open_tree,?move_mount,?mount_setattr,\
    ?pipe2,?pipe,?read,?write,?close,?close_range,?socket,?ioctl,?wait4,?waitid,?kill,?tgkill,\
    ?pidfd_send_signal,?signalfd4,?rt_sigprocmask,?prctl,?rmdir,?unlink,?unlinkat,?exit_group";

/// Those that take privileges away.
const PRIVILEGES: &str = "?setgroups,?setresgid,?setresuid,?capset,?seccomp";

/// Those by which a process outlives its caller, replaces a file, and ends another process.
const LIFE: &str = "?execveat,?dup2,?dup3,?rename,?renameat,?renameat2,?fsync,?pidfd_open,?poll,?ppoll,\
    ?recvmsg,?recvfrom";

/// One system call as it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Its name.
    pub name: String,
    /// Its arguments, as strace writes them; what differs between two runs is left out.
    pub arguments: String,
    /// What the kernel answered: `0`, `PID`, `-1 EPERM (Operation not permitted)`.
    pub result: String,
}

/// Those that make devices and terminals, and what tells which file a descriptor is.
const TERMINALS: &str = "?mknod,?mknodat,?umask,?setsid,?open,?openat,?openat2";

/// Those that write notes beside a file.
const NOTES: &str = "?setxattr";

/// The calls of one process, until it became another program.
pub type Calls = Vec<Call>;

/// The calls of a program and of the processes that it starts before it becomes its command: first
/// the program's own, then its child's, then that one's child's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace(pub Vec<Calls>);

impl Trace {
    /// Runs `program` with `arguments` below strace. One that doesn't end by itself is stopped.
    ///
    /// # Errors
    /// strace isn't installed, or may not trace.
    pub fn of<A: AsRef<OsStr>>(program: &Path, arguments: &[A]) -> Result<Trace> {
        let folder = tempfile::tempdir()?;
        let mut strace = Command::new("strace");
        strace
            .args(["-ff", "-qq", "-y", "-s", "120", "-e", "signal=none"])
            .arg("-e")
            .arg(format!(
                "trace={CALLS},{PRIVILEGES},{TERMINALS},{NOTES},{LIFE}"
            ))
            .arg("-o")
            .arg(folder.path().join("of"))
            .arg(program)
            .args(arguments)
            .env("RUST_BACKTRACE", "0")
            // The same few directories everywhere.
            .env("PATH", step01_uts::PATH);
        // Its output must not be a pipe: the calls on pipes are looked for.
        strace.stdin(Stdio::null()).stdout(Stdio::null());
        strace.stderr(Stdio::null());
        let tracer = strace
            .spawn()
            .context("strace\nhelp: install it: apt-get install strace")?;
        let_end(tracer)?;
        let mut files: Vec<(i32, PathBuf)> = fs::read_dir(folder.path())?
            .flatten()
            .filter_map(|entry| {
                let path = entry.path();
                Some((path.extension()?.to_str()?.parse().ok()?, path))
            })
            .collect();
        files.sort();
        if files.is_empty() {
            bail!(
                "strace could not trace {}\nhelp: a container may need \
                 --cap-add SYS_PTRACE",
                program.display()
            );
        }
        let mut processes = Vec::new();
        let mut own = 1;
        for (_, file) in files {
            // Whoever was started later was started by the command.
            if processes.len() == own {
                break;
            }
            let text = with_names(&String::from_utf8_lossy(&fs::read(file)?));
            let mut lines = text.lines();
            if processes.is_empty() {
                lines.next(); // How strace started it.
            }
            let calls = lines.filter_map(Call::parse);
            // The program itself may begin anew, as a copy of itself.
            let calls = match processes.is_empty() {
                true => without_its_first_life(until_exec(calls, &["execve"])),
                false => until_exec(calls, &["execve", "execveat"]),
            };
            let calls = without_others_descriptors(calls);
            own += calls.iter().filter(|call| call.makes_a_process()).count();
            processes.push(calls);
        }
        Ok(Trace(processes))
    }

    /// Leaves out what the program does while its command runs, but for the end: what is passed on comes in any order.
    pub fn leave_out_the_relay(&mut self) {
        let starts = |call: &Call| call.is("read", "<pipe>") && call.result == "0";
        let ends = |call: &Call| call.name == "wait4" && call.result == "PID";
        for calls in self.0.iter_mut().take(1) {
            if let Some(at) = calls.iter().position(starts) {
                let behind = calls.split_off(at + 1);
                let kept = behind
                    .into_iter()
                    .filter(|call| ends(call) || call.name == "exit_group");
                calls.extend(kept);
            }
        }
    }

    /// All calls of all processes.
    pub fn all(&self) -> impl Iterator<Item = &Call> {
        self.0.iter().flatten()
    }

    /// Whether there is a call `name` with `part` among its arguments.
    pub fn has(&self, name: &str, part: &str) -> bool {
        self.all().any(|call| call.is(name, part))
    }

    /// The calls of the process `which`: 0 is the program itself, 1 its first child.
    pub fn process(&self, which: usize) -> &[Call] {
        self.0.get(which).map_or(&[], Vec::as_slice)
    }
}

/// A device's number as people write it: `1:3` for `makedev(0x1, 0x3`, whose end was cut.
fn with_number(arguments: &str) -> String {
    let number = |text: &str| u32::from_str_radix(text.trim_start_matches("0x"), 16).ok();
    let device = arguments
        .split_once("makedev(")
        .and_then(|(before, numbers)| {
            let (major, minor) = numbers.split_once(", ")?;
            Some(format!("{before}{}:{}", number(major)?, number(minor)?))
        });
    device.unwrap_or_else(|| steady(arguments))
}

/// The lines of strace with the file's path where a mount has a descriptor's: `/dev` for `/proc/self/fd/7`.
fn with_names(text: &str) -> String {
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    let mut named = String::new();
    for line in text.lines() {
        let mut line_named = line.to_owned();
        let takes_names = ["mount(", "umount2(", "setxattr("];
        if takes_names.iter().any(|call| line.starts_with(call)) {
            for (number, path) in &names {
                for end in ["\"", "/"] {
                    let unnamed = format!("\"/proc/self/fd/{number}{end}");
                    line_named = line_named.replace(&unnamed, &format!("\"{path}{end}"));
                }
            }
        }
        named += &(line_named + "\n");
        if ["dup", "poll(", "ppoll(", "recv"]
            .iter()
            .any(|name| line.starts_with(name))
        {
            continue;
        }
        // `7</dev>` is what -y makes of a descriptor; the last one of a line is what came of the call.
        for (before, behind) in line.match_indices("</").map(|(at, _)| line.split_at(at)) {
            let number = before.rsplit(|c: char| !c.is_ascii_digit()).next();
            let path = behind[1..].split('>').next();
            if let (Some(number), Some(path)) = (number.filter(|it| !it.is_empty()), path) {
                names.insert(number, path);
            }
        }
    }
    named
}

/// The calls up to the one that made the process another program, with that one.
fn until_exec(calls: impl Iterator<Item = Call>, ends: &[&str]) -> Calls {
    let mut own = Vec::new();
    for call in calls {
        let became_another = ends.contains(&call.name.as_str()) && call.result == "0";
        own.push(call);
        if became_another {
            break;
        }
    }
    own
}

/// Takes away what the program did before it executed itself anew, from a file that can't be changed (`be_sealed` of
/// step 9, `before` of step 12): it begins once more.
fn without_its_first_life(mut calls: Calls) -> Calls {
    let is_anew = |call: &Call| call.name == "execveat" && call.worked();
    if let Some(at) = calls.iter().rposition(is_anew) {
        calls.drain(..=at);
    }
    calls
}

/// The calls without what becomes of descriptors, unless the process is to be a monitor, and without messages, unless
/// the process may have started one: only there they are the lesson.
fn without_others_descriptors(mut calls: Calls) -> Calls {
    if !calls.iter().any(|call| call.name == "execveat") {
        calls.retain(|call| !call.name.starts_with("dup") && !call.is_close_of_no_pipe());
    }
    // How often somebody looks at a clock while he waits is chance.
    let in_vain = |call: &Call| call.name.ends_with("poll") && call.result.contains("Timeout");
    calls.dedup_by(|later, first| in_vain(later) && in_vain(first));
    let forks = |call: &Call| matches!(call.name.as_str(), "fork" | "vfork" | "clone");
    if !calls.iter().any(forks) {
        calls.retain(|call| !call.name.starts_with("recv"));
    }
    calls
}

impl Call {
    /// A line such as `unshare(CLONE_NEWUTS) = 0`. Reads and writes that aren't a pipe's, a signalfd's or,
    /// if they write, a control group's are the libraries' own.
    fn parse(line: &str) -> Option<Call> {
        let (name, rest) = line.split_once('(')?;
        let (arguments, result) = match rest.rsplit_once(" = ") {
            Some((arguments, result)) => (arguments.trim_end(), result),
            // It hasn't come back.
            None => (rest, "?"),
        };
        let arguments = arguments
            .trim_end_matches(" <unfinished ...>")
            .trim_end_matches(')');
        // To hold signals back; the libraries let none through for a moment, and again.
        // (`~[…]` is all but a few.)
        let holds = arguments.starts_with("SIG_SETMASK, ~[") || arguments.contains("CHLD");
        if name == "rt_sigprocmask" && !holds {
            return None;
        }
        let is_ours = |arguments: &str| {
            let complains = name == "write" && arguments.starts_with("2<");
            let limits = name == "write" && arguments.contains("/cgroup");
            let records = name == "write" && arguments.contains("/config.");
            complains
                || limits
                || records
                || arguments.contains("<pipe:")
                || arguments.contains("signalfd")
        };
        // Of what is removed only groups matter: the libraries have files of their own.
        let removes = matches!(name, "rmdir" | "unlink" | "unlinkat");
        if removes && !arguments.contains("/cgroup") {
            return None;
        }
        if is_out_of_place(name, arguments) {
            return None;
        }
        let of_libraries = matches!(name, "read" | "write" | "ioctl");
        let of_terminals = ["TIOCSPTLCK", "TIOCGPTPEER", "TIOCSCTTY"];
        let is_ioctl =
            arguments.contains("SIOC") || of_terminals.iter().any(|one| arguments.contains(one));
        if of_libraries && !is_ours(arguments) && !is_ioctl {
            return None;
        }
        let writes_record = arguments.contains("/config.") && arguments.contains("O_WRONLY");
        let is_shown = arguments.contains("ptmx") || writes_record;
        if name.starts_with("open") && name != "open_tree" && !is_shown {
            return None;
        }
        let makes_pid = ["fork", "vfork", "clone", "clone3", "wait4", "waitid"].contains(&name);
        let arguments = match (name, arguments.split_once(", ")) {
            ("kill" | "tgkill", Some((_, rest))) => format!("PID, {rest}"),
            ("wait4", Some((pid, rest))) if !pid.starts_with('-') => {
                format!("PID, {}", steady(rest))
            }
            // Where there are zero bytes, there are numbers of processes.
            ("read" | "write", Some((file, rest))) if rest.contains("\\0\\0") => {
                steady(&format!("{file}, …"))
            }
            ("pidfd_open", Some((_, rest))) => format!("PID, {rest}"),
            ("pidfd_send_signal", Some((_, rest))) => format!("pidfd, {rest}"),
            ("poll" | "ppoll", _) => format!("pidfd, {}", patience(arguments)),
            ("recvmsg" | "recvfrom", _) => "socket".into(),
            ("dup2" | "dup3", Some((from, to))) => {
                format!("{from}, {}", to.split('<').next().unwrap_or(to))
            }
            ("execveat", _) => with_first_word(arguments),
            ("close", _) => without_pid(&steady(arguments)),
            ("write", Some((file, _))) if arguments.contains("/config.") => {
                format!("{}, …", steady(file))
            }
            ("signalfd4", _) => "…".into(),
            // The sets, without the version of the call.
            ("capset", _) => arguments
                .split_once("}, {")
                .map_or(arguments, |(_, sets)| sets.trim_end_matches('}'))
                .into(),
            ("open" | "openat", Some((_, rest))) if arguments.contains("/config.") => steady(rest),
            ("open" | "openat" | "mknod" | "mknodat", _) => {
                with_number(arguments.trim_start_matches("AT_FDCWD</>, "))
            }
            ("rt_sigprocmask", _) => "SIG_SETMASK, [… CHLD …]".into(),
            _ => steady(arguments),
        };
        let result = match result.parse::<i64>() {
            Ok(pid) if makes_pid && pid > 0 => "PID".into(),
            Ok(pid) if name == "setsid" && pid > 1 => "PID".into(),
            Ok(length) if name.starts_with("recv") && length > 0 => "a message".into(),
            _ if name.ends_with("poll") && !result.contains("Timeout") => {
                result.split(' ').next().unwrap_or(result).into()
            }
            Ok(length) if name == "write" && length > 0 && arguments.ends_with(", …") => {
                "all".into()
            }
            _ if name.starts_with("open") && arguments.contains("/config.") => {
                result.split('<').next().unwrap_or(result).into()
            }
            _ if name.starts_with("dup") || name == "mount_setattr" || name == "pidfd_open" => {
                result.split('<').next().unwrap_or(result).into()
            }
            _ => steady(result),
        };
        Some(Call {
            name: name.into(),
            arguments,
            result,
        })
    }

    /// Whether it makes or removes what all containers share: a folder `ten-steps`, or one in it that is no container's.
    fn is_shared(&self) -> bool {
        let path = self.arguments.split('"').nth(1).unwrap_or_default();
        let below = path.split_once("/ten-steps").map(|(_, below)| below);
        let below = below.filter(|below| below.is_empty() || below.starts_with('/'));
        let is_of_all = below.is_some_and(|below| !below.split('/').any(|part| part == "ID"));
        matches!(self.name.as_str(), "mkdir" | "rmdir") && is_of_all
    }

    /// Whether it closes something else than a pipe or a signalfd.
    fn is_close_of_no_pipe(&self) -> bool {
        let is_pipe = self.arguments.contains("<pipe") || self.arguments.contains("signalfd");
        self.name == "close" && !is_pipe
    }

    /// Whether it is a call `name` with `part` among its arguments.
    pub fn is(&self, name: &str, part: &str) -> bool {
        self.name == name && self.arguments.contains(part)
    }

    /// Whether the kernel did what was asked.
    pub fn worked(&self) -> bool {
        !self.result.starts_with('-')
    }

    /// Whether a process came of it.
    pub fn makes_a_process(&self) -> bool {
        matches!(self.name.as_str(), "fork" | "vfork" | "clone" | "clone3") && self.worked()
    }
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}({})", self.name, self.arguments)?;
        match self.result.as_str() {
            "0" => Ok(()),
            result => write!(f, " = {result}"),
        }
    }
}

/// Whether a call is a library's own: a file that gets its name or reaches the disk and is no container's record, a
/// wait for something else than a process, a descriptor that is copied and doesn't lead nowhere.
fn is_out_of_place(name: &str, arguments: &str) -> bool {
    match name {
        "rename" | "renameat" | "renameat2" | "fsync" => {
            !arguments.contains("/config.") && !arguments.contains("/containers/.new-")
        }
        "poll" | "ppoll" => !arguments.contains("pid") || arguments.contains("}, {"),
        "dup2" | "dup3" => !arguments.contains("</dev/null>"),
        _ => false,
    }
}

/// How long a poll(2) waits: what is left of some time differs from run to run.
fn patience(arguments: &str) -> &str {
    match arguments.rsplit(", ").next().unwrap_or_default() {
        known @ ("-1" | "0" | "NULL") => known,
        _ => "…",
    }
}

/// The arguments of an execveat(2), of the words only the first.
fn with_first_word(arguments: &str) -> String {
    let words = arguments
        .split_once(", [")
        .map_or(arguments, |(_, words)| words);
    let first = words.split(',').next().unwrap_or(words);
    format!("[{first}, …]")
}

/// `</proc/PID/fd>` for a process's own folder.
fn without_pid(arguments: &str) -> String {
    match arguments.split_once("</proc/") {
        Some((before, behind)) => {
            let behind = behind.trim_start_matches(|c: char| c.is_ascii_digit());
            format!("{before}</proc/PID{behind}")
        }
        None => arguments.into(),
    }
}

/// `text` without what differs from run to run: addresses, numbers of pipes, IDs of containers.
fn steady(text: &str) -> String {
    let text = without_ids(text);
    let mut steady = String::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find("0x").into_iter().chain(rest.find(":[")).min() {
        let (before, found) = rest.split_at(at);
        let (sign, digits) = found.split_at(2);
        steady += before;
        let end = digits
            .find(|c: char| !c.is_ascii_hexdigit())
            .unwrap_or(digits.len());
        match sign {
            "0x" => {
                steady.push('…');
                rest = &digits[end..];
                if let Some((_, behind)) =
                    rest.strip_prefix(" /* ").and_then(|c| c.split_once("*/"))
                {
                    rest = behind;
                }
            }
            // pipe:[4711], but not anon_inode:[signalfd].
            _ if end == 0 => {
                steady += sign;
                rest = digits;
            }
            _ => rest = digits[end..].strip_prefix(']').unwrap_or(&digits[end..]),
        }
    }
    steady + rest
}

/// `text` with `ID` where 64 hexadecimal digits stand: a container's name.
fn without_ids(text: &str) -> String {
    let parts = text.split_inclusive(|c: char| !c.is_ascii_hexdigit());
    parts
        .map(|part| match part.get(64..) {
            Some(rest) if rest.len() <= 1 && part[..64].bytes().all(|c| c.is_ascii_hexdigit()) => {
                format!("ID{rest}")
            }
            _ => part.to_owned(),
        })
        .collect()
}

/// The calls that a container's processes make for it alone. What all containers share is made by whoever comes first, and
/// removed by whoever goes last; and what others have left behind is removed before a container has a group of its own.
pub fn own(calls: &[Call]) -> Vec<&Call> {
    let has_group = calls.iter().position(|call| call.is("mkdir", "/cgroup"));
    let (before, behind) = calls.split_at(has_group.unwrap_or(0));
    let before = before.iter().filter(|call| call.name != "rmdir");
    before
        .chain(behind)
        .filter(|call| !call.is_shared())
        .collect()
}

/// The traces of two programs side by side, in lines of two columns; of each process the first line that
/// differs is marked, and not cut. Returns the lines and whether all are the same.
pub fn beside(theirs: &Trace, ours: &Trace, width: usize) -> (Vec<String>, bool) {
    let names = ["the program", "its child", "the child's child"];
    let mut lines = Vec::new();
    let mut all_same = true;
    let cut = |text: String, whole: bool| -> String {
        if whole || text.chars().count() <= width {
            return text;
        }
        text.chars().take(width - 1).chain(['…']).collect()
    };
    for process in 0..theirs.0.len().max(ours.0.len()) {
        lines.push(format!("{}:", names.get(process).unwrap_or(&"another")));
        let (left, right) = (own(theirs.process(process)), own(ours.process(process)));
        let mut marked = false;
        for row in 0..left.len().max(right.len()) {
            let first = left.get(row) != right.get(row) && !marked;
            let mark = if first { '>' } else { ' ' };
            marked |= first;
            all_same &= !first;
            let text = |call: Option<&&Call>| {
                cut(call.map_or(String::new(), |call| call.to_string()), first)
            };
            let (left, right) = (text(left.get(row)), text(right.get(row)));
            lines.push(format!("{mark} {left:<width$} | {right}").trim_end().into());
        }
    }
    (lines, all_same)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_strace_is_read() {
        let call = Call::parse("unshare(CLONE_NEWUTS)                   = 0").unwrap();
        assert_eq!(call.to_string(), "unshare(CLONE_NEWUTS)");
        let call = Call::parse(
            "execve(\"/bin/sh\", [\"sh\"], 0x7ffd7 /* 2 vars */) = -1 EACCES (Permission denied)",
        )
        .unwrap();
        let text = "execve(\"/bin/sh\", [\"sh\"], …) = -1 EACCES (Permission denied)";
        assert_eq!(call.to_string(), text);
        let call = Call::parse("read(3<pipe:[4711]>, <unfinished ...>").unwrap();
        assert_eq!(call.to_string(), "read(3<pipe>,) = ?");
        assert!(Call::parse("read(3</etc/passwd>, \"root\", 4) = 4").is_none());
        let id = "0123456789abcdef".repeat(4);
        let line = format!("write(5</sys/fs/cgroup/pids/ten-steps/{id}/pids.max>, \"20\", 2) = 2");
        let call = Call::parse(&line).unwrap();
        let text = "write(5</sys/fs/cgroup/pids/ten-steps/ID/pids.max>, \"20\", 2) = 2";
        assert_eq!(call.to_string(), text);
        assert!(Call::parse("rmdir(\"/tmp/x\") = 0").is_none());
        assert!(Call::parse("rmdir(\"/sys/fs/cgroup/x\") = 0").is_some());
        let call =
            Call::parse("wait4(17, [{WIFEXITED(s) && WEXITSTATUS(s) == 7}], WNOHANG, NULL) = 17");
        assert_eq!(call.unwrap().result, "PID");
    }

    #[test]
    fn who_comes_first_has_no_calls_of_its_own_more() {
        let id = "0123456789abcdef".repeat(4);
        let calls = |lines: &[&str]| -> Calls {
            let lines = lines.iter().map(|line| line.replace("MINE", &id));
            lines.map(|line| Call::parse(&line).unwrap()).collect()
        };
        let later = calls(&[
            "mkdir(\"/var/lib/ten-steps/running/MINE\", 0700) = 0",
            "mkdir(\"/sys/fs/cgroup/pids/ten-steps/MINE\", 0777) = 0",
            "rmdir(\"/sys/fs/cgroup/pids/ten-steps/MINE\") = 0",
        ]);
        let first = calls(&[
            "mkdir(\"/var/lib/ten-steps\", 0777) = 0",
            "mkdir(\"/var/lib/ten-steps/running\", 0700) = 0",
            "mkdir(\"/var/lib/ten-steps/running/MINE\", 0700) = 0",
            "rmdir(\"/sys/fs/cgroup/pids/ten-steps/MINE\") = 0",
            "mkdir(\"/sys/fs/cgroup/pids/ten-steps\", 0777) = 0",
            "mkdir(\"/sys/fs/cgroup/pids/ten-steps/MINE\", 0777) = 0",
            "rmdir(\"/sys/fs/cgroup/pids/ten-steps/MINE\") = 0",
            "rmdir(\"/sys/fs/cgroup/pids/ten-steps\") = 0",
        ]);
        assert_eq!(own(&first), later.iter().collect::<Vec<_>>());
        assert!(beside(&Trace(vec![first]), &Trace(vec![later]), 80).1);
    }

    #[test]
    fn a_device_has_its_number() {
        let line = "mknodat(AT_FDCWD</>, \"/dev/full\", S_IFCHR|0666, makedev(0x1, 0xa)) = 0";
        let call = Call::parse(line).unwrap();
        assert_eq!(
            call.to_string(),
            "mknodat(\"/dev/full\", S_IFCHR|0666, 1:10)"
        );
        assert!(
            Call::parse("openat(AT_FDCWD</>, \"/etc/passwd\", O_RDONLY) = 3</etc/passwd>")
                .is_none()
        );
        let open =
            Call::parse("openat(AT_FDCWD</>, \"/dev/ptmx\", O_RDWR) = 3</dev/ptmx>").unwrap();
        assert_eq!(open.arguments, "\"/dev/ptmx\", O_RDWR");
    }

    #[test]
    fn a_descriptor_is_named() {
        let text = "openat2(AT_FDCWD</>, \"/dev\", {…}, 24) = 7</dev>\n\
                    mount(\"tmpfs\", \"/proc/self/fd/7\", \"tmpfs\", 0, NULL) = 0\n\
                    mount(\"/proc/self/fd/7/hosts\", \"/proc/self/fd/71\", NULL, MS_BIND, NULL) = 0\n";
        let named = with_names(text);
        assert!(
            named.contains("mount(\"tmpfs\", \"/dev\", \"tmpfs\""),
            "{named}"
        );
        assert!(
            named.contains("mount(\"/dev/hosts\", \"/proc/self/fd/71\""),
            "{named}"
        );
    }

    #[test]
    fn the_first_difference_is_marked() {
        let call = |line: &str| Call::parse(line).unwrap();
        let ours = Trace(vec![vec![
            call("unshare(CLONE_NEWUTS) = 0"),
            call("sethostname(\"a\", 1) = 0"),
        ]]);
        let theirs = Trace(vec![vec![
            call("sethostname(\"a\", 1) = 0"),
            call("unshare(CLONE_NEWUTS) = 0"),
        ]]);
        let (lines, same) = beside(&theirs, &ours, 24);
        assert!(!same);
        let marked: Vec<_> = lines.iter().filter(|line| line.starts_with('>')).collect();
        assert_eq!(marked.len(), 1);
        assert!(beside(&ours, &ours, 24).1);
    }
}

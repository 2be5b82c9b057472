//! What somebody types first, on the default root.

use crate::stage::dock::{Dock, STEP};
use crate::stage::{skip, step};
use progress::checks::step05::AtTerminal;
use progress::host::container::eventually;
use progress::host::exit_code;
use pty_process::blocking::Command as PtyCommand;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Every one of them ends with 0 and has nothing to complain of.
const COMMANDS: &[&str] = &[
    "echo hi",
    "date",
    "whoami",
    "id",
    "hostname",
    "pwd",
    "env",
    "printenv HOME",
    "uname -a",
    "uptime",
    "cat /etc/os-release",
    "ls",
    "ls -la /",
    "ps",
    "ps aux",
    "top -bn1",
    "free -h",
    "vmstat",
    "df -h",
    "du -sh /etc",
    "mount",
    "find /etc -name passwd",
    "grep root /etc/passwd",
    "awk -F: {print$1} /etc/passwd",
    "sed -n 1p /etc/passwd",
    "sort /etc/group",
    "head -n 1 /etc/passwd",
    "tail -n 1 /etc/passwd",
    "wc -l /etc/passwd",
    "cut -d: -f1 /etc/passwd",
    "seq 3",
    "tar -C /etc -cf /tmp/etc.tar passwd group",
    "gzip -k /etc/passwd",
    "diff /etc/passwd /etc/passwd",
    "sha256sum /etc/passwd",
    "which ls",
    "stat /",
    "touch /tmp/new",
    "mkdir -p /tmp/a/b",
    "ln -s /tmp /tmp/link",
    "nproc",
    "lscpu",
    "ip addr",
    "ss -tln",
    "sleep 0",
    "less --version",
    "bash -c true",
];

/// The commands whose program this machine has; of the others it says so.
fn commands() -> Vec<Vec<&'static str>> {
    let all = COMMANDS
        .iter()
        .map(|line| line.split(' ').collect::<Vec<_>>());
    let (here, absent): (Vec<_>, Vec<_>) = all.partition(|words| is_here(words[0]));
    if !absent.is_empty() {
        skip(&format!("this machine has none of these: {absent:?}"));
    }
    here
}

fn is_here(program: &str) -> bool {
    ["/usr/bin", "/bin", "/usr/sbin", "/sbin"]
        .iter()
        .any(|folder| Path::new(folder).join(program).exists())
}

#[test]
fn what_people_type_first() {
    let dock = Dock::new();
    for words in commands() {
        dock.run(&[&["run", "--rm"], &words[..]].concat())
            .success()
            .stderr("");
    }
    assert_eq!(dock.ok(&["run", "--rm", "echo", "hi"]), "hi\n");
    assert_eq!(dock.ok(&["run", "--rm", "whoami"]), "root\n");
    assert_eq!(
        dock.ok(&["run", "--rm", "cat", "/etc/os-release"]),
        fs::read_to_string("/etc/os-release").unwrap_or_default()
    );
    let root = dock.state.join("roots/default");
    let mut known = BTreeSet::new();
    let size = size(&root, &mut known);
    assert!(size < 60 << 20, "{} MB", size >> 20);
}

/// What the files below `folder` take on the disk, those with several names once.
fn size(folder: &Path, known: &mut BTreeSet<u64>) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let found = entry.metadata().unwrap();
            match (found.is_dir(), known.insert(found.ino())) {
                (true, _) => size(&entry.path(), known),
                (false, true) => found.blocks() * 512,
                (false, false) => 0,
            }
        })
        .sum()
}

/// A shell at a terminal, whose prompt says in colours where one is; and the programs that take the whole screen.
#[test]
fn a_shell_that_says_where_one_is() {
    let dock = Dock::new();
    let command = PtyCommand::new(step(STEP))
        .args(["run", "-it", "--rm", "--hostname", "box"])
        .env("TEN_STEPS_STATE", &dock.state);
    let prompt = |folder: &str| format!("\x1b[1;32mroot@box\x1b[0m:\x1b[1;34m{folder}\x1b[0m# ");
    let mut shell = AtTerminal::start(command, &prompt("/")).unwrap();
    shell.pty.resize(pty_process::Size::new(24, 80)).unwrap();
    let mut types = |what: &str, until: &str| {
        shell.said.clear();
        shell.write(what).unwrap();
        let came = shell.read_until(until);
        came.unwrap_or_else(|error| panic!("{what:?}: {error}: {}", shell.said));
    };
    for words in commands() {
        // A command that fails shows its own number, and this is waited for in vain.
        let line = words.join(" ").replace("{print$1}", "'{print$1}'");
        types(&format!("{line}; echo =$?=\n"), "=0=\r\n");
    }
    types("cd /usr/bin\n", &prompt("/usr/bin"));
    for (program, shows, leave) in [
        ("less", "root:x:0:0", "q"),
        ("vi", "root:x:0:0", ":q\r"),
        ("top", "PID", "q"),
    ] {
        if !is_here(program) {
            skip(&format!("this machine has no {program}"));
            continue;
        }
        let file = if program == "top" { "" } else { "/etc/passwd" };
        types(&format!("{program} {file}\n"), shows);
        types(leave, &prompt("/usr/bin"));
        types("echo =$?=\n", "=0=\r\n");
    }
    // bash has a prompt of the same kind, and knows how long it is.
    types("cd /; exec bash\n", &prompt("/"));
    shell.write("exit 5\n").unwrap();
    let ended = eventually(|| shell.program.try_wait().unwrap());
    assert_eq!(exit_code(ended.expect("it doesn't end")), 5);
    dock.is_empty();
}

//! What a learner types beside `check`: hints, traces, differences, the board, the room, the attack.

use crate::attacks::tried;
use crate::course::exercises::cargo_progress;
use crate::course::place::{Place, bring_dependencies};
use crate::stage::redaction::redact_report;
use crate::stage::{Printed, have, nested, progress, run, step};
use assert_cmd::assert::OutputAssertExt;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use progress::chapters::CHAPTERS;
use progress::host::container::{Container, eventually};
use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

/// Runs `progress` with words, and what it printed.
fn say(folder: &Path, words: &[&str]) -> String {
    let ran = cargo_progress(folder, words);
    let code = ran.get_output().status.code().unwrap();
    format!(
        "$ cargo progress {}\n{}{}[exit code {code}]\n",
        words.join(" "),
        ran.printed(),
        ran.errors(),
    )
}

fn replace(folder: &Path, file: &str, from: &str, to: &str) {
    let file = folder.join(file);
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(&file, text.replace(from, to)).unwrap();
}

const LIB: &str = "step01-uts/src/lib.rs";

/// Hints get better, the trace marks what differs, and no answer is told unasked.
#[test]
fn a_learner_who_is_stuck() {
    if nested() || !have("strace", "strace") {
        return;
    }
    let place = Place::as_in_a_fresh_clone();
    let folder = place.path();
    let mut told = String::new();
    // There is no such folder yet.
    fs::remove_dir(&folder).unwrap();
    told += &say(&folder, &["hint", "1"]);
    told += &say(&folder, &["start", "1"]);
    bring_dependencies(&folder);
    let hole = "todo!(\"exercise 1.1 enter_uts\")";
    let wrong = "call!(sethostname(hostname))?;\n    call!(unshare(CloneFlags::CLONE_NEWUTS))?;\n    Ok(())";
    replace(&folder, LIB, hole, wrong);
    for _ in 0..4 {
        told += &say(&folder, &["hint", "1"]);
    }
    told += &say(&folder, &["trace", "1.1"]);
    // Nobody answers, so nothing is told.
    told += &say(&folder, &["diff", "1.1"]);
    told += &say(&folder, &["diff", "1.1", "--yes"]);
    told += &say(&folder, &["card", "--name", "ada l"]);
    told += &say(&folder, &["check", "1"]);
    told += &say(&folder, &["card", "--name", "ada l"]);
    told += &say(&folder, &[]);
    told += &say(&folder, &["solve", "1.1"]);
    told += &say(&folder, &["solve", "1.2"]);
    told += &say(&folder, &["trace", "1.1"]);
    told += &say(&folder, &["check", "1"]);
    told += &say(&folder, &[]);
    told += &say(&folder, &["diff", "1.1"]);
    assert_eq!(told.matches("+    call!(unshare").count(), 1, "{told}");
    insta::assert_snapshot!(redact_report(&told, &[(&folder, "EXERCISES")]));
}

/// Who begins in the middle goes on from there. And the second hint ends at the first difference, told in full: what
/// comes behind is the next exercise's.
#[test]
fn a_learner_who_begins_in_the_middle() {
    if nested() || !have("strace", "strace") {
        return;
    }
    let place = Place::new();
    let folder = place.path();
    say(&folder, &["start", "4"]);
    say(&folder, &["hint", "4.1"]);
    let trace = say(&folder, &["hint", "4.1"]);
    let mut differs = trace.lines().filter(|line| line.starts_with('>'));
    assert!(
        differs
            .next_back()
            .is_some_and(|line| line.contains("MS_BIND|MS_REC, NULL)")),
        "{trace}"
    );
    assert!(!trace.contains("pivot_root("), "{trace}");
    for id in ["4.1", "4.2", "4.3", "4.4"] {
        say(&folder, &["solve", id]);
    }
    let next = say(&folder, &[]);
    assert!(next.contains("next: cargo progress start 5\n"), "{next}");
    let done = say(&folder, &["hint", "4"]);
    assert!(done.contains("next: cargo progress start 5\n"), "{done}");
}

/// Cards of a room, as a chat has them.
#[test]
fn a_room() {
    let lines = "[09:01] ada: ten-steps ada 1:✓✓ 2:✓✗○○ 3:○○○ 4:○○○○\nhello\n\
        > ten-steps grace 1:◐✓ 2:○○○○ 3:○○○ 4:○○○○\n[09:30] ten-steps ada 1:✓✓ 2:✓✓✗○ 3:○○○ 4:○○○○\n";
    let mut room = assert_cmd::Command::new(progress());
    let room = room.arg("room").write_stdin(lines).assert().success();
    insta::assert_snapshot!(room.printed());
}

/// The three broken roots of 4.4 are the learner's: repaired by hand they hold.
#[test]
fn the_broken_roots_are_repaired_by_hand() {
    if nested() {
        return;
    }
    let place = Place::new();
    let folder = place.path();
    assert!(say(&folder, &["start", "4"]).contains("roots"), "no place");
    for id in ["4.1", "4.2", "4.3"] {
        say(&folder, &["solve", id]);
    }
    let before = say(&folder, &["check", "4"]);
    assert!(before.contains("○ 4.4 repair"), "{before}");
    let roots = folder.join("roots");
    fs::write(
        roots.join("c/usr/local/bin/greet"),
        "#!/bin/sh\necho hello\n",
    )
    .unwrap();
    let one = say(&folder, &["check", "4"]);
    assert!(
        one.contains("✗ 4.4 repair") && one.contains("why "),
        "{one}"
    );
    assert!(!one.contains("/bin/greet runs"), "{one}");
    run(Command::new("sh")
        .args([
            "-ec",
            "for root in a b; do tar -C whole -c . | tar -x -C $root; done",
        ])
        .current_dir(&roots));
    let all = say(&folder, &["check", "4"]);
    assert!(
        all.contains("✓ 4.4 repair") && all.contains("✓ it fails"),
        "{all}"
    );
    // Nobody agrees, so nothing is lost.
    assert!(say(&folder, &["reset", "4.4"]).contains("Nothing was changed"));
    // Begun again, they are broken again.
    let again = say(&folder, &["reset", "4.4", "--yes"]) + &say(&folder, &["check", "4"]);
    assert!(again.contains("○ 4.4 repair"), "{again}");
}

/// Each attack works with the step before, and fails with the chapter's own; the host is another.
#[test]
fn attacks_work_before_and_fail_after() {
    let host = nix::unistd::gethostname().unwrap();
    for chapter in ["1", "2", "3", "4", "5", "6", "7", "8"] {
        let attack = |words: &[&str]| cargo_progress(Path::new("/"), words).success();
        let _attack = tried("");
        attack(&["attack", chapter]).prints("It works");
        attack(&["attack", chapter, "--solution"]).prints("It fails");
    }
    assert_eq!(nix::unistd::gethostname().unwrap(), host);
}

/// Reads from the terminal until `text` has come; what came behind it is left in `seen`.
fn until(pty: &mut pty_process::blocking::Pty, seen: &mut String, text: &str) {
    let mut buffer = [0; 4096];
    while !seen.contains(text) {
        // The first check builds, and says nothing meanwhile.
        let mut ready = [PollFd::new(pty.as_fd(), PollFlags::POLLIN)];
        let some = poll(&mut ready, PollTimeout::try_from(10 * 60_000).unwrap()).unwrap();
        assert!(some > 0, "{text}: nothing more comes: {seen}");
        let read = pty.read(&mut buffer).unwrap();
        seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    let end = seen.find(text).map_or(0, |at| at + text.len());
    seen.drain(..end);
}

/// `watch` at a terminal: it checks, checks again after a save, and listens to its keys.
#[test]
fn a_watch() {
    if nested() {
        return;
    }
    let place = Place::new();
    let folder = place.path();
    say(&folder, &["start", "1"]);
    let (mut pty, terminal) = pty_process::blocking::open().unwrap();
    let command = pty_process::blocking::Command::new(progress())
        .args(["watch", "1"])
        .env("TEN_STEPS_EXERCISES", &folder);
    let mut watch = command.spawn(terminal).unwrap();
    let mut seen = String::new();
    until(&mut pty, &mut seen, "q: quit");
    replace(
        &folder,
        LIB,
        "todo!(\"exercise 1.1 enter_uts\")",
        "call!(sethostname(hostname))?;\n    Ok(())",
    );
    until(&mut pty, &mut seen, "unshare wasn't called");
    until(&mut pty, &mut seen, "q: quit");
    for (key, answer) in [("h", "hint 1 of 3"), ("l", "next: cargo progress check 1")] {
        pty.write_all(key.as_bytes()).unwrap();
        until(&mut pty, &mut seen, answer);
    }
    pty.write_all(b"q").unwrap();
    let ended = eventually(|| watch.try_wait().unwrap());
    assert!(ended.is_some_and(|status| status.success()));
}

/// A container laid beside the host, by a pid that anybody may type.
#[test]
fn an_xray() {
    let place = Place::new();
    let words = ["sh", "-c", "echo ready; read end"];
    let container = Container::start(step("step03-mount"), &words).unwrap();
    let pid = container.first_process().0.to_string();
    let said = say(&place.path(), &["xray", &pid]);
    for kind in ["uts", "pid", "mnt", "ipc", "net"] {
        let own = format!("  {kind:<7} own ");
        assert!(said.contains(&own), "{own}: {said}");
    }
    for shared in ["user", "cgroup"] {
        assert!(said.contains(&format!("  {shared:<7} host's ")), "{said}");
    }
    for part in [
        "> 1  (outermost",
        "proc       rw,nosuid,nodev,noexec",
        "all of the host's",
        "seccomp       none",
        "no_new_privs  not set",
        "  0   pipe:",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    container.finish().unwrap();
    let gone = say(&place.path(), &["xray", "999999999"]);
    assert!(
        gone.contains("there is no process") && gone.contains("help:"),
        "{gone}"
    );
    assert!(say(&place.path(), &["xray", "-1"]).contains("[exit code 125]"));
}

/// The doctor tries what it says, and names the remedy for what is lacking.
#[test]
fn a_doctor_in_a_poor_house() {
    let place = Place::new();
    let rich = say(&place.path(), &["doctor"]);
    assert!(
        rich.contains(&format!(
            "Chapters 1 to {} can be done here.\n[exit code 0]",
            CHAPTERS.len()
        )),
        "{rich}"
    );
    // Without capabilities, and then without a single UTS namespace.
    let poor = Command::new("setpriv")
        .args(["--bounding-set", "-sys_admin", "--inh-caps", "-all"])
        .arg(progress())
        .arg("doctor")
        .assert()
        .code(1);
    for words in [
        "✗ UTS namespaces can be made",
        "EPERM",
        "remedy: use the dev container",
        "✗ CAP_SYS_ADMIN",
    ] {
        poor.prints(words);
    }
    Command::new("unshare")
        .args([
            "--user",
            "--map-root-user",
            "sh",
            "-c",
            "echo 0 >/proc/sys/user/max_uts_namespaces; exec \"$0\" doctor",
        ])
        .arg(progress())
        .assert()
        .prints("✗ UTS namespaces can be made (limit 0): clone3(CLONE_NEWUTS): No space left on device (ENOSPC");
}

//! The checks hold for our solution, and can fail.

use crate::stage::{Printed, STEPS, folder, progress, run, step, write_program};
use assert_cmd::assert::OutputAssertExt;
use std::ops::RangeInclusive;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

fn check(chapter: usize, bin_dir: &Path) -> Command {
    let mut command = Command::new(progress());
    command
        .args(["check", &chapter.to_string(), "--solution", "--bin-dir"])
        .arg(bin_dir);
    command
}

/// A folder with the programs of the steps under their names.
fn programs() -> tempfile::TempDir {
    let folder = folder();
    for package in STEPS {
        symlink(step(package), folder.path().join(package)).unwrap();
    }
    folder
}

/// Brings the probes of our solutions to a program that is nobody's solution: they lie beside it.
fn bring_probes(folder: &Path) {
    let probes = step("step01-uts").with_file_name("examples");
    symlink(probes, folder.join("examples")).unwrap();
}

#[test]
fn our_solution_holds() {
    insta::assert_snapshot!("solution", said_of(1..=6));
}

/// In these a container has control groups.
#[test]
fn our_solution_holds_from_chapter_7_on() {
    insta::assert_snapshot!("solution_from_chapter_7_on", said_of(7..=10));
}

/// In these there are images from a registry, and a runtime, which are judged on this kernel alone.
#[test]
fn our_solution_holds_with_a_registry() {
    insta::assert_snapshot!("solution_from_chapter_11_on", said_of(11..=STEPS.len()));
}

fn said_of(chapters: RangeInclusive<usize>) -> String {
    let programs = programs();
    chapters
        .map(|chapter| run(&mut check(chapter, programs.path())))
        .collect()
}

#[test]
fn the_list_has_all_exercises() {
    insta::assert_snapshot!("list", run(Command::new(progress()).arg("list")));
}

/// Each chapter's checks see that the chapter before can't do it yet.
#[test]
fn a_program_of_the_chapter_before_does_not_hold() {
    for (chapter, pair) in STEPS.windows(2).enumerate() {
        let folder = folder();
        symlink(step(pair[0]), folder.path().join(pair[1])).unwrap();
        check(chapter + 2, folder.path())
            .assert()
            .code(1)
            .prints("✗");
    }
}

/// A program that runs the command and makes no container: it fails the first exercise of each
/// chapter.
#[test]
fn a_program_without_a_container_does_not_hold() {
    let folder = folder();
    let impostor = folder.path().join("impostor");
    let text = "#!/bin/sh\nwhile case ${1-} in --rootfs | --hostname | -e) shift ;; --*) ;; *) false ;; esac\n\
        do shift; done\n\"$@\"\n";
    write_program(&impostor, text);
    bring_probes(folder.path());
    for (chapter, package) in STEPS.into_iter().enumerate() {
        symlink(&impostor, folder.path().join(package)).unwrap();
        let first = format!("✗ {}.1", chapter + 1);
        check(chapter + 1, folder.path()).assert().prints(&first);
    }
}

/// A program that waits for one who isn't its child, and who is long at work, hangs no more than on a slow disk.
#[test]
fn who_waits_for_another_does_not_hang() {
    let folder = folder();
    let slow = r#"[ "$1" != stop ] || {
            mkfifo "$TEN_STEPS_STATE/fifo"
            setsid -f sh -c 'end=$(($(date +%s) + 4)); while [ "$(date +%s)" -lt $end ]; do :; done; echo >"$0"' \
                "$TEN_STEPS_STATE/fifo"
            read -r line <"$TEN_STEPS_STATE/fifo"
            rm "$TEN_STEPS_STATE/fifo"
        }"#;
    let text = format!(
        "#!/bin/sh\n{slow}\nexec {} \"$@\"\n",
        step("step09-detach").display()
    );
    write_program(&folder.path().join("step09-detach"), &text);
    bring_probes(folder.path());
    check(9, folder.path()).assert().prints("✓ 9.4 stop");
}

#[test]
fn a_chapter_that_is_not_there_is_named() {
    let ran = check(99, Path::new("/")).assert().code(125);
    ran.complains("no chapter 99")
        .complains("cargo progress list");
}

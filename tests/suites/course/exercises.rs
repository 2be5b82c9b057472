//! The exercises as a learner meets them: holes that fail, and bodies that pass, each by itself.

use super::place::Place;
use super::variants::{Body, Variants, Written};
use crate::stage::redaction::redact_report;
use crate::stage::{Printed, Root, nested, progress, run};
use assert_cmd::assert::{Assert, OutputAssertExt};
use progress::chapters::{CHAPTERS, chapter};
use progress::checks::examine_elsewhere;
use progress::course::regions::{body, names};
use progress::course::repairs::{KINDS, Repairs};
use progress::desk::exercises::{Author, Copy};
use progress::host::container::eventually;
use progress::host::evidence::{Photograph, Process};
use progress::programs::workspace;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Every starter compiles without a warning, and has no trace of our solution.
#[test]
fn starters_give_nothing_away() {
    if nested() {
        return;
    }
    let folder = Place::new();
    for chapter in CHAPTERS {
        let copy = Copy::of(chapter, &folder.path());
        copy.start().unwrap();
        let starter = fs::read_to_string(copy.source()).unwrap();
        let lesson = workspace()
            .join("steps")
            .join(chapter.package)
            .join("src/lib.rs");
        let solution = fs::read_to_string(lesson).unwrap();
        for name in names(&solution) {
            for line in body(&solution, name)
                .unwrap()
                .lines()
                .filter(|line| line.trim().len() > 20)
            {
                // A line that also stands elsewhere gives nothing away.
                let elsewhere = solution.matches(line).count() > 1;
                assert!(
                    elsewhere || !starter.contains(line),
                    "{name} gives away: {line}"
                );
            }
        }
        Command::new("cargo")
            .args(["build", "--quiet", "--manifest-path"])
            .arg(folder.path().join(chapter.package).join("Cargo.toml"))
            .arg("--target-dir")
            .arg(folder.path().join("target"))
            .assert()
            .success()
            .stderr("");
    }
}

#[test]
fn mistakes_of_chapter_1() {
    every_mistake_is_caught_by_the_check_that_names_it(1);
}

#[test]
fn mistakes_of_chapter_2() {
    every_mistake_is_caught_by_the_check_that_names_it(2);
}

#[test]
fn mistakes_of_chapter_3() {
    every_mistake_is_caught_by_the_check_that_names_it(3);
}

#[test]
fn mistakes_of_chapter_4() {
    every_mistake_is_caught_by_the_check_that_names_it(4);
}

#[test]
fn mistakes_of_chapter_5() {
    every_mistake_is_caught_by_the_check_that_names_it(5);
}

#[test]
fn mistakes_of_chapter_6() {
    every_mistake_is_caught_by_the_check_that_names_it(6);
}

#[test]
fn mistakes_of_chapter_7() {
    every_mistake_is_caught_by_the_check_that_names_it(7);
}

#[test]
fn mistakes_of_chapter_8() {
    every_mistake_is_caught_by_the_check_that_names_it(8);
}

#[test]
fn mistakes_of_chapter_9() {
    every_mistake_is_caught_by_the_check_that_names_it(9);
}

#[test]
fn mistakes_of_chapter_10() {
    every_mistake_is_caught_by_the_check_that_names_it(10);
}

#[test]
fn mistakes_of_chapter_11() {
    every_mistake_is_caught_by_the_check_that_names_it(11);
}

#[test]
fn mistakes_of_chapter_12() {
    every_mistake_is_caught_by_the_check_that_names_it(12);
}

/// All solved, all hold. With a hole and all others solved, the hole's own check fails. And bodies as people get them
/// wrong: each is caught by the check that names its exercise, and the learner reads what is wrong. In place of a body the
/// repair has a script, run in a broken root.
fn every_mistake_is_caught_by_the_check_that_names_it(number: usize) {
    if nested() {
        return;
    }
    let chapter = chapter(number).unwrap();
    let folder = Place::new();
    let each = || chapter.exercises.iter().enumerate();
    let mistakes = workspace().join("tests/mistakes").join(chapter.package);
    let mistakes = Written::all(&mistakes, chapter, |_| true);
    for (position, exercise) in each() {
        let about = mistakes
            .iter()
            .filter(|mistake| mistake.position == position);
        let about = about.count();
        // The last two chapters are about others' formats, and know those of some exercises.
        let is_to_come = !chapter.is_probed && about == 0;
        assert!(about >= 3 || is_to_come, "{}", exercise.name);
    }
    let (mut bodies, mut told) = (Vec::new(), String::new());
    for (position, exercise) in each().filter(|(_, exercise)| exercise.name != "repair") {
        let id = chapter.id(position);
        bodies.push(Body {
            exercise: exercise.name,
            name: format!("{}-hole", exercise.name),
            text: format!("todo!(\"exercise {id} {}\")", exercise.name),
        });
    }
    // In a broken root a script is run.
    let is_script = |mistake: &Written| mistake.file.extension().is_some_and(|kind| kind == "sh");
    let written = mistakes.iter().filter(|mistake| !is_script(mistake));
    bodies.extend(written.map(|mistake| mistake.body(chapter)));
    let mut variants = Variants::build(chapter, &folder, &bodies).unwrap();
    let mut examined = |name: &str, position: Option<usize>, broken: Option<&Path>| {
        let program = variants.program(name);
        examine_elsewhere(progress(), chapter, &program, position, broken).unwrap()
    };

    let solved = examined("solution", None, None);
    let failing = solved.iter().find(|report| !report.holds());
    assert_eq!(failing, None);
    for (position, exercise) in each().filter(|(_, exercise)| exercise.name != "repair") {
        let report = &examined(&format!("{}-hole", exercise.name), Some(position), None)[0];
        assert!(!report.holds(), "{} holds with a hole in it", exercise.name);
    }
    for mistake in &mistakes {
        let exercise = &chapter.exercises[mistake.position];
        let repairs = Copy::of(chapter, &folder.path()).repairs();
        let broken = is_script(mistake).then(|| wrongly_repaired(&repairs, &mistake.file));
        let name = mistake.name();
        let report = &examined(&name, Some(mistake.position), broken.as_deref())[0];
        assert!(!report.holds(), "{} isn't caught", mistake.file.display());
        let text = report.text(chapter, exercise);
        assert!(text.contains("      why "), "{name} isn't known: {text}");
        told += &format!("{} {name}: {}\n{text}", report.id, mistake.what);
    }
    let told = redact_report(&told, &[(&folder.path(), "EXERCISES")]);
    insta::assert_snapshot!(format!("mistakes_of_chapter_{}", chapter.number), told);
}

/// Broken roots, two of them repaired, and the one that the script `mistake` names in its name
/// repaired by it.
fn wrongly_repaired(repairs: &Repairs, mistake: &Path) -> PathBuf {
    repairs.make().unwrap();
    let name = mistake.file_stem().unwrap().to_string_lossy();
    let wrong = KINDS.iter().find(|kind| name.contains(*kind)).unwrap();
    for kind in KINDS.iter().filter(|kind| *kind != wrong) {
        repairs.mend(kind).unwrap();
    }
    run(Command::new("sh")
        .arg("-e")
        .arg(mistake)
        .env("WHOLE", repairs.folder().join("whole"))
        .current_dir(repairs.root(wrong)));
    repairs.folder().into()
}

/// Programs that hang, panic, run away, fill the host or rename it: the learner reads what they do,
/// the pretend host takes it, and this host stays as it is.
#[test]
fn a_pretend_host_takes_the_blow() {
    if nested() {
        return;
    }
    let folder = Place::new();
    let mut told = String::new();
    let before = Photograph::take().unwrap();
    let blows = [
        ("1", 1, "exec", "panic", "    panic!(\"what now?\")\n"),
        (
            "1",
            1,
            "exec",
            "hang",
            "    loop {\n        nix::unistd::pause();\n    }\n",
        ),
        (
            "1",
            0,
            "enter_uts",
            "runaway",
            "    call!(unshare(CloneFlags::CLONE_NEWUTS))?;\n    call!(sethostname(hostname))?;\n    \
             use std::os::unix::process::CommandExt;\n    \
             std::process::Command::new(\"sleep\").arg(\"1000\").process_group(0)\n        \
             .stdin(std::process::Stdio::null())\n        \
             .stdout(std::process::Stdio::null())\n        \
             .stderr(std::process::Stdio::null()).spawn()?;\n    Ok(())\n",
        ),
        (
            "1",
            0,
            "enter_uts",
            "fork bomb",
            "    loop {\n        // SAFETY: it is what it is.\n        unsafe { libc::fork() };\n    }\n",
        ),
        (
            "3",
            0,
            "make_private",
            "leak",
            "    let none = None::<&str>;\n    \
             call!(mount(Some(\"leak\"), \"/mnt\", Some(\"tmpfs\"), MsFlags::empty(), none))?;\n    \
             Ok(())\n",
        ),
    ];
    for (number, position, name, what, body) in blows {
        let chapter = chapter(number.parse().unwrap()).unwrap();
        let copy = Copy::of(chapter, &folder.path());
        let program = copy.build(|exercise| match exercise == name {
            true => Author::Other(body),
            false => Author::Solution,
        });
        let program = program.unwrap();
        let reports = examine_elsewhere(progress(), chapter, &program, Some(position), None);
        told += &format!("{what} in {name}\n");
        match reports {
            Ok(reports) => {
                assert!(!reports[0].holds(), "{what}");
                told += &reports[0].text(chapter, &chapter.exercises[position]);
            }
            // The host was beyond repair, and is gone.
            Err(error) => told += &format!("      {error:#}\n"),
        }
        let left = Process::all().into_iter().find(|process| {
            process
                .executable()
                .is_ok_and(|executable| executable == program)
        });
        assert_eq!(left, None, "{what}: a process is left");
    }
    // Other tests start and end processes, and mount in folders of their own, as long as they last.
    let others = |change: &String| {
        let elsewhere = change.contains(std::env::temp_dir().to_str().unwrap());
        change.starts_with("process") || (elsewhere && change.ends_with("is gone"))
    };
    let changes = || {
        let mut changes = before.changes(&Photograph::take().unwrap());
        changes.retain(|change| !others(change));
        changes
    };
    eventually(|| changes().is_empty().then_some(())).unwrap_or_else(|| panic!("{:?}", changes()));
    insta::assert_snapshot!(redact_report(&told, &[(&folder.path(), "EXERCISES")]));
}

pub fn cargo_progress(exercises: &Path, arguments: &[&str]) -> Assert {
    Command::new(progress())
        .args(arguments)
        .env("TEN_STEPS_EXERCISES", exercises)
        .stdin(Stdio::null())
        .assert()
}

/// Somebody does the first chapter: a wrong answer, a word that doesn't compile, the right one, a
/// look at ours.
#[test]
fn a_chapter_from_start_to_end() {
    let folder = Place::new();
    let mut told = String::new();
    let mut say = |arguments: &[&str]| {
        let ran = cargo_progress(&folder.path(), arguments);
        let code = ran.get_output().status.code().unwrap();
        told += &format!("$ cargo progress {}\n", arguments.join(" "));
        told += &ran.printed();
        told += &ran.errors();
        told += &format!("[exit code {code}]\n");
    };
    let file = folder.path().join("step01-uts/src/lib.rs");
    let write = |name: &str, body: &str| {
        let source = fs::read_to_string(&file).unwrap();
        fs::write(
            &file,
            progress::course::regions::with_body(&source, name, body).unwrap(),
        )
        .unwrap();
    };

    say(&[]);
    say(&["start", "1"]);
    say(&["check", "1"]);
    // The host's own name, instead of a namespace's.
    write(
        "enter_uts",
        "    call!(sethostname(hostname))?;\n    Ok(())\n",
    );
    say(&["check", "1"]);
    write(
        "enter_uts",
        "    call!(unshare(CloneFlags::CLONE_NEWUTZ))?;\n    Ok(())\n",
    );
    let broken = cargo_progress(&folder.path(), &["check", "1"]);
    broken
        .complains("doesn't compile")
        .complains("CLONE_NEWUTZ");
    // The compiler speaks of the learner's own file.
    assert!(!broken.errors().contains("step01-uts.build"), "{broken}");
    write(
        "enter_uts",
        "    call!(unshare(CloneFlags::CLONE_NEWUTS))?;\n    call!(sethostname(hostname))?;\n    Ok(())\n",
    );
    say(&["check", "1"]);
    say(&["solve", "1.2"]);
    say(&["check", "1"]);
    say(&["start", "1"]);
    say(&["reset", "1"]);
    say(&["reset", "1.2", "--yes"]);
    say(&["check", "1"]);
    say(&["reset", "1", "--yes"]);
    say(&["check", "1"]);
    say(&["check", "2"]);
    say(&["solve", "9.9"]);
    insta::assert_snapshot!(redact_report(&told, &[(&folder.path(), "EXERCISES")]));
    assert_eq!(chapter(1).unwrap().exercises.len(), 2);
}

/// `run` starts the learner's own program, and says so.
#[test]
fn their_own_program_runs() {
    let folder = Place::new();
    for arguments in [&["start", "1"][..], &["solve", "1.1"], &["solve", "1.2"]] {
        cargo_progress(&folder.path(), arguments).success();
    }
    let file = folder.path().join("step01-uts/src/main.rs");
    let theirs = fs::read_to_string(&file)
        .unwrap()
        .replace("\"container\"", "\"mine\"");
    fs::write(&file, theirs).unwrap();
    let said = run(Command::new(progress())
        .args(["run", "1", "--", "uname", "-n"])
        .env("TEN_STEPS_EXERCISES", folder.path()));
    assert_eq!(said.trim(), "mine");
}

/// `shell` has their program under its name, for several commands on one container. It ends with the shell, and nothing is
/// written down of it, nor has it an image of the machine's own containers in its hands.
#[test]
fn a_shell_with_their_own_program() {
    let folder = Place::new();
    cargo_progress(&folder.path(), &["start", "10"]).success();
    let (state, root) = (folder.state(), Root::shared());
    fs::create_dir_all(state.join("registry")).unwrap();
    let script = format!(
        "step10-exec run -d --name box --rootfs {root} sleep 1000 && step10-exec exec box sh -c 'exit 7'; echo $?; \
         step10-exec ps -q | wc -l; test -e {state}/registry || echo covered; exit 3",
        root = root.path().display(),
        state = state.display(),
    );
    let ran = Command::new(progress())
        .args(["shell", "10", "-c", &script])
        .env("TEN_STEPS_EXERCISES", folder.path())
        .env("TEN_STEPS_STATE", &state)
        .assert()
        .code(3);
    let printed = ran.printed();
    assert!(printed.ends_with("\n7\n1\ncovered\n"), "{ran}");
    let id = printed.lines().next().unwrap();
    assert_eq!(id.len(), 64, "{ran}");
    let left: Vec<_> = fs::read_dir(&state).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    let of_it = |process: &Process| {
        let words = fs::read(process.file("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&words).contains(id)
    };
    assert!(!Process::all().iter().any(of_it), "something of it runs");
    let groups = run(Command::new("find").args(["/sys/fs/cgroup", "-type", "d", "-name", id]));
    assert_eq!(groups, "", "its groups are left");
}

/// A chapter that has changed since somebody began it: the check names the way out, and what they wrote comes along.
#[test]
fn a_chapter_of_an_earlier_edition() {
    let folder = Place::new();
    let cargo_progress = |arguments: &[&str]| cargo_progress(&folder.path(), arguments);
    let copy = folder.path().join("step03-mount");
    let main = copy.join("src/main.rs");
    cargo_progress(&["start", "3"]).success();
    cargo_progress(&["solve", "3.1"]).success();
    let lesson = fs::read_to_string(copy.join("src/lib.rs")).unwrap();
    // What they change themselves is no other edition.
    let theirs = fs::read_to_string(&main).unwrap() + "// mine\n";
    fs::write(&main, &theirs).unwrap();
    let refused = cargo_progress(&["start", "3"]);
    refused.complains("is there already");
    // It took something from an earlier step that isn't there any more.
    fs::write(&main, theirs + "use step01_uts::something_old;\n").unwrap();
    let broken = cargo_progress(&["check", "3"]);
    broken.complains("something_old");
    assert!(!broken.errors().contains("has changed"), "{broken}");
    for says_which in [true, false] {
        match says_which {
            true => fs::write(copy.join(".edition"), "another").unwrap(),
            false => {
                fs::remove_file(copy.join(".edition")).unwrap();
                fs::write(&main, "use step01_uts::something_old;\n").unwrap();
            }
        }
        cargo_progress(&["check", "3"]).complains("`cargo progress start 3` carries over");
        cargo_progress(&["start", "3"])
            .success()
            .prints("has changed since you began it");
        assert_eq!(lesson, fs::read_to_string(copy.join("src/lib.rs")).unwrap());
        let checked = cargo_progress(&["check", "3"]);
        checked.prints("◐ 3.1").prints("○ 3.2");
    }
    for number in [1, 2] {
        let former = copy.with_extension(format!("before-{number}"));
        let kept = fs::read_to_string(former.join("src/main.rs")).unwrap();
        assert!(kept.contains("something_old"), "{kept}");
    }
}

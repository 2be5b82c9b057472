//! The exercises as a learner meets them: holes that fail, and bodies that pass, each by itself.

use crate::stage::{nested, progress, run};
use progress::checks::examine_elsewhere;
use progress::course::{CHAPTERS, chapter};
use progress::exercises::{Author, Copy};
use progress::programs::workspace;
use progress::regions::{body, names};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// A folder for exercises. Where they usually lie, the scripts are two folders further up.
struct Place(TempDir);

impl Place {
    fn new() -> Place {
        let folder = crate::stage::folder();
        symlink(
            workspace().join("rootfs-scripts"),
            folder.path().join("rootfs-scripts"),
        )
        .unwrap();
        fs::create_dir(folder.path().join("exercises")).unwrap();
        Place(folder)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("exercises")
    }
}

/// Every hole: it compiles without a warning, has no trace of our solution, and with all others
/// solved fails its own check and no other. All solved, all hold.
#[test]
fn every_exercise_fails_unsolved_and_passes_solved() {
    if nested() {
        return;
    }
    let folder = Place::new();
    for chapter in CHAPTERS {
        let copy = Copy::of(chapter, &folder.path());
        let examine = |program: &Path| examine_elsewhere(progress(), chapter, program).unwrap();
        let holds = |who: &dyn Fn(&str) -> Author<'static>| -> Vec<bool> {
            let reports = examine(&copy.build(who).unwrap());
            reports.iter().map(|report| report.holds()).collect()
        };
        let solved = holds(&|_| Author::Solution);
        assert!(
            solved.iter().all(|holds| *holds),
            "chapter {}: {solved:?}",
            chapter.number
        );

        for (position, exercise) in chapter.exercises.iter().enumerate() {
            // The repair has no code.
            if exercise.name == "repair" {
                continue;
            }
            let unsolved = holds(&|name| match name == exercise.name {
                true => Author::Nobody,
                false => Author::Solution,
            });
            assert!(
                !unsolved[position],
                "{} holds with a hole in it",
                exercise.name
            );
        }

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
        let built = Command::new("cargo")
            .args(["build", "--quiet", "--manifest-path"])
            .arg(folder.path().join(chapter.package).join("Cargo.toml"))
            .arg("--target-dir")
            .arg(folder.path().join("target"))
            .output()
            .unwrap();
        assert!(
            built.status.success() && built.stderr.is_empty(),
            "{built:?}"
        );
    }
}

/// Bodies as people get them wrong: each is caught by the check that names its exercise.
#[test]
fn every_mistake_is_caught_by_the_check_that_names_it() {
    if nested() {
        return;
    }
    let folder = Place::new();
    let mut told = String::new();
    for chapter in CHAPTERS {
        let copy = Copy::of(chapter, &folder.path());
        for (position, exercise) in chapter.exercises.iter().enumerate() {
            let directory = workspace().join("tests/mistakes").join(chapter.package);
            let mistakes = fs::read_dir(directory)
                .unwrap()
                .map(|entry| entry.unwrap().path());
            let is_about = |path: &PathBuf| {
                let name = path.file_stem().unwrap().to_string_lossy().into_owned();
                name.split_once('-')
                    .is_some_and(|(about, _)| about == exercise.name)
            };
            let mut mistakes: Vec<_> = mistakes.filter(is_about).collect();
            mistakes.sort();
            assert!(
                mistakes.len() >= 3 || exercise.name == "repair",
                "{}",
                exercise.name
            );
            for mistake in mistakes {
                let text = fs::read_to_string(&mistake).unwrap();
                let (what, body) = text.split_once('\n').unwrap();
                let program = copy.build(|name| match name == exercise.name {
                    true => Author::Other(body),
                    false => Author::Solution,
                });
                let reports = examine_elsewhere(progress(), chapter, &program.unwrap()).unwrap();
                let report = &reports[position];
                assert!(!report.holds(), "{} isn't caught", mistake.display());
                let name = mistake.file_stem().unwrap().to_string_lossy();
                told += &format!("{} {name}: {}\n", report.id, what.trim_start_matches("// "));
                for claim in report.claims.iter().filter(|claim| !claim.holds) {
                    told += &format!("    expected  {}\n", claim.expected);
                }
                if let Some(error) = &report.error {
                    // What is printed first; paths and numbers come later in the line.
                    let error = error.lines().next().unwrap_or_default();
                    told += &format!("    {}\n", error.split('/').next().unwrap_or(error));
                }
            }
        }
    }
    insta::assert_snapshot!(told);
}

fn cargo_progress(exercises: &Path, arguments: &[&str]) -> Output {
    Command::new(progress())
        .args(arguments)
        .env("TEN_STEPS_EXERCISES", exercises)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Somebody does the first chapter: a wrong answer, a word that doesn't compile, the right one, a
/// look at ours.
#[test]
fn a_chapter_from_start_to_end() {
    let folder = Place::new();
    let mut told = String::new();
    let mut say = |arguments: &[&str]| {
        let output = cargo_progress(&folder.path(), arguments);
        let code = output.status.code().unwrap();
        told += &format!("$ cargo progress {}\n", arguments.join(" "));
        told += &String::from_utf8_lossy(&output.stdout);
        told += &String::from_utf8_lossy(&output.stderr);
        told += &format!("[exit code {code}]\n");
    };
    let file = folder.path().join("step01-uts/src/lib.rs");
    let write = |name: &str, body: &str| {
        let source = fs::read_to_string(&file).unwrap();
        fs::write(
            &file,
            progress::regions::with_body(&source, name, body).unwrap(),
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
    let said = String::from_utf8_lossy(&broken.stderr);
    assert!(
        said.contains("doesn't compile") && said.contains("CLONE_NEWUTZ"),
        "{said}"
    );
    // The compiler speaks of the learner's own file.
    assert!(!said.contains("step01-uts.build"), "{said}");
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
    let told = told.replace(folder.path().to_str().unwrap(), "EXERCISES");
    let lines = told
        .lines()
        .map(|line| match line.trim_start().starts_with("seen") {
            // The numbers of namespaces are the kernel's affair.
            true => line.split_once("uts:[").map_or(line, |(before, _)| before),
            false => line,
        });
    insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"));
    assert_eq!(chapter(1).unwrap().exercises.len(), 2);
}

/// `run` starts the learner's own program, and says so.
#[test]
fn their_own_program_runs() {
    let folder = Place::new();
    for arguments in [&["start", "1"][..], &["solve", "1.1"], &["solve", "1.2"]] {
        assert!(cargo_progress(&folder.path(), arguments).status.success());
    }
    let file = folder.path().join("step01-uts/src/main.rs");
    let theirs = fs::read_to_string(&file)
        .unwrap()
        .replace("\"container\"", "\"mine\"");
    fs::write(&file, theirs).unwrap();
    let said = run(Command::new(progress())
        .args(["run", "1", "uname", "-n"])
        .env("TEN_STEPS_EXERCISES", folder.path()));
    assert_eq!(said.trim(), "mine");
}

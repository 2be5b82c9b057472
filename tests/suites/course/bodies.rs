//! Bodies that nobody here has seen, tried on the checks: how many of the wrong ones are refused, and whether all right
//! ones are accepted. A person runs it: [CONTRIBUTING](../../../.github/CONTRIBUTING.md) says how.

use super::exercises::Place;
use crate::stage::progress;
use progress::chapters::CHAPTERS;
use progress::checks::examine_elsewhere;
use progress::course::Chapter;
use progress::desk::exercises::{Author, Copy};
use std::fs;
use std::path::{Path, PathBuf};

/// The folder with the bodies: in it `step07-cgroups/find-NAME.wrong.rs` and `find-NAME.right.rs`, each with a comment in
/// its first line. It may also be the folder of one chapter.
const BODIES: &str = "TEN_STEPS_BODIES";

#[test]
#[ignore = "a person has the bodies"]
fn bodies_of_others() {
    let bodies = PathBuf::from(std::env::var_os(BODIES).expect(BODIES));
    let place = Place::new();
    let (mut refused, mut wrong, mut accepted, mut right) = (0, 0, 0, 0);
    for chapter in CHAPTERS {
        for file in files(&bodies, chapter) {
            let Some((is_refused, text)) = verdict(chapter, &file, &place.path()) else {
                continue;
            };
            let is_wrong = file.to_string_lossy().ends_with(".wrong.rs");
            let word = match (is_wrong, is_refused) {
                (true, true) => "refused",
                (true, false) => "ACCEPTED, and it is wrong",
                (false, true) => "REFUSED, and it is right",
                (false, false) => "accepted",
            };
            let (name, body) = (
                file.file_name().unwrap(),
                fs::read_to_string(&file).unwrap(),
            );
            let first = body.lines().next().unwrap_or_default();
            println!("{word}: {} {}\n    {first}", chapter.number, name.display());
            if is_refused {
                print!("{text}");
            }
            refused += usize::from(is_wrong && is_refused);
            wrong += usize::from(is_wrong);
            accepted += usize::from(!is_wrong && !is_refused);
            right += usize::from(!is_wrong);
        }
    }
    println!(
        "{refused} of {wrong} wrong ones were refused, {accepted} of {right} right ones accepted"
    );
}

/// The bodies of a chapter.
fn files(bodies: &Path, chapter: &Chapter) -> Vec<PathBuf> {
    let folder = match bodies.ends_with(chapter.package) {
        true => bodies.to_owned(),
        false => bodies.join(chapter.package),
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries.map(|entry| entry.path());
    let is_body = |file: &PathBuf| {
        let name = file.to_string_lossy();
        name.ends_with(".wrong.rs") || name.ends_with(".right.rs")
    };
    let mut files: Vec<_> = files.filter(is_body).collect();
    files.sort();
    files
}

/// Whether a body is refused, and what its author reads; nothing when it can't be tried.
fn verdict(chapter: &'static Chapter, file: &Path, exercises: &Path) -> Option<(bool, String)> {
    let name = file.file_name().unwrap().to_string_lossy().into_owned();
    let about = name.split('-').next().unwrap_or_default();
    let is_it = |exercise: &progress::course::Exercise| exercise.name == about;
    let Some(position) = chapter.exercises.iter().position(is_it) else {
        println!("NO EXERCISE is called so: {name}");
        return None;
    };
    let text = fs::read_to_string(file).unwrap();
    let (_, body) = text.split_once('\n').unwrap();
    let author = |other: &str| match other == about {
        true => Author::Other(body),
        false => Author::Solution,
    };
    let program = match Copy::of(chapter, exercises).build(author) {
        Ok(program) => program,
        Err(error) => {
            println!("DOESN'T COMPILE: {name}\n{error:#}");
            return None;
        }
    };
    match examine_elsewhere(progress(), chapter, &program, Some(position), None) {
        Ok(reports) => {
            let report = &reports[0];
            let text = report.text(chapter, &chapter.exercises[position]);
            Some((!report.holds(), text))
        }
        Err(error) => Some((true, format!("      the pretend host: {error:#}\n"))),
    }
}

//! Bodies that nobody here has seen, tried on the checks: how many of the wrong ones are refused, and whether all right
//! ones are accepted. A person runs it: [CONTRIBUTING](../../../.github/CONTRIBUTING.md) says how.

use super::place::Place;
use super::variants::{Body, Variants};
use crate::stage::progress;
use progress::chapters::CHAPTERS;
use progress::checks::examine_elsewhere;
use progress::course::Chapter;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The folder with the bodies: in it `step07-cgroups/find-NAME.wrong.rs` and `find-NAME.right.rs`, each with a comment in
/// its first line. It may also be the folder of one chapter.
const BODIES: &str = "TEN_STEPS_BODIES";

/// A body by somebody else.
struct Others {
    file: PathBuf,
    /// Which of the chapter's exercises.
    position: usize,
    /// What it gets wrong, or what it does in another way: its first line.
    what: String,
    text: String,
}

#[test]
#[ignore = "a person has the bodies"]
fn bodies_of_others() {
    let folder = PathBuf::from(std::env::var_os(BODIES).expect(BODIES));
    let place = Place::new();
    let (mut refused, mut wrong, mut accepted, mut right) = (0, 0, 0, 0);
    for chapter in CHAPTERS {
        let mut bodies = bodies(&folder, chapter);
        if bodies.is_empty() {
            continue;
        }
        let all: Vec<Body> = bodies.iter().map(|others| others.body(chapter)).collect();
        // One that doesn't compile is to be named, and the others are tried.
        let does_compile = |body: &Others| {
            let alone = Variants::build(chapter, &place, &[body.body(chapter)]);
            if let Err(error) = &alone {
                println!("DOESN'T COMPILE: {}\n{error:#}", body.name());
            }
            alone.is_ok()
        };
        let mut variants = match Variants::build(chapter, &place, &all) {
            Ok(variants) => variants,
            Err(_) => {
                bodies.retain(does_compile);
                let rest: Vec<Body> = bodies.iter().map(|others| others.body(chapter)).collect();
                Variants::build(chapter, &place, &rest).unwrap()
            }
        };
        for body in &bodies {
            let program = variants.program(&body.name());
            let begun = Instant::now();
            let (is_refused, text) = verdict(chapter, body.position, &program);
            let seconds = begun.elapsed().as_secs_f32();
            let is_wrong = body.name().ends_with(".wrong");
            let word = match (is_wrong, is_refused) {
                (true, true) => "refused",
                (true, false) => "ACCEPTED, and it is wrong",
                (false, true) => "REFUSED, and it is right",
                (false, false) => "accepted",
            };
            println!(
                "{word}: {} {}, in {seconds:.1} s",
                chapter.number,
                body.name()
            );
            println!("    {}\n{text}", body.what);
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

impl Others {
    fn body(&self, chapter: &Chapter) -> Body {
        Body {
            exercise: chapter.exercises[self.position].name,
            name: self.name(),
            text: self.text.clone(),
        }
    }

    /// `find-first_mount.wrong`
    fn name(&self) -> String {
        self.file
            .file_stem()
            .unwrap()
            .to_string_lossy()
            .into_owned()
    }
}

/// The bodies of a chapter.
fn bodies(folder: &Path, chapter: &Chapter) -> Vec<Others> {
    let folder = match folder.ends_with(chapter.package) {
        true => folder.to_owned(),
        false => folder.join(chapter.package),
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let read = |file: PathBuf| {
        let name = file.file_name()?.to_string_lossy().into_owned();
        if !name.ends_with(".wrong.rs") && !name.ends_with(".right.rs") {
            return None;
        }
        let about = name.split('-').next()?;
        let mut exercises = chapter.exercises.iter();
        let Some(position) = exercises.position(|exercise| exercise.name == about) else {
            println!("NO EXERCISE is called so: {name}");
            return None;
        };
        let text = fs::read_to_string(&file).ok()?;
        let (what, text) = text.split_once('\n')?;
        Some(Others {
            file,
            position,
            what: what.into(),
            text: text.into(),
        })
    };
    let mut bodies: Vec<_> = entries.filter_map(|entry| read(entry.path())).collect();
    bodies.sort_by(|one, other| one.file.cmp(&other.file));
    bodies
}

/// Whether a body is refused, and what its author reads.
fn verdict(chapter: &Chapter, position: usize, program: &Path) -> (bool, String) {
    match examine_elsewhere(progress(), chapter, program, Some(position), None) {
        Ok(reports) => {
            let text = reports[0].text(chapter, &chapter.exercises[position]);
            (!reports[0].holds(), text)
        }
        Err(error) => (true, format!("      the pretend host: {error:#}\n")),
    }
}

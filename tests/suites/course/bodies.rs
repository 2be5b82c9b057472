//! Bodies that nobody here has seen, tried on the checks: how many of the wrong ones are refused, and whether all right
//! ones are accepted. A person runs it: [CONTRIBUTING](../../../.github/CONTRIBUTING.md) says how.

use super::place::Place;
use super::variants::{Body, Variants, Written};
use crate::stage::progress;
use progress::chapters::CHAPTERS;
use progress::checks::examine_elsewhere;
use progress::course::Chapter;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The folder with the bodies: in it `step07-cgroups/find-NAME.wrong.rs` and `find-NAME.right.rs`, each with a comment in
/// its first line. It may also be the folder of one chapter.
const BODIES: &str = "TEN_STEPS_BODIES";

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
        let all: Vec<Body> = bodies.iter().map(|body| body.body(chapter)).collect();
        // One that doesn't compile is to be named, and the others are tried.
        let does_compile = |body: &Written| {
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
                let rest: Vec<Body> = bodies.iter().map(|body| body.body(chapter)).collect();
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
            println!("    // {}\n{text}", body.what);
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
fn bodies(folder: &Path, chapter: &Chapter) -> Vec<Written> {
    let folder = match folder.ends_with(chapter.package) {
        true => folder.to_owned(),
        false => folder.join(chapter.package),
    };
    Written::all(&folder, chapter, |name| {
        name.ends_with(".wrong.rs") || name.ends_with(".right.rs")
    })
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

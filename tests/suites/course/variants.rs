//! Many bodies of the exercises in one program: to build one program a body takes longer than to check it.

use super::place::Place;
use crate::stage::write_program;
use anyhow::Result;
use progress::course::{Chapter, Exercise};
use progress::desk::exercises::{Author, Copy};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A body of an exercise.
pub struct Body {
    pub exercise: &'static str,
    /// Which one it is: it names no other body of the chapter.
    pub name: String,
    pub text: String,
}

/// A file with a body, and in its first line a word on it.
pub struct Written {
    pub file: PathBuf,
    /// Which of the chapter's exercises: the file's name begins with its name and `-`.
    pub position: usize,
    /// The first line, without what makes it a comment.
    pub what: String,
    pub text: String,
}

impl Written {
    /// Those files of `folder` whose name `is_one`, in the order of the exercises, and by name.
    pub fn all(folder: &Path, chapter: &Chapter, is_one: impl Fn(&str) -> bool) -> Vec<Written> {
        let entries = fs::read_dir(folder).into_iter().flatten();
        let files = entries.map(|entry| entry.unwrap().path());
        let is_one = |file: &PathBuf| is_one(&file.file_name().unwrap().to_string_lossy());
        let mut all: Vec<Written> = files
            .filter(is_one)
            .map(|file| Written::read(file, chapter))
            .collect();
        all.sort_by(|one, other| (one.position, &one.file).cmp(&(other.position, &other.file)));
        all
    }

    fn read(file: PathBuf, chapter: &Chapter) -> Written {
        let is_about = |exercise: &Exercise| {
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            name.split('-').next() == Some(exercise.name)
        };
        let position = chapter.exercises.iter().position(is_about);
        let position = position.unwrap_or_else(|| panic!("{}: no such exercise", file.display()));
        let text = fs::read_to_string(&file).unwrap();
        let (what, text) = text.split_once('\n').unwrap();
        Written {
            position,
            what: what.trim_start_matches(['/', '#', ' ']).into(),
            text: text.into(),
            file,
        }
    }

    /// `spawn-zombie_left`
    pub fn name(&self) -> String {
        let name = self.file.file_stem().unwrap();
        name.to_string_lossy().into_owned()
    }

    pub fn body(&self, chapter: &Chapter) -> Body {
        Body {
            exercise: chapter.exercises[self.position].name,
            name: self.name(),
            text: self.text.clone(),
        }
    }
}

/// A chapter's program, and the one that calls its functions one by one, with several bodies for each exercise.
///
/// Which body runs stands in the program itself, and a copy with another name there is another program. The environment
/// can't tell, which some checks empty; nor can the program's own name, which some steps change.
pub struct Variants {
    package: &'static str,
    folder: PathBuf,
    /// The names of the programs, what they are, and where in them it stands which body is chosen.
    programs: Vec<(String, Vec<u8>, Vec<usize>)>,
}

impl Variants {
    /// Builds them all. `place` is where exercises lie.
    ///
    /// # Errors
    /// One of them doesn't compile.
    pub fn build(chapter: &'static Chapter, place: &Place, bodies: &[Body]) -> Result<Variants> {
        let copy = Copy::of(chapter, &place.path());
        let mut arms: BTreeMap<&str, String> = BTreeMap::new();
        for body in bodies {
            let arm = format!("{:?} => {{\n{}\n}}\n", body.name, body.text);
            *arms.entry(body.exercise).or_default() += &arm;
        }
        let ours = chosen("");
        let (length, begin) = (ours.len(), BEGIN.len());
        for (name, arms) in &mut arms {
            let is_it = |exercise: &&Exercise| exercise.name == *name;
            let exercise = chapter.exercises.iter().find(is_it).unwrap();
            let solution = copy.ours(exercise)?;
            // What is read from there can't be known by the compiler.
            let choice = format!(
                "{{ static CHOSEN: [u8; {length}] = *b{ours:?}; \
                 std::str::from_utf8(&std::hint::black_box(&CHOSEN)[{begin}..]).unwrap_or_default().trim_end() }}"
            );
            *arms = format!("match {choice} {{\n{arms}\n_ => {{\n{solution}\n}}\n}}\n");
        }
        let program = copy.build(|name| match arms.get(name) {
            Some(arms) => Author::Other(arms),
            None => Author::Solution,
        })?;
        let folder = program.parent().unwrap().to_owned();
        let names = [
            chapter.package.to_owned(),
            format!("{}-probe", chapter.package),
        ];
        // A chapter without a probe has one program.
        let programs = names.into_iter().filter_map(|name| {
            let bytes = fs::read(folder.join(&name)).ok()?;
            let places = places(&bytes, ours.as_bytes());
            Some((name, bytes, places))
        });
        Ok(Variants {
            package: chapter.package,
            programs: programs.collect(),
            folder,
        })
    }

    /// The program with the body `name`, and all other bodies by us; by us all of them if nobody's body is called so. There
    /// is one such program at a time.
    pub fn program(&mut self, name: &str) -> PathBuf {
        let folder = self.folder.join("variant");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        let chosen = chosen(name);
        for (program, bytes, places) in &mut self.programs {
            assert!(!places.is_empty(), "{program} has no place for {name}");
            for at in places {
                bytes[*at..*at + chosen.len()].copy_from_slice(chosen.as_bytes());
            }
            write_program(&folder.join(program), bytes);
        }
        folder.join(self.package)
    }
}

/// What stands before the name of a body in a program.
const BEGIN: &str = "@the chosen body@";

/// How a program has the name of a body in it: all are as long.
fn chosen(name: &str) -> String {
    let text = format!("{BEGIN}{name:<100}");
    assert_eq!(text.len(), BEGIN.len() + 100, "{name} is too long");
    text
}

/// Where `part` begins in `bytes`.
fn places(bytes: &[u8], part: &[u8]) -> Vec<usize> {
    let mut places = Vec::new();
    let mut at = 0;
    while let Some(next) = bytes[at..].iter().position(|byte| *byte == part[0]) {
        at += next;
        if bytes[at..].starts_with(part) {
            places.push(at);
        }
        at += 1;
    }
    places
}

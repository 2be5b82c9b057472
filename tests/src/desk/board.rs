//! Where somebody is in the course: kept between runs, and as one line for a room.

use crate::chapters::CHAPTERS;
use crate::course::Chapter;
use crate::desk::exercises::{Copy, Standing, give_away};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What the last checks said, by exercise: `4.2`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Board {
    #[serde(skip)]
    file: PathBuf,
    exercises: BTreeMap<String, Entry>,
}

/// What the last check said of an exercise, and of which body.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    state: Standing,
    written: String,
    /// How many hints were asked for.
    #[serde(default)]
    hints: usize,
}

impl Board {
    /// The board in the folder `exercises`.
    ///
    /// # Errors
    /// Its file is there and can't be read.
    pub fn read(exercises: &Path) -> Result<Board> {
        let file = exercises.join("progress.json");
        let mut board: Board = match fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text).with_context(|| {
                format!(
                    "{}\nhelp: remove it; the next checks write it anew",
                    file.display()
                )
            })?,
            Err(_) => Board::default(),
        };
        board.file = file;
        Ok(board)
    }

    /// Writes the board down: aside, and then renamed, so that nobody reads half of it.
    pub fn write(&self) -> Result<()> {
        // A hint may be asked for before any chapter is started.
        if let Some(folder) = self.file.parent().filter(|folder| !folder.exists()) {
            fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
            give_away(folder)?;
        }
        let aside = self.file.with_extension("json.new");
        fs::write(&aside, serde_json::to_string_pretty(self)?)
            .and_then(|()| fs::rename(&aside, &self.file))
            .with_context(|| self.file.display().to_string())?;
        give_away(&self.file)
    }

    /// Notes what a check has said of an exercise.
    pub fn note(&mut self, id: &str, state: Standing, written: String) {
        let hints = self.exercises.get(id).map_or(0, |entry| entry.hints);
        let entry = Entry {
            state,
            written,
            hints,
        };
        self.exercises.insert(id.into(), entry);
    }

    /// Forgets an exercise, or all of a chapter: `4.2` or `4.`.
    pub fn forget(&mut self, id: &str) {
        let begins = |known: &str| match id.ends_with('.') {
            true => known.starts_with(id),
            false => known == id,
        };
        self.exercises.retain(|known, _| !begins(known));
    }

    /// The number of the next hint for an exercise: 1, 2, 3, and 3 from then on.
    pub fn next_hint(&mut self, id: &str) -> usize {
        let entry = self.exercises.entry(id.into()).or_insert(Entry {
            state: Standing::ToDo,
            written: String::new(),
            hints: 0,
        });
        entry.hints = (entry.hints + 1).min(3);
        entry.hints
    }

    /// How far the exercise at `position` of a chapter is, as far as that is known without a check:
    /// what was changed since the last one counts as to do.
    pub fn state(&self, chapter: &Chapter, position: usize, copy: &Copy) -> Standing {
        let Some(entry) = self.exercises.get(&chapter.id(position)) else {
            return Standing::ToDo;
        };
        match copy.written(&chapter.exercises[position]) {
            Ok(written) if written == entry.written => entry.state,
            _ => Standing::ToDo,
        }
    }

    /// The states of all exercises of a chapter.
    pub fn states(&self, chapter: &Chapter, copy: &Copy) -> Vec<Standing> {
        let positions = 0..chapter.exercises.len();
        positions
            .map(|position| self.state(chapter, position, copy))
            .collect()
    }
}

/// Who is how far: what `card` prints and `room` reads.
#[derive(Debug, PartialEq, Eq)]
pub struct Card {
    /// Whose it is.
    pub name: String,
    /// The states, by chapter.
    pub chapters: Vec<Vec<Standing>>,
}

const MARKS: [Standing; 4] = [
    Standing::ToDo,
    Standing::NotYet,
    Standing::Holds,
    Standing::Shown,
];

impl Card {
    /// The card as one line: `ten-steps ada 1:✓✓ 2:✓✗○○ 3:○○○ 4:○○○○`.
    pub fn line(&self) -> String {
        let mut line = format!("ten-steps {}", self.name);
        for (index, states) in self.chapters.iter().enumerate() {
            let marks: String = states.iter().map(|state| state.mark()).collect();
            line += &format!(" {}:{marks}", index + 1);
        }
        line
    }

    /// Finds a card in a line, whatever a chat has written around it.
    pub fn find(line: &str) -> Option<Card> {
        let (_, card) = line.split_once("ten-steps ")?;
        let mut words = card.split_whitespace();
        let name = words.next()?.to_owned();
        let mut chapters = Vec::new();
        for word in words {
            let Some((number, marks)) = word.split_once(':') else {
                break;
            };
            let of_mark = |mark| MARKS.into_iter().find(|state| state.mark() == mark);
            let states: Option<Vec<Standing>> = marks.chars().map(of_mark).collect();
            match (number.parse() == Ok(chapters.len() + 1), states) {
                (true, Some(states)) => chapters.push(states),
                _ => break,
            }
        }
        (!chapters.is_empty()).then_some(Card { name, chapters })
    }

    /// How many exercises are done, shown ones included.
    pub fn done(&self) -> usize {
        let states = self.chapters.iter().flatten();
        states.filter(|state| state.is_done()).count()
    }
}

/// Where the people of a room are, a line each for who is where, and one for each exercise. Of two
/// cards of one name the later one counts.
pub fn room(lines: &str) -> Vec<String> {
    let mut people: BTreeMap<String, Card> = BTreeMap::new();
    for card in lines.lines().filter_map(Card::find) {
        people.insert(card.name.clone(), card);
    }
    let mut told = Vec::new();
    let all: usize = CHAPTERS.iter().map(|chapter| chapter.exercises.len()).sum();
    let mut order: Vec<_> = people.values().collect();
    order.sort_by_key(|card| (card.done(), card.name.clone()));
    let width = order.iter().map(|card| card.name.chars().count()).max();
    let width = width.unwrap_or(0);
    for card in &order {
        let marks = card.line();
        let marks = marks.splitn(3, ' ').nth(2).unwrap_or_default();
        told.push(format!(
            "{:<width$}  {:>2}/{all}  {marks}",
            card.name,
            card.done()
        ));
    }
    for chapter in CHAPTERS {
        for (position, exercise) in chapter.exercises.iter().enumerate() {
            let states = order
                .iter()
                .filter_map(|card| card.chapters.get(chapter.number - 1)?.get(position));
            let states: Vec<_> = states.collect();
            let count = |wanted: Standing| states.iter().filter(|state| ***state == wanted).count();
            let (holds, not_yet, shown) = (
                count(Standing::Holds),
                count(Standing::NotYet),
                count(Standing::Shown),
            );
            if holds + not_yet + shown > 0 {
                told.push(format!(
                    "{} {:<14} {holds} ✓  {shown} ◐  {not_yet} ✗  of {}",
                    chapter.id(position),
                    exercise.name,
                    order.len()
                ));
            }
        }
    }
    if told.is_empty() {
        told.push("no card in these lines; a card is what `cargo progress card` prints".into());
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_found_in_a_line_of_chat() {
        let card = Card {
            name: "ada".into(),
            chapters: vec![
                vec![Standing::Holds, Standing::Shown],
                vec![Standing::NotYet, Standing::ToDo],
            ],
        };
        assert_eq!(card.line(), "ten-steps ada 1:✓◐ 2:✗○");
        let chat = format!("[12:01] <ada> {} yes!", card.line());
        assert_eq!(Card::find(&chat), Some(card));
        assert_eq!(Card::find("hello"), None);
    }

    #[test]
    fn the_later_card_counts() {
        let told = room("ten-steps a 1:○○\nten-steps b 1:✗○\nten-steps a 1:✓✓\n");
        assert!(
            told[0].starts_with("b  ") && told[1].starts_with("a  "),
            "{told:?}"
        );
        assert!(
            told[2].contains("1 ✓") && told[2].contains("of 2"),
            "{told:?}"
        );
    }
}

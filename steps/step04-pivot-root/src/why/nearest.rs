//! The name that the user may have meant.

use crate::root::Root;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use strsim::damerau_levenshtein;

/// A search for the name that is nearest to a mistyped one.
pub struct Nearest {
    name: String,
    /// The nearest so far: how far it is, and its path.
    found: Option<(usize, PathBuf)>,
    /// Directories that were read: more than one name in PATH may lead to the same.
    seen: HashSet<PathBuf>,
}

/// The most names that are read in one directory.
const MOST_NAMES: usize = 10_000;
/// A name that is longer than any command isn't mistyped.
const LONGEST_NAME: usize = 64;
/// In a shorter name every letter counts: only two letters that changed places are a slip.
const SHORT_NAME: usize = 3;

impl Nearest {
    /// A search for what is near `name`.
    pub fn to(name: &str) -> Nearest {
        Nearest {
            name: name.to_owned(),
            found: None,
            seen: HashSet::new(),
        }
    }

    /// Compares the names in `directory` of `root`.
    pub fn look_into(&mut self, root: &Root, directory: &Path) {
        let real = root.follow(Path::new("/"), directory).end;
        let Ok(real) = real.map(|found| found.path) else {
            return;
        };
        if self.name.len() > LONGEST_NAME || !self.seen.insert(real) {
            return;
        }
        let most = 1 + self.name.chars().count() / 4;
        let near = |known: &String| {
            let about_as_long = known.len().abs_diff(self.name.len()) <= most;
            let distance = about_as_long.then(|| damerau_levenshtein(&self.name, known))?;
            let slip = self.name.len() >= SHORT_NAME || sorted(&self.name) == sorted(known);
            (distance <= most && slip).then_some(distance)
        };
        let names = root.names(directory, MOST_NAMES).into_iter();
        let found = names
            .filter(|known| known != "." && known != "..")
            .filter_map(|known| Some((near(&known)?, directory.join(known))))
            .min();
        self.found = self.found.take().into_iter().chain(found).min();
    }

    /// The nearest name that is near enough, as a path.
    pub fn found(self) -> Option<PathBuf> {
        self.found.map(|(_, path)| path)
    }
}

fn sorted(name: &str) -> Vec<char> {
    let mut letters: Vec<_> = name.chars().collect();
    letters.sort_unstable();
    letters
}

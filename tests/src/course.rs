//! What a chapter of the course is made of: exercises, mistakes that are known, an attack.

pub mod attack;
pub mod regions;
pub mod repairs;
mod scratch;
pub mod workbench;

use crate::host::trace::Trace;
use attack::Attack;
use workbench::Check;

/// One chapter, which is one step.
pub struct Chapter {
    /// 1 for step01.
    pub number: usize,
    /// The package and program of its step.
    pub package: &'static str,
    /// What the program can do at its end.
    pub title: &'static str,
    /// Its page in the book's folder.
    pub page: &'static str,
    /// Whether that page is whole, with drawings, and not yet short: the commands alone.
    pub is_whole: bool,
    /// Whether its functions are also called one by one, by a program in `tests/probe/examples`.
    pub is_probed: bool,
    /// Its exercises in order; exercise 4.2 is the second of chapter 4.
    pub exercises: &'static [Exercise],
    /// What works before the chapter, and fails at its end.
    pub attack: Attack,
}

/// One exercise: the body of one function, or a repair.
pub struct Exercise {
    /// The function's name.
    pub name: &'static str,
    /// What there is to understand.
    pub heart: &'static str,
    /// What tells whether it is done.
    pub check: Check,
    /// Arguments to trace the program with, one run each; `{root}` is a root filesystem, and `{state}`
    /// a folder for what is kept.
    pub scenes: &'static [&'static [&'static str]],
    /// What people get wrong.
    pub mistakes: &'static [Mistake],
    /// Man pages.
    pub read: &'static str,
    /// A command that shows it.
    pub show: &'static str,
    /// The first hint, which asks, and the third, which all but says it. The second is the trace.
    pub hints: [&'static str; 2],
}

/// A known mistake.
pub struct Mistake {
    /// What is wrong.
    pub why: &'static str,
    /// Whether it shows in the traces of the exercise's scenes, in their order.
    pub shows: fn(&[Trace]) -> bool,
}

impl Chapter {
    /// The id of the exercise at `position`: 4.2 is at position 1 of chapter 4.
    pub fn id(&self, position: usize) -> String {
        format!("{}.{}", self.number, position + 1)
    }
}

impl Exercise {
    /// The anchor of its section in the chapter's page.
    pub fn section(&self) -> String {
        format!("exercise-{}", self.name)
    }
}

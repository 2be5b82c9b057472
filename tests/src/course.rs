//! The table of the course: chapters and their exercises.

use crate::attacks::{Attack, CAPS, CGROUP, DETACH, EXEC, MOUNT, OVERLAY, PID, ROOT, TTY, UTS};
use crate::checks::{
    Check, step01, step02, step03, step04, step05, step06, step07, step08, step09, step10,
};
use crate::trace::Trace;

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
    /// Arguments to trace the program with, one run each; `{root}` is a root filesystem.
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

/// As many chapters have their whole page in the book, with drawings, and mistakes that are known.
/// Those behind have all else: the step, the checks, the attack, and a page with the commands.
pub const WRITTEN: usize = 4;

/// All chapters, in order.
pub const CHAPTERS: &[Chapter] = &[
    Chapter {
        number: 1,
        package: "step01-uts",
        title: "a hostname of its own",
        page: "01-uts.md",
        exercises: step01::EXERCISES,
        attack: UTS,
    },
    Chapter {
        number: 2,
        package: "step02-pid",
        title: "a process tree of its own",
        page: "02-pid.md",
        exercises: step02::EXERCISES,
        attack: PID,
    },
    Chapter {
        number: 3,
        package: "step03-mount",
        title: "mounts and a network of its own",
        page: "03-mount.md",
        exercises: step03::EXERCISES,
        attack: MOUNT,
    },
    Chapter {
        number: 4,
        package: "step04-pivot-root",
        title: "a root filesystem of its own",
        page: "04-pivot-root.md",
        exercises: step04::EXERCISES,
        attack: ROOT,
    },
    Chapter {
        number: 5,
        package: "step05-tty",
        title: "a terminal of its own",
        page: "05-tty.md",
        exercises: step05::EXERCISES,
        attack: TTY,
    },
    Chapter {
        number: 6,
        package: "step06-caps",
        title: "few privileges",
        page: "06-caps.md",
        exercises: step06::EXERCISES,
        attack: CAPS,
    },
    Chapter {
        number: 7,
        package: "step07-cgroups",
        title: "limits",
        page: "07-cgroups.md",
        exercises: step07::EXERCISES,
        attack: CGROUP,
    },
    Chapter {
        number: 8,
        package: "step08-overlay",
        title: "layers and volumes",
        page: "08-overlay.md",
        exercises: step08::EXERCISES,
        attack: OVERLAY,
    },
    Chapter {
        number: 9,
        package: "step09-detach",
        title: "outliving the caller",
        page: "09-detach.md",
        exercises: step09::EXERCISES,
        attack: DETACH,
    },
    Chapter {
        number: 10,
        package: "step10-exec",
        title: "looking in from outside",
        page: "10-exec.md",
        exercises: step10::EXERCISES,
        attack: EXEC,
    },
];

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

/// The chapter `number`.
pub fn chapter(number: usize) -> Option<&'static Chapter> {
    CHAPTERS.iter().find(|chapter| chapter.number == number)
}

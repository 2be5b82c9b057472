//! The table of the course: chapters and their exercises.

use crate::attacks::{CAPS, CGROUP, DETACH, EXEC, MOUNT, OCI, OVERLAY, PID, PULL, ROOT, TTY, UTS};
use crate::checks::{
    step01, step02, step03, step04, step05, step06, step07, step08, step09, step10, step11, step12,
};
use crate::course::{Chapter, Exercise};
use anyhow::{Context, Result};

/// All chapters, in order.
pub const CHAPTERS: &[Chapter] = &[
    Chapter {
        number: 1,
        package: "step01-uts",
        title: "a hostname of its own",
        page: "01-uts.md",
        is_whole: true,
        is_probed: true,
        exercises: step01::EXERCISES,
        attack: UTS,
    },
    Chapter {
        number: 2,
        package: "step02-pid",
        title: "a process tree of its own",
        page: "02-pid.md",
        is_whole: true,
        is_probed: true,
        exercises: step02::EXERCISES,
        attack: PID,
    },
    Chapter {
        number: 3,
        package: "step03-mount",
        title: "mounts and a network of its own",
        page: "03-mount.md",
        is_whole: true,
        is_probed: true,
        exercises: step03::EXERCISES,
        attack: MOUNT,
    },
    Chapter {
        number: 4,
        package: "step04-pivot-root",
        title: "a root filesystem of its own",
        page: "04-pivot-root.md",
        is_whole: true,
        is_probed: true,
        exercises: step04::EXERCISES,
        attack: ROOT,
    },
    Chapter {
        number: 5,
        package: "step05-tty",
        title: "a terminal of its own",
        page: "05-tty.md",
        is_whole: true,
        is_probed: true,
        exercises: step05::EXERCISES,
        attack: TTY,
    },
    Chapter {
        number: 6,
        package: "step06-caps",
        title: "few privileges",
        page: "06-caps.md",
        is_whole: true,
        is_probed: true,
        exercises: step06::EXERCISES,
        attack: CAPS,
    },
    Chapter {
        number: 7,
        package: "step07-cgroups",
        title: "limits",
        page: "07-cgroups.md",
        is_whole: true,
        is_probed: true,
        exercises: step07::EXERCISES,
        attack: CGROUP,
    },
    Chapter {
        number: 8,
        package: "step08-overlay",
        title: "layers and volumes",
        page: "08-overlay.md",
        is_whole: true,
        is_probed: true,
        exercises: step08::EXERCISES,
        attack: OVERLAY,
    },
    Chapter {
        number: 9,
        package: "step09-detach",
        title: "outliving the caller",
        page: "09-detach.md",
        is_whole: true,
        is_probed: true,
        exercises: step09::EXERCISES,
        attack: DETACH,
    },
    Chapter {
        number: 10,
        package: "step10-exec",
        title: "looking in from outside",
        page: "10-exec.md",
        is_whole: true,
        is_probed: true,
        exercises: step10::EXERCISES,
        attack: EXEC,
    },
    Chapter {
        number: 11,
        package: "step11-pull",
        title: "images from a registry",
        page: "11-pull.md",
        is_whole: false,
        is_probed: false,
        exercises: step11::EXERCISES,
        attack: PULL,
    },
    Chapter {
        number: 12,
        package: "step12-oci",
        title: "a runtime for engines",
        page: "12-oci.md",
        is_whole: false,
        is_probed: false,
        exercises: step12::EXERCISES,
        attack: OCI,
    },
];

/// The chapters that have their whole page in the book.
pub fn whole() -> impl Iterator<Item = &'static Chapter> {
    CHAPTERS.iter().filter(|chapter| chapter.is_whole)
}

/// The chapter `number`.
pub fn chapter(number: usize) -> Option<&'static Chapter> {
    CHAPTERS.iter().find(|chapter| chapter.number == number)
}

/// The same.
///
/// # Errors
/// There is none of that number.
pub fn find(number: usize) -> Result<&'static Chapter> {
    chapter(number).with_context(|| {
        format!("there is no chapter {number}\nhelp: `cargo progress list` has them all")
    })
}

/// The exercise `id`, such as 4.2, with its chapter.
///
/// # Errors
/// There is none.
pub fn find_exercise(id: &str) -> Result<(&'static Chapter, &'static Exercise)> {
    let unknown = || format!("there is no exercise {id}\nhelp: `cargo progress list` has them all");
    let (number, position) = id.split_once('.').with_context(unknown)?;
    let chapter = number
        .parse()
        .ok()
        .and_then(chapter)
        .with_context(unknown)?;
    let position: usize = position.parse().ok().with_context(unknown)?;
    let exercise = position
        .checked_sub(1)
        .and_then(|index| chapter.exercises.get(index));
    Ok((chapter, exercise.with_context(unknown)?))
}

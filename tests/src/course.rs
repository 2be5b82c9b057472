//! The table of the course: chapters and their exercises.

use crate::checks::{Check, step01, step02, step03, step04};

/// One chapter, which is one step.
pub struct Chapter {
    /// 1 for step01.
    pub number: usize,
    /// The package and program of its step.
    pub package: &'static str,
    /// What the program can do at its end.
    pub title: &'static str,
    /// Its exercises in order; exercise 4.2 is the second of chapter 4.
    pub exercises: &'static [Exercise],
}

/// One exercise: the body of one function, or a repair.
pub struct Exercise {
    /// The function's name.
    pub name: &'static str,
    /// What there is to understand.
    pub heart: &'static str,
    /// What tells whether it is done.
    pub check: Check,
}

const fn exercise(name: &'static str, heart: &'static str, check: Check) -> Exercise {
    Exercise { name, heart, check }
}

/// All chapters, in order.
pub const CHAPTERS: &[Chapter] = &[
    Chapter {
        number: 1,
        package: "step01-uts",
        title: "a hostname of its own",
        exercises: &[
            exercise("enter_uts", "unshare acts on its caller", step01::enter_uts),
            exercise("exec", "exec returns only on failure", step01::exec),
        ],
    },
    Chapter {
        number: 2,
        package: "step02-pid",
        title: "a process tree of its own",
        exercises: &[
            exercise(
                "spawn",
                "creating a namespace isn't entering it",
                step02::spawn,
            ),
            exercise("reap", "a wait status holds two things", step02::reap),
            exercise("outcome", "close-on-exec is \"success\"", step02::outcome),
            exercise("init", "PID 1's duties", step02::init),
        ],
    },
    Chapter {
        number: 3,
        package: "step03-mount",
        title: "mounts and a network of its own",
        exercises: &[
            exercise("make_private", "propagation", step03::make_private),
            exercise(
                "mount_proc",
                "a procfs belongs to its mounter's PID namespace",
                step03::mount_proc,
            ),
            exercise(
                "loopback_up",
                "a new network is as good as empty",
                step03::loopback_up,
            ),
        ],
    },
    Chapter {
        number: 4,
        package: "step04-pivot-root",
        title: "a root filesystem of its own",
        exercises: &[
            exercise(
                "bind_self",
                "pivot swaps mounts, not folders",
                step04::bind_self,
            ),
            exercise("swap_roots", "two roots on one point", step04::swap_roots),
            exercise(
                "environment",
                "nothing inherited by accident",
                step04::environment,
            ),
            exercise("repair", "ENOENT is about another file", step04::repair),
        ],
    },
];

/// The chapter `number`.
pub fn chapter(number: usize) -> Option<&'static Chapter> {
    CHAPTERS.iter().find(|chapter| chapter.number == number)
}

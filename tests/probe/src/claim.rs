use serde::{Deserialize, Serialize};

/// Something that must be true, and what the kernel says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// What must be true.
    pub expected: String,
    /// The file that tells, and what it says.
    pub seen: String,
    /// Whether it is true.
    pub holds: bool,
    /// Why it isn't, where the evidence itself tells.
    #[serde(default)]
    pub why: Option<String>,
}

/// What is different in a caller, by words of [`crate::State::changes`], and why that is a fault.
const LEFT: &[(&str, &str)] = &[
    (
        "is left open",
        "what the function opens for itself is closed when it returns, on every way out",
    ),
    (
        "of the caller was closed",
        "a descriptor that the function didn't open is its caller's, who still needs it",
    ),
    (
        "a child is left behind",
        "a process that the function starts for itself is waited for before it returns, on every way out: until then it runs \
         on, or is a zombie",
    ),
    (
        "working directory",
        "the directory is the whole process's: who leaves it goes back, on every way out",
    ),
    (
        "umask",
        "the umask is the whole process's, and nobody asked for another",
    ),
    (
        "a mount is new",
        "what is mounted only to do the work is unmounted again, on every way out",
    ),
    (
        "a mount is gone",
        "a mount that the function didn't make is its caller's",
    ),
    (
        " namespace",
        "unshare and setns move their caller: a child that does it leaves the caller where it was",
    ),
    (
        "blocked signals",
        "the signals that a thread holds back are put back as they were, on every way out",
    ),
];

impl Claim {
    /// A claim that holds when `holds` does.
    pub fn new(expected: impl Into<String>, seen: impl Into<String>, holds: bool) -> Claim {
        Claim {
            expected: expected.into(),
            seen: seen.into(),
            holds,
            why: None,
        }
    }

    /// The same claim. If it doesn't hold, `why` is the one reason that there can be.
    pub fn why(self, why: &str) -> Claim {
        let why = (!self.holds).then(|| why.to_owned());
        self.because(why)
    }

    /// The same claim, with the reason for which it doesn't hold.
    pub fn because(self, why: Option<String>) -> Claim {
        Claim { why, ..self }
    }

    /// A claim that `function` has left its caller as it was. `changes` says what is otherwise.
    pub fn leaves_the_caller(function: &str, changes: &[String]) -> Claim {
        let is_all_about = |words: &str| changes.iter().all(|change| change.contains(words));
        let known = LEFT.iter().find(|(words, _)| is_all_about(words));
        let why = known.map_or("nobody asked for that", |(_, why)| why);
        let seen = match changes.is_empty() {
            true => "nothing else is different".into(),
            false => changes.join("; "),
        };
        let expected = format!("{function} leaves its caller as it was");
        let claim = Claim::new(expected, seen, changes.is_empty());
        claim.because((!changes.is_empty()).then(|| why.into()))
    }

    /// A claim that `seen`, which `source` says, is just `wanted`.
    pub fn equal<T: std::fmt::Debug + PartialEq>(
        expected: &str,
        source: &str,
        seen: &T,
        wanted: &T,
    ) -> Claim {
        Claim::new(
            format!("{expected}; {source}: {wanted:?}"),
            format!("{source}: {seen:?}"),
            seen == wanted,
        )
    }
}

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

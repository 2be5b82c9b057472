//! Names for containers, chosen by people or at random.

use std::fs::File;
use std::io::{self, Read};

/// Checks a name: letters, digits, `_`, `.` and `-`, two characters at least, the first one a letter or a digit. This
/// is Docker's rule, which also keeps slashes out.
pub fn valid(name: &str) -> Result<String, String> {
    const LONGEST: usize = 200;
    let may = |c: char| c.is_ascii_alphanumeric() || ['_', '.', '-'].contains(&c);
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    match begins && name.chars().all(may) && (2..=LONGEST).contains(&name.len()) {
        true => Ok(name.into()),
        false => Err(format!(
            "a name has 2 to {LONGEST} of the letters a to z and A to Z, digits, _, . and -, and begins with \
             a letter or a digit"
        )),
    }
}

const QUALITIES: [&str; 40] = [
    "amber", "bold", "brave", "brisk", "calm", "clear", "clever", "crisp", "eager", "early",
    "fair", "fleet", "fresh", "gentle", "glad", "golden", "grand", "green", "happy", "humble",
    "keen", "kind", "late", "light", "lively", "lucid", "merry", "mild", "neat", "noble", "plain",
    "proud", "quick", "quiet", "silver", "swift", "tidy", "warm", "wild", "wise",
];

const ANIMALS: [&str; 50] = [
    "badger", "beaver", "bison", "bittern", "crane", "cricket", "curlew", "dolphin", "dormouse",
    "eagle", "egret", "falcon", "ferret", "finch", "fox", "gannet", "gecko", "hare", "hedgehog",
    "heron", "ibex", "ibis", "jackdaw", "kestrel", "lapwing", "lark", "linnet", "lynx", "magpie",
    "marmot", "marten", "merlin", "moose", "newt", "osprey", "otter", "owl", "pelican", "plover",
    "puffin", "raven", "robin", "salmon", "seal", "shrew", "stoat", "swan", "tern", "vole", "wren",
];

/// A random name that most likely no container has; after some turns with a number behind.
pub fn random(turn: u32) -> io::Result<String> {
    let mut bytes = [0; 4];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let [a, b, c, d] = bytes.map(usize::from);
    let quality = QUALITIES[(a << 8 | b) % QUALITIES.len()];
    let animal = ANIMALS[(c << 8 | d) % ANIMALS.len()];
    Ok(match turn {
        0..4 => format!("{quality}-{animal}"),
        _ => format!("{quality}-{animal}-{}", a << 8 | d),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["web", "a1", "0.b_c-d"] {
            assert!(valid(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "a",
            "-web",
            ".web",
            "a/b",
            "a b",
            "ä1",
            "..",
            &"x".repeat(201),
        ] {
            assert!(valid(bad).is_err(), "{bad}");
        }
        assert!(valid(&random(0).unwrap()).is_ok() && valid(&random(9).unwrap()).is_ok());
    }
}

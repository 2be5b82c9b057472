//! Digests as text.

use crate::Digest;
use sha2::{Digest as _, Sha256};
use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

/// How a digest begins.
const SHA256: &str = "sha256:";

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest::finish(Sha256::new_with_prefix(bytes))
    }

    /// The digest of all that went into `hash`.
    pub fn finish(hash: Sha256) -> Digest {
        let digits = hash.finalize();
        let digits: String = digits.iter().map(|byte| format!("{byte:02x}")).collect();
        Digest(format!("{SHA256}{digits}"))
    }

    /// The whole of it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 64 digits.
    pub fn digits(&self) -> &str {
        &self.0[SHA256.len()..]
    }

    /// As many digits as people are shown.
    pub fn short(&self) -> &str {
        &self.digits()[..12]
    }

    /// The name of a file for this digest.
    pub fn file_name(&self) -> String {
        format!("sha256-{}", self.digits())
    }
}

impl Display for Digest {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Digest, String> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        match text.strip_prefix(SHA256) {
            Some(digits) if digits.len() == 64 && digits.bytes().all(is_digit) => {
                Ok(Digest(text.into()))
            }
            _ => Err(format!(
                "{text:?} is no digest: those begin with sha256: and have 64 digits, 0 to 9 and a to f"
            )),
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Digest, String> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0
    }
}

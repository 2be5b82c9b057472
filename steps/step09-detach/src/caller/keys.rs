//! The keys by which a caller leaves a container that runs on.

/// Bytes that a terminal sends for a sequence of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys(Vec<u8>);

impl Keys {
    /// Reads keys, with commas between them: `a`, or `ctrl-a`, or `ctrl-` and one of `@[\]^_`.
    pub fn parse(text: &str) -> Result<Keys, String> {
        let key = |text: &str| match (text.as_bytes(), text.strip_prefix("ctrl-")) {
            (&[byte], _) if byte.is_ascii() => Ok(byte),
            (_, Some(key)) => match *key.as_bytes() {
                [byte @ b'a'..=b'z'] => Ok(byte - b'a' + 1),
                [byte @ (b'@' | b'['..=b'_')] => Ok(byte - b'@'),
                _ => Err(format!("there is no key {text}")),
            },
            _ => Err(format!("{text:?} is no key: type a, or ctrl-a")),
        };
        text.split(',').map(key).collect::<Result<_, _>>().map(Keys)
    }
}

/// Finds the keys that detach in what is typed. Bytes that may be the beginning of these keys are held back.
pub(super) struct Watch {
    keys: Vec<u8>,
    seen: usize,
}

impl Watch {
    /// A watch that waits for `keys`.
    pub(super) fn for_keys(keys: &Keys) -> Watch {
        Watch {
            keys: keys.0.clone(),
            seen: 0,
        }
    }

    /// The bytes of `typed` that are for the container; and whether the keys were among them.
    pub(super) fn sift(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(typed.len());
        for byte in typed {
            if self.keys.get(self.seen) != Some(byte) {
                passed.extend_from_slice(&self.keys[..self.seen]);
                self.seen = 0;
            }
            if self.keys.get(self.seen) == Some(byte) {
                self.seen += 1;
                if self.seen == self.keys.len() {
                    return (passed, true);
                }
            } else {
                passed.push(*byte);
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_by_name() {
        assert_eq!(Keys::parse("ctrl-p,ctrl-q"), Ok(Keys(vec![16, 17])));
        assert_eq!(Keys::parse("a,ctrl-@,ctrl-_"), Ok(Keys(vec![b'a', 0, 31])));
        for wrong in ["", "ctrl-", "ctrl-1", "ab", "ctrl-p,"] {
            assert!(Keys::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn keys_are_found_wherever_they_are_split() {
        let mut watch = Watch {
            keys: vec![16, 17],
            seen: 0,
        };
        assert_eq!(watch.sift(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(watch.sift(b"c"), (b"\x10c".to_vec(), false));
        assert_eq!(watch.sift(b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(watch.sift(b"\x11"), (vec![], true));
    }
}

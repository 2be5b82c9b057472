//! # Step 11: images from a registry
//!
//! A registry is a web server with three kinds of answers: a list of what an image is made of (a *manifest*), the
//! image's configuration, and its layers, which are archives. Nothing of that is taken on trust. A registry asks who we
//! are, by a challenge that has to be understood ([`challenges`]). What it sends is known by its SHA-256 before it comes,
//! and counts only when the bytes have that digest ([`Verified`]). And each layer is an archive that a stranger made:
//! it is unpacked as in step 8 ([`step08_overlay::mark`]).
//!
//! How images are named, and how a registry is asked, is in [`registry`]. [`manifest`] says which image of several is
//! meant, and what it consists of. [`layer`] fetches and unpacks, [`store`] keeps, and [`commands`] has what people type.
//! An image may also come in an archive, which is a stranger's as well: [`archive`].

pub mod archive;
pub mod commands;
pub mod layer;
pub mod manifest;
pub mod registry;
pub mod store;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt::{self, Display, Formatter};
use std::io::{self, ErrorKind, Read};

// ANCHOR: Challenge
/// What a server wants from whoever asks: a *challenge* of its header WWW-Authenticate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// The way to prove who one is, in small letters: `basic` is a name and a password, `bearer` is a token.
    pub scheme: String,
    /// What there is to know for that, by names in small letters: where a token is to be had, and for what.
    pub parameters: Vec<(String, String)>,
}
// ANCHOR_END: Challenge

// ANCHOR: challenges
/// The challenges in `header`, the text of a WWW-Authenticate header, in their order.
///
/// A comma stands between two challenges, and also between two parameters of one challenge. So what comes behind it
/// decides: a word with `=` behind it, blanks or none between, is a parameter of the challenge before, and any other word
/// is the scheme of a new one. A value may be in quotes, with commas in it ([`value`] reads it). Schemes and the names of
/// parameters are the same in capital letters. What is no challenge at all is passed over: a header is a stranger's text.
/// See RFC 9110, section 11.6.1.
pub fn challenges(header: &str) -> Vec<Challenge> {
    // ANCHOR_END: challenges
    // ANCHOR: exercise_challenges
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=', '"']);
        let (word, behind) = rest.split_at(end.unwrap_or(rest.len()));
        let given = behind.trim_start_matches([' ', '\t']).strip_prefix('=');
        match (given, challenges.last_mut()) {
            _ if rest.is_empty() => return challenges,
            (Some(given), Some(challenge)) if !word.is_empty() => {
                let (value, behind) = value(given);
                challenge.parameters.push((word.to_lowercase(), value));
                rest = behind;
            }
            (None, _) if !word.is_empty() => {
                challenges.push(Challenge {
                    scheme: word.to_lowercase(),
                    parameters: Vec::new(),
                });
                rest = behind;
            }
            _ => rest = behind.get(1..).unwrap_or_default(),
        }
    }
    // ANCHOR_END: exercise_challenges
}

/// The value of a parameter at the beginning of `text`, without its quotes, and what comes behind it.
///
/// In quotes a backslash takes away the meaning of what follows it. See RFC 9110, section 5.6.4.
pub fn value(text: &str) -> (String, &str) {
    let text = text.trim_start_matches([' ', '\t']);
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, behind) = text.split_at(text.find([' ', '\t', ',']).unwrap_or(text.len()));
        return (value.into(), behind);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, plain)| plain)),
            plain => value.push(plain),
        }
    }
    (value, "")
}

impl Challenge {
    /// The value of the parameter `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

// ANCHOR: Digest
/// The SHA-256 of some bytes, `sha256:` and 64 hexadecimal digits. Nobody finds other bytes that have it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);
// ANCHOR_END: Digest

// ANCHOR: Verified
/// A stream that ends well only if its bytes are those of `digest`, and as many as `size` says where that is known.
#[derive(Debug)]
pub struct Verified<R> {
    /// Where the bytes come from.
    pub inner: R,
    /// What they have to be.
    pub digest: Digest,
    /// How many there have to be.
    pub size: Option<u64>,
    /// How many have come.
    pub seen: u64,
    /// The state of the hash, after what has come.
    pub hash: Sha256,
}
// ANCHOR_END: Verified

impl<R: Read> Read for Verified<R> {
    // ANCHOR: read
    /// Reads some bytes of the stream into `buffer`, and returns how many; 0: the stream has ended, and all of it is
    /// what it has to be.
    ///
    /// The bytes are used while they come, and nobody may keep what was made of them before this has returned 0. A
    /// `buffer` without room says nothing about the end: then 0 means nothing.
    ///
    /// # Errors
    /// [`mismatch`]: more bytes than the size, at once and not at the end, since a stream may never end; fewer; or
    /// others. An error of the source, as it is.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // ANCHOR_END: read
        // ANCHOR: exercise_read
        let read = self.inner.read(buffer)?;
        self.hash.update(&buffer[..read]);
        self.seen += read as u64;
        let size = self.size.unwrap_or(self.seen);
        if self.seen > size {
            return Err(mismatch("more bytes come than its size says"));
        }
        if read > 0 || buffer.is_empty() {
            return Ok(read);
        }
        if self.seen < size {
            return Err(mismatch("it ends before its size"));
        }
        match Digest::finish(self.hash.clone()) {
            digest if digest == self.digest => Ok(0),
            _ => Err(mismatch("its bytes are not those of its digest")),
        }
        // ANCHOR_END: exercise_read
    }
}

/// The error of a stream that isn't what it has to be.
pub fn mismatch(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, Mismatch(what.into()))
}

/// What is wrong with a stream.
#[derive(Debug)]
pub struct Mismatch(String);

impl Display for Mismatch {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Mismatch {}

impl<R> Verified<R> {
    /// The stream `inner`, which has to have this digest and this size.
    pub fn new(inner: R, digest: Digest, size: Option<u64>) -> Verified<R> {
        Verified {
            inner,
            digest,
            size,
            seen: 0,
            hash: Sha256::new(),
        }
    }
}

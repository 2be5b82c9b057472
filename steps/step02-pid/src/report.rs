//! How an error of one process gets to another: what goes through an
//! [`ErrorPipe`](crate::ErrorPipe).

use anyhow::{Error, anyhow};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Write;
use step01_uts::Refused;
use step01_uts::program::Ended;

/// The most bytes of one text in a message.
const LONGEST: usize = 4 * 1024;

/// The text, or the beginning and the end of one that is too long.
fn cut(text: &str) -> String {
    if text.len() <= LONGEST {
        return text.to_owned();
    }
    let [begin, end] = [
        &text.as_bytes()[..LONGEST / 2],
        &text.as_bytes()[text.len() - LONGEST / 2..],
    ];
    let [begin, end] = [begin, end].map(String::from_utf8_lossy);
    format!("{begin} … {end}")
}

/// An error on its way to another process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// The error's texts, the outermost first.
    chain: Vec<String>,
    /// The refused call at the root of the error, if there is one: from here the parent has errno.
    refused: Option<Refused>,
    /// The command's end, if the error is about one.
    #[serde(default)]
    ended: Option<Ended>,
}

impl Report {
    /// The report of all that `error` says.
    pub fn from(error: &Error) -> Report {
        Report {
            chain: error.chain().map(ToString::to_string).collect(),
            refused: error.downcast_ref().cloned(),
            ended: error.downcast_ref().cloned(),
        }
    }

    /// The same report, of a size that fits into a message: each text that is longer than anybody reads is cut.
    pub fn cut(self) -> Report {
        Report {
            chain: self.chain.iter().map(|text| cut(text)).collect(),
            refused: self.refused.map(|refused| refused.told(cut)),
            ended: self.ended.map(|ended| Ended {
                code: ended.code,
                text: cut(&ended.text),
            }),
        }
    }

    /// Whether this report says why a command came to `outcome`: both are about
    /// a refused call, or about the same exit code.
    pub fn explains(&self, outcome: &Result<u8, Report>) -> bool {
        match outcome {
            Ok(code) => self.ended.as_ref().is_some_and(|ended| ended.code == *code),
            Err(report) => report.refused.is_some() && self.refused.is_some(),
        }
    }

    /// Writes the report. When even that fails, nobody is left to be told.
    pub(crate) fn send(&self, mut writer: &File) {
        let _ = serde_json::to_vec(self).map(|text| writer.write_all(&text));
    }

    /// The error as it was in the process that reported it.
    pub fn into_error(mut self) -> Error {
        let root = self.chain.pop().unwrap_or_default();
        let root = match (self.refused, self.ended) {
            (Some(refused), _) => Error::new(refused),
            (None, Some(ended)) => Error::new(ended),
            (None, None) => anyhow!(root),
        };
        let outwards = self.chain.into_iter().rev();
        outwards.fold(root, |error, context| error.context(context))
    }
}

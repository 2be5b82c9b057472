//! An error of one process, told by another.

use anyhow::{Error, anyhow};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Write;
use step01_uts::Refused;
use step01_uts::program::Ended;

/// An error on its way to another process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// The error's texts, the outermost first.
    chain: Vec<String>,
    /// The call at the root of it, when there was one: from here the parent has errno.
    refused: Option<Refused>,
    /// How the command ended by itself, when that is what there is to tell.
    #[serde(default)]
    ended: Option<Ended>,
}

impl Report {
    /// All that `error` says.
    pub fn from(error: &Error) -> Report {
        Report {
            chain: error.chain().map(ToString::to_string).collect(),
            refused: error.downcast_ref().cloned(),
            ended: error.downcast_ref().cloned(),
        }
    }

    /// Writes the report. When even that fails, nobody is left to be told.
    pub(crate) fn send(&self, mut writer: &File) {
        let _ = serde_json::to_vec(self).map(|text| writer.write_all(&text));
    }

    /// The error as it was there.
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

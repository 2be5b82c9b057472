//! An error of one process, told by another: what goes through an [`ErrorPipe`], and the ways to use one that a chapter
//! later than the second takes.

use crate::signals::{self, Requests};
use crate::{Child, ErrorPipe};
use anyhow::{Error, Result, anyhow, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use step01_uts::Refused;
use step01_uts::program::Ended;

/// As much of one text goes into a message.
const LONGEST: usize = 4 * 1024;

/// The beginning of a text that is too long, and its end.
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

    /// The same, of a size that fits into a message: a text that is longer than anybody reads is cut.
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

    /// Whether this report says why a command came to `outcome`: it is about the same refusal, or the same exit code.
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

/// All went well, where silence doesn't say so.
const WELL: &[u8] = b"\n";

impl ErrorPipe {
    /// [`ErrorPipe::outcome`] for a `child` that others may hold up before it is its command: whoever asks this process to end
    /// meanwhile, by a signal that is held back, ends the child first.
    ///
    /// # Errors
    /// [`Ended`] with 128 and the signal's number.
    pub fn outcome_or_end(self, child: &Child) -> Result<()> {
        let ErrorPipe { reader, writer } = self;
        drop(writer);
        let requests = Requests::new()?;
        let mut text = Vec::new();
        loop {
            let mut polled = [
                PollFd::new(reader.as_fd(), PollFlags::POLLIN),
                PollFd::new(requests.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut polled, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                polled => polled?,
            };
            let [told, asked] = polled.map(|each| each.any() == Some(true));
            if !told && asked {
                let number = requests.receive()?;
                signals::end(child)?;
                let text = "it was asked to end before the command ran".to_owned();
                let code = 128 + number as u8;
                return Err(Ended { code, text }.into());
            }
            let mut part = [0; 4096];
            match (&reader).read(&mut part)? {
                0 => break,
                length => text.extend_from_slice(&part[..length]),
            }
        }
        match &text[..] {
            [] => Ok(()),
            text => {
                // It is about to end. Until it is reaped, its namespace's PID 1 can't.
                signals::end(child)?;
                Err(serde_json::from_slice::<Report>(text)?.into_error())
            }
        }
    }

    /// The half of a child that becomes no command and goes on: says how it went. Who never says so was killed.
    pub fn tell(self, outcome: &Result<()>) {
        match outcome {
            Ok(()) => drop((&self.writer).write_all(WELL)),
            Err(error) => Report::from(error).send(&self.writer),
        }
    }

    /// What such a child has told.
    pub fn told(self) -> Result<()> {
        drop(self.writer);
        let mut text = Vec::new();
        (&self.reader).read_to_end(&mut text)?;
        match &text[..] {
            WELL => Ok(()),
            [] => bail!("it was killed before it could tell how it went"),
            text => Err(serde_json::from_slice::<Report>(text)?.into_error()),
        }
    }
}

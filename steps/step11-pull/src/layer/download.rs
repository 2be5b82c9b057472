//! A blob of a registry, as a stream that goes on where a connection was cut.

use crate::manifest::parts::Named;
use crate::registry::client::{Registry, Request, scope};
use crate::registry::name::ImageName;
use crate::registry::retry::Patience;
use anyhow::{Error, anyhow};
use std::io::{self, Read};
use ureq::http::header::CONTENT_RANGE;
use ureq::http::{Response, StatusCode};
use ureq::{Body, BodyReader};

/// The bytes of a blob, from a certain one on. Whether they are the right ones is for [`crate::Verified`] to say.
pub struct Download<'a> {
    registry: &'a Registry,
    question: Request,
    size: u64,
    body: Option<BodyReader<'static>>,
    patience: Patience,
}

impl<'a> Download<'a> {
    /// The bytes of `blob` from `from` on. Nothing is asked for yet.
    pub fn new(registry: &'a Registry, name: &ImageName, blob: &Named, from: u64) -> Download<'a> {
        Download {
            registry,
            question: Request {
                path: format!("/v2/{}/blobs/{}", name.path, blob.digest),
                scope: scope(name),
                accept: "*/*".into(),
                from,
                is_large: true,
            },
            size: blob.size,
            body: None,
            patience: Patience::default(),
        }
    }

    /// Asks for what is missing.
    fn open(&mut self) -> Result<BodyReader<'static>, Error> {
        let from = self.question.from;
        let answer = self.registry.ask(&self.question)?;
        let begin = match answer.status() {
            StatusCode::PARTIAL_CONTENT => begin(&answer),
            _ => Some(0),
        };
        let mut body = answer.into_body().into_reader();
        match begin {
            Some(begin) if begin == from => {}
            Some(0) => {
                // The server sends all of it. What we have is passed over.
                io::copy(&mut (&mut body).take(from), &mut io::sink())?;
            }
            _ => return Err(anyhow!("it sends another part than was asked for")),
        }
        Ok(body)
    }
}

/// From which byte on an answer is: RFC 9110, section 14.4.
fn begin(answer: &Response<Body>) -> Option<u64> {
    let range = answer.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let (begin, _) = range
        .trim()
        .strip_prefix("bytes")?
        .trim_start()
        .split_once('-')?;
    begin.trim().parse().ok()
}

impl Read for Download<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let body = match &mut self.body {
                Some(body) => body,
                None if self.question.from >= self.size => return Ok(0),
                None => match self.open() {
                    Ok(body) => self.body.insert(body),
                    // What was to be passed over was cut off.
                    Err(error) if error.is::<io::Error>() => {
                        self.patience.pause(None, error).map_err(io::Error::other)?;
                        continue;
                    }
                    Err(error) => return Err(io::Error::other(error)),
                },
            };
            let why = match body.read(buffer) {
                Ok(0) if self.question.from < self.size && !buffer.is_empty() => {
                    anyhow!(
                        "the connection ends {} bytes too early",
                        self.size - self.question.from
                    )
                }
                Ok(read) => {
                    self.question.from += read as u64;
                    self.patience.renew(read as u64);
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => error.into(),
            };
            self.body = None;
            self.patience.pause(None, why).map_err(io::Error::other)?;
        }
    }
}

//! Trying again: what may go better the next time, and when.

use anyhow::{Error, Result};
use std::io;
use std::thread::sleep;
use std::time::Duration;
use ureq::http::{HeaderMap, StatusCode};

/// How often something is tried again, without any progress between.
const TIMES: u32 = 5;

/// The first pause; each that follows is twice as long.
const FIRST: Duration = Duration::from_millis(250);

/// The longest pause that a server may ask for.
const LONGEST: Duration = Duration::from_secs(60);

/// As many bytes between two failures are progress.
const PROGRESS: u64 = 64 * 1024;

/// Counts the attempts.
#[derive(Debug, Default)]
pub struct Patience {
    failed: u32,
    /// How many bytes have come since it failed last.
    came: u64,
}

impl Patience {
    /// Pauses before the next attempt, for as long as the server `asks`.
    ///
    /// # Errors
    /// `why`, when it was tried often enough, or the server asks for more patience than anybody has.
    pub fn pause(&mut self, asks: Option<Duration>, why: Error) -> Result<()> {
        let pause = asks.unwrap_or(FIRST * 2_u32.pow(self.failed));
        if self.failed == TIMES {
            return Err(why.context(format!("after {} attempts", TIMES + 1)));
        }
        if pause > LONGEST {
            return Err(why.context(format!("it asks us to wait for {} s", pause.as_secs())));
        }
        (self.failed, self.came) = (self.failed + 1, 0);
        sleep(pause);
        Ok(())
    }

    /// Notes that `bytes` have come. A few between two failures are no progress.
    pub fn renew(&mut self, bytes: u64) {
        self.came += bytes;
        if self.came >= PROGRESS {
            self.failed = 0;
        }
    }
}

/// Whether an answer of this kind may be another one the next time.
pub fn may_pass(status: StatusCode) -> bool {
    // 501 and 505 say that the server can't do this at all.
    status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::REQUEST_TIMEOUT
        || (status.is_server_error() && ![501, 505].contains(&status.as_u16()))
}

/// How long a server asks us to wait: RFC 9110, section 10.2.3.
pub fn asked(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get("retry-after")?.to_str().ok()?;
    seconds.trim().parse().ok().map(Duration::from_secs)
}

/// Whether a connection that failed so may hold the next time.
pub fn may_hold(error: &ureq::Error) -> bool {
    use io::ErrorKind as Kind;
    match error {
        ureq::Error::Io(error) => !matches!(
            error.kind(),
            Kind::ConnectionRefused | Kind::InvalidData | Kind::NotFound | Kind::PermissionDenied
        ),
        ureq::Error::Timeout(_) | ureq::Error::Protocol(_) => true,
        _ => false,
    }
}

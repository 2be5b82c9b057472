//! When a container that has ended is started again.

use serde::{Deserialize, Serialize};
use std::fmt::{self, Display, Formatter};
use std::str::FromStr;
use std::time::Duration;

/// `--restart`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// When the container's exit code isn't 0, and so many times at most.
    OnFailure(Option<u32>),
    /// Whenever the container has ended, and after a reboot. A container that was stopped isn't started before the next
    /// reboot.
    Always,
    /// As `Always`, but a container that was stopped stays so after a reboot.
    UnlessStopped,
}

impl FromStr for RestartPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<RestartPolicy, String> {
        match text.split_once(':') {
            None if text == "no" => Ok(RestartPolicy::No),
            None if text == "on-failure" => Ok(RestartPolicy::OnFailure(None)),
            None if text == "always" => Ok(RestartPolicy::Always),
            None if text == "unless-stopped" => Ok(RestartPolicy::UnlessStopped),
            Some(("on-failure", times)) => match times.parse() {
                Ok(times) => Ok(RestartPolicy::OnFailure(Some(times))),
                Err(_) => Err("on-failure:N takes a number, how often at most".into()),
            },
            _ => Err("it has to be no, on-failure[:N], always or unless-stopped".into()),
        }
    }
}

impl Display for RestartPolicy {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            RestartPolicy::No => f.write_str("no"),
            RestartPolicy::OnFailure(None) => f.write_str("on-failure"),
            RestartPolicy::OnFailure(Some(times)) => write!(f, "on-failure:{times}"),
            RestartPolicy::Always => f.write_str("always"),
            RestartPolicy::UnlessStopped => f.write_str("unless-stopped"),
        }
    }
}

impl RestartPolicy {
    /// Whether a container that ended with `code`, and was started again `restarts` times since somebody
    /// started it, is started once more.
    pub fn again(self, code: u8, restarts: u32) -> bool {
        match self {
            RestartPolicy::No => false,
            RestartPolicy::OnFailure(times) => {
                code != 0 && times.is_none_or(|times| restarts < times)
            }
            RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
        }
    }

    /// Whether a container is started when the machine is; `stopped`: the container was stopped by hand.
    pub fn at_boot(self, stopped: bool) -> bool {
        match self {
            RestartPolicy::No | RestartPolicy::OnFailure(_) => false,
            RestartPolicy::Always => true,
            RestartPolicy::UnlessStopped => !stopped,
        }
    }
}

/// How long to wait before the next start: twice as long each time, and from the beginning when the container has run
/// for a while.
#[derive(Debug, Clone, Copy)]
pub struct BackOff(Duration);

impl BackOff {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(60);
    /// A container that ran as long as this, works.
    const A_WHILE: Duration = Duration::from_secs(10);

    /// The time to wait before the first restart.
    pub fn new() -> BackOff {
        BackOff(BackOff::FIRST)
    }

    /// The time to wait, after a container that `ran` for so long.
    pub fn after(&mut self, ran: Duration) -> Duration {
        if ran >= BackOff::A_WHILE {
            self.0 = BackOff::FIRST;
        }
        let now = self.0;
        self.0 = (now * 2).min(BackOff::LONGEST);
        now
    }
}

impl Default for BackOff {
    fn default() -> BackOff {
        BackOff::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies() {
        let policy = |text: &str| RestartPolicy::from_str(text).unwrap();
        assert!(!policy("no").again(1, 0));
        assert!(policy("on-failure").again(1, 1000));
        assert!(!policy("on-failure").again(0, 0));
        assert!(policy("on-failure:2").again(3, 1));
        assert!(!policy("on-failure:2").again(3, 2));
        assert!(policy("always").again(0, 9) && policy("always").at_boot(true));
        assert!(policy("unless-stopped").again(0, 9) && !policy("unless-stopped").at_boot(true));
        for wrong in ["", "yes", "on-failure:", "on-failure:-1", "always:3"] {
            assert!(RestartPolicy::from_str(wrong).is_err(), "{wrong}");
        }
        for text in [
            "no",
            "on-failure",
            "on-failure:3",
            "always",
            "unless-stopped",
        ] {
            assert_eq!(policy(text).to_string(), text);
        }
    }

    #[test]
    fn patience_grows_and_ends() {
        let mut back_off = BackOff::new();
        let waits: Vec<_> = (0..12).map(|_| back_off.after(Duration::ZERO)).collect();
        assert_eq!(waits[..3], [100, 200, 400].map(Duration::from_millis));
        assert_eq!(waits[11], Duration::from_secs(60));
        assert_eq!(
            back_off.after(Duration::from_secs(10)),
            Duration::from_millis(100)
        );
    }
}

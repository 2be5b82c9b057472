//! How fast a container may write output.

use nix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant};

/// How much of a processor a container's output may cost the monitor, whose time no limit of the container covers: an
/// empty line is one byte for the process that writes it, and fifty for the monitor that logs it. A command that writes
/// more than can be carried in a quarter of the time waits, as for a slow disk.
#[derive(Debug)]
pub(crate) struct Pace {
    since: Instant,
    used: Duration,
}

impl Pace {
    const TURN: Duration = Duration::from_millis(20);
    const MOST: Duration = Duration::from_millis(5);

    /// A pace that begins now.
    pub(crate) fn new() -> Pace {
        Pace {
            since: Instant::now(),
            used: processor_time(),
        }
    }

    /// How long the monitor has to rest before it carries more output; `None`: not at all.
    pub(super) fn rest(&mut self) -> Option<Duration> {
        let elapsed = self.since.elapsed();
        if elapsed >= Pace::TURN {
            *self = Pace::new();
            return None;
        }
        let has_rest = processor_time().saturating_sub(self.used) > Pace::MOST;
        has_rest.then(|| Pace::TURN.saturating_sub(elapsed))
    }
}

/// For how long this process has had a processor.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

//! How fast a container may talk.

use nix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant};

/// How much of a processor a container's words may cost the monitor, whose time no limit of the container's holds: an
/// empty line is a byte to who writes it, and fifty to who logs it. Whoever says more than can be carried in a quarter of
/// the time waits, as for a slow disk.
#[derive(Debug)]
pub(crate) struct Pace {
    since: Instant,
    used: Duration,
}

impl Pace {
    const TURN: Duration = Duration::from_millis(20);
    const MOST: Duration = Duration::from_millis(5);

    /// Begins now.
    pub(crate) fn new() -> Pace {
        Pace {
            since: Instant::now(),
            used: processor_time(),
        }
    }

    /// How long nothing may be carried.
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

/// How long this process has had a processor.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

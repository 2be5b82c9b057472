//! Time that doesn't pass: whoever wants to wait has waited.

use probe::nix::sys::signal::{Signal, kill};
use probe::old;
use probe::{Call, Verdict, Watcher, libc, note};
use std::time::{Duration, Instant};

/// The calls by which somebody waits for a time.
pub const WAITING: &[libc::c_long] = &[
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    old::SYS_poll,
    libc::SYS_ppoll,
    old::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    old::SYS_select,
    libc::SYS_pselect6,
];

// What is noted: who is in the groups, whether it had to be ended, for how many milliseconds the function wanted to
// wait, how often it tried, whether it has come back.
pub const BUSY: usize = 0;
pub const RELEASED: usize = 1;
pub const WAITED: usize = 2;
pub const TRIED: usize = 3;
pub const IS_OVER: usize = 4;

/// The patience that the docs name, and what it can't be taken for.
pub const PATIENCE: u32 = 10_000;
pub const TOO_LONG: u32 = 12_000;

/// For how long a call would wait, where its arguments tell.
fn asked_for(call: &Call) -> Option<Duration> {
    let number = |at: usize| {
        let bytes = call.bytes(at, 16);
        let half = |from: usize| {
            Some(u64::from_ne_bytes(
                bytes.get(from..from + 8)?.try_into().ok()?,
            ))
        };
        Some((half(0)?, half(8)?))
    };
    let nanoseconds = |at| number(at).map(|(s, ns)| Duration::new(s, ns as u32));
    let milliseconds = |at: usize| u64::try_from(call.arguments[at] as i32).ok();
    match call.number {
        libc::SYS_clock_nanosleep if call.arguments[1] == 0 => nanoseconds(2),
        libc::SYS_nanosleep => nanoseconds(0),
        old::SYS_poll => milliseconds(2).map(Duration::from_millis),
        old::SYS_epoll_wait | libc::SYS_epoll_pwait => milliseconds(3).map(Duration::from_millis),
        libc::SYS_ppoll if call.arguments[2] != 0 => nanoseconds(2),
        libc::SYS_pselect6 if call.arguments[4] != 0 => nanoseconds(4),
        old::SYS_select if call.arguments[4] != 0 => {
            number(4).map(|(s, us)| Duration::new(s, us as u32 * 1000))
        }
        _ => None,
    }
}

/// A watcher that lets no time pass: who wants to wait has waited, at first. `and_then` is asked about who wants to wait
/// for longer than anybody should: it gets the call and the moment of the first one.
pub fn without_time(mut and_then: impl FnMut(&Call, Instant) + Send + 'static) -> Watcher {
    let (mut waited, mut since) = (Duration::ZERO, None);
    Watcher::new(WAITING, move |call| {
        let since = *since.get_or_insert_with(Instant::now);
        let Some(time) = asked_for(call) else {
            return Verdict::Go;
        };
        waited += time;
        note(WAITED, waited.as_millis() as u32);
        if waited <= Duration::from_millis(TOO_LONG.into()) {
            return Verdict::Return(0);
        }
        and_then(call, since);
        Verdict::Go
    })
}

/// For scenes in which there is nothing to wait for: who waits for too long is ended.
pub fn hurried() -> Watcher {
    without_time(|call, _| {
        note(RELEASED, 1);
        let _ = kill(call.pid, Signal::SIGKILL);
    })
}

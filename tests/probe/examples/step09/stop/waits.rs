//! For how long a system call waits at most.

use probe::Call;
use probe::libc::{self, c_long};
use probe::old;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// The calls by which somebody learns that a process has ended.
pub const WAITS: &[c_long] = &[
    old::SYS_poll,
    libc::SYS_ppoll,
    old::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    old::SYS_select,
    libc::SYS_pselect6,
    libc::SYS_sched_yield,
    // Whoever looks into /proc again and again.
    libc::SYS_openat,
];

/// The calls that wait for a clock.
pub const SLEEPS: &[c_long] = &[libc::SYS_nanosleep, libc::SYS_clock_nanosleep];

/// The end of a wait for which nothing happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timeout {
    /// There is none.
    Never,
    /// After so many milliseconds.
    Millis(i64),
}

/// The timeout of a call that waits for one descriptor; nothing where there are several, as one of them may be a clock.
pub fn timeout(call: &Call) -> Option<Timeout> {
    match call.number {
        old::SYS_poll if call.arguments[1] == 1 => Some(of_number(call.arguments[2])),
        libc::SYS_ppoll if call.arguments[1] == 1 => of_seconds(call, call.arguments[2], 1_000_000),
        old::SYS_epoll_wait | libc::SYS_epoll_pwait => Some(of_number(call.arguments[3])),
        old::SYS_select => of_seconds(call, call.arguments[4], 1000),
        libc::SYS_pselect6 => of_seconds(call, call.arguments[4], 1_000_000),
        libc::SYS_sched_yield => Some(Timeout::Millis(0)),
        _ => None,
    }
}

fn of_number(millis: u64) -> Timeout {
    match millis as i32 {
        ..0 => Timeout::Never,
        millis => Timeout::Millis(millis.into()),
    }
}

/// The timeout at `address`: seconds, and parts of one, of which a millisecond has `parts`.
fn of_seconds(call: &Call, address: u64, parts: i64) -> Option<Timeout> {
    if address == 0 {
        return Some(Timeout::Never);
    }
    let mut bytes = [0; 16];
    let memory = File::open(format!("/proc/{}/mem", call.pid)).ok()?;
    memory.read_exact_at(&mut bytes, address).ok()?;
    let (seconds, rest) = bytes.split_at(8);
    let number = |bytes: &[u8]| Some(i64::from_ne_bytes(bytes.try_into().ok()?));
    let millis = number(seconds)?.saturating_mul(1000);
    Some(Timeout::Millis(
        millis.saturating_add(number(rest)? / parts),
    ))
}

//! What is said past the harness; above all how long the suites take: at the end of a run, the ten slowest first.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::sync::{Mutex, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Says something past the harness, which keeps a passing test's output to itself.
pub fn say(text: &str) {
    let stderr = fs::File::options().append(true).open("/dev/stderr");
    let _ = stderr.map(|mut stderr| writeln!(stderr, "{text}"));
}

/// As many suites are named.
const SLOWEST: usize = 10;

/// What stands above them.
pub const TITLE: &str = "\nThe slowest suites, with their number of tests, and of each the slowest; many run beside each other:\n";

/// What each suite's tests took, one by one.
static TIMES: Mutex<BTreeMap<String, Vec<(Duration, String)>>> = Mutex::new(BTreeMap::new());

thread_local! {
    /// The harness gives each test a thread, which has the test's name and ends with it.
    static CLOCK: OnceCell<Clock> = const { OnceCell::new() };
}

/// Runs while a test does.
struct Clock {
    suite: String,
    test: String,
    start: Instant,
}

/// The test of this thread has begun. Whatever a test needs first says so.
pub fn begin() {
    static AT_THE_END: Once = Once::new();
    // SAFETY: `print` takes nothing, and unwinds into nobody.
    AT_THE_END.call_once(|| _ = unsafe { libc::atexit(print) });
    let thread = thread::current();
    // A thread of a test's own has no name.
    let Some((suite, test)) = thread.name().and_then(|name| name.rsplit_once("::")) else {
        return;
    };
    CLOCK.with(|clock| {
        clock.get_or_init(|| Clock {
            suite: suite.into(),
            test: test.into(),
            start: Instant::now(),
        });
    });
}

impl Drop for Clock {
    fn drop(&mut self) {
        let mut times = TIMES.lock().unwrap_or_else(PoisonError::into_inner);
        let suite = times.entry(std::mem::take(&mut self.suite)).or_default();
        suite.push((self.start.elapsed(), std::mem::take(&mut self.test)));
    }
}

extern "C" fn print() {
    let times = TIMES.lock().unwrap_or_else(PoisonError::into_inner);
    let mut suites: Vec<_> = times
        .iter()
        .map(|(suite, tests)| {
            let whole: Duration = tests.iter().map(|(time, _)| *time).sum();
            (whole, suite, tests.len(), tests.iter().max())
        })
        .collect();
    suites.sort_by(|a, b| b.cmp(a));
    let mut table = TITLE.to_owned();
    for (whole, suite, count, slowest) in suites.iter().take(SLOWEST) {
        let whole = whole.as_secs();
        if let Some((time, test)) = slowest {
            let time = time.as_secs();
            let _ = writeln!(table, "{whole:6} s  {suite} ({count}): {test} {time} s");
        }
    }
    say(&table);
}

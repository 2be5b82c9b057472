//! A call of stop, played with: what it does is seen, and its victim and the kernel behave as the play wants it.

use super::victim::{self, Victim};
use super::waits::{SLEEPS, Timeout, WAITS, timeout};
use probe::anyhow::{Result, anyhow};
use probe::libc::{self, c_long};
use probe::{Call, Findings, Outcome, Verdict, Watcher};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};
use step09_detach::stop;

/// The calls that signal a process: the first by a pidfd, the others by a number.
pub const SIGNALS: &[c_long] = &[
    libc::SYS_pidfd_send_signal,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_tgkill,
];

/// Who looks so many times, and doesn't wait, goes in a circle.
pub const CIRCLE: usize = 200;

/// So often a wait with a limit ends in vain where there is to be none, each time after a while.
const ROUNDS: usize = 4;
const ROUND: Duration = Duration::from_millis(20);

/// A patience that nobody waits for here.
const LONG: Duration = Duration::from_secs(100);

/// What was seen of a call of stop, and how the victim is to behave.
pub struct Play {
    victim: i32,
    /// The victim ends when it is waited for.
    ends: bool,
    patience: Option<Duration>,
    /// The signals that were sent, by pidfd or by number, and when.
    pub sent: Vec<(i32, Instant)>,
    pub by_number: bool,
    pub slept: bool,
    pub looks: usize,
    /// It waits for longer than it may, in milliseconds; for ever: -1.
    pub too_long: Option<i64>,
    /// For how long it waited at most, each time, where it was to wait for long or for ever.
    limits: Vec<i64>,
}

impl Play {
    pub fn new(victim: &Victim, patience: Option<Duration>, ends: bool) -> Play {
        Play {
            victim: victim.pid(),
            ends,
            patience,
            sent: Vec::new(),
            by_number: false,
            slept: false,
            looks: 0,
            too_long: None,
            limits: Vec::new(),
        }
    }

    fn killed(&self) -> bool {
        self.sent.iter().any(|(signal, _)| *signal == libc::SIGKILL)
    }

    fn decide(&mut self, call: &Call) -> Verdict {
        self.looks += 1;
        if self.looks > CIRCLE {
            victim::kill(call.pid.as_raw());
            return Verdict::Go;
        }
        match call.number {
            number if SIGNALS.contains(&number) => self.signals(call),
            number if SLEEPS.contains(&number) => self.sleeps(),
            _ => self.waits(call),
        }
    }

    fn signals(&mut self, call: &Call) -> Verdict {
        let signal = match call.number {
            libc::SYS_tgkill => call.arguments[2],
            _ => call.arguments[1],
        } as i32;
        if call.number != libc::SYS_pidfd_send_signal {
            let is_it = (call.arguments[0] as i32).abs() == self.victim;
            if !is_it || signal == 0 {
                return Verdict::Go;
            }
            self.by_number = true;
        }
        if signal == 0 {
            return Verdict::Go;
        }
        self.sent.push((signal, Instant::now()));
        match signal {
            // The kernel takes its time: the victim ends when somebody waits for that.
            libc::SIGKILL => Verdict::Return(0),
            _ => Verdict::Go,
        }
    }

    /// A sleep is over at once, and nothing has happened meanwhile.
    fn sleeps(&mut self) -> Verdict {
        self.slept = true;
        if self.looks > CIRCLE / 2 {
            victim::kill_and_see(self.victim);
        }
        Verdict::Return(0)
    }

    fn waits(&mut self, call: &Call) -> Verdict {
        if self.sent.is_empty() {
            // Nothing is to be waited for yet.
            return Verdict::Go;
        }
        let Some(timeout) = timeout(call) else {
            return Verdict::Go;
        };
        if self.killed() {
            return self.waits_for_the_killed(timeout);
        }
        match (self.ends, self.patience, timeout) {
            (true, patience, Timeout::Millis(millis))
                if self.limits.len() < ROUNDS
                    && patience.is_none_or(|patience| patience > LONG) =>
            {
                self.limits.push(millis);
                sleep(ROUND);
                return Verdict::Return(0);
            }
            (true, ..) => victim::kill_and_see(self.victim),
            (false, Some(_), Timeout::Never) => self.is_too_long(-1),
            (false, Some(patience), Timeout::Millis(millis))
                if millis > patience.as_millis() as i64 + 1 =>
            {
                self.is_too_long(millis);
            }
            _ => {}
        }
        Verdict::Go
    }

    /// The limit of a wait that was to have none, or another one: what was left of it was less each time.
    pub fn limit(&self) -> Option<i64> {
        let wanted = self.patience.map(|patience| patience.as_millis() as i64);
        self.deadline()
            .filter(|limit| wanted.is_none_or(|wanted| (limit - wanted).abs() > 1000))
    }

    fn deadline(&self) -> Option<i64> {
        let (first, last) = (self.limits.first()?, self.limits.last()?);
        let passed = ROUND.as_millis() as i64 * (self.limits.len() as i64 - 1);
        (passed > 0 && *last <= first - passed / 2).then_some(*first)
    }

    fn waits_for_the_killed(&mut self, timeout: Timeout) -> Verdict {
        match timeout {
            // A short wait is over before the kernel is through.
            Timeout::Millis(_) if self.looks < CIRCLE / 4 => Verdict::Return(0),
            _ => {
                victim::kill_and_see(self.victim);
                Verdict::Go
            }
        }
    }

    fn is_too_long(&mut self, millis: i64) {
        self.too_long.get_or_insert(millis);
        victim::kill_and_see(self.victim);
    }

    pub fn signals_in_words(&self) -> String {
        let names: Vec<String> = self
            .sent
            .iter()
            .map(|(signal, _)| victim::name(*signal))
            .collect();
        match names.is_empty() {
            true => "no signal was sent".into(),
            false => format!("sent: {}", names.join(", then ")),
        }
    }
}

/// A call of stop in a play.
pub struct Played {
    pub outcome: Outcome,
    pub play: Play,
    /// Whether the victim had ended when stop came back.
    pub ended: Option<bool>,
}

/// Calls stop, for a victim that ends when it is waited for, or doesn't.
pub fn played(
    findings: &Findings,
    signal: i32,
    patience: Option<Duration>,
    ends: bool,
) -> Result<Played> {
    let victim = Victim::new()?;
    let identity = victim.identity()?;
    let play = Arc::new(Mutex::new(Play::new(&victim, patience, ends)));
    let watcher = Watcher::new(&[SIGNALS, WAITS, SLEEPS].concat(), {
        let play = play.clone();
        move |call| {
            play.lock()
                .map_or(Verdict::Go, |mut play| play.decide(call))
        }
    });
    let outcome = findings.subject().watch(watcher).call(|| {
        stop(&identity, signal, patience)?;
        Ok(victim::has_ended(identity.pid))
    })?;
    let ended = outcome.value();
    let play = std::mem::replace(
        &mut *play.lock().map_err(|_| anyhow!("the play"))?,
        Play::new(&victim, patience, ends),
    );
    Ok(Played {
        outcome,
        play,
        ended,
    })
}

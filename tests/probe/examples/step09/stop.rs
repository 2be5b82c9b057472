//! 9.4: who is asked may take the time that was given; who is deaf is killed; nobody else is touched.
//!
//! No clock tells whether a function waits. Its waiting is watched: whoever is to end does so when the function has
//! begun to wait for it, the kernel takes its time to kill, and a time that was to be waited for is up at once.

#[path = "stop/play.rs"]
mod play;
#[path = "stop/victim.rs"]
mod victim;
#[path = "stop/waits.rs"]
mod waits;

use play::{CIRCLE, Play, Played, SIGNALS, played};
use probe::anyhow::Result;
use probe::libc::{self, c_long};
use probe::nix::errno::Errno;
use probe::old;
use probe::{Claim, Findings, Verdict, Watcher};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use step09_detach::{Identity, stop};
use victim::Victim;

pub fn judge(findings: &Findings) -> Result<()> {
    findings.play_in(
        &(),
        &[
            who_ends_in_time,
            without_end,
            who_is_deaf,
            without_patience,
            not_there_any_more,
            ends_meanwhile,
            another_by_then,
            each_call_fails,
        ],
    )
}

/// What holds of every call of stop that is to succeed. Returns whether it did: whose
/// sleep was cut short does all else at another time, too.
fn common(findings: &Findings, what: &str, played: &Played) -> bool {
    let Played { outcome, play, .. } = played;
    let circle = play.looks > CIRCLE;
    let why = circle.then(|| {
        "it asks again and again whether the process has ended, and uses up a processor, or wakes it, for nothing. poll(2) \
         on the pidfd waits"
            .into()
    });
    let seen = match circle {
        true => format!("it looked more than {CIRCLE} times"),
        false => outcome.in_words(),
    };
    let claim = Claim::new(
        format!("{what}, stop comes back with Ok"),
        seen,
        outcome.is_ok(),
    );
    findings.claim(claim.because(why));
    if circle || !outcome.is_ok() {
        return false;
    }
    let why = "a sleep isn't over when the process ends: it lasts too long, or it is too short, and somebody has to look again \
        and again. poll(2) on the pidfd comes back when the process ends";
    let expected = format!("{what}, it waits for the end, and not for a clock");
    let seen = if play.slept {
        "it slept: nanosleep(2) was called"
    } else {
        "it didn't sleep"
    };
    findings.claim(Claim::new(expected, seen, !play.slept).because(play.slept.then(|| why.into())));
    let why = "kill(2) sends to whoever has the number at that moment, and that may be another process by now. \
        pidfd_send_signal(2) can't";
    let expected = format!("{what}, signals go to the pidfd");
    let seen = if play.by_number {
        "kill(2) was called with the number"
    } else {
        "no signal went to a number"
    };
    findings.claim(
        Claim::new(expected, seen, !play.by_number).because(play.by_number.then(|| why.into())),
    );
    findings.caller_stays(outcome, &[]);
    !play.slept && !play.by_number
}

/// Claims that the signals were just these.
fn sends(findings: &Findings, what: &str, played: &Played, wanted: &[i32], why: Option<&str>) {
    let sent: Vec<i32> = played.play.sent.iter().map(|(signal, _)| *signal).collect();
    let names: Vec<String> = wanted.iter().map(|signal| victim::name(*signal)).collect();
    let holds = sent == wanted;
    let own = match (holds, sent.first()) {
        (true, _) => None,
        (_, Some(first)) if *first != wanted[0] && *first != libc::SIGKILL => {
            Some("the signal isn't the one that stop was given")
        }
        (_, Some(&libc::SIGKILL)) => Some("nobody was asked: SIGKILL was sent before the signal"),
        _ => why,
    };
    findings.claim(
        Claim::new(
            format!("{what} {}", names.join(", then ")),
            played.play.signals_in_words(),
            holds,
        )
        .because(own.map(String::from)),
    );
}

/// Claims that the process had ended when stop came back.
fn has_ended(findings: &Findings, what: &str, played: &Played, why: &str) {
    let holds = played.ended == Some(true);
    let seen = match played.ended {
        Some(true) => "/proc/PID/stat: it has ended".into(),
        Some(false) => "/proc/PID/stat: it was still there".into(),
        None => played.outcome.in_words(),
    };
    let expected = format!("{what}, the process has ended when stop comes back");
    let why = (played.ended == Some(false)).then(|| why.into());
    findings.claim(Claim::new(expected, seen, holds).because(why));
}

/// Claims that what was waited for had no limit but the patience.
fn has_no_other_limit(findings: &Findings, expected: &str, played: &Played, why: &str) {
    let limit = played.play.limit();
    let seen = limit.map_or("no other limit was seen".into(), |millis| {
        format!("it waits for {millis} ms, and each time for what is left of them")
    });
    let why = limit.map(|_| why.to_owned());
    findings.claim(Claim::new(expected, seen, limit.is_none()).because(why));
}

fn who_ends_in_time(findings: &Findings, (): &()) -> Result<()> {
    for (signal, patience, what) in [
        (libc::SIGTERM, Duration::from_secs(1000), "who ends in time"),
        (
            libc::SIGUSR1,
            Duration::MAX,
            "who is given a very long time",
        ),
    ] {
        findings.begin(format!(
            "{what} is waited for, and stop comes back at once when it has ended"
        ));
        let played = played(findings, signal, Some(patience), true)?;
        if !common(findings, &format!("for {what}"), &played) {
            break;
        }
        let killed =
            "it ended in time, and was sent SIGKILL all the same, or before its time was over";
        sends(
            findings,
            &format!("{what} gets only"),
            &played,
            &[signal],
            Some(killed),
        );
        let why = "the time to wait isn't the patience that stop was given: who needs longer would be killed";
        let expected = format!("{what} has all of its patience");
        has_no_other_limit(findings, &expected, &played, why);
        let why = "stop doesn't wait until the process has ended";
        has_ended(findings, &format!("for {what}"), &played, why);
        if !findings.all_hold() {
            break;
        }
    }
    Ok(())
}

/// Without a patience there is no SIGKILL.
fn without_end(findings: &Findings, (): &()) -> Result<()> {
    let what = "without a patience";
    findings.begin(format!("{what} stop waits until the process ends"));
    let played = played(findings, libc::SIGTERM, None, true)?;
    if !common(findings, what, &played) {
        return Ok(());
    }
    let why = "None, which is for ever, was taken for a patience that is over: SIGKILL was sent";
    sends(
        findings,
        "without a patience the process gets only",
        &played,
        &[libc::SIGTERM],
        Some(why),
    );
    let why = "None, which is for ever, was taken for a limit: who needs longer would be killed";
    has_no_other_limit(
        findings,
        "without a patience stop waits for as long as it takes",
        &played,
        why,
    );
    let why = "None, which is for ever, was taken for a patience of zero: nobody waited";
    has_ended(findings, what, &played, why);
    Ok(())
}

fn who_is_deaf(findings: &Findings, (): &()) -> Result<()> {
    let patience = Duration::from_millis(300);
    let what = "for who doesn't hear";
    findings.begin(format!(
        "{what} stop sends SIGKILL when the patience is over, and comes back"
    ));
    let played = played(findings, libc::SIGTERM, Some(patience), false)?;
    if !common(findings, what, &played) {
        return Ok(());
    }
    let wanted = [libc::SIGTERM, libc::SIGKILL];
    let too_long = too_long(&played.play);
    let why = "SIGKILL never came: who doesn't heed the signal isn't made to end";
    if too_long.is_none() {
        sends(
            findings,
            "who doesn't hear gets",
            &played,
            &wanted,
            Some(why),
        );
    }
    let when = |at: usize| played.play.sent.get(at).map(|(_, when)| *when);
    let waited = when(0)
        .zip(when(1))
        .map(|(asked, killed)| killed.duration_since(asked));
    let early = waited.filter(|waited| *waited + Duration::from_millis(1) < patience);
    let (seen, why) = match (&too_long, early) {
        (Some(seen), _) => (
            seen.clone(),
            "the time to wait isn't the patience that stop was given",
        ),
        (None, Some(early)) => (
            format!("SIGKILL came {} ms after the signal", early.as_millis()),
            "the time to wait isn't the patience that stop was given: it is too short, or not waited for",
        ),
        _ => ("SIGKILL came when it was over".into(), ""),
    };
    let holds = too_long.is_none() && early.is_none();
    let expected = format!(
        "who doesn't hear has its {} ms, and no more",
        patience.as_millis()
    );
    findings.claim(Claim::new(expected, seen, holds).because((!holds).then(|| why.into())));
    if holds {
        let why = "SIGKILL was sent, and nobody waited: the kernel needs a while to end a process";
        has_ended(findings, what, &played, why);
    }
    Ok(())
}

/// What was waited for instead of the patience.
fn too_long(play: &Play) -> Option<String> {
    play.too_long.map(|millis| match millis {
        -1 => "it waits without a limit, before any SIGKILL".into(),
        millis => format!("it waits for {millis} ms, before any SIGKILL"),
    })
}

fn without_patience(findings: &Findings, (): &()) -> Result<()> {
    let what = "with a patience of zero";
    findings.begin(format!(
        "{what} stop sends the signal, then SIGKILL, and waits for the end"
    ));
    let played = played(findings, libc::SIGTERM, Some(Duration::ZERO), false)?;
    if !common(findings, what, &played) {
        return Ok(());
    }
    let wanted = [libc::SIGTERM, libc::SIGKILL];
    match too_long(&played.play) {
        Some(seen) => {
            let why = "a patience of zero was taken for none at all, which is for ever, or it isn't heeded";
            let claim = Claim::new(
                "with a patience of zero SIGKILL follows at once",
                seen,
                false,
            );
            findings.claim(claim.because(Some(why.into())));
        }
        None => sends(
            findings,
            "with a patience of zero the process gets",
            &played,
            &wanted,
            None,
        ),
    }
    let why = "SIGKILL was sent, and nobody waited: the kernel needs a while to end a process";
    has_ended(findings, what, &played, why);
    Ok(())
}

/// The process has ended, or another one has its number.
fn not_there_any_more(findings: &Findings, (): &()) -> Result<()> {
    nobody_gets(findings, "a process that was reaped", || {
        let gone = Victim::new()?;
        let identity = gone.identity()?;
        gone.end()?;
        Ok(identity)
    })?;
    nobody_gets(findings, "a zombie", || {
        let zombie = Victim::new()?;
        zombie.die()?;
        zombie.identity()
    })?;
    nobody_gets(findings, "a process whose number another one has", || {
        let now = Victim::new()?.identity()?;
        let start_time = now.start_time - 1;
        Ok(Identity { start_time, ..now })
    })?;
    nobody_gets(findings, "a process of another boot", || {
        let now = Victim::new()?.identity()?;
        let boot_id = "00000000-0000-4000-8000-000000000000".into();
        Ok(Identity { boot_id, ..now })
    })
}

/// Claims that stop takes a process, whom `who` makes, for one that isn't there any more.
fn nobody_gets(
    findings: &Findings,
    what: &str,
    who: impl FnOnce() -> Result<Identity>,
) -> Result<()> {
    let expected = format!("for {what}, stop comes back with Ok, and nobody gets a signal");
    findings.begin(&expected);
    let identity = who()?;
    let was_there = !victim::has_ended(identity.pid);
    let outcome = findings.subject().call(|| {
        stop(&identity, libc::SIGUSR1, Some(Duration::ZERO))?;
        Ok(victim::got(identity.pid).filter(|_| was_there))
    })?;
    let got: Option<i32> = outcome.value().flatten();
    let why = match got {
        Some(_) => Some(
            "another process has the number by now, and it got the signal: stop didn't ask whether it is the same one",
        ),
        None if outcome.is_error() => {
            Some("that the process isn't there any more is what was wanted, and no error")
        }
        None => None,
    };
    let seen = match got {
        Some(signal) => format!("another process got {}", victim::name(signal)),
        None => outcome.in_words(),
    };
    let holds = outcome.is_ok() && got.is_none();
    findings.claim(Claim::new(expected, seen, holds).because(why.map(String::from)));
    findings.caller_stays(&outcome, &[]);
    Ok(())
}

/// The process ends just before the signal comes.
fn ends_meanwhile(findings: &Findings, (): &()) -> Result<()> {
    let expected = "when the process ends just before the signal comes (ESRCH), stop returns Ok";
    findings.begin(expected);
    let victim = Victim::new()?;
    let identity = victim.identity()?;
    let pid = identity.pid;
    let watcher = Watcher::new(SIGNALS, move |_| {
        victim::end_now(pid);
        Verdict::Go
    });
    let outcome = findings
        .subject()
        .watch(watcher)
        .call(|| stop(&identity, libc::SIGTERM, None))?;
    let why = outcome.is_error().then(|| {
        "ESRCH says that the process isn't there any more: that is what was wanted, and no error".into()
    });
    findings.claim(Claim::new(expected, outcome.in_words(), outcome.is_ok()).because(why));
    Ok(())
}

/// The process ends, and another one gets its number, just before a pidfd is opened.
fn another_by_then(findings: &Findings, (): &()) -> Result<()> {
    let expected = "a process that gets the number just before the pidfd is opened gets no signal";
    findings.begin(expected);
    let identity = Victim::new()?.identity()?;
    let is_another = Arc::new(Mutex::new(None));
    let watcher = Watcher::new(&[libc::SYS_pidfd_open], {
        let (is_another, identity) = (is_another.clone(), identity.clone());
        move |_| {
            if let Ok(mut is_another) = is_another.lock() {
                is_another.get_or_insert_with(|| {
                    victim::end_now(identity.pid);
                    Victim::in_place_of(&identity).is_ok()
                });
            }
            Verdict::Go
        }
    });
    let outcome = findings.subject().watch(watcher).call(|| {
        stop(&identity, libc::SIGUSR1, Some(Duration::ZERO))?;
        Ok(victim::got(identity.pid))
    })?;
    if is_another.lock().ok().and_then(|is_another| *is_another) != Some(true) {
        // No pidfd was opened; or nobody may choose the numbers of processes here.
        return Ok(());
    }
    let got: Option<i32> = outcome.value().flatten();
    let why = got.map(|_| {
        "it was asked whether the process runs, and a pidfd opened for the number afterwards: in between the number may \
         become another's. First the pidfd is opened, then the start time is compared"
            .into()
    });
    let seen = match got {
        Some(signal) => format!("it got {}", victim::name(signal)),
        None => format!("{}; it got none", outcome.in_words()),
    };
    findings.claim(Claim::new(expected, seen, got.is_none() && outcome.is_ok()).because(why));
    Ok(())
}

/// The calls without which stop can't do what it is for.
const CALLS: &[(c_long, &str, Errno)] = &[
    (libc::SYS_pidfd_open, "pidfd_open(2)", Errno::EMFILE),
    (
        libc::SYS_pidfd_send_signal,
        "pidfd_send_signal(2)",
        Errno::EPERM,
    ),
    (old::SYS_poll, "poll(2)", Errno::ENOMEM),
    (libc::SYS_ppoll, "ppoll(2)", Errno::ENOMEM),
    (libc::SYS_epoll_create1, "epoll_create1(2)", Errno::EMFILE),
    (libc::SYS_epoll_ctl, "epoll_ctl(2)", Errno::ENOMEM),
];

fn each_call_fails(findings: &Findings, (): &()) -> Result<()> {
    findings.each_call_fails(
        "stop",
        CALLS,
        |subject| {
            let identity = Victim::new()?.identity()?;
            subject.call(|| stop(&identity, libc::SIGTERM, Some(Duration::ZERO)))
        },
        || false,
        |outcome| outcome.changes(&[]),
    )?;
    Ok(())
}

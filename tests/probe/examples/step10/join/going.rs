//! The way into the namespaces, as the kernel is asked for it.

use crate::join::target::{CALLER, CAME_BACK, arguments, known_of_the_environment, line};
use probe::libc;
use probe::nix::unistd::Pid;
use probe::{Call, Claim, children_of, noted, pending};
use std::thread::sleep;
use std::time::Duration;

/// What was seen of it.
#[derive(Debug, Default)]
pub struct Going {
    /// The caller of join itself called setns.
    pub caller_went: bool,
    /// What whoever called setns still had of the caller's environment, and its arguments.
    brought: Option<(u32, String)>,
    /// The caller slept.
    slept: bool,
    /// join had come back when the child was about to become its command.
    too_early: bool,
}

impl Going {
    pub fn heed(&mut self, call: &Call) {
        let pid = call.pid.to_string();
        match call.number {
            libc::SYS_setns if self.brought.is_none() => {
                self.caller_went = pid == noted(CALLER).to_string();
                self.brought = Some((known_of_the_environment(&pid), arguments(&pid)));
            }
            libc::SYS_nanosleep | libc::SYS_clock_nanosleep => {
                self.slept |= pid == noted(CALLER).to_string();
            }
            libc::SYS_execve => {
                // Who waits comes to rest, and who doesn't comes back.
                rests(Pid::from_raw(noted(CALLER) as i32), 20);
                self.too_early = noted(CAME_BACK) != 0;
            }
            _ => {}
        }
    }

    pub fn claims(&self) -> Vec<Claim> {
        let mut claims = vec![self.waits(), self.wakes()];
        if let Some((environment, arguments)) = &self.brought {
            claims.push(self.goes_between());
            if !self.caller_went {
                claims.push(brings(*environment, arguments));
            }
        }
        claims
    }

    fn waits(&self) -> Claim {
        let why = "nobody waited until the child is its command: whether it can be executed isn't known yet. The news pipe \
            ends with the execve";
        let seen = match self.too_early {
            true => "join had come back before the child called execve",
            false => "it hadn't come back when the child called execve",
        };
        Claim::new(
            "join comes back when the child has become its command",
            seen,
            !self.too_early,
        )
        .because(self.too_early.then(|| why.into()))
    }

    fn wakes(&self) -> Claim {
        let why = "a sleep is too short on a busy machine, or too long: the pidfd of the process between is readable when that \
            one has ended";
        let seen = match self.slept {
            true => "the calling process slept: nanosleep(2) was called",
            false => "the calling process didn't sleep",
        };
        Claim::new(
            "join waits for processes, and not for a clock",
            seen,
            !self.slept,
        )
        .because(self.slept.then(|| why.into()))
    }

    fn goes_between(&self) -> Claim {
        let why = "the calling process itself entered the namespaces. Even if it comes back: when something fails on the way \
            it stays in there, and its working directory and root are the container's. A process between goes in";
        let seen = match self.caller_went {
            true => "the calling process called setns",
            false => "a process between called setns",
        };
        Claim::new(
            "the calling process itself doesn't go in",
            seen,
            !self.caller_went,
        )
        .because(self.caller_went.then(|| why.into()))
    }
}

/// What whoever goes in takes along.
fn brings(environment: u32, arguments: &str) -> Claim {
    let is_hidden = environment == 0 && arguments == "init";
    let why = match (environment, arguments) {
        (1.., _) => {
            "forget_environment() has to come before setns: from then on the container's processes may read it"
        }
        _ => "hide() has to come before setns: from then on the container's processes may look",
    };
    let seen = match (environment, arguments) {
        (0, "init") => "its environment is wiped, and it is called init",
        (0, _) => "/proc/PID/cmdline: the caller's arguments",
        (_, "init") => "/proc/PID/environ: the caller's environment",
        _ => "/proc/PID/environ: the caller's environment; /proc/PID/cmdline: its arguments",
    };
    Claim::new(
        "whoever goes in has hidden its arguments, and wiped its environment, before",
        seen,
        is_hidden,
    )
    .because((!is_hidden).then(|| why.into()))
}

/// Waits until `process` and its children sleep for so many looks, a millisecond each, or it is gone. Who has been killed,
/// or hears something, isn't asleep.
pub fn rests(process: Pid, looks: u32) -> bool {
    let mut asleep = 0;
    for _ in 0..60_000 {
        let is_asleep = sleeps(process)
            && children_of(process)
                .into_keys()
                .map(Pid::from_raw)
                .all(sleeps);
        asleep = if is_asleep { asleep + 1 } else { 0 };
        if asleep == looks {
            return true;
        }
        if noted(CAME_BACK) != 0 || !super::target::is_there(process) {
            return false;
        }
        sleep(Duration::from_millis(1));
    }
    false
}

fn sleeps(process: Pid) -> bool {
    let is_killed = pending(process) & (1 << (libc::SIGKILL - 1)) != 0;
    let state = line(&process.to_string(), "State");
    !is_killed && (state.starts_with('S') || state.starts_with('Z'))
}

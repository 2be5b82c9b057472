//! A process in which a learner's function runs, and what became of it.

use crate::claim::Claim;
use crate::memory::Memory;
use crate::state::{State, children_of};
use crate::watcher::{Call, Watcher};
use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::prctl::set_name;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, dup2_stdout, fork, getpid, pipe2};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::thread;

/// A process to come.
pub struct Subject<'a> {
    name: &'a str,
    watcher: Option<Watcher>,
}

/// How a function came to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// It returned Ok.
    Returned,
    /// It returned an error: the text with all its causes.
    Failed(String),
    /// It panicked: the message.
    Panicked(String),
    /// It never came back: its process ended with this exit code, 128+N for signal N.
    Left(u8),
}

/// What became of a call.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// How it ended.
    pub ending: Ending,
    /// What it returned, as JSON: see [`Outcome::value`].
    pub value: Value,
    /// What its process had just before.
    pub before: State,
    /// And just after; the same as before when it never came back.
    pub after: State,
    /// The system calls that were watched, of its process and of all that it started, in their order.
    pub calls: Vec<Call>,
    /// Whether one of them was refused or replaced.
    pub refused: bool,
    /// Whether the function came back in a child, too.
    pub came_back_twice: bool,
}

// How far the subject is.
const BORN: u32 = 0;
const ASKS: u32 = 1;
const WATCHED: u32 = 2;
const READY: u32 = 3;
const GO: u32 = 4;
const DONE: u32 = 5;
const LOOKED: u32 = 6;

// The notes that are our own; the others are for whoever judges.
const LISTENER: usize = 7;
const STRAY: usize = 6;

static MEMORY: OnceLock<Memory> = OnceLock::new();

/// Leaves a number for whoever judges: for a closure that runs in the subject, or in a process that it started.
pub fn note(index: usize, value: u32) {
    if let Some(memory) = MEMORY.get() {
        memory.note(index).store(value, Ordering::Release);
    }
}

/// The number that was left.
pub fn noted(index: usize) -> u32 {
    let memory = MEMORY.get();
    memory.map_or(0, |memory| memory.note(index).load(Ordering::Acquire))
}

/// What stands in front of an error that doesn't tell the kernel's answer.
pub(crate) const NOT_TOLD: &str = "no errno in it: ";

/// Errors with the kernel's answer in front, which an error of type `E` has: `EPERM: …`. If it is another error, the text
/// says so.
pub fn told<E, T>(outcome: Result<T>, errno: impl Fn(&E) -> Errno) -> Result<T>
where
    E: std::fmt::Display + std::fmt::Debug + Send + Sync + 'static,
{
    outcome.map_err(|error| match error.downcast_ref::<E>() {
        Some(refused) => anyhow!("{:?}: {error:#}", errno(refused)),
        None => anyhow!("{NOT_TOLD}{error:#}"),
    })
}

/// What a subject does, or has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// It sleeps in a system call of the function.
    Waits,
    /// The function has come back.
    Came,
    /// It has ended.
    Ended,
}

/// Looks at the subject `pid` until it waits for somebody, or the function has come back.
pub fn at_rest(pid: Pid) -> Rest {
    let mut last = String::new();
    let mut still = 0;
    loop {
        if MEMORY.get().is_some_and(|memory| memory.turn() >= DONE) {
            return Rest::Came;
        }
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = |name: &str| {
            status
                .lines()
                .find(|line| line.starts_with(name))
                .unwrap_or_default()
        };
        match line("State:").split_whitespace().nth(1) {
            None | Some("Z" | "X") => return Rest::Ended,
            Some("S") => still += 1,
            Some(_) => still = 0,
        }
        // Who sleeps and wakes is counted.
        let now = line("voluntary_ctxt_switches").to_owned();
        if now != last {
            still = 0;
        }
        last = now;
        if still > 10 {
            return Rest::Waits;
        }
        thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// Looks until `look` sees what it looks for. `false` when the subject `pid` has ended or come back without that, or it
/// doesn't come.
pub fn until(pid: Pid, mut look: impl FnMut() -> bool) -> bool {
    for _ in 0..10_000 {
        if look() {
            return true;
        }
        let is_over = MEMORY.get().is_some_and(|memory| memory.turn() >= DONE);
        let ended = std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .map_or(true, |stat| stat.contains(") Z "));
        if is_over || ended {
            return look();
        }
        thread::sleep(std::time::Duration::from_millis(1));
    }
    false
}

impl<'a> Subject<'a> {
    pub(crate) fn new(name: &'a str) -> Subject<'a> {
        Subject {
            name,
            watcher: None,
        }
    }

    /// Has `watcher` asked about system calls of the function.
    pub fn watch(mut self, watcher: Watcher) -> Subject<'a> {
        self.watcher = Some(watcher);
        self
    }

    /// Calls `function` in the process.
    pub fn call<T: Serialize>(self, function: impl FnOnce() -> Result<T>) -> Result<Outcome> {
        self.call_in(|| Ok(()), |()| function(), |_| Ok(()))
    }

    /// The same in a world: `world` makes it, in the process and before anything is looked at or watched; `meanwhile` runs
    /// here once the function has been called, with the process's number, and may do to it what it likes.
    ///
    /// # Errors
    /// The world can't be made; what `meanwhile` returns. What the function returns is in the outcome.
    pub fn call_in<W, T: Serialize>(
        self,
        world: impl FnOnce() -> Result<W>,
        function: impl FnOnce(W) -> Result<T>,
        meanwhile: impl FnOnce(Pid) -> Result<()>,
    ) -> Result<Outcome> {
        let memory = match MEMORY.get() {
            Some(memory) => *memory,
            None => *MEMORY.get_or_init({
                let memory = Memory::new()?;
                move || memory
            }),
        };
        memory.set_turn(BORN);
        memory.write(b"");
        (0..8).for_each(|index| note(index, 0));
        let numbers = self.watcher.as_ref().map(Watcher::numbers).map(Vec::from);
        // SAFETY: this process has one thread by now: who answered for an earlier subject has ended.
        let pid = match unsafe { fork() }? {
            ForkResult::Parent { child } => child,
            ForkResult::Child => live(memory, self.name, numbers.as_deref(), world, function),
        };
        let attended = attend(memory, pid, self.watcher, meanwhile)?;
        end_all_children()?;
        let (calls, refused) = match attended.answers {
            Some(answers) => answers.end()?,
            None => (Vec::new(), false),
        };
        attended.interfered?;
        let (status, before, after) = (attended.status, attended.before, attended.after);
        let left = match status {
            WaitStatus::Exited(_, code) => code as u8,
            WaitStatus::Signaled(_, signal, _) => 128 + signal as u8,
            other => bail!("the subject ended strangely: {other:?}"),
        };
        let said = memory.read();
        let said: Option<Said> = serde_json::from_slice(&said).ok();
        let (ending, value) = match said {
            Some(Said::NoWorld(error)) => bail!("the world of {}: {error}", self.name),
            Some(Said::Came(ending, value)) if after.is_some() => (ending, value),
            _ => (Ending::Left(left), Value::Null),
        };
        Ok(Outcome {
            ending,
            value,
            after: after.unwrap_or_else(|| before.clone()),
            before,
            calls,
            refused,
            came_back_twice: noted(STRAY) != 0,
        })
    }
}

/// What was seen of a subject until its end.
struct Attended {
    status: WaitStatus,
    before: State,
    after: Option<State>,
    answers: Option<Answers>,
    interfered: Result<()>,
}

/// Does this side's part in the life of the subject `pid`: looks at it before and after, and has its questions answered.
fn attend(
    memory: Memory,
    pid: Pid,
    mut watcher: Option<Watcher>,
    meanwhile: impl FnOnce(Pid) -> Result<()>,
) -> Result<Attended> {
    let mut meanwhile = Some(meanwhile);
    let (mut answers, mut before, mut after) = (None, State::default(), None);
    let mut interfered = Ok(());
    loop {
        match memory.turn() {
            ASKS => {
                let watcher = watcher.take().context("nobody is to be asked")?;
                answers = Some(Answers::begin(memory, pid, watcher)?);
                memory.set_turn(WATCHED);
            }
            READY => {
                before = State::of(pid)?;
                memory.set_turn(GO);
                if let Some(meanwhile) = meanwhile.take() {
                    interfered = meanwhile(pid);
                }
            }
            DONE => {
                after = Some(State::of(pid)?);
                memory.set_turn(LOOKED);
            }
            turn => memory.wait_while(turn),
        }
        match waitpid(pid, Some(WaitPidFlag::WNOHANG))? {
            WaitStatus::StillAlive => {}
            status => {
                return Ok(Attended {
                    status,
                    before,
                    after,
                    answers,
                    interfered,
                });
            }
        }
    }
}

/// What a thread that answers comes to: the calls, and whether one was refused.
type Answered = Result<(Vec<Call>, bool)>;

/// A thread that answers the questions of a subject, and the pipe whose end tells it to end.
struct Answers {
    answering: thread::JoinHandle<Answered>,
    goes_on: OwnedFd,
}

impl Answers {
    fn begin(memory: Memory, pid: Pid, watcher: Watcher) -> Result<Answers> {
        let listener = descriptor_of(pid, memory.note(LISTENER).load(Ordering::Acquire))?;
        let (hears, goes_on) = pipe2(OFlag::O_CLOEXEC)?;
        let is_on = move || memory.turn() == GO;
        let answering = thread::spawn(move || watcher.answer(&listener, &hears, is_on));
        Ok(Answers { answering, goes_on })
    }

    fn end(self) -> Answered {
        drop(self.goes_on);
        self.answering
            .join()
            .ok()
            .context("who answers has panicked")?
    }
}

/// What the subject leaves in the shared memory.
#[derive(Serialize, Deserialize)]
enum Said {
    /// The world couldn't be made.
    NoWorld(String),
    /// The function came back.
    Came(Ending, Value),
}

/// The subject's life.
fn live<W, T: Serialize>(
    memory: Memory,
    name: &str,
    numbers: Option<&[libc::c_long]>,
    world: impl FnOnce() -> Result<W>,
    function: impl FnOnce(W) -> Result<T>,
) -> ! {
    let me = getpid();
    std::panic::set_hook(Box::new(|_| {}));
    let say = |said: &Said| memory.write(&serde_json::to_vec(said).unwrap_or_default());
    let made = || -> Result<W> {
        set_name(&CString::new(name)?)?;
        // What the function prints isn't a finding.
        dup2_stdout(std::io::stderr())?;
        // Nothing stays when whoever judges is killed.
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        if let Some(numbers) = numbers {
            let listener = Watcher::install(numbers).context("seccomp(2), to watch")?;
            memory
                .note(LISTENER)
                .store(listener.as_raw_fd() as u32, Ordering::Release);
            wait_for(memory, ASKS, WATCHED);
        }
        world()
    };
    let world = match made() {
        Ok(world) => world,
        Err(error) => {
            say(&Said::NoWorld(format!("{error:#}")));
            leave(1)
        }
    };
    wait_for(memory, READY, GO);
    let came = catch_unwind(AssertUnwindSafe(|| function(world)));
    if getpid() != me {
        // A child that the function made came back from it, too.
        memory.note(STRAY).store(1, Ordering::Release);
        leave(86);
    }
    let (ending, value) = match came {
        Ok(Ok(value)) => (
            Ending::Returned,
            serde_json::to_value(value).unwrap_or_default(),
        ),
        Ok(Err(error)) => (Ending::Failed(format!("{error:#}")), Value::Null),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).into()));
            (Ending::Panicked(text.unwrap_or_default()), Value::Null)
        }
    };
    say(&Said::Came(ending, value));
    wait_for(memory, DONE, LOOKED);
    leave(0)
}

/// Says `turn` and waits until the other side has said `next`.
fn wait_for(memory: Memory, turn: u32, next: u32) {
    memory.set_turn(turn);
    while memory.turn() != next {
        memory.wait_while(turn);
    }
}

fn leave(code: i32) -> ! {
    // SAFETY: ends this process at once, with nothing of the parent's run.
    unsafe { libc::_exit(code) }
}

/// The descriptor `number` of the process `pid`: pidfd_getfd(2).
fn descriptor_of(pid: Pid, number: u32) -> Result<OwnedFd> {
    // SAFETY: takes integers, and returns descriptors that nobody else has.
    unsafe {
        let pidfd = Errno::result(libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0))?;
        let pidfd = OwnedFd::from_raw_fd(pidfd as i32);
        let copy = libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0);
        let copy = Errno::result(copy).context("pidfd_getfd(2)")?;
        Ok(OwnedFd::from_raw_fd(copy as i32))
    }
}

/// Ends every child of this process and what these leave behind, which comes to it.
pub fn end_all_children() -> Result<()> {
    loop {
        let children = children_of(getpid());
        if children.is_empty() {
            return Ok(());
        }
        for &child in children.keys() {
            let _ = kill(Pid::from_raw(child), Signal::SIGKILL);
        }
        // Whoever ends first: PID 1 of a namespace waits until others that were in there have been reaped.
        match waitpid(None, None) {
            Ok(_) | Err(Errno::ECHILD | Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

impl Outcome {
    /// What the function returned, when it was Ok.
    pub fn value<T: DeserializeOwned>(&self) -> Option<T> {
        let returned = self.ending == Ending::Returned;
        returned
            .then(|| serde_json::from_value(self.value.clone()).ok())
            .flatten()
    }

    /// Whether it returned Ok.
    pub fn is_ok(&self) -> bool {
        self.ending == Ending::Returned
    }

    /// Whether it returned an error. A panic isn't one.
    pub fn is_error(&self) -> bool {
        matches!(self.ending, Ending::Failed(_))
    }

    /// The text of its error, the empty one when there was none.
    pub fn error(&self) -> &str {
        match &self.ending {
            Ending::Failed(text) => text,
            _ => "",
        }
    }

    /// How it ended, for the learner.
    pub fn in_words(&self) -> String {
        match &self.ending {
            Ending::Returned => "it returned Ok".into(),
            Ending::Failed(text) => {
                // A help is for whoever runs containers, and not for whoever writes what starts them.
                let lines = text.lines().filter(|line| !line.starts_with("help: "));
                let text = lines.collect::<Vec<_>>().join("\n");
                format!("it returned the error: {text}")
            }
            Ending::Panicked(text) => format!("it panicked: {text}"),
            Ending::Left(code @ ..128) => {
                format!("it didn't return: the process ended with exit code {code}")
            }
            Ending::Left(code) => {
                format!("it didn't return: signal {} killed the process", code - 128)
            }
        }
    }

    /// What has changed in the caller: see [`State::changes`].
    pub fn changes(&self, may_change: &[&str]) -> Vec<String> {
        self.before.changes(&self.after, may_change)
    }

    /// Why a function that was to return an error has ended otherwise, where its end tells.
    pub fn why_no_error(&self) -> Option<String> {
        let why = match self.ending {
            Ending::Panicked(_) => {
                "a panic is no error: whoever called can't go on, nor put right what is half done"
            }
            Ending::Left(_) => {
                "the process of the caller ended: a function returns its errors, and lets the caller decide"
            }
            _ => return None,
        };
        Some(why.into())
    }

    /// A claim that the function has left its caller as it was, but for what `may_change` names: see [`State::changes`].
    pub fn keeps_caller(&self, function: &str, may_change: &[&str]) -> Claim {
        Claim::leaves_the_caller(function, &self.changes(may_change))
    }

    /// The calls of one kind.
    pub fn calls_of(&self, number: libc::c_long) -> Vec<&Call> {
        self.calls
            .iter()
            .filter(|call| call.number == number)
            .collect()
    }
}

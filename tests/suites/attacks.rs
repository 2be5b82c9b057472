//! What a hostile container tries, and what has to come of it: nothing. Of each race there is a control, which somebody
//! loses who looks and then acts, as we once did.
//!
//! At the end of a run stands how many attacks were tried, how many of them held, and what they are known as.

mod files;
mod held;
mod images;
mod monitor;
mod outside;
mod runtime;
mod words;

use crate::stage::times::say;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::thread::{panicking, scope};

/// An attack that is being tried. It has held when the test that tries it goes on to its end.
pub struct Attack(&'static str);

/// What it is known as, and whether it held.
static TRIED: Mutex<Vec<(&str, bool)>> = Mutex::new(Vec::new());

/// Begins to try an attack; `known_as` is its number among the CVEs, or nothing.
pub fn tried(known_as: &'static str) -> Attack {
    static AT_THE_END: Once = Once::new();
    // SAFETY: `count` takes nothing, and unwinds into nobody.
    AT_THE_END.call_once(|| _ = unsafe { libc::atexit(count) });
    Attack(known_as)
}

impl Drop for Attack {
    fn drop(&mut self) {
        let mut tried = TRIED.lock().unwrap_or_else(PoisonError::into_inner);
        tried.push((self.0, !panicking()));
    }
}

extern "C" fn count() {
    let tried = TRIED.lock().unwrap_or_else(PoisonError::into_inner);
    let held = tried.iter().filter(|(_, held)| *held).count();
    let mut known: Vec<&str> = tried.iter().map(|(known_as, _)| *known_as).collect();
    known.retain(|known_as| !known_as.is_empty());
    known.sort_unstable();
    known.dedup();
    let known = match known.as_slice() {
        [] => String::new(),
        known => format!("; among them {}", known.join(", ")),
    };
    say(&format!(
        "\nAttacks: {} tried, {held} held{known}.\n",
        tried.len()
    ));
}

/// Compiles a program that stands by itself.
fn compile(source: &str, flags: &[&str], to: &Path) {
    let mut gcc = Command::new("gcc")
        .args(["-x", "c", "-O1", "-fno-stack-protector"])
        .args(flags)
        .arg("-o")
        .arg(to)
        .arg("-")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = gcc.stdin.take().unwrap();
    input.write_all(source.as_bytes()).unwrap();
    drop(input);
    assert!(gcc.wait().unwrap().success());
}

/// Exchanges two names for as long as `meanwhile` takes.
fn exchanging<T>(one: &Path, other: &Path, meanwhile: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let flags = RenameFlags::RENAME_EXCHANGE;
                renameat2(AT_FDCWD, one, AT_FDCWD, other, flags).unwrap();
            }
        });
        let came = std::panic::catch_unwind(std::panic::AssertUnwindSafe(meanwhile));
        done.store(true, Ordering::Relaxed);
        came.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

//! `cargo progress watch`: checks again whenever something is saved.

use crate::learner::{check, copy, diff, hint, where_you_are};
use anyhow::Result;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use notify::{RecursiveMode, Watcher, recommended_watcher};
use progress::chapters::find;
use progress::course::Chapter;
use progress::host::as_root;
use std::fs;
use std::io::{IsTerminal, Read, Stdin, Write, stdin, stdout};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime};

/// A folder shared with another system sends no events, so we look ourselves, too, as often as this.
const LOOK: Duration = Duration::from_secs(1);

/// How long a key or an event is waited for at a time.
const WAIT: u16 = 100;

/// Files, when they were changed, and how long they are.
type Files = Vec<(PathBuf, SystemTime, u64)>;

/// What happened while we waited.
enum Event {
    Saved,
    Key(u8),
    End,
}

/// Checks `chapter` now and after each change, until `q`.
pub fn watch(chapter: &'static Chapter) -> Result<u8> {
    // Whoever has to type a password types it now, and not in the middle of something.
    as_root("true".as_ref()).status()?;
    let mut chapter = chapter;
    loop {
        if !copy(chapter).exists() {
            copy(chapter).start()?;
        }
        let source = copy(chapter).source();
        let folder = source.parent().unwrap_or(Path::new(".")).to_owned();
        let (sender, events) = channel();
        // Where the system can't tell us, the looks alone do.
        let mut watcher = recommended_watcher(move |_| {
            let _ = sender.send(());
        })
        .ok();
        if let Some(watcher) = &mut watcher {
            let _ = watcher.watch(&folder, RecursiveMode::Recursive);
        }
        let mut print = fingerprint(&folder);
        round(chapter);
        match wait(&folder, &mut print, &events, chapter)? {
            Some(next) => chapter = next,
            None => return Ok(0),
        }
    }
}

/// Reacts to what happens, until another chapter is wanted or none.
fn wait(
    folder: &Path,
    print: &mut Files,
    events: &Receiver<()>,
    chapter: &'static Chapter,
) -> Result<Option<&'static Chapter>> {
    let number = chapter.number;
    loop {
        match next(folder, print, events)? {
            Event::Saved => round(chapter),
            Event::Key(b'r') => round(chapter),
            Event::Key(b'h') => told(hint(&number.to_string())),
            Event::Key(b'd') => told(diff(&number.to_string(), false)),
            Event::Key(b'l') => told(where_you_are()),
            Event::Key(b'n') => match find(number + 1) {
                Ok(_) => return Ok(progress::chapters::chapter(number + 1)),
                Err(_) => println!("this is the last chapter"),
            },
            Event::Key(b'q' | 3 | 4) | Event::End => return Ok(None),
            Event::Key(_) => {}
        }
    }
}

/// One check, and the keys.
fn round(chapter: &'static Chapter) {
    print!("\x1b[2J\x1b[H");
    told(check(chapter));
    let next = match find(chapter.number + 1) {
        Ok(_) => "n: next chapter  ",
        Err(_) => "",
    };
    println!("{next}h: hint  l: list  d: diff  r: check again  q: quit");
    let _ = stdout().flush();
}

/// A file that doesn't compile is no reason to stop.
fn told(outcome: Result<u8>) {
    if let Err(error) = outcome {
        println!("{error:#}");
    }
}

/// Waits for a key, for something to be saved, or for the end of the input.
fn next(folder: &Path, print: &mut Files, events: &Receiver<()>) -> Result<Event> {
    let input = stdin();
    let _quiet = Quiet::new(&input);
    let mut looked = Instant::now();
    let mut buffer = [0];
    loop {
        if input.is_terminal() {
            let mut key = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
            if poll(&mut key, PollTimeout::from(WAIT))? > 0 {
                return Ok(match input.lock().read(&mut buffer)? {
                    0 => Event::End,
                    _ => Event::Key(buffer[0]),
                });
            }
        } else {
            std::thread::sleep(Duration::from_millis(WAIT.into()));
        }
        let event = events.try_iter().count() > 0;
        if event || looked.elapsed() > LOOK {
            looked = Instant::now();
            let now = fingerprint(folder);
            if now != *print {
                *print = now;
                return Ok(Event::Saved);
            }
        }
    }
}

/// The files of a folder, when they were changed and how long they are.
fn fingerprint(folder: &Path) -> Files {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(data) = entry.metadata() else { continue };
        if data.is_dir() {
            files.extend(fingerprint(&entry.path()));
        } else if let Ok(time) = data.modified() {
            files.push((entry.path(), time, data.len()));
        }
    }
    files.sort();
    files
}

/// A terminal that hands on each key at once and shows none, as long as this lives.
struct Quiet<'a>(Option<(&'a Stdin, Termios)>);

impl Quiet<'_> {
    fn new(input: &Stdin) -> Quiet<'_> {
        let Ok(before) = tcgetattr(input) else {
            return Quiet(None);
        };
        let mut quiet = before.clone();
        let lines = LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG;
        quiet.local_flags.remove(lines);
        let _ = tcsetattr(input, SetArg::TCSANOW, &quiet);
        Quiet(Some((input, before)))
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        if let Some((input, before)) = &self.0 {
            let _ = tcsetattr(input, SetArg::TCSANOW, before);
        }
    }
}

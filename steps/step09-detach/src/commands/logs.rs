//! `logs`: what a container has said.

use crate::container::Container;
use crate::container::log::{LogEntry, OutputStream, former};
use crate::container::record::Phase;
use crate::container::store::Store;
use anyhow::{Context, Result};
use clap::Args;
use humantime::{parse_duration, parse_rfc3339_weak};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Seek, SeekFrom, Write, stderr, stdout};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};
use step04_pivot_root::state::StateDir;

/// Print what a container has said
#[derive(Debug, Args)]
pub struct Logs {
    /// Go on printing, until the container ends
    #[arg(short, long)]
    follow: bool,

    /// Only the last lines, as many as NUMBER says, or all
    #[arg(short = 'n', long, value_name = "NUMBER", default_value = "all", allow_negative_numbers = true,
          value_parser = tail)]
    tail: Tail,

    /// Put its time before each line
    #[arg(short, long)]
    timestamps: bool,

    /// Only what was said since a time (2026-11-22T21:48:50Z), or a while ago (10m)
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<SystemTime>,

    /// Only what was said until a time, which is given likewise
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<SystemTime>,

    /// The container, by its name or its ID
    #[arg(value_name = "CONTAINER")]
    container: String,

    #[command(flatten)]
    state: StateDir,
}

/// How many lines from the end; `None`: all.
#[derive(Debug, Clone, Copy)]
struct Tail(Option<usize>);

fn tail(text: &str) -> Result<Tail, String> {
    match (text, text.parse()) {
        ("all", _) => Ok(Tail(None)),
        (_, Ok(lines)) => Ok(Tail(Some(lines))),
        // Docker takes -1 for all lines, too.
        ("-1", _) => Ok(Tail(None)),
        _ => Err("it takes a number of lines, or all".into()),
    }
}

/// Reads a time, or how long ago it was.
fn moment(text: &str) -> Result<SystemTime, String> {
    let seconds = |text: &str| {
        let seconds: f64 = text.parse().ok()?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?)
    };
    let ago = |text| SystemTime::now().checked_sub(parse_duration(text).ok()?);
    let date = |text: &str| parse_rfc3339_weak(&format!("{text}T00:00:00")).ok();
    seconds(text)
        .or_else(|| ago(text))
        .or_else(|| parse_rfc3339_weak(text).ok())
        .or_else(|| date(text))
        .ok_or_else(|| {
            "it has to be a time such as 2026-11-22T21:48:50Z or 2026-11-22, seconds since 1970, or a while \
             such as 10m"
                .into()
        })
}

impl Logs {
    /// Prints the log, and what is added to it.
    pub fn run(&self) -> Result<u8> {
        let container = Store::open(&self.state)?.find(&self.container)?;
        let mut reader = Reader::open(&container, self)?;
        match reader.run() {
            // The reader of our output has seen enough.
            Err(error) if broken_pipe(&error) => Ok(0),
            read => read.map(|()| 0),
        }
    }

    fn wants(&self, time: SystemTime) -> bool {
        self.since.is_none_or(|since| time >= since) && !self.is_over(time)
    }

    fn is_over(&self, time: SystemTime) -> bool {
        self.until.is_some_and(|until| time > until)
    }
}

fn broken_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

struct Reader<'a> {
    container: &'a Container,
    logs: &'a Logs,
    /// The log that is being read, and its inode.
    file: BufReader<File>,
    inode: u64,
    /// The beginning of an entry whose end isn't written yet.
    half: Vec<u8>,
    /// Whether the next part of a stream begins a line: standard output, standard error.
    begins: [bool; 2],
    /// Whether an entry made no sense, and that has been said.
    complained: bool,
}

impl Reader<'_> {
    fn open<'a>(container: &'a Container, logs: &'a Logs) -> Result<Reader<'a>> {
        let path = container.log();
        let former = former(&path);
        // The older log comes first. When the only log becomes the older one in between, its entries are left out.
        let first = if former.exists() { &former } else { &path };
        let file = match File::open(first) {
            // The container was never started, and has said nothing.
            Err(error) if error.kind() == ErrorKind::NotFound => File::open("/dev/null")?,
            file => file.with_context(|| first.display().to_string())?,
        };
        Ok(Reader {
            inode: file.metadata()?.ino(),
            file: BufReader::new(file),
            container,
            logs,
            half: Vec::new(),
            begins: [true, true],
            complained: false,
        })
    }

    fn run(&mut self) -> Result<()> {
        if let Tail(Some(lines)) = self.logs.tail {
            self.skip_to(lines)?;
        }
        if !self.logs.follow {
            return self.print_all();
        }
        // The watch is set before the log is read, so that nothing is missed from here on.
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let events = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVE_SELF;
        inotify.add_watch(&self.container.folder, events)?;
        loop {
            let goes_on = self.goes_on();
            self.print_all()?;
            let over = self.logs.is_over(SystemTime::now());
            let Some(monitor) = goes_on.filter(|_| !over) else {
                return Ok(());
            };
            self.wait(&inotify, monitor.as_fd())?;
        }
    }

    /// A descriptor that is readable when the container's monitor ends; `None`: the container has none.
    fn goes_on(&self) -> Option<std::os::fd::OwnedFd> {
        // The container's process may have ended, and its monitor still be writing down the last of its output.
        let state = self.container.record().ok()?.state;
        let lives = matches!(state.phase, Phase::Running | Phase::Restarting);
        state.monitor.filter(|_| lives)?.open().ok()?
    }

    /// Waits until something is added, or the monitor ends.
    fn wait(&self, inotify: &Inotify, monitor: std::os::fd::BorrowedFd) -> Result<()> {
        let output = stdout();
        let mut polled = [
            PollFd::new(inotify.as_fd(), PollFlags::POLLIN),
            PollFd::new(monitor, PollFlags::POLLIN),
            // The reader of our output may go.
            PollFd::new(output.as_fd(), PollFlags::empty()),
        ];
        let left = self
            .logs
            .until
            .map(|until| until.duration_since(SystemTime::now()));
        let timeout = match left {
            None => PollTimeout::NONE,
            Some(left) => {
                let millis = left.unwrap_or_default().as_millis() + 1;
                PollTimeout::from(u16::try_from(millis).unwrap_or(u16::MAX))
            }
        };
        match poll(&mut polled, timeout) {
            Err(Errno::EINTR) => return Ok(()),
            polled => polled?,
        };
        if polled[2].any() == Some(true) {
            return Err(io::Error::from(ErrorKind::BrokenPipe).into());
        }
        while inotify.read_events().is_ok_and(|events| !events.is_empty()) {}
        Ok(())
    }

    /// Prints the entries that there are, through all logs that have been begun since.
    fn print_all(&mut self) -> Result<()> {
        loop {
            while let Some(line) = self.line()? {
                self.print(&line)?;
            }
            if !self.turn_over()? {
                return Ok(());
            }
        }
    }

    /// The next whole entry, without its newline.
    fn line(&mut self) -> Result<Option<Vec<u8>>> {
        self.file.read_until(b'\n', &mut self.half)?;
        match self.half.pop() {
            Some(b'\n') => Ok(Some(std::mem::take(&mut self.half))),
            Some(other) => {
                self.half.push(other);
                Ok(None)
            }
            None => Ok(None),
        }
    }

    /// Goes on to the next log, when this one is no longer the newest; `false`: this one is, and is read to its end.
    fn turn_over(&mut self) -> Result<bool> {
        let path = self.container.log();
        if [0, self.inode].contains(&inode_of(&path)) {
            return Ok(false);
        }
        // Nothing is added to an older log any more, so what is there now is the last of it.
        if !self.file.fill_buf()?.is_empty() {
            return Ok(true);
        }
        let former = former(&path);
        let next = match inode_of(&former) {
            // Another log was begun and ended since.
            inode if inode != self.inode && inode != 0 => former,
            _ => path,
        };
        let Ok(file) = File::open(next) else {
            return Ok(false);
        };
        self.half.clear();
        self.inode = file.metadata()?.ino();
        self.file = BufReader::new(file);
        Ok(true)
    }

    /// Goes to where the last `lines` lines begin.
    fn skip_to(&mut self, lines: usize) -> Result<()> {
        // Where each of these lines begins: the log, by its inode, and the place in it.
        let mut begins: VecDeque<(u64, u64)> = VecDeque::new();
        let (first, mut at) = (self.file.get_ref().try_clone()?, 0);
        let mut files = vec![(self.inode, first)];
        let mut new_line = true;
        loop {
            let begin = at;
            match self.line()? {
                Some(line) => {
                    at += line.len() as u64 + 1;
                    let Some(entry) = LogEntry::parse(&line) else {
                        continue;
                    };
                    if new_line {
                        begins.push_back((self.inode, begin));
                        if begins.len() > lines {
                            begins.pop_front();
                        }
                    }
                    new_line = entry.is_whole;
                }
                None if self.turn_over()? => {
                    at = 0;
                    files.push((self.inode, self.file.get_ref().try_clone()?));
                }
                None => break,
            }
        }
        self.half.clear();
        let here = begins.front().filter(|_| lines > 0);
        let Some((inode, begin)) = here else {
            return Ok(());
        };
        let found = files.into_iter().find(|(of, _)| of == inode);
        if let Some((inode, mut file)) = found {
            file.seek(SeekFrom::Start(*begin))?;
            (self.file, self.inode) = (BufReader::new(file), inode);
        }
        Ok(())
    }

    fn print(&mut self, line: &[u8]) -> Result<()> {
        let Some(entry) = LogEntry::parse(line) else {
            if !self.complained {
                self.complained = true;
                eprintln!(
                    "{}: an entry that makes no sense is left out",
                    self.container.log().display()
                );
            }
            return Ok(());
        };
        if !self.logs.wants(entry.time) {
            return Ok(());
        }
        let mut text = Vec::new();
        let which = usize::from(entry.stream != OutputStream::Output);
        if self.logs.timestamps && self.begins[which] {
            text.extend_from_slice(entry.time_text.as_bytes());
            text.push(b' ');
        }
        if entry.stream == OutputStream::Monitor {
            text.extend_from_slice(b"[log] ");
        }
        text.extend_from_slice(entry.text);
        if entry.is_whole {
            text.push(b'\n');
        }
        self.begins[which] = entry.is_whole;
        match entry.stream {
            OutputStream::Output => {
                let mut output = stdout();
                let mut written = output.write_all(&text);
                if !entry.is_whole {
                    written = written.and_then(|()| output.flush());
                }
                written.context("standard output")?;
            }
            OutputStream::Error | OutputStream::Monitor => {
                stderr().write_all(&text).context("standard error")?;
            }
        }
        Ok(())
    }
}

fn inode_of(path: &std::path::Path) -> u64 {
    std::fs::metadata(path).map_or(0, |of| of.ino())
}

//! A program of a step, started on the pretend host and looked at while it runs.

use crate::host::evidence::Process;
use crate::host::exit_code;
use crate::host::hang::{LOOK, TOO_LONG, Watch, patience};
use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What is soon on a machine that has nothing else to do.
const SOON: Duration = Duration::from_secs(10);

/// A container whose command reads its standard input and ends with it, as `cat` does.
pub struct Container {
    program: Child,
    output: Vec<u8>,
}

/// What a program printed, and its exit code.
pub struct RunOutcome {
    /// As shells have it: 128+N for signal N.
    pub code: u8,
    /// All of its standard output.
    pub output: String,
    /// All of its standard error.
    pub errors: String,
}

impl Container {
    /// Starts `program` with `arguments`. Its command must print a line when it is ready, and end
    /// when its input ends.
    ///
    /// # Errors
    /// The command ended, or didn't print a line in good time.
    pub fn start<A: AsRef<OsStr>>(program: &Path, arguments: &[A]) -> Result<Container> {
        Container::start_with(Command::new(program).args(arguments))
    }

    /// Starts a program that was made ready.
    pub fn start_with(command: &mut Command) -> Result<Container> {
        let mut container = Container::spawn(command, Stdio::piped())?;
        while !container.output.contains(&b'\n') {
            if !container.read_some()? {
                bail!("{}", container.finish()?.in_words());
            }
        }
        Ok(container)
    }

    /// Starts a program that was made ready, which need not say anything.
    pub fn spawn(command: &mut Command, input: Stdio) -> Result<Container> {
        let program = command
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .env("RUST_BACKTRACE", "0")
            .spawn()
            .with_context(|| format!("{command:?}"))?;
        Ok(Container {
            program,
            output: Vec::new(),
        })
    }

    /// Reads what there is of its output; `false` at its end.
    fn read_some(&mut self) -> Result<bool> {
        let program = self.program();
        let output = self.program.stdout.as_mut().context("its output")?;
        wait_for(output, program)?;
        let mut buffer = [0; 4096];
        let read = output.read(&mut buffer)?;
        self.output.extend_from_slice(&buffer[..read]);
        Ok(read > 0)
    }

    /// Reads its output to the end.
    ///
    /// # Errors
    /// It hangs, and its processes were ended; what it has printed until then can still be had.
    pub fn read_all(&mut self) -> Result<()> {
        loop {
            match self.read_some() {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(hang) => {
                    kill_tree(&mut self.program)?;
                    return Err(hang);
                }
            }
        }
    }

    /// What it has printed so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }

    /// The first line that its command printed.
    pub fn first_line(&self) -> String {
        let line = self
            .output
            .split(|&byte| byte == b'\n')
            .next()
            .unwrap_or_default();
        String::from_utf8_lossy(line).into_owned()
    }

    /// The program itself.
    pub fn program(&self) -> Process {
        Process(Pid::from_raw(self.program.id() as i32))
    }

    /// The container's first process: the program's child; the program itself where it has none.
    pub fn first_process(&self) -> Process {
        let program = self.program();
        program.children().first().copied().unwrap_or(program)
    }

    /// Sends a signal to the program.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(self.program().0, signal)?)
    }

    /// Writes a line to its command's input.
    pub fn write_line(&mut self, line: &str) -> Result<()> {
        let input = self.program.stdin.as_mut().context("its input")?;
        Ok(input.write_all(format!("{line}\n").as_bytes())?)
    }

    /// Reads its output until `text` has come.
    pub fn read_until(&mut self, text: &str) -> Result<()> {
        while !String::from_utf8_lossy(&self.output).contains(text) {
            if !self.read_some()? {
                bail!("it ended without having printed {text:?}");
            }
        }
        Ok(())
    }

    /// Closes its input, waits for its end, and returns what it printed.
    pub fn finish(mut self) -> Result<RunOutcome> {
        drop(self.program.stdin.take());
        self.ended()
    }

    /// Waits for its end, with its input open, and returns what it printed.
    pub fn ended(mut self) -> Result<RunOutcome> {
        while self.read_some()? {}
        let mut errors = Vec::new();
        if let Some(mut stream) = self.program.stderr.take() {
            // Somebody else may hold it open: what there is when the program has ended is enough.
            let mut buffer = [0; 4096];
            loop {
                wait_for(&stream, self.program())?;
                match stream.read(&mut buffer)? {
                    0 => break,
                    read => errors.extend_from_slice(&buffer[..read]),
                }
            }
        }
        let status = wait_while_it_lives(&mut self.program)?;
        Ok(RunOutcome {
            code: exit_code(status),
            output: String::from_utf8_lossy(&self.output).into_owned(),
            errors: String::from_utf8_lossy(&errors).into_owned(),
        })
    }
}

impl RunOutcome {
    /// How it ended, with its own words: of a panic only the message and the place.
    pub fn in_words(&self) -> String {
        // A help is for whoever runs containers, and not for whoever writes what starts them.
        let lines = self
            .errors
            .lines()
            .filter(|line| !line.starts_with("help: "));
        let said = lines.collect::<Vec<_>>().join("\n");
        let said = said.trim();
        match said.split_once(" panicked at ") {
            Some((_, panic)) => {
                let panic = panic.split("\nnote: ").next().unwrap_or(panic);
                // src/lib.rs:12:5: and the message on the next line.
                let (place, message) = panic.split_once('\n').unwrap_or(("", panic));
                format!("it panicked at {} {}", place.trim(), message.trim())
            }
            None if said.is_empty() => format!("it ended with exit code {}", self.code),
            None => format!("it ended with exit code {}, saying: {said}", self.code),
        }
    }
}

impl Drop for Container {
    /// A container that a failed check left running.
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

/// Waits until there is something to read, or the end.
///
/// # Errors
/// `program`, which should write it, hangs: the words say what it waits for.
pub fn wait_for(stream: &impl AsFd, program: Process) -> Result<()> {
    let mut stream = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
    let look = PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::ZERO);
    let mut watch = Watch::of(program);
    while poll(&mut stream, look)? == 0 {
        if let Some(hang) = watch.look() {
            bail!(hang);
        }
    }
    Ok(())
}

/// Waits for the end of a program that should end by itself.
fn wait_while_it_lives(program: &mut Child) -> Result<ExitStatus> {
    let mut watch = Watch::of(Process(Pid::from_raw(program.id() as i32)));
    let mut quick = 0;
    loop {
        if let Some(status) = program.try_wait()? {
            return Ok(status);
        }
        // It mostly ends at once.
        quick += 1;
        if quick < 50 {
            std::thread::sleep(Duration::from_millis(1));
        } else if let Some(hang) = watch.look() {
            bail!(hang);
        } else {
            std::thread::sleep(LOOK);
        }
    }
}

/// Waits for the end of a program, and kills it and its descendants when it hangs.
pub fn let_end(mut program: Child) -> Result<()> {
    match wait_while_it_lives(&mut program) {
        Ok(_) => Ok(()),
        Err(_) => kill_tree(&mut program),
    }
}

fn kill_tree(program: &mut Child) -> Result<()> {
    for process in Process(Pid::from_raw(program.id() as i32)).tree() {
        let _ = kill(process.0, Signal::SIGKILL);
    }
    program.wait()?;
    Ok(())
}

/// Runs a program that ends by itself.
pub fn run<A: AsRef<OsStr>>(program: &Path, arguments: &[A]) -> Result<RunOutcome> {
    run_with(Command::new(program).args(arguments))
}

/// Runs a program that was made ready and ends by itself.
pub fn run_with(command: &mut Command) -> Result<RunOutcome> {
    Container::spawn(command, Stdio::null())?.finish()
}

/// Runs a program that ends by itself and leaves its output to others, who hold it open: it goes to the file `output`,
/// and what it complains of to one beside it.
pub fn run_apart(command: &mut Command, output: &Path) -> Result<RunOutcome> {
    let errors = output.with_extension("errors");
    let program = command
        .stdin(Stdio::null())
        .stdout(File::create(output)?)
        .stderr(File::create(&errors)?)
        .env("RUST_BACKTRACE", "0")
        .spawn();
    let mut program = program.with_context(|| format!("{command:?}"))?;
    let status = wait_while_it_lives(&mut program);
    if status.is_err() {
        kill_tree(&mut program)?;
    }
    Ok(RunOutcome {
        code: exit_code(status?),
        output: fs::read_to_string(output)?,
        errors: fs::read_to_string(errors)?,
    })
}

/// Looks again until `look` sees what it looks for, and gives up when `program` and those it may wait for have
/// come to rest without it.
pub fn before_rest<T>(program: Process, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let mut watch = Watch::of(program);
    // It mostly comes at once.
    for _ in 0..50 {
        if let Some(seen) = look() {
            return Some(seen);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    loop {
        if let Some(seen) = look() {
            return Some(seen);
        }
        watch.look().is_none().then_some(())?;
        std::thread::sleep(LOOK);
    }
}

/// As [`eventually`], for what takes long by itself: an engine, a server that builds first.
pub fn in_a_while<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    (0..5).find_map(|_| eventually(&mut look))
}

/// Looks again until `look` sees what it looks for, and gives up when that takes too long.
pub fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    while start.elapsed() < SOON * patience().max(TOO_LONG) {
        if let Some(seen) = look() {
            return Some(seen);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    None
}

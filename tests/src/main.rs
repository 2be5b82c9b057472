//! `cargo progress`: where you are in the course, and whether what you wrote holds.

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{SigHandler, Signal, signal};
use progress::checks::{Report, Workbench, examine_elsewhere};
use progress::course::{CHAPTERS, Chapter, Exercise, chapter};
use progress::evidence::read_proc_at;
use progress::exercises::{Author, Copy, State};
use progress::host::{Propagation, as_root, pretend, supervise, this_program};
use progress::programs::{Programs, workspace};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use step01_uts::program;

/// Where you are in the course, and whether what you wrote holds
#[derive(Parser)]
#[command(version, name = "progress")]
struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand)]
enum Action {
    /// List the chapters and their exercises
    List,

    /// Begin a chapter: write its exercises to exercises/
    Start {
        /// The chapter's number
        chapter: usize,
    },

    /// Run your own program of a chapter
    Run {
        /// The chapter's number
        chapter: usize,

        /// Its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },

    /// Fill one hole with our solution; it then counts as shown
    Solve {
        /// The exercise: 4.2 is the second of chapter 4
        #[arg(value_name = "EXERCISE")]
        id: String,
    },

    /// Begin again: a chapter, or one exercise
    Reset {
        /// The chapter, or the exercise: 4 or 4.2
        #[arg(value_name = "CHAPTER|EXERCISE")]
        id: String,

        /// Don't ask before what was written is lost
        #[arg(long)]
        yes: bool,
    },

    /// Check the exercises of a chapter against what the kernel says
    Check {
        /// The chapter's number
        #[arg(value_name = "CHAPTER", required_unless_present = "all")]
        chapter: Option<usize>,

        /// Check all chapters
        #[arg(long)]
        all: bool,

        /// Check our solution
        #[arg(long)]
        solution: bool,

        /// Take the programs that lie in DIR and build nothing
        #[arg(long, value_name = "DIR")]
        bin_dir: Option<PathBuf>,
    },

    /// Run a command on a pretend host
    #[command(hide = true)]
    PretendHost {
        #[arg(long, default_value = "shared")]
        propagation: Propagation,
        #[arg(required = true, trailing_var_arg = true)]
        command: Vec<String>,
    },

    /// Run a command, and say how it has changed the host
    #[command(hide = true)]
    Supervise {
        #[arg(required = true, trailing_var_arg = true)]
        command: Vec<String>,
    },

    /// Print a line for each SIGINT that arrives, and what is read
    #[command(hide = true)]
    CountInterrupts,

    /// Run a chapter's checks right here, and print a report as one line of JSON for each
    #[command(hide = true)]
    Examine { chapter: usize, program: PathBuf },
}

fn main() -> ExitCode {
    program(|args: Args| match args.action {
        None => where_you_are(),
        Some(Action::List) => list(),
        Some(Action::Start { chapter }) => start(find(chapter)?),
        Some(Action::Run { chapter, arguments }) => run(find(chapter)?, &arguments),
        Some(Action::Solve { id }) => solve(&id),
        Some(Action::Reset { id, yes }) => reset(&id, yes),
        Some(Action::Check {
            chapter,
            all: _,
            solution,
            bin_dir,
        }) => match (chapter, solution || bin_dir.is_some()) {
            (number, true) => check_solution(number, bin_dir.as_deref()),
            (Some(number), false) => check(find(number)?),
            (None, false) => bail!("name a chapter\nhelp: --all goes with --solution"),
        },
        Some(Action::PretendHost {
            propagation,
            command,
        }) => pretend(propagation, &command),
        Some(Action::Supervise { command }) => supervise(&command),
        Some(Action::CountInterrupts) => count_interrupts(),
        Some(Action::Examine { chapter, program }) => examine(find(chapter)?, program),
    })
}

/// The learner's copy of a chapter.
fn copy(chapter: &'static Chapter) -> Copy {
    let folder = std::env::var_os("TEN_STEPS_EXERCISES");
    let folder = folder.map_or_else(|| workspace().join("exercises"), PathBuf::from);
    Copy::of(chapter, &folder)
}

/// The exercise `id`, such as 4.2, with its chapter.
fn find_exercise(id: &str) -> Result<(&'static Chapter, &'static Exercise)> {
    let unknown = || format!("there is no exercise {id}\nhelp: `cargo progress list` has them all");
    let (number, position) = id.split_once('.').with_context(unknown)?;
    let chapter = number
        .parse()
        .ok()
        .and_then(chapter)
        .with_context(unknown)?;
    let position: usize = position.parse().ok().with_context(unknown)?;
    let exercise = position
        .checked_sub(1)
        .and_then(|index| chapter.exercises.get(index));
    Ok((chapter, exercise.with_context(unknown)?))
}

fn where_you_are() -> Result<u8> {
    let started = CHAPTERS.iter().rfind(|chapter| copy(chapter).exists());
    match started {
        Some(chapter) => {
            let (number, file) = (chapter.number, copy(chapter).source());
            println!("You are in chapter {number}: {}", chapter.title);
            println!("  {}", file.display());
            println!("next: cargo progress check {number}");
        }
        None => {
            println!("No chapter has been started yet.");
            println!("next: cargo progress start 1");
        }
    }
    Ok(0)
}

fn start(chapter: &'static Chapter) -> Result<u8> {
    let copy = copy(chapter);
    copy.start()?;
    println!("Chapter {}: {}", chapter.number, chapter.title);
    for (position, exercise) in chapter.exercises.iter().enumerate() {
        let id = format!("{}.{}", chapter.number, position + 1);
        match copy.line_of(exercise) {
            Some(line) => println!(
                "  ○ {id} {}  {}:{line}",
                exercise.name,
                copy.source().display()
            ),
            None => println!("  ○ {id} {}  (no code)", exercise.name),
        }
    }
    println!(
        "next: write the first, then cargo progress check {}",
        chapter.number
    );
    Ok(0)
}

fn run(chapter: &'static Chapter, arguments: &[String]) -> Result<u8> {
    let program = copy(chapter).build(|_| Author::Learner)?;
    eprintln!("(your own {})", chapter.package);
    // A hole says which it is; where in Rust's own code that happened says nothing.
    let error = as_root(&program)
        .args(arguments)
        .env("RUST_BACKTRACE", "0")
        .exec();
    Err(error).context(program.display().to_string())
}

fn solve(id: &str) -> Result<u8> {
    let (chapter, exercise) = find_exercise(id)?;
    copy(chapter).solve(exercise)?;
    println!(
        "◐ {id} {}: our solution stands in {}",
        exercise.name,
        copy(chapter).source().display()
    );
    Ok(0)
}

fn reset(id: &str, yes: bool) -> Result<u8> {
    let (chapter, exercise) = match id.parse() {
        Ok(number) => (find(number)?, None),
        Err(_) => find_exercise(id).map(|(chapter, exercise)| (chapter, Some(exercise)))?,
    };
    let copy = copy(chapter);
    if !yes && copy.has_work()? {
        print!(
            "What you wrote in {} will be lost. Go on? [y/N] ",
            copy.source().display()
        );
        std::io::stdout().flush()?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            println!("Nothing was changed.");
            return Ok(1);
        }
    }
    copy.reset(exercise)?;
    println!("{id} is as it was at the beginning");
    Ok(0)
}

/// Checks what the learner wrote.
fn check(chapter: &'static Chapter) -> Result<u8> {
    let copy = copy(chapter);
    let states = copy.states(|program| examine_elsewhere(&this_program()?, chapter, program))?;
    println!("Chapter {}: {}", chapter.number, chapter.title);
    let mut told = false;
    for (state, report) in &states {
        println!("  {} {} {}", state.mark(), report.id, report.name);
        // One thing at a time: only the first that doesn't hold is told in full.
        if *state == State::NotYet && !told {
            tell(report);
            told = true;
        }
    }
    let to_do = states.iter().position(|(state, _)| *state == State::ToDo);
    let done = states
        .iter()
        .all(|(state, _)| matches!(state, State::Holds | State::Shown));
    match to_do {
        _ if done => println!("All hold."),
        Some(position) if !told => {
            let count = states
                .iter()
                .filter(|(state, _)| *state == State::ToDo)
                .count();
            let line = copy.line_of(&chapter.exercises[position]);
            let line = line.map_or(String::new(), |line| format!(", line {line}"));
            println!("{count} to do; begin with {}{line}", states[position].1.id);
        }
        _ => {}
    }
    Ok(if done { 0 } else { 1 })
}

fn find(number: usize) -> Result<&'static Chapter> {
    chapter(number).with_context(|| {
        format!("there is no chapter {number}\nhelp: `cargo progress list` has them all")
    })
}

fn list() -> Result<u8> {
    for chapter in CHAPTERS {
        println!("{}  {}: {}", chapter.number, chapter.package, chapter.title);
        for (position, exercise) in chapter.exercises.iter().enumerate() {
            let id = format!("{}.{}", chapter.number, position + 1);
            println!("   {id}  {:<14} {}", exercise.name, exercise.heart);
        }
    }
    Ok(0)
}

fn check_solution(number: Option<usize>, bin_dir: Option<&Path>) -> Result<u8> {
    let chapters = match number {
        Some(number) => std::slice::from_ref(find(number)?),
        None => CHAPTERS,
    };
    let programs = match bin_dir {
        Some(directory) => Programs::in_directory(directory)?,
        None => Programs::build()?,
    };
    let mut all_hold = true;
    for chapter in chapters {
        println!("Chapter {}: {}", chapter.number, chapter.title);
        let reports =
            examine_elsewhere(&this_program()?, chapter, programs.path(chapter.package)?)?;
        for report in &reports {
            let mark = if report.holds() {
                State::Holds
            } else {
                State::NotYet
            }
            .mark();
            println!("  {mark} {} {}", report.id, report.name);
            tell(report);
        }
        let holding = reports.iter().filter(|report| report.holds()).count();
        println!("{holding} of {} hold", chapter.exercises.len());
        all_hold &= holding == chapter.exercises.len();
    }
    Ok(if all_hold { 0 } else { 1 })
}

/// Runs the checks of a chapter. Everything that they make is in one folder, which goes away.
fn examine(chapter: &Chapter, program: PathBuf) -> Result<u8> {
    let scratch = tempfile::tempdir()?;
    let window = scratch.path().join("proc");
    std::fs::create_dir(&window)?;
    let none = None::<&str>;
    mount(none, &window, Some("proc"), MsFlags::empty(), none)
        .context("a procfs for the checks")?;
    read_proc_at(window.clone());
    let bench = Workbench {
        program,
        scratch: scratch.path().into(),
    };
    for (position, exercise) in chapter.exercises.iter().enumerate() {
        let report = Report::of(chapter, position, exercise, &bench);
        println!("{}", serde_json::to_string(&report)?);
    }
    umount2(&window, MntFlags::MNT_DETACH)?;
    Ok(0)
}

/// What was expected and what the kernel says, where these differ.
fn tell(report: &Report) {
    if let Some(error) = &report.error {
        println!("      {error}");
    }
    for claim in report.claims.iter().filter(|claim| !claim.holds) {
        println!("      expected  {}", claim.expected);
        println!("      seen      {}", claim.seen);
    }
}

/// A command for tests of signals. A shell's trap runs once for two signals that come close together;
/// a handler runs for each that is delivered.
fn count_interrupts() -> Result<u8> {
    extern "C" fn say_so(_: i32) {
        let line = b"interrupt\n";
        // SAFETY: write is async-signal-safe: signal-safety(7).
        unsafe { nix::libc::write(1, line.as_ptr().cast(), line.len()) };
    }
    // SAFETY: the handler makes one system call and touches nothing of ours.
    unsafe { signal(Signal::SIGINT, SigHandler::Handler(say_so))? };
    println!("ready");
    for line in std::io::stdin().lines() {
        println!("read {}", line?);
    }
    Ok(0)
}

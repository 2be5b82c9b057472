//! `cargo progress`: where you are in the course, and whether what you wrote holds.

mod learner;
mod watch;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use nix::sys::signal::{SigHandler, Signal, signal};
use progress::attacks::attacker;
use progress::chapters::find;
use progress::checks::examine;
use progress::checks::step09::Store;
use progress::course::Chapter;
use progress::course::attack::Prison;
use progress::course::workbench::on_workbench;
use progress::desk::board::room;
use progress::desk::doctor::doctor;
use progress::desk::editor::{Editor, configure};
use progress::desk::exercises::state_folder;
use progress::desk::xray::xray;
use progress::generate::generate;
use progress::host::apart::with_own_containers;
use progress::host::points::{self, Fault};
use progress::host::trace::Trace;
use progress::host::{Propagation, pretend, supervise};
use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use step01_uts::program;

/// Where you are in the course, and whether what you wrote holds
#[derive(Parser)]
#[command(version, name = "progress", bin_name = "cargo progress")]
#[command(after_help = "○ to do   ✗ not yet   ✓ holds   ◐ shown: our solution stands there")]
struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand)]
enum Action {
    /// List the chapters and their exercises
    List,

    /// Say chapter by chapter what this machine has and lacks
    Doctor,

    /// Begin a chapter: write its exercises to exercises/
    Start {
        /// The chapter's number
        #[arg(value_parser = chapter_number)]
        chapter: usize,
    },

    /// Run your own program of a chapter, on a pretend host
    Run {
        /// The chapter's number
        #[arg(value_parser = chapter_number)]
        chapter: usize,

        /// Its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },

    /// A shell on a pretend host, where your own program of a chapter is called by its name
    Shell {
        /// The chapter's number
        #[arg(value_parser = chapter_number)]
        chapter: usize,

        /// The shell's arguments, as -c COMMANDS
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },

    /// Check the exercises of a chapter against what the kernel says
    Check {
        /// The chapter's number
        #[arg(value_name = "CHAPTER", value_parser = chapter_number, required_unless_present = "all")]
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

    /// Check again whenever you save; a key does the rest
    Watch {
        /// The chapter's number; without one the last that was started
        #[arg(value_parser = chapter_number)]
        chapter: Option<usize>,
    },

    /// Give a hint, and a better one each time: three an exercise
    Hint {
        /// The exercise, or a chapter: its first that isn't done
        #[arg(value_name = "CHAPTER|EXERCISE")]
        id: String,
    },

    /// Show your system calls beside our solution's
    Trace {
        /// The exercise, or a chapter: its first that isn't done
        #[arg(value_name = "CHAPTER|EXERCISE")]
        id: String,
    },

    /// Fill one hole with our solution; it then counts as shown
    Solve {
        /// The exercise: 4.2 is the second of chapter 4
        #[arg(value_name = "EXERCISE")]
        id: String,
    },

    /// Show what differs between your functions and ours
    Diff {
        /// The chapter, or the exercise: 4 or 4.2
        #[arg(value_name = "CHAPTER|EXERCISE")]
        id: String,

        /// Don't ask before an answer is told
        #[arg(long)]
        yes: bool,
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

    /// Make the attack of a chapter, which works before it and fails at its end
    Attack {
        /// The chapter's number
        #[arg(value_parser = chapter_number)]
        chapter: usize,

        /// From a container of the chapter's own step, instead of the step before
        #[arg(long)]
        solution: bool,
    },

    /// Lay a container beside the host: namespaces, root, mounts, limits, privileges
    Xray {
        /// A process of the container
        pid: i32,
    },

    /// Have an editor know the exercises
    Editor {
        /// Which one
        editor: Editor,
    },

    /// Print one line that says how far you are, to be pasted anywhere
    Card {
        /// The name on it, instead of the user's
        #[arg(long)]
        name: Option<String>,
    },

    /// Read cards, a line each, and show where people are
    Room,

    /// Run a command on a pretend host
    #[command(hide = true)]
    PretendHost {
        #[arg(long, default_value = "shared")]
        propagation: Propagation,
        #[arg(required = true, trailing_var_arg = true)]
        command: Vec<String>,
    },

    /// Run a command with containers of its own, on a pretend host
    #[command(hide = true)]
    WithOwnContainers {
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
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

    /// What an attacker tries: all system calls, or one of the others
    #[command(hide = true)]
    Attacker {
        #[command(subcommand)]
        what: Attempt,
    },

    /// Run a chapter's checks right here, and print a report as one line of JSON for each
    #[command(hide = true)]
    Examine {
        chapter: usize,
        program: PathBuf,
        #[arg(long)]
        only: Option<usize>,
        #[arg(long)]
        broken: Option<PathBuf>,
    },

    /// Trace a program in an exercise's scenes, and print each trace as a line of JSON
    #[command(hide = true)]
    Record {
        chapter: usize,
        exercise: usize,
        program: PathBuf,
    },

    /// Write what the book has from the programs themselves
    #[command(hide = true)]
    Generate,

    /// Run a command in which one process is killed, or has a call fail, at a point
    #[command(hide = true)]
    StrikeAt {
        role: usize,
        point: u64,
        /// 0: it is killed
        errno: i32,
        folder: PathBuf,
        #[arg(required = true, trailing_var_arg = true)]
        command: Vec<String>,
    },

    /// Make a chapter's attack right here, from a container of a step's program
    #[command(hide = true)]
    Strike {
        chapter: usize,
        step: usize,
        program: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    // Rust ignores SIGPIPE, and `progress check 1 | head` would end in a panic.
    // SAFETY: the default action is no handler of ours.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
    program(|args: Args| match args.action {
        None => learner::where_you_are(),
        Some(Action::List) => learner::list(),
        Some(Action::Doctor) => doctor(),
        Some(Action::Start { chapter }) => learner::start(find(chapter)?),
        Some(Action::Run { chapter, arguments }) => learner::run(find(chapter)?, &arguments),
        Some(Action::Shell { chapter, arguments }) => learner::shell(find(chapter)?, &arguments),
        Some(Action::Check {
            chapter,
            all: _,
            solution,
            bin_dir,
        }) => match (chapter, solution || bin_dir.is_some()) {
            (number, true) => learner::check_solution(number, bin_dir.as_deref()),
            (Some(number), false) => learner::check(find(number)?),
            (None, false) => bail!("name a chapter\nhelp: --all goes with --solution"),
        },
        Some(Action::Watch { chapter }) => {
            watch::watch(chapter.map_or(Ok(learner::current()), find)?)
        }
        Some(Action::Hint { id }) => learner::hint(&id),
        Some(Action::Trace { id }) => learner::trace(&id),
        Some(Action::Solve { id }) => learner::solve(&id),
        Some(Action::Diff { id, yes }) => learner::diff(&id, yes),
        Some(Action::Reset { id, yes }) => learner::reset(&id, yes),
        Some(Action::Attack { chapter, solution }) => learner::attack(find(chapter)?, solution),
        Some(Action::Xray { pid }) => xray(pid),
        Some(Action::Editor { editor }) => configure(editor),
        Some(Action::Card { name }) => learner::card(name),
        Some(Action::Room) => {
            if std::io::stdin().is_terminal() {
                eprintln!("Paste the cards, a line each; then press Ctrl-D.");
            }
            let lines = std::io::read_to_string(std::io::stdin())?;
            room(&lines).iter().for_each(|line| println!("{line}"));
            Ok(0)
        }
        Some(Action::PretendHost {
            propagation,
            command,
        }) => pretend(propagation, &command),
        Some(Action::WithOwnContainers { command }) => {
            with_own_containers(&state_folder(), &command)
        }
        Some(Action::Supervise { command }) => supervise(&command),
        Some(Action::CountInterrupts) => count_interrupts(),
        Some(Action::Attacker { what }) => Ok(attempt(what)),
        Some(Action::Examine {
            chapter,
            program,
            only,
            broken,
        }) => {
            examine(find(chapter)?, &program, only, broken, |report| {
                println!("{}", serde_json::to_string(report)?);
                Ok(())
            })?;
            Ok(0)
        }
        Some(Action::Generate) => generate(),
        Some(Action::Record {
            chapter,
            exercise,
            program,
        }) => record(find(chapter)?, exercise, program),
        Some(Action::StrikeAt {
            role,
            point,
            errno,
            folder,
            command,
        }) => {
            let fault = match errno {
                0 => Fault::Kill,
                errno => Fault::Error(errno),
            };
            let mut program = Command::new(&command[0]);
            let struck = points::strike(program.args(&command[1..]), role, point, fault, &folder)?;
            println!("{}", serde_json::to_string(&struck)?);
            Ok(0)
        }
        Some(Action::Strike {
            chapter,
            step,
            program,
        }) => strike(find(chapter)?, step, program),
    })
}

/// A chapter's number, also by one of its exercises: 4 or 4.2.
fn chapter_number(text: &str) -> Result<usize, String> {
    let number = text
        .split('.')
        .next()
        .and_then(|number| number.parse().ok());
    number.ok_or_else(|| "a chapter is named by its number, such as 4".into())
}

/// Traces `program` in the scenes of an exercise.
fn record(chapter: &Chapter, position: usize, program: PathBuf) -> Result<u8> {
    let exercise = chapter
        .exercises
        .get(position)
        .context("no such exercise")?;
    on_workbench(&program, None, |bench| {
        for scene in exercise.scenes {
            let mut words = bench.words(scene)?;
            // A scene that looks into a container has one, which is removed after it.
            let store = Store::new(bench, "scene");
            let container = words.iter().position(|word| word == "{box}");
            if let Some(at) = container {
                let state = bench.scratch.join("scene").display().to_string();
                let id = store.start(&[], &["sleep", "1000"])?;
                words.splice(at..=at, ["--state-dir".into(), state, id]);
            }
            let mut trace = Trace::of(&bench.program, &words)?;
            if container.is_some() {
                trace.leave_out_the_relay();
            }
            // Where that lies is different each time.
            let scratch = bench.scratch.display().to_string();
            let calls = trace.0.iter_mut().flatten();
            calls.for_each(|call| call.arguments = call.arguments.replace(&scratch, "/tmp/check"));
            println!("{}", serde_json::to_string(&trace)?);
        }
        Ok(0)
    })
}

/// Makes an attack from a container of the step `step`, or from none.
fn strike(chapter: &Chapter, step: usize, program: Option<PathBuf>) -> Result<u8> {
    let open = program.is_none();
    on_workbench(&program.unwrap_or_default(), None, |bench| {
        let root_flag = match step {
            ..FIRST_WITH_ROOT => None,
            FIRST_WITH_ROOT..FIRST_WITH_LAYERS => Some("--rootfs"),
            _ => Some("--image"),
        };
        let blow = (chapter.attack.make)(&Prison {
            bench,
            open,
            root_flag,
            step,
        })?;
        println!("{}", serde_json::to_string(&blow)?);
        Ok(0)
    })
}

/// The first step whose container has a root filesystem of its own.
const FIRST_WITH_ROOT: usize = 4;

/// The first whose root lies below layers.
const FIRST_WITH_LAYERS: usize = 8;

/// The attacker's tools.
#[derive(Subcommand)]
enum Attempt {
    /// All system calls
    Calls,
    /// Type into the terminal
    Type { words: String },
    /// Climb out of a chroot, and look for a file of the host
    Climb { marker: PathBuf },
    /// Say which user it is
    User,
    /// Take memory
    Memory { bytes: usize },
    /// Make directories within each other, and fail
    Dig { levels: usize },
    /// Take back what was written, so that who reads it waits for ever
    TakeBack {
        /// How often to try
        turns: usize,
        /// Where to write what came of it
        note: PathBuf,
    },
    /// Put a key into a session keyring that everybody may have, and become a command
    HoldKey {
        /// The keyring's name; one without a name, if it is empty
        keyring: String,
        #[arg(trailing_var_arg = true, required = true)]
        command: Vec<OsString>,
    },
    /// Say whether that key is in this process's session keyring
    FindKey,
}

fn attempt(what: Attempt) -> u8 {
    match what {
        Attempt::Calls => attacker::try_all(),
        Attempt::Type { words } => {
            let typed = attacker::type_into_the_terminal(&words);
            println!("typed {typed} of {}", words.len());
        }
        Attempt::Climb { marker } => println!("climbed: {}", attacker::climb(&marker)),
        Attempt::User => println!("euid {}", attacker::effective_user()),
        Attempt::Dig { levels } => {
            println!("dug {:?}", attacker::dig(levels));
            return 7;
        }
        Attempt::Memory { bytes } => attacker::take_memory(bytes),
        Attempt::TakeBack { turns, note } => {
            return attacker::take_back(turns, &note).map_or(1, |()| 0);
        }
        Attempt::HoldKey { keyring, command } => {
            println!("{:?}", attacker::hold_key(&keyring, &command));
            return 1;
        }
        Attempt::FindKey => println!("{}", attacker::find_key()),
    }
    0
}

/// A command for tests of signals. A shell's trap runs once for two signals that come close together;
/// a handler runs for each that is delivered.
fn count_interrupts() -> Result<u8> {
    extern "C" fn say_so(_: i32) {
        let line = b"interrupt\n";
        // SAFETY: write is async-signal-safe: signal-safety(7).
        unsafe { libc::write(1, line.as_ptr().cast(), line.len()) };
    }
    // SAFETY: the handler makes one system call and touches nothing of ours.
    unsafe { signal(Signal::SIGINT, SigHandler::Handler(say_so))? };
    println!("ready");
    for line in std::io::stdin().lines() {
        println!("read {}", line?);
    }
    Ok(0)
}

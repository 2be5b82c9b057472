//! `cargo progress`: where you are in the course, and whether what you wrote holds.

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::geteuid;
use progress::checks::{Report, Workbench};
use progress::course::{CHAPTERS, Chapter, chapter};
use progress::host::{Propagation, pretend, supervise, this_program};
use progress::programs::{Programs, workspace};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use step01_uts::program;

/// Where you are in the course, and whether what you wrote holds
#[derive(Parser)]
#[command(version, name = "progress")]
struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// List the chapters and their exercises
    List,

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
        Action::List => list(),
        Action::Check {
            chapter: number,
            all: _,
            solution,
            bin_dir,
        } => {
            if !solution {
                bail!("only our solution can be checked so far\nhelp: add --solution");
            }
            check(number, bin_dir.as_deref())
        }
        Action::PretendHost {
            propagation,
            command,
        } => pretend(propagation, &command),
        Action::Supervise { command } => supervise(&command),
        Action::CountInterrupts => count_interrupts(),
        Action::Examine { chapter, program } => examine(find(chapter)?, program),
    })
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

fn check(number: Option<usize>, bin_dir: Option<&Path>) -> Result<u8> {
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
        let reports = examine_elsewhere(chapter, programs.path(chapter.package)?)?;
        reports.iter().for_each(show);
        let holding = reports.iter().filter(|report| report.holds()).count();
        println!("{holding} of {} hold", chapter.exercises.len());
        all_hold &= holding == chapter.exercises.len();
    }
    Ok(if all_hold { 0 } else { 1 })
}

/// Has the checks of a chapter run by another process of this program, on a pretend host; as root,
/// through sudo where that is needed.
fn examine_elsewhere(chapter: &Chapter, step: &Path) -> Result<Vec<Report>> {
    let progress = this_program()?;
    let mut examiner = match geteuid().is_root() {
        true => Command::new(&progress),
        false => {
            let mut sudo = Command::new(workspace().join(".cargo/as-root"));
            sudo.arg("--always").arg(&progress);
            sudo
        }
    };
    let output = examiner
        .args(["pretend-host", "--"])
        .arg(&progress)
        .args(["examine", &chapter.number.to_string()])
        .arg(step)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    let reports = serde_json::Deserializer::from_slice(&output.stdout).into_iter();
    let reports: Vec<Report> = reports.collect::<Result<_, _>>()?;
    if reports.len() != chapter.exercises.len() {
        bail!(
            "the checks ended before they were through: {}",
            output.status
        );
    }
    Ok(reports)
}

/// Runs the checks of a chapter. Everything that they make is in one folder, which goes away.
fn examine(chapter: &Chapter, program: PathBuf) -> Result<u8> {
    let scratch = tempfile::tempdir()?;
    let root = scratch.path().join("root");
    let made = Command::new(workspace().join("rootfs-scripts/from-host.sh"))
        .arg(&root)
        .status()?;
    if !made.success() {
        bail!("no root filesystem could be made: {made}");
    }
    let bench = Workbench {
        program,
        root,
        scratch: scratch.path().into(),
    };
    for (position, exercise) in chapter.exercises.iter().enumerate() {
        let report = Report::of(chapter, position, exercise, &bench);
        println!("{}", serde_json::to_string(&report)?);
    }
    Ok(0)
}

fn show(report: &Report) {
    let mark = if report.holds() { '✓' } else { '✗' };
    println!("  {mark} {} {}", report.id, report.name);
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

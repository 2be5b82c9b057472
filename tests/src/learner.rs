//! What a learner does in a chapter: from `start` to the attack that fails.

use anyhow::{Context, Result, bail};
use nix::unistd::{User, geteuid};
use progress::chapters::{CHAPTERS, chapter, find, find_exercise};
use progress::checks::report::Report;
use progress::checks::{elsewhere, examine_elsewhere};
use progress::course::attack::Blow;
use progress::course::regions::is_hole;
use progress::course::{Chapter, Exercise};
use progress::desk::board::{Board, Card};
use progress::desk::exercises::{Author, Copy, Standing};
use progress::host::trace::{Trace, beside};
use progress::host::{as_root, this_program};
use progress::programs::{Programs, workspace};
use similar::{ChangeTag, TextDiff};
use std::io::{BufRead, IsTerminal, Write};
use std::ops::RangeInclusive;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder of the learner's copies.
pub fn exercises() -> PathBuf {
    let folder = std::env::var_os("TEN_STEPS_EXERCISES");
    folder.map_or_else(|| workspace().join("exercises"), PathBuf::from)
}

/// The learner's copy of a chapter.
pub fn copy(chapter: &'static Chapter) -> Copy {
    Copy::of(chapter, &exercises())
}

/// `path` as a terminal makes a link of it: short where it can be.
fn short(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here)
        .unwrap_or(path)
        .display()
        .to_string()
}

/// Where an exercise is: `exercises/step01-uts/src/lib.rs:43`, or its broken roots.
fn place(copy: &Copy, exercise: &Exercise) -> String {
    match copy.line_of(exercise) {
        Some(line) => format!("{}:{line}", short(&copy.source())),
        None if copy.written(exercise).is_err() => {
            format!("{} (its anchors are gone)", short(&copy.source()))
        }
        None => short(copy.repairs().folder()),
    }
}

/// Bare: where you are, and the next command.
pub fn where_you_are() -> Result<u8> {
    let board = Board::read(&exercises())?;
    let started: Vec<_> = CHAPTERS
        .iter()
        .filter(|chapter| copy(chapter).exists())
        .collect();
    if started.is_empty() {
        println!("No chapter has been started yet.");
        println!("next: cargo progress start 1   (is this machine ready? cargo progress doctor)");
        return Ok(0);
    }
    for chapter in &started {
        let copy = copy(chapter);
        println!("Chapter {}: {}", chapter.number, chapter.title);
        let states = board.states(chapter, &copy);
        for (position, state) in states.iter().enumerate() {
            let exercise = &chapter.exercises[position];
            let id = chapter.id(position);
            println!(
                "  {} {id} {:<14} {}",
                state.mark(),
                exercise.name,
                place(&copy, exercise)
            );
        }
    }
    println!("{}", what_next(&board));
    Ok(0)
}

/// What to type next, in a line: what is left of the first chapter that is begun and not done, or the chapter behind them.
fn what_next(board: &Board) -> String {
    let started = || CHAPTERS.iter().filter(|chapter| copy(chapter).exists());
    let is_left = |chapter: &&'static Chapter| {
        let states = board.states(chapter, &copy(chapter));
        states.iter().any(|state| !state.is_done())
    };
    if let Some(chapter) = started().find(is_left) {
        return format!("next: cargo progress check {}", chapter.number);
    }
    // Somebody may have begun in the middle: what comes next comes after it.
    let last = started().next_back().map_or(0, |chapter| chapter.number);
    match CHAPTERS.iter().find(|chapter| chapter.number > last) {
        Some(after) => format!("next: cargo progress start {}", after.number),
        None => "All chapters are done.".into(),
    }
}

/// All chapters and exercises, and how far you are with each.
pub fn list() -> Result<u8> {
    let board = Board::read(&exercises())?;
    for chapter in CHAPTERS {
        println!("{}  {}: {}", chapter.number, chapter.package, chapter.title);
        let states = board.states(chapter, &copy(chapter));
        for (position, exercise) in chapter.exercises.iter().enumerate() {
            let (mark, id) = (states[position].mark(), chapter.id(position));
            println!("   {mark} {id}  {:<14} {}", exercise.name, exercise.heart);
        }
    }
    Ok(0)
}

pub fn start(chapter: &'static Chapter) -> Result<u8> {
    let copy = copy(chapter);
    if let Some(former) = copy.start()? {
        let former = short(&former);
        println!(
            "This chapter has changed since you began it. What you wrote in its exercises is carried over;"
        );
        println!("all else that you changed is kept in {former}");
        println!("next: cargo progress check {}", chapter.number);
        return Ok(0);
    }
    println!("Chapter {}: {}", chapter.number, chapter.title);
    for (position, exercise) in chapter.exercises.iter().enumerate() {
        let (mark, id) = (Standing::ToDo.mark(), chapter.id(position));
        println!(
            "  {mark} {id} {:<14} {}",
            exercise.name,
            place(&copy, exercise)
        );
    }
    println!("read: book/src/{}", chapter.page);
    println!(
        "next: write the first, then cargo progress check {}",
        chapter.number
    );
    Ok(0)
}

/// Runs the learner's program on a pretend host, which takes what it does wrong.
pub fn run(chapter: &'static Chapter, arguments: &[String]) -> Result<u8> {
    let program = own_program(chapter)?;
    let error = pretend(chapter)?.arg(&program).args(arguments).exec();
    Err(error).context(program.display().to_string())
}

/// A shell on a pretend host, in which the learner's program is called by its name: for several commands on one container.
pub fn shell(chapter: &'static Chapter, arguments: &[String]) -> Result<u8> {
    let program = own_program(chapter)?;
    let folder = program.parent().unwrap_or(Path::new("/")).display();
    let path = std::env::var("PATH").unwrap_or_default();
    // Without jobs of its own: it would look for the terminal's process group, which is outside.
    let error = pretend(chapter)?
        .args(["env", &format!("PATH={folder}:{path}"), "sh", "+m"])
        .args(arguments)
        .exec();
    Err(error).context("sh")
}

/// The chapters whose containers are written down in the folder of all containers. Those of an OCI runtime are their
/// caller's, who deletes them.
const WITH_RECORDS: RangeInclusive<usize> = 9..=11;

/// What runs the words behind it on a pretend host of its own. A container that is written down leaves nothing on this one.
fn pretend(chapter: &Chapter) -> Result<Command> {
    let mut command = as_root(&this_program()?);
    command.args(["pretend-host", "--"]);
    if WITH_RECORDS.contains(&chapter.number) {
        command
            .arg(this_program()?)
            .args(["with-own-containers", "--"]);
    }
    // Where in Rust's own code a panic happened says nothing.
    command.env("RUST_BACKTRACE", "0");
    Ok(command)
}

/// Builds the learner's program, and says so.
fn own_program(chapter: &'static Chapter) -> Result<PathBuf> {
    let copy = copy(chapter);
    copy.require()?;
    // Our solution stands in where there is a hole, so that what is written can be tried.
    let is_hole = |exercise: &&Exercise| copy.written(exercise).is_ok_and(|body| is_hole(&body));
    let holes: Vec<_> = chapter
        .exercises
        .iter()
        .filter(is_hole)
        .map(|hole| hole.name)
        .collect();
    let program = copy.build(|name| match holes.contains(&name) {
        true => Author::Solution,
        false => Author::Learner,
    })?;
    let ours = match holes.is_empty() {
        true => String::new(),
        false => format!("; still ours: {}", holes.join(", ")),
    };
    eprintln!("(your own {}, on a pretend host{ours})", chapter.package);
    Ok(program)
}

pub fn solve(id: &str) -> Result<u8> {
    let (chapter, exercise) = find_exercise(id)?;
    let copy = copy(chapter);
    copy.solve(exercise)?;
    let mut board = Board::read(&exercises())?;
    board.note(id, Standing::Shown, copy.written(exercise)?);
    board.write()?;
    let (mark, place) = (Standing::Shown.mark(), place(&copy, exercise));
    println!(
        "{mark} {id} {}: our solution stands in {place}",
        exercise.name
    );
    Ok(0)
}

/// Asks a question that `y` answers; without a terminal nobody can.
fn agreed(question: &str) -> Result<bool> {
    print!("{question} [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if !std::io::stdin().is_terminal() {
        println!();
    }
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

pub fn reset(id: &str, yes: bool) -> Result<u8> {
    let (chapter, exercise) = match id.parse() {
        Ok(number) => (find(number)?, None),
        Err(_) => find_exercise(id).map(|(chapter, exercise)| (chapter, Some(exercise)))?,
    };
    let copy = copy(chapter);
    let file = short(&copy.source());
    // What was done to the broken roots is work, too.
    let repaired = exercise.is_none_or(|exercise| exercise.name == "repair")
        && chapter
            .exercises
            .iter()
            .any(|exercise| exercise.name == "repair")
        && copy.repairs().exist();
    let file = match repaired {
        true => format!("{file} and in {}", short(copy.repairs().folder())),
        false => file,
    };
    if !yes
        && copy.exists()
        && (copy.has_work()? || repaired)
        && !agreed(&format!("What you wrote in {file} will be lost. Go on?"))?
    {
        println!("Nothing was changed.");
        return Ok(1);
    }
    copy.reset(exercise)?;
    let mut board = Board::read(&exercises())?;
    board.forget(&exercise.map_or(format!("{id}."), |_| id.to_owned()));
    board.write()?;
    println!("{id} is as it was at the beginning");
    Ok(0)
}

/// The learner's states, checked on a pretend host and written to the board.
pub fn examined(chapter: &'static Chapter) -> Result<Vec<(Standing, Report)>> {
    let copy = copy(chapter);
    let repairs = copy.repairs();
    let states = copy.states(|program, only| {
        let broken = repairs.exist().then(|| repairs.folder());
        examine_elsewhere(&this_program()?, chapter, program, only, broken)
    })?;
    let mut board = Board::read(&exercises())?;
    for ((state, report), exercise) in states.iter().zip(chapter.exercises) {
        board.note(&report.id, *state, copy.written(exercise)?);
    }
    board.write()?;
    Ok(states)
}

/// Checks what the learner wrote.
pub fn check(chapter: &'static Chapter) -> Result<u8> {
    let copy = copy(chapter);
    let states = examined(chapter)?;
    println!("Chapter {}: {}", chapter.number, chapter.title);
    let mut told = false;
    for (position, (state, report)) in states.iter().enumerate() {
        let exercise = &chapter.exercises[position];
        let place = match state {
            _ if state.is_done() => String::new(),
            Standing::NotYet if told => format!(
                " {}  (more when the one above holds)",
                place(&copy, exercise)
            ),
            _ => format!(" {}", place(&copy, exercise)),
        };
        let line = format!(
            "  {} {} {:<14}{place}",
            state.mark(),
            report.id,
            report.name
        );
        println!("{}", line.trim_end());
        // One thing at a time: only the first that doesn't hold is told in full.
        if *state == Standing::NotYet && !told {
            let text = report.text(chapter, exercise);
            // For a terminal to make a link of.
            print!(
                "{}",
                text.replace(" src/lib.rs:", &format!(" {}:", short(&copy.source())))
            );
            told = true;
        }
    }
    let to_do: Vec<_> = (0..states.len())
        .filter(|&at| states[at].0 == Standing::ToDo)
        .collect();
    if states.iter().all(|(state, _)| state.is_done()) {
        return finish(chapter);
    }
    match to_do.first() {
        Some(&first) if !told => {
            let exercise = &chapter.exercises[first];
            let line = copy.line_of(exercise);
            let line = line.map_or(String::new(), |line| format!(", line {line}"));
            println!(
                "{} to do; begin with {}{line}",
                to_do.len(),
                chapter.id(first)
            );
        }
        _ => {}
    }
    Ok(1)
}

/// All hold: the chapter's attack against the learner's own program, and what comes next.
fn finish(chapter: &'static Chapter) -> Result<u8> {
    println!("All hold.");
    let attack = &chapter.attack;
    let program = copy(chapter).build(|_| Author::Learner)?;
    let blow = strike(chapter, Some(&program))?;
    println!();
    println!("The attack, against your own program: {}", attack.command);
    if blow.struck {
        println!("  ✗ it works: {}", blow.seen);
        println!(
            "  That should not be. Please report it, with your {}.",
            chapter.package
        );
        return Ok(1);
    }
    println!("  ✓ it fails: {}", blow.seen);
    println!("What you have learnt:");
    for line in attack.learnt {
        println!("  - {line}");
    }
    println!("What runtimes do beyond it: {}.", attack.beyond);
    println!("The hole that is left: {}.", attack.next);
    if let Some(next) = progress::chapters::chapter(chapter.number + 1) {
        let verb = if copy(next).exists() {
            "check"
        } else {
            "start"
        };
        println!("next: cargo progress {verb} {}", next.number);
    }
    Ok(0)
}

/// Makes the attack of a chapter on a pretend host, from a container of `program`, or from no
/// container at all.
fn strike(chapter: &Chapter, program: Option<&Path>) -> Result<Blow> {
    strike_from(chapter, chapter.number, program)
}

fn strike_from(chapter: &Chapter, step: usize, program: Option<&Path>) -> Result<Blow> {
    let (number, step) = (chapter.number.to_string(), step.to_string());
    let program = program.map(Path::to_string_lossy);
    let mut words = vec!["strike", &number, &step];
    words.extend(program.as_deref());
    let mut blows: Vec<Blow> = elsewhere(&this_program()?, &words)?;
    blows.pop().context("the attack said nothing")
}

/// Makes the attack of a chapter: it works with the step before, and fails with the chapter's own.
pub fn attack(chapter: &'static Chapter, solution: bool) -> Result<u8> {
    let step = match solution {
        true => chapter.number,
        false => chapter.number - 1,
    };
    let package = progress::chapters::chapter(step).map(|chapter| chapter.package);
    let programs = package.map(|package| Programs::build(&[package]));
    let programs = programs.transpose()?;
    let program = programs.as_ref().zip(package);
    let program = program.map(|(programs, package)| programs.path(package));
    let program = program.transpose()?;
    println!(
        "In {}:",
        package.map_or("no container".into(), |name| format!(
            "a container of {name}"
        ))
    );
    // Without a prompt: whoever copies the line into a shell of the host would make the attack there.
    println!("  the attacker types: {}", chapter.attack.command);
    let blow = strike_from(chapter, step, program)?;
    match blow.struck {
        true => println!("It works: {}.", chapter.attack.aim),
        false => println!("It fails."),
    }
    println!("  {}", blow.seen);
    Ok(u8::from(blow.struck == solution))
}

/// The next of three hints for an exercise, or for the first one that isn't done.
pub fn hint(id: &str) -> Result<u8> {
    let (chapter, position) = exercise_or_first(id)?;
    let (exercise, id) = (&chapter.exercises[position], chapter.id(position));
    let mut board = Board::read(&exercises())?;
    if board.state(chapter, position, &copy(chapter)).is_done() {
        println!("{id} {} is done.", exercise.name);
        println!("{}", what_next(&board));
        return Ok(0);
    }
    let number = board.next_hint(&id);
    board.write()?;
    println!("{id} {}, hint {number} of 3", exercise.name);
    match number {
        1 => println!("  {}", exercise.hints[0]),
        2 if exercise.scenes.is_empty() => {
            println!("  Try it and look: {}", exercise.show);
            println!("  And read: {}", exercise.read);
        }
        2 => drop(compare(&id, true)?),
        _ => println!("  {}", exercise.hints[1]),
    }
    match number {
        3 => println!("Still stuck? cargo progress solve {id} fills the hole with our solution."),
        _ => println!("More: cargo progress hint {id}"),
    }
    Ok(0)
}

/// The exercise that `id` names, or the first of chapter `id` that isn't done.
fn exercise_or_first(id: &str) -> Result<(&'static Chapter, usize)> {
    if let Ok(number) = id.parse() {
        let chapter = find(number)?;
        let states = Board::read(&exercises())?.states(chapter, &copy(chapter));
        let first = states.iter().position(|state| !state.is_done());
        return Ok((chapter, first.unwrap_or(0)));
    }
    let (chapter, wanted) = find_exercise(id)?;
    let position = chapter
        .exercises
        .iter()
        .position(|exercise| exercise.name == wanted.name);
    Ok((chapter, position.unwrap_or(0)))
}

/// The learner's system calls beside the solution's.
pub fn trace(id: &str) -> Result<u8> {
    compare(id, false)
}

/// The same; for a hint each process only down to its first difference, since what comes behind may be the next
/// exercise's.
fn compare(id: &str, is_hint: bool) -> Result<u8> {
    let (chapter, position) = exercise_or_first(id)?;
    let exercise = &chapter.exercises[position];
    if exercise.scenes.is_empty() {
        bail!(
            "the calls of {} {} aren't shown: no run of the program shows what matters in it\nhelp: {}",
            chapter.id(position),
            exercise.name,
            exercise.show
        );
    }
    copy(chapter).require()?;
    let programs = Programs::build(&[chapter.package])?;
    let ours = programs.path(chapter.package)?;
    let alone = |name: &str| match name == exercise.name {
        true => Author::Learner,
        false => Author::Solution,
    };
    let theirs = copy(chapter).build(alone)?;
    let [of_chapter, of_exercise] = [chapter.number, position].map(|number| number.to_string());
    let trace_of = |program: &Path| -> Result<Vec<Trace>> {
        let words = [
            "record",
            &of_chapter,
            &of_exercise,
            &program.to_string_lossy(),
        ];
        elsewhere(&this_program()?, &words)
    };
    let (left, right) = (trace_of(&theirs)?, trace_of(ours)?);
    let width = columns().saturating_sub(5) / 2;
    let mut same = true;
    println!("{:<width$}   our solution", "  yours");
    for (scene, (left, right)) in exercise.scenes.iter().zip(left.iter().zip(&right)) {
        println!("$ {} {}", chapter.package, scene.join(" "));
        let (lines, equal) = beside(left, right, width);
        let mut differs = false;
        for line in lines {
            // The name of a process begins at the margin.
            differs &= line.starts_with([' ', '>']);
            if !(is_hint && differs) {
                println!("{line}");
            }
            differs |= line.starts_with('>');
        }
        same &= equal;
        if is_hint && !equal {
            break;
        }
    }
    let board = Board::read(&exercises())?;
    let is_refused = board.state(chapter, position, &copy(chapter)) == Standing::NotYet;
    match same {
        true if is_refused => println!(
            "The same calls, all the way. What the check has seen shows in another run than these."
        ),
        true => println!("The same calls, all the way."),
        false => println!("`>` marks the first line that differs."),
    }
    Ok(u8::from(!same))
}

/// As wide as the terminal is, or as a page.
fn columns() -> usize {
    let columns = std::env::var("COLUMNS").ok();
    let given = columns.and_then(|columns| columns.parse().ok());
    given.unwrap_or(120).clamp(60, 200)
}

/// What the learner wrote against our solution. Before it holds, that tells the answer: so it asks.
pub fn diff(id: &str, yes: bool) -> Result<u8> {
    let (chapter, only) = match id.parse() {
        Ok(number) => (find(number)?, None),
        Err(_) => find_exercise(id).map(|(chapter, exercise)| (chapter, Some(exercise)))?,
    };
    let copy = copy(chapter);
    let board = Board::read(&exercises())?;
    for (position, exercise) in chapter.exercises.iter().enumerate() {
        if only.is_some_and(|only| only.name != exercise.name) {
            continue;
        }
        let id = chapter.id(position);
        let (theirs, ours) = (copy.written(exercise)?, copy.ours(exercise)?);
        if ours.is_empty() {
            continue;
        }
        let done = board.state(chapter, position, &copy).is_done();
        let question = format!(
            "{id} {} doesn't hold yet. Show our solution?",
            exercise.name
        );
        if !done && !yes && !agreed(&question)? {
            continue;
        }
        if theirs == ours {
            println!("{id} {}: no difference", exercise.name);
            continue;
        }
        println!("{id} {}: - yours, + ours", exercise.name);
        for change in TextDiff::from_lines(&theirs, &ours).iter_all_changes() {
            let sign = match change.tag() {
                ChangeTag::Delete => '-',
                ChangeTag::Insert => '+',
                ChangeTag::Equal => ' ',
            };
            print!("{sign}{change}");
        }
    }
    Ok(0)
}

/// One line that says how far this learner is.
pub fn card(name: Option<String>) -> Result<u8> {
    let board = Board::read(&exercises())?;
    let user = || Some(User::from_uid(geteuid()).ok()??.name);
    let name = name.or_else(|| std::env::var("USER").ok()).or_else(user);
    let name = name.unwrap_or_else(|| "somebody".into());
    let card = Card {
        name: name.split_whitespace().collect::<Vec<_>>().join("-"),
        chapters: CHAPTERS
            .iter()
            .map(|chapter| board.states(chapter, &copy(chapter)))
            .collect(),
    };
    println!("{}", card.line());
    Ok(0)
}

/// Checks our own solution of one chapter, or of all.
pub fn check_solution(number: Option<usize>, bin_dir: Option<&Path>) -> Result<u8> {
    let chapters = match number {
        Some(number) => std::slice::from_ref(find(number)?),
        None => CHAPTERS,
    };
    let programs = match bin_dir {
        Some(directory) => Programs::in_directory(directory)?,
        None => Programs::build(number.map(|_| chapters[0].package).as_slice())?,
    };
    let mut all_hold = true;
    for chapter in chapters {
        println!("Chapter {}: {}", chapter.number, chapter.title);
        let program = programs.path(chapter.package)?;
        let reports = examine_elsewhere(&this_program()?, chapter, program, None, None)?;
        for (report, exercise) in reports.iter().zip(chapter.exercises) {
            let state = match report.holds() {
                true => Standing::Holds,
                false => Standing::NotYet,
            };
            println!("  {} {} {}", state.mark(), report.id, report.name);
            print!("{}", report.text(chapter, exercise));
        }
        let holding = reports.iter().filter(|report| report.holds()).count();
        println!("{holding} of {} hold", chapter.exercises.len());
        all_hold &= holding == chapter.exercises.len();
    }
    Ok(u8::from(!all_hold))
}

/// The chapter of the next exercise to do: what `watch` begins with when nothing is named.
pub fn current() -> &'static Chapter {
    let started = CHAPTERS.iter().rfind(|chapter| copy(chapter).exists());
    started.or_else(|| chapter(1)).unwrap_or(&CHAPTERS[0])
}

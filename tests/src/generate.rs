//! What the book has from the programs themselves: `cargo progress generate` writes it, and a test
//! compares.
//!
//! - `stepNN-….svg`: the system calls of a container's life, by strace;
//! - `main-diffs.md`: what changes from each `main.rs` to the next.

use crate::chapters::{CHAPTERS, whole};
use crate::checks::elsewhere;
use crate::course::Chapter;
use crate::course::regions::without_other_anchors;
use crate::host::this_program;
use crate::host::trace::{Call, Trace};
use crate::programs::{Programs, workspace};
use anyhow::{Context, Result};
use similar::TextDiff;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// The files by name, with their text.
pub type Files = BTreeMap<String, String>;

/// Where they belong.
pub fn folder() -> PathBuf {
    workspace().join("book/src/generated")
}

/// Writes all files.
pub fn generate() -> Result<u8> {
    let mut files = sources()?;
    let packages: Vec<&str> = whole().map(|chapter| chapter.package).collect();
    files.extend(timelines(&this_program()?, &Programs::build(&packages)?)?);
    fs::create_dir_all(folder())?;
    for (name, text) in &files {
        fs::write(folder().join(name), text).with_context(|| name.clone())?;
    }
    println!("{} files in {}", files.len(), folder().display());
    Ok(0)
}

/// What comes from the sources alone.
pub fn sources() -> Result<Files> {
    Ok(Files::from([("main-diffs.md".into(), diffs()?)]))
}

/// A chapter's `main.rs`, without the marks that are for the book.
fn main_of(chapter: &Chapter) -> Result<String> {
    let step = workspace().join("steps").join(chapter.package);
    let path = step.join("src/main.rs");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(without_other_anchors(&text))
}

/// The differences between neighbouring `main.rs`, as a page.
fn diffs() -> Result<String> {
    let mut page = String::new();
    for pair in CHAPTERS.windows(2) {
        let [before, after] = pair else { continue };
        let (old, new) = (main_of(before)?, main_of(after)?);
        let diff = TextDiff::from_lines(&old, &new);
        let (title, anchor) = (
            format!("{} to {}", before.package, after.package),
            after.package,
        );
        write!(page, "## {title} {{#{anchor}}}\n\n```diff\n")?;
        write!(page, "{}", diff.unified_diff().context_radius(2))?;
        page += "```\n\n";
    }
    Ok(page.trim_end().to_owned() + "\n")
}

/// The time lines of all chapters whose page is whole, traced on a pretend host by the program `progress`.
pub fn timelines(progress: &Path, programs: &Programs) -> Result<Files> {
    let mut files = Files::new();
    for chapter in whole() {
        let program = programs.path(chapter.package)?.to_string_lossy();
        let words = ["record", &chapter.number.to_string(), "0", &program];
        let traces: Vec<Trace> = elsewhere(progress, &words)?;
        let trace = traces.first().context("the program made no system calls")?;
        files.insert(format!("{}.svg", chapter.package), timeline(chapter, trace));
    }
    Ok(files)
}

/// A line of a time line's drawing.
struct Row {
    /// 0 for the program, 1 for its child.
    lane: usize,
    /// What stands beside the first point, and below it.
    text: Vec<String>,
    /// Whether the process waits here for the other one.
    waits: bool,
    /// Whether the other one has ended such a wait.
    woken: bool,
    /// Whether the other one is born here.
    bears: bool,
}

impl Row {
    fn of(lane: usize, call: &Call) -> Row {
        Row {
            lane,
            text: short(call),
            waits: false,
            woken: false,
            bears: call.makes_a_process(),
        }
    }
}

const LINE: usize = 20;
const TOP: usize = 66;
const LANES: [usize; 2] = [22, 46];
const CLASSES: [&str; 2] = ["", "own"];

/// A drawing: time runs down, the program on the left line, its child on the right one. Where the
/// program waits for the child its line is dashed, down to the call of the child that ends the wait.
fn timeline(chapter: &Chapter, trace: &Trace) -> String {
    let rows = rows(trace);
    let mut y = TOP;
    let places: Vec<usize> = rows
        .iter()
        .map(|row| {
            let place = y;
            y += row.text.len() * LINE + 4;
            place
        })
        .collect();
    let package = chapter.package;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"drawing\" viewBox=\"0 0 480 {y}\" \
         role=\"img\" aria-label=\"The system calls of {package} in order of time\">\n\
         <text class=\"strong\" x=\"16\" y=\"24\">{package} true: its system calls</text>\n\
         <circle cx=\"22\" cy=\"42\" r=\"5\"/><text x=\"34\" y=\"47\">the program</text>\n"
    );
    if rows.iter().any(|row| row.lane == 1) {
        svg += "<circle class=\"own\" cx=\"138\" cy=\"42\" r=\"5\"/>\
                <text class=\"own\" x=\"150\" y=\"47\">its child, PID 1</text>\n";
    }
    let point = |at: usize| (LANES[rows[at].lane], places[at]);
    let last = |wanted: &dyn Fn(&Row) -> bool, at: usize| (0..at).rfind(|&row| wanted(&rows[row]));
    for at in 1..rows.len() {
        let (lane, (x, y)) = (rows[at].lane, point(at));
        let before = last(&|row| row.lane == lane, at);
        // A child's first line comes from where it was born.
        if let Some(from) = before.or_else(|| last(&|row| row.bears, at)) {
            let ((a, b), class) = (point(from), CLASSES[lane]);
            let dashed = if rows[from].waits { "dashed " } else { "" };
            svg += &format!("<path class=\"{dashed}thick {class}\" d=\"M{a} {b}L{x} {y}\"/>\n");
        }
        if let (true, Some(end)) = (rows[at].woken, last(&|row| row.lane == 1, at)) {
            let ((a, b), bend) = (point(end), y - LINE - 4);
            svg += &format!("<path class=\"dashed own\" d=\"M{a} {b}L{a} {bend}L{x} {y}\"/>\n");
        }
    }
    for (row, &y) in rows.iter().zip(&places) {
        let class = CLASSES[row.lane];
        svg += &format!(
            "<circle class=\"{class}\" cx=\"{}\" cy=\"{y}\" r=\"5\"/>\n",
            LANES[row.lane]
        );
        for (number, text) in row.text.iter().enumerate() {
            let (x, y) = (62 + number.min(1) * 16, y + 5 + number * LINE);
            let text = escaped(text);
            svg += &format!("<text class=\"code {class}\" x=\"{x}\" y=\"{y}\">{text}</text>\n");
        }
    }
    // What belongs to the program has no class of its own.
    svg.replace(" class=\"\"", "").replace(" \" ", "\" ") + "</svg>\n"
}

/// The calls in the order of the drawing: what the child does stands where the program waits for it.
fn rows(trace: &Trace) -> Vec<Row> {
    // Where PATH leads nowhere says nothing.
    let worked = |calls: &[Call]| calls.iter().filter(|call| call.worked()).cloned().collect();
    let (parent, child): (Vec<Call>, Vec<Call>) =
        (worked(trace.process(0)), worked(trace.process(1)));
    let mut rows: Vec<Row> = Vec::new();
    let mut childs = child.iter().map(|call| Row::of(1, call)).peekable();
    for call in &parent {
        let waits_for_the_start = call.is("read", "<pipe>") && childs.peek().is_some();
        let waits_for_the_end = call.is("read", "signalfd");
        if !(waits_for_the_start || waits_for_the_end) {
            rows.push(Row::of(0, call));
            continue;
        }
        let mut wait = Row::of(0, call);
        let ending = match waits_for_the_start {
            true => "its end: execve has closed it",
            false => "SIGCHLD: the child has ended",
        };
        wait.text = vec![wait.text[0].replace(" = 0, its end", "") + " waits …"];
        wait.waits = true;
        rows.push(wait);
        rows.extend(childs.by_ref());
        rows.push(Row {
            lane: 0,
            text: vec![format!("… {ending}")],
            waits: false,
            woken: true,
            bears: false,
        });
    }
    // A program without a child waits for nobody.
    rows.extend(childs);
    rows
}

/// A call in few words, in lines that fit: of its flags all that matter, no descriptor's target.
fn short(call: &Call) -> Vec<String> {
    // `3<pipe>` is the pipe, whatever its number.
    let target = call
        .arguments
        .split_once('<')
        .and_then(|(_, rest)| rest.split_once('>'));
    let target = target.map(|(target, _)| {
        target
            .trim_start_matches("anon_inode:")
            .trim_matches(['[', ']'])
    });
    if let ("read" | "write" | "close", Some(target)) = (call.name.as_str(), target) {
        return vec![match (call.name.as_str(), call.result.as_str()) {
            ("read", "0") => format!("read({target}) = 0, its end"),
            (name, _) => format!("{name}({target})"),
        }];
    }
    let mut text = format!("{}({})", call.name, call.arguments);
    if let ("clone3", Some((_, rest))) = (call.name.as_str(), text.split_once("flags=")) {
        let flags = rest.split(',').next().unwrap_or(rest);
        text = format!("clone3({})", flags.replace("CLONE_PIDFD|", ""));
    }
    if let ("ioctl", Some((_, rest))) = (call.name.as_str(), text.split_once(", ")) {
        text = format!("ioctl({rest}")
            .replace("ifr_name=", "")
            .replace("ifr_flags=", "");
    }
    text = text
        .replace("MS_NOSUID|MS_NODEV|MS_NOEXEC", "MS_NOSUID|…")
        .replace(", NULL)", ")");
    text = text.replace("SOCK_DGRAM|SOCK_CLOEXEC, IPPROTO_IP", "SOCK_DGRAM|…");
    text = text.replace("4294967295, ", "…, ");
    if let ("pipe2", Some(_)) = (call.name.as_str(), target) {
        text = "pipe2(pipe, O_CLOEXEC)".into();
    }
    if let ("execve", Some(end)) = (call.name.as_str(), call.arguments.find("\", [")) {
        let program = call.arguments[..end].rsplit('/').next().unwrap_or_default();
        text = format!("execve(\"…/{program}\", …)");
    }
    if call.name == "wait4" {
        text = "wait4(PID) = the exit code".into();
    }
    // The folder of a check is nobody's business.
    while let Some(at) = text.find("\"/tmp/") {
        let end = text[at + 1..]
            .find('"')
            .map_or(text.len(), |end| at + end + 2);
        text.replace_range(at..end, "NEW_ROOT");
    }
    wrapped(&text)
}

/// The text in lines of a drawing's width, taken apart behind a `|`.
fn wrapped(text: &str) -> Vec<String> {
    const WIDTH: usize = 48;
    let mut lines = vec![String::new()];
    for part in text.split_inclusive('|') {
        let last = lines
            .last_mut()
            .filter(|line| line.len() + part.len() <= WIDTH);
        match last {
            Some(line) => line.push_str(part),
            None => lines.push(part.into()),
        }
    }
    lines.retain(|line| !line.is_empty());
    lines
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

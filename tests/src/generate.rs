//! What the book has from the programs themselves: `cargo progress generate` writes it, and a test
//! compares.
//!
//! - `stepNN-….svg`: the system calls of a container's life, by strace;
//! - `main-diffs.md`: what changes from each `main.rs` to the next.

use crate::chapters::{CHAPTERS, WRITTEN};
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
    let written: Vec<&str> = CHAPTERS[..WRITTEN]
        .iter()
        .map(|chapter| chapter.package)
        .collect();
    files.extend(timelines(&this_program()?, &Programs::build(&written)?)?);
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

/// The time lines of all chapters, traced on a pretend host by the program `progress`.
pub fn timelines(progress: &Path, programs: &Programs) -> Result<Files> {
    let mut files = Files::new();
    for chapter in &CHAPTERS[..WRITTEN] {
        let program = programs.path(chapter.package)?.to_string_lossy();
        let words = ["record", &chapter.number.to_string(), "0", &program];
        let traces: Vec<Trace> = elsewhere(progress, &words)?;
        let trace = traces.first().context("the program made no system calls")?;
        files.insert(format!("{}.svg", chapter.package), timeline(chapter, trace));
    }
    Ok(files)
}

const ROW: usize = 24;
const TOP: usize = 62;

/// A drawing: time runs down, the program on the left line, its child on the right one. The child's
/// calls stand where the program waits for them.
fn timeline(chapter: &Chapter, trace: &Trace) -> String {
    let (parent, child) = (trace.process(0), trace.process(1));
    let birth = parent.iter().position(Call::makes_a_process);
    let (before, after) = parent.split_at(birth.map_or(parent.len(), |at| at + 1));
    let rows: Vec<(usize, &Call)> = before
        .iter()
        .map(|call| (0, call))
        .chain(child.iter().map(|call| (1, call)))
        .chain(after.iter().map(|call| (0, call)))
        // Where PATH leads nowhere says nothing.
        .filter(|(_, call)| call.worked())
        .collect();
    let height = TOP + rows.len() * ROW + 14;
    let lines = [22, 46];
    let colours = ["#0b63b0", "#b3500f"];
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"560\" viewBox=\"0 0 480 {height}\" \
         role=\"img\" aria-label=\"The system calls of {} in order of time\">\n\
         <rect x=\"1\" y=\"1\" width=\"478\" height=\"{}\" rx=\"8\" fill=\"#fbfaf6\" \
         stroke=\"#8a8577\"/>\n<g font-family=\"sans-serif\" font-size=\"15\" fill=\"#1f2328\">\n\
         <text x=\"16\" y=\"28\" font-weight=\"bold\">{} true: its system calls</text>\n\
         <circle cx=\"22\" cy=\"44\" r=\"5\" fill=\"{}\"/><text x=\"34\" y=\"49\">the program</text>\n",
        chapter.package,
        height - 2,
        chapter.package,
        colours[0]
    );
    if !child.is_empty() {
        svg += &format!(
            "<circle cx=\"138\" cy=\"44\" r=\"5\" fill=\"{}\"/><text x=\"150\" y=\"49\">its child, \
             PID 1</text>\n",
            colours[1]
        );
    }
    let y = |row: usize| TOP + row * ROW + 12;
    for lane in 0..2 {
        let of_lane = |row: &usize| rows[*row].0 == lane;
        let (first, last) = (
            (0..rows.len()).find(of_lane),
            (0..rows.len()).rfind(of_lane),
        );
        if let (Some(first), Some(last)) = (first, last) {
            svg += &format!(
                "<path d=\"M{0} {1}V{2}\" stroke=\"{3}\" stroke-width=\"3\"/>\n",
                lines[lane],
                y(first),
                y(last),
                colours[lane]
            );
        }
    }
    if let (Some(at), false) = (birth, child.is_empty()) {
        let row = before[..=at].iter().filter(|call| call.worked()).count() - 1;
        svg += &format!(
            "<path d=\"M{} {}L{} {}\" stroke=\"{}\" stroke-width=\"3\"/>\n",
            lines[0],
            y(row),
            lines[1],
            y(row + 1),
            colours[1]
        );
    }
    svg += "</g>\n<g font-family=\"monospace\" font-size=\"13\" fill=\"#1f2328\">\n";
    for (row, (lane, call)) in rows.iter().enumerate() {
        svg += &format!(
            "<circle cx=\"{}\" cy=\"{}\" r=\"5\" fill=\"{}\"/><text x=\"62\" y=\"{}\">{}</text>\n",
            lines[*lane],
            y(row),
            colours[*lane],
            y(row) + 5,
            escaped(&short(call))
        );
    }
    svg + "</g>\n</svg>\n"
}

/// A call in few words: of several flags the first that matters, no descriptor's target.
fn short(call: &Call) -> String {
    const WIDTH: usize = 50;
    // `3<pipe>` is the pipe, whatever its number.
    let target = call
        .arguments
        .split_once('<')
        .and_then(|(_, rest)| rest.split_once('>'));
    let target = target.map(|(target, _)| target.trim_start_matches("anon_inode:"));
    if let ("read" | "write" | "close", Some(target)) = (call.name.as_str(), target) {
        return match (call.name.as_str(), call.result.as_str()) {
            ("read", "0") => format!("read({target}) = 0, its end"),
            (name, _) => format!("{name}({target})"),
        };
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
    if text.chars().count() > WIDTH {
        text = text.chars().take(WIDTH - 2).collect::<String>() + "…)";
    }
    text
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

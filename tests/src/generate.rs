//! What the book has from the programs themselves: `cargo progress generate` writes it, and a test
//! compares.
//!
//! - `stepNN-….svg`: the system calls of a container's life, by strace;
//! - `main-diffs.md`: what changes from each `main.rs` to the next;
//! - `start-diff.md`: what of step 8's `main.rs` has moved to step 9's `start.rs`, and what is new there.

use crate::chapters::{CHAPTERS, chapter as find_chapter, whole};
use crate::checks::elsewhere;
use crate::course::Chapter;
use crate::course::regions::without_other_anchors;
use crate::host::this_program;
use crate::host::trace::{Call, Trace, own};
use crate::programs::{Programs, workspace};
use anyhow::{Context, Result};
use similar::{ChangeTag, TextDiff};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use step06_caps::paths::{MASKED_PATHS, READ_ONLY_PATHS};

/// The files by name, with their text.
pub type Files = BTreeMap<String, String>;

/// Where they belong.
pub fn folder() -> PathBuf {
    workspace().join("book/src/generated")
}

/// Writes all files.
pub fn generate() -> Result<u8> {
    let mut files = sources()?;
    let last = whole().last().map_or(0, |chapter| chapter.number);
    let packages: Vec<&str> = CHAPTERS[..last]
        .iter()
        .map(|chapter| chapter.package)
        .collect();
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
    Ok(Files::from([
        ("main-diffs.md".into(), diffs()?),
        ("start-diff.md".into(), move_to_start()?),
    ]))
}

/// From the closure of step 8 to `start` of step 9, as a diff that doesn't count how far a line is indented: what has
/// only moved has no sign before it.
fn move_to_start() -> Result<String> {
    let main = main_of(find_chapter(8).context("chapter 8")?)?;
    let (_, old) = main.split_once("fn main()").context("step 8's main")?;
    let chapter = find_chapter(9).context("chapter 9")?;
    let path = workspace()
        .join("steps")
        .join(chapter.package)
        .join("src/start.rs");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let text = without_other_anchors(&text);
    let (_, new) = text.split_once("pub fn start(").context("step 9's start")?;
    let (old, new) = (format!("fn main(){old}"), format!("pub fn start({new}"));
    // What was typed is a plan by now, and has the same parts.
    let bare = |line: &str| {
        line.trim()
            .replace("args.", "plan.")
            .replace("&plan.hostname", "hostname")
    };
    let (before, after): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let old_bare: Vec<String> = before.iter().map(|line| bare(line)).collect();
    let new_bare: Vec<String> = after.iter().map(|line| bare(line)).collect();
    let (one, two): (Vec<&str>, Vec<&str>) = (
        old_bare.iter().map(String::as_str).collect(),
        new_bare.iter().map(String::as_str).collect(),
    );
    let diff = TextDiff::from_slices(&one, &two);
    let mut page = String::from("```diff\n");
    for change in diff.iter_all_changes() {
        let line = match (change.new_index(), change.old_index()) {
            (Some(at), _) => after[at],
            // There it stood in a closure, one step further in.
            (None, Some(at)) => match before[at].strip_prefix("    ") {
                Some(nearer) if nearer.starts_with(' ') => nearer,
                _ => before[at],
            },
            (None, None) => continue,
        };
        let sign = match change.tag() {
            ChangeTag::Equal => " ",
            ChangeTag::Delete => "-",
            ChangeTag::Insert => "+",
        };
        page += format!("{sign}{line}").trim_end();
        page += "\n";
    }
    Ok(page + "```\n")
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
    let rows_of = |chapter: &Chapter| -> Result<Vec<Row>> {
        let program = programs.path(chapter.package)?.to_string_lossy();
        let words = ["record", &chapter.number.to_string(), "0", &program];
        let traces: Vec<Trace> = elsewhere(progress, &words)?;
        Ok(rows(
            traces.first().context("the program made no system calls")?,
        ))
    };
    let mut files = Files::new();
    for chapter in whole() {
        let mut rows = rows_of(chapter)?;
        let before = chapter.number.checked_sub(1).and_then(find_chapter);
        let is_long = rows.len() > MOST && lanes(&rows) < 3;
        if let Some(before) = before.filter(|_| is_long) {
            rows = folded(rows, &rows_of(before)?, before.number);
        }
        files.insert(format!("{}.svg", chapter.package), timeline(chapter, &rows));
    }
    Ok(files)
}

/// A time line with more lines than this shows only what is new: what the step before did as well is counted.
const MOST: usize = 40;

/// The rows with those of the child that the chapter `number` has, too, folded: several are one.
fn folded(rows: Vec<Row>, before: &[Row], number: usize) -> Vec<Row> {
    let is_known = |row: &Row| {
        let is_same = |known: &Row| known.text == row.text || of_user(known) && of_user(row);
        let known = before.iter().any(|known| known.lane == 1 && is_same(known));
        row.lane == 1 && known && !row.text[0].starts_with("execve")
    };
    let mut folded: Vec<Row> = Vec::new();
    let mut rows = rows.into_iter().peekable();
    while let Some(row) = rows.next() {
        let mut count = usize::from(is_known(&row));
        while count > 0 && rows.next_if(is_known).is_some() {
            count += 1;
        }
        folded.push(match count {
            0 | 1 => row,
            _ => Row {
                text: vec![format!("… {count} calls, as in chapter {number}")],
                is_code: false,
                ..row
            },
        });
    }
    folded
}

/// Whether a process becomes a user by this call: its numbers are those of the scene.
fn of_user(row: &Row) -> bool {
    let calls = ["setgroups(", "setresgid(", "setresuid(", "capset("];
    calls.iter().any(|call| row.text[0].starts_with(call))
}

/// A line of a time line's drawing.
struct Row {
    /// 0 for the program, 1 for its child, 2 for that one's child.
    lane: usize,
    /// What stands beside the first point, and below it.
    text: Vec<String>,
    /// Whether the process waits here for the other one.
    waits: bool,
    /// Whether the other one has ended such a wait.
    woken: bool,
    /// Whether the other one is born here.
    bears: bool,
    /// Whether the text is a call's, and not a remark.
    is_code: bool,
}

impl Row {
    fn of(lane: usize, call: &Call) -> Row {
        Row {
            lane,
            text: short(call),
            is_code: true,
            waits: false,
            woken: false,
            bears: call.makes_a_process(),
        }
    }
}

const LINE: usize = 20;
const TOP: usize = 66;
const LANES: [usize; 3] = [22, 46, 70];
const CLASSES: [&str; 2] = ["", "own"];
/// Those of a program whose child makes the command's process in another place than its own.
const CLASSES_OF_THREE: [&str; 3] = ["", "dim", "own"];

/// How many processes there are in the drawing.
fn lanes(rows: &[Row]) -> usize {
    rows.iter().map(|row| row.lane + 1).max().unwrap_or(0)
}

/// A drawing: time runs down, the program on the left line, its child on the right one. Where the
/// program waits for the child its line is dashed, down to the call of the child that ends the wait.
fn timeline(chapter: &Chapter, rows: &[Row]) -> String {
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
    // The root that a check gives is nobody's business.
    let words = chapter.exercises[0].scenes[0].iter();
    let words: Vec<&str> = words.copied().collect();
    let mut words = words.join(" ");
    for given in [
        "--rootfs {root} ",
        "--image {root} ",
        "--state-dir {state} ",
    ] {
        words = words.replace(given, "");
    }
    let words = words.replace("{box}", "box");
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"drawing\" viewBox=\"0 0 480 {y}\" \
         role=\"img\" aria-label=\"The system calls of {package} in order of time\">\n\
         <text class=\"strong\" x=\"16\" y=\"24\">{package} {words}: its system calls</text>\n\
         <circle cx=\"22\" cy=\"42\" r=\"5\"/><text x=\"34\" y=\"47\">the program</text>\n"
    );
    let is_three = lanes(rows) == 3;
    let classes: &[&str] = match is_three {
        true => &CLASSES_OF_THREE,
        false => &CLASSES,
    };
    let left = LANES[1 + usize::from(is_three)] + 16;
    if is_three {
        svg += "<circle class=\"dim\" cx=\"152\" cy=\"42\" r=\"5\"/>\
                <text class=\"dim\" x=\"164\" y=\"47\">the process between</text>\n\
                <circle class=\"own\" cx=\"328\" cy=\"42\" r=\"5\"/>\
                <text class=\"own\" x=\"340\" y=\"47\">the command</text>\n";
    } else if rows.iter().any(|row| row.lane == 1) {
        let is_monitor = |row: &Row| row.text[0].contains("-monitor");
        let child = match rows.iter().any(is_monitor) {
            true => "its child, the monitor to be",
            false => "its child, PID 1",
        };
        svg += &format!(
            "<circle class=\"own\" cx=\"138\" cy=\"42\" r=\"5\"/>\
             <text class=\"own\" x=\"150\" y=\"47\">{child}</text>\n"
        );
    }
    let point = |at: usize| (LANES[rows[at].lane], places[at]);
    let last = |wanted: &dyn Fn(&Row) -> bool, at: usize| (0..at).rfind(|&row| wanted(&rows[row]));
    for at in 1..rows.len() {
        let (lane, (x, y)) = (rows[at].lane, point(at));
        let before = last(&|row| row.lane == lane, at);
        // A child's first line comes from where it was born.
        if let Some(from) = before.or_else(|| last(&|row| row.bears, at)) {
            let ((a, b), class) = (point(from), classes[lane]);
            let dashed = if rows[from].waits { "dashed " } else { "" };
            svg += &format!("<path class=\"{dashed}thick {class}\" d=\"M{a} {b}L{x} {y}\"/>\n");
        }
        if let (true, Some(end)) = (rows[at].woken, last(&|row| row.lane > 0, at)) {
            let ((a, b), bend) = (point(end), y - LINE - 4);
            let class = classes[rows[end].lane];
            svg += &format!("<path class=\"dashed {class}\" d=\"M{a} {b}L{a} {bend}L{x} {y}\"/>\n");
        }
    }
    for (row, &y) in rows.iter().zip(&places) {
        let class = classes[row.lane];
        svg += &format!(
            "<circle class=\"{class}\" cx=\"{}\" cy=\"{y}\" r=\"5\"/>\n",
            LANES[row.lane]
        );
        for (number, text) in row.text.iter().enumerate() {
            let (x, y) = (left + number.min(1) * 16, y + 5 + number * LINE);
            let (is_code, text) = (row.is_code && !text.starts_with(NOTE), escaped(text));
            let class = if is_code {
                format!("code {class}")
            } else {
                "dim small".into()
            };
            svg += &format!("<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{text}</text>\n");
        }
    }
    // What belongs to the program has no class of its own.
    svg.replace(" class=\"\"", "").replace(" \" ", "\" ") + "</svg>\n"
}

/// Of many calls that do the same to one thing after the other these are drawn: how many there are differs from
/// machine to machine.
const READ_ONLY: &str = "/proc/sys";
const MASKED: &str = "/proc/interrupts";
const DROPPED: &str = "CAP_SYS_ADMIN";

/// Whether a call is drawn. What failed isn't: where PATH leads nowhere says nothing.
fn is_drawn(call: &Call) -> bool {
    let is_about = |path: &str| call.is("mount", &format!("\"{path}\", "));
    let many = READ_ONLY_PATHS.iter().chain(MASKED_PATHS);
    let is_example = is_about(READ_ONLY) || is_about(MASKED);
    let is_one_of_many = many.into_iter().any(|path| is_about(path)) && !is_example;
    let is_dropped = call.is("prctl", "PR_CAPBSET_DROP") && !call.is("prctl", DROPPED);
    let asks = call.is("prctl", "PR_GET_");
    // The folder of all containers is made once.
    let is_store = call.is("mkdir", "/check/state") && !call.is("mkdir", "/.new-");
    call.worked() && !is_one_of_many && !is_dropped && !asks && !is_store
}

/// The calls in the order of the drawing: what the child does stands where the program waits for it.
fn rows(trace: &Trace) -> Vec<Row> {
    let drawn = |calls: &[Call]| {
        calls
            .iter()
            .filter(|call| is_drawn(call))
            .cloned()
            .collect()
    };
    let (parent, child): (Vec<Call>, Vec<Call>) =
        (drawn(trace.process(0)), drawn(trace.process(1)));
    if trace.process(1).iter().any(is_sibling) {
        return rows_of_three(&parent, &child, &drawn(trace.process(2)));
    }
    let mut rows: Vec<Row> = Vec::new();
    let child = gathered(&child);
    let mut childs = child.iter().map(|each| each.row(1)).peekable();
    for each in gathered(&parent) {
        let call = each.call;
        let waits_for_the_start = call.is("read", "<pipe>") && childs.peek().is_some();
        let waits_for_the_end = call.is("read", "signalfd");
        let waits_for_a_word = call.name.starts_with("recv") && childs.peek().is_some();
        if !(waits_for_the_start || waits_for_the_end || waits_for_a_word) {
            rows.push(each.row(0));
            continue;
        }
        let mut wait = Row::of(0, call);
        let ending = match () {
            () if waits_for_a_word => "a message: the command runs",
            () if waits_for_the_start => "its end: execve has closed it",
            () => "SIGCHLD: the child has ended",
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
            is_code: true,
        });
    }
    // A program without a child waits for nobody.
    rows.extend(childs);
    rows
}

/// Whether the caller's parent gets a child.
fn is_sibling(call: &Call) -> bool {
    call.is("clone3", "CLONE_PARENT")
}

/// The calls of a program whose child, the process between, goes somewhere else, makes the command's process there for
/// the program, and ends.
fn rows_of_three(program: &[Call], between: &[Call], command: &[Call]) -> Vec<Row> {
    // What is closed says nothing here.
    let told = |calls: &[Call]| -> Vec<Call> {
        let told = calls.iter().filter(|call| call.name != "close");
        told.cloned().collect()
    };
    let of = |calls: &[Call], lane| -> Vec<Row> {
        let told = told(calls);
        gathered(&told).iter().map(|each| each.row(lane)).collect()
    };
    let (mut between, mut command) = (of(between, 1), of(command, 2));
    let remark = |text: &str, waits: bool| Row {
        lane: 0,
        text: vec![text.into()],
        waits,
        woken: !waits,
        bears: false,
        is_code: true,
    };
    let mut rows: Vec<Row> = Vec::new();
    for each in gathered(&told(program)) {
        let mut row = each.row(0);
        if each.call.name == "wait4" && !between.is_empty() {
            rows.push(remark("poll(pidfd) waits …", true));
            rows.append(&mut between);
            rows.push(remark("… its end: the child has ended", false));
        } else if each.call.is("read", "<pipe>") && each.call.result == "0" && !command.is_empty() {
            rows.push(remark("read(pipe) waits …", true));
            rows.append(&mut command);
            row = remark("… its end: execve has closed it", false);
        } else if each.call.name == "wait4" && command.is_empty() {
            rows.push(remark("read(signalfd) waits …", true));
            rows.push(remark("… SIGCHLD: the command has ended", false));
        }
        rows.push(row);
    }
    rows
}

/// With this begins a line that says how many others a row stands for.
const NOTE: &str = "and ";

/// A call that stands for others as well.
struct Gathered<'a> {
    call: &'a Call,
    /// The other hierarchies of control groups in which the same is done.
    elsewhere: Vec<&'a str>,
    /// How many other writes to the same file there are.
    more: usize,
}

/// The calls of a process. What is done in each hierarchy of control groups is there once, and so are several writes to
/// one file of a group.
fn gathered(calls: &[Call]) -> Vec<Gathered<'_>> {
    let mut all: Vec<Gathered> = Vec::new();
    for call in own(calls) {
        if let Some(hierarchy) = hierarchy(call) {
            let last = all
                .last_mut()
                .filter(|last| target(last.call) == target(call));
            if let Some(last) = last.filter(|_| call.name == "write") {
                last.more += 1;
                continue;
            }
            let same = |known: &&mut Gathered| anywhere(known.call) == anywhere(call);
            if let Some(known) = all.iter_mut().find(same) {
                known.elsewhere.push(hierarchy);
                continue;
            }
        }
        all.push(Gathered {
            call,
            elsewhere: Vec::new(),
            more: 0,
        });
    }
    all
}

impl Gathered<'_> {
    fn row(&self, lane: usize) -> Row {
        let mut row = Row::of(lane, self.call);
        if !self.elsewhere.is_empty() {
            row.text
                .push(format!("{NOTE}for {}", self.elsewhere.join(", ")));
        } else if self.more > 0 {
            row.text.push(format!("{NOTE}{} more", self.more));
        }
        if is_example(self.call) {
            row.text.push(format!("{NOTE}so for others"));
        }
        row
    }
}

/// Whether a call is the one that is drawn of many.
fn is_example(call: &Call) -> bool {
    call.is("mount", &format!("\"{READ_ONLY}\", NULL, MS_RDONLY"))
        || call.is("mount", &format!("\"{MASKED}\", "))
        || call.is("prctl", DROPPED)
}

/// A call without the name of the hierarchy that it is about.
fn anywhere(call: &Call) -> Option<String> {
    let name = hierarchy(call)?;
    let (_, arguments) = call
        .arguments
        .split_at(call.arguments.find(['<', '"', '/'])?);
    let arguments = arguments.replace(&format!("/{name}"), "/…");
    Some(format!(
        "{}({}",
        call.name,
        arguments.replace(&format!("\"{name}\""), "…")
    ))
}

/// The file that a descriptor among a call's arguments leads to: `3</tmp/x>`.
fn target(call: &Call) -> Option<&str> {
    Some(call.arguments.split_once('<')?.1.split_once('>')?.0)
}

/// The hierarchy of control groups that a call is about.
fn hierarchy(call: &Call) -> Option<&str> {
    let (_, behind) = call.arguments.split_once("/sys/fs/cgroup/")?;
    behind.split(['/', '"', '>']).next()
}

/// The text without the numbers of descriptors.
fn without_numbers(text: &str) -> String {
    let mut rest = text;
    let mut without = String::new();
    while let Some((before, behind)) = rest.split_once("/proc/self/fd/") {
        without += before;
        without += "/proc/self/fd/…";
        rest = behind.trim_start_matches(|c: char| c.is_ascii_digit());
    }
    without + rest
}

/// A call of the mount API by descriptors, and what an overlay is mounted of: the numbers tell nothing.
fn of_layers(call: &Call) -> Option<String> {
    let (first, rest) = call.arguments.split_once(", ").unwrap_or_default();
    Some(match call.name.as_str() {
        "open_tree" => format!("open_tree({rest}) = tree"),
        "mount_setattr" => {
            let rest = rest
                .trim_start_matches("\"\", ")
                .replace("attr_clr=0, ", "");
            let rest = rest.split(", userns_fd").next()?;
            format!("mount_setattr(tree, {rest}}})")
        }
        "move_mount" => format!("move_mount(tree, \"{}\")", rest.split(['<', '>']).nth(1)?),
        "fchdir" => "fchdir(…)".into(),
        "mount" if first == "\"overlay\"" => {
            let options = call.arguments.rsplit('"').nth(1)?;
            let of = options
                .split(',')
                .map(|option| match option.split_once('=') {
                    Some((key, _)) => format!("{key}=…"),
                    None => option.into(),
                });
            let before = call.arguments.strip_suffix(&format!("\"{options}\""))?;
            format!("mount({before}\"{}\")", of.collect::<Vec<_>>().join(","))
        }
        _ => return None,
    })
}

/// A call on a container's folder or record in few words: `rename("…/config.new", "…/config.json")`.
fn of_record(call: &Call, inside: &str) -> String {
    let file = inside.split(['>', '"']).next().unwrap_or(inside);
    match call.name.as_str() {
        "write" | "fsync" => format!("{}({})", call.name, file.rsplit('/').next().unwrap_or(file)),
        "mkdir" => format!("mkdir(\"…/{file}\")"),
        _ => format!("{}({})", call.name, call.arguments)
            .replace("/tmp/check/state/containers/", "…/")
            .replace("|O_CLOEXEC, 0666", ""),
    }
}

/// A call in few words, in lines that fit: of its flags all that matter, no descriptor's target.
fn short(call: &Call) -> Vec<String> {
    if let ("write", Some(file), Some(_)) = (call.name.as_str(), target(call), hierarchy(call)) {
        let name = file.rsplit('/').next().unwrap_or(file);
        let value = call.arguments.split('"').nth(1).unwrap_or_default();
        return vec![format!("write({name}, \"{value}\")")];
    }
    if let Some((_, inside)) = call.arguments.split_once("/check/state/containers/") {
        return wrapped(&of_record(call, inside));
    }
    if call.is("clone", "SIGCHLD") {
        return vec!["fork(), which is clone(SIGCHLD)".into()];
    }
    if let ("mkdir", Some((path, _))) = (call.name.as_str(), call.arguments.rsplit_once(", 0")) {
        return wrapped(&format!("mkdir({path})"));
    }
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
        let flags = flags.replace("CLONE_PIDFD|", "");
        text = format!("clone3({})", flags.replace("CLONE_PIDFD", "0"));
    }
    if let ("setns", Some((_, kinds))) = (call.name.as_str(), text.split_once(">, ")) {
        text = format!("setns(pidfd, {kinds}");
    }
    // The first of each set's capabilities.
    if call.name == "capset" {
        let first = |set: &str| match set.split_once('|') {
            Some((first, _)) => format!("{first} …"),
            None => set.to_owned(),
        };
        let sets: Vec<String> = call.arguments.split(", ").map(first).collect();
        text = format!("capset({})", sets.join(", "));
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
    if let ("dup2" | "dup3", Some(target), Some((_, to))) =
        (call.name.as_str(), target, call.arguments.split_once(", "))
    {
        text = format!("dup2({target}, {to})");
    }
    if call.name == "open_tree" && call.arguments.contains("/proc/self/exe") {
        text = "open_tree(\"/proc/self/exe\", OPEN_TREE_CLONE)".into();
    }
    if call.name == "mount_setattr" && call.arguments.contains("propagation=MS_PRIVATE") {
        text = "mount_setattr(…, MOUNT_ATTR_RDONLY, MS_PRIVATE)".into();
    }
    if let ("execve", Some(end)) = (call.name.as_str(), call.arguments.find("\", [")) {
        let program = call.arguments[..end].rsplit('/').next().unwrap_or_default();
        text = format!("execve(\"…/{program}\", …)");
    }
    if call.name == "wait4" {
        text = "wait4(PID) = the exit code".into();
    }
    if let ("seccomp", Some((operation, _))) = (call.name.as_str(), call.arguments.split_once(','))
    {
        text = format!("seccomp({operation}, …)");
    }
    if call.name == "prctl" {
        text = text.replace(", 0, 0, 0", "");
    }
    text = without_numbers(&text);
    text = of_layers(call).unwrap_or(text);
    if is_example(call) {
        text = text.replace("/proc/self/fd/…", "/dev/null");
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

/// The text in lines of a drawing's width, taken apart behind a `|`, and a part that is too long behind a space.
fn wrapped(text: &str) -> Vec<String> {
    const WIDTH: usize = 48;
    const LONGEST: usize = 52;
    let mut lines = vec![String::new()];
    let parts = text.split_inclusive('|').flat_map(|part| {
        let whole = part.len() <= LONGEST;
        part.split_inclusive(move |c| c == ' ' && !whole)
    });
    for part in parts {
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

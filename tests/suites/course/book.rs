//! The book says what is true: its consoles are typed, its code comes from the steps, its links lead
//! somewhere, its parts are in order.
//!
//! With TEN_STEPS_BLESS=1 the consoles are written anew with what was printed, to be read and
//! committed.

use crate::course::place::bring_dependencies;
use crate::stage::{
    HOW_CARGO_BUILDS, Printed, STEPS, folder, have, nested, progress, run, step, write_program,
};
use assert_cmd::assert::OutputAssertExt;
use progress::chapters::{CHAPTERS, whole as whole_chapters};
use progress::course::regions::{body, names};
use progress::generate::{folder as generated, sources, timelines};
use progress::programs::{Programs, workspace};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

fn src() -> PathBuf {
    workspace().join("book/src")
}

/// The pages by name, as SUMMARY.md lists them.
pub fn pages() -> Vec<String> {
    let summary = fs::read_to_string(src().join("SUMMARY.md")).unwrap();
    let links = summary.split("](").skip(1);
    let pages: Vec<String> = links
        .filter_map(|link| Some(link.split_once(')')?.0.to_owned()))
        .collect();
    assert!(pages.len() > 8, "{pages:?}");
    pages
}

fn text(page: &str) -> String {
    fs::read_to_string(src().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}

/// A fenced block: its kind, the line after its fence, and its text.
struct Block {
    kind: String,
    line: usize,
    text: String,
}

impl Block {
    /// The language that it is in; behind a comma come marks: `console,attack`.
    fn language(&self) -> &str {
        self.kind.split(',').next().unwrap_or_default()
    }

    fn marks(&self) -> BTreeSet<&str> {
        self.kind.split(',').skip(1).collect()
    }
}

/// The commands of each console of a page.
pub fn commands(page: &str) -> Vec<String> {
    let consoles = blocks(page)
        .into_iter()
        .filter(|block| block.language() == "console");
    let typed = |block: Block| {
        steps(&block.text)
            .into_iter()
            .map(|step| step.command)
            .collect::<Vec<_>>()
            .join("\n")
    };
    consoles.map(typed).collect()
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in text(page).lines().enumerate() {
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (None, Some(kind)) => {
                open = Some(Block {
                    kind: kind.into(),
                    line: number + 1,
                    text: String::new(),
                });
            }
            (Some(_), Some("")) => blocks.extend(open.take()),
            (Some(block), _) => block.text += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{page}: a block has no end");
    blocks
}

/// One command of a console with what the book says it prints.
#[derive(Debug)]
struct Step {
    command: String,
    output: String,
}

/// The commands of a console block: `$ ` begins one, `> ` goes on with it.
fn steps(block: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in block.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step {
                command: command.into(),
                output: String::new(),
            });
        } else if let Some(step) = steps.last_mut() {
            match line.strip_prefix("> ").filter(|_| step.output.is_empty()) {
                Some(more) => step.command += &format!("\n{more}"),
                None => step.output += &format!("{line}\n"),
            }
        } else {
            panic!("a console begins with a command, not with {line}");
        }
    }
    steps
}

/// Where a page's commands are typed: a checkout with programs that are built already, and with a
/// `sudo` for somebody who is root.
struct Desk(tempfile::TempDir);

/// Where it is on the pretend host, and where the book says that it is.
const DESK: &str = "/srv/ten-steps";
const HOME: &str = "/home/you/ten-steps";

impl Desk {
    fn new() -> Desk {
        let folder = folder();
        let top = folder.path().join("ten-steps");
        fs::create_dir_all(top.join("exercises")).unwrap();
        bring_dependencies(&top.join("exercises"));
        // A link into the workspace would say where that is.
        let scripts = workspace().join("rootfs-scripts");
        run(Command::new("cp").arg("-a").arg(scripts).arg(&top));
        let bin = folder.path().join("bin");
        fs::create_dir(&bin).unwrap();
        let mut cargo = "#!/bin/sh\ncase \"$*\" in\n".to_owned();
        for package in STEPS {
            let program = step(package).display();
            cargo += &format!(
                "\"run -q -p {package}\"*) shift 4; [ \"$1\" != -- ] || shift; exec {program} \"$@\" ;;\n"
            );
        }
        cargo += &format!(
            "progress*) shift; exec {} \"$@\" ;;\nesac\n",
            progress().display()
        );
        cargo += "echo \"this is no cargo: $*\" >&2; exit 1\n";
        for (name, text) in [
            ("cargo", cargo.as_str()),
            ("sudo", "#!/bin/sh\nexec \"$@\"\n"),
        ] {
            write_program(&bin.join(name), text);
        }
        Desk(folder)
    }

    /// Types the commands on a pretend host and returns what each printed.
    fn type_all(&self, steps: &[&Step]) -> Vec<String> {
        // Where state lies on a machine of one's own.
        let top = self.0.path().join("ten-steps");
        let begin = format!(
            "mount -t tmpfs -o mode=755 lib /var/lib && mount -t tmpfs -o mode=755 srv /srv &&\n\
             mkdir {DESK} && mount --bind {} {DESK} && cd {DESK} || exit 1\n",
            top.display()
        );
        let cargo = PathBuf::from(std::env::var_os("CARGO").unwrap());
        let path = format!(
            "{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:{}",
            self.0.path().join("bin").display(),
            cargo.parent().unwrap().display()
        );
        let mut host = pretend_host(&path);
        host.env("CARGO", &cargo)
            .env("TEN_STEPS_EXERCISES", format!("{DESK}/exercises"));
        // Nothing is built twice: cargo builds as it did before.
        for name in HOW_CARGO_BUILDS.into_iter().chain(["CARGO_HOME"]) {
            host.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        let printed = type_into(host, begin, steps).into_iter();
        let at_home = |said: String| {
            let said = said
                .replace(DESK, HOME)
                .replace("/srv isn't there", "/home isn't there");
            let said = said.replace(workspace().to_str().unwrap(), HOME);
            // So ps shows what nice(1) has started, these tests for one.
            said.replace(" SN  ", " S   ").replace(" RN  ", " R   ")
        };
        printed.map(at_home).collect()
    }
}

/// A shell on a pretend host.
fn pretend_host(path: &str) -> Command {
    let mut host = Command::new(progress());
    host.args(["pretend-host", "--", "bash"])
        .env_clear()
        .env("PATH", path)
        .env("HOME", "/root")
        .env("USER", "you")
        .env("LC_ALL", "C.UTF-8");
    host
}

/// Types the commands into a shell, after what is to be done before, and returns what each printed.
fn type_into(mut shell: Command, begin: String, steps: &[&Step]) -> Vec<String> {
    const MARK: &str = "@@ten-steps@@";
    let mut script = begin;
    for step in steps {
        // What the command before ended with is there for `echo $?`.
        script += &format!(
            "{{ {}\n}} 2>&1 </dev/null\nrc=$?\necho {MARK}\n(exit $rc)\n",
            step.command
        );
    }
    let mut shell = shell
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = shell.stdin.take().unwrap();
    input.write_all(script.as_bytes()).unwrap();
    drop(input);
    let output = shell.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let mut parts: Vec<String> = said.split(&format!("{MARK}\n")).map(String::from).collect();
    assert_eq!(parts.pop().as_deref(), Some(""), "{said}");
    assert_eq!(parts.len(), steps.len(), "{said}");
    parts
}

/// What differs from run to run and from machine to machine: pids, inode numbers, counts of
/// variables, the lines of our own script.
fn steady(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for line in text.trim_end().lines() {
        let mut steady = String::new();
        let mut rest = line.trim_end();
        while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
            let (before, digits) = rest.split_at(at);
            let end = digits
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(digits.len());
            let behind = &digits[end..];
            steady += before;
            let varies = end > 3
                || before.ends_with("/* ")
                || before.ends_with("line ")
                || before.ends_with("am ")
                || (end > 1 && before.ends_with('\t'))
                || before.ends_with("mount ")
                || before.ends_with("shared:")
                || before.ends_with("master:")
                || before.contains("linux-gnu")
                || (end > 1 && (before.is_empty() || before == "[") && behind.starts_with(']'))
                || (steady.is_empty() || steady.trim().is_empty()) && behind.starts_with(' ')
                || before.ends_with('(') && behind.starts_with(") - ");
            // The number of a hierarchy of control groups.
            let name = behind.strip_prefix(':').unwrap_or_default();
            let of_hierarchy = steady.is_empty() && name.starts_with(char::is_alphabetic);
            steady += if of_hierarchy || varies && (end > 1 || !before.is_empty()) {
                "N"
            } else {
                &digits[..end]
            };
            rest = behind;
        }
        lines.push(steady + rest);
    }
    lines
}

/// Whether the lines are the same; `[…]` in the book stands for any lines.
fn same(book: &[String], printed: &[String]) -> bool {
    match (book.split_first(), printed.split_first()) {
        (None, None) => true,
        (Some((first, rest)), _) if first == "[…]" => {
            (0..=printed.len()).any(|skipped| same(rest, &printed[skipped..]))
        }
        (Some((first, book)), Some((line, printed))) => first == line && same(book, printed),
        _ => false,
    }
}

#[test]
fn every_console_prints_what_the_book_says() {
    let bless = std::env::var_os("TEN_STEPS_BLESS").is_some();
    let mut wrong = String::new();
    let mut typed = 0;
    let tools = [
        ("strace", "strace"),
        ("readelf", "binutils"),
        ("pgrep", "procps"),
        ("perl", "perl-base"),
        ("findmnt", "util-linux"),
        ("curl", "curl"),
        ("docker-registry", "docker-registry"),
        ("skopeo", "skopeo"),
    ];
    if nested() || !tools.iter().all(|(tool, package)| have(tool, package)) {
        return;
    }
    // Another system has other loaders, other libraries and other words.
    if !Path::new("/etc/debian_version").exists() || !cfg!(target_arch = "x86_64") {
        return crate::stage::skip("the book's consoles were typed on Debian, on x86-64");
    }
    for page in pages() {
        let consoles: Vec<Block> = blocks(&page)
            .into_iter()
            .filter(|block| block.language() == "console")
            .collect();
        if consoles.is_empty() {
            continue;
        }
        let all: Vec<Vec<Step>> = consoles.iter().map(|block| steps(&block.text)).collect();
        let flat: Vec<&Step> = all.iter().flatten().collect();
        typed += flat.len();
        let mut printed = Desk::new().type_all(&flat).into_iter();
        let mut new = text(&page);
        for (block, steps) in consoles.iter().zip(&all) {
            let mut console = String::new();
            // What version 2 of control groups prints stands behind it, and is judged by another test.
            let is_others = is_version_2() && has_a_text_behind(&page, block.line);
            for step in steps {
                let printed = printed.next().unwrap();
                console += &format!("$ {}\n", step.command.replace('\n', "\n> "));
                if is_others || same(&steady(&step.output), &steady(&printed)) {
                    console += &step.output;
                } else {
                    wrong += &format!(
                        "{page}:{}: $ {}\nthe book:\n{}printed:\n{printed}\n",
                        block.line, step.command, step.output
                    );
                    console += printed.trim_end_matches('\n');
                    console += if printed.trim().is_empty() { "" } else { "\n" };
                }
            }
            new = new.replacen(
                &format!("```{}\n{}```", block.kind, block.text),
                &format!("```{}\n{console}```", block.kind),
                1,
            );
        }
        if bless {
            fs::write(src().join(&page), new).unwrap();
        }
    }
    assert!(typed > 40, "{typed} commands");
    assert!(wrong.is_empty() || bless, "{wrong}");
}

/// By hand on version 2 of control groups. Where it prints something else than version 1, a text behind the console has
/// what it prints; and what begins with `$ ` is typed only there.
#[test]
fn by_hand_on_version_2_of_control_groups() {
    if !is_version_2() {
        return;
    }
    let page = CHAPTERS[6].page;
    let (begin, end) = lines_of_section(page, "By hand");
    let here: Vec<Block> = blocks(page)
        .into_iter()
        .filter(|block| (begin..end).contains(&block.line))
        .collect();
    let mut expected: Vec<(Vec<Step>, String)> = Vec::new();
    for block in here {
        let steps = match block.language() {
            "console" => steps(&block.text),
            "text" if block.text.starts_with("$ ") => steps(&block.text),
            "text" => {
                expected.last_mut().unwrap().1 = block.text;
                continue;
            }
            other => panic!("{page}:{}: {other}", block.line),
        };
        let output = steps.iter().map(|step| step.output.as_str()).collect();
        expected.push((steps, output));
    }
    let folder = folder();
    write_program(&folder.path().join("sudo"), "#!/bin/sh\nexec \"$@\"\n");
    let path = std::env::var("PATH").unwrap();
    let host = pretend_host(&format!("{}:{path}", folder.path().display()));
    let typed: Vec<&Step> = expected.iter().flat_map(|(steps, _)| steps).collect();
    assert!(typed.len() > 12, "{typed:?}");
    let mut printed = type_into(
        host,
        format!("cd {} || exit 1\n", folder.path().display()),
        &typed,
    )
    .into_iter();
    for (steps, expected) in &expected {
        let printed: String = printed.by_ref().take(steps.len()).collect();
        assert!(
            same(&steady(expected), &steady(&printed)),
            "{steps:?}\nthe book:\n{expected}printed:\n{printed}"
        );
    }
}

/// Whether the next block behind the console at `line` of a "by hand" is a text with what version 2 prints.
fn has_a_text_behind(page: &str, line: usize) -> bool {
    let (begin, end) = match text(page).contains("\n## By hand") {
        true => lines_of_section(page, "By hand"),
        false => return false,
    };
    let mut behind = blocks(page).into_iter().filter(|block| block.line > line);
    let next = behind.next().filter(|_| (begin..end).contains(&line));
    next.is_some_and(|next| next.language() == "text" && !next.text.starts_with("$ "))
}

/// Whether processes are counted by version 2 of control groups here.
fn is_version_2() -> bool {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let named = |line: &str| line.split(':').nth(1).unwrap_or_default().contains("pids");
    !own.lines().any(named)
}

/// From which line to which a section of a page goes, by the beginning of its heading.
fn lines_of_section(page: &str, heading: &str) -> (usize, usize) {
    let text = text(page);
    let headings = text
        .lines()
        .enumerate()
        .filter(|(_, line)| line.starts_with("## "));
    let mut from = headings.skip_while(|(_, line)| !line[3..].starts_with(heading));
    let (begin, _) = from.next().unwrap();
    (begin, from.next().map_or(usize::MAX, |(end, _)| end))
}

/// Commands without output prepare something, or need what a test hasn't: they are few, and listed.
#[test]
fn set_up_commands_are_counted() {
    let mut list = String::new();
    for page in pages() {
        for block in blocks(&page) {
            let kinds = ["console", "sh", "rust", "diff", "text"];
            assert!(
                kinds.contains(&block.language()),
                "{page}:{}: {}",
                block.line,
                block.kind
            );
            if block.kind == "sh" {
                block
                    .text
                    .lines()
                    .for_each(|line| list += &format!("{page}: {line}\n"));
            }
        }
    }
    insta::assert_snapshot!("set_up_commands", list);
}

/// A console says by its marks what it is: an attack that works, the same one when it fails, or what the reader types.
#[test]
fn consoles_are_marked_as_what_they_are() {
    let mut marked = 0;
    for page in pages() {
        let is_written = whole_chapters().any(|chapter| chapter.page == page);
        let headings: Vec<(usize, String)> = text(&page)
            .lines()
            .enumerate()
            .filter_map(|(number, line)| Some((number, line.strip_prefix("## ")?.to_owned())))
            .collect();
        for block in blocks(&page) {
            let section = headings.iter().rfind(|(line, _)| *line < block.line);
            let section = section.map_or("", |(_, heading)| heading);
            let to_type = ["By hand", "Run it"]
                .iter()
                .any(|part| section.starts_with(part));
            let attacks =
                block.language() == "console" && block.text.contains("$ cargo progress attack ");
            let expected: BTreeSet<&str> = match () {
                () if attacks && block.text.contains("\nIt works: ") => ["attack"].into(),
                () if attacks && block.text.contains("\nIt fails.\n") => ["held"].into(),
                () if is_written && to_type && block.language() == "console" => ["typed"].into(),
                () => BTreeSet::new(),
            };
            // In a page that is still to be written anything may be typed.
            let mut marks = block.marks();
            if !is_written && expected.is_empty() {
                marks.remove("typed");
            }
            assert_eq!(marks, expected, "{page}:{}: the marks", block.line);
            marked += marks.len();
        }
    }
    assert!(marked > 30, "{marked}");
}

/// What stands between the marks of an anchor.
fn between<'a>(source: &'a str, anchor: &str) -> &'a str {
    let (_, rest) = source.split_once(&format!("ANCHOR: {anchor}\n")).unwrap();
    let end = format!("ANCHOR_END: {anchor}\n");
    rest.split_once(&end)
        .unwrap_or_else(|| panic!("{anchor} has no end"))
        .0
}

/// Rust comes from the steps, by name, and no page but a solution's has a solution.
#[test]
fn no_rust_is_pasted_and_no_solution_told_early() {
    let mut included = 0;
    for page in pages() {
        for block in blocks(&page)
            .into_iter()
            .filter(|block| block.kind.starts_with("rust"))
        {
            for line in block.text.lines().filter(|line| !line.is_empty()) {
                let name = line
                    .strip_prefix("{{#include ")
                    .and_then(|rest| rest.strip_suffix("}}"));
                let name = name.unwrap_or_else(|| panic!("{page}:{}: pasted: {line}", block.line));
                let (file, anchor) = name.split_once(':').unwrap_or((name, ""));
                let file = src().join(file);
                let source = fs::read_to_string(&file).unwrap_or_else(|_| panic!("{page}: {name}"));
                let mark = format!("ANCHOR: {anchor}\n");
                assert!(
                    anchor.is_empty() || source.contains(&mark),
                    "{page}: no anchor: {name}"
                );
                // Between its marks an anchor may hold an exercise, too.
                let shown = match anchor.is_empty() {
                    true => source.as_str(),
                    false => between(&source, anchor),
                };
                let tells = anchor.starts_with("exercise_") || shown.contains("ANCHOR: exercise_");
                assert!(
                    !tells || page.ends_with("-solution.md"),
                    "{page} tells {name}"
                );
                included += 1;
            }
        }
        // Nor in words.
        if !page.ends_with("-solution.md") {
            let text = text(&page);
            for chapter in CHAPTERS {
                let lib = workspace()
                    .join("steps")
                    .join(chapter.package)
                    .join("src/lib.rs");
                let lib = fs::read_to_string(lib).unwrap();
                for name in names(&lib) {
                    for line in body(&lib, name)
                        .unwrap()
                        .lines()
                        .filter(|line| line.len() > 34)
                    {
                        assert!(!text.contains(line.trim()), "{page} tells {name}: {line}");
                    }
                }
            }
        }
    }
    assert!(included > 20, "{included}");
}

/// What is generated is as the generator writes it.
#[test]
fn generated_files_are_up_to_date() {
    let mut files = sources().unwrap();
    if have("strace", "strace") {
        step("step01-uts");
        files.extend(timelines(progress(), &Programs::build(&[]).unwrap()).unwrap());
    }
    // The time lines from chapter 7 on were drawn with version 1 of control groups.
    if is_version_2() {
        let has_groups = |name: &str| name.ends_with(".svg") && name > "step07";
        files.retain(|name, _| !has_groups(name));
    }
    for there in fs::read_dir(generated()).unwrap() {
        let name = there.unwrap().file_name().into_string().unwrap();
        let known = name.ends_with(".svg") || files.contains_key(&name);
        assert!(known, "nobody generates {name} any more");
    }
    for (name, text) in files {
        let there = fs::read_to_string(generated().join(&name)).unwrap_or_default();
        let lines_of = |one: &str, other: &str| -> Vec<String> {
            let new = one
                .lines()
                .filter(|line| !other.lines().any(|known| known == *line));
            new.map(String::from).collect()
        };
        let (lost, new) = (lines_of(&there, &text), lines_of(&text, &there));
        assert!(
            there == text,
            "{name} is out of step: cargo progress generate\n{lost:#?} became {new:#?}"
        );
    }
}

/// The headings of a chapter, in the order that the course promises.
const PARTS: [&str; 14] = [
    "What you will be able to do",
    "The attack",
    "The idea",
    "By hand",
    "The code around the exercises",
    "Rust you need",
    "Exercises",
    "Run it",
    "The attack again",
    "Pitfalls",
    "How runc, crun and youki do it",
    "Quiz",
    "Further reading",
    "The hole that is left",
];

#[test]
fn every_chapter_has_its_parts_in_order() {
    for chapter in CHAPTERS {
        let text = text(chapter.page);
        // Atop stands the container, with as many parts as there were chapters.
        let so_far = format!(
            "# {}\n\n<div style=\"--step: {}\">\n{{{{#include img/so-far.svg}}}}\n</div>\n",
            text[2..].lines().next().unwrap(),
            chapter.number
        );
        assert!(text.starts_with(&so_far), "{}: {so_far}", chapter.page);
        for exercise in chapter.exercises {
            let anchor = format!("{{#{}}}", exercise.section());
            assert!(text.contains(&anchor), "{} has no {anchor}", chapter.page);
        }
        if !chapter.is_whole {
            assert!(text.contains("its text is still short"), "{}", chapter.page);
            continue;
        }
        let heading = |line: &str| {
            let title = line.strip_prefix("## ")?;
            let title = title.split(" {#").next().unwrap_or(title);
            // Each part says how long it takes.
            let (title, minutes) = title.split_once(" ·&nbsp;").unwrap_or((title, ""));
            Some((title.to_owned(), minutes.to_owned()))
        };
        let headings: Vec<_> = text.lines().filter_map(heading).collect();
        let titles: Vec<_> = headings.iter().map(|(title, _)| title.as_str()).collect();
        assert_eq!(titles, PARTS, "{}", chapter.page);
        let minutes = headings
            .iter()
            .filter_map(|(_, minutes)| minutes.strip_suffix("&nbsp;min")?.parse::<usize>().ok());
        let all: usize = minutes.clone().sum();
        assert!(
            minutes.count() >= 8,
            "{}: minutes per section",
            chapter.page
        );
        let claim = format!("About {all} minutes.");
        assert!(
            text.contains(&claim),
            "{} has sections of: {claim}",
            chapter.page
        );
        let drawings = pictures(chapter.page).len();
        assert!(drawings >= 4, "{}: {drawings} drawings", chapter.page);
        let solution = chapter.page.replace(".md", "-solution.md");
        assert!(text.contains(&format!("]({solution})")), "{}", chapter.page);
    }
}

/// The drawings that a page includes.
fn pictures(page: &str) -> BTreeSet<String> {
    let text = text(page);
    let includes = text.split("{{#include ").skip(1);
    let included = includes.filter_map(|rest| Some(rest.split_once("}}")?.0.to_owned()));
    included.filter(|file| file.ends_with(".svg")).collect()
}

/// Drawings are a part of the page, so that they can have its colours and need no file beside it.
#[test]
fn drawings_belong_to_the_page() {
    let shown: BTreeSet<String> = pages().iter().flat_map(|page| pictures(page)).collect();
    for folder in ["img", "generated"] {
        for there in fs::read_dir(src().join(folder)).unwrap() {
            let name = format!("{folder}/{}", there.unwrap().file_name().to_string_lossy());
            let is_shown = shown.contains(&name) || !name.ends_with(".svg");
            assert!(is_shown, "{name} isn't shown anywhere");
        }
    }
    for picture in &shown {
        let svg = fs::read_to_string(src().join(picture)).unwrap();
        let stem = Path::new(picture).file_stem().unwrap().to_string_lossy();
        let begins = svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"drawing")
            && svg.contains("viewBox=\"0 0 480 ")
            && svg.contains("role=\"img\" aria-label=\"");
        assert!(
            begins,
            "{picture}: a drawing, 480 wide for a phone, with a label"
        );
        // A blank line would end the HTML, and the rest would be text.
        assert!(!svg.contains("\n\n"), "{picture} has a blank line");
        let ids = svg.split(" id=\"").skip(1);
        assert!(
            ids.clone().all(|id| id.starts_with(&format!("{stem}-"))),
            "{picture}: each id begins with {stem}-, as several drawings share a page"
        );
        for attribute in ["fill=", "stroke=", "font-family=", "font-size="] {
            assert!(
                !svg.contains(attribute),
                "{picture}: {attribute} is for course.css to say"
            );
        }
    }
}

/// Links within the book lead to pages and headings that are there; others are listed.
#[test]
fn links_lead_somewhere() {
    let pages = pages();
    let mut outside = BTreeSet::new();
    for page in &pages {
        for link in text(page).split("](").skip(1) {
            let Some((target, _)) = link.split_once(')') else {
                continue;
            };
            if target.starts_with("https://") {
                outside.insert(target.to_owned());
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { page.as_str() } else { file };
            assert!(src().join(file).exists(), "{page}: {target}");
            if !anchor.is_empty() {
                assert!(
                    anchors(file).contains(anchor),
                    "{page}: {target}: {:?}",
                    anchors(file)
                );
            }
        }
    }
    insta::assert_snapshot!("outside_links", Vec::from_iter(outside).join("\n"));
}

/// The ids of a page's headings, as mdbook makes them.
fn anchors(page: &str) -> BTreeSet<String> {
    let page = text(page).replace(
        "{{#include generated/main-diffs.md}}",
        &fs::read_to_string(generated().join("main-diffs.md")).unwrap(),
    );
    let headings = page.lines().filter_map(|line| {
        line.trim_start_matches('#')
            .strip_prefix(' ')
            .filter(|_| line.starts_with('#'))
    });
    let id = |heading: &str| match heading.split_once("{#") {
        Some((_, id)) => id.trim_end_matches('}').to_owned(),
        None => {
            let kept = heading.replace("&nbsp;", " ").to_lowercase();
            let kept = kept
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.collect::<String>().trim().replace(' ', "-")
        }
    };
    headings.map(id).collect()
}

/// A page with what it includes in place, and of code its comments: `Some(3)` is no man page.
fn whole(page: &str) -> String {
    let mut whole = String::new();
    for line in text(page).lines() {
        let include = line
            .strip_prefix("{{#include ")
            .and_then(|rest| rest.strip_suffix("}}"));
        whole += &match include {
            Some(name) => {
                let (file, anchor) = name.split_once(':').unwrap_or((name, ""));
                let source = fs::read_to_string(src().join(file)).unwrap();
                let shown = match anchor.is_empty() {
                    true => source.as_str(),
                    false => between(&source, anchor),
                };
                let is_code = file.ends_with(".rs");
                let kept = |line: &&str| !is_code || line.trim_start().starts_with("//");
                shown.lines().filter(kept).collect::<Vec<_>>().join("\n")
            }
            None => line.to_owned(),
        };
        whole.push('\n');
    }
    whole
}

/// The man pages that a text names: `execve(2)` is one, and `exit(125)` isn't.
fn man_pages(text: &str) -> BTreeSet<(String, String)> {
    let mut named = BTreeSet::new();
    for (at, _) in text.match_indices('(') {
        let Some((section, _)) = text[at + 1..].split_once(')') else {
            continue;
        };
        let name: String = text[..at]
            .chars()
            .rev()
            .take_while(|c| c.is_ascii_alphanumeric() || "_.-".contains(*c))
            .collect();
        let name: String = name.chars().rev().collect();
        let mut digits = section.chars();
        let is_section =
            matches!(digits.next(), Some('1'..='8')) && digits.all(|c| c.is_ascii_lowercase());
        if is_section && !name.is_empty() {
            named.insert((name, section.to_owned()));
        }
    }
    named
}

/// Every man page that a page or a written chapter's check names exists, in the section that it says.
#[test]
fn man_pages_exist() {
    let mut named = BTreeSet::new();
    for page in pages() {
        // A trace isn't prose: `close(3)` in it is a call.
        let is_trace = |block: &Block| ["console", "text", "diff"].contains(&block.language());
        let traces: Vec<String> = blocks(&page)
            .into_iter()
            .filter(is_trace)
            .map(|block| block.text)
            .collect();
        let prose = traces
            .iter()
            .fold(whole(&page), |prose, trace| prose.replace(trace, ""));
        // What is generated has code.
        let prose = prose.split("```diff").next().unwrap_or_default();
        named.extend(man_pages(prose));
    }
    for exercise in whole_chapters().flat_map(|chapter| chapter.exercises) {
        named.extend(man_pages(exercise.read));
    }
    assert!(named.len() > 25, "{named:?}");
    if !have("man", "man-db") {
        return;
    }
    let exists = |name: &str, section: &str| {
        let page = Command::new("man").args(["-w", section, name]).output();
        page.unwrap().status.success()
    };
    // Minimal systems leave the pages out, all of them.
    if !exists("execve", "2") {
        return crate::stage::skip("there are no man pages: apt-get install manpages manpages-dev");
    }
    // man-pages 6.16 was the first to have these.
    let is_new = |name: &str| ["open_tree", "move_mount"].contains(&name);
    // Before man-pages 6.10 what is in section 2const now stood in the call's own page.
    let prctl = Command::new("man").args(["2", "prctl"]).output().unwrap();
    let prctl = String::from_utf8_lossy(&prctl.stdout);
    // And what is in proc_pid_fd(5) now stood in proc(5).
    let proc = Command::new("man").args(["5", "proc"]).output().unwrap();
    let proc = String::from_utf8_lossy(&proc.stdout).replace("[pid]", "pid");
    let file_of_proc = |name: &str| format!("/{}", name.replace('_', "/"));
    let missing: Vec<_> = named
        .iter()
        .filter(|(name, section)| !exists(name, section) && !is_new(name))
        .filter(|(name, section)| section != "2const" || !prctl.contains(name.as_str()))
        .filter(|(name, section)| section != "5" || !proc.contains(&file_of_proc(name)))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// The flags that a program's `--help` names, and whether each takes a value.
fn flags(help: &str) -> BTreeMap<String, bool> {
    let mut flags = BTreeMap::new();
    for line in help
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with('-'))
    {
        let names = line.split("  ").next().unwrap_or_default();
        let takes = names.contains('<');
        for name in names
            .split([' ', ',', '=', '['])
            .filter(|name| name.starts_with('-'))
        {
            flags.insert(name.to_owned(), takes);
        }
    }
    flags
}

/// The help of a program, or of one of its subcommands. Each is asked for once.
fn help(program: &Path, words: &[&str]) -> String {
    static ASKED: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());
    let key = format!("{} {}", program.display(), words.join(" "));
    let ask = || {
        let output = Command::new(program).args(words).arg("--help").output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    ASKED.lock().unwrap().entry(key).or_insert_with(ask).clone()
}

/// The flags of a step's program and of all its subcommands.
fn all_flags(program: &Path) -> BTreeMap<String, bool> {
    let general = help(program, &[]);
    let mut all = flags(&general);
    let commands = general.split("Commands:\n").nth(1).unwrap_or_default();
    let commands = commands.split("\n\n").next().unwrap_or_default();
    for command in commands
        .lines()
        .filter_map(|line| line.split_whitespace().next())
    {
        all.extend(flags(&help(program, &[command])));
    }
    all
}

/// The flags that a command line gives to a program of ours, where it names one, with those that the program has:
/// `cargo run -p step04-pivot-root -- --why x -l` gives it `--why`.
fn given_flags(line: &str) -> Option<(Vec<String>, BTreeMap<String, bool>)> {
    let mut words = line
        .split_whitespace()
        .skip_while(|word| *word != "cargo")
        .skip(1);
    let (program, is_step) = match words.next()? {
        "run" => (
            step(words.by_ref().skip_while(|word| *word != "-p").nth(1)?),
            true,
        ),
        "progress" => (progress(), false),
        _ => return None,
    };
    let mut words = words.skip_while(|word| is_step && *word == "--").peekable();
    let has_commands = !is_step || help(program, &[]).contains("Commands:\n");
    let mut known = flags(&help(program, &[]));
    let mut given = Vec::new();
    let mut command = None;
    while let Some(word) = words.next() {
        let ends = ["|", "&&", ";", "--"].contains(&word);
        match word.strip_prefix('-') {
            _ if ends => break,
            None if has_commands && command.is_none() => {
                command = Some(word);
                known.extend(flags(&help(program, &[word])));
            }
            // Behind the numbers of `cargo progress` there may be more; behind a container's command all is its own.
            None if !is_step => {}
            None => break,
            Some(rest) => {
                let letters = || rest.chars().map(|letter| format!("-{letter}")).collect();
                let flag = word.split('=').next().unwrap_or(word);
                // `-it` is two of them.
                let flags: Vec<String> = if rest.starts_with('-') {
                    vec![flag.into()]
                } else {
                    letters()
                };
                let takes = flags.last().and_then(|flag| known.get(flag)) == Some(&true);
                if takes && !word.contains('=') {
                    words.next();
                }
                given.extend(flags);
            }
        }
    }
    Some((given, known))
}

/// Every flag that a page shows is one of the program's that it shows it with. Flags of others stand in a list.
#[test]
fn flags_that_pages_show_exist() {
    let ours: Vec<_> = STEPS
        .iter()
        .map(|package| all_flags(step(package)))
        .collect();
    let mut others = BTreeSet::new();
    let mut tried = 0;
    for page in pages() {
        for block in blocks(&page) {
            if !["console", "sh"].contains(&block.language()) {
                continue;
            }
            for line in block.text.lines() {
                let (given, known) = given_flags(line).unwrap_or_default();
                for flag in given {
                    tried += 1;
                    assert!(
                        known.contains_key(&flag),
                        "{page}: there is no {flag}: {line}"
                    );
                }
            }
        }
        // Nor does prose name one that nobody has.
        for line in text(&page).lines() {
            for code in line.split('`').skip(1).step_by(2) {
                let flag = code.split([' ', '=']).next().unwrap_or_default();
                let is_flag = flag.starts_with('-')
                    && flag
                        .trim_start_matches('-')
                        .starts_with(|c: char| c.is_alphanumeric());
                if is_flag && !ours.iter().any(|known| known.contains_key(flag)) {
                    others.insert(format!("{page}: {code}"));
                }
            }
        }
    }
    assert!(tried > 40, "{tried}");
    insta::assert_snapshot!("flags_of_others", Vec::from_iter(others).join("\n"));
}

/// Every message of ours that a page quotes is printed by a test: in a console of the book, or in a snapshot. What
/// others print stands in a list.
#[test]
fn quoted_messages_are_printed_by_a_test() {
    let mut printed = String::new();
    for suite in fs::read_dir(workspace().join("tests/suites")).unwrap() {
        let Ok(snapshots) = fs::read_dir(suite.unwrap().path().join("snapshots")) else {
            continue;
        };
        for snapshot in snapshots {
            printed += &fs::read_to_string(snapshot.unwrap().path()).unwrap();
        }
    }
    for page in pages() {
        for block in blocks(&page)
            .iter()
            .filter(|block| block.language() == "console")
        {
            printed += &block.text;
        }
    }
    let is_errno = |word: &str| {
        word.len() > 2
            && word.starts_with('E')
            && word
                .chars()
                .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
    };
    let mut others = BTreeSet::new();
    let mut quoted = 0;
    for page in pages() {
        let text = text(&page);
        let pitfall = |code: &str| text.contains(&format!("**`{code}`"));
        for line in text.lines() {
            for code in line.split('`').skip(1).step_by(2) {
                let ours = code.split(['(', ')']).any(is_errno) && code.contains(": ");
                if ours {
                    quoted += 1;
                    assert!(printed.contains(code), "{page}: nothing prints {code}");
                } else if pitfall(code) {
                    others.insert(format!("{page}: {code}"));
                }
            }
        }
    }
    assert!(quoted > 2, "{quoted}");
    insta::assert_snapshot!("messages_of_others", Vec::from_iter(others).join("\n"));
}

/// The links to the source and to a page's text have the workspace's address, once it has one.
#[test]
fn links_to_the_source_follow_the_workspace() {
    let value = |file: &str, key: &str| {
        let text = fs::read_to_string(workspace().join(file)).unwrap();
        let line = text
            .lines()
            .find_map(|line| Some(line.strip_prefix(key)?.strip_prefix(" = ")?.to_owned()));
        line.map(|line| line.trim_matches('"').to_owned())
    };
    let repository = value("Cargo.toml", "repository");
    assert_eq!(value("book/book.toml", "git-repository-url"), repository);
    let edit = value("book/book.toml", "edit-url-template");
    let begins = |edit: &String| {
        repository
            .as_ref()
            .is_some_and(|address| edit.starts_with(address.as_str()))
    };
    assert_eq!(
        edit.as_ref().is_some_and(begins),
        repository.is_some(),
        "{edit:?}"
    );
}

/// It builds with mdbook and nothing else, and without a warning.
#[test]
fn it_builds() {
    if !have("mdbook", "mdbook: cargo install mdbook") {
        return;
    }
    let folder = folder();
    let said = Command::new("mdbook")
        .arg("build")
        .arg("--dest-dir")
        .arg(folder.path())
        .arg(workspace().join("book"))
        .assert()
        .success()
        .errors();
    assert!(!said.contains("WARN") && !said.contains("ERROR"), "{said}");
    for page in pages() {
        let html = fs::read_to_string(folder.path().join(page.replace(".md", ".html"))).unwrap();
        // An include that found nothing is left in the text, or leaves an empty block.
        assert!(!html.contains("{{#"), "{page}");
        assert!(
            !html.contains("<code class=\"language-rust\"></code>"),
            "{page}"
        );
    }
    run(Command::new("test")
        .arg("-s")
        .arg(folder.path().join("index.html")));
    // Its picture in the browser's tab is ours.
    let index = fs::read_to_string(folder.path().join("index.html")).unwrap();
    let (_, icon) = index.split_once("<link rel=\"icon\" href=\"").unwrap();
    let icon = fs::read(folder.path().join(icon.split('"').next().unwrap())).unwrap();
    assert_eq!(
        icon,
        fs::read(workspace().join("book/theme/favicon.svg")).unwrap()
    );
}

#[test]
fn a_book_that_lies_is_found_out() {
    let lines = |text: &str| steady(text);
    assert!(same(&lines("uid=0\n[…]\nend"), &lines("uid=0\na\nb\nend")));
    assert!(!same(&lines("uid=0\n[…]\nend"), &lines("uid=1\na\nend")));
    assert!(same(&lines("uts:[4026531838]"), &lines("uts:[4026532999]")));
    assert!(!same(&lines("pid 1"), &lines("pid 2")));
    assert!(same(&lines("8:pids:/a"), &lines("11:pids:/a")));
    assert!(!same(&lines("0::/a"), &lines("8:pids:/a")));
    let steps = steps("$ a \\\n> b\nout\n$ c\n");
    assert_eq!(steps[0].command, "a \\\nb");
    assert_eq!((steps[0].output.as_str(), steps.len()), ("out\n", 2));
    let named = man_pages("see execve(2) and ld.so(8), not exit(125), f(a) or (3)");
    let name = |(name, section): &(String, String)| format!("{name}.{section}");
    assert_eq!(
        Vec::from_iter(named.iter().map(name)),
        ["execve.2", "ld.so.8"]
    );
    let flags = flags("  -e, --env <KEY>  set it\n  --init           one\n");
    assert_eq!(
        flags,
        [("--env", true), ("--init", false), ("-e", true)]
            .map(|(flag, takes)| (flag.into(), takes))
            .into()
    );
    let _: &Path = step("step01-uts");
}

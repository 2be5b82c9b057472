//! The book says what is true: its consoles are typed, its code comes from the steps, its links lead
//! somewhere, its parts are in order.
//!
//! With TEN_STEPS_BLESS=1 the consoles are written anew with what was printed, to be read and
//! committed.

use crate::course::exercises::bring_dependencies;
use crate::stage::{Printed, STEPS, folder, have, nested, progress, run, step, write_program};
use assert_cmd::assert::OutputAssertExt;
use progress::chapters::{CHAPTERS, WRITTEN};
use progress::course::regions::{body, names};
use progress::generate::{folder as generated, sources, timelines};
use progress::programs::{Programs, workspace};
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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
        const MARK: &str = "@@ten-steps@@";
        // Where state lies on a machine of one's own.
        let top = self.0.path().join("ten-steps");
        let mut script = format!(
            "mount -t tmpfs -o mode=755 lib /var/lib && mount -t tmpfs -o mode=755 srv /srv &&\n\
             mkdir {DESK} && mount --bind {} {DESK} && cd {DESK} || exit 1\n",
            top.display()
        );
        for step in steps {
            // What the command before ended with is there for `echo $?`.
            script += &format!(
                "{{ {}\n}} 2>&1 </dev/null\nrc=$?\necho {MARK}\n(exit $rc)\n",
                step.command
            );
        }
        let cargo = PathBuf::from(std::env::var_os("CARGO").unwrap());
        let path = format!(
            "{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:{}",
            self.0.path().join("bin").display(),
            cargo.parent().unwrap().display()
        );
        let mut host = Command::new(progress())
            .args(["pretend-host", "--", "bash"])
            .env_clear()
            .env("PATH", path)
            .env("HOME", "/root")
            .env("USER", "you")
            .env("LC_ALL", "C.UTF-8")
            .env("CARGO", &cargo)
            .env(
                "CARGO_HOME",
                std::env::var_os("CARGO_HOME").unwrap_or_default(),
            )
            .env("TEN_STEPS_EXERCISES", format!("{DESK}/exercises"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = host.stdin.take().unwrap();
        input.write_all(script.as_bytes()).unwrap();
        drop(input);
        let output = host.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let said = said
            .replace(DESK, HOME)
            .replace("/srv isn't there", "/home isn't there");
        let said = said.replace(workspace().to_str().unwrap(), HOME);
        let mut parts: Vec<String> = said.split(&format!("{MARK}\n")).map(String::from).collect();
        assert_eq!(parts.pop().as_deref(), Some(""), "{said}");
        assert_eq!(parts.len(), steps.len(), "{said}");
        parts
    }
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
            steady += if varies && (end > 1 || !before.is_empty()) {
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
            .filter(|block| block.kind == "console")
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
            for step in steps {
                let printed = printed.next().unwrap();
                console += &format!("$ {}\n", step.command.replace('\n', "\n> "));
                if same(&steady(&step.output), &steady(&printed)) {
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
                &format!("```console\n{}```", block.text),
                &format!("```console\n{console}```"),
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

/// Commands without output prepare something, or need what a test hasn't: they are few, and listed.
#[test]
fn set_up_commands_are_counted() {
    let mut list = String::new();
    for page in pages() {
        for block in blocks(&page) {
            let kinds = ["console", "sh", "rust", "diff", "text"];
            assert!(
                kinds.contains(&block.kind.as_str()),
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
    for there in fs::read_dir(generated()).unwrap() {
        let name = there.unwrap().file_name().into_string().unwrap();
        let known = name.ends_with(".svg") || files.contains_key(&name);
        assert!(known, "nobody generates {name} any more");
    }
    for (name, text) in files {
        let there = fs::read_to_string(generated().join(&name)).unwrap_or_default();
        assert!(
            there == text,
            "{name} is out of step: cargo progress generate\n{text}"
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
        for exercise in chapter.exercises {
            let anchor = format!("{{#{}}}", exercise.section());
            assert!(text.contains(&anchor), "{} has no {anchor}", chapter.page);
        }
        if chapter.number > WRITTEN {
            assert!(text.contains("its text is still short"), "{}", chapter.page);
            continue;
        }
        let heading = |line: &str| {
            let title = line.strip_prefix("## ")?;
            let title = title.split(" {#").next().unwrap_or(title);
            // Each part says how long it takes.
            let (title, minutes) = title.split_once(" · ").unwrap_or((title, ""));
            Some((title.to_owned(), minutes.to_owned()))
        };
        let headings: Vec<_> = text.lines().filter_map(heading).collect();
        let titles: Vec<_> = headings.iter().map(|(title, _)| title.as_str()).collect();
        assert_eq!(titles, PARTS, "{}", chapter.page);
        let minutes = headings
            .iter()
            .filter(|(_, minutes)| minutes.ends_with(" min"))
            .count();
        assert!(minutes >= 8, "{}: minutes per section", chapter.page);
        let drawings = text.matches("](img/").count() + text.matches("](generated/").count();
        assert!(drawings >= 3, "{}: {drawings} drawings", chapter.page);
        let solution = chapter.page.replace(".md", "-solution.md");
        assert!(text.contains(&format!("]({solution})")), "{}", chapter.page);
    }
}

/// Links within the book lead to pages, headings and pictures that are there; others are listed.
#[test]
fn links_lead_somewhere() {
    let pages = pages();
    let mut outside = BTreeSet::new();
    let mut pictures = BTreeSet::new();
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
            if file.ends_with(".svg") {
                pictures.insert(file.to_owned());
            }
            if !anchor.is_empty() {
                assert!(
                    anchors(file).contains(anchor),
                    "{page}: {target}: {:?}",
                    anchors(file)
                );
            }
        }
    }
    for picture in fs::read_dir(src().join("img")).unwrap() {
        let name = format!("img/{}", picture.unwrap().file_name().to_string_lossy());
        assert!(pictures.contains(&name), "{name} isn't shown anywhere");
    }
    for picture in &pictures {
        let svg = fs::read_to_string(src().join(picture)).unwrap();
        let is_described = svg.contains("aria-label=\"") && svg.contains("viewBox=\"0 0 480 ");
        assert!(
            is_described,
            "{picture}: for a phone it is 480 wide, and it has a label"
        );
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
            let kept = heading.to_lowercase();
            let kept = kept
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.collect::<String>().trim().replace(' ', "-")
        }
    };
    headings.map(id).collect()
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
}

#[test]
fn a_book_that_lies_is_found_out() {
    let lines = |text: &str| steady(text);
    assert!(same(&lines("uid=0\n[…]\nend"), &lines("uid=0\na\nb\nend")));
    assert!(!same(&lines("uid=0\n[…]\nend"), &lines("uid=1\na\nend")));
    assert!(same(&lines("uts:[4026531838]"), &lines("uts:[4026532999]")));
    assert!(!same(&lines("pid 1"), &lines("pid 2")));
    let steps = steps("$ a \\\n> b\nout\n$ c\n");
    assert_eq!(steps[0].command, "a \\\nb");
    assert_eq!((steps[0].output.as_str(), steps.len()), ("out\n", 2));
    let _: &Path = step("step01-uts");
}

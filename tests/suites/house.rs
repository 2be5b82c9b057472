//! The house: which file of a crate imports which, read from the sources, and that none imports itself by a detour.

use crate::stage::STEPS;
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use progress::programs::workspace;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A module's path from the root of its crate: `container::store` as its two names.
type Module = Vec<String>;

/// One file of a crate.
#[derive(Default)]
struct Room {
    file: PathBuf,
    /// Each path that is written in it, made one from the root; and the name that a `pub use` gives it here.
    paths: Vec<(Module, Option<String>)>,
}

/// The files of a crate by their modules.
struct House(BTreeMap<Module, Room>);

impl House {
    /// Reads the crate whose root is the file `root`, and all that it declares as its modules.
    fn of(root: &Path) -> House {
        let mut house = House(BTreeMap::new());
        house.read(root, root.parent().unwrap(), Vec::new());
        house
    }

    /// Reads `file`, whose modules are in `folder`.
    fn read(&mut self, file: &Path, folder: &Path, module: Module) {
        let text = fs::read_to_string(file).unwrap();
        let tokens: TokenStream = text.parse().unwrap();
        let mut sight = Sight::default();
        sight.look(tokens, &module, &module);
        for name in &sight.modules {
            let child = folder.join(name).with_extension("rs");
            assert!(child.exists(), "{}: mod {name}", file.display());
            let mut module = module.clone();
            module.push(name.clone());
            self.read(&child, &folder.join(name), module);
        }
        let room = Room {
            file: file.to_owned(),
            paths: sight.paths,
        };
        self.0.insert(module, room);
    }

    /// The file that defines what `path` leads to, through all that hand its name on.
    fn home(&self, path: &[String], turns: usize) -> &Path {
        assert!(turns < 16, "{path:?} leads in a circle");
        let known = (0..=path.len())
            .rev()
            .find(|end| self.0.contains_key(&path[..*end]));
        let at = known.unwrap_or(0);
        let room = &self.0[&path[..at]];
        let handed_on = path.get(at).and_then(|name| {
            let mut named = room.paths.iter().filter(|(_, given)| given.is_some());
            named.find(|(_, given)| given.as_ref() == Some(name))
        });
        match handed_on {
            Some((target, _)) => self.home(&[target, &path[at + 1..]].concat(), turns + 1),
            None => &room.file,
        }
    }

    /// Which file imports which.
    fn arrows(&self) -> BTreeSet<(PathBuf, PathBuf)> {
        let mut arrows = BTreeSet::new();
        for room in self.0.values() {
            for (path, _) in &room.paths {
                let home = self.home(path, 0);
                if home != room.file {
                    arrows.insert((room.file.clone(), home.to_owned()));
                }
            }
        }
        arrows
    }
}

/// What is seen in one file.
#[derive(Default)]
struct Sight {
    modules: Vec<String>,
    paths: Vec<(Module, Option<String>)>,
}

impl Sight {
    /// Looks through `tokens`, which stand in `module`, a module of the file `home` or one within it.
    fn look(&mut self, tokens: TokenStream, module: &[String], home: &[String]) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        self.declared(&tokens);
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => {
                    self.look(group.stream(), &inner(&tokens[..at], module), home)
                }
                TokenTree::Ident(name) if !is_part(&tokens[..at]) => {
                    let start = match name.to_string().as_str() {
                        "crate" => Some(Vec::new()),
                        "self" => Some(module.to_vec()),
                        "super" => Some(module[..module.len().saturating_sub(1)].to_vec()),
                        name if module == home
                            && self.modules.iter().any(|known| known == name) =>
                        {
                            Some([module, &[name.to_owned()]].concat())
                        }
                        _ => None,
                    };
                    if let Some(start) = start.filter(|_| separated(&tokens[at + 1..])) {
                        self.follow(&tokens[at + 1..], start, is_handed_on(&tokens[..at]));
                    }
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// Notes the modules that the file declares, before any path to one is read.
    fn declared(&mut self, tokens: &[TokenTree]) {
        for three in tokens.windows(3) {
            if let [
                TokenTree::Ident(word),
                TokenTree::Ident(name),
                TokenTree::Punct(end),
            ] = three
            {
                if word == "mod" && end.as_char() == ';' {
                    self.modules.push(name.to_string());
                }
            }
        }
    }

    /// Follows the rest of a path, and each branch of it.
    fn follow(&mut self, rest: &[TokenTree], mut path: Module, handed_on: bool) {
        let mut rest = rest;
        while separated(rest) {
            match rest.get(2) {
                Some(TokenTree::Ident(name)) if name == "super" => drop(path.pop()),
                Some(TokenTree::Ident(name)) if name == "self" => {}
                Some(TokenTree::Ident(name)) => path.push(name.to_string()),
                Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                    let tokens: Vec<_> = group.stream().into_iter().collect();
                    let is_comma = |token: &TokenTree| matches!(token, TokenTree::Punct(mark) if mark.as_char() == ',');
                    for branch in tokens.split(is_comma).filter(|branch| !branch.is_empty()) {
                        let mut path = path.clone();
                        match branch[0].to_string().as_str() {
                            "self" | "*" => {}
                            name => path.push(name.to_owned()),
                        }
                        self.follow(&branch[1..], path, handed_on);
                    }
                    return;
                }
                _ => break,
            }
            rest = &rest[3..];
        }
        let given = match rest {
            [TokenTree::Ident(word), TokenTree::Ident(name), ..] if word == "as" => {
                Some(name.to_string())
            }
            _ => path.last().cloned(),
        };
        self.paths.push((path, given.filter(|_| handed_on)));
    }
}

/// The module within braces that `before` announces: `mod tests { … }`.
fn inner(before: &[TokenTree], module: &[String]) -> Module {
    match before {
        [.., TokenTree::Ident(word), TokenTree::Ident(name)] if word == "mod" => {
            [module, &[name.to_string()]].concat()
        }
        _ => module.to_vec(),
    }
}

/// Whether a name after `before` is a part of a longer path, or a field.
fn is_part(before: &[TokenTree]) -> bool {
    let mark = |back: usize| match before.len().checked_sub(back).map(|at| &before[at]) {
        Some(TokenTree::Punct(mark)) => mark.as_char(),
        _ => ' ',
    };
    matches!((mark(2), mark(1)), (':', ':') | (' ', '.'))
}

/// Whether `rest` begins with `::`.
fn separated(rest: &[TokenTree]) -> bool {
    let is_colon =
        |token: &TokenTree| matches!(token, TokenTree::Punct(mark) if mark.as_char() == ':');
    rest.len() > 2 && rest[..2].iter().all(is_colon)
}

/// Whether `before` ends with `pub use`, whoever it is for.
fn is_handed_on(before: &[TokenTree]) -> bool {
    match before {
        [.., TokenTree::Ident(word), TokenTree::Ident(last)] => word == "pub" && last == "use",
        [
            ..,
            TokenTree::Ident(word),
            TokenTree::Group(_),
            TokenTree::Ident(last),
        ] => word == "pub" && last == "use",
        _ => false,
    }
}

/// What imports itself by a detour: all rooms from which a way leads back.
fn circles(arrows: &BTreeSet<(PathBuf, PathBuf)>) -> Vec<BTreeSet<PathBuf>> {
    let from = |room: &Path| {
        let mut reached = BTreeSet::new();
        let mut open = vec![room.to_owned()];
        while let Some(room) = open.pop() {
            for (_, next) in arrows.iter().filter(|(from, _)| *from == room) {
                if reached.insert(next.clone()) {
                    open.push(next.clone());
                }
            }
        }
        reached
    };
    let rooms: BTreeSet<&PathBuf> = arrows.iter().map(|(from, _)| from).collect();
    let reached: BTreeMap<&PathBuf, _> = rooms.into_iter().map(|room| (room, from(room))).collect();
    let mut circles = Vec::new();
    for (room, others) in &reached {
        if others.contains(*room) {
            let back = |other: &&PathBuf| {
                reached
                    .get(other)
                    .is_some_and(|theirs| theirs.contains(*room))
            };
            let circle: BTreeSet<PathBuf> = others.iter().filter(back).cloned().collect();
            if !circles.contains(&circle) {
                circles.push(circle);
            }
        }
    }
    circles
}

/// Which child of a folder imports which: files, and folders with all that is in them. A file such as `why.rs` is the face
/// of its folder `why`, and one with it; the root of a crate is the face of all, and no child.
fn between_folders(
    arrows: &BTreeSet<(PathBuf, PathBuf)>,
    root: &Path,
) -> BTreeSet<(PathBuf, PathBuf)> {
    let child = |file: &Path, folder: &Path| {
        let below = file.strip_prefix(folder).unwrap();
        folder.join(below.iter().next().unwrap()).with_extension("")
    };
    let mut between = BTreeSet::new();
    for (from, to) in arrows
        .iter()
        .filter(|(from, to)| from != root && to != root)
    {
        let common = from
            .ancestors()
            .skip(1)
            .find(|folder| to.starts_with(folder));
        let ends = common.map(|folder| (child(from, folder), child(to, folder)));
        between.extend(ends.filter(|(from, to)| from != to));
    }
    between
}

fn roots() -> Vec<PathBuf> {
    let steps = STEPS.iter().map(|step| format!("steps/{step}/src/lib.rs"));
    let tests = [
        "tests/src/lib.rs",
        "tests/src/main.rs",
        "tests/suites/main.rs",
    ];
    let roots = steps.chain(tests.map(String::from));
    roots.map(|root| workspace().join(root)).collect()
}

/// What ties the circles among `arrows`, a line each.
fn told(arrows: &BTreeSet<(PathBuf, PathBuf)>) -> String {
    let mut text = String::new();
    for circle in circles(arrows) {
        let inside =
            |(from, to): &&(PathBuf, PathBuf)| circle.contains(from) && circle.contains(to);
        for (from, to) in arrows.iter().filter(inside) {
            text += &format!("{} -> {}\n", from.display(), to.display());
        }
        text += "\n";
    }
    text
}

#[test]
fn no_file_and_no_folder_imports_itself_by_a_detour() {
    for root in roots() {
        let arrows = House::of(&root).arrows();
        assert!(
            !arrows.is_empty() || root.ends_with("step03-mount/src/lib.rs"),
            "{}: nothing is seen",
            root.display()
        );
        let files = told(&arrows);
        assert!(files.is_empty(), "circles of files:\n{files}");
        let folders = told(&between_folders(&arrows, &root));
        assert!(folders.is_empty(), "circles of folders:\n{folders}");
    }
}

/// Each way to import is seen, and a circle by it found.
#[test]
fn every_way_to_import_is_seen() {
    let ways = [
        "use crate::b::thing;",
        "use crate::{b::{self, thing}, c};",
        "use super::b::*;",
        "use crate::handed_on as other;",
        "fn f() { crate::b::thing() }",
        "fn f() { let _ = super::b::thing; }",
        "fn f() { println!(\"{}\", crate::b::thing()) }",
        "mod tests { use super::super::b::thing; }",
        "mod tests { fn f() { crate::b::thing() } }",
        "pub(crate) use crate::b::thing;",
        "fn f(it: crate::b::Thing) {}",
        "macro_rules! m { () => { $crate::b::thing() } }",
    ];
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("lib.rs");
    fs::write(
        &root,
        "mod a;\nmod b;\nmod c;\npub use b::thing as handed_on;\n",
    )
    .unwrap();
    fs::write(folder.path().join("c.rs"), "").unwrap();
    fs::write(
        folder.path().join("b.rs"),
        "use crate::a;\npub fn thing() {}\n",
    )
    .unwrap();
    for way in ways {
        fs::write(folder.path().join("a.rs"), way).unwrap();
        let told = told(&House::of(&root).arrows());
        assert!(
            told.contains("a.rs -> ") && told.contains("b.rs -> "),
            "{way}: {told}"
        );
    }
    // What isn't one.
    for text in [
        "/// [`crate::b`]\nfn f() {}",
        "use std::fs;",
        "use other::b;",
        "mod inner { use super::f; } fn f() {}",
    ] {
        fs::write(folder.path().join("a.rs"), text).unwrap();
        assert_eq!(told(&House::of(&root).arrows()), "", "{text}");
    }
}

/// Flags are not the data: what a container is to be knows nothing of how it is typed.
#[test]
fn only_flags_know_the_command_line() {
    // Those that take flags of their own: a program's arguments, a subcommand, its narration; and a shell's completions.
    let take_flags = |file: &Path| {
        let path = file.to_string_lossy();
        let ends = [
            "/flags.rs",
            "/main.rs",
            "/commands.rs",
            "/program.rs",
            "/narration.rs",
        ];
        ends.iter().any(|end| path.ends_with(end))
            || path.contains("/commands/")
            || path.contains("/step10-exec/src/")
    };
    let mut seen = 0;
    for step in STEPS {
        let root = workspace().join("steps").join(step).join("src/lib.rs");
        for room in House::of(&root).0.values() {
            let knows = fs::read_to_string(&room.file).unwrap().contains("clap");
            seen += usize::from(knows);
            assert!(!knows || take_flags(&room.file), "{}", room.file.display());
        }
    }
    assert!(seen > 20, "{seen}");
}

//! A learner's own copy of a chapter, in `exercises/stepNN-…`.
//!
//! It is a workspace of its own, so that a half-written exercise breaks nothing else, and depends by
//! path on the solved earlier steps. Whatever is checked is built in folders below it.

use crate::checks::report::Report;
use crate::course::regions::{body, is_hole, names, starter, with_body};
use crate::course::repairs::{KINDS, Repairs};
use crate::course::{Chapter, Exercise};
use crate::programs::workspace;
use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where a copy says of which edition of its chapter it is.
const EDITION: &str = ".edition";

/// How far somebody is with an exercise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// The hole is still there.
    ToDo,
    /// Written, and doesn't hold.
    NotYet,
    /// Holds.
    Holds,
    /// Holds, being our solution.
    Shown,
}

impl Standing {
    /// Whether there is nothing left to do.
    pub fn is_done(self) -> bool {
        matches!(self, Standing::Holds | Standing::Shown)
    }

    /// The sign that stands for it.
    pub fn mark(self) -> char {
        match self {
            Standing::ToDo => '○',
            Standing::NotYet => '✗',
            Standing::Holds => '✓',
            Standing::Shown => '◐',
        }
    }
}

/// A learner's copy of a chapter.
pub struct Copy {
    chapter: &'static Chapter,
    folder: PathBuf,
    repairs: PathBuf,
}

/// Who wrote the body of an exercise.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Author<'a> {
    /// It stands in the learner's file.
    Learner,
    /// It stands in the solution.
    Solution,
    /// Nobody yet.
    Nobody,
    /// Somebody else: this is the body.
    Other(&'a str),
}

impl Copy {
    /// The copy of `chapter` below `exercises`, which need not be there yet.
    pub fn of(chapter: &'static Chapter, exercises: &Path) -> Copy {
        Copy {
            chapter,
            folder: exercises.join(chapter.package),
            repairs: match exercises == workspace().join("exercises") {
                true => state_folder().join("exercises"),
                false => exercises.join("roots"),
            },
        }
    }

    /// The broken roots of exercise 4.4.
    pub fn repairs(&self) -> Repairs {
        Repairs::at(&self.repairs)
    }

    /// Whether the chapter has broken roots to repair.
    fn has_repairs(&self) -> bool {
        self.chapter.exercises.iter().any(is_repair)
    }

    /// The file that the learner edits.
    pub fn source(&self) -> PathBuf {
        self.folder.join("src/lib.rs")
    }

    /// The line of the file on which the body of `exercise` begins; none for one without code.
    pub fn line_of(&self, exercise: &Exercise) -> Option<usize> {
        let source = self.text().ok()?;
        let body = body(&source, exercise.name).ok()?;
        let before = body.as_ptr() as usize - source.as_ptr() as usize;
        Some(source[..before].lines().count() + 1)
    }

    /// Whether the chapter has been started.
    pub fn exists(&self) -> bool {
        self.source().exists()
    }

    /// Writes the starter; or carries over what was written in an earlier edition of the chapter, and returns where that
    /// is kept.
    ///
    /// # Errors
    /// The chapter has been started already: nobody's work is written over.
    pub fn start(&self) -> Result<Option<PathBuf>> {
        if self.exists() {
            if self.is_of_an_earlier_edition()? {
                return self.carry_over().map(Some);
            }
            let number = self.chapter.number;
            bail!(
                "{} is there already\nhelp: go on with `cargo progress check {number}`, or begin \
                 again with `cargo progress reset {number}`",
                self.folder.display()
            );
        }
        self.write(&self.folder, &self.step(), &self.starter()?)?;
        // The folder of all chapters may be new, too.
        self.folder.parent().map_or(Ok(()), give_away)?;
        if self.has_repairs() && !self.repairs().exist() {
            self.repairs().make()?;
        }
        Ok(None)
    }

    /// Whether the chapter has changed, around the exercises, since the copy was made of it. The copy says of which
    /// edition it is; one that says nothing is an earlier one's, unless all but the lesson is the same.
    pub fn is_of_an_earlier_edition(&self) -> Result<bool> {
        let is_the_same = |file: &PathBuf| {
            let theirs = fs::read(self.folder.join("src").join(file));
            theirs.is_ok_and(|theirs| {
                fs::read(self.step().join("src").join(file)).ok() == Some(theirs)
            })
        };
        match fs::read_to_string(self.folder.join(EDITION)) {
            Ok(edition) => Ok(edition != self.edition()?),
            Err(_) => Ok(!machinery(&self.step())?.iter().all(is_the_same)),
        }
    }

    /// What tells one edition of the chapter from another: a number for all that a copy has but the learner's own.
    fn edition(&self) -> Result<String> {
        let mut hasher = Sha256::new();
        for file in machinery(&self.step())? {
            let text = fs::read(self.step().join("src").join(&file))?;
            hasher.update(file.as_os_str().as_bytes());
            hasher.update((text.len() as u64).to_le_bytes());
            hasher.update(text);
        }
        hasher.update(self.starter()?);
        Ok(format!("{:x}\n", hasher.finalize()))
    }

    /// Makes the copy anew with the bodies that the learner has written, and returns where the former one is now.
    fn carry_over(&self) -> Result<PathBuf> {
        let theirs = self.text()?;
        let mut source = self.starter()?;
        for name in names(&self.solution()?) {
            if let Ok(body) = body(&theirs, name) {
                source = with_body(&source, name, body)?;
            }
        }
        let free = (1..).map(|turn| self.folder.with_extension(format!("before-{turn}")));
        let former = free.into_iter().find(|former| !former.exists());
        let former = former.context("no name is free")?;
        fs::rename(&self.folder, &former)?;
        self.write(&self.folder, &self.step(), &source)?;
        Shown::read(&former)?.write(&self.folder)?;
        Ok(former)
    }

    /// Throws the learner's copy away and writes the starter; with `exercise`, only puts that one's
    /// hole back.
    pub fn reset(&self, exercise: Option<&Exercise>) -> Result<()> {
        match exercise {
            _ if !self.exists() => self.require(),
            Some(exercise) => {
                let mut shown = Shown::read(&self.folder)?;
                shown.0.remove(exercise.name);
                shown.write(&self.folder)?;
                match is_repair(exercise) {
                    true => self.repairs().make(),
                    false => self.replace(exercise, &self.starter()?),
                }
            }
            None => {
                for folder in [&self.folder, &self.repairs] {
                    if folder.exists() && (*folder != self.repairs || self.has_repairs()) {
                        fs::remove_dir_all(folder)?;
                    }
                }
                self.start().map(drop)
            }
        }
    }

    /// Fills the hole of `exercise` with our solution.
    pub fn solve(&self, exercise: &Exercise) -> Result<()> {
        let mut ours = String::new();
        if is_repair(exercise) {
            KINDS
                .iter()
                .try_for_each(|kind| self.repairs().mend(kind))?;
        } else {
            let solution = self.solution()?;
            self.replace(exercise, &solution)?;
            ours = body(&solution, exercise.name)?.into();
        }
        let mut shown = Shown::read(&self.folder)?;
        shown.0.insert(exercise.name.into(), ours);
        shown.write(&self.folder)
    }

    /// What `reset` would throw away: whether anything was written that isn't ours.
    pub fn has_work(&self) -> Result<bool> {
        Ok(self.exists() && self.text()? != self.starter()?)
    }

    /// Takes the body of `exercise` from another source into the learner's file.
    fn replace(&self, exercise: &Exercise, from: &str) -> Result<()> {
        let source = self.text()?;
        let source = with_body(&source, exercise.name, body(from, exercise.name)?)?;
        self.write(&self.folder, &self.folder, &source)
    }

    /// Refuses what can only be done in a chapter that was started.
    pub fn require(&self) -> Result<()> {
        self.text().map(drop)
    }

    /// What the learner has written for `exercise`; nothing for one without code.
    pub fn written(&self, exercise: &Exercise) -> Result<String> {
        match is_repair(exercise) {
            true => Ok(String::new()),
            false => Ok(body(&self.text()?, exercise.name)?.into()),
        }
    }

    /// Our solution of `exercise`; nothing for one without code.
    pub fn ours(&self, exercise: &Exercise) -> Result<String> {
        match is_repair(exercise) {
            true => Ok(String::new()),
            false => Ok(body(&self.solution()?, exercise.name)?.into()),
        }
    }

    /// The learner's file.
    fn text(&self) -> Result<String> {
        let source = self.source();
        if !source.exists() {
            let number = self.chapter.number;
            bail!("chapter {number} hasn't been started\nhelp: cargo progress start {number}");
        }
        fs::read_to_string(&source).with_context(|| source.display().to_string())
    }

    fn solution(&self) -> Result<String> {
        let source = self.step().join("src/lib.rs");
        fs::read_to_string(&source).with_context(|| source.display().to_string())
    }

    fn step(&self) -> PathBuf {
        workspace().join("steps").join(self.chapter.package)
    }

    fn starter(&self) -> Result<String> {
        let id = |name: &str| {
            let mut exercises = self.chapter.exercises.iter();
            let position = exercises.position(|exercise| exercise.name == name);
            format!("{} {name}", self.chapter.id(position.unwrap_or_default()))
        };
        starter(&self.solution()?, id)
    }

    /// Writes a crate with `source` as its lesson and all else as `origin` has it.
    fn write(&self, folder: &Path, origin: &Path, source: &str) -> Result<()> {
        let step = self.step();
        if origin != folder {
            copy_sources(&origin.join("src"), &folder.join("src"))?;
        }
        if origin == step {
            fs::create_dir_all(folder)?;
            fs::write(folder.join(EDITION), self.edition()?)?;
        }
        fs::write(folder.join("src/lib.rs"), source)?;
        let has_holes = names(source)
            .into_iter()
            .any(|name| body(source, name).is_ok_and(is_hole));
        fs::write(
            folder.join("Cargo.toml"),
            manifest(&step, folder, has_holes)?,
        )?;
        // The same versions as everywhere, with nothing to fetch.
        fs::copy(workspace().join("Cargo.lock"), folder.join("Cargo.lock"))?;
        give_away(folder)
    }

    /// The chapter's lesson with each exercise by the author that `who` names.
    fn mixed<'a>(&self, who: impl Fn(&str) -> Author<'a>) -> Result<String> {
        let (solution, starter) = (self.solution()?, self.starter()?);
        let mut mixed = match self.exists() {
            // What stands between the exercises is the learner's to change, too.
            true => self.text()?,
            false => solution.clone(),
        };
        for name in names(&solution) {
            let body = match who(name) {
                Author::Learner => continue,
                Author::Solution => body(&solution, name)?,
                Author::Nobody => body(&starter, name)?,
                Author::Other(body) => body,
            };
            mixed = with_body(&mixed, name, body)?;
        }
        Ok(mixed)
    }

    /// Makes the probe a second program of a variant: what calls the exercises' functions one by one.
    fn add_probe(&self, variant: &Path) -> Result<()> {
        let file = variant.join("Cargo.toml");
        let top = top_of(variant);
        let dependency = format!("[dependencies]\nprobe = {{ path = \"{top}/tests/probe\" }}\n");
        let mut text = fs::read_to_string(&file)?.replacen("[dependencies]\n", &dependency, 1);
        if self.chapter.is_probed {
            let package = self.chapter.package;
            text += &format!(
                "\n[[bin]]\nname = \"{package}-probe\"\npath = \"{top}/tests/probe/examples/{package}-probe.rs\"\n"
            );
        }
        fs::write(&file, text)?;
        Ok(())
    }

    /// Builds the chapter's program with each exercise by the author that `who` names.
    ///
    /// # Errors
    /// It doesn't compile; what the compiler says is about the learner's own file.
    pub fn build<'a>(&self, who: impl Fn(&str) -> Author<'a>) -> Result<PathBuf> {
        // Beside the learner's copy, so that relative paths are as long.
        let variant = self.folder.with_extension("build");
        // A file that is theirs and unknown to us comes along, and one that they removed goes.
        let origin = if self.exists() {
            self.folder.clone()
        } else {
            self.step()
        };
        if variant.exists() {
            fs::remove_dir_all(&variant)?;
        }
        self.write(&variant, &origin, &self.mixed(who)?)?;
        self.add_probe(&variant)?;
        let elsewhere = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
        let target = match elsewhere {
            Some(folder) => workspace().join(folder).join("exercises"),
            None => self.folder.with_file_name("target"),
        };
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        let output = cargo
            .args(["build", "--quiet", "--bins", "--manifest-path"])
            .arg(variant.join("Cargo.toml"))
            .arg("--target-dir")
            .arg(&target)
            // Most often it differs in one function from what was built before.
            .env_remove("CARGO_INCREMENTAL")
            .output()
            .context("cargo, which builds the exercise")?;
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            let theirs = self.folder.display().to_string();
            let said = said.replace(&variant.display().to_string(), &theirs);
            // For a terminal to make a link of.
            let said = said.replace("--> src/", &format!("--> {theirs}/src/"));
            let mut text = format!(
                "{} doesn't compile\n{}",
                self.source().display(),
                said.trim_end()
            );
            if self.exists() && self.is_of_an_earlier_edition()? {
                text += &format!(
                    "\nhelp: chapter {0} has changed since you began it: `cargo progress start {0}` carries over what you \
                     wrote, and keeps your folder beside the new one",
                    self.chapter.number
                );
            }
            bail!(text);
        }
        Ok(target.join("debug").join(self.chapter.package))
    }

    /// The state of each exercise, by what `examine` finds of a program of theirs, in all exercises
    /// or in the one at a position.
    ///
    /// The learner's file is built as it is. When something fails, each exercise is tried once more
    /// with all others by us, so that the blame is exact and any order works.
    pub fn states(
        &self,
        examine: impl Fn(&Path, Option<usize>) -> Result<Vec<Report>>,
    ) -> Result<Vec<(Standing, Report)>> {
        let theirs = examine(&self.build(|_| Author::Learner)?, None)?;
        let shown = Shown::read(&self.folder)?;
        let (mut states, mut together) = (Vec::new(), Vec::new());
        // To see somebody hang takes its time: of several that do, the first is tried by itself, which is told.
        let mut is_one_stuck = false;
        for (position, whole) in theirs.into_iter().enumerate() {
            let exercise = &self.chapter.exercises[position];
            let written = self.written(exercise)?;
            let mut report = whole.clone();
            let is_seen = whole.holds() || is_one_stuck && whole.is_stuck();
            if !is_seen && !is_hole(&written) {
                report = examine(
                    &self.build(only_by_learner(&[exercise.name]))?,
                    Some(position),
                )?
                .swap_remove(0);
                is_one_stuck |= report.is_stuck();
                if report.holds() {
                    together.push((position, whole));
                }
            }
            let untouched = is_repair(exercise) && report.claims.iter().all(|claim| !claim.holds);
            let state = if is_hole(&written) || untouched {
                Standing::ToDo
            } else if !report.holds() {
                Standing::NotYet
            } else if shown.0.get(exercise.name) == Some(&written) {
                Standing::Shown
            } else {
                Standing::Holds
            };
            states.push((state, report));
        }
        // With a hole or a fault elsewhere, the whole can't hold.
        let each_holds = states.iter().all(|(state, _)| state.is_done());
        if let Some((position, whole)) = together.into_iter().next().filter(|_| each_holds) {
            let (culprit, report) = self.who_breaks(position, whole, &examine)?;
            states[culprit] = (Standing::NotYet, report);
        }
        Ok(states)
    }

    /// Each exercise holds by itself, and with all by the learner the check of the one at `position` fails, as `whole`
    /// says. Whose body is it? Returns the position of that exercise, and what its learner is to read.
    fn who_breaks(
        &self,
        position: usize,
        whole: Report,
        examine: &impl Fn(&Path, Option<usize>) -> Result<Vec<Report>>,
    ) -> Result<(usize, Report)> {
        let victim = &self.chapter.exercises[position];
        let told = |culprit: usize, report: Report, why: String| {
            let claims = report.claims.into_iter().filter(|claim| !claim.holds);
            let report = Report {
                id: self.chapter.id(culprit),
                name: self.chapter.exercises[culprit].name.into(),
                claims: claims.map(|claim| claim.because(None)).collect(),
                why: Some(why),
                is_last: report.is_last,
            };
            Ok((culprit, report))
        };
        let mut alone = examine(&self.build(only_by_learner(&[]))?, Some(position))?;
        if !alone[0].holds() {
            let why = "what you changed outside of the exercises does it: with all bodies by us it fails, too".to_owned();
            return told(position, alone.swap_remove(0), why);
        }
        for (other, exercise) in self.chapter.exercises.iter().enumerate() {
            if other == position || is_repair(exercise) {
                continue;
            }
            let report = examine(
                &self.build(only_by_learner(&[exercise.name]))?,
                Some(position),
            )?
            .swap_remove(0);
            if !report.holds() {
                let why = format!(
                    "{} holds by itself, and yet your body of it makes the check of {} fail, all else being ours",
                    exercise.name, victim.name
                );
                return told(other, report, why);
            }
        }
        for (other, exercise) in self.chapter.exercises.iter().enumerate() {
            if other == position || is_repair(exercise) {
                continue;
            }
            let both = [exercise.name, victim.name];
            let report =
                examine(&self.build(only_by_learner(&both))?, Some(position))?.swap_remove(0);
            if !report.holds() {
                let why = format!(
                    "{} and {} hold each by itself, and not together: what one leaves to the other isn't what it needs",
                    exercise.name, victim.name
                );
                return told(position, report, why);
            }
        }
        let why = "each exercise holds by itself, and the whole file doesn't: more than two of them are in it".to_owned();
        told(position, whole, why)
    }
}

/// The bodies of these exercises by the learner, all others by us.
fn only_by_learner<'a>(names: &[&str]) -> impl Fn(&str) -> Author<'a> {
    move |name| match names.contains(&name) {
        true => Author::Learner,
        false => Author::Solution,
    }
}

/// Whether an exercise has no code, but broken roots.
fn is_repair(exercise: &Exercise) -> bool {
    exercise.name == "repair"
}

/// Where what belongs to no checkout is kept: never in a folder that may be shared with Windows or
/// macOS, which loses links and modes.
pub fn state_folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("TEN_STEPS_STATE") {
        return folder.into();
    }
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or("/tmp".into()));
    match (geteuid().is_root(), std::env::var_os("XDG_STATE_HOME")) {
        (true, _) => "/var/lib/ten-steps".into(),
        (false, Some(state)) => PathBuf::from(state).join("ten-steps"),
        (false, None) => home().join(".local/state/ten-steps"),
    }
}

/// The bodies that were filled in by us, as they were: kept beside the learner's sources.
#[derive(Default, Serialize, Deserialize)]
struct Shown(BTreeMap<String, String>);

impl Shown {
    const FILE: &str = "shown.json";

    fn read(folder: &Path) -> Result<Shown> {
        match fs::read(folder.join(Shown::FILE)) {
            Ok(text) => Ok(serde_json::from_slice(&text)?),
            Err(_) => Ok(Shown::default()),
        }
    }

    fn write(&self, folder: &Path) -> Result<()> {
        let (file, text) = (
            folder.join(Shown::FILE),
            serde_json::to_string_pretty(self)?,
        );
        fs::write(&file, text)?;
        give_away(&file)
    }
}

/// Gives what root has written to the owner of the checkout: in the dev container we are root, and
/// the editor on the other side isn't.
pub fn give_away(path: &Path) -> Result<()> {
    let owner = fs::metadata(workspace())?;
    if !geteuid().is_root() || owner.uid() == 0 {
        return Ok(());
    }
    lchown(path, Some(owner.uid()), Some(owner.gid()))?;
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path)? {
            give_away(&entry?.path())?;
        }
    }
    Ok(())
}

/// The sources of a step but its lesson, below its folder `src`, in the order of their names.
fn machinery(step: &Path) -> Result<Vec<PathBuf>> {
    fn collect(folder: &Path, below: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
        for entry in fs::read_dir(folder.join(below))? {
            let entry = entry?;
            let path = below.join(entry.file_name());
            match entry.file_type()?.is_dir() {
                true => collect(folder, &path, files)?,
                false => files.push(path),
            }
        }
        Ok(())
    }
    let mut files = Vec::new();
    collect(&step.join("src"), Path::new(""), &mut files)?;
    files.retain(|file| file != Path::new("lib.rs"));
    files.sort();
    Ok(files)
}

/// Copies the Rust sources of a folder and its folders.
fn copy_sources(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| to.display().to_string())?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy_sources(&entry.path(), &target)?,
            false => drop(fs::copy(entry.path(), target)?),
        }
    }
    Ok(())
}

/// The top of the workspace, for a manifest in `folder`.
fn top_of(folder: &Path) -> String {
    // In the checkout relative: it may be at one place for a container and another for the host.
    match folder.parent() == Some(&workspace().join("exercises")) {
        true => "../..".into(),
        false => workspace().display().to_string(),
    }
}

/// The step's manifest as that of a workspace of its own: versions and paths written out.
fn manifest(step: &Path, folder: &Path, has_holes: bool) -> Result<String> {
    let ours = fs::read_to_string(step.join("Cargo.toml"))?;
    let top = fs::read_to_string(workspace().join("Cargo.toml"))?;
    let shared = |key: &str| {
        let line = top.lines().find(|line| {
            line.strip_prefix(key)
                .is_some_and(|rest| rest.starts_with(" = "))
        });
        let line = line.with_context(|| format!("{key} isn't in the workspace's Cargo.toml"))?;
        let top = top_of(folder);
        anyhow::Ok(line.replace("path = \"", &format!("path = \"{top}/")))
    };
    let mut text = String::new();
    for line in ours.lines() {
        let more = line
            .strip_suffix("] }")
            .and_then(|line| line.split_once(" = { workspace = true, features = ["));
        match (line.strip_suffix(".workspace = true"), more) {
            (Some(key), _) => text += &(shared(key)? + "\n"),
            (None, Some((key, features))) => {
                text += &(with_features(&shared(key)?, features) + "\n");
            }
            // Lints, and tests that the course keeps for itself.
            _ if line == "[lints]" => break,
            _ => text += &format!("{line}\n"),
        }
    }
    // Nobody debugs the dependencies here, either: the first build is what a learner waits for.
    text += "[workspace]\n\n[profile.dev.package.\"*\"]\ndebug = false\n";
    // Who unpacks archives has what goes through every byte as fast as the workspace has it, in all such chapters alike: it
    // is built once.
    let unpacks = step.ends_with("step08-overlay") || ours.contains("\nstep08-overlay.workspace");
    if let Some((_, fast)) = top
        .split_once("\n[profile.dev.package]\n")
        .filter(|_| unpacks)
    {
        let table = fast.split("\n\n").next().unwrap_or(fast);
        text += &format!("\n[profile.dev.package]\n{table}\n");
    }
    if has_holes {
        text += "\n[lints.rust]\n# A hole leaves arguments and imports unused. This goes with the last hole.\n\
            unused = \"allow\"\n";
    }
    Ok(text)
}

/// The dependency `line` with more features.
fn with_features(line: &str, features: &str) -> String {
    if line.contains("features = [") {
        return line.replacen("features = [", &format!("features = [{features}, "), 1);
    }
    match line.strip_suffix(" }") {
        Some(table) => format!("{table}, features = [{features}] }}"),
        None => {
            line.replacen(" = ", " = { version = ", 1) + &format!(", features = [{features}] }}")
        }
    }
}

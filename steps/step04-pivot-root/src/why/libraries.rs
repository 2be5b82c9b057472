//! Where the loader looks for libraries: glibc's in ld.so(8), and musl's.
//!
//! The loader runs after `execve` has succeeded; when it doesn't find a library it says so and ends
//! with status 127. This module follows the same rules from outside. Where distributions differ, as in
//! the directories built into a loader, all are taken: to miss a fault is better than to invent one.

use crate::root::{Found, LONGEST_PATH, READING, Root, Trail, kind, path_from};
use crate::why::cache::Cache;
use crate::why::elf::{AARCH64, Elf, I386, X86_64};
use nix::sys::stat::SFlag;
use std::collections::{HashSet, VecDeque};
use std::path::{Path, PathBuf};

/// A library that the loader won't find.
pub struct Missing {
    /// The library's name, or its path where the name has a slash.
    pub name: PathBuf,
    /// The program or library that needs it.
    pub needed_by: PathBuf,
    /// The directories that were searched in vain.
    pub searched: Vec<PathBuf>,
    /// Files and links of that name that the loader can't use, and why.
    pub useless: Vec<(Trail, &'static str)>,
    /// Whether the loader also looks into /etc/ld.so.cache, as glibc's does.
    pub has_cache: bool,
}

impl Missing {
    /// Whether the file at the end of `trail` isn't to be listed as useless: it is already, as two
    /// directories may be the same, or the list is full.
    fn knows(&self, trail: &Trail) -> bool {
        let known = self
            .useless
            .iter()
            .any(|(known, _)| known.end_path() == trail.end_path());
        known || self.useless.len() == MOST_TOLD
    }
}

/// The loaders whose rules we know.
#[derive(Clone, Copy, PartialEq)]
enum Loader {
    Glibc,
    Musl,
}

/// The search for the libraries of one program.
struct Search<'a> {
    root: &'a Root,
    from: &'a Path,
    loader: Loader,
    bits: u8,
    machine: u16,
    /// LD_LIBRARY_PATH of the container.
    library_path: Vec<PathBuf>,
    cache: Cache,
    defaults: Vec<PathBuf>,
}

/// A program or library that is in memory, and where it makes the loader look.
struct Loaded {
    path: PathBuf,
    needed: Vec<Vec<u8>>,
    runpath: Option<Vec<PathBuf>>,
    /// Its own DT_RPATH, then those of the objects that needed it.
    rpath: Vec<PathBuf>,
}

/// The most missing libraries that are told of: each comes with a list of the places where it was looked for.
const MOST_MISSING: usize = 20;

// A real program has tens of these; a crafted one mustn't keep us busy.
const MOST_TOLD: usize = 3;
const MOST_LIBRARIES: usize = 1024;
const MOST_DIRECTORIES: usize = 64;
const LARGEST_TEXT: usize = 64 * 1024;
const LARGEST_CACHE: usize = 4 * 1024 * 1024;

/// The libraries that the loader at `loader` won't find for the program at `path`. Nothing for a
/// loader whose rules we don't know.
pub fn missing(
    root: &Root,
    from: &Path,
    environment: &[String],
    loader: &Found,
    path: &Path,
    program: &Elf,
) -> Vec<Missing> {
    // The name of the file that was found counts, not the name that was asked for: a link may lead
    // from one loader's name to the other's.
    let name = loader
        .path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    let kind = match () {
        () if name.starts_with("ld-musl-") || name == "libc.so" => Loader::Musl,
        () if name.starts_with("ld-linux") || name.starts_with("ld.so") => Loader::Glibc,
        () if name.starts_with("ld-2.") || name.starts_with("ld64.so") => Loader::Glibc,
        () => return Vec::new(),
    };
    let variable = |variable: &String| {
        let value = variable.strip_prefix("LD_LIBRARY_PATH=")?;
        Some(value.split([':', ';']).map(PathBuf::from).collect())
    };
    let mut search = Search {
        root,
        from,
        loader: kind,
        bits: program.bits,
        machine: program.machine,
        library_path: environment.iter().find_map(variable).unwrap_or_default(),
        cache: Cache::default(),
        defaults: Vec::new(),
    };
    match kind {
        Loader::Glibc => {
            search.cache = Cache::read(root.text("/etc/ld.so.cache", LARGEST_CACHE));
            search.defaults = glibc_directories(program.machine);
        }
        Loader::Musl => search.defaults = search.musl_directories(&name),
    }
    // A loader that was built for a place of its own, as Nix has them, looks in its own directory.
    search
        .defaults
        .extend(loader.path.parent().map(Path::to_owned));
    search.run(path, program)
}

impl Search<'_> {
    /// Loads what the program needs, then what those libraries need, and so on, as the loader does.
    fn run(&self, path: &Path, program: &Elf) -> Vec<Missing> {
        let mut missing = Vec::new();
        let mut seen = HashSet::new();
        let mut queue = VecDeque::from([self.load(path, program, &[], &mut seen)]);
        while let Some(object) = queue.pop_front() {
            for name in &object.needed {
                if self.root.is_exhausted() {
                    return Vec::new();
                }
                let is_loader = match self.loader {
                    Loader::Musl => is_musl_itself(name),
                    Loader::Glibc => name.starts_with(b"ld-linux") || name.starts_with(b"ld64.so"),
                };
                if is_loader {
                    continue;
                }
                match self.find(name, &object) {
                    Ok((found, elf)) => {
                        queue.push_back(self.load(&found.path, &elf, &object.rpath, &mut seen));
                    }
                    Err(absent) => missing.push(absent),
                }
                if missing.len() == MOST_MISSING {
                    return missing;
                }
            }
        }
        missing
    }

    /// What `elf` says, less the libraries that have been `seen` already.
    fn load(
        &self,
        path: &Path,
        elf: &Elf,
        inherited: &[PathBuf],
        seen: &mut HashSet<Vec<u8>>,
    ) -> Loaded {
        let list = |value: &Option<Vec<u8>>| {
            let value = value.as_ref()?;
            let directories = value.split(|&byte| byte == b':');
            Some(
                directories
                    .flat_map(|text| self.expand(text, path))
                    .collect::<Vec<_>>(),
            )
        };
        let runpath = list(&elf.dynamic.runpath);
        let rpath = list(&elf.dynamic.rpath);
        // With DT_RUNPATH glibc ignores DT_RPATH. DT_RUNPATH is for the object's own libraries
        // only. To musl the two are one, and are for the libraries' own libraries too.
        let (passed_on, own) = match self.loader {
            Loader::Glibc if runpath.is_some() => (None, runpath),
            Loader::Glibc => (rpath, None),
            Loader::Musl => (runpath.or(rpath), None),
        };
        let mut rpath = passed_on.unwrap_or_default();
        rpath.extend_from_slice(inherited);
        rpath.truncate(MOST_DIRECTORIES);
        // Each directory is a text that takes memory.
        let texts = rpath.iter().chain(own.iter().flatten());
        let _ = self
            .root
            .spend(texts.map(|text| 1 + text.as_os_str().len() / 64).sum());
        let new = |name: &&Vec<u8>| seen.len() < MOST_LIBRARIES && seen.insert((*name).clone());
        Loaded {
            path: path.to_owned(),
            needed: elf.dynamic.needed.iter().filter(new).cloned().collect(),
            runpath: own,
            rpath,
        }
    }

    fn find(&self, name: &[u8], object: &Loaded) -> Result<(Found, Elf), Missing> {
        let mut absent = Missing {
            name: path_from(name),
            needed_by: object.path.clone(),
            searched: Vec::new(),
            useless: Vec::new(),
            has_cache: self.loader == Loader::Glibc,
        };
        let cached = self.cache.paths(name);
        let mut candidates = Vec::new();
        if name.contains(&b'/') {
            candidates.push(absent.name.clone());
        } else {
            absent.searched = self.directories(object);
            let in_directories = absent.searched.iter();
            candidates.extend(in_directories.map(|directory| directory.join(&absent.name)));
            candidates.extend_from_slice(&cached);
        }
        // Each directory is a text that takes memory, again for each library.
        let texts = absent
            .searched
            .iter()
            .map(|text| 1 + text.as_os_str().len() / 64);
        let _ = self.root.spend(texts.sum());
        for candidate in candidates {
            let trail = self.root.follow(self.from, &candidate);
            match self.usable(&trail) {
                Ok(elf) => {
                    if let Ok(found) = trail.end {
                        return Ok((found, elf));
                    }
                }
                Err(why) => {
                    // A file that only the cache knows gets a reason of its own.
                    let stale = cached
                        .contains(&candidate)
                        .then_some("isn't there: ld.so.cache is old");
                    if let Some(why) = why.or(stale).filter(|_| !absent.knows(&trail)) {
                        absent.useless.push((trail, why));
                    }
                }
            }
        }
        Err(absent)
    }

    /// The library at the end of `trail`. The error is why the loader passes the file over, or
    /// `None` where there is nothing at all.
    fn usable(&self, trail: &Trail) -> Result<Elf, Option<&'static str>> {
        let found = match &trail.end {
            Ok(found) => found,
            Err(_) if self.is_about_the_file(trail) => return Err(Some("isn't there")),
            Err(_) => return Err(None),
        };
        if kind(&found.stat) != SFlag::S_IFREG {
            return Err(Some("is no plain file"));
        }
        let Ok(file) = found.open() else {
            return Err(Some("can't be read"));
        };
        if self.root.spend(READING).is_err() {
            return Err(None);
        }
        let elf = Elf::read(&file);
        let texts = elf.as_ref().map_or(0, |elf| elf.dynamic.needed.len());
        if self.root.spend(texts).is_err() {
            return Err(None);
        }
        match elf {
            None => Err(Some("is no ELF file")),
            Some(elf) if (elf.bits, elf.machine) != (self.bits, self.machine) => {
                Err(Some("is for another machine"))
            }
            Some(elf) => Ok(elf),
        }
    }

    /// Whether the path broke after its last name had been found, as a link.
    fn is_about_the_file(&self, trail: &Trail) -> bool {
        let is_library = |link: &Path| link.to_string_lossy().contains(".so");
        trail.links.last().is_some_and(|(link, _)| is_library(link))
    }

    /// Where the loader looks for what `object` needs, in order.
    fn directories(&self, object: &Loaded) -> Vec<PathBuf> {
        let runpath = object.runpath.clone().unwrap_or_default();
        let none = Vec::new();
        let inherited = match &object.runpath {
            Some(_) => &none,
            None => &object.rpath,
        };
        let lists = [inherited, &self.library_path, &runpath, &self.defaults];
        let mut seen = HashSet::new();
        lists
            .into_iter()
            .flatten()
            .filter(|directory| seen.insert((*directory).clone()))
            .take(MOST_DIRECTORIES)
            .cloned()
            .collect()
    }

    /// A directory as a program names it: `$ORIGIN` is the directory of the file that names it, `$LIB`
    /// one of two, by distribution.
    fn expand(&self, text: &[u8], object: &Path) -> Vec<PathBuf> {
        let text = String::from_utf8_lossy(text);
        if text.is_empty() {
            return vec![".".into()];
        }
        let origin = object.parent().unwrap_or(Path::new("/")).to_string_lossy();
        // `$ORIGIN` and `$LIB` become longer texts. No directory has a longer name than the kernel takes.
        let grown = text.len() + text.matches('$').count() * origin.len().max(32);
        if grown > LONGEST_PATH {
            return Vec::new();
        }
        let replace = |text: &str, token: &str, value: &str| {
            let text = text.replace(&format!("${{{token}}}"), value);
            text.replace(&format!("${token}"), value)
        };
        let text = replace(&text, "ORIGIN", &origin);
        if !text.contains("$LIB") && !text.contains("${LIB}") {
            return vec![text.into()];
        }
        let plain = if self.bits == 64 { "lib64" } else { "lib" };
        let multiarch = format!("lib/{}", triplet(self.machine));
        vec![
            replace(&text, "LIB", plain).into(),
            replace(&text, "LIB", &multiarch).into(),
        ]
    }

    fn musl_directories(&self, loader: &str) -> Vec<PathBuf> {
        let machine = loader.trim_start_matches("ld-musl-");
        let machine = machine.split('.').next().unwrap_or_default();
        let text = self
            .root
            .text(&format!("/etc/ld-musl-{machine}.path"), LARGEST_TEXT);
        let text = match text.is_empty() {
            true => b"/lib:/usr/local/lib:/usr/lib".to_vec(),
            false => text,
        };
        text.split(|byte| matches!(byte, b':' | b'\n'))
            .filter(|directory| !directory.is_empty())
            .map(path_from)
            .collect()
    }
}

/// The directories that are built into glibc's loader: one pair or another, by distribution.
fn glibc_directories(machine: u16) -> Vec<PathBuf> {
    let triplet = triplet(machine);
    let mut directories = Vec::new();
    for prefix in ["/lib", "/usr/lib"] {
        directories.push(format!("{prefix}/{triplet}").into());
        directories.push(format!("{prefix}64").into());
        directories.push(prefix.into());
    }
    directories
}

/// What Debian calls a processor and its calling convention.
fn triplet(machine: u16) -> &'static str {
    match machine {
        X86_64 => "x86_64-linux-gnu",
        AARCH64 => "aarch64-linux-gnu",
        I386 => "i386-linux-gnu",
        _ => "arm-linux-gnueabihf",
    }
}

/// Whether musl's loader is itself the library `name`: it is the C library too.
fn is_musl_itself(name: &[u8]) -> bool {
    let parts = ["c", "pthread", "rt", "m", "dl", "util", "xnet"];
    let name = String::from_utf8_lossy(name);
    let part = name
        .strip_prefix("lib")
        .and_then(|rest| rest.split('.').next());
    part.is_some_and(|part| parts.contains(&part))
}

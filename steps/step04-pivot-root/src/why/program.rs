//! An ELF program: its machine, its loader, and the libraries that the loader is to find.

use crate::root::{Found, path_from, read_at};
use crate::why::binfmt::{self, Handler};
use crate::why::elf::{EXECUTABLE, Elf, SHARED, THIS_MACHINE, machine_name};
use crate::why::explanation::{Consequence, Fault};
use crate::why::inspection::{HEAD, Inspection, Verdict, fault, forbidden};
use crate::why::libraries::{self, Missing};
use nix::errno::Errno;
use std::fs::File;
use std::path::Path;

/// The loader's status when it doesn't find a library.
const LIBRARY_NOT_FOUND: u8 = 127;

/// An ELF header: what the kernel reads of a loader before anything else.
const HEADER: usize = 64;

impl Inspection<'_> {
    pub(super) fn elf(&mut self, found: &Found, file: &File) -> Verdict {
        let Some(elf) = Elf::read(file) else {
            let help = "copy it again, whole: the file may have been cut off";
            return fault(Errno::ENOEXEC, "it is a damaged ELF file", help);
        };
        let machine = machine_name(elf.machine);
        self.note(format!(
            "it is an ELF file of {} bits for {machine}",
            elf.bits
        ));
        if !THIS_MACHINE.contains(&elf.machine) {
            return self.foreign(&machine, &read_at(file, 0, HEAD));
        }
        if elf.machine != THIS_MACHINE[0] {
            self.note("where this kernel was built without that machine's calls, it won't run it");
        }
        if ![EXECUTABLE, SHARED].contains(&elf.kind) {
            let help = "link it first: it may be an object file or a core dump";
            return fault(Errno::ENOEXEC, "it is an ELF file, and no program", help);
        }
        match &elf.interpreter {
            Some(loader) => self.dynamic(found, &elf, &path_from(loader)),
            None => {
                self.note("it asks for no loader: it is static");
                Ok(())
            }
        }
    }

    fn foreign(&mut self, machine: &str, head: &[u8]) -> Verdict {
        let here = machine_name(THIS_MACHINE[0]);
        match binfmt::handler(head) {
            Ok(Some(Handler {
                interpreter,
                preloaded,
            })) => {
                let emulator = interpreter.display();
                self.note(format!(
                    "the kernel runs {machine} through {emulator} (binfmt_misc)"
                ));
                if preloaded {
                    return Ok(());
                }
                let found = self.root.follow(self.workdir, &interpreter).end;
                match found {
                    Ok(found) => self.executable(&found, "that emulator"),
                    Err(broken) => {
                        let help = format!("copy {emulator} into the root");
                        fault(broken.errno, "that emulator isn't in the root", help)
                    }
                }
            }
            handlers => {
                if handlers.is_err() {
                    self.note("binfmt_misc isn't mounted here: an emulator can't be seen");
                }
                let why = format!("it is a program for {machine}, and this machine is {here}");
                let help = format!(
                    "take a root for {here}, or let the kernel run {machine} through qemu-user: \
                     install qemu-user-static with binfmt-support"
                );
                fault(Errno::ENOEXEC, why, help)
            }
        }
    }

    fn dynamic(&mut self, found: &Found, elf: &Elf, loader: &Path) -> Verdict {
        self.note(format!(
            "it asks for the loader {} (PT_INTERP)",
            loader.display()
        ));
        let trail = self.root.follow(self.workdir, loader);
        let loader = match &trail.end {
            Ok(loader) => loader,
            Err(broken) => {
                self.note_links(&trail);
                self.note(format!("{} isn't there", broken.path.display()));
                let why = match broken.dangling.is_some() {
                    true => "the link to the loader that it asks for leads nowhere",
                    false => "the loader that it asks for isn't there",
                };
                return fault(broken.errno, why, bring(&found.path));
            }
        };
        self.loader(loader)
            .inspect_err(|_| self.note_links(&trail))?;
        let (root, environment) = (self.root, self.environment);
        let path = &found.path;
        let missing = libraries::missing(root, self.workdir, environment, loader, path, elf);
        let Some(first) = missing.first() else {
            self.note("the loader and the libraries are there");
            return Ok(());
        };
        for library in &missing {
            self.note_missing(library);
        }
        let why = format!("the loader won't find {}", first.name.display());
        Err(Fault::new(
            Consequence::Ends(LIBRARY_NOT_FOUND),
            why,
            bring(path),
        ))
    }

    /// What the kernel asks of a loader. The loader is loaded beside the program, so a loader that
    /// it may ask for itself doesn't count.
    fn loader(&self, loader: &Found) -> Verdict {
        let role = "the loader that it asks for";
        self.executable(loader, role)?;
        let Ok(file) = loader.open() else {
            return Err(forbidden("read the loader"));
        };
        let help = "copy the loader again, whole, from where the program came";
        if read_at(&file, 0, HEADER).len() < HEADER {
            return fault(Errno::EIO, format!("{role} is cut off"), help);
        }
        match Elf::read(&file) {
            Some(elf) if !THIS_MACHINE.contains(&elf.machine) => {
                let machine = machine_name(elf.machine);
                fault(Errno::ELIBBAD, format!("{role} is one for {machine}"), help)
            }
            Some(elf) if [EXECUTABLE, SHARED].contains(&elf.kind) => Ok(()),
            _ => fault(
                Errno::ELIBBAD,
                format!("{role} is no loader: it is damaged"),
                help,
            ),
        }
    }

    fn note_missing(&mut self, library: &Missing) {
        let name = library.name.display();
        self.note(format!("{} needs {name}", library.needed_by.display()));
        for (trail, why) in &library.useless {
            self.note_links(trail);
            self.note(format!("{} {why}", trail.end_path().display()));
        }
        if library.useless.is_empty() && !library.searched.is_empty() {
            let searched = library
                .searched
                .iter()
                .map(|path| path.display().to_string());
            let searched = searched.collect::<Vec<_>>().join(", ");
            self.note(match library.has_cache {
                true => format!("{name} is neither in /etc/ld.so.cache nor in {searched}"),
                false => format!("{name} isn't in {searched}"),
            });
        }
    }
}

/// What to do about a program whose loader or libraries are missing.
fn bring(program: &Path) -> String {
    format!(
        "the program is whole, the root isn't: copy the loader and the libraries with it, and the \
         links that lead there (rootfs-scripts/from-host.sh DIR {}), or unpack the root again with \
         tar, which keeps links",
        program.file_name().unwrap_or_default().to_string_lossy()
    )
}

//! Why a command doesn't start: "No such file or directory", for which file?
//!
//! `execve` answers with one number for many faults. ENOENT may be about the command, about the
//! loader that an ELF program asks for, or about the interpreter of a script; EACCES about a mode,
//! a directory or a mount. [`explain`] goes the way that the kernel and the loader go, from outside
//! and running nothing, and says where it ends. See execve(2), ld.so(8).

pub mod binfmt;
mod cache;
pub mod elf;
pub mod explanation;
mod inspection;
pub mod libraries;
mod nearest;
mod program;
mod script;
pub mod witness;

use crate::root::Root;
use explanation::{Consequence, Explanation, Fault};
use inspection::Inspection;
use std::path::Path;

/// Says why `command` would not start in `root`, from the directory `workdir` and with
/// `environment`, or that it would.
pub fn explain(root: &Root, command: &str, environment: &[String], workdir: &str) -> Explanation {
    let mut inspection = Inspection {
        root,
        environment,
        workdir: Path::new(workdir),
        evidence: Vec::new(),
    };
    let mut fault = inspection.command(command, 0).err();
    if root.is_exhausted() {
        // A file that wasn't found after the limit may be there, so neither the fault nor the evidence counts.
        inspection.evidence.clear();
        fault = Some(Fault::new(
            Consequence::Unknown,
            "there is more to look at in this root than anybody looks at",
            "look at what it says yourself: readelf -d, ldd, head -1",
        ));
    }
    Explanation {
        command: command.to_owned(),
        fault,
        evidence: inspection.evidence,
    }
}

//! A file is read as an ELF program, or isn't one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io::Write;
use step04_pivot_root::why::elf::Elf;

fuzz_target!(|bytes: &[u8]| {
    let file = memfd_create(c"program", MFdFlags::MFD_CLOEXEC).expect("a file");
    let mut file = File::from(file);
    file.write_all(bytes).expect("its bytes");
    let _ = Elf::read(&file);
});

//! Asks the linker for the program's begin in `before.rs`: it is called where the C library's would be.

fn main() {
    println!("cargo::rerun-if-changed=src/before/link.rs");
    println!("cargo::rustc-link-arg-bin=step12-oci=-Wl,--wrap=__libc_start_main");
}

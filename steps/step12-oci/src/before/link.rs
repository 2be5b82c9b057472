//! Tells the linker that the program begins in `before.rs`, and not with the C library's `_start`.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=src/before/link.rs");
    let known = |name: &str| env::var(name).unwrap_or_default();
    let is_static = known("CARGO_CFG_TARGET_FEATURE").contains("crt-static");
    // A static program may relocate itself, after that. Without optimization there are calls in `before.rs` that it would
    // have to relocate first.
    let is_ready = !is_static || known("OPT_LEVEL") != "0";
    if is_ready && ["x86_64", "aarch64"].contains(&&*known("CARGO_CFG_TARGET_ARCH")) {
        println!("cargo::rustc-link-arg-bin=step12-oci=-Wl,--entry=begin_before_libc");
    }
}

//! The exercises of chapter 1, called one by one.

fn main() -> probe::anyhow::Result<()> {
    probe::main(&[])
}

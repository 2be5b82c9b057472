//! The exercises of chapter 2, called one by one.

fn main() -> probe::anyhow::Result<()> {
    probe::main(&[])
}

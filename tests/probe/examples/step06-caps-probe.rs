//! The exercises of chapter 6, called one by one.

fn main() -> probe::anyhow::Result<()> {
    probe::main(&[])
}

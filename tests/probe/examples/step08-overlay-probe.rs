//! The exercises of chapter 8, called one by one.

fn main() -> probe::anyhow::Result<()> {
    probe::main(&[])
}

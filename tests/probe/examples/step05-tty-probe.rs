//! The exercises of chapter 5, called one by one.

fn main() -> probe::anyhow::Result<()> {
    probe::main(&[])
}

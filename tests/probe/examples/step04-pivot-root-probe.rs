//! The exercises of chapter 4, called one by one.

fn main() -> probe::anyhow::Result<()> {
    probe::main(&[])
}

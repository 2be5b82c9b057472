//! The exercises of chapter 10, called one by one.

fn main() -> probe::anyhow::Result<()> {
    probe::main(&[])
}

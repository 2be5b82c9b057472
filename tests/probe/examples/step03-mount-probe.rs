//! The exercises of chapter 3, called one by one.

fn main() -> probe::anyhow::Result<()> {
    probe::main(&[])
}

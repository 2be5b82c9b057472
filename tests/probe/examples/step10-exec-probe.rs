//! The exercises of chapter 10, called one by one.

#[path = "step10/close_behind.rs"]
mod close_behind;
#[path = "step10/join.rs"]
mod join;
#[path = "step10/same_prison.rs"]
mod same_prison;

fn main() -> probe::anyhow::Result<()> {
    probe::main(&[
        ("join", join::judge),
        ("same_prison", same_prison::judge),
        ("close_behind", close_behind::judge),
    ])
}

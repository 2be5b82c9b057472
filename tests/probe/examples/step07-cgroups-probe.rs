//! The exercises of chapter 7, called one by one.

#[path = "step07/enter.rs"]
mod enter;
#[path = "step07/find.rs"]
mod find;
#[path = "step07/groups.rs"]
mod groups;
#[path = "step07/haste.rs"]
mod haste;
#[path = "step07/limit.rs"]
mod limit;
#[path = "step07/remove.rs"]
mod remove;
#[path = "step07/stays.rs"]
mod stays;

fn main() -> probe::anyhow::Result<()> {
    probe::main(&[
        ("find", find::find),
        ("limit", limit::limit),
        ("enter", enter::enter),
        ("remove", remove::remove),
    ])
}

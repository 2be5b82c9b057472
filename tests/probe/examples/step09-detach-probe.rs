//! The exercises of chapter 9, called one by one.

#[path = "step09/detach.rs"]
mod detach;
#[path = "step09/is_running.rs"]
mod is_running;
#[path = "step09/save.rs"]
mod save;
#[path = "step09/stop.rs"]
mod stop;

fn main() -> probe::anyhow::Result<()> {
    probe::main(&[
        ("detach", detach::judge),
        ("save", save::judge),
        ("is_running", is_running::judge),
        ("stop", stop::judge),
    ])
}

//! The exercises of chapter 8, called one by one.

#[path = "step08/clone.rs"]
mod clone;
#[path = "step08/down.rs"]
mod down;
#[path = "step08/mark.rs"]
mod mark;
#[path = "step08/overlay.rs"]
mod overlay;
#[path = "step08/table.rs"]
mod table;

fn main() -> probe::anyhow::Result<()> {
    probe::main(&[
        ("mount_overlay", overlay::mount_overlay),
        ("clone_tree", clone::clone_tree),
        ("tear_down", down::tear_down),
        ("mark", mark::mark),
    ])
}

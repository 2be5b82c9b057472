//! The exercises of chapter 5, called one by one.

#[path = "step05/devices.rs"]
mod devices;
#[path = "step05/pty.rs"]
mod pty;
#[path = "step05/raw.rs"]
mod raw;
#[path = "step05/session.rs"]
mod session;
#[path = "step05/terminals.rs"]
mod terminals;

fn main() -> probe::anyhow::Result<()> {
    probe::main(&[
        ("make_devices", devices::make_devices),
        ("open_pty", pty::open_pty),
        ("take_terminal", session::take_terminal),
        ("raw_mode", raw::raw_mode),
    ])
}

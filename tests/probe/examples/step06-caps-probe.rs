//! The exercises of chapter 6, called one by one.

#[path = "step06/capabilities.rs"]
mod capabilities;
#[path = "step06/filter.rs"]
mod filter;
#[path = "step06/process.rs"]
mod process;
#[path = "step06/read_only.rs"]
mod read_only;
#[path = "step06/user.rs"]
mod user;

fn main() -> probe::anyhow::Result<()> {
    probe::main(&[
        ("become_user", user::become_user),
        ("drop_capabilities", capabilities::drop_capabilities),
        ("filter", filter::filter),
        ("make_read_only", read_only::make_read_only),
    ])
}

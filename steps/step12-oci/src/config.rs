//! What config.json says, and what it means in the types of the earlier steps. Nothing here makes a system call that changes
//! anything.

pub mod linux;
pub mod mounts;
mod place;
pub mod process;
pub mod read;

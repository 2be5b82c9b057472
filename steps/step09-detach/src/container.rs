//! What is known of containers, and where it is kept.

pub mod log;
pub mod name;
pub mod plan;
pub mod record;
pub mod restart;
pub mod status;
pub mod store;

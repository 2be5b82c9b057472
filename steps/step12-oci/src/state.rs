//! What is known of a container.

pub mod known;
pub mod store;

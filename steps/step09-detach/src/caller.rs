//! The caller's side of a container: how its monitor is started, and how it is talked to.

pub mod connection;
pub mod conversation;
pub mod keys;
pub mod launch;

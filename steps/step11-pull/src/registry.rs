//! How a registry is asked: the OCI distribution specification.

pub mod account;
pub mod challenge;
pub mod client;
pub mod name;
pub mod origin;
pub mod retry;

//! What a registry says of an image: the OCI image specification, and Docker's manifests of version 2.

pub mod chosen;
pub mod config;
pub mod digest;
pub mod index;
pub mod parts;
pub mod platform;

//! Step 12: an OCI runtime, by what the specification says, and by what engines make of it.

mod bad_input;
mod commands;
mod hooks;
mod mounts;
mod properties;
mod resources;
mod words;

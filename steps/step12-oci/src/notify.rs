//! How others hear of a container's process: by a socket that gets its terminal, or a descriptor for it.

pub mod console;
pub mod pidfd;
pub mod ready;
pub mod sockets;

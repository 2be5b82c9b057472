//! How a layer comes: it is fetched, verified and unpacked at once, and then fitted to the layers below it.

pub mod download;
pub mod fit;
pub mod install;
pub mod pipe;
pub mod progress;
pub mod unpack;

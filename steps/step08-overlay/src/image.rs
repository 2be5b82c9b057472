//! Images as archives: how one is unpacked into a layer, and how a container's root is packed.

pub mod archive;
pub mod commit;
pub mod headers;
pub mod images;
pub mod marks;
pub mod names;
pub mod open_ends;
pub mod xattrs;
pub mod zstd;

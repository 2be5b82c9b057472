//! Archives of images, as `docker save` and others write them: each has texts that say which files are an image's layers.

pub mod docker;
pub mod found;
pub mod kept;
pub mod layout;

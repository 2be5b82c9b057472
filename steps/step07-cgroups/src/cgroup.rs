//! The control groups of a container, beyond the lesson: how a folder is made and removed, what each version calls its
//! files, and what is read in them.

pub mod freezer;
pub mod group;
pub mod usage;
pub mod v1;
pub mod v2;
pub mod view;

//! The control groups of a container, beyond the lesson: where they are, how they are made and removed, what
//! each version calls its files, and what is read in them.

pub mod creation;
pub mod freezer;
pub mod group;
pub mod hierarchy;
pub mod places;
pub mod settings;
pub mod usage;
mod v2;
mod view;

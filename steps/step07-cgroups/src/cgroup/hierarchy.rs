//! Trees of control groups.

use std::path::PathBuf;

// ANCHOR: Hierarchy
/// A tree of control groups, as it is mounted here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// The folder of the topmost group that can be seen from here.
    pub top: PathBuf,
    /// The version, which says what files the groups have.
    pub version: Version,
    /// The controllers that were asked for and that this hierarchy has.
    pub controllers: Vec<String>,
}

/// The version of cgroups that a hierarchy is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A hierarchy for each controller, or for a few.
    V1,
    /// One hierarchy for all controllers.
    V2,
}
// ANCHOR_END: Hierarchy

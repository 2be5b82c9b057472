//! Trees of control groups.

use std::path::PathBuf;

// ANCHOR: Hierarchy
/// A tree of control groups, as it is mounted here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// The folder of its topmost group that can be seen from here.
    pub top: PathBuf,
    /// Which files its groups have.
    pub version: Version,
    /// What was asked for and is controlled in it.
    pub controllers: Vec<&'static str>,
}

/// The version of cgroups that a hierarchy is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A hierarchy for each controller, or for a few.
    V1,
    /// One for all.
    V2,
}
// ANCHOR_END: Hierarchy

//! The checker of the exercises.
//!
//! `progress` stays the user who called it. What needs root, and what may hurt, happens on a
//! *pretend host* ([`host`]): outer namespaces in which the programs of the steps run as if those
//! were the machine, and with which they end. In there [`host::container`] starts a program and
//! [`host::evidence`] reads what the kernel says of it. What a chapter is made of is in [`course`]; [`checks`] has
//! one function an exercise, [`attacks`] one a chapter, and [`chapters`] the table of them all. [`programs`] builds
//! what is to be checked, and [`desk`] has what a learner works with.

pub mod attacks;
pub mod chapters;
pub mod checks;
pub mod course;
pub mod desk;
pub mod generate;
pub mod host;
pub mod programs;

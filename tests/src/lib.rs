//! The checker of the exercises.
//!
//! `progress` stays the user who called it. What needs root, and what may hurt, happens on a
//! *pretend host* ([`host`]): outer namespaces in which the programs of the steps run as if those
//! were the machine, and with which they end. In there [`container`] starts a program and
//! [`evidence`] reads what the kernel says of it; [`checks`] has one function an exercise, and
//! [`course`] the table of them all. [`programs`] builds what is to be checked.

pub mod attacker;
pub mod attacks;
pub mod board;
pub mod checks;
pub mod container;
pub mod course;
pub mod doctor;
pub mod editor;
pub mod evidence;
pub mod exercises;
pub mod generate;
pub mod hang;
pub mod host;
pub mod points;
pub mod programs;
pub mod regions;
pub mod repairs;
pub mod report;
pub mod trace;
pub mod xray;

//! The test suites of the course: programs of the steps, run on a pretend host and looked at from
//! outside.

mod archives;
mod book;
mod browser;
mod checkout;
mod checks;
mod commits;
mod crowd;
mod desk;
mod dock;
mod engine;
mod exercises;
mod explanations;
mod faults;
mod joining;
mod layers;
mod lifecycle;
mod limits;
mod privileges;
mod programs;
mod roots;
mod signals;
mod stage;
mod terminal;
mod vm;
mod workshop;

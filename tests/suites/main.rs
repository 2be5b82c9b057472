//! The test suites of the course: programs of the steps, run on a pretend host and looked at from
//! outside.

mod another_kernel;
mod attacks;
mod course;
mod house;
mod runtime;
mod stage;
mod steps;

//! What the programs of the steps do, chapter by chapter.

mod archives;
mod attached;
mod commits;
mod copying;
mod crowd;
mod explanations;
mod faults;
mod first_minute;
mod groups;
mod joining;
mod layers;
mod lifecycle;
mod limits;
mod loading;
mod looking;
mod monitors;
mod privileges;
mod programs;
mod pulling;
mod registries;
mod roots;
mod runtime_faults;
mod signals;
mod stacks;
mod surviving;
mod terminal;

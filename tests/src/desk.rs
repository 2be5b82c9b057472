//! What somebody has at hand beside the checks: the copies of the chapters, the board, the machine, the editor.

pub mod board;
pub mod doctor;
pub mod editor;
pub mod exercises;
pub mod xray;

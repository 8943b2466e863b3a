//! `breaker top`: the live view in a terminal.
//!
//! One thread reads the kernel's state and sends it to the thread that draws. Nothing here writes to the
//! kernel: a trip runs `breaker trip` as a process of its own.

mod agent_history;
mod app;
mod draw;
mod input;
mod keys;
mod problems;
mod rows;
mod sort;
mod source;
mod style;
pub mod terminal;
mod trip;

#[cfg(test)]
mod tests;

pub use app::{App, Options};
pub use draw::text;
pub use source::{Reading, Source};
pub use style::Style;
pub use terminal::{run, size};

//! The rates of the last 15 minutes: for each session one sample a second, in memory.

mod column;
mod ring;
mod sample;

#[cfg(test)]
mod tests;

pub use ring::Ring;
pub use sample::{Sample, Samples, from_counters, read};

/// Time between two samples, ms.
pub const STEP_MS: u64 = 1000;
/// Samples of a session: 15 minutes.
pub const SECONDS: usize = 900;

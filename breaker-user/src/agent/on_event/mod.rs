//! Runs a program for events, as `[agent].on_event` says. Enforcement never waits for it: the program has a
//! thread of its own, and the queue in front of it is bounded.

mod follower;
mod process;
mod runner;

#[cfg(test)]
mod tests;

pub use follower::Follower;
pub use runner::run;

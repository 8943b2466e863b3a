//! The rehearsal: a kill in throw-away namespaces on this host's own kernel, with real TCP and real FIX sessions.
//!
//! Nothing of it is simulated but the two traders: the program, the agent and the verbs are the ones that guard the real host. It
//! touches nothing that is loaded, and leaves nothing behind.

mod figures;
mod knight;
mod stage;
mod ticker;

pub use figures::{Figure, Promise, Report};

use anyhow::Result;

/// What can be rehearsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Knight Capital, 1 August 2012.
    Knight,
}

/// Rehearses, telling on standard output what happens.
pub fn run(scenario: Scenario) -> Result<Report> {
    match scenario {
        Scenario::Knight => knight::run(),
    }
}

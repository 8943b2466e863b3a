//! The drill: rehearses a trip in throw-away network namespaces on this host's own kernel, with real TCP and
//! real FIX.
//!
//! Only the two traders are simulated. The kernel program, the agent and the verbs are those that protect the
//! host. The drill does not touch what is loaded, and leaves nothing behind.

mod environment;
mod figures;
mod knight;
mod ticker;

pub use figures::{Figure, Promise, Report};

use anyhow::Result;

/// Scenarios of the drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Knight Capital, 1 August 2012.
    Knight,
}

/// Runs a scenario and prints its progress on standard output.
pub fn run(scenario: Scenario) -> Result<Report> {
    match scenario {
        Scenario::Knight => knight::run(),
    }
}

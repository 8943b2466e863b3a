//! The drill: rehearses a trip in throw-away network namespaces on this host's own kernel, with real TCP and
//! real FIX.
//!
//! Only the two traders are simulated. The kernel program, the agent and the verbs are those that protect the
//! host. The drill does not touch what is loaded, and leaves nothing behind. Only `drill --live` trips a
//! session of the load, if the session's configuration allows that.

mod agent_dead;
mod cancel_while_tripped;
mod coalesced_burst;
mod engine_replays;
mod environment;
mod figures;
mod knight;
pub mod live;
mod one_session;
pub mod page;
mod reboot;
pub mod record;
mod ticker;
mod traffic;
mod upgrade_under_load;
mod window_shut;

pub use figures::{Figure, Promise, Report};

use anyhow::Result;

/// A scenario of the drill.
pub type Scenario = fn() -> Result<Report>;

/// The scenarios and their names, in the order of `--all`.
pub const SCENARIOS: [(&str, Scenario); 9] = [
    ("knight", knight::run),
    ("one-session", one_session::run),
    ("coalesced-burst", coalesced_burst::run),
    ("agent-dead", agent_dead::run),
    ("engine-replays", engine_replays::run),
    ("window-shut", window_shut::run),
    ("upgrade-under-load", upgrade_under_load::run),
    ("cancel-while-tripped", cancel_while_tripped::run),
    ("reboot", reboot::run),
];

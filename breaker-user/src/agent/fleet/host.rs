//! This host, as its fleet sees it.

use std::sync::Arc;

use super::switches::Switches;
use crate::agent::loaded::Loaded;
use crate::agent::log::Log;
use crate::agent::monitor::Monitor;
use crate::fleet::Prefix;

/// The parts of the agent that the fleet needs.
pub struct Host {
    /// The switches, and the name of the host.
    pub switches: Switches,
    /// The load.
    pub loaded: Arc<Loaded>,
    /// The queue of the audit log.
    pub log: Arc<Log>,
    /// Whether the breaker is in force.
    pub monitor: Arc<Monitor>,
    /// The keys of the fleet.
    pub prefix: Prefix,
}

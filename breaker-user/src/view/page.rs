//! The state that the web page shows: one JSON document a second.

use jiff::Timestamp;
use serde::Serialize;

use super::attestation::Binary;
use super::rates::{Rates, SessionRates};
use super::status::Status;
use crate::audit::Line;

/// The state that the page shows.
#[derive(Debug, Serialize)]
pub struct Page {
    /// Time of the reading.
    pub time: Timestamp,
    /// Name of the host.
    pub host: String,
    /// The binary of the agent, which may differ from that of the load; null until its file is hashed.
    pub binary: Option<&'static Binary>,
    /// The status.
    pub status: Status,
    /// The rates of the last second.
    pub rates: Rates<Vec<SessionRates>>,
    /// Newest events of the audit log, the newest first.
    pub events: Vec<Line>,
}

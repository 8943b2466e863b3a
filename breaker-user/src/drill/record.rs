//! The record of a drill, for an auditor to file: JSON, or one page of HTML.

use jiff::Timestamp;
use serde::Serialize;

use super::figures::Report;
use crate::view::attestation::{Binary, Host};

/// The record of the scenarios that ran.
#[derive(Debug, Serialize)]
pub struct Record {
    /// Time of the end.
    pub at: Timestamp,
    /// Duration in seconds.
    pub seconds: f64,
    /// Every promise was kept.
    pub kept: bool,
    /// The command that repeats the drill.
    pub command: String,
    /// This binary.
    pub binary: Binary,
    /// The host.
    pub host: Host,
    /// Number of CPUs.
    pub cpus: usize,
    /// The results, one a scenario.
    pub scenarios: Vec<Report>,
}

impl Record {
    /// Records the results of scenarios. `command` repeats the drill.
    pub fn new(command: String, started: Timestamp, scenarios: Vec<Report>) -> anyhow::Result<Self> {
        let at = Timestamp::now();
        Ok(Self {
            at,
            seconds: at.duration_since(started).as_secs_f64(),
            kept: scenarios.iter().all(Report::kept),
            command,
            binary: Binary::read()?,
            host: Host::read(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            scenarios,
        })
    }
}

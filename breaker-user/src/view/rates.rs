//! The rates of the last minutes: the JSON of `GET /history`, a contract with the page and `top`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Rates of sessions over time. `S` is the list of sessions: [`SessionRates`], or what serializes as them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates<S> {
    /// Time between two values, ms.
    pub step_ms: u64,
    /// Time of the last value of each list; null before the first sample.
    pub end: Option<Timestamp>,
    /// Sessions. Their lists all have the same length.
    pub sessions: S,
}

/// Rates of a session, the oldest first. A second without a value is null: the agent did not run or was late,
/// or the session did not exist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRates {
    /// Name of the session.
    pub name: String,
    /// Passed messages of class order, in each second.
    pub order: Vec<Option<u32>>,
    /// Withheld messages of class order, in each second.
    pub withheld: Vec<Option<u32>>,
    /// Use of the nearest limit in permille, at the end of each second; null also if no limit applies. The
    /// nearest limit is the most used one among the limits of the session, its groups and the host.
    pub limit_permille: Vec<Option<u16>>,
}

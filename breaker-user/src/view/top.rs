//! The document that `top` shows and prints: switches, limits, sessions with rates, problems and events.

use jiff::Timestamp;
use serde::Serialize;

use super::scope::Scope;
use super::session::Session;
use super::status::{Agent, Policy};
use crate::audit::Line;
use crate::enforced::Enforced;
use crate::state::warnings::Warning;

/// The state of a load at one moment.
#[derive(Debug, Serialize)]
pub struct Top {
    /// The moment.
    pub time: Timestamp,
    /// The policy in force.
    pub policy: Policy,
    /// The agent.
    pub agent: Agent,
    /// Whether the breaker is in force. Its facts, except for the attachments, may be some seconds old if
    /// there are many connections.
    pub enforced: Enforced,
    /// Warnings that nobody has acknowledged.
    pub warnings: Vec<Warning>,
    /// Switches and limits.
    pub scopes: Vec<Scope>,
    /// Sessions with their rates.
    pub sessions: Vec<SessionRow>,
    /// Events since the document before, the oldest first.
    pub events: Vec<Line>,
}

/// A session with its rates.
#[derive(Debug, Serialize)]
pub struct SessionRow {
    /// Connections, messages and segments. The connections are as old as the facts of
    /// `enforced`.
    #[serde(flatten)]
    pub session: Session,
    /// Passed messages of class order in the last second; null before the second sample.
    pub order_per_s: Option<u32>,
    /// Withheld messages of class order in the last second.
    pub withheld_per_s: Option<u32>,
    /// Use of the nearest limit in permille, as in [`super::rates::SessionRates`].
    pub limit_permille: Option<u16>,
}

/// A connection of a session, for the view of one session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Connection {
    /// `local address > remote address`.
    pub addresses: String,
    /// `live`, `fenced`, `blind` or `closed`.
    pub state: &'static str,
}

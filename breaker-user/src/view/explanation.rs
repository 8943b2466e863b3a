//! `trip --explain`, and the last part of the output of `trip`: what a trip of a scope cuts, what still
//! passes, what the venue does, what stays in the book, and how to reset. The field names are a contract with
//! scripts.

use anyhow::Result;
use breaker_common::abi::{Session as Settings, flag, mode, while_tripped};
use breaker_common::counts::SegmentCounts;
use breaker_common::decide::allowed_while_tripped;
use breaker_common::message::Class;
use serde::Serialize;

use crate::config::{CancelOnDisconnect, OnTrip, ScopeIndex, SessionIndex, WhileTripped};
use crate::kernel::Breaker;
use crate::kernel::open_connections::OpenConnection;

/// The effects of a trip of a scope.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// The scope.
    pub scope: String,
    /// The scope is tripped already.
    pub tripped: bool,
    /// The effects on each session of the scope.
    pub sessions: Vec<SessionEffect>,
    /// The command that resets the scope.
    pub reset: String,
}

/// The effects of a trip on a session.
#[derive(Debug, Serialize)]
pub struct SessionEffect {
    /// Name of the session.
    pub name: String,
    /// Its open connections, which the trip cuts: the first 1,000 of all sessions.
    pub connections: Vec<Ends>,
    /// Number of its open connections that are not listed.
    pub connections_left_out: usize,
    /// What happens to its open connections.
    #[serde(serialize_with = "as_text")]
    pub on_trip: OnTrip,
    /// What its new connections may send.
    #[serde(serialize_with = "as_text")]
    pub while_tripped: WhileTripped,
    /// The classes of messages that pass on a new connection.
    pub passes: Vec<&'static str>,
    /// The classes of messages that are withheld.
    pub withheld: Vec<&'static str>,
    /// The orders that the venue cancels by itself; null if the configuration does not say.
    #[serde(serialize_with = "as_optional_text")]
    pub cancel_on_disconnect: Option<CancelOnDisconnect>,
    /// What the venue does by itself.
    pub venue: &'static str,
    /// What stays in the book of the venue.
    pub stays: &'static str,
}

/// Most listed connections of all sessions together.
const MAX_CONNECTIONS: usize = 1_000;

/// The ends of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ends {
    /// The address and port on the trading host.
    pub local: String,
    /// The address and port of the venue.
    pub remote: String,
}

fn as_text<T: std::fmt::Display, S: serde::Serializer>(word: &T, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(word)
}

fn as_optional_text<T: std::fmt::Display, S: serde::Serializer>(
    word: &Option<T>,
    to: S,
) -> Result<S::Ok, S::Error> {
    match word {
        Some(word) => to.collect_str(word),
        None => to.serialize_none(),
    }
}

impl Explanation {
    /// Reads the effects of a trip of a scope from the maps.
    pub fn read(breaker: &Breaker, scope: ScopeIndex) -> Result<Self> {
        let connections = breaker.open_connections(&breaker.sessions_of(scope)?)?;
        Self::of(breaker, scope, &connections)
    }

    /// Makes the explanation from the open connections of a scope, as [`Breaker::open_connections`] lists
    /// them.
    pub fn of(breaker: &Breaker, scope: ScopeIndex, connections: &[OpenConnection]) -> Result<Self> {
        let (mut effects, mut room) = (Vec::new(), MAX_CONNECTIONS);
        for session in breaker.sessions_of(scope)? {
            let start = connections.partition_point(|one| one.session < session.get());
            let end = connections.partition_point(|one| one.session <= session.get());
            let own = &connections[start..end];
            let effect = effect(breaker, session, own, room)?;
            room -= effect.connections.len();
            // Undeclared connections belong to the scope `host` only, and usually there are none.
            if session != SessionIndex::UNDECLARED || !own.is_empty() {
                effects.push(effect);
            }
        }
        let name = breaker.names().name(scope).to_string();
        Ok(Self {
            tripped: breaker.switch(scope)?.causes != 0,
            sessions: effects,
            reset: format!("breaker reset {name} --reason TEXT"),
            scope: name,
        })
    }
}

/// Returns the effects on a session with these open connections, of which up to `room` are listed.
fn effect(
    breaker: &Breaker,
    session: SessionIndex,
    connections: &[OpenConnection],
    room: usize,
) -> Result<SessionEffect> {
    let settings = breaker.session(session)?;
    let on_trip = if settings.flags & flag::DROP != 0 { OnTrip::Drop } else { OnTrip::Reset };
    let while_tripped = match settings.while_tripped {
        while_tripped::ADMIN_ONLY => WhileTripped::AdminOnly,
        while_tripped::ISOLATE => WhileTripped::Isolate,
        _ => WhileTripped::ReduceOnly,
    };
    let cancels = cancel_on_disconnect(&settings);
    let names = |passing: bool| {
        let classes = Class::ALL.into_iter().filter(|class| passes(&settings, *class) == passing);
        classes.map(Class::name).collect()
    };
    let at_once = on_trip == OnTrip::Reset && breaker.meta().mode == mode::EGRESS;
    Ok(SessionEffect {
        name: breaker.names().session_name(session).to_string(),
        connections: connections
            .iter()
            .take(room)
            .map(|one| Ends { local: one.local.to_string(), remote: one.remote.to_string() })
            .collect(),
        connections_left_out: connections.len().saturating_sub(room),
        on_trip,
        while_tripped,
        passes: names(true),
        withheld: names(false),
        cancel_on_disconnect: cancels,
        venue: venue(cancels, on_trip, at_once),
        stays: stays(cancels, on_trip),
    })
}

fn cancel_on_disconnect(settings: &Settings) -> Option<CancelOnDisconnect> {
    let is_set = |bit| settings.flags & bit != 0;
    match () {
        () if is_set(flag::VENUE_CANCELS_ALL) => Some(CancelOnDisconnect::All),
        () if is_set(flag::VENUE_CANCELS_DAY) => Some(CancelOnDisconnect::Day),
        () if is_set(flag::VENUE_CANCELS_NONE) => Some(CancelOnDisconnect::None),
        () => None,
    }
}

/// Returns true if the kernel program passes a message of a class on a new connection of a tripped session.
fn passes(settings: &Settings, class: Class) -> bool {
    let mut counts = SegmentCounts::default();
    counts.messages[class as usize] = 1;
    settings.flags & flag::OPAQUE == 0 && allowed_while_tripped(settings, &counts)
}

/// What the venue does by itself after a trip. `at_once`: the connections end with the trip.
fn venue(cancels: Option<CancelOnDisconnect>, on_trip: OnTrip, at_once: bool) -> &'static str {
    match (on_trip, cancels, at_once) {
        (OnTrip::Drop, _, _) => {
            "nothing: the connection stays open without payload, until a heartbeat is missed"
        }
        (_, None, _) => "unknown: the configuration has no cancel_on_disconnect: ask the venue",
        (_, Some(CancelOnDisconnect::None), _) => "cancels nothing when the connection ends",
        (_, Some(CancelOnDisconnect::All), true) => "cancels all orders of the session at once",
        (_, Some(CancelOnDisconnect::All), false) => {
            "cancels all orders of the session when the connection ends: at its next message"
        }
        (_, Some(CancelOnDisconnect::Day), true) => "cancels the day orders of the session at once",
        (_, Some(CancelOnDisconnect::Day), false) => {
            "cancels the day orders of the session when the connection ends: at its next message"
        }
    }
}

/// What stays in the book of the venue.
fn stays(cancels: Option<CancelOnDisconnect>, on_trip: OnTrip) -> &'static str {
    match (on_trip, cancels) {
        (OnTrip::Reset, Some(CancelOnDisconnect::All)) => "no order, if the venue cancels as configured",
        (OnTrip::Reset, Some(CancelOnDisconnect::Day)) => {
            "orders with another time in force than day (GTC, GTD): cancel them at the venue"
        }
        (OnTrip::Reset, None) => "possibly every resting order: cancel them at the venue",
        (OnTrip::Drop, _) | (_, Some(CancelOnDisconnect::None)) => {
            "every resting order: cancel them at the venue"
        }
    }
}

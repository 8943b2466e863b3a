//! Scopes in `status`: switches, trips and limits.

use anyhow::Result;
use breaker_common::abi::{self, cause};
use jiff::{Timestamp, Unit};
use serde::Serialize;

use crate::config::{self, ScopeIndex};
use crate::display;
use crate::kernel::limit_use::LimitUse;
use crate::kernel::{Breaker, clock};

/// A scope.
#[derive(Debug, Serialize)]
pub struct Scope {
    /// `host`, `group/NAME` or `session/NAME`.
    pub scope: String,
    /// True if its limits trip it.
    pub armed: bool,
    /// True if it is tripped.
    pub tripped: bool,
    /// Causes of the trip.
    pub causes: Vec<&'static str>,
    /// Epoch, which each trip and reset raises.
    pub epoch: u64,
    /// Last trip by the kernel program, while the scope is tripped for its cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_trip: Option<Trip>,
    /// Limits of the scope.
    pub limits: Vec<Limit>,
}

/// A trip by the kernel program.
#[derive(Debug, Serialize)]
pub struct Trip {
    /// Time of the trip.
    pub at: Timestamp,
    /// Cause of the trip.
    pub cause: String,
    /// Session whose message tripped the scope.
    pub session: String,
    /// The exceeded limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// Messages in the window, including the one that tripped the scope.
    pub used: u64,
}

/// A limit.
#[derive(Debug, Serialize)]
pub struct Limit {
    /// Class of the counted messages.
    pub class: &'static str,
    /// Messages that may pass in an interval, or for a ratio before it applies.
    pub max: u64,
    /// Length of the interval, or `total`.
    pub per: String,
    /// Orders that may pass for each fill, for a ratio only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_fill: Option<u32>,
    /// Messages in the window now.
    pub used: u64,
    /// Most messages that the window has held since the load.
    pub peak: u64,
}

/// Reads all scopes, or one of them.
pub fn scopes(breaker: &Breaker, only: Option<ScopeIndex>) -> Result<Vec<Scope>> {
    let names = breaker.names();
    let mut scopes: Vec<_> = names.iter().filter(|scope| only.is_none_or(|only| only == *scope)).collect();
    // A group that a reload has added has a higher number than the sessions.
    scopes.sort_by_key(|scope| match names.what(*scope) {
        config::Scope::Host => (0, 0),
        config::Scope::Group(group) => (1, group.get()),
        config::Scope::Session(session) => (2, session.get()),
    });
    scopes.into_iter().map(|index| scope(breaker, index)).collect()
}

/// Reads a scope.
pub fn scope(breaker: &Breaker, index: ScopeIndex) -> Result<Scope> {
    let state = breaker.scope(index)?;
    Ok(Scope {
        scope: breaker.names().name(index).to_string(),
        armed: state.armed != 0,
        tripped: state.switch.causes != 0,
        causes: display::causes(state.switch.causes),
        epoch: state.switch.epoch,
        last_trip: (state.trip.at_ns != 0 && state.switch.causes & state.trip.cause != 0)
            .then(|| trip(breaker, index, &state)),
        limits: breaker.limits(index)?.into_iter().map(limit).collect(),
    })
}

fn limit(found: LimitUse) -> Limit {
    Limit {
        class: display::class(found.limit.class),
        max: found.limit.max,
        per: display::interval(&found.limit),
        per_fill: (found.limit.per_fill != 0).then_some(found.limit.per_fill),
        used: found.used,
        peak: found.peak,
    }
}

fn trip(breaker: &Breaker, scope: ScopeIndex, state: &abi::Scope) -> Trip {
    let trip = &state.trip;
    let session = breaker
        .names()
        .session(trip.session)
        .map(|session| breaker.names().session_name(session).to_string());
    let at = clock::time_of(trip.at_ns);
    let limit =
        breaker.limit(scope, trip.limit as usize).ok().flatten().filter(|_| trip.cause == cause::RATE);
    Trip {
        // The conversion reads two clocks, so that finer digits would differ between two readings.
        at: at.round(Unit::Millisecond).unwrap_or(at),
        cause: display::causes(trip.cause).concat(),
        session: session.unwrap_or_default(),
        limit: limit.map(|limit| display::limit(&limit)),
        used: trip.used,
    }
}

//! The age of a connection against the trips and resets of its scopes.

use core::hint::cold_path;

use crate::abi::{Connection, Session, flag, while_tripped};

use super::env::Env;
use super::switches::Switches;

/// Gives a connection its epoch at its first segment: the epoch sum of its scopes.
///
/// A connection without a seen SYN is fenced later if a scope has tripped since the declaration of the
/// session.
#[inline(always)]
pub(super) fn assign_epoch<E: Env>(
    env: &mut E,
    session: &Session,
    connection: &mut Connection,
    switches: Switches,
) {
    connection.epoch = match connection.epoch {
        Connection::JOINED if !is_newer_than_trips(env, session, connection) => Connection::FENCE_PENDING,
        _ => switches.epoch,
    };
    if connection.opened == 1 && connection.shared_endpoint != 0 {
        connection.opened_ns = env.now();
    }
}

/// Returns true if no scope has tripped since the declaration: of the session, and of all at a shared
/// endpoint.
#[inline(always)]
fn is_newer_than_trips<E: Env>(env: &mut E, session: &Session, connection: &Connection) -> bool {
    let raised_ns = env.history(session).raised_ns;
    let endpoint_raised_ns = if connection.shared_endpoint != 0 {
        env.shared_endpoint_state(connection.shared_endpoint).raised_ns
    } else {
        0
    };
    is_before(raised_ns, session.declared_ns) && is_before(endpoint_raised_ns, session.declared_ns)
}

/// Returns true if the last trip or reset was before `moment_ns`, or never.
#[inline(always)]
pub(super) fn is_before(raised_ns: u64, moment_ns: u64) -> bool {
    raised_ns == 0 || raised_ns < moment_ns
}

/// Returns the session of a connection. A connection of a session that is no longer declared becomes
/// undeclared.
#[inline(always)]
pub(super) fn declared_session<E: Env>(env: &mut E, connection: &mut Connection) -> Option<E::Session> {
    let session = env.session(connection.session)?;
    if session.scope_count != 0 {
        return Some(session);
    }
    cold_path();
    connection.session = 0;
    if connection.epoch != Connection::FENCED {
        connection.epoch = Connection::NEW;
    }
    env.session(0)
}

/// Returns true if orders with PossDupFlag(43)=Y are withheld: a scope has tripped since the agent's day
/// began.
#[inline(always)]
pub(super) fn is_guarded(session: &Session, switches: Switches) -> bool {
    session.flags & flag::REPLAYS_PASS == 0 && switches.epoch != session.day_epoch
}

/// Returns true if a tripped session may not open a new connection.
#[inline(always)]
pub(super) fn is_isolated<E: Env>(env: &mut E, session: &Session) -> bool {
    let resets = env.history(session).resets;
    session.while_tripped == while_tripped::ISOLATE || env.is_isolated(session.scopes[0], resets)
}

//! The fence of a connection, and events about a connection.

use crate::abi::{Connection, kind};

use super::env::Env;
use super::verdict::Verdict;

/// Fences a connection for good and emits an event.
///
/// The connection counts as closed, because its socket is reset or times out.
#[inline(always)]
pub(super) fn fence<E: Env>(env: &mut E, connection: &mut Connection, verdict: Verdict) {
    connection.epoch = Connection::FENCED;
    connection.closed_ns = env.now();
    let Some(session) = env.session(connection.session) else { return };
    let own = session.scopes[0];
    env.emit(kind::FENCED, own, 0);
    let switches = env.switches(&session);
    if switches.causes != 0 {
        // All connections older than one trip count as one fence. A withheld order fences only its own
        // connection.
        let raised = if verdict == Verdict::Tripped { 0 } else { switches.epoch };
        let resets = env.history(&session).resets;
        env.record_fence(own, raised, resets);
    }
}

/// Emits an event that a connection may cause repeatedly: the first four times, then at each power of two.
#[inline(always)]
pub(super) fn emit_rate_limited<E: Env>(env: &mut E, connection: &mut Connection, kind: u32, scope: u32) {
    const ALWAYS_SENT: u32 = 4;
    connection.event_count = connection.event_count.saturating_add(1);
    let count = connection.event_count;
    if count <= ALWAYS_SENT || count & (count - 1) == 0 {
        env.emit(kind, scope, count);
    }
}

//! The verdict on the messages of a segment, by switches, desyncs, replays, the heartbeat and the limits.

use core::hint::cold_path;

use crate::abi::{Connection, Session, cause, flag, kind, while_tripped};
use crate::counts::SegmentCounts;
use crate::limits::{self, LimitExceeded};
use crate::message::Class;

use super::env::Env;
use super::events::emit_rate_limited;
use super::switches::HOST;
use super::verdict::Verdict;

/// Returns the verdict on the counted messages of a segment, and charges them to the limits.
///
/// `causes` is the union of the causes of the session's scopes.
#[inline(always)]
pub(super) fn apply_limits<E: Env>(
    env: &mut E,
    session: &Session,
    connection: &mut Connection,
    causes: u64,
) -> Verdict {
    const NO_LIMIT: LimitExceeded = LimitExceeded { scope: 0, limit: 0, used: 0 };
    let (desyncs, replays) = (env.counts().desyncs, env.counts().replays);
    let own = session.scopes[0];
    if desyncs != 0 {
        cold_path();
        emit_rate_limited(env, connection, kind::DESYNCED, own);
    }
    if causes != 0 && !allowed_while_tripped(session, env.counts()) {
        cold_path();
        return Verdict::Tripped;
    }
    if desyncs != 0 && session.flags & flag::DESYNC_TRIPS != 0 && env.armed(own) {
        // Anyone may open a connection and send garbage. Such a connection is fenced alone and trips nothing.
        if connection.message_seen != 0 {
            env.trip(own, cause::DESYNC, NO_LIMIT);
        }
        return Verdict::Desync;
    }
    if replays != 0 {
        cold_path();
        emit_rate_limited(env, connection, kind::REPLAYED, own);
        if env.armed(own) {
            env.trip(own, cause::REPLAY, NO_LIMIT);
            return Verdict::Replay;
        }
    }
    if env.counts().store_total() == 0 {
        return Verdict::Passed;
    }
    if connection.message_seen == 0 {
        cold_path();
        connection.message_seen = (env.counts().unread == 0) as u32;
    }
    if causes & cause::DEADMAN == 0
        && let Some(trips) = env.heartbeat_lost(session)
    {
        cold_path();
        env.emit_heartbeat_lost();
        if trips && env.armed(HOST) {
            env.trip(HOST, cause::DEADMAN, NO_LIMIT);
            return Verdict::Deadman;
        }
    }
    match limits::charge(session, env) {
        None => Verdict::Passed,
        Some(exceeded) => {
            cold_path();
            env.trip(exceeded.scope, cause::RATE, exceeded);
            Verdict::Limit
        }
    }
}

/// Returns true if the policy passes every message of the segment while the scope is tripped.
///
/// Unread bytes may contain any message.
#[inline(always)]
pub fn allowed_while_tripped(session: &Session, counts: &SegmentCounts) -> bool {
    let adds_risk = counts.class_count(Class::Order)
        | counts.class_count(Class::Interest)
        | counts.desyncs
        | counts.unread;
    let not_admin = adds_risk | counts.class_count(Class::Cancel) | counts.class_count(Class::Query);
    match session.while_tripped {
        while_tripped::REDUCE_ONLY => adds_risk == 0,
        while_tripped::ADMIN_ONLY => not_admin == 0,
        // ISOLATE. An unknown code withholds too: the program fails closed.
        _ => false,
    }
}

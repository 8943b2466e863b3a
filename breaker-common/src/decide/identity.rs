//! Whose a connection is, where several sessions go to one place: its first message tells.

use crate::abi::{Connection, Session, Target, flag, kind, undeclared};

use super::env::{Env, Switches};
use super::verdict::Verdict;
use super::{HOST, is_before};

/// Whether the first message of a connection is awaited, to tell or to confirm whose it is.
#[inline(always)]
pub(super) fn awaits_identity(session: &Session, connection: &mut Connection) -> bool {
    if connection.pending == 0 || connection.pending == Connection::CANDIDATE {
        return false;
    }
    if connection.shared_endpoint == 0 && session.comp_ids == [0; 4] {
        connection.pending = 0;
    }
    connection.pending != 0
}

/// Takes note of the CompIDs that a connection shows, and compares them where it is known whose it is. True once it must be found out.
#[inline(always)]
pub(super) fn record_comp_ids<W: Env>(env: &mut W, session: &Session, connection: &mut Connection) -> bool {
    let (shown, identified, desyncs) = {
        let counts = env.counts();
        (counts.comp_ids, counts.identity_complete, counts.desyncs)
    };
    if desyncs != 0 {
        // Of a message that could not be read to its end nothing holds.
        connection.comp_ids = [0; 4];
    }
    let mut i = 0;
    while i < shown.len() {
        // The first value of a field counts, as for every engine.
        if connection.comp_ids[i] == 0 {
            connection.comp_ids[i] = shown[i];
        }
        i += 1;
    }
    if identified == 0 {
        return false;
    }
    connection.pending = 0;
    if connection.shared_endpoint == 0 && differ(&session.comp_ids, &connection.comp_ids) {
        env.emit(kind::MISMATCHED, session.scopes[0], 0);
    }
    connection.shared_endpoint != 0
}

/// The session that a connection to a shared place is, by the CompIDs that it has shown, and its switches; `undeclared` are those of
/// what nobody declared.
#[inline(always)]
pub(super) fn assign_session<W: Env>(
    env: &mut W,
    connection: &mut Connection,
    undeclared: Switches,
) -> Result<(W::Session, Switches), Verdict> {
    let Target::Shared { endpoint, mask } = Target::unpack(connection.shared_endpoint) else {
        return Err(Verdict::Unconfigured);
    };
    let mut ids = connection.comp_ids;
    let mut i = 0;
    while i < ids.len() {
        if mask >> i & 1 == 0 {
            ids[i] = 0;
        }
        i += 1;
    }
    let number = env.session_by_comp_ids(endpoint, ids);
    let session = env.session(number).ok_or(Verdict::Unconfigured)?;
    let other_user = session.flags & flag::MATCH_UID != 0 && session.uid != connection.uid;
    if number == 0 || other_user {
        let session = env.session(0).ok_or(Verdict::Unconfigured)?;
        return undeclared_verdict(env, connection).map_or(Ok((session, undeclared)), Err);
    }
    connection.session = number;
    // Its SYN was before it was known which trips concern it.
    let (history, switches) = (env.history(&session), env.switches(&session));
    let born = if connection.opened == 1 { connection.opened_ns } else { session.declared_ns };
    let young = is_before(history.raised_ns, born);
    connection.epoch = if young { switches.epoch } else { Connection::FENCE_PENDING };
    if young && switches.causes != 0 && env.is_isolated(session.scopes[0], history.resets) {
        return Err(Verdict::Tripped);
    }
    Ok((session, switches))
}

/// Orders that a connection may send unread, by the count of its bytes, before it has told whose it is: room for the line or the header
/// of a proxy (107 bytes and 232 at most, haproxy's proxy-protocol.txt) before the Logon.
const MAX_UNREAD: u32 = 4;

/// What becomes of a segment of a connection to a shared place that has not told whose it is, where something in it could not be read:
/// it may be anyone's there, so all sessions of the place must let it pass.
#[inline(always)]
pub(super) fn unidentified_verdict<W: Env>(env: &mut W, connection: &mut Connection) -> Option<Verdict> {
    if env.counts().unread == 0 {
        return None;
    }
    let orders = env.counts().blind_orders();
    let endpoint_state = env.shared_endpoint_state(connection.shared_endpoint);
    if endpoint_state.causes != 0 {
        return Some(Verdict::Tripped);
    }
    if connection.opened != 1 {
        return None;
    }
    if !is_before(endpoint_state.raised_ns, connection.opened_ns) {
        return Some(Verdict::Fenced);
    }
    connection.pending = connection.pending.saturating_add(orders);
    if connection.pending > 1 + MAX_UNREAD {
        env.emit(kind::UNDECLARED, HOST, 0);
        return Some(Verdict::Undeclared);
    }
    None
}

/// True where a number that must be is not.
#[inline(always)]
fn differ(expected: &[u32; 4], shown: &[u32; 4]) -> bool {
    let mut i = 0;
    let mut differ = false;
    while i < 4 {
        differ |= expected[i] != 0 && expected[i] != shown[i];
        i += 1;
    }
    differ
}

/// What becomes of a connection whose first message is of no declared session; `None` where it counts as undeclared.
#[inline(always)]
fn undeclared_verdict<W: Env>(env: &mut W, connection: &mut Connection) -> Option<Verdict> {
    let policy = env.undeclared();
    if policy == undeclared::IGNORE {
        connection.session = Connection::IGNORED;
        return Some(Verdict::Ignored);
    }
    env.emit(kind::UNDECLARED, HOST, 0);
    // Block, or a code that no version knows: closed.
    (policy != undeclared::WATCH).then_some(Verdict::Undeclared)
}

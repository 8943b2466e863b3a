//! Session lookup at a shared endpoint: the first message of a connection identifies its session.

use crate::abi::{Connection, Session, Target, flag, kind, undeclared};

use super::env::Env;
use super::epoch::is_before;
use super::switches::{HOST, Switches};
use super::verdict::Verdict;

/// Returns true if the first message of a connection has to identify or confirm the session.
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

/// Records the CompIDs of the first message. Returns true if they are complete and have to identify the
/// session.
///
/// If the session is known, a mismatch causes an event.
#[inline(always)]
pub(super) fn record_comp_ids<E: Env>(env: &mut E, session: &Session, connection: &mut Connection) -> bool {
    let (comp_ids, complete, desyncs) = {
        let counts = env.counts();
        (counts.comp_ids, counts.identity_complete, counts.desyncs)
    };
    if desyncs != 0 {
        // CompIDs of an incomplete message are not trusted.
        connection.comp_ids = [0; 4];
    }
    let mut i = 0;
    while i < comp_ids.len() {
        // FIX engines use the first value of a repeated field.
        if connection.comp_ids[i] == 0 {
            connection.comp_ids[i] = comp_ids[i];
        }
        i += 1;
    }
    if complete == 0 {
        return false;
    }
    connection.pending = 0;
    if connection.shared_endpoint == 0 && differ(&session.comp_ids, &connection.comp_ids) {
        env.emit(kind::MISMATCHED, session.scopes[0], 0);
    }
    connection.shared_endpoint != 0
}

/// Assigns a connection at a shared endpoint to its session, by its CompIDs. Returns the session and its
/// switches.
///
/// `undeclared` are the switches of the pseudo-session `undeclared`. `Err` is the verdict on the segment.
#[inline(always)]
pub(super) fn assign_session<E: Env>(
    env: &mut E,
    connection: &mut Connection,
    undeclared: Switches,
) -> Result<(E::Session, Switches), Verdict> {
    let Target::Shared { endpoint, mask } = Target::unpack(connection.shared_endpoint) else {
        return Err(Verdict::Unconfigured);
    };
    let mut comp_ids = connection.comp_ids;
    let mut i = 0;
    while i < comp_ids.len() {
        if mask >> i & 1 == 0 {
            comp_ids[i] = 0;
        }
        i += 1;
    }
    let number = env.session_by_comp_ids(endpoint, comp_ids);
    let session = env.session(number).ok_or(Verdict::Unconfigured)?;
    let wrong_user = session.flags & flag::MATCH_UID != 0 && session.uid != connection.uid;
    if number == 0 || wrong_user {
        let session = env.session(0).ok_or(Verdict::Unconfigured)?;
        return undeclared_verdict(env, connection).map_or(Ok((session, undeclared)), Err);
    }
    connection.session = number;
    let (history, switches) = (env.history(&session), env.switches(&session));
    let opened_ns = if connection.opened == 1 { connection.opened_ns } else { session.declared_ns };
    let is_current = is_before(history.raised_ns, opened_ns);
    connection.epoch = if is_current { switches.epoch } else { Connection::FENCE_PENDING };
    if is_current && switches.causes != 0 && env.is_isolated(session.scopes[0], history.resets) {
        return Err(Verdict::Tripped);
    }
    Ok((session, switches))
}

/// Maximum number of unread orders before the first message, by the count of bytes.
///
/// The number leaves room for a PROXY protocol header before the Logon: at most 107 bytes in version 1 and
/// 232 bytes in version 2 (haproxy's proxy-protocol.txt).
const MAX_UNREAD: u32 = 4;

/// Returns the verdict on a segment with unread bytes before the first message at a shared endpoint.
///
/// The connection may belong to any session of the endpoint. `None` if all sessions pass the segment.
#[inline(always)]
pub(super) fn unidentified_verdict<E: Env>(env: &mut E, connection: &mut Connection) -> Option<Verdict> {
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

/// Returns true if a required CompID differs.
#[inline(always)]
fn differ(required: &[u32; 4], found: &[u32; 4]) -> bool {
    let mut i = 0;
    let mut differ = false;
    while i < 4 {
        differ |= required[i] != 0 && required[i] != found[i];
        i += 1;
    }
    differ
}

/// Returns the verdict on the first message of an undeclared connection.
///
/// `None` if the connection counts for the pseudo-session `undeclared`.
#[inline(always)]
fn undeclared_verdict<E: Env>(env: &mut E, connection: &mut Connection) -> Option<Verdict> {
    let policy = env.undeclared();
    if policy == undeclared::IGNORE {
        connection.session = Connection::IGNORED;
        return Some(Verdict::Ignored);
    }
    env.emit(kind::UNDECLARED, HOST, 0);
    // An unknown code blocks, like BLOCK: the program fails closed.
    (policy != undeclared::WATCH).then_some(Verdict::Undeclared)
}

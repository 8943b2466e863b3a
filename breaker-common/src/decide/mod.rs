//! The verdict on a segment: one function for the kernel program, the tests and captures.

mod env;
mod epoch;
mod events;
mod identity;
mod limits;
mod observe;
mod read;
mod segment;
mod switches;
mod verdict;

use core::hint::cold_path;

use crate::abi::{Connection, kind, undeclared};
use crate::message::want;

use epoch::{assign_epoch, declared_session, is_guarded, is_isolated};
use events::fence;
use identity::{assign_session, awaits_identity, record_comp_ids, unidentified_verdict};
use limits::apply_limits;
use read::read_new_bytes;

pub use env::Env;
pub use limits::allowed_while_tripped;
pub use observe::observe;
pub use segment::{ACK, FIN, RST, SYN, Segment, URG};
pub use switches::{HOST, ScopeHistory, SharedEndpointState, Switches};
pub use verdict::Verdict;

/// Decides on an outbound segment and updates the state of its connection.
#[inline(always)]
pub fn decide<E: Env>(env: &mut E, connection: &mut Connection, segment: &Segment) -> Verdict {
    let verdict = evaluate(env, connection, segment);
    if verdict.withheld() && !verdict.spares_connection() {
        cold_path();
        record_withheld(connection, segment.seq);
        if let Some(session) = env.session(connection.session) {
            env.set_withheld_time(session.scopes[0]);
        }
        if connection.epoch != Connection::FENCED {
            fence(env, connection, verdict);
        }
    }
    verdict
}

/// Records the lowest withheld sequence number, which the peer expects next.
///
/// Segments may be reordered. A peer ignores a reset at a later sequence number (RFC 5961, section 3.2), so a
/// lower one requires a new reset.
#[inline(always)]
fn record_withheld(connection: &mut Connection, seq: u32) {
    if connection.withheld == 0 || (seq.wrapping_sub(connection.withheld_seq) as i32) < 0 {
        (connection.withheld, connection.withheld_seq, connection.peer_notified) = (1, seq, 0);
    }
}

/// Returns the verdict on a segment. [`decide`] then fences the connection if necessary.
#[inline(always)]
fn evaluate<E: Env>(env: &mut E, connection: &mut Connection, segment: &Segment) -> Verdict {
    let Some(mut session) = declared_session(env, connection) else { return Verdict::Unconfigured };
    let mut switches = env.switches(&session);
    // At a shared endpoint the session is unknown until the Logon, so the Logon is withheld instead of the
    // SYN.
    let shared = connection.shared_endpoint != 0;
    if connection.epoch >= Connection::JOINED && connection.epoch != Connection::FENCED {
        cold_path();
        assign_epoch(env, &session, connection, switches);
    }
    if segment.flags & SYN != 0 && switches.causes != 0 && !shared && is_isolated(env, &session) {
        cold_path();
        return Verdict::Isolated;
    }
    if segment.flags & (FIN | RST) != 0 {
        cold_path();
        connection.closed_ns = env.now();
    }
    // The later fragments have no TCP header, so no session can be found for them.
    if segment.fragment
        && connection.session | connection.shared_endpoint != 0
        && env.armed(session.scopes[0])
    {
        cold_path();
        return Verdict::Fragmented;
    }
    if segment.length == 0 {
        return Verdict::Control;
    }
    if connection.epoch != switches.epoch {
        cold_path();
        // A trip does not fence a connection that has not proved to be FIX yet.
        if connection.pending != Connection::CANDIDATE {
            return Verdict::Fenced;
        }
    }
    let identifies = awaits_identity(&session, connection);
    let any = match (identifies, shared) {
        (true, true) => want::IDENTITY | want::OWNER,
        (true, false) => want::IDENTITY,
        (false, _) => 0,
    };
    // Orders of a guarded session may follow the identifying message in the same segment.
    let orders = if any & want::OWNER != 0 || is_guarded(&session, switches) { want::POSSDUP } else { 0 };
    if let Some(verdict) = read_new_bytes(env, &session, connection, segment, (any, orders)) {
        return verdict;
    }
    if connection.pending != 0 {
        cold_path();
        if connection.pending == Connection::CANDIDATE {
            match confirm_fix(env, connection) {
                Some(verdict) => return verdict,
                None if connection.epoch != switches.epoch => return Verdict::Fenced,
                None => return apply_limits(env, &session, connection, switches.causes),
            }
        }
        if identifies && record_comp_ids(env, &session, connection) {
            match assign_session(env, connection, switches) {
                Ok(found) => (session, switches) = found,
                Err(verdict) => return verdict,
            }
            if connection.epoch != switches.epoch {
                return Verdict::Fenced;
            }
            if !is_guarded(&session, switches) {
                env.counts().replays = 0;
            }
        } else if identifies
            && shared
            && let Some(verdict) = unidentified_verdict(env, connection)
        {
            return verdict;
        }
    }
    apply_limits(env, &session, connection, switches.causes)
}

/// Returns the verdict on a candidate that proves not to be FIX, or that is blocked. `None` for a watched FIX
/// flow.
#[inline(always)]
fn confirm_fix<E: Env>(env: &mut E, connection: &mut Connection) -> Option<Verdict> {
    if env.counts().desyncs != 0 {
        connection.session = Connection::IGNORED;
        return Some(Verdict::Ignored);
    }
    if env.counts().messages.iter().all(|count| *count == 0) {
        return Some(Verdict::Ignored);
    }
    connection.pending = 0;
    env.emit(kind::UNDECLARED, HOST, 0);
    (env.undeclared() == undeclared::BLOCK).then_some(Verdict::Undeclared)
}

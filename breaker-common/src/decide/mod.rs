//! The verdict on a segment: one function, the same in the kernel, in tests and on captures.

mod env;
mod identity;
mod observe;
mod segment;
mod verdict;

use core::hint::cold_path;

use crate::abi::{Connection, Session, cause, flag, kind, sync, undeclared, while_tripped};
use crate::counts::SegmentCounts;
use crate::limits::{self, LimitExceeded};
use crate::message::{Class, want};
use crate::sequence::Arrival;

use identity::{assign_session, awaits_identity, record_comp_ids, unidentified_verdict};

pub use env::{Env, ScopeHistory, SharedEndpointState, Switches};
pub use observe::observe;
pub use segment::{ACK, FIN, RST, SYN, Segment, URG};
pub use verdict::Verdict;

/// Decides on a segment, and brings the state of its connection up to date.
#[inline(always)]
pub fn decide<W: Env>(env: &mut W, connection: &mut Connection, segment: &Segment) -> Verdict {
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

/// Notes what the peer waits for: the first byte of what is withheld. Segments may come in another order, and one from further ahead
/// tells nothing (RFC 5961, 3.2): then the peer must be told again.
#[inline(always)]
fn record_withheld(connection: &mut Connection, seq: u32) {
    if connection.withheld == 0 || (seq.wrapping_sub(connection.withheld_seq) as i32) < 0 {
        (connection.withheld, connection.withheld_seq, connection.peer_notified) = (1, seq, 0);
    }
}

#[inline(always)]
fn evaluate<W: Env>(env: &mut W, connection: &mut Connection, segment: &Segment) -> Verdict {
    let Some(mut session) = session_of(env, connection) else { return Verdict::Unconfigured };
    let mut switches = env.switches(&session);
    // Where its Logon must tell whose it is, the Logon is what can be withheld.
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
    // A first fragment may hold the header alone. Its payload is in others, which no header tells whose they are.
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
        // What has not shown yet that it is FIX may be anybody's: no trip is of it.
        if connection.pending != Connection::CANDIDATE {
            return Verdict::Fenced;
        }
    }
    let asked = awaits_identity(&session, connection);
    let any = match (asked, shared) {
        (true, true) => want::IDENTITY | want::OWNER,
        (true, false) => want::IDENTITY,
        (false, _) => 0,
    };
    // Behind the message that tells whose it is there may be orders of a session that is guarded.
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
        if asked && record_comp_ids(env, &session, connection) {
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
        } else if asked
            && shared
            && let Some(verdict) = unidentified_verdict(env, connection)
        {
            return verdict;
        }
    }
    apply_limits(env, &session, connection, switches.causes)
}

/// Gives a connection its epoch, at its first segment: that of its scopes now, or where its SYN was not seen and one of them has tripped
/// since the session was declared, one that fences it.
#[inline(always)]
fn assign_epoch<W: Env>(env: &mut W, session: &Session, connection: &mut Connection, switches: Switches) {
    connection.epoch = match connection.epoch {
        Connection::JOINED if !is_newer_than_trips(env, session, connection) => Connection::FENCE_PENDING,
        _ => switches.epoch,
    };
    if connection.opened == 1 && connection.shared_endpoint != 0 {
        connection.opened_ns = env.now();
    }
}

/// Whether nothing has tripped since a connection was joined that might be its: of its session, or of any at its place.
#[inline(always)]
fn is_newer_than_trips<W: Env>(env: &mut W, session: &Session, connection: &Connection) -> bool {
    let history = env.history(session).raised_ns;
    let endpoint_state = if connection.shared_endpoint != 0 {
        env.shared_endpoint_state(connection.shared_endpoint).raised_ns
    } else {
        0
    };
    is_before(history, session.declared_ns) && is_before(endpoint_state, session.declared_ns)
}

/// Whether a scope was last tripped or reset before this moment, if ever.
#[inline(always)]
fn is_before(raised_ns: u64, moment_ns: u64) -> bool {
    raised_ns == 0 || raised_ns < moment_ns
}

/// Whether a flow that began like FIX has turned out to be none, or to be blocked.
#[inline(always)]
fn confirm_fix<W: Env>(env: &mut W, connection: &mut Connection) -> Option<Verdict> {
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

/// The session of a connection. One that the policy in force no longer declares leaves its connections undeclared.
#[inline(always)]
fn session_of<W: Env>(env: &mut W, connection: &mut Connection) -> Option<W::Session> {
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

/// Whether orders with PossDupFlag(43)=Y are withheld. While its epoch is that at which the agent's day began, nothing has tripped since.
#[inline(always)]
fn is_guarded(session: &Session, switches: Switches) -> bool {
    session.flags & flag::REPLAYS_PASS == 0 && switches.epoch != session.day_epoch
}

/// Whether a new connection of a tripped session may not even open.
#[inline(always)]
fn is_isolated<W: Env>(env: &mut W, session: &Session) -> bool {
    let resets = env.history(session).resets;
    session.while_tripped == while_tripped::ISOLATE || env.is_isolated(session.scopes[0], resets)
}

/// Fences a connection for good, and tells of it. It is as good as closed: its socket is reset, or dies of silence.
#[inline(always)]
fn fence<W: Env>(env: &mut W, connection: &mut Connection, verdict: Verdict) {
    connection.epoch = Connection::FENCED;
    connection.closed_ns = env.now();
    let Some(session) = env.session(connection.session) else { return };
    let own = session.scopes[0];
    env.emit(kind::FENCED, own, 0);
    let switches = env.switches(&session);
    if switches.causes != 0 {
        // One that a trip or a reset has made old is one of all those; an order of its own is the connection's alone.
        let raised = if verdict == Verdict::Tripped { 0 } else { switches.epoch };
        let resets = env.history(&session).resets;
        env.record_fence(own, raised, resets);
    }
}

/// Tells of something that a connection may do again and again: of the first few times, and then ever more rarely.
#[inline(always)]
fn emit_rate_limited<W: Env>(env: &mut W, connection: &mut Connection, kind: u32, scope: u32) {
    const FEW: u32 = 4;
    connection.event_count = connection.event_count.saturating_add(1);
    let count = connection.event_count;
    if count <= FEW || count & (count - 1) == 0 {
        env.emit(kind, scope, count);
    }
}

/// Reads what is new in a segment. Returns the verdict where that is not to be judged by what it holds.
#[inline(always)]
fn read_new_bytes<W: Env>(
    env: &mut W,
    session: &Session,
    connection: &mut Connection,
    segment: &Segment,
    want: (u32, u32),
) -> Option<Verdict> {
    let seq = segment.seq.wrapping_add((segment.flags & SYN != 0) as u32);
    let opened = connection.opened == 1;
    let stream = &mut connection.stream;
    // What is disarmed withholds nothing.
    let withholds = stream.is_out_of_order(seq) && env.armed(session.scopes[0]);
    let from = match stream.advance(seq, segment.length, opened, withholds, env.counts()) {
        Arrival::New(from) => from,
        Arrival::Repeated => {
            let counts = env.counts();
            // What is sent again from pages that may be changed may be something else by now. Without a branch, each way behind which the
            // verifier would follow anew.
            counts.blind_bytes |= segment.length & (segment.shared_pages as u32).wrapping_neg();
            if counts.blind_bytes == 0 {
                return None;
            }
            // Its bytes are counted already.
            segment.length
        }
        Arrival::Ahead => return Some(Verdict::Ahead),
        Arrival::Foreign => return Some(Verdict::Foreign),
    };
    if session.flags & flag::OPAQUE != 0 {
        let wire_segments = env.wire_segments(segment);
        let counts = env.counts();
        counts.messages[Class::Order as usize] = wire_segments;
        (counts.desyncs, counts.blind_bytes) = (0, 0);
        return None;
    }
    if segment.is_unreadable() {
        cold_path();
        stream.framing.mark_blind((from, segment.length), env.counts());
    } else if from < segment.length {
        env.walk(&mut stream.framing, (from, segment.length), session.longest, want);
    }
    let lost = stream.framing.sync != sync::IN_SYNC;
    if lost || env.counts().blind_bytes != 0 || connection.blind != 0 {
        cold_path();
        count_blind_bytes(env, session, connection, lost);
    }
    None
}

/// Counts the bytes of a segment that could not be read, and tells where the stream becomes blind or is no longer.
#[inline(always)]
fn count_blind_bytes<W: Env>(env: &mut W, session: &Session, connection: &mut Connection, lost: bool) {
    let counts = env.counts();
    counts.unread = (lost || counts.blind_bytes != 0) as u32;
    if session.flags & flag::BLIND_UNCOUNTED == 0 {
        let orders = counts.blind_orders();
        counts.messages[Class::Order as usize] = counts.messages[Class::Order as usize].wrapping_add(orders);
    } else {
        counts.recounted_orders = counts.blind_bytes;
    }
    if lost as u32 != connection.blind {
        connection.blind = lost as u32;
        emit_rate_limited(env, connection, if lost { kind::BLIND } else { kind::SIGHTED }, session.scopes[0]);
    }
}

/// Weighs what was read.
#[inline(always)]
fn apply_limits<W: Env>(env: &mut W, session: &Session, connection: &mut Connection, causes: u64) -> Verdict {
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
        // A connection that never was followed says nothing of the session: anyone may open one. It ends alone.
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

/// The number of the host's scope.
pub const HOST: u32 = 0;

/// True where a segment adds no risk, by what the policy lets pass while tripped. What could not be read may be anything.
#[inline(always)]
fn allowed_while_tripped(session: &Session, counts: &SegmentCounts) -> bool {
    let adds_risk = counts.class_count(Class::Order)
        | counts.class_count(Class::Interest)
        | counts.desyncs
        | counts.unread;
    let not_admin = adds_risk | counts.class_count(Class::Cancel) | counts.class_count(Class::Query);
    match session.while_tripped {
        while_tripped::REDUCE_ONLY => adds_risk == 0,
        while_tripped::ADMIN_ONLY => not_admin == 0,
        // Isolated, or a code that no version knows: closed.
        _ => false,
    }
}

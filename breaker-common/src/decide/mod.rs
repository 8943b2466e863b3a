//! The verdict on a segment: one function, the same in the kernel, in tests and on captures.

mod identity;
mod observe;
mod segment;
mod verdict;
mod world;

use core::hint::cold_path;

use bytemuck::Zeroable;

use crate::abi::{Connection, Session, cause, flag, kind, while_tripped};
use crate::class::Class;
use crate::fields::want;
use crate::limits::{self, Passed};
use crate::stream::{Framing, Fresh, Stream, Tally, sync};

use identity::{introduce, is_asked, settle};

pub use observe::observe;
pub use segment::{FIN, RST, SYN, Segment};
pub use verdict::Verdict;
pub use world::{Past, Switches, World};

/// Decides on a segment, and brings the state of its connection up to date.
#[inline(always)]
pub fn decide<W: World>(world: &mut W, connection: &mut Connection, segment: &Segment) -> Verdict {
    let verdict = deliberate(world, connection, segment);
    if verdict.withheld() && verdict != Verdict::Isolated {
        cold_path();
        withhold(connection, segment.seq);
        if connection.epoch != Connection::FENCED {
            fence(world, connection, verdict);
        }
    }
    verdict
}

/// Notes what the peer waits for: the first byte of what is withheld. Segments may come in another order, and one from further ahead
/// tells nothing (RFC 5961, 3.2): then the peer must be told again.
#[inline(always)]
fn withhold(connection: &mut Connection, seq: u32) {
    if connection.withheld == 0 || (seq.wrapping_sub(connection.withheld_seq) as i32) < 0 {
        (connection.withheld, connection.withheld_seq, connection.told) = (1, seq, 0);
    }
}

#[inline(always)]
fn deliberate<W: World>(world: &mut W, connection: &mut Connection, segment: &Segment) -> Verdict {
    let Some(mut session) = owner(world, connection) else { return Verdict::Unconfigured };
    let mut switches = world.switches(&session);
    // Where its Logon must tell whose it is, the Logon is what can be withheld.
    let shared = connection.place != 0;
    if connection.epoch == Connection::NEW {
        cold_path();
        connection.epoch = switches.epoch;
        if shared {
            connection.opened_ns = world.now();
        }
    }
    if segment.flags & SYN != 0 && switches.causes != 0 && !shared && is_isolated(world, &session) {
        cold_path();
        return Verdict::Isolated;
    }
    if segment.flags & (FIN | RST) != 0 {
        cold_path();
        connection.closed_ns = world.now();
    }
    if segment.length == 0 {
        return Verdict::Control;
    }
    if connection.epoch != switches.epoch {
        cold_path();
        return Verdict::Fenced;
    }
    let asked = is_asked(&session, connection);
    let any = match (asked, shared) {
        (true, true) => want::IDENTITY | want::OWNER,
        (true, false) => want::IDENTITY,
        (false, _) => 0,
    };
    // Behind the message that tells whose it is there may be orders of a session that is guarded.
    let orders = if any & want::OWNER != 0 || is_guarded(&session, switches) { want::POSSDUP } else { 0 };
    read(world, &session, &mut connection.stream, segment, any, orders);
    if asked && introduce(world, &session, connection) {
        cold_path();
        match settle(world, connection, switches) {
            Ok(found) => (session, switches) = found,
            Err(verdict) => return verdict,
        }
        if connection.epoch != switches.epoch {
            return Verdict::Fenced;
        }
        if !is_guarded(&session, switches) {
            world.tally().replays = 0;
        }
    }
    weigh(world, &session, switches.causes)
}

/// The session of a connection. One that the policy in force no longer declares leaves its connections undeclared.
#[inline(always)]
fn owner<W: World>(world: &mut W, connection: &mut Connection) -> Option<W::Session> {
    let session = world.session(connection.session)?;
    if session.scope_count != 0 {
        return Some(session);
    }
    cold_path();
    connection.session = 0;
    if connection.epoch != Connection::FENCED {
        connection.epoch = Connection::NEW;
    }
    world.session(0)
}

/// Whether orders with PossDupFlag(43)=Y are withheld. While its epoch is that at which the agent's day began, nothing has tripped since.
#[inline(always)]
fn is_guarded(session: &Session, switches: Switches) -> bool {
    session.flags & flag::REPLAYS_PASS == 0 && switches.epoch != session.day_epoch
}

/// Whether a new connection of a tripped session may not even open.
#[inline(always)]
fn is_isolated<W: World>(world: &mut W, session: &Session) -> bool {
    let resets = world.past(session).resets;
    session.while_tripped == while_tripped::ISOLATE || world.isolated(session.scopes[0], resets)
}

/// Fences a connection for good, and tells of it. It is as good as closed: its socket is reset, or dies of silence.
#[inline(always)]
fn fence<W: World>(world: &mut W, connection: &mut Connection, verdict: Verdict) {
    connection.epoch = Connection::FENCED;
    connection.closed_ns = world.now();
    let Some(session) = world.session(connection.session) else { return };
    let own = session.scopes[0];
    world.tell(kind::FENCED, own);
    let switches = world.switches(&session);
    if switches.causes != 0 {
        // One that a trip or a reset has made old is one of all those; an order of its own is the connection's alone.
        let raised = if verdict == Verdict::Tripped { 0 } else { switches.epoch };
        let resets = world.past(&session).resets;
        world.fence(own, raised, resets);
    }
}

/// Reads what is new in a segment.
#[inline(always)]
fn read<W: World>(world: &mut W, session: &Session, stream: &mut Stream, segment: &Segment, any: u32, orders: u32) {
    let seq = segment.seq.wrapping_add((segment.flags & SYN != 0) as u32);
    let fresh = stream.advance(seq, segment.length, world.tally());
    if session.flags & flag::OPAQUE != 0 {
        let wire_segments = world.wire_segments(segment);
        let tally = world.tally();
        // Late bytes that were never seen are orders too; that they cannot be walked is no loss, for none of it can.
        if fresh.is_some() || tally.desyncs != 0 {
            tally.messages[Class::Order as usize] = wire_segments;
        }
        tally.desyncs = 0;
        return;
    }
    let Some(fresh) = fresh else { return };
    walk(world, stream, segment, &fresh, any, orders);
    world.tally().unread = (stream.framing.synced != sync::YES) as u32;
}

/// Walks over the new bytes of a segment, in the hole or behind it.
#[inline(always)]
fn walk<W: World>(world: &mut W, stream: &mut Stream, segment: &Segment, fresh: &Fresh, any: u32, orders: u32) {
    if segment.fragment {
        cold_path();
        stream.framing = Framing { synced: sync::LOST, ..Framing::zeroed() };
        world.tally().desyncs = 1;
    } else if fresh.late {
        cold_path();
        world.walk(&mut stream.hole.framing, fresh, any, orders);
    } else {
        world.walk(&mut stream.framing, fresh, any, orders);
    }
}

/// Weighs what was read.
#[inline(always)]
fn weigh<W: World>(world: &mut W, session: &Session, causes: u64) -> Verdict {
    const OF_NO_LIMIT: Passed = Passed { scope: 0, limit: 0, used: 0 };
    let (desyncs, replays) = (world.tally().desyncs, world.tally().replays);
    let own = session.scopes[0];
    if desyncs != 0 {
        cold_path();
        world.tell(kind::DESYNCED, own);
    }
    if causes != 0 && !harmless(session, world.tally()) {
        cold_path();
        return Verdict::Tripped;
    }
    if desyncs != 0 && session.flags & flag::DESYNC_TRIPS != 0 && world.armed(own) {
        world.trip(own, cause::DESYNC, OF_NO_LIMIT);
        return Verdict::Desync;
    }
    if replays != 0 {
        cold_path();
        world.tell(kind::REPLAYED, own);
        if world.armed(own) {
            world.trip(own, cause::REPLAY, OF_NO_LIMIT);
            return Verdict::Replay;
        }
    }
    if world.tally().sum_up() == 0 {
        return Verdict::Passed;
    }
    if causes & cause::DEADMAN == 0
        && let Some(trips) = world.silence(session)
    {
        cold_path();
        world.tell_silence();
        if trips && world.armed(HOST) {
            world.trip(HOST, cause::DEADMAN, OF_NO_LIMIT);
            return Verdict::Deadman;
        }
    }
    match limits::charge(session, world) {
        None => Verdict::Passed,
        Some(passed) => {
            cold_path();
            world.trip(passed.scope, cause::RATE, passed);
            Verdict::Limit
        }
    }
}

/// The number of the host's scope.
pub const HOST: u32 = 0;

/// True where a segment adds no risk, by what the policy lets pass while tripped. What could not be read may be anything.
#[inline(always)]
fn harmless(session: &Session, tally: &Tally) -> bool {
    let adds_risk = tally.of(Class::Order) | tally.of(Class::Interest) | tally.desyncs | tally.unread;
    let not_admin = adds_risk | tally.of(Class::Cancel) | tally.of(Class::Query);
    match session.while_tripped {
        while_tripped::REDUCE_ONLY => adds_risk == 0,
        while_tripped::ADMIN_ONLY => not_admin == 0,
        // Isolated, or a code that no version knows: closed.
        _ => false,
    }
}

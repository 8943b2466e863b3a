//! The verdict on a segment: one function, the same in the kernel, in tests and on captures.

mod identity;
mod observe;
mod segment;
mod verdict;
mod world;

use core::hint::cold_path;

use crate::abi::{Connection, Session, cause, flag, kind, undeclared, while_tripped};
use crate::class::Class;
use crate::fields::want;
use crate::limits::{self, Passed};
use crate::sequence::Arrival;
use crate::stream::{Tally, sync};

use identity::{introduce, is_asked, settle, unidentified};

pub use observe::observe;
pub use segment::{ACK, FIN, RST, SYN, Segment, URG};
pub use verdict::Verdict;
pub use world::{AtPlace, Past, Switches, World};

/// Decides on a segment, and brings the state of its connection up to date.
#[inline(always)]
pub fn decide<W: World>(world: &mut W, connection: &mut Connection, segment: &Segment) -> Verdict {
    let verdict = deliberate(world, connection, segment);
    if verdict.withheld() && !verdict.spares_connection() {
        cold_path();
        withhold(connection, segment.seq);
        if let Some(session) = world.session(connection.session) {
            world.note_withheld(session.scopes[0]);
        }
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
    if connection.epoch >= Connection::JOINED && connection.epoch != Connection::FENCED {
        cold_path();
        begin(world, &session, connection, switches);
    }
    if segment.flags & SYN != 0 && switches.causes != 0 && !shared && is_isolated(world, &session) {
        cold_path();
        return Verdict::Isolated;
    }
    if segment.flags & (FIN | RST) != 0 {
        cold_path();
        connection.closed_ns = world.now();
    }
    // A first fragment may hold the header alone. Its payload is in others, which no header tells whose they are.
    if segment.fragment && connection.session | connection.place != 0 && world.armed(session.scopes[0]) {
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
    let asked = is_asked(&session, connection);
    let any = match (asked, shared) {
        (true, true) => want::IDENTITY | want::OWNER,
        (true, false) => want::IDENTITY,
        (false, _) => 0,
    };
    // Behind the message that tells whose it is there may be orders of a session that is guarded.
    let orders = if any & want::OWNER != 0 || is_guarded(&session, switches) { want::POSSDUP } else { 0 };
    if let Some(verdict) = read(world, &session, connection, segment, (any, orders)) {
        return verdict;
    }
    if connection.pending != 0 {
        cold_path();
        if connection.pending == Connection::CANDIDATE {
            match confirm(world, connection) {
                Some(verdict) => return verdict,
                None if connection.epoch != switches.epoch => return Verdict::Fenced,
                None => return weigh(world, &session, connection, switches.causes),
            }
        }
        if asked && introduce(world, &session, connection) {
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
        } else if asked
            && shared
            && let Some(verdict) = unidentified(world, connection)
        {
            return verdict;
        }
    }
    weigh(world, &session, connection, switches.causes)
}

/// Gives a connection its epoch, at its first segment: that of its scopes now, or where its SYN was not seen and one of them has tripped
/// since the session was declared, one that fences it.
#[inline(always)]
fn begin<W: World>(world: &mut W, session: &Session, connection: &mut Connection, switches: Switches) {
    connection.epoch = match connection.epoch {
        Connection::JOINED if !is_young(world, session, connection) => Connection::OLD,
        _ => switches.epoch,
    };
    if connection.opened == 1 && connection.place != 0 {
        connection.opened_ns = world.now();
    }
}

/// Whether nothing has tripped since a connection was joined that might be its: of its session, or of any at its place.
#[inline(always)]
fn is_young<W: World>(world: &mut W, session: &Session, connection: &Connection) -> bool {
    let past = world.past(session).raised_ns;
    let at_place = if connection.place != 0 { world.at_place(connection.place).raised_ns } else { 0 };
    is_before(past, session.declared_ns) && is_before(at_place, session.declared_ns)
}

/// Whether a scope was last tripped or reset before this moment, if ever.
#[inline(always)]
fn is_before(raised_ns: u64, moment_ns: u64) -> bool {
    raised_ns == 0 || raised_ns < moment_ns
}

/// Whether a flow that began like FIX has turned out to be none, or to be blocked.
#[inline(always)]
fn confirm<W: World>(world: &mut W, connection: &mut Connection) -> Option<Verdict> {
    if world.tally().desyncs != 0 {
        connection.session = Connection::IGNORED;
        return Some(Verdict::Ignored);
    }
    if world.tally().messages.iter().all(|count| *count == 0) {
        return Some(Verdict::Ignored);
    }
    connection.pending = 0;
    world.tell(kind::UNDECLARED, HOST, 0);
    (world.undeclared() == undeclared::BLOCK).then_some(Verdict::Undeclared)
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
    world.tell(kind::FENCED, own, 0);
    let switches = world.switches(&session);
    if switches.causes != 0 {
        // One that a trip or a reset has made old is one of all those; an order of its own is the connection's alone.
        let raised = if verdict == Verdict::Tripped { 0 } else { switches.epoch };
        let resets = world.past(&session).resets;
        world.fence(own, raised, resets);
    }
}

/// Tells of something that a connection may do again and again: of the first few times, and then ever more rarely.
#[inline(always)]
fn tell_some<W: World>(world: &mut W, connection: &mut Connection, kind: u32, scope: u32) {
    const FEW: u32 = 4;
    connection.events = connection.events.saturating_add(1);
    let count = connection.events;
    if count <= FEW || count & (count - 1) == 0 {
        world.tell(kind, scope, count);
    }
}

/// Reads what is new in a segment. Returns the verdict where that is not to be judged by what it holds.
#[inline(always)]
fn read<W: World>(
    world: &mut W,
    session: &Session,
    connection: &mut Connection,
    segment: &Segment,
    want: (u32, u32),
) -> Option<Verdict> {
    let seq = segment.seq.wrapping_add((segment.flags & SYN != 0) as u32);
    let opened = connection.opened == 1;
    let stream = &mut connection.stream;
    // What is disarmed withholds nothing.
    let withholds = stream.is_out_of_place(seq) && world.armed(session.scopes[0]);
    let from = match stream.advance(seq, segment.length, opened, withholds, world.tally()) {
        Arrival::New(from) => from,
        Arrival::Repeated => {
            let tally = world.tally();
            // What is sent again from pages that may be changed may be something else by now. Without a branch, each way behind which the
            // verifier would follow anew.
            tally.blind |= segment.length & (segment.shared as u32).wrapping_neg();
            if tally.blind == 0 {
                return None;
            }
            // Its bytes are counted already.
            segment.length
        }
        Arrival::Ahead => return Some(Verdict::Ahead),
        Arrival::Foreign => return Some(Verdict::Foreign),
    };
    if session.flags & flag::OPAQUE != 0 {
        let wire_segments = world.wire_segments(segment);
        let tally = world.tally();
        tally.messages[Class::Order as usize] = wire_segments;
        (tally.desyncs, tally.blind) = (0, 0);
        return None;
    }
    if segment.is_unreadable() {
        cold_path();
        stream.framing.unreadable((from, segment.length), world.tally());
    } else if from < segment.length {
        world.walk(&mut stream.framing, (from, segment.length), session.longest, want);
    }
    let lost = stream.framing.synced != sync::YES;
    if lost || world.tally().blind != 0 || connection.blind != 0 {
        cold_path();
        look_away(world, session, connection, lost);
    }
    None
}

/// Counts the bytes of a segment that could not be read, and tells where the stream becomes blind or is no longer.
#[inline(always)]
fn look_away<W: World>(world: &mut W, session: &Session, connection: &mut Connection, lost: bool) {
    let tally = world.tally();
    tally.unread = (lost || tally.blind != 0) as u32;
    if session.flags & flag::BLIND_UNCOUNTED == 0 {
        let orders = tally.blind_orders();
        tally.messages[Class::Order as usize] = tally.messages[Class::Order as usize].wrapping_add(orders);
    } else {
        tally.counted = tally.blind;
    }
    if lost as u32 != connection.blind {
        connection.blind = lost as u32;
        tell_some(world, connection, if lost { kind::BLIND } else { kind::SIGHTED }, session.scopes[0]);
    }
}

/// Weighs what was read.
#[inline(always)]
fn weigh<W: World>(world: &mut W, session: &Session, connection: &mut Connection, causes: u64) -> Verdict {
    const OF_NO_LIMIT: Passed = Passed { scope: 0, limit: 0, used: 0 };
    let (desyncs, replays) = (world.tally().desyncs, world.tally().replays);
    let own = session.scopes[0];
    if desyncs != 0 {
        cold_path();
        tell_some(world, connection, kind::DESYNCED, own);
    }
    if causes != 0 && !harmless(session, world.tally()) {
        cold_path();
        return Verdict::Tripped;
    }
    if desyncs != 0 && session.flags & flag::DESYNC_TRIPS != 0 && world.armed(own) {
        // A connection that never was followed says nothing of the session: anyone may open one. It ends alone.
        if connection.followed != 0 {
            world.trip(own, cause::DESYNC, OF_NO_LIMIT);
        }
        return Verdict::Desync;
    }
    if replays != 0 {
        cold_path();
        tell_some(world, connection, kind::REPLAYED, own);
        if world.armed(own) {
            world.trip(own, cause::REPLAY, OF_NO_LIMIT);
            return Verdict::Replay;
        }
    }
    if world.tally().sum_up() == 0 {
        return Verdict::Passed;
    }
    if connection.followed == 0 {
        cold_path();
        connection.followed = (world.tally().unread == 0) as u32;
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

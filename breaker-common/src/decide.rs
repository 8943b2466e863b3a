//! The verdict on a segment: one function, the same in the kernel, in tests and on captures.

use core::ops::Deref;

use bytemuck::Zeroable;

use crate::abi::{Connection, Counters, SCOPES_PER_SESSION, Session, Target, cause, flag, kind, reason, undeclared, while_tripped};
use crate::class::{Class, Incoming};
use crate::fields::want;
use crate::limits::{self, Charge, Passed};
use crate::stream::{Framing, Fresh, Stream, Tally, sync};

/// A TCP segment that a session sends, as its headers tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Sequence number of the segment: of its SYN where it has one, else of its first payload byte.
    pub seq: u32,
    /// Bytes of payload.
    pub length: u32,
    /// TCP flags as in byte 13 of the header (RFC 9293): [`FIN`], [`SYN`], [`RST`].
    pub flags: u8,
    /// It is the first of several IP fragments, so its payload is not whole.
    pub fragment: bool,
    /// Segments that it will leave as: `gso_segs`, at least 1.
    pub wire_segments: u32,
}

/// TCP flag: no more data from the sender.
pub const FIN: u8 = 0x01;
/// TCP flag: synchronise sequence numbers, the start of a connection.
pub const SYN: u8 = 0x02;
/// TCP flag: reset the connection.
pub const RST: u8 = 0x04;

/// What becomes of a segment, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has no payload and passes.
    Control,
    /// Its payload passes.
    Passed,
    /// Withheld: its connection is older than the last trip or reset, or something of it was withheld before.
    Fenced,
    /// Withheld: with it a limit would be passed. Its scope has tripped.
    Limit,
    /// Withheld: a scope is tripped, and the policy lets no such message pass meanwhile.
    Tripped,
    /// Withheld: SYN of a session that is cut off altogether while tripped.
    Isolated,
    /// Withheld: the stream cannot be followed, and the policy says to trip then.
    Desync,
    /// Withheld: it holds an order that a session repeats after a trip.
    Replay,
    /// Withheld: the agent is silent, and the policy says to trip then.
    Deadman,
    /// Withheld: its Logon is of no declared session, and the policy says to block that.
    Undeclared,
    /// It passes: its Logon is of no declared session, and the policy says not to look at that.
    Ignored,
    /// It passes: the maps do not say whose it is.
    Unconfigured,
}

impl Verdict {
    /// True where the segment must not leave.
    pub fn withheld(self) -> bool {
        match self {
            Self::Control | Self::Passed | Self::Ignored | Self::Unconfigured => false,
            Self::Fenced
            | Self::Limit
            | Self::Tripped
            | Self::Isolated
            | Self::Desync
            | Self::Replay
            | Self::Deadman
            | Self::Undeclared => true,
        }
    }

    /// The counter of packets that ended this way.
    pub fn reason(self) -> u32 {
        match self {
            Self::Control => reason::CONTROL,
            Self::Passed => reason::PASSED,
            Self::Fenced => reason::FENCED,
            Self::Limit => reason::LIMIT,
            Self::Tripped => reason::TRIPPED,
            Self::Isolated => reason::ISOLATED,
            Self::Desync => reason::DESYNC,
            Self::Replay => reason::REPLAY,
            Self::Deadman => reason::DEADMAN,
            Self::Undeclared => reason::UNDECLARED,
            Self::Ignored => reason::NOT_OURS,
            Self::Unconfigured => reason::NOT_CONFIGURED,
        }
    }
}

/// Switches of all scopes of a session, put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switches {
    /// Sum of the epochs: it changes whenever any of them does, for they only rise.
    pub epoch: u64,
    /// All causes.
    pub causes: u64,
}

/// What the scopes of a session tell beside: rarely asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Past {
    /// When the last of their epochs was raised, CLOCK_MONOTONIC, ns.
    pub raised_ns: u64,
    /// Sum of their resets.
    pub resets: u64,
}

/// What a decision asks of the place where it is made. Scopes and sessions are named by their number.
pub trait World: Charge {
    /// How a session is held.
    type Session: Deref<Target = Session>;
    /// A session of the policy in force, which all that is told is about from here on.
    fn session(&mut self, number: u32) -> Option<Self::Session>;
    /// The session at a shared place that shows these CompIDs; 0 where there is none.
    fn session_at(&mut self, place: u32, ids: [u32; 4]) -> u32;
    /// What becomes of FIX that no session declares: one of [`undeclared`].
    fn undeclared(&mut self) -> u32;
    /// Epoch sum and causes of a session.
    fn switches(&mut self, session: &Session) -> Switches;
    /// What else its scopes tell.
    fn past(&mut self, session: &Session) -> Past;
    /// Whether what is passed in a scope trips it.
    fn armed(&mut self, scope: u32) -> bool;
    /// What the segment has brought so far.
    fn tally(&mut self) -> &mut Tally;
    /// Reads the new bytes of the segment into the tally; looks for `any` in every message and for `orders` in orders ([`want`]).
    fn walk(&mut self, framing: &mut Framing, fresh: &Fresh, any: u32, orders: u32);
    /// Trips a scope and tells of it: [`crate::limits::trip`].
    fn trip(&mut self, scope: u32, cause: u64, passed: Passed);
    /// Tells of a change at a connection: one of [`kind`].
    fn tell(&mut self, kind: u32, scope: u32);
    /// Whether the agent has been silent for longer than the policy allows; and then, whether that trips the host.
    fn silence(&mut self) -> Option<bool>;
    /// Tells of that once, and not at each message.
    fn tell_silence(&mut self);
    /// Takes note of a fenced connection of a tripped session: [`crate::limits::fence`].
    fn fence(&mut self, scope: u32, raised: u64, resets: u64);
    /// Whether that has isolated it: [`crate::limits::isolated`].
    fn isolated(&mut self, scope: u32, resets: u64) -> bool;
    /// Counts fills for the limits of a scope that are ratios to them: [`crate::limits::fill`].
    fn fill(&mut self, scope: u32, fills: u64);
}

impl Connection {
    /// A connection that is not in the table yet, at a segment of it. `word` says whose it is ([`Target`]).
    ///
    /// Where its SYN was not seen it counts as epoch 0, which is live only where nothing has tripped yet, and its framing is not known.
    pub fn new(word: u32, segment: &Segment) -> Self {
        let (session, place) = match Target::unpack(word) {
            Target::Nobody => (0, 0),
            Target::Session(session) => (session, 0),
            Target::Shared { .. } => (0, word),
        };
        let known = Self { session, place, pending: 1, ..Self::zeroed() };
        if segment.flags & SYN == 0 {
            return Self { stream: Stream::joined(segment.seq), ..known };
        }
        let stream = Stream::at(segment.seq.wrapping_add(1));
        Self { epoch: Self::NEW, isn: segment.seq, opened: 1, stream, ..known }
    }

    /// A FIX flow that no session declares, at its first FIX byte: it is as old as that. Blocked (`blocked_ns` is not 0, but CLOCK_MONOTONIC),
    /// it is fenced from the start.
    pub fn undeclared(seq: u32, blocked_ns: u64) -> Self {
        let epoch = if blocked_ns != 0 { Self::FENCED } else { Self::NEW };
        Self { epoch, closed_ns: blocked_ns, stream: Stream::joined(seq), ..Self::zeroed() }
    }

    /// True where a SYN takes over the ports of an earlier connection. Not at its own SYN sent again: data may have been queued before
    /// a trip since. Not even behind a FIN, which the answering side of Fast Open may send while its SYN is still unacknowledged.
    #[inline(always)]
    pub fn is_reused(&self, segment: &Segment) -> bool {
        segment.flags & SYN != 0 && !(self.opened == 1 && self.isn == segment.seq)
    }
}

/// Decides on a segment, and brings the state of its connection up to date.
#[inline(always)]
pub fn decide<W: World>(world: &mut W, connection: &mut Connection, segment: &Segment) -> Verdict {
    let verdict = deliberate(world, connection, segment);
    if verdict.withheld() && verdict != Verdict::Isolated && connection.epoch != Connection::FENCED {
        fence(world, connection, verdict);
    }
    verdict
}

#[inline(always)]
fn deliberate<W: World>(world: &mut W, connection: &mut Connection, segment: &Segment) -> Verdict {
    let Some(mut session) = owner(world, connection) else { return Verdict::Unconfigured };
    let mut switches = world.switches(&session);
    if segment.flags & SYN != 0 && switches.causes != 0 && is_isolated(world, &session) {
        return Verdict::Isolated;
    }
    if connection.epoch == Connection::NEW {
        connection.epoch = switches.epoch;
        if connection.place != 0 {
            connection.opened_ns = world.now();
        }
    }
    if segment.flags & (FIN | RST) != 0 {
        connection.closed_ns = world.now();
    }
    if segment.length == 0 {
        return Verdict::Control;
    }
    if connection.epoch != switches.epoch {
        return Verdict::Fenced;
    }
    let asked = is_asked(&session, connection);
    // While its epoch is that at which the agent's day began, nothing has tripped since.
    let guarded = session.flags & flag::REPLAYS_PASS == 0 && switches.epoch != session.day_epoch;
    let (any, orders) = (if asked { want::IDENTITY } else { 0 }, if guarded { want::POSSDUP } else { 0 });
    read(world, &session, &mut connection.stream, segment, any, orders);
    if asked && introduce(world, &session, connection) {
        match settle(world, connection) {
            Ok(found) => session = found,
            Err(verdict) => return verdict,
        }
        switches = world.switches(&session);
        if connection.epoch != switches.epoch {
            return Verdict::Fenced;
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
    (connection.session, connection.epoch) = (0, Connection::NEW);
    world.session(0)
}

/// Whether a new connection of a tripped session may not even open.
#[inline(always)]
fn is_isolated<W: World>(world: &mut W, session: &Session) -> bool {
    let resets = world.past(session).resets;
    session.while_tripped == while_tripped::ISOLATE || world.isolated(session.scopes[0], resets)
}

/// Whether the first message of a connection is awaited, to tell or to confirm whose it is.
#[inline(always)]
fn is_asked(session: &Session, connection: &mut Connection) -> bool {
    if connection.pending != 0 && connection.place == 0 && session.ids == [0; 4] {
        connection.pending = 0;
    }
    connection.pending != 0
}

/// Takes note of the CompIDs that a connection shows, and compares them where it is known whose it is. True once it must be found out.
#[inline(always)]
fn introduce<W: World>(world: &mut W, session: &Session, connection: &mut Connection) -> bool {
    let (shown, identified, desyncs) = {
        let tally = world.tally();
        (tally.ids, tally.identified, tally.desyncs)
    };
    let mut i = 0;
    while i < shown.len() {
        if shown[i] != 0 {
            connection.ids[i] = shown[i];
        }
        i += 1;
    }
    if identified == 0 && desyncs == 0 {
        return false;
    }
    connection.pending = 0;
    if connection.place == 0 && identified != 0 && differ(&session.ids, &connection.ids) {
        world.tell(kind::MISMATCHED, session.scopes[0]);
    }
    connection.place != 0
}

/// The session that a connection to a shared place is, by the CompIDs that it has shown.
#[inline(always)]
fn settle<W: World>(world: &mut W, connection: &mut Connection) -> Result<W::Session, Verdict> {
    let Target::Shared { place, mask } = Target::unpack(connection.place) else { return Err(Verdict::Unconfigured) };
    let mut ids = connection.ids;
    let mut i = 0;
    while i < ids.len() {
        if mask >> i & 1 == 0 {
            ids[i] = 0;
        }
        i += 1;
    }
    let number = world.session_at(place, ids);
    let session = world.session(number).ok_or(Verdict::Unconfigured)?;
    if number == 0 {
        return stranger(world, connection).map_or(Ok(session), Err);
    }
    connection.session = number;
    // Its SYN was before it was known which trips concern it.
    let young = connection.opened == 1 && world.past(&session).raised_ns < connection.opened_ns;
    connection.epoch = if young { world.switches(&session).epoch } else { 0 };
    Ok(session)
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
fn stranger<W: World>(world: &mut W, connection: &mut Connection) -> Option<Verdict> {
    let policy = world.undeclared();
    if policy == undeclared::IGNORE {
        connection.session = Connection::IGNORED;
        return Some(Verdict::Ignored);
    }
    world.tell(kind::UNDECLARED, HOST);
    // Block, or a code that no version knows: closed.
    (policy != undeclared::WATCH).then_some(Verdict::Undeclared)
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
        let tally = world.tally();
        // Late bytes that were never seen are orders too; that they cannot be walked is no loss, for none of it can.
        if fresh.is_some() || tally.desyncs != 0 {
            tally.messages[Class::Order as usize] = segment.wire_segments;
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
        stream.framing = Framing { synced: sync::LOST, ..Framing::zeroed() };
        world.tally().desyncs = 1;
    } else if fresh.late {
        world.walk(&mut stream.hole.framing, fresh, any, orders);
    } else {
        world.walk(&mut stream.framing, fresh, any, orders);
    }
}

/// Weighs what was read.
#[inline(always)]
fn weigh<W: World>(world: &mut W, session: &Session, causes: u64) -> Verdict {
    const OF_NO_LIMIT: Passed = Passed { limit: 0, used: 0 };
    let tally = *world.tally();
    let own = session.scopes[0];
    if tally.desyncs != 0 {
        world.tell(kind::DESYNCED, own);
    }
    if causes != 0 && !harmless(session, &tally) {
        return Verdict::Tripped;
    }
    if tally.desyncs != 0 && session.flags & flag::DESYNC_TRIPS != 0 && world.armed(own) {
        world.trip(own, cause::DESYNC, OF_NO_LIMIT);
        return Verdict::Desync;
    }
    if tally.replays != 0 {
        world.tell(kind::REPLAYED, own);
        if world.armed(own) {
            world.trip(own, cause::REPLAY, OF_NO_LIMIT);
            return Verdict::Replay;
        }
    }
    if tally.total() == 0 {
        return Verdict::Passed;
    }
    if causes & cause::DEADMAN == 0
        && let Some(trips) = world.silence()
    {
        world.tell_silence();
        if trips && world.armed(HOST) {
            world.trip(HOST, cause::DEADMAN, OF_NO_LIMIT);
            return Verdict::Deadman;
        }
    }
    match limits::charge(session, world) {
        None => Verdict::Passed,
        Some((scope, passed)) => {
            world.trip(scope, cause::RATE, passed);
            Verdict::Limit
        }
    }
}

/// The number of the host's scope.
pub const HOST: u32 = 0;

/// Takes note of a segment that comes in for a session: what it reports counts for limits, and nothing of it is ever withheld.
#[inline(always)]
pub fn observe<W: World>(world: &mut W, session: &Session, stream: &mut Stream, segment: &Segment) {
    // A SYN that comes again late starts nothing anew: what came in on ports that are taken over goes with their connection.
    if segment.length == 0 || session.flags & flag::OPAQUE != 0 {
        return;
    }
    let seq = segment.seq.wrapping_add((segment.flags & SYN != 0) as u32);
    let Some(fresh) = stream.advance(seq, segment.length, world.tally()) else { return };
    walk(world, stream, segment, &fresh, 0, 0);
    let fills = world.tally().messages[Incoming::Fill as usize] as u64;
    if fills != 0 {
        let mut i = 0;
        while i < SCOPES_PER_SESSION && (i as u32) < session.scope_count {
            world.fill(session.scopes[i], fills);
            i += 1;
        }
    }
    limits::record(session, world, |world, scope, passed| world.trip(scope, cause::RATE, passed));
}

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

impl Counters {
    /// Counts what came in.
    #[inline(always)]
    pub fn count_in(&mut self, tally: &Tally) {
        self.inbound_desyncs += tally.desyncs as u64;
        let mut i = 0;
        while i < self.inbound.len() {
            self.inbound[i] += tally.messages[Incoming::Fill as usize + i] as u64;
            i += 1;
        }
    }

    /// Counts a segment and what it held.
    #[inline(always)]
    pub fn count(&mut self, verdict: Verdict, tally: &Tally) {
        if matches!(verdict, Verdict::Control | Verdict::Ignored | Verdict::Unconfigured) {
            return;
        }
        self.retransmitted += tally.repeated as u64;
        self.desyncs += tally.desyncs as u64;
        let withheld = verdict.withheld();
        if withheld {
            self.packets_withheld += 1;
        } else {
            self.packets_passed += 1;
        }
        let messages = if withheld { &mut self.withheld } else { &mut self.passed };
        let mut i = 0;
        while i < messages.len() {
            messages[i] += tally.messages[i] as u64;
            i += 1;
        }
    }
}

//! The verdict on a segment: one function, the same in the kernel, in tests and on captures.

use bytemuck::Zeroable;

use crate::abi::{Connection, Counters, Session, cause, flag, kind, reason, while_tripped};
use crate::class::Class;
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
}

impl Verdict {
    /// True where the segment must not leave.
    pub fn withheld(self) -> bool {
        match self {
            Self::Control | Self::Passed => false,
            Self::Fenced | Self::Limit | Self::Tripped | Self::Isolated | Self::Desync => true,
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

/// What a decision asks of the place where it is made. Scopes are named by their number.
pub trait World: Charge {
    /// Epoch sum and causes of a session.
    fn switches(&mut self, session: &Session) -> Switches;
    /// Whether what is passed in a scope trips it.
    fn armed(&mut self, scope: u32) -> bool;
    /// What the segment has brought so far.
    fn tally(&mut self) -> &mut Tally;
    /// Reads the new bytes of the segment into the tally.
    fn walk(&mut self, session: &Session, framing: &mut Framing, fresh: &Fresh);
    /// Trips a scope and tells of it: [`crate::limits::trip`].
    fn trip(&mut self, scope: u32, cause: u64, passed: Passed);
    /// Tells of a change at a connection: one of [`kind`].
    fn tell(&mut self, kind: u32, scope: u32);
}

impl Connection {
    /// A connection that is not in the table yet. Where its SYN was not seen it counts as epoch 0, which is live only where
    /// nothing has tripped yet, and its framing is not known.
    pub fn joined(session: u32, seq: u32) -> Self {
        Self { session, stream: Stream::joined(seq), ..Self::zeroed() }
    }

    /// A FIX flow that no session declares, at its first FIX byte: it is as old as that. Blocked, it is fenced from the start.
    pub fn undeclared(seq: u32, blocked: bool) -> Self {
        let epoch = if blocked { Self::FENCED } else { Self::NEW };
        Self { epoch, closed_ns: blocked as u64, ..Self::joined(0, seq) }
    }

    /// True where a SYN takes over the ports of an undeclared flow: what comes now is another flow, and not yet known to be FIX.
    #[inline(always)]
    pub fn is_reused(&self, segment: &Segment) -> bool {
        self.session == 0 && segment.flags & SYN != 0
    }

    /// Starts over at a SYN, but not at its retransmit: data may have been queued before a trip since. Not even behind a FIN, which
    /// the answering side of Fast Open may send while its SYN is still unacknowledged.
    #[inline(always)]
    fn open(&mut self, seq: u32, epoch: u64) {
        if self.opened == 1 && self.isn == seq {
            return;
        }
        *self = Self {
            epoch,
            session: self.session,
            isn: seq,
            opened: 1,
            stream: Stream::at(seq.wrapping_add(1)),
            ..Self::zeroed()
        };
    }
}

/// Decides on a segment of a session, and brings the state of its connection up to date.
#[inline(always)]
pub fn decide<W: World>(world: &mut W, session: &Session, connection: &mut Connection, segment: &Segment) -> Verdict {
    let switches = world.switches(session);
    if segment.flags & SYN != 0 {
        connection.open(segment.seq, switches.epoch);
        if switches.causes != 0 && session.while_tripped == while_tripped::ISOLATE {
            return Verdict::Isolated;
        }
    }
    if connection.epoch == Connection::NEW {
        connection.epoch = switches.epoch;
    }
    if segment.flags & (FIN | RST) != 0 {
        connection.closed_ns = world.now();
    }
    if segment.length == 0 {
        return Verdict::Control;
    }
    if connection.epoch != switches.epoch {
        fence(world, session, connection);
        return Verdict::Fenced;
    }
    read(world, session, connection, segment);
    let verdict = judge(world, session, switches.causes);
    if verdict.withheld() {
        fence(world, session, connection);
    }
    verdict
}

/// Fences a connection for good, and tells of it once. It is as good as closed: its socket is reset, or dies of silence.
#[inline(always)]
fn fence<W: World>(world: &mut W, session: &Session, connection: &mut Connection) {
    if connection.epoch != Connection::FENCED {
        connection.epoch = Connection::FENCED;
        connection.closed_ns = world.now();
        world.tell(kind::FENCED, session.scopes[0]);
    }
}

/// Reads what is new in a segment.
#[inline(always)]
fn read<W: World>(world: &mut W, session: &Session, connection: &mut Connection, segment: &Segment) {
    let seq = segment.seq.wrapping_add((segment.flags & SYN != 0) as u32);
    let stream = &mut connection.stream;
    let Some(fresh) = stream.advance(seq, segment.length, world.tally()) else { return };
    if session.flags & flag::OPAQUE != 0 {
        let tally = world.tally();
        tally.messages[Class::Order as usize] = segment.wire_segments;
        tally.desyncs = 0;
        return;
    }
    if segment.fragment {
        stream.framing = Framing { synced: sync::LOST, ..Framing::zeroed() };
        world.tally().desyncs = 1;
        return;
    }
    if fresh.late {
        world.walk(session, &mut stream.hole.framing, &fresh);
    } else {
        world.walk(session, &mut stream.framing, &fresh);
    }
    world.tally().unread = (stream.framing.synced != sync::YES) as u32;
}

/// Judges what was read.
#[inline(always)]
fn judge<W: World>(world: &mut W, session: &Session, causes: u64) -> Verdict {
    let tally = *world.tally();
    if tally.desyncs != 0 {
        world.tell(kind::DESYNCED, session.scopes[0]);
    }
    if causes != 0 && !harmless(session, &tally) {
        return Verdict::Tripped;
    }
    if tally.desyncs != 0 && session.flags & flag::DESYNC_TRIPS != 0 && world.armed(session.scopes[0]) {
        world.trip(session.scopes[0], cause::DESYNC, Passed { limit: 0, used: 0 });
        return Verdict::Desync;
    }
    if tally.total() == 0 {
        return Verdict::Passed;
    }
    match limits::charge(session, world) {
        None => Verdict::Passed,
        Some((scope, passed)) => {
            world.trip(scope, cause::RATE, passed);
            Verdict::Limit
        }
    }
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
    /// Counts a segment and what it held.
    #[inline(always)]
    pub fn count(&mut self, verdict: Verdict, tally: &Tally) {
        if matches!(verdict, Verdict::Control) {
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

//! Where the walk over a connection's bytes stands, and how a segment moves it.
//!
//! Two questions, kept apart: which bytes of a segment are new ([`Stream::advance`], by TCP sequence number), and which messages
//! start in them ([`Framing::step`], by FIX framing). Neither looks at a byte that it can hop over.

use core::hint::{black_box, cold_path};

use bytemuck::{Pod, Zeroable};

use crate::class::{self, Class};
use crate::fields::want;
use crate::fix::{self, Header, MsgType, WINDOW, Words};

/// Payload that can be read at any offset; where it lies is its owner's business.
pub trait Payload {
    /// Reads `length` (1 to [`WINDOW`]) bytes from `offset` into the front of a zeroed window; `None` where they cannot be had.
    fn window(&mut self, offset: u32, length: u32) -> Option<Words>;
    /// The number of a CompID or SubID, zero-padded; [`crate::abi::identity::UNKNOWN`] where no session declares it.
    fn comp_id(&mut self, value: &Words) -> u32;
}

/// Values of `Framing::synced`.
pub mod sync {
    /// It is known where the next message begins.
    pub const YES: u32 = 0;
    /// It is not: wait for a segment that begins with `8=FIX`.
    pub const LOST: u32 = 1;
}

/// Where the walk stands between two segments.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Framing {
    /// The beginning of a header, or of a field that is looked at, that a segment cut off.
    pub head: Words,
    /// Bytes of it.
    pub held: u32,
    /// Bytes of the current message that are still to come.
    pub skip: u32,
    /// One of [`sync`].
    pub synced: u32,
    /// What is looked for in the fields of the current message ([`want`]), and where in them the walk stands; 0: it is hopped over.
    pub scan: u32,
    /// Bytes of a data field.
    pub hop: u32,
    /// Values that were found in an execution report: ExecType(150), OrdStatus(39); and behind those, what is not yet counted of the
    /// current message.
    pub seen: u32,
}

/// Bytes that were jumped over and may come late, with the framing as it was before them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Hole {
    /// The framing at its start.
    pub framing: Framing,
    /// Sequence number of its first byte.
    pub start: u32,
    /// Sequence number behind its last byte; equal to `start` where there is no hole.
    pub end: u32,
}

/// The state of one direction of a connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Stream {
    /// The framing at `next_seq`.
    pub framing: Framing,
    /// The latest hole.
    pub hole: Hole,
    /// Sequence number (RFC 9293) of the first byte never seen.
    pub next_seq: u32,
    /// Zero.
    pub pad: u32,
}

/// What a segment brought.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Tally {
    /// Messages that started in it, by class: those of [`Class`], behind them those of [`class::Incoming`], and at [`class::EVERY`] what
    /// [`Self::sum_up`] found.
    pub messages: [u32; 10],
    /// Times the stream was lost in it.
    pub desyncs: u32,
    /// 1 where it held bytes that were seen before.
    pub repeated: u32,
    /// 1 where any of it could not be read: the stream is lost before, in or behind it.
    pub unread: u32,
    /// Orders in it that PossDupFlag(43) calls possible duplicates, where that is looked at.
    pub replays: u32,
    /// Numbers of the CompIDs and SubIDs in it ([`crate::abi::identity`]), where they are looked at; 0 for those not seen.
    pub ids: [u32; 4],
    /// 1 where a message ended in it that was looked at for them.
    pub identified: u32,
    /// Zero.
    pub pad: u32,
}

/// What becomes of a message whose header was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Its class: a position in `Tally::messages`.
    pub class: usize,
    /// What is looked for in its fields: [`want`] bits.
    pub want: u32,
}

impl Tally {
    /// Counts a message: a position in `messages`.
    #[inline(always)]
    pub(crate) fn count(&mut self, class: usize) {
        // The verifier must see the bound, which the compiler would take for granted.
        let class = black_box(class) & 7;
        self.messages[class] = self.messages[class].wrapping_add(1);
    }

    /// Messages of one class.
    #[inline(always)]
    pub fn of(&self, class: Class) -> u32 {
        self.messages[class as usize]
    }

    /// Messages of all classes that go out.
    #[inline(always)]
    pub fn total(&self) -> u32 {
        let [order, cancel, interest, query, admin, ..] = self.messages;
        order.wrapping_add(cancel).wrapping_add(interest).wrapping_add(query).wrapping_add(admin)
    }

    /// Notes [`Self::total`] for the limits that count every message.
    #[inline(always)]
    pub fn sum_up(&mut self) -> u32 {
        let total = self.total();
        self.messages[class::EVERY] = total;
        total
    }

    /// Messages that a limit with this counter counts; `None` behind the last limit of a session ([`crate::abi::Meter`]).
    #[inline(always)]
    pub fn counted(&self, counter: u16) -> Option<u64> {
        self.messages.get((counter as usize).wrapping_sub(1)).map(|count| *count as u64)
    }
}

/// The new bytes of a segment's payload: from `from` up to `to`, and whether they belong into the hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fresh {
    /// Offset in the payload of the first new byte.
    pub from: u32,
    /// Offset behind the last.
    pub to: u32,
    /// They fill the beginning of the hole.
    pub late: bool,
}

/// Bytes after which a hole is forgotten: long before sequence numbers come round to it again.
const FORGOTTEN: u32 = 1 << 30;

impl Stream {
    /// A connection whose first payload byte will have this sequence number.
    pub fn at(next_seq: u32) -> Self {
        Self { next_seq, ..Self::zeroed() }
    }

    /// A connection first seen in mid-stream, at a segment with this sequence number.
    pub fn joined(next_seq: u32) -> Self {
        let mut stream = Self::at(next_seq);
        stream.framing.synced = sync::LOST;
        stream
    }

    /// Takes note of a segment of `length` payload bytes at `seq` and says which of them are new.
    #[inline(always)]
    pub fn advance(&mut self, seq: u32, length: u32, tally: &mut Tally) -> Option<Fresh> {
        let behind = self.next_seq.wrapping_sub(seq) as i32;
        if behind < 0 {
            cold_path();
            self.jump(seq, behind.wrapping_neg() as u32, tally);
        } else if behind > 0 {
            cold_path();
            tally.repeated = 1;
            if behind as u32 >= length {
                return self.fill(seq, length, tally);
            }
            // It may hold late bytes and new ones. Only the new ones can be walked: the late ones are lost.
            tally.desyncs = tally.desyncs.wrapping_add(self.misses(seq, length));
        }
        let from = if behind > 0 { behind as u32 } else { 0 };
        self.next_seq = seq.wrapping_add(length);
        if self.next_seq.wrapping_sub(self.hole.end) > FORGOTTEN {
            cold_path();
            self.hole.start = self.hole.end;
        }
        Some(Fresh { from, to: length, late: false })
    }

    /// 1 where a segment has bytes of the hole.
    #[inline(always)]
    fn misses(&self, seq: u32, length: u32) -> u32 {
        let before_end = (self.hole.end.wrapping_sub(seq) as i32) > 0;
        let behind_start = (seq.wrapping_add(length).wrapping_sub(self.hole.start) as i32) > 0;
        (self.hole.start != self.hole.end && before_end && behind_start) as u32
    }

    /// Goes on behind `gap` missing bytes. Inside a message that changes nothing; anywhere else the stream is lost.
    #[inline(always)]
    fn jump(&mut self, seq: u32, gap: u32, tally: &mut Tally) {
        if self.framing.scan & (want::ACTION | want::REPORT | want::OWNER) != 0 {
            // The field that would tell may be among the missing.
            self.framing.settle(tally);
        }
        self.hole = Hole { framing: self.framing, start: self.next_seq, end: seq };
        if self.framing.synced == sync::YES && self.framing.skip >= gap {
            self.framing.skip -= gap;
            if self.framing.scan != 0 {
                self.framing.jumped();
                if self.framing.skip == 0 {
                    self.framing.settle(tally);
                }
            }
            return;
        }
        if self.framing.synced == sync::YES {
            tally.desyncs = tally.desyncs.wrapping_add(1);
        }
        self.framing = Framing { synced: sync::LOST, ..Framing::zeroed() };
    }

    /// The part of an old segment that fills the beginning of the hole, if any. Late bytes from further on in it cannot be walked, for
    /// what is before them is not known: the stream is lost there.
    #[inline(always)]
    fn fill(&mut self, seq: u32, length: u32, tally: &mut Tally) -> Option<Fresh> {
        let room = self.hole.end.wrapping_sub(self.hole.start);
        let from = self.hole.start.wrapping_sub(seq);
        if room == 0 || from >= length {
            tally.desyncs = tally.desyncs.wrapping_add(self.misses(seq, length));
            return None;
        }
        let bytes = if length - from < room { length - from } else { room };
        self.hole.start = self.hole.start.wrapping_add(bytes);
        Some(Fresh { from, to: from + bytes, late: true })
    }
}

impl Framing {
    /// Makes a stream that was lost whole again, if this segment begins with `8=FIX`. Call once a segment, before stepping.
    #[inline(always)]
    pub fn resync(&mut self, payload: &mut impl Payload, fresh: &Fresh) {
        if self.synced == sync::YES || fresh.from != 0 || (fresh.to as usize) < fix::SIGNATURE.len() {
            return;
        }
        cold_path();
        let length = if fresh.to < WINDOW as u32 { fresh.to } else { WINDOW as u32 };
        if let Some(window) = payload.window(0, length)
            && fix::header(&window, length) != Header::Implausible
        {
            *self = Self::zeroed();
        }
    }

    /// Hops over messages of the common kind ([`fix::common`]) of which nothing is looked at, up to `most` of them. Returns where to go
    /// on: `to` at the end, else at what [`Self::step`] must see.
    ///
    /// `class_of` says what class a type of one character is.
    #[inline(always)]
    pub fn hop(
        &mut self,
        payload: &mut impl Payload,
        (from, to): (u32, u32),
        most: u32,
        class_of: impl Fn(MsgType) -> Class,
        tally: &mut Tally,
    ) -> u32 {
        if self.synced != sync::YES || self.scan != 0 || self.held != 0 {
            return from;
        }
        let mut at = from.wrapping_add(self.skip);
        let mut hops = 0;
        while hops < most && at < to && to - at >= WINDOW as u32 {
            let Some(window) = payload.window(at, WINDOW as u32) else { break };
            let Some((msg_type, length)) = fix::common(&window) else { break };
            tally.count(class_of(msg_type) as usize);
            at = at.wrapping_add(length);
            hops += 1;
        }
        self.skip = at.saturating_sub(to);
        if at < to { at } else { to }
    }

    /// Hops to the next message that starts between `from` and `to` and counts it, or reads a field of the one that is looked at.
    /// Returns where to go on: `to` at the end, and where the stream is lost.
    ///
    /// `kind_of` says what class a type is, by the session's own table or the common one, and what is looked for.
    #[inline(always)]
    pub fn step(
        &mut self,
        payload: &mut impl Payload,
        from: u32,
        to: u32,
        kind_of: impl FnOnce(MsgType) -> Kind,
        tally: &mut Tally,
    ) -> u32 {
        let left = to.wrapping_sub(from);
        if self.synced != sync::YES {
            return to;
        }
        if self.scan != 0 {
            return self.field(payload, from, to, tally);
        }
        if self.skip >= left {
            self.skip -= left;
            return to;
        }
        let from = from + self.skip;
        let left = left - self.skip;
        self.skip = 0;
        // `held` is below WINDOW whenever a header is unfinished; the mask tells the verifier.
        let held = self.held & (WINDOW as u32 - 1);
        let room = WINDOW as u32 - held;
        let length = if left < room { left } else { room };
        let Some(read) = payload.window(from, length) else { return self.lose(to, tally) };
        let window = if held == 0 { read } else { join(&self.head, &read, held) };
        match fix::header(&window, held + length) {
            Header::Message { msg_type, length: whole, fields } => {
                let kind = kind_of(msg_type);
                let first = want::IDENTITY | want::OWNER;
                let want = if tally.identified == 0 { kind.want } else { kind.want & !first };
                self.held = 0;
                self.scan = want;
                if want & (want::ACTION | want::REPORT) == 0 {
                    self.classify(kind.class, tally);
                }
                if want == 0 {
                    let rest = whole - held;
                    self.skip = rest.saturating_sub(left);
                    return if rest < left { from + rest } else { to };
                }
                self.skip = whole - fields;
                from + (fields - held)
            }
            Header::Partial => {
                self.head = window;
                self.held = held + length;
                to
            }
            Header::Implausible => self.lose(to, tally),
        }
    }

    /// No message begins where one must, or none could be read.
    #[inline(always)]
    pub fn lose(&mut self, to: u32, tally: &mut Tally) -> u32 {
        tally.desyncs = tally.desyncs.wrapping_add(1);
        self.settle(tally);
        *self = Self { synced: sync::LOST, ..Self::zeroed() };
        to
    }
}

/// The first `held` bytes of `head`, then those of `next`: a shift over all words, in steps that need no index.
#[inline(always)]
pub(crate) fn join(head: &Words, next: &Words, held: u32) -> Words {
    let [mut a, mut b, mut c, mut d] = *next;
    if held & 16 != 0 {
        (a, b, c, d) = (0, 0, a, b);
    }
    if held & 8 != 0 {
        (a, b, c, d) = (0, a, b, c);
    }
    let shift = 8 * (held & 7);
    let carry = |low: u64| (low >> 1) >> (63 - shift);
    let [e, f, g, h] = *head;
    [e | a << shift, f | b << shift | carry(a), g | c << shift | carry(b), h | d << shift | carry(c)]
}

/// The class of a type in a session that has this many overrides, and whether it is the session's own opinion.
#[inline(always)]
pub fn class_in(session: &crate::abi::Session, msg_type: MsgType) -> (Class, bool) {
    match msg_type.overridden(session) {
        Some(code) => (Class::from_code(code), true),
        None => (class::of(msg_type), false),
    }
}

/// What becomes of an outgoing message of this type and class: `any` and `orders` are [`want`] bits for all and for orders.
#[inline(always)]
pub fn outgoing(msg_type: MsgType, (class, own): (Class, bool), any: u32, orders: u32) -> Kind {
    let mut want = any;
    if matches!(class, Class::Order) {
        want |= orders;
        if !own && msg_type.0 == class::MASS_ACTION.0 {
            want |= want::ACTION;
        }
    }
    Kind { class: class as usize, want }
}

//! FIX framing over the bytes of a connection: which messages start in a segment, and where the next one must start.
//!
//! Which bytes of a segment are new is the question of [`crate::sequence`]; what is done where no message starts is in [`crate::blind`].
//! No byte is read that can be hopped over.

use core::hint::{black_box, cold_path};

use bytemuck::{Pod, Zeroable};

use crate::class::{self, Class};
use crate::fields::want;
use crate::fix::{self, Header, MsgType, WINDOW, Words};

/// Payload that can be read at any offset; where it lies is its owner's business.
pub trait Payload {
    /// Reads `length` (1 to [`WINDOW`]) bytes from `offset` into the front of a zeroed window; `None` where they cannot be had.
    fn window(&mut self, offset: u32, length: u32) -> Option<Words>;
    /// [`fix::header`] of a window. The kernel's verifier is to follow it once, and not once a place that asks.
    fn header(&mut self, window: &Words, available: u32) -> Header {
        fix::header(window, available)
    }
    /// Offset of the first `8=FIX` that lies in `from..to`; `to` where there is none.
    fn find(&mut self, from: u32, to: u32) -> u32;
    /// The number of a CompID or SubID, zero-padded; [`crate::abi::identity::UNKNOWN`] where no session declares it.
    fn comp_id(&mut self, value: &Words) -> u32;
}

/// Values of `Framing::synced`.
pub mod sync {
    /// It is known where the next message begins.
    pub const IN_SYNC: u32 = 0;
    /// It is not: the stream is blind ([`crate::blind`]).
    pub const BLIND: u32 = 1;
}

/// Where the walk stands between two segments.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Framing {
    /// The beginning of a header, or of a field that is looked at, that a segment cut off.
    pub partial: Words,
    /// Bytes of it.
    pub partial_bytes: u32,
    /// Bytes of the current message that are still to come.
    pub body_remaining: u32,
    /// One of [`sync`].
    pub sync: u32,
    /// What is looked for in the fields of the current message ([`want`]), and where in them the walk stands; 0: it is hopped over.
    pub field_state: u32,
    /// Bytes of a data field.
    pub data_remaining: u32,
    /// Values that were found in an execution report: ExecType(150), OrdStatus(39); and behind those, what is not yet counted of the
    /// current message.
    pub field_values: u32,
    /// Bytes of the message whose header was read last: those that must be counted otherwise where no message starts behind it.
    pub message_bytes: u32,
    /// The position of that message's class in [`SegmentCounts::messages`].
    pub message_class: u32,
}

/// What a segment brought.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct SegmentCounts {
    /// Messages that started in it, by class: those of [`Class`], behind them those of [`class::InboundClass`], and at [`class::TOTAL`] what
    /// [`Self::store_total`] found.
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
    pub comp_ids: [u32; 4],
    /// 1 where a message ended in it that was looked at for them.
    pub identity_complete: u32,
    /// Bytes that could not be read: in the segment, or in messages before it whose length has turned out to be wrong.
    pub blind_bytes: u32,
    /// Orders that were counted in those messages before that was known.
    pub recounted_orders: u32,
    /// Headers in unread bytes that turned out to begin no message.
    pub false_headers: u32,
}

/// What becomes of a message whose header was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageKind {
    /// Its class: a position in `SegmentCounts::messages`.
    pub class: usize,
    /// What is looked for in its fields: [`want`] bits.
    pub want: u32,
}

impl SegmentCounts {
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
    pub fn store_total(&mut self) -> u32 {
        let total = self.total();
        self.messages[class::TOTAL] = total;
        total
    }

    /// Messages that a limit with this counter counts; `None` behind the last limit of a session ([`crate::abi::LimitRef`]).
    #[inline(always)]
    pub fn for_counter(&self, counter: u16) -> Option<u64> {
        self.messages.get((counter as usize).wrapping_sub(1)).map(|count| *count as u64)
    }
}

impl Framing {
    /// Hops over messages of the common kind ([`fix::common_header`]) of which nothing is looked at, up to `most` of them and none longer than
    /// `longest` bytes. Returns where to go on: `to` at the end, else at what [`Self::step`] must see.
    ///
    /// `class_of` says what class a type of one character is.
    #[inline(always)]
    pub fn skip_common(
        &mut self,
        payload: &mut impl Payload,
        (from, to): (u32, u32),
        (most, longest): (u32, u32),
        class_of: impl Fn(MsgType) -> Class,
        counts: &mut SegmentCounts,
    ) -> u32 {
        if self.sync != sync::IN_SYNC || self.field_state != 0 || self.partial_bytes != 0 {
            return from;
        }
        let mut at = from.wrapping_add(self.body_remaining);
        let (mut last, mut last_class) = (self.message_bytes, self.message_class);
        let mut hops = 0;
        while hops < most && at < to && to - at >= WINDOW as u32 {
            let Some(window) = payload.window(at, WINDOW as u32) else { break };
            let Some((msg_type, length)) = fix::common_header(&window) else { break };
            if length > longest {
                break;
            }
            (last, last_class) = (length, class_of(msg_type) as u32);
            counts.count(last_class as usize);
            at = at.wrapping_add(length);
            hops += 1;
        }
        (self.message_bytes, self.message_class) = (last, last_class);
        self.body_remaining = at.saturating_sub(to);
        if at < to { at } else { to }
    }

    /// Hops to the next message that starts between `from` and `to` and counts it, or reads a field of the one that is looked at. Returns
    /// where to go on: `to` at the end. For a stream that is followed; one that is not is for [`Self::seek`].
    ///
    /// `kind_of` says what class a type is, by the session's own table or the common one, and what is looked for. A message that claims
    /// to be longer than `longest` bytes is none.
    #[inline(always)]
    pub fn step(
        &mut self,
        payload: &mut impl Payload,
        (from, to): (u32, u32),
        longest: u32,
        kind_of: impl FnOnce(MsgType) -> MessageKind,
        counts: &mut SegmentCounts,
    ) -> u32 {
        let left = to.wrapping_sub(from);
        if self.field_state != 0 {
            return self.read_field(payload, from, to, counts);
        }
        if self.body_remaining >= left {
            self.body_remaining -= left;
            return to;
        }
        let from = from + self.body_remaining;
        let left = left - self.body_remaining;
        self.body_remaining = 0;
        // `held` is below WINDOW whenever a header is unfinished; the mask tells the verifier.
        let held = self.partial_bytes & (WINDOW as u32 - 1);
        let room = WINDOW as u32 - held;
        let length = if left < room { left } else { room };
        let Some(read) = payload.window(from, length) else { return self.mark_blind((from, to), counts) };
        let window = if held == 0 { read } else { join(&self.partial, &read, held) };
        match payload.header(&window, held + length) {
            Header::Message { msg_type, length: whole, body_offset } if whole <= longest => {
                let kind = kind_of(msg_type);
                let first = want::IDENTITY | want::OWNER;
                let want = if counts.identity_complete == 0 { kind.want } else { kind.want & !first };
                (self.partial_bytes, self.field_state) = (0, want);
                (self.message_bytes, self.message_class) = (whole, kind.class as u32);
                if want & (want::ACTION | want::REPORT) == 0 {
                    self.count_or_defer(kind.class, counts);
                }
                if want == 0 {
                    let rest = whole - held;
                    self.body_remaining = rest.saturating_sub(left);
                    return if rest < left { from + rest } else { to };
                }
                self.body_remaining = whole - body_offset;
                from + (body_offset - held)
            }
            Header::Partial => {
                self.partial = window;
                self.partial_bytes = held + length;
                to
            }
            Header::Message { .. } | Header::Implausible => {
                cold_path();
                // The bytes that were held have crossed as the beginning of a message.
                counts.blind_bytes = counts.blind_bytes.wrapping_add(held);
                self.lose_sync(counts);
                from
            }
        }
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
pub fn session_class(session: &crate::abi::Session, msg_type: MsgType) -> (Class, bool) {
    match msg_type.overridden(session) {
        Some(code) => (Class::from_code(code), true),
        None => (class::of(msg_type), false),
    }
}

/// What becomes of an outgoing message of this type and class: `any` and `orders` are [`want`] bits for all and for orders.
#[inline(always)]
pub fn outbound_kind(msg_type: MsgType, (class, own): (Class, bool), any: u32, orders: u32) -> MessageKind {
    let mut want = any;
    if matches!(class, Class::Order) {
        want |= orders;
        if !own && msg_type.0 == class::MASS_ACTION.0 {
            want |= want::ACTION;
        }
    }
    MessageKind { class: class as usize, want }
}

//! Which messages start in a segment: `breaker_common::framing`, cut into global functions.
//!
//! The verifier checks a global function once, not once for each caller and iteration.

use breaker_common::abi::{Framing, sync};
use breaker_common::blind::MAX_EMBEDDED;
use breaker_common::class;
use breaker_common::fix::MsgType;
use breaker_common::message::Class;

use crate::boundary::Pack;
use crate::context::Context;
use crate::payload::InPacket;
use crate::policy;
use crate::scratch::{Scratch, non_null};

/// Most steps of [`walk_some`] if every message needs its fields.
const STEPS: u32 = 64;
/// Most steps of [`walk_some`] if messages of the common layout can be skipped again.
const FEW_STEPS: u32 = 16;
/// Most iterations of [`walk`]. They suffice for 4,352 messages if every 17th has the common layout. They
/// suffice for 16,384 messages of an skb, or 6,144 of a frame, if all have the common layout.
const CALLS: u32 = 512;

/// Reads the messages in `from..to`, and returns the offset of the first byte not read. A global function.
#[inline(always)]
pub fn walk(context: impl Context, scratch: *mut Scratch, framing: *mut Framing, from: u32, to: u32) -> u32 {
    let mut at = from;
    let mut call = 0;
    while call < CALLS && at < to {
        let next = context.skip_common(scratch, framing, at, to);
        at = if next == at { context.walk_some(scratch, framing, at, to) } else { next };
        call += 1;
    }
    at
}

/// [`Framing::skip_common`] over up to `MAX_SKIPS` messages, if no message needs its fields. A global
/// function.
#[inline(always)]
pub fn skip_common<C: Context>(
    context: C,
    scratch: *mut Scratch,
    framing: *mut Framing,
    from: u32,
    to: u32,
) -> u32 {
    let (Some(scratch), Some(framing)) = (non_null(scratch), non_null(framing)) else { return to };
    if scratch.needs_fields() {
        core::hint::cold_path();
        return from;
    }
    let mut payload = InPacket { context, start: scratch.packet.payload };
    let limits = (C::MAX_SKIPS, scratch.longest);
    framing.skip_common(&mut payload, (from, to), limits, class::single_char_class, &mut scratch.counts)
}

/// Up to [`STEPS`] or [`FEW_STEPS`] steps of the framing. A global function.
#[inline(always)]
pub fn walk_some(
    context: impl Context,
    scratch: *mut Scratch,
    framing: *mut Framing,
    from: u32,
    to: u32,
) -> u32 {
    let (Some(checked), Some(checked_framing)) = (non_null(scratch), non_null(framing)) else { return to };
    let max_steps = if checked.needs_fields() { STEPS } else { FEW_STEPS };
    let mut at = from;
    let mut steps = 0;
    while steps < STEPS && steps < max_steps && at < to {
        at = match checked_framing.sync {
            sync::IN_SYNC => context.step(scratch, framing, at, to),
            _ => {
                let found = context.skip_to_header(scratch, at, to);
                context.resume_at(scratch, framing, found, to)
            }
        };
        steps += 1;
    }
    at
}

/// [`Framing::step`]. A global function.
#[inline(always)]
pub fn step(context: impl Context, scratch: *mut Scratch, framing: *mut Framing, from: u32, to: u32) -> u32 {
    let (Some(scratch), Some(framing)) = (non_null(scratch), non_null(framing)) else { return to };
    let mut payload = InPacket { context, start: scratch.packet.payload };
    let (number, side, overrides) = (scratch.session, scratch.side, scratch.overrides);
    let (any, orders, incoming) = (scratch.any, scratch.orders, scratch.incoming);
    let kind_of = |msg_type: MsgType| {
        if incoming != 0 {
            return class::inbound_kind(msg_type);
        }
        let class = if overrides != 0 {
            Pack::unpack(session_class(number, side, msg_type.0))
        } else {
            (class::default_class(msg_type), false)
        };
        class::outbound_kind(msg_type, class, any, orders)
    };
    framing.step(&mut payload, (from, to), scratch.longest, kind_of, &mut scratch.counts)
}

/// `SegmentCounts::skip_to_header`. A global function, because merged with [`resume_at`] it takes too much
/// stack: "combined stack size of ... calls is ... Too large" (6.1).
#[inline(always)]
pub fn skip_to_header(context: impl Context, scratch: *mut Scratch, from: u32, to: u32) -> u32 {
    let Some(scratch) = non_null(scratch) else { return to };
    let mut payload = InPacket { context, start: scratch.packet.payload };
    scratch.counts.skip_to_header(&mut payload, (from, to))
}

/// [`Framing::resume_at`]. A global function.
#[inline(always)]
pub fn resume_at(
    context: impl Context,
    scratch: *mut Scratch,
    framing: *mut Framing,
    found: u32,
    to: u32,
) -> u32 {
    let (Some(scratch), Some(framing)) = (non_null(scratch), non_null(framing)) else { return to };
    let mut payload = InPacket { context, start: scratch.packet.payload };
    framing.resume_at(&mut payload, (found, to), scratch.longest, &mut scratch.counts)
}

/// Searches for a message inside the last message, which claims to end behind the segment: returns its
/// offset, or `to` if there is none. A global function.
#[inline(always)]
pub fn find_embedded(
    context: impl Context,
    scratch: *mut Scratch,
    framing: *mut Framing,
    from: u32,
    to: u32,
) -> u32 {
    let (Some(checked), Some(checked_framing)) = (non_null(scratch), non_null(framing)) else { return to };
    let mut at = from;
    let mut tries = 0;
    while tries < MAX_EMBEDDED {
        at = context.try_embedded(scratch, framing, at, to);
        if at >= to || !checked_framing.claims_more() {
            return at;
        }
        tries += 1;
    }
    checked_framing.lose_sync(&mut checked.counts);
    to
}

/// [`Framing::try_embedded`]. A global function.
#[inline(always)]
pub fn try_embedded(
    context: impl Context,
    scratch: *mut Scratch,
    framing: *mut Framing,
    from: u32,
    to: u32,
) -> u32 {
    let (Some(scratch), Some(framing)) = (non_null(scratch), non_null(framing)) else { return to };
    let mut payload = InPacket { context, start: scratch.packet.payload };
    framing.try_embedded(&mut payload, (from, to), scratch.longest, &mut scratch.counts)
}

/// [`class::session_class`]: a packed `(Class, bool)`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn session_class(session: u32, side: u32, msg_type: u64) -> u64 {
    match policy::session(session, side) {
        Some(session) => class::session_class(session, MsgType(msg_type)).pack(),
        None => (Class::Order, false).pack(),
    }
}

//! Blind streams: the offset of the next message is unknown, so bytes are counted instead of messages.
//!
//! A stream becomes *blind* if no plausible header is where a message must start. Causes are garbage, an
//! unknown form of header, a length above the session's `longest`, a gap, a connection joined in mid-stream,
//! an IP fragment, and urgent data. A blind stream is still counted: every [`BYTES_PER_ORDER`] new bytes of a
//! segment, or a part of them, count as one order, because no order is shorter. A limit of N therefore passes
//! at most N orders even if nothing can be read.
//!
//! The walk searches the segment for the next message and is in sync again from there. If no header follows a
//! message, the length of that message was wrong. Its bytes then count by the same rule, less the orders
//! already counted.

use bytemuck::Zeroable;

use crate::abi::{Framing, sync};
use crate::counts::{BYTES_PER_ORDER, SegmentCounts};
use crate::fix::{CHUNK, Header};
use crate::payload::Payload;

/// Maximum number of false headers in the unread bytes of a segment. Behind them the rest of the segment is
/// unread.
const MAX_FALSE_HEADERS: u32 = 256;
/// Maximum number of headers in the last message of a segment that are tried as an embedded message. If none
/// of them is one, the last message counts as unread ([`Framing::lose_sync`]).
pub const MAX_EMBEDDED: u32 = 256;
/// Length of the trailer `10=nnn|`.
const TRAILER: u32 = 7;

impl SegmentCounts {
    /// First half of [`Framing::resync`]: counts the bytes before the next header as unread.
    ///
    /// Returns the offset of the header, or `to` if there is none.
    #[inline(always)]
    pub fn skip_to_header(&mut self, payload: &mut impl Payload, (from, to): (u32, u32)) -> u32 {
        let found = if self.false_headers < MAX_FALSE_HEADERS { payload.find(from, to) } else { to };
        let found = if found < from || found > to { to } else { found };
        self.blind_bytes = self.blind_bytes.wrapping_add(found - from);
        found
    }
}

impl Framing {
    /// Searches a blind stream for the next header. If a message starts there, the stream is in sync from
    /// that message on.
    ///
    /// Returns the offset to continue at.
    #[inline(always)]
    pub fn resync(
        &mut self,
        payload: &mut impl Payload,
        (from, to): (u32, u32),
        longest: u32,
        counts: &mut SegmentCounts,
    ) -> u32 {
        let found = counts.skip_to_header(payload, (from, to));
        self.resume_at(payload, (found, to), longest, counts)
    }

    /// Second half of [`Framing::resync`]: resumes at the header at `found` if a message starts there.
    ///
    /// Otherwise counts one byte as unread. Returns the offset to continue at.
    #[inline(always)]
    pub fn resume_at(
        &mut self,
        payload: &mut impl Payload,
        (found, to): (u32, u32),
        longest: u32,
        counts: &mut SegmentCounts,
    ) -> u32 {
        if found >= to {
            return to;
        }
        if message_length(payload, (found, to), longest) != 0 {
            *self = Self::zeroed();
            return found;
        }
        (counts.false_headers, counts.blind_bytes) =
            (counts.false_headers.wrapping_add(1), counts.blind_bytes.wrapping_add(1));
        found + 1
    }

    /// Returns true if the last message claims to end behind the segment.
    ///
    /// Then [`Self::try_embedded`] searches for messages inside the last message.
    #[inline(always)]
    pub fn claims_more(&self) -> bool {
        self.body_remaining != 0 && self.sync == sync::IN_SYNC
    }

    /// Tries the next header in `from..to` as a message inside the last message, which claims to end behind
    /// the segment.
    ///
    /// An embedded message must be as long as an order, and end in a trailer. A message behind `=` is the
    /// value of a data field, unless it starts the segment. The bytes of the last message before the embedded
    /// one count as unread. Returns `to` if there is no further header. Otherwise returns the offset of the
    /// embedded message, where the stream is in sync again, or the offset to continue the search at, if
    /// [`Self::claims_more`] is still true.
    #[inline(always)]
    pub fn try_embedded(
        &mut self,
        payload: &mut impl Payload,
        (from, to): (u32, u32),
        longest: u32,
        counts: &mut SegmentCounts,
    ) -> u32 {
        // The last message may have started before the segment.
        let start = to.wrapping_add(self.body_remaining).wrapping_sub(self.message_bytes);
        let in_segment = (start.wrapping_sub(from) as i32) >= 0;
        let inside = if in_segment { start.wrapping_add(1) } else { from };
        if inside >= to || to - inside < BYTES_PER_ORDER {
            return to;
        }
        let found = payload.find(inside, to);
        if found < inside || found >= to {
            return to;
        }
        // No second search starts at a header.
        let at_start = !in_segment && found == from;
        if !at_start && byte_before(payload, found) == b'=' || !is_order_long(payload, (found, to), longest) {
            return found + 1;
        }
        counts.desyncs = counts.desyncs.wrapping_add(1);
        self.finish_message(counts);
        // The CompIDs of a message with a wrong length are not trusted.
        (counts.comp_ids, counts.identity_complete) = ([0; 4], 0);
        self.recount(found.wrapping_sub(start), counts);
        *self = Self::zeroed();
        found
    }
}

/// Returns the length of the message at `from`, if the message ends at `to` or at a plausible header.
/// Otherwise 0.
#[inline(always)]
fn message_length(payload: &mut impl Payload, (from, to): (u32, u32), longest: u32) -> u32 {
    match header_at(payload, (from, to)) {
        Header::Message { length, .. } if length <= longest && length <= to - from => {
            let end = from + length;
            let ends = end == to || header_at(payload, (end, to)) != Header::Implausible;
            if ends { length } else { 0 }
        }
        _ => 0,
    }
}

/// Returns true if a message of at least [`BYTES_PER_ORDER`] starts at `from` and ends in a trailer.
#[inline(always)]
fn is_order_long(payload: &mut impl Payload, (from, to): (u32, u32), longest: u32) -> bool {
    match header_at(payload, (from, to)) {
        Header::Message { length, .. } if length <= longest && length <= to - from => {
            length >= BYTES_PER_ORDER && ends_in_trailer(payload, from + length)
        }
        _ => false,
    }
}

/// Returns the byte before an offset; 0 if the byte cannot be read.
#[inline(always)]
fn byte_before(payload: &mut impl Payload, at: u32) -> u8 {
    let before = if at == 0 { None } else { payload.chunk(at - 1, 1) };
    before.map_or(0, |[first, ..]| first as u8)
}

/// Parses the header at an offset, from the bytes before `to`.
#[inline(always)]
fn header_at(payload: &mut impl Payload, (at, to): (u32, u32)) -> Header {
    let left = to - at;
    let length = if left < CHUNK as u32 { left } else { CHUNK as u32 };
    match payload.chunk(at, length) {
        Some(chunk) => payload.header(&chunk, length),
        None => Header::Implausible,
    }
}

/// Returns true if a trailer `10=nnn|` ends at an offset.
#[inline(always)]
fn ends_in_trailer(payload: &mut impl Payload, at: u32) -> bool {
    const PATTERN: u64 = 0x01_00_00_00_3d_30_31;
    const MASK: u64 = 0xff_00_00_00_ff_ff_ff;
    at >= TRAILER && payload.chunk(at - TRAILER, TRAILER).is_some_and(|[first, ..]| first & MASK == PATTERN)
}

/// Returns the offset of the first `8=FIX` that starts in `word` and may end in `next`, or 8 if there is
/// none.
///
/// The result may be a false match, but never misses a match.
#[inline(always)]
pub fn first_signature(word: u64, next: u64) -> u32 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const EIGHTS: u64 = ONES * b'8' as u64;
    const EQUALS: u64 = ONES * b'=' as u64;
    const REST: u64 = 0x58_49_46;
    // A byte is zero if it is `8` and the next byte is `=`.
    let pairs = (word ^ EIGHTS) | ((word >> 8 | next << 56) ^ EQUALS);
    let mut found = (pairs.wrapping_sub(ONES) & !pairs & (ONES << 7)) >> 7;
    let mut i = 0;
    while i < 4 && found != 0 {
        let below = (found & found.wrapping_neg()).wrapping_sub(1);
        let at = ((below & ONES).wrapping_mul(ONES) >> 56) as u32;
        let shift = 8 * (at + 2);
        let rest =
            if shift < 64 { word >> shift | (next << 1) << (63 - shift) } else { next >> (shift - 64) };
        if rest & 0xff_ff_ff == REST {
            return at;
        }
        found &= found - 1;
        i += 1;
    }
    8
}

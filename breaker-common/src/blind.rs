//! A stream that cannot be followed right now: its bytes are counted instead of its messages.
//!
//! A stream is *blind* where no plausible header stands where one must: garbage, a header of a form that is not read, a message that
//! claims to be longer than the session's `longest`, a gap, a connection joined in mid-stream, an IP fragment, urgent data. Blind is
//! never uncounted: every [`BYTES_PER_ORDER`] new bytes of a segment, or part of them, count as one order, for no order is shorter. So
//! at most N orders cross a limit of N also where nothing can be read.
//!
//! Inside a segment the next message is looked for, and the stream followed again from there. Where no header stands at the end of a
//! message, that message's length was wrong: its bytes count by the same rule, less what was counted for it.

use bytemuck::Zeroable;

use crate::abi::Framing;
use crate::counts::{BYTES_PER_ORDER, SegmentCounts};
use crate::fix::{CHUNK, Header};
use crate::payload::Payload;

/// Headers in the unread bytes of a segment that may turn out to begin no message before the rest of the segment is given up.
const MAX_TRIED: u32 = 256;
/// Bytes of a trailer, `10=nnn|`.
const TRAILER: u32 = 7;

impl SegmentCounts {
    /// The first half of [`Framing::seek`]: counts what lies before the next header as unread. Returns where that is; `to` where there is none.
    #[inline(always)]
    pub fn skip_to_header(&mut self, payload: &mut impl Payload, (from, to): (u32, u32)) -> u32 {
        let found = if self.false_headers < MAX_TRIED { payload.find(from, to) } else { to };
        let found = if found < from || found > to { to } else { found };
        self.blind_bytes = self.blind_bytes.wrapping_add(found - from);
        found
    }
}

impl Framing {
    /// Goes on to the next header in a blind stream, and follows it from there where a message begins with it. Returns where to go on.
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

    /// The second half of [`Framing::seek`]: follows the message that begins with the header at `found`. What is no message is gone over by
    /// one byte.
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
        if message(payload, (found, to), longest) != 0 {
            *self = Self::zeroed();
            return found;
        }
        (counts.false_headers, counts.blind_bytes) =
            (counts.false_headers.wrapping_add(1), counts.blind_bytes.wrapping_add(1));
        found + 1
    }

    /// Looks for a message that begins inside the last one, where that claims to go on behind the segment: what came before it in the
    /// last message counts as unread. Returns where it begins, for the walk to go on there; `to` where there is none.
    ///
    /// It is one only where it stands at the beginning of the segment, or behind a trailer; and where it is as long as an order. So text
    /// in a data field is not taken for one.
    #[inline(always)]
    pub fn find_embedded(
        &mut self,
        payload: &mut impl Payload,
        (from, to): (u32, u32),
        longest: u32,
        counts: &mut SegmentCounts,
    ) -> u32 {
        // Where the last message began, which may be before the segment.
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
        let at_start = !in_segment && found == from;
        if !(at_start || ends_in_trailer(payload, found))
            || message(payload, (found, to), longest) < BYTES_PER_ORDER
        {
            return to;
        }
        counts.desyncs = counts.desyncs.wrapping_add(1);
        self.finish_message(counts);
        // What it said of its sender is not to be relied on either.
        (counts.comp_ids, counts.identity_complete) = ([0; 4], 0);
        self.recount(found.wrapping_sub(start), counts);
        *self = Self::zeroed();
        found
    }
}

/// Bytes of the message that begins at `from`, where it ends at `to` or where another begins; 0 where that is not so.
#[inline(always)]
fn message(payload: &mut impl Payload, (from, to): (u32, u32), longest: u32) -> u32 {
    match header_at(payload, (from, to)) {
        Header::Message { length, .. } if length <= longest && length <= to - from => {
            let end = from + length;
            let ends = end == to || header_at(payload, (end, to)) != Header::Implausible;
            if ends { length } else { 0 }
        }
        _ => 0,
    }
}

/// The header at an offset, as far as it lies before `to`.
#[inline(always)]
fn header_at(payload: &mut impl Payload, (at, to): (u32, u32)) -> Header {
    let left = to - at;
    let length = if left < CHUNK as u32 { left } else { CHUNK as u32 };
    match payload.chunk(at, length) {
        Some(window) => payload.header(&window, length),
        None => Header::Implausible,
    }
}

/// True where a trailer, `10=nnn|`, stands before an offset.
#[inline(always)]
fn ends_in_trailer(payload: &mut impl Payload, at: u32) -> bool {
    const PATTERN: u64 = 0x01_00_00_00_3d_30_31;
    const MASK: u64 = 0xff_00_00_00_ff_ff_ff;
    at >= TRAILER && payload.chunk(at - TRAILER, TRAILER).is_some_and(|[first, ..]| first & MASK == PATTERN)
}

/// Offset of the first `8=FIX` in a word and the one behind it, by its first byte; 8 where none begins in the word.
#[inline(always)]
pub fn first_signature(word: u64, next: u64) -> u32 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const EIGHTS: u64 = ONES * b'8' as u64;
    const EQUALS: u64 = ONES * b'=' as u64;
    const REST: u64 = 0x58_49_46;
    // A byte is zero where `8` stands there and `=` behind it.
    let pairs = (word ^ EIGHTS) | ((word >> 8 | next << 56) ^ EQUALS);
    let mut found = (pairs.wrapping_sub(ONES) & !pairs & (ONES << 7)) >> 7;
    let mut i = 0;
    while i < 4 && found != 0 {
        let below = (found & found.wrapping_neg()).wrapping_sub(1);
        let at = ((below & ONES).wrapping_mul(ONES) >> 56) as u32;
        // `FIX`, two bytes on.
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

//! The fields of a message, for the few types of messages that a field classifies.
//!
//! The walk skips message bodies, with these exceptions:
//! - PossDupFlag(43) marks an order as a replay.
//! - MassActionType(1373) decides whether a mass action adds or reduces risk.
//! - The CompIDs of the first message identify the session of a connection.
//! - ExecType(150) and OrdStatus(39) classify an execution report.
//!
//! The walk reads such a message field by field, one chunk per field. Segments may cut a field anywhere. A
//! data field is skipped by the length in the field before it, so its content cannot imitate a field.

use crate::abi::{Framing, identity};
use crate::counts::SegmentCounts;
use crate::fix::{CHUNK, Chunk, SOH, find_byte, parse_digits};
use crate::framing::{DUPLICATE, LONG};
use crate::message::{Class, want};
use crate::payload::{Payload, concat};

/// Bit of `Framing::field_state`: the next field is data of `Framing::data_remaining` bytes.
const DATA: u32 = 1 << 9;

/// Packs the first bytes of a field into a word, as [`Chunk`] stores them.
const fn packed<const N: usize>(text: &[u8; N]) -> u64 {
    let mut packed = 0;
    let mut i = N;
    while i > 0 {
        i -= 1;
        packed = packed << 8 | text[i] as u64;
    }
    packed
}

/// Declares the tags of the fields that contain the length of the next field.
macro_rules! lengths {
    ($($tag:literal)+) => {
        /// Tags of the fields that contain the length of the data field behind them (FIX 4.0 to 5.0SP2).
        pub const LENGTHS: &[u32] = &[$($tag),+];

        /// Returns true if a tag, as packed text, is one of [`LENGTHS`].
        #[inline(always)]
        fn is_length(tag: u64) -> bool {
            $(tag == const { digits($tag) })||+
        }
    };
}

lengths! {
    90 93 95 212 348 350 352 354 356 358 360 362 364 445 618 621 1184 1277 1280 1282 1397 1401 1403 1468
}

/// Packs the digits of a tag into a word.
const fn digits(tag: u32) -> u64 {
    let mut packed = 0;
    let mut rest = tag;
    while rest > 0 {
        packed = packed << 8 | (b'0' as u64 + (rest % 10) as u64);
        rest /= 10;
    }
    packed
}

/// Returns the position of the first SOH in a chunk, or [`CHUNK`] if there is none.
#[inline(always)]
fn field_end(chunk: &Chunk) -> u32 {
    let mut at = CHUNK as u32;
    let [w0, w1, w2, w3] = *chunk;
    let (w0, w1, w2, w3) = (find_byte(w0, SOH), find_byte(w1, SOH), find_byte(w2, SOH), find_byte(w3, SOH));
    if w3 < 8 {
        at = 24 + w3;
    }
    if w2 < 8 {
        at = 16 + w2;
    }
    if w1 < 8 {
        at = 8 + w1;
    }
    if w0 < 8 {
        at = w0;
    }
    at
}

impl Framing {
    /// Reads the next field of the inspected message, as far as it is in `from..to`. Returns the offset to
    /// continue at.
    #[inline(always)]
    pub fn read_field(
        &mut self,
        payload: &mut impl Payload,
        from: u32,
        to: u32,
        counts: &mut SegmentCounts,
    ) -> u32 {
        let left = to.wrapping_sub(from);
        let left = if left < self.body_remaining { left } else { self.body_remaining };
        if self.field_state & DATA == 0 && self.data_remaining != 0 {
            let bytes = if self.data_remaining < left { self.data_remaining } else { left };
            self.data_remaining -= bytes;
            return self.consume(bytes, from, counts);
        }
        let partial = self.partial_bytes & (CHUNK as u32 - 1);
        let room = CHUNK as u32 - partial;
        let length = if left < room { left } else { room };
        let Some(read) = payload.chunk(from, length) else { return self.mark_blind((from, to), counts) };
        let chunk = if partial == 0 { read } else { concat(&self.partial, &read, partial) };
        let available = partial + length;
        let end = field_end(&chunk);
        let whole = end < available;
        if self.field_state & LONG != 0 {
            if whole {
                self.field_state &= !LONG;
            }
            return self.consume(if whole { end + 1 } else { length }, from, counts);
        }
        let tag = find_byte(chunk[0], b'=');
        let cut = available < CHUNK as u32 && length < self.body_remaining;
        if self.field_state & DATA != 0 {
            if tag < 8 && tag < end {
                self.field_state &= !DATA;
                self.partial_bytes = 0;
                // The tag, `=`, the data and SOH, less the bytes that are already consumed.
                self.data_remaining = (self.data_remaining + tag + 2).saturating_sub(partial);
                return from;
            }
            if whole || !(cut && available < 8) {
                self.field_state &= !DATA;
                self.data_remaining = 0;
            }
        }
        if !whole && cut {
            self.partial = chunk;
            self.partial_bytes = available;
            return self.consume(length, from, counts);
        }
        self.partial_bytes = 0;
        if whole {
            self.read_value(payload, &chunk, tag, end, counts);
            return self.consume(end + 1 - partial, from, counts);
        }
        // The value is longer than any wanted value, or the message ends without an SOH.
        self.field_state |= LONG;
        if self.field_state & want::IDENTITY != 0 {
            store_comp_id(&chunk, counts, |_| identity::UNKNOWN);
        }
        self.consume(length, from, counts)
    }

    /// Consumes bytes of the message, and finishes the message at its end.
    #[inline(always)]
    fn consume(&mut self, bytes: u32, from: u32, counts: &mut SegmentCounts) -> u32 {
        self.body_remaining = self.body_remaining.wrapping_sub(bytes);
        if self.body_remaining == 0 {
            self.finish_message(counts);
        }
        from + bytes
    }

    /// Evaluates a complete field of `end` bytes with a tag of `tag` bytes.
    #[inline(always)]
    fn read_value(
        &mut self,
        payload: &mut impl Payload,
        chunk: &Chunk,
        tag: u32,
        end: u32,
        counts: &mut SegmentCounts,
    ) {
        let [w0, w1, ..] = *chunk;
        if self.field_state & want::POSSDUP != 0 && w0 & 0xff_ffff == packed(b"43=") {
            if w0 & 0xff_ffff_ffff == packed(b"43=Y\x01") {
                self.field_values |= DUPLICATE;
            }
            self.field_state &= !want::POSSDUP;
        }
        if self.field_state & want::ACTION != 0 && w0 & 0xff_ffff_ffff == packed(b"1373=") {
            // 1 suspends orders, 3 cancels them. 2 releases suspended orders. Other values are unknown.
            let value = w0 >> 40 & 0xffff;
            let reduces = value == packed(b"1\x01") || value == packed(b"3\x01");
            self.field_state &= !want::ACTION;
            self.count_or_defer(if reduces { Class::Cancel } else { Class::Order } as usize, counts);
            if reduces {
                self.field_state &= !want::POSSDUP;
                self.field_values &= !DUPLICATE;
            }
        }
        if self.field_values & DUPLICATE != 0 && self.field_state & (want::ACTION | want::OWNER) == 0 {
            counts.replays = counts.replays.wrapping_add(1);
            self.field_values &= !DUPLICATE;
        }
        if self.field_state & want::REPORT != 0 {
            if w0 & 0xffff_ffff == packed(b"150=") {
                self.field_values |= (w0 >> 32 & 0xff) as u32;
            }
            if w0 & 0xff_ffff == packed(b"39=") {
                self.field_values |= (w0 >> 24 & 0xff) as u32 * 0x100;
            }
            if self.field_values & 0xff != 0 && self.field_values & 0xff00 != 0 {
                counts.count(self.report_class() as usize);
                self.field_state &= !want::REPORT;
            }
        }
        if self.field_state & want::IDENTITY != 0 {
            store_comp_id(chunk, counts, |value| payload.comp_id(value));
        }
        if self.field_state & want::ALL == 0 {
            (self.field_state, self.data_remaining, self.field_values) = (0, 0, 0);
        } else if tag < 7 && is_length(w0 & ((1u64 << (8 * tag)) - 1)) {
            // `tag` is 2 to 4 here. The value starts in the first word, and seven digits end in the second.
            let shift = 8 * (tag + 1);
            let value = w0 >> shift | w1 << (64 - shift);
            // A length of 0 may have no data field behind it.
            if let Some(length) = parse_digits(value, end.wrapping_sub(tag + 1))
                && length != 0
            {
                self.data_remaining = length;
                self.field_state |= DATA;
            }
        }
    }
}

/// Stores the number of a CompID or SubID.
#[inline(always)]
fn store_comp_id(chunk: &Chunk, counts: &mut SegmentCounts, mut number: impl FnMut(&Chunk) -> u32) {
    let position = match chunk[0] & 0xff_ffff {
        tag if tag == const { packed(b"49=") } => 0,
        tag if tag == const { packed(b"56=") } => 1,
        tag if tag == const { packed(b"50=") } => 2,
        tag if tag == const { packed(b"57=") } => 3,
        _ => return,
    };
    // FIX engines use the first value of a repeated field.
    if counts.comp_ids[position & 3] == 0 {
        counts.comp_ids[position & 3] = number(&value(chunk));
    }
}

/// Returns the zero-padded value of a field with a tag of two digits.
#[inline(always)]
fn value(chunk: &Chunk) -> Chunk {
    let [a, b, c, d] = *chunk;
    let (a, a_ends) = until_soh(a >> 24 | b << 40, false);
    let (b, b_ends) = until_soh(b >> 24 | c << 40, a_ends);
    let (c, c_ends) = until_soh(c >> 24 | d << 40, b_ends);
    let (d, _) = until_soh(d >> 24, c_ends);
    [a, b, c, d]
}

/// Returns the bytes of a word before its first SOH, and true if the value has ended.
///
/// Returns no bytes if the value had already ended.
#[inline(always)]
fn until_soh(word: u64, ended: bool) -> (u64, bool) {
    let length = if ended { 0 } else { find_byte(word, SOH) };
    let kept = if length == 8 { word } else { word & ((1u64 << (8 * length)) - 1) };
    (kept, length != 8)
}

//! Reading the fields of a message, for the few whose fate a field decides.
//!
//! Counting hops over bodies. But whether an order is a replay stands in PossDupFlag(43), what a mass action does in
//! MassActionType(1373), whose a connection is in the CompIDs of its first message, and what an execution report reports in
//! ExecType(150) and OrdStatus(39). Such a message is walked field by field instead; one window a field, however the fields are cut
//! over segments. Data fields are hopped over by the length in the field before them, so what they hold cannot mislead.

use crate::abi::{Framing, identity};
use crate::counts::SegmentCounts;
use crate::fix::{CHUNK, Chunk, SOH, find_byte, parse_digits};
use crate::framing::{DUPLICATE, LONG};
use crate::message::{Class, want};
use crate::payload::{Payload, concat};

/// The next field is data, of the length in `Framing::hop`.
const DATA: u32 = 1 << 9;

/// The first bytes of a field as they lie in a word.
const fn text<const N: usize>(text: &[u8; N]) -> u64 {
    let mut packed = 0;
    let mut i = N;
    while i > 0 {
        i -= 1;
        packed = packed << 8 | text[i] as u64;
    }
    packed
}

/// Declares the tags that give the length of the data field behind them.
macro_rules! lengths {
    ($($tag:literal)+) => {
        /// Tags that give the length of the data field behind them, in all dictionaries from 4.0 to 5.0SP2.
        pub const LENGTHS: &[u32] = &[$($tag),+];

        /// True where the tag, as text, is one of them.
        #[inline(always)]
        fn is_length(tag: u64) -> bool {
            $(tag == const { digits($tag) })||+
        }
    };
}

lengths! {
    90 93 95 212 348 350 352 354 356 358 360 362 364 445 618 621 1184 1277 1280 1282 1397 1401 1403 1468
}

/// A tag's digits as they lie in a word.
const fn digits(tag: u32) -> u64 {
    let mut packed = 0;
    let mut rest = tag;
    while rest > 0 {
        packed = packed << 8 | (b'0' as u64 + (rest % 10) as u64);
        rest /= 10;
    }
    packed
}

/// Position of the first SOH in a window, [`CHUNK`] where there is none.
#[inline(always)]
fn end(window: &Chunk) -> u32 {
    let mut at = CHUNK as u32;
    let [w0, w1, w2, w3] = *window;
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
    /// Reads the next field of the message that is being walked, as far as it lies between `from` and `to`. Returns where to go on.
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
        let held = self.partial_bytes & (CHUNK as u32 - 1);
        let room = CHUNK as u32 - held;
        let length = if left < room { left } else { room };
        let Some(read) = payload.chunk(from, length) else { return self.mark_blind((from, to), counts) };
        let window = if held == 0 { read } else { concat(&self.partial, &read, held) };
        let have = held + length;
        let end = end(&window);
        // Behind the bytes that there are, all is zero.
        let whole = end < have;
        if self.field_state & LONG != 0 {
            if whole {
                self.field_state &= !LONG;
            }
            return self.consume(if whole { end + 1 } else { length }, from, counts);
        }
        let tag = find_byte(window[0], b'=');
        let cut = have < CHUNK as u32 && length < self.body_remaining;
        if self.field_state & DATA != 0 {
            if tag < 8 && tag < end {
                self.field_state &= !DATA;
                self.partial_bytes = 0;
                // The tag, `=`, the data, SOH; less what is behind already.
                self.data_remaining = (self.data_remaining + tag + 2).saturating_sub(held);
                return from;
            }
            if whole || !(cut && have < 8) {
                // A field without a tag is no data.
                self.field_state &= !DATA;
                self.data_remaining = 0;
            }
        }
        if !whole && cut {
            self.partial = window;
            self.partial_bytes = have;
            return self.consume(length, from, counts);
        }
        self.partial_bytes = 0;
        if whole {
            self.note(payload, &window, tag, end, counts);
            return self.consume(end + 1 - held, from, counts);
        }
        // A value longer than any that is looked for, or a message that ends without an SOH.
        self.field_state |= LONG;
        if self.field_state & want::IDENTITY != 0 {
            identify(&window, counts, |_| identity::UNKNOWN);
        }
        self.consume(length, from, counts)
    }

    /// Goes on by so many bytes of the message, and settles what is open where it ends.
    #[inline(always)]
    fn consume(&mut self, bytes: u32, from: u32, counts: &mut SegmentCounts) -> u32 {
        self.body_remaining = self.body_remaining.wrapping_sub(bytes);
        if self.body_remaining == 0 {
            self.finish_message(counts);
        }
        from + bytes
    }

    /// Looks at a whole field of `end` bytes whose tag has `tag` of them.
    #[inline(always)]
    fn note(
        &mut self,
        payload: &mut impl Payload,
        window: &Chunk,
        tag: u32,
        end: u32,
        counts: &mut SegmentCounts,
    ) {
        let [w0, w1, ..] = *window;
        if self.field_state & want::POSSDUP != 0 && w0 & 0xff_ffff == text(b"43=") {
            if w0 & 0xff_ffff_ffff == text(b"43=Y\x01") {
                self.field_values |= DUPLICATE;
            }
            self.field_state &= !want::POSSDUP;
        }
        if self.field_state & want::ACTION != 0 && w0 & 0xff_ffff_ffff == text(b"1373=") {
            // 1 suspends orders, 3 cancels them; 2 releases them, and any other may do anything.
            let value = w0 >> 40 & 0xffff;
            let reduces = value == text(b"1\x01") || value == text(b"3\x01");
            self.field_state &= !want::ACTION;
            self.count_or_defer(if reduces { Class::Cancel } else { Class::Order } as usize, counts);
            if reduces {
                // No order, and so no replay of one.
                self.field_state &= !want::POSSDUP;
                self.field_values &= !DUPLICATE;
            }
        }
        if self.field_values & DUPLICATE != 0 && self.field_state & (want::ACTION | want::OWNER) == 0 {
            counts.replays = counts.replays.wrapping_add(1);
            self.field_values &= !DUPLICATE;
        }
        if self.field_state & want::REPORT != 0 {
            if w0 & 0xffff_ffff == text(b"150=") {
                self.field_values |= (w0 >> 32 & 0xff) as u32;
            }
            if w0 & 0xff_ffff == text(b"39=") {
                self.field_values |= (w0 >> 24 & 0xff) as u32 * 0x100;
            }
            if self.field_values & 0xff != 0 && self.field_values & 0xff00 != 0 {
                counts.count(self.report_class() as usize);
                self.field_state &= !want::REPORT;
            }
        }
        if self.field_state & want::IDENTITY != 0 {
            identify(window, counts, |value| payload.comp_id(value));
        }
        if self.field_state & want::ALL == 0 {
            // What is left of it is hopped over like any message.
            (self.field_state, self.data_remaining, self.field_values) = (0, 0, 0);
        } else if tag < 7 && is_length(w0 & ((1u64 << (8 * tag)) - 1)) {
            // `tag` is 2 to 4 here: the value begins in the first word, and seven digits end in the second.
            let shift = 8 * (tag + 1);
            let value = w0 >> shift | w1 << (64 - shift);
            // Of no length, there need be no data: then the next field is one like any.
            if let Some(length) = parse_digits(value, end.wrapping_sub(tag + 1))
                && length != 0
            {
                self.data_remaining = length;
                self.field_state |= DATA;
            }
        }
    }
}

/// Notes the number of a CompID or SubID.
#[inline(always)]
fn identify(window: &Chunk, counts: &mut SegmentCounts, mut number: impl FnMut(&Chunk) -> u32) {
    let position = match window[0] & 0xff_ffff {
        tag if tag == const { text(b"49=") } => 0,
        tag if tag == const { text(b"56=") } => 1,
        tag if tag == const { text(b"50=") } => 2,
        tag if tag == const { text(b"57=") } => 3,
        _ => return,
    };
    // The first value of a field counts, as for every engine.
    if counts.comp_ids[position & 3] == 0 {
        counts.comp_ids[position & 3] = number(&value(window));
    }
}

/// The value of a field with a tag of two digits, zero-padded.
#[inline(always)]
fn value(window: &Chunk) -> Chunk {
    let [a, b, c, d] = *window;
    let (a, a_ends) = until_soh(a >> 24 | b << 40, false);
    let (b, b_ends) = until_soh(b >> 24 | c << 40, a_ends);
    let (c, c_ends) = until_soh(c >> 24 | d << 40, b_ends);
    let (d, _) = until_soh(d >> 24, c_ends);
    [a, b, c, d]
}

/// The bytes of a word before its first SOH, and whether the value ends with it; nothing where it has ended before.
#[inline(always)]
fn until_soh(word: u64, ended: bool) -> (u64, bool) {
    let length = if ended { 0 } else { find_byte(word, SOH) };
    let kept = if length == 8 { word } else { word & ((1u64 << (8 * length)) - 1) };
    (kept, length != 8)
}

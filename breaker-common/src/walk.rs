//! FIX framing over the bytes of a connection: which messages start in a segment, and where the next one must start.
//!
//! Which bytes of a segment are new is the question of [`crate::sequence`]; what is done where no message starts is in [`crate::blind`].
//! No byte is read that can be hopped over.

use core::hint::cold_path;

use crate::abi::{Framing, sync};
use crate::counts::SegmentCounts;
use crate::fix::{self, CHUNK, Header, MsgType};
use crate::message::{Class, MessageKind, want};
use crate::payload::{Payload, concat};

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
        while hops < most && at < to && to - at >= CHUNK as u32 {
            let Some(window) = payload.chunk(at, CHUNK as u32) else { break };
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
        // `held` is below CHUNK whenever a header is unfinished; the mask tells the verifier.
        let held = self.partial_bytes & (CHUNK as u32 - 1);
        let room = CHUNK as u32 - held;
        let length = if left < room { left } else { room };
        let Some(read) = payload.chunk(from, length) else { return self.mark_blind((from, to), counts) };
        let window = if held == 0 { read } else { concat(&self.partial, &read, held) };
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

//! The walk over the new bytes of a segment: it counts the messages that start in the segment.
//!
//! The length in a header gives the offset of the next message, so the walk skips message bodies. The module
//! [`crate::sequence`] decides which bytes of a segment are new. The module [`crate::blind`] handles a stream
//! whose next message offset is unknown.

use core::hint::cold_path;

use crate::abi::{Framing, sync};
use crate::counts::SegmentCounts;
use crate::fix::{self, CHUNK, Header, MsgType};
use crate::message::{Class, MessageKind, want};
use crate::payload::{Payload, concat};

impl Framing {
    /// Counts and skips messages with a common header ([`fix::common_header`]) whose fields are not
    /// inspected.
    ///
    /// Stops after `max_messages`, and at a message longer than `longest` bytes. Returns the offset to
    /// continue at: `to` at the end, otherwise the message that [`Self::step`] has to read. `class_of`
    /// returns the class of a MsgType of one character.
    #[inline(always)]
    pub fn skip_common(
        &mut self,
        payload: &mut impl Payload,
        (from, to): (u32, u32),
        (max_messages, longest): (u32, u32),
        class_of: impl Fn(MsgType) -> Class,
        counts: &mut SegmentCounts,
    ) -> u32 {
        if self.sync != sync::IN_SYNC || self.field_state != 0 || self.partial_bytes != 0 {
            return from;
        }
        let mut at = from.wrapping_add(self.body_remaining);
        let (mut last, mut last_class) = (self.message_bytes, self.message_class);
        let mut skipped = 0;
        while skipped < max_messages && at < to && to - at >= CHUNK as u32 {
            let Some(chunk) = payload.chunk(at, CHUNK as u32) else { break };
            let Some((msg_type, length)) = fix::common_header(&chunk) else { break };
            if length > longest {
                break;
            }
            (last, last_class) = (length, class_of(msg_type) as u32);
            counts.count(last_class as usize);
            at = at.wrapping_add(length);
            skipped += 1;
        }
        (self.message_bytes, self.message_class) = (last, last_class);
        self.body_remaining = at.saturating_sub(to);
        if at < to { at } else { to }
    }

    /// Counts the next message that starts in `from..to`, or reads one field of the inspected message.
    ///
    /// Returns the offset to continue at: `to` at the end. The stream must be in sync; [`Self::resync`]
    /// handles a blind stream. `kind_of` returns the class of a MsgType and the fields to find. A message
    /// longer than `longest` bytes is implausible.
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
        // `partial_bytes` is below CHUNK while a header is incomplete. The mask proves that to the verifier.
        let partial = self.partial_bytes & (CHUNK as u32 - 1);
        let room = CHUNK as u32 - partial;
        let length = if left < room { left } else { room };
        let Some(read) = payload.chunk(from, length) else { return self.mark_blind((from, to), counts) };
        let chunk = if partial == 0 { read } else { concat(&self.partial, &read, partial) };
        match payload.header(&chunk, partial + length) {
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
                    let rest = whole - partial;
                    self.body_remaining = rest.saturating_sub(left);
                    return if rest < left { from + rest } else { to };
                }
                self.body_remaining = whole - body_offset;
                from + (body_offset - partial)
            }
            Header::Partial => {
                self.partial = chunk;
                self.partial_bytes = partial + length;
                to
            }
            Header::Message { .. } | Header::Implausible => {
                cold_path();
                // The bytes in `partial` have already passed as the start of a message.
                counts.blind_bytes = counts.blind_bytes.wrapping_add(partial);
                self.lose_sync(counts);
                from
            }
        }
    }
}

//! Transitions of the framing state: the end of a message, a desync, unread bytes.

use bytemuck::Zeroable;

use crate::abi::{Framing, sync};
use crate::counts::SegmentCounts;
use crate::message::{Class, InboundClass, want};

/// Bit of `Framing::field_state`: the rest of a value that is longer than a chunk is skipped.
pub(crate) const LONG: u32 = 1 << 8;
/// Bit of `Framing::field_values`: the message is a possible duplicate and is not counted as a replay yet.
pub(crate) const DUPLICATE: u32 = 1 << 16;
/// Lowest bit in `Framing::field_values` of 1 + the class of a message that is not counted yet.
const CLASS_SHIFT: u32 = 24;

impl Framing {
    /// Finishes the current message and counts it. A field that was not found counts as absent.
    #[inline(always)]
    pub(crate) fn finish_message(&mut self, counts: &mut SegmentCounts) {
        if self.field_state & want::ACTION != 0 {
            counts.count(Class::Order as usize);
        }
        if self.field_state & want::REPORT != 0 {
            counts.count(self.report_class() as usize);
        }
        let class = self.field_values >> CLASS_SHIFT;
        if class != 0 {
            counts.count(class as usize - 1);
        }
        counts.replays = counts.replays.wrapping_add((self.field_values & DUPLICATE != 0) as u32);
        if self.field_state & want::IDENTITY != 0 {
            counts.identity_complete = 1;
        }
        (self.field_state, self.data_remaining, self.field_values, self.partial_bytes) = (0, 0, 0, 0);
    }

    /// Counts the message now, or at its end if the message identifies the session.
    #[inline(always)]
    pub(crate) fn count_or_defer(&mut self, class: usize, counts: &mut SegmentCounts) {
        if self.field_state & want::OWNER == 0 {
            counts.count(class);
        } else {
            self.field_values |= (class as u32 + 1) << CLASS_SHIFT;
        }
    }

    /// Records that bytes of the message are missing, so that the next byte may be inside any field.
    #[inline(always)]
    pub(crate) fn lose_field_position(&mut self) {
        self.partial_bytes = 0;
        self.data_remaining = 0;
        self.field_state = self.field_state & want::ALL | LONG;
    }

    /// Records a desync: no message starts where one must start.
    ///
    /// The length of the previous message was wrong, or did not help to find this message.
    #[inline(always)]
    pub fn lose_sync(&mut self, counts: &mut SegmentCounts) {
        counts.desyncs = counts.desyncs.wrapping_add(1);
        self.finish_message(counts);
        self.recount(self.message_bytes, counts);
        *self = Self { sync: sync::BLIND, ..Self::zeroed() };
    }

    /// Counts `bytes` of the last message as unread instead.
    #[inline(always)]
    pub(crate) fn recount(&self, bytes: u32, counts: &mut SegmentCounts) {
        counts.blind_bytes = counts.blind_bytes.wrapping_add(bytes);
        let counted = self.message_bytes != 0 && self.message_class == Class::Order as u32;
        counts.recounted_orders = counts.recounted_orders.wrapping_add(counted as u32);
    }

    /// Counts the bytes `from..to` as unread and makes the stream blind. Returns `to`.
    ///
    /// The bytes exist but cannot be read, or cannot be trusted.
    #[inline(always)]
    pub fn mark_blind(&mut self, (from, to): (u32, u32), counts: &mut SegmentCounts) -> u32 {
        counts.desyncs = counts.desyncs.wrapping_add((self.sync == sync::IN_SYNC) as u32);
        self.finish_message(counts);
        counts.blind_bytes = counts.blind_bytes.wrapping_add(to.wrapping_sub(from));
        *self = Self { sync: sync::BLIND, ..Self::zeroed() };
        to
    }

    /// Returns the class of an execution report, from the fields found so far.
    #[inline(always)]
    pub(crate) fn report_class(&self) -> InboundClass {
        let [exec_type, order_status, ..] = self.field_values.to_le_bytes();
        match (exec_type, order_status) {
            // ExecType of a fill: 1 or 2 up to FIX 4.2, F from FIX 4.3. FIX 4.0 has only OrdStatus.
            (b'F' | b'1' | b'2', _) | (0, b'1' | b'2') => InboundClass::Fill,
            (_, b'8') | (b'8', 0) => InboundClass::Reject,
            _ => InboundClass::Other,
        }
    }
}

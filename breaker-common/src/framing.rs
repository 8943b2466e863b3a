//! Changes of framing state: a message ends, a stream is lost, bytes are skipped.

use bytemuck::Zeroable;

use crate::abi::{Framing, sync};
use crate::counts::SegmentCounts;
use crate::message::{Class, InboundClass, want};

/// The walk is inside a value that is longer than the window.
pub(crate) const LONG: u32 = 1 << 8;
/// In `Framing::seen`: it is a possible duplicate, and not yet counted as such.
pub(crate) const DUPLICATE: u32 = 1 << 16;
/// From this bit on: 1 more than the class of a message that is not yet counted.
const CLASS_AT: u32 = 24;

impl Framing {
    /// The message is over, or can be read no further: what was not found is taken as its absence is.
    #[inline(always)]
    pub(crate) fn finish_message(&mut self, counts: &mut SegmentCounts) {
        if self.field_state & want::ACTION != 0 {
            counts.count(Class::Order as usize);
        }
        if self.field_state & want::REPORT != 0 {
            counts.count(self.report_class() as usize);
        }
        let class = self.field_values >> CLASS_AT;
        if class != 0 {
            counts.count(class as usize - 1);
        }
        counts.replays = counts.replays.wrapping_add((self.field_values & DUPLICATE != 0) as u32);
        if self.field_state & want::IDENTITY != 0 {
            counts.identity_complete = 1;
        }
        (self.field_state, self.data_remaining, self.field_values, self.partial_bytes) = (0, 0, 0, 0);
    }

    /// Counts the message, once it is known whose it is.
    #[inline(always)]
    pub(crate) fn count_or_defer(&mut self, class: usize, counts: &mut SegmentCounts) {
        if self.field_state & want::OWNER == 0 {
            counts.count(class);
        } else {
            self.field_values |= (class as u32 + 1) << CLASS_AT;
        }
    }

    /// Bytes of the message were jumped over: its fields may be anywhere from here on.
    #[inline(always)]
    pub(crate) fn lose_place(&mut self) {
        self.partial_bytes = 0;
        self.data_remaining = 0;
        self.field_state = self.field_state & want::ALL | LONG;
    }

    /// No message begins where one must. The message before it had a wrong length, or is of no use to tell where the next one is.
    #[inline(always)]
    pub fn lose_sync(&mut self, counts: &mut SegmentCounts) {
        counts.desyncs = counts.desyncs.wrapping_add(1);
        self.finish_message(counts);
        self.recount(self.message_bytes, counts);
        *self = Self { sync: sync::BLIND, ..Self::zeroed() };
    }

    /// Counts so many bytes of the last message as unread.
    #[inline(always)]
    pub(crate) fn recount(&self, bytes: u32, counts: &mut SegmentCounts) {
        counts.blind_bytes = counts.blind_bytes.wrapping_add(bytes);
        let counted = self.message_bytes != 0 && self.message_class == Class::Order as u32;
        counts.recounted_orders = counts.recounted_orders.wrapping_add(counted as u32);
    }

    /// Bytes that are there and cannot be read, or not be relied on: blind from `from` to `to`. Returns `to`.
    #[inline(always)]
    pub fn mark_blind(&mut self, (from, to): (u32, u32), counts: &mut SegmentCounts) -> u32 {
        counts.desyncs = counts.desyncs.wrapping_add((self.sync == sync::IN_SYNC) as u32);
        self.finish_message(counts);
        counts.blind_bytes = counts.blind_bytes.wrapping_add(to.wrapping_sub(from));
        *self = Self { sync: sync::BLIND, ..Self::zeroed() };
        to
    }

    /// What the fields of an execution report that were seen make of it.
    #[inline(always)]
    pub(crate) fn report_class(&self) -> InboundClass {
        let [exec_type, order_status, ..] = self.field_values.to_le_bytes();
        match (exec_type, order_status) {
            // Up to 4.2 a fill is 1 or 2, from 4.3 on F. In 4.0 there is the order's status alone.
            (b'F' | b'1' | b'2', _) | (0, b'1' | b'2') => InboundClass::Fill,
            (_, b'8') | (b'8', 0) => InboundClass::Reject,
            _ => InboundClass::Other,
        }
    }
}

//! Counts of one segment: messages, unread bytes and desyncs.

use core::hint::black_box;

use bytemuck::{Pod, Zeroable};

use crate::message::{Class, TOTAL};

/// Minimum length of an order in bytes.
///
/// The required fields alone (header, ClOrdID, Side, OrderQty, OrdType, TransactTime, trailer) are longer.
pub const BYTES_PER_ORDER: u32 = 100;

/// Counts of one segment.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct SegmentCounts {
    /// Messages by class: those of [`Class`], then those of [`crate::message::InboundClass`]. At [`TOTAL`] is
    /// the result of [`Self::store_total`].
    pub messages: [u32; 10],
    /// Number of desyncs.
    pub desyncs: u32,
    /// 1 if the segment has bytes that were sent before.
    pub repeated: u32,
    /// 1 if any byte was not read: the stream was blind before, in or behind the segment.
    pub unread: u32,
    /// Orders with PossDupFlag(43)=Y, if [`crate::message::want::POSSDUP`] is set.
    pub replays: u32,
    /// Numbers of the CompIDs and SubIDs ([`crate::abi::identity`]), if [`crate::message::want::IDENTITY`] is
    /// set; 0 for a field that was not seen.
    pub comp_ids: [u32; 4],
    /// 1 if a message ended whose CompIDs were read.
    pub identity_complete: u32,
    /// Unread bytes, in the segment or in earlier messages whose length proved wrong.
    pub blind_bytes: u32,
    /// Orders counted in those earlier messages before their length proved wrong.
    pub recounted_orders: u32,
    /// Headers in unread bytes that did not start a message.
    pub false_headers: u32,
}

impl SegmentCounts {
    /// Counts a message. `class` is an index in `messages`.
    #[inline(always)]
    pub(crate) fn count(&mut self, class: usize) {
        // The verifier has to see the bound. Without `black_box` the compiler omits the mask.
        let class = black_box(class) & 7;
        self.messages[class] = self.messages[class].wrapping_add(1);
    }

    /// Returns the number of messages of one class.
    #[inline(always)]
    pub fn class_count(&self, class: Class) -> u32 {
        self.messages[class as usize]
    }

    /// Returns the number of outbound messages of all classes.
    #[inline(always)]
    pub fn total(&self) -> u32 {
        let [order, cancel, interest, query, admin, ..] = self.messages;
        order.wrapping_add(cancel).wrapping_add(interest).wrapping_add(query).wrapping_add(admin)
    }

    /// Stores [`Self::total`] for the limits that count every message, and returns the total.
    #[inline(always)]
    pub fn store_total(&mut self) -> u32 {
        let total = self.total();
        self.messages[TOTAL] = total;
        total
    }

    /// Returns the number of messages that a limit with this [`crate::abi::LimitRef::counter`] counts.
    ///
    /// Returns `None` behind the last limit of a session.
    #[inline(always)]
    pub fn for_counter(&self, counter: u16) -> Option<u64> {
        self.messages.get((counter as usize).wrapping_sub(1)).map(|count| *count as u64)
    }

    /// Returns the number of orders that the unread bytes count as.
    #[inline(always)]
    pub fn blind_orders(&self) -> u32 {
        self.blind_bytes.div_ceil(BYTES_PER_ORDER).saturating_sub(self.recounted_orders)
    }
}

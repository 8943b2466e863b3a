//! The messages, bytes and desyncs that one segment brought.

use core::hint::black_box;

use bytemuck::{Pod, Zeroable};

use crate::message::{Class, TOTAL};

/// No order is shorter: its fields alone (header, ClOrdID, Side, OrderQty, OrdType, TransactTime, trailer) take more.
pub const BYTES_PER_ORDER: u32 = 100;

/// What a segment brought.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct SegmentCounts {
    /// Messages that started in it, by class: those of [`Class`], behind them those of [`crate::message::InboundClass`], and at [`TOTAL`] what
    /// [`Self::store_total`] found.
    pub messages: [u32; 10],
    /// Times the stream was lost in it.
    pub desyncs: u32,
    /// 1 where it held bytes that were seen before.
    pub repeated: u32,
    /// 1 where any of it could not be read: the stream is lost before, in or behind it.
    pub unread: u32,
    /// Orders in it that PossDupFlag(43) calls possible duplicates, where that is looked at.
    pub replays: u32,
    /// Numbers of the CompIDs and SubIDs in it ([`crate::abi::identity`]), where they are looked at; 0 for those not seen.
    pub comp_ids: [u32; 4],
    /// 1 where a message ended in it that was looked at for them.
    pub identity_complete: u32,
    /// Bytes that could not be read: in the segment, or in messages before it whose length has turned out to be wrong.
    pub blind_bytes: u32,
    /// Orders that were counted in those messages before that was known.
    pub recounted_orders: u32,
    /// Headers in unread bytes that turned out to begin no message.
    pub false_headers: u32,
}

impl SegmentCounts {
    /// Counts a message: a position in `messages`.
    #[inline(always)]
    pub(crate) fn count(&mut self, class: usize) {
        // The verifier must see the bound, which the compiler would take for granted.
        let class = black_box(class) & 7;
        self.messages[class] = self.messages[class].wrapping_add(1);
    }

    /// Messages of one class.
    #[inline(always)]
    pub fn class_count(&self, class: Class) -> u32 {
        self.messages[class as usize]
    }

    /// Messages of all classes that go out.
    #[inline(always)]
    pub fn total(&self) -> u32 {
        let [order, cancel, interest, query, admin, ..] = self.messages;
        order.wrapping_add(cancel).wrapping_add(interest).wrapping_add(query).wrapping_add(admin)
    }

    /// Notes [`Self::total`] for the limits that count every message.
    #[inline(always)]
    pub fn store_total(&mut self) -> u32 {
        let total = self.total();
        self.messages[TOTAL] = total;
        total
    }

    /// Messages that a limit with this counter counts; `None` behind the last limit of a session ([`crate::abi::LimitRef`]).
    #[inline(always)]
    pub fn for_counter(&self, counter: u16) -> Option<u64> {
        self.messages.get((counter as usize).wrapping_sub(1)).map(|count| *count as u64)
    }

    /// Orders that the unread bytes count as.
    #[inline(always)]
    pub fn blind_orders(&self) -> u32 {
        self.blind_bytes.div_ceil(BYTES_PER_ORDER).saturating_sub(self.recounted_orders)
    }
}

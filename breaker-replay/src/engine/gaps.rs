//! Segments ahead of a gap wait until the gap is filled or given up.

use breaker_common::abi::{Connection, ConnectionKey};
use breaker_common::decide::{SYN, Segment};

use super::{Engine, Observer};
use crate::model::Slot;

impl Engine {
    /// Holds a segment ahead of a gap back. Returns false if it is in order.
    #[inline(always)]
    pub(super) fn hold(
        &mut self,
        slot: Slot,
        key: &ConnectionKey,
        segment: &Segment,
        payload: &[u8],
    ) -> bool {
        if !self.settings.ordered || segment.length == 0 || segment.flags & SYN != 0 {
            return false;
        }
        let connection = self.primary.at(slot);
        let is_ahead = (segment.seq.wrapping_sub(connection.stream.next_seq) as i32) > 0;
        if !is_ahead
            || connection.session == Connection::IGNORED
            || connection.pending == Connection::CANDIDATE
        {
            return false;
        }
        self.figures.outbound += 1;
        self.order.hold(key, segment, payload, self.now_ns);
        true
    }

    /// Processes the waiting segments that are in order now.
    #[cold]
    pub(super) fn release(&mut self, key: &ConnectionKey, observer: &mut impl Observer) {
        while let Some(connection) = self.primary.connection(key) {
            let next_seq = connection.stream.next_seq;
            let Some(held) = self.order.take(key, next_seq, self.now_ns) else { return };
            self.figures.outbound -= 1;
            self.outbound(key, &held.segment, &held.payload, observer);
        }
        self.skip_gap(key, observer);
    }

    /// Gives the gap of a connection up: the first waiting segment is processed.
    #[cold]
    pub(super) fn skip_gap(&mut self, key: &ConnectionKey, observer: &mut impl Observer) {
        let Some(first) = self.order.first(key) else { return };
        if let Some(connection) = self.primary.connection(key) {
            let missing = first.wrapping_sub(connection.stream.next_seq);
            if missing as i32 > 0 {
                self.figures.gaps += 1;
                self.figures.gap_bytes += missing as u64;
            }
        }
        self.primary.skip_gap(key, first);
        if let Some(enforced) = &mut self.enforced {
            enforced.skip_gap(key, first);
        }
        if let Some(held) = self.order.take(key, first, self.now_ns) {
            self.figures.outbound -= 1;
            self.outbound(key, &held.segment, &held.payload, observer);
        }
        if self.order.waits(key) && self.primary.connection(key).is_some() {
            self.release(key, observer);
        }
    }
}

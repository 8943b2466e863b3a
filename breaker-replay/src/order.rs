//! Segments that a capture shows ahead of a gap wait here until the gap is filled.
//!
//! A hook at the sender withholds such a segment, and TCP sends it again. In a capture the segment has
//! passed, so it is read as soon as the bytes before it are there.

use std::collections::VecDeque;

use breaker_common::abi::ConnectionKey;
use breaker_common::decide::Segment;

use crate::model::connections::Connections;

/// A segment that waits.
pub(crate) struct Held {
    pub(crate) segment: Segment,
    pub(crate) payload: Vec<u8>,
}

/// The waiting segments of a connection, in the order of their sequence numbers.
struct Queue {
    segments: VecDeque<Held>,
    bytes: usize,
    since_ns: u64,
}

/// The waiting segments of all connections.
#[derive(Default)]
pub(crate) struct Order {
    queues: Connections<Queue>,
    bytes: usize,
}

/// Longest time for a gap, ns. A retransmission timeout is a second at first (RFC 6298).
const MAX_WAIT_NS: u64 = 3_000_000_000;
/// Most waiting segments of a connection.
const MAX_SEGMENTS: usize = 1024;
/// Most waiting bytes of a connection.
const MAX_BYTES: usize = 1 << 20;
/// Most waiting bytes of all connections.
const MAX_BYTES_IN_ALL: usize = 32 << 20;

impl Order {
    /// Returns true if no segment waits.
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// Returns true if a segment of this connection waits.
    pub(crate) fn waits(&self, key: &ConnectionKey) -> bool {
        self.queues.find(key).is_some()
    }

    /// Returns true if the gap of a connection is not worth more time or memory.
    pub(crate) fn is_overdue(&self, key: &ConnectionKey, now_ns: u64) -> bool {
        self.queues.get(key).is_some_and(|queue| {
            now_ns.saturating_sub(queue.since_ns) > MAX_WAIT_NS
                || queue.segments.len() > MAX_SEGMENTS
                || queue.bytes > MAX_BYTES
                || self.bytes > MAX_BYTES_IN_ALL
        })
    }

    /// Adds a segment.
    pub(crate) fn hold(&mut self, key: &ConnectionKey, segment: &Segment, payload: &[u8], now_ns: u64) {
        if !self.waits(key) {
            self.queues.insert(key, Queue { segments: VecDeque::new(), bytes: 0, since_ns: now_ns });
        }
        let Some(queue) = self.queues.get_mut(key) else { return };
        let is_before = |held: &Held| (held.segment.seq.wrapping_sub(segment.seq) as i32) <= 0;
        let at = queue.segments.iter().rposition(is_before).map_or(0, |at| at + 1);
        queue.segments.insert(at, Held { segment: *segment, payload: payload.to_vec() });
        let bytes = payload.len() + size_of::<Held>();
        queue.bytes += bytes;
        self.bytes += bytes;
    }

    /// Returns the first sequence number that waits.
    pub(crate) fn first(&self, key: &ConnectionKey) -> Option<u32> {
        Some(self.queues.get(key)?.segments.front()?.segment.seq)
    }

    /// Takes the first segment if it continues the stream at `next_seq`.
    pub(crate) fn take(&mut self, key: &ConnectionKey, next_seq: u32, now_ns: u64) -> Option<Held> {
        let queue = self.queues.get_mut(key)?;
        let first = queue.segments.front()?;
        if (first.segment.seq.wrapping_sub(next_seq) as i32) > 0 {
            return None;
        }
        let held = queue.segments.pop_front()?;
        let bytes = held.payload.len() + size_of::<Held>();
        queue.bytes -= bytes;
        // What waits behind it waits for another gap.
        queue.since_ns = now_ns;
        self.bytes -= bytes;
        if queue.segments.is_empty() {
            self.queues.remove(key);
        }
        Some(held)
    }

    /// Returns a connection with waiting segments.
    pub(crate) fn any(&self) -> Option<ConnectionKey> {
        self.queues.iter().next().map(|(key, _)| *key)
    }
}

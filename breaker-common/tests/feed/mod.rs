//! The outbound direction of one connection, and the counts of its segments.

use breaker_common::abi::Stream;
use breaker_common::class::{self, outbound_kind};
use breaker_common::counts::SegmentCounts;
use breaker_common::fix::MsgType;
use breaker_common::message::MessageKind;
use breaker_common::sequence::Arrival;
use breaker_replay::model::payload::Bytes;
use breaker_replay::model::walk::Walk;

/// Returns the kind of an outbound message whose fields are not inspected.
pub fn uninspected_kind(msg_type: MsgType) -> MessageKind {
    outbound_kind(msg_type, (class::default_class(msg_type), false), 0, 0)
}

/// A stream and its counts.
pub struct Feed {
    /// State of the stream.
    pub stream: Stream,
    /// Sum of the counts of all segments.
    pub counts: SegmentCounts,
    /// Returns the kind of a message by its MsgType.
    pub kind_of: fn(MsgType) -> MessageKind,
    /// True if the SYN was seen.
    pub opened: bool,
    /// Maximum length of a message in bytes.
    pub longest: u32,
    /// True if messages with a common header are skipped at once.
    pub skips_common: bool,
}

impl Feed {
    /// Starts with a stream in this state.
    pub fn new(stream: Stream) -> Self {
        Self {
            stream,
            counts: SegmentCounts::default(),
            kind_of: uninspected_kind,
            opened: true,
            longest: u32::MAX,
            skips_common: true,
        }
    }

    /// Processes a segment. Returns false if the segment is withheld.
    pub fn segment(&mut self, seq: u32, payload: &[u8]) -> bool {
        let (length, opened) = (payload.len() as u32, self.opened);
        // `false_headers` is per segment.
        self.counts.false_headers = 0;
        match self.stream.advance(seq, length, opened, true, &mut self.counts) {
            Arrival::New(from) => {
                let Self { kind_of, longest, skips_common, .. } = *self;
                let (payload, bytes) = (Bytes(payload, &[]), (from, length));
                let walk = Walk { longest, kind_of, skips_common };
                walk.segment(&mut self.stream.framing, payload, bytes, &mut self.counts);
                true
            }
            Arrival::Repeated => true,
            Arrival::Ahead | Arrival::Foreign => false,
        }
    }

    /// Returns the number of orders so far, including those that unread bytes count as.
    pub fn orders(&self) -> u32 {
        self.counts.messages[0] + self.counts.blind_orders()
    }
}

//! The sending side of one connection, cut into segments, and what the walk counts in it.

#[path = "../model/walk.rs"]
pub mod walk;

use breaker_common::abi::Stream;
use breaker_common::class;
use breaker_common::class::outbound_kind;
use breaker_common::counts::SegmentCounts;
use breaker_common::fix::MsgType;
use breaker_common::message::MessageKind;
use breaker_common::sequence::Arrival;

/// What becomes of a message that goes out and is not looked into.
pub fn ordinary(msg_type: MsgType) -> MessageKind {
    outbound_kind(msg_type, (class::default_class(msg_type), false), 0, 0)
}

/// A stream under observation.
pub struct Feed {
    /// Its state.
    pub stream: Stream,
    /// What all segments so far have brought.
    pub counts: SegmentCounts,
    /// What becomes of a message: of one that goes out, unless it is said otherwise.
    pub kind_of: fn(MsgType) -> MessageKind,
    /// Whether its SYN was seen.
    pub opened: bool,
    /// Bytes of the longest message that is believed.
    pub longest: u32,
    /// Whether messages of the common kind are hopped over at once, as where nothing of them is looked at.
    pub hops: bool,
}

impl Feed {
    /// Takes up a stream in this state.
    pub fn of(stream: Stream) -> Self {
        Self {
            stream,
            counts: SegmentCounts::default(),
            kind_of: ordinary,
            opened: true,
            longest: u32::MAX,
            hops: true,
        }
    }

    /// Shows it a segment. False where it is withheld.
    pub fn segment(&mut self, seq: u32, payload: &[u8]) -> bool {
        let (length, opened) = (payload.len() as u32, self.opened);
        // `tried` is of one segment.
        self.counts.false_headers = 0;
        match self.stream.advance(seq, length, opened, true, &mut self.counts) {
            Arrival::New(from) => {
                let payload = walk::Bytes(payload, &[]);
                let framing = &mut self.stream.framing;
                walk::walk(
                    framing,
                    payload,
                    (from, length),
                    self.longest,
                    self.kind_of,
                    self.hops,
                    &mut self.counts,
                );
                true
            }
            Arrival::Repeated => true,
            Arrival::Ahead | Arrival::Foreign => false,
        }
    }

    /// Orders by now, those among them that unread bytes counted as.
    pub fn orders(&self) -> u32 {
        self.counts.messages[0] + self.counts.blind_orders()
    }
}

//! The sending side of one connection, cut into segments, and what the walk counts in it.

#[path = "../model/walk.rs"]
mod walk;

use breaker_common::class;
use breaker_common::fix::MsgType;
use breaker_common::stream::{Kind, Stream, Tally, outgoing};

/// A stream under observation.
pub struct Feed {
    /// Its state.
    pub stream: Stream,
    /// What all segments so far have brought.
    pub tally: Tally,
    /// What becomes of a message: of one that goes out, unless it is said otherwise.
    pub kind_of: fn(MsgType) -> Kind,
    /// Whether messages of the common kind are hopped over at once, as where nothing of them is looked at.
    pub hops: bool,
}

impl Feed {
    /// Takes up a stream in this state.
    pub fn of(stream: Stream) -> Self {
        let kind_of = |msg_type| outgoing(msg_type, (class::of(msg_type), false), 0, 0);
        Self { stream, tally: Tally::default(), kind_of, hops: true }
    }

    /// Shows it a segment.
    pub fn segment(&mut self, seq: u32, payload: &[u8]) {
        let tally = &mut self.tally;
        let Some(fresh) = self.stream.advance(seq, payload.len() as u32, tally) else { return };
        let framing = if fresh.late { &mut self.stream.hole.framing } else { &mut self.stream.framing };
        walk::walk(framing, walk::Bytes(payload, &[]), &fresh, self.kind_of, self.hops, tally);
    }

    /// Messages so far, by class.
    pub fn messages(&self) -> [u32; 5] {
        std::array::from_fn(|class| self.tally.messages[class])
    }
}

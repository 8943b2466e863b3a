//! What is judged: a segment, and the connection that it is a part of.

use bytemuck::Zeroable;

use crate::abi::{Connection, Target};
use crate::stream::Stream;

/// A TCP segment that a session sends, as its headers tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Sequence number of the segment: of its SYN where it has one, else of its first payload byte.
    pub seq: u32,
    /// Bytes of payload.
    pub length: u32,
    /// TCP flags as in byte 13 of the header (RFC 9293): [`FIN`], [`SYN`], [`RST`].
    pub flags: u8,
    /// It is the first of several IP fragments, so its payload is not whole.
    pub fragment: bool,
}

/// TCP flag: no more data from the sender.
pub const FIN: u8 = 0x01;
/// TCP flag: synchronise sequence numbers, the start of a connection.
pub const SYN: u8 = 0x02;
/// TCP flag: reset the connection.
pub const RST: u8 = 0x04;

impl Connection {
    /// A connection that is not in the table yet, at a segment of it. `word` says whose it is ([`Target`]).
    ///
    /// Where its SYN was not seen it counts as epoch 0, which is live only where nothing has tripped yet, and its framing is not known.
    pub fn new(word: u32, segment: &Segment) -> Self {
        let (session, place) = match Target::unpack(word) {
            Target::Nobody => (0, 0),
            Target::Session(session) => (session, 0),
            Target::Shared { .. } => (0, word),
        };
        let known = Self { session, place, pending: 1, ..Self::zeroed() };
        if segment.flags & SYN == 0 {
            return Self { stream: Stream::joined(segment.seq), ..known };
        }
        let stream = Stream::at(segment.seq.wrapping_add(1));
        Self { epoch: Self::NEW, isn: segment.seq, opened: 1, stream, ..known }
    }

    /// A FIX flow that no session declares, at its first FIX byte: it is as old as that. Blocked (`blocked_ns` is not 0, but CLOCK_MONOTONIC),
    /// it is fenced from the start.
    pub fn undeclared(seq: u32, blocked_ns: u64) -> Self {
        let epoch = if blocked_ns != 0 { Self::FENCED } else { Self::NEW };
        Self { epoch, closed_ns: blocked_ns, stream: Stream::joined(seq), ..Self::zeroed() }
    }

    /// True where a SYN takes over the ports of an earlier connection. Not at its own SYN sent again: data may have been queued before
    /// a trip since. Not even behind a FIN, which the answering side of Fast Open may send while its SYN is still unacknowledged.
    #[inline(always)]
    pub fn is_reused(&self, segment: &Segment) -> bool {
        segment.flags & SYN != 0 && !(self.opened == 1 && self.isn == segment.seq)
    }
}

//! What is judged: a segment, and the connection that it is a part of.

use bytemuck::Zeroable;

use crate::abi::{Connection, Stream, Target};

/// A TCP segment that a session sends, as its headers tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Sequence number of the segment: of its SYN where it has one, else of its first payload byte.
    pub seq: u32,
    /// Bytes of payload.
    pub length: u32,
    /// What it acknowledges: set only where the segment comes in.
    pub ack: u32,
    /// TCP flags as in byte 13 of the header (RFC 9293): [`FIN`], [`SYN`], [`RST`], [`ACK`], [`URG`].
    pub flags: u8,
    /// It is the first of several IP fragments, so its payload is not whole.
    pub fragment: bool,
    /// Its payload lies in pages that the sender may still change.
    pub shared_pages: bool,
}

/// TCP flag: no more data from the sender.
pub const FIN: u8 = 0x01;
/// TCP flag: synchronise sequence numbers, the start of a connection.
pub const SYN: u8 = 0x02;
/// TCP flag: reset the connection.
pub const RST: u8 = 0x04;
/// TCP flag: the acknowledgement number holds.
pub const ACK: u8 = 0x10;
/// TCP flag: a byte of the payload is urgent, and not in the stream that the peer reads (RFC 6093, 3).
pub const URG: u8 = 0x20;

impl Segment {
    /// True where the bytes of the payload are not those that the peer's application reads.
    #[inline(always)]
    pub fn is_unreadable(&self) -> bool {
        self.fragment | self.shared_pages || self.flags & URG != 0
    }

    /// True where it opens a connection.
    #[inline(always)]
    pub fn opens_connection(&self) -> bool {
        self.flags & (SYN | ACK) == SYN
    }
}

impl Connection {
    /// A connection that is not in the table yet, at a segment of it. `word` says whose it is ([`Target`]).
    ///
    /// Where its SYN was not seen it is live only where nothing has tripped since its session was declared, and its framing is not known.
    pub fn new(word: u32, segment: &Segment) -> Self {
        let (session, shared_endpoint) = match Target::unpack(word) {
            Target::None => (0, 0),
            Target::Session(session) => (session, 0),
            Target::Shared { .. } => (0, word),
        };
        let known = Self { session, shared_endpoint, pending: 1, ..Self::zeroed() };
        if segment.flags & SYN == 0 {
            return Self { epoch: Self::JOINED, stream: Stream::joined(segment.seq), ..known };
        }
        let stream = Stream::at(segment.seq.wrapping_add(1));
        Self { epoch: Self::NEW, isn: segment.seq, opened: 1, stream, ..known }
    }

    /// A FIX flow that no session declares, at its first FIX byte: it is as old as that. Blocked (`blocked_ns` is not 0, but CLOCK_MONOTONIC),
    /// it is fenced from the start. `whole`: it has shown enough bytes to be taken for FIX.
    pub fn undeclared(seq: u32, blocked_ns: u64, whole: bool) -> Self {
        let blocked = whole && blocked_ns != 0;
        let (epoch, closed_ns) = if blocked { (Self::FENCED, blocked_ns) } else { (Self::NEW, 0) };
        let pending = if whole { 0 } else { Self::CANDIDATE };
        Self { epoch, closed_ns, pending, stream: Stream::at(seq), ..Self::zeroed() }
    }

    /// A connection that is no session's: one that the peer opened, to a service of this host.
    pub fn ignored() -> Self {
        Self { session: Self::IGNORED, ..Self::zeroed() }
    }

    /// True where a segment is the SYN of this connection, sent for the first time or again.
    #[inline(always)]
    pub fn is_opened_by(&self, segment: &Segment) -> bool {
        segment.flags & SYN != 0 && self.opened == 1 && self.isn == segment.seq
    }

    /// True where a segment is the first one behind this connection's SYN, so that the peer has answered it.
    #[inline(always)]
    pub fn is_established_by(&self, segment: &Segment) -> bool {
        let follows = segment.seq == self.isn.wrapping_add(1);
        self.opened == 1 && self.stream.sent == 0 && follows && segment.flags & (SYN | RST | ACK) == ACK
    }
}

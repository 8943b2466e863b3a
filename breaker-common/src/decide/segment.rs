//! The input of a decision: a segment, and the connection that contains the segment.

use bytemuck::Zeroable;

use crate::abi::{Connection, Stream, Target};

/// A TCP segment of a session, from the packet headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Sequence number of the SYN, or of the first payload byte.
    pub seq: u32,
    /// Bytes of payload.
    pub length: u32,
    /// Acknowledgement number. Set only for inbound segments.
    pub ack: u32,
    /// TCP flags, byte 13 of the header (RFC 9293): [`FIN`], [`SYN`], [`RST`], [`ACK`], [`URG`].
    pub flags: u8,
    /// True for the first of several IP fragments: the payload is incomplete.
    pub fragment: bool,
    /// True if the payload is in pages that the sender may still change.
    pub shared_pages: bool,
}

/// TCP flag: the sender sends no more data.
pub const FIN: u8 = 0x01;
/// TCP flag: the connection starts, with this sequence number.
pub const SYN: u8 = 0x02;
/// TCP flag: reset the connection.
pub const RST: u8 = 0x04;
/// TCP flag: the acknowledgement number is valid.
pub const ACK: u8 = 0x10;
/// TCP flag: a byte of the payload is urgent and is not in the stream that the peer reads (RFC 6093, section
/// 3).
pub const URG: u8 = 0x20;

impl Segment {
    /// Returns true if the peer's application may read other bytes than those of the payload.
    #[inline(always)]
    pub fn is_unreadable(&self) -> bool {
        self.fragment | self.shared_pages || self.flags & URG != 0
    }

    /// Returns true if the segment opens a connection: a SYN without ACK.
    #[inline(always)]
    pub fn opens_connection(&self) -> bool {
        self.flags & (SYN | ACK) == SYN
    }
}

impl Connection {
    /// Creates the state of a connection at its first segment. `target` is the packed [`Target`] of its
    /// endpoint.
    ///
    /// A connection without a seen SYN is blind. It is live only if no scope has tripped since the
    /// declaration of its session.
    pub fn new(target: u32, segment: &Segment) -> Self {
        let (session, shared_endpoint) = match Target::unpack(target) {
            Target::None => (0, 0),
            Target::Session(session) => (session, 0),
            Target::Shared { .. } => (0, target),
        };
        let known = Self { session, shared_endpoint, pending: 1, ..Self::zeroed() };
        if segment.flags & SYN == 0 {
            return Self { epoch: Self::JOINED, stream: Stream::joined(segment.seq), ..known };
        }
        let stream = Stream::at(segment.seq.wrapping_add(1));
        Self { epoch: Self::NEW, isn: segment.seq, opened: 1, stream, ..known }
    }

    /// Creates the state of an undeclared connection at its first FIX byte. The connection is as old as this
    /// byte.
    ///
    /// `confirmed`: the first bytes are enough to be sure of FIX. If `blocked_ns` (CLOCK_MONOTONIC) is not 0,
    /// a confirmed connection is fenced from the start.
    pub fn undeclared(seq: u32, blocked_ns: u64, confirmed: bool) -> Self {
        let blocked = confirmed && blocked_ns != 0;
        let (epoch, closed_ns) = if blocked { (Self::FENCED, blocked_ns) } else { (Self::NEW, 0) };
        let pending = if confirmed { 0 } else { Self::CANDIDATE };
        Self { epoch, closed_ns, pending, stream: Stream::at(seq), ..Self::zeroed() }
    }

    /// Creates the state of a connection that the peer opened, to a service of this host. No session owns it.
    pub fn ignored() -> Self {
        Self { session: Self::IGNORED, ..Self::zeroed() }
    }

    /// Returns true if a segment is the SYN of this connection, first or repeated.
    #[inline(always)]
    pub fn is_opened_by(&self, segment: &Segment) -> bool {
        segment.flags & SYN != 0 && self.opened == 1 && self.isn == segment.seq
    }

    /// Returns true if a segment is the first one after the SYN, so that the peer has answered.
    #[inline(always)]
    pub fn is_established_by(&self, segment: &Segment) -> bool {
        let follows = segment.seq == self.isn.wrapping_add(1);
        self.opened == 1 && self.stream.sent == 0 && follows && segment.flags & (SYN | RST | ACK) == ACK
    }
}

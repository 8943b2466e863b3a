//! A packet of a capture, and the block that holds it.

/// The data link of a packet, LINKTYPE_ of pcap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkType(pub i32);

/// The direction of a packet, as seen by the capturing host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The capture does not say.
    Unknown,
    /// The host received the packet.
    Inbound,
    /// The host sent the packet.
    Outbound,
}

/// A captured packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Time of the capture, ns since 1970; `None` if the capture has no time (simple packet blocks).
    pub time_ns: Option<u64>,
    /// Data link.
    pub link: LinkType,
    /// Captured bytes: all, or the first ones.
    pub data: &'a [u8],
    /// Length of the packet on the wire, bytes; at least that of `data`.
    pub length: u32,
    /// Direction, as far as a flag of the packet says it.
    pub direction: Direction,
}

/// The position of a packet in the buffer, with its facts.
#[derive(Clone, Debug)]
pub(super) struct Located {
    pub(super) time_ns: Option<u64>,
    pub(super) link: LinkType,
    pub(super) data: std::ops::Range<usize>,
    pub(super) length: u32,
    pub(super) direction: Direction,
}

/// A block of a capture.
pub(super) enum Block {
    /// A packet in so many bytes.
    Packet(usize, Located),
    /// So many bytes without a packet.
    Other(usize),
    /// The block is longer than the bytes, and needs so many in all.
    Incomplete(usize),
    /// The block contradicts the format.
    Damaged(String),
}

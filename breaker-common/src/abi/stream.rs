//! How far each direction of a connection has been read: the state that framing and sequencing keep between segments.

use bytemuck::{Pod, Zeroable};

/// Values of [`Framing::sync`].
pub mod sync {
    /// The offset of the next message is known.
    pub const IN_SYNC: u32 = 0;
    /// The offset of the next message is unknown: bytes are counted instead of messages.
    pub const BLIND: u32 = 1;
}

/// Where the walk stands between two segments.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Framing {
    /// The beginning of a header, or of a field that is looked at, that a segment cut off.
    pub partial: [u64; 4],
    /// Bytes of it.
    pub partial_bytes: u32,
    /// Bytes of the current message that are still to come.
    pub body_remaining: u32,
    /// One of [`sync`].
    pub sync: u32,
    /// What is looked for in the fields of the current message (`message::want`), and where in them the walk stands; 0: it is hopped over.
    pub field_state: u32,
    /// Bytes of a data field.
    pub data_remaining: u32,
    /// Values that were found in an execution report: ExecType(150), OrdStatus(39); and behind those, what is not yet counted of the
    /// current message.
    pub field_values: u32,
    /// Bytes of the message whose header was read last: those that must be counted otherwise where no message starts behind it.
    pub message_bytes: u32,
    /// The position of that message's class in `SegmentCounts::messages`.
    pub message_class: u32,
}

/// The state of one direction of a connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Stream {
    /// The framing at `next_seq`.
    pub framing: Framing,
    /// Sequence number of the first byte never let through.
    pub next_seq: u32,
    /// Bytes let through before it, up to `sequence::MAX_REPEATED`: only these can come again.
    pub sent: u32,
    /// Sequence number of the first byte that took another way, or of none.
    pub gap_start: u32,
    /// Sequence number behind the last one; equal to `gap_start` where there is none.
    pub gap_end: u32,
    /// Lowest sequence number of the segments that were withheld ahead of a gap.
    pub ahead_seq: u32,
    /// How often a segment has come with it; 0 where nothing is ahead.
    pub ahead: u32,
}

/// Bytes that were jumped over and may come late, with the framing as it was before them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Gap {
    /// The framing at its start.
    pub framing: Framing,
    /// Sequence number of its first byte.
    pub start: u32,
    /// Sequence number behind its last byte; equal to `start` where there is no gap.
    pub end: u32,
}

/// What comes in on a connection; one packet at a time.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Inbound {
    /// The framing at `next_seq`.
    pub framing: Framing,
    /// The latest gap.
    pub gap: Gap,
    /// Sequence number (RFC 9293) of the first byte never seen.
    pub next_seq: u32,
    /// Zero.
    pub pad: u32,
}

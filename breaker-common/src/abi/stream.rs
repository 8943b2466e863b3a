//! The read position in each direction of a connection: the state that framing and sequencing keep between
//! segments.

use bytemuck::{Pod, Zeroable};

/// Values of [`Framing::sync`].
pub mod sync {
    /// The offset of the next message is known.
    pub const IN_SYNC: u32 = 0;
    /// The offset of the next message is unknown. Bytes are counted instead of messages.
    pub const BLIND: u32 = 1;
}

/// Framing state of one direction of a connection between two segments.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Framing {
    /// First bytes of a header, or of an inspected field, that the end of a segment cut off.
    pub partial: [u64; 4],
    /// Bytes in `partial`.
    pub partial_bytes: u32,
    /// Bytes of the current message that have not arrived yet.
    pub body_remaining: u32,
    /// One of [`sync`].
    pub sync: u32,
    /// Fields to find in the current message ([`crate::message::want`] bits) and the position among its
    /// fields. 0 if the message is skipped.
    pub field_state: u32,
    /// Bytes of the current data field that have not arrived yet.
    pub data_remaining: u32,
    /// Byte 0: ExecType(150). Byte 1: OrdStatus(39). Upper half: parts of the current message that are not
    /// counted yet.
    pub field_values: u32,
    /// Length in bytes of the message whose header was read last. If no message starts behind that message,
    /// these bytes are counted as unread.
    pub message_bytes: u32,
    /// Class of the message whose header was read last: an index in
    /// [`crate::counts::SegmentCounts::messages`].
    pub message_class: u32,
}

/// State of the outbound direction of a connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Stream {
    /// Framing at `next_seq`.
    pub framing: Framing,
    /// Sequence number of the first byte that has not passed.
    pub next_seq: u32,
    /// Bytes before `next_seq` that have passed, up to [`crate::sequence::MAX_REPEATED`]. TCP repeats only
    /// these bytes.
    pub sent: u32,
    /// Sequence number of the first byte of the gap.
    pub gap_start: u32,
    /// Sequence number behind the last byte of the gap. Equal to `gap_start` if there is no gap.
    pub gap_end: u32,
    /// Lowest sequence number of the segments withheld ahead of a gap.
    pub ahead_seq: u32,
    /// Number of segments that arrived with `ahead_seq`. 0 if no segment is ahead.
    pub ahead: u32,
}

/// Inbound bytes that were skipped and may arrive late, with the framing before them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Gap {
    /// Framing at the start of the gap.
    pub framing: Framing,
    /// Sequence number of the first byte of the gap.
    pub start: u32,
    /// Sequence number behind the last byte of the gap. Equal to `start` if there is no gap.
    pub end: u32,
}

/// State of the inbound direction of a connection. One packet is processed at a time.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Inbound {
    /// Framing at `next_seq`.
    pub framing: Framing,
    /// The latest gap.
    pub gap: Gap,
    /// Sequence number (RFC 9293) of the first byte that has not been seen.
    pub next_seq: u32,
    /// Zero.
    pub pad: u32,
}

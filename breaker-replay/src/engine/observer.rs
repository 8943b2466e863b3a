//! What a replay finds, and its settings.

use breaker_common::abi::{ConnectionKey, Event};
use breaker_common::counts::SegmentCounts;
use breaker_common::decide::Verdict;

/// An outbound segment with a verdict.
#[derive(Debug)]
pub struct Outbound<'a> {
    /// Time, ns since 1970.
    pub at_ns: u64,
    /// Addresses and ports; the sender is the local end.
    pub key: &'a ConnectionKey,
    /// Number of the session; 0 for `undeclared`.
    pub session: u32,
    /// The verdict on the segment.
    pub verdict: Verdict,
    /// Messages and bytes of the segment, whatever the verdict is.
    pub counts: &'a SegmentCounts,
    /// Captured payload.
    pub payload: &'a [u8],
    /// True for a SYN.
    pub opens: bool,
}

/// The model that an event comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nothing has been withheld yet: the event happens with and without trips.
    Both,
    /// The event happens with the trips of the policy.
    Enforced,
    /// The event happens if nothing trips.
    Open,
}

/// Receives what a replay finds.
pub trait Observer {
    /// An outbound segment of a session or of an undeclared flow.
    fn outbound(&mut self, segment: &Outbound<'_>);
    /// The messages of an inbound segment of a session, at a time in ns since 1970.
    fn inbound(&mut self, at_ns: u64, session: u32, counts: &SegmentCounts);
    /// A packet that is passed or dropped before it has a connection, for a reason of
    /// [`breaker_common::abi::reason`].
    fn without_verdict(&mut self, _reason: u32) {}
    /// An event at a time in ns since 1970.
    fn event(&mut self, at_ns: u64, event: &Event, source: Source);
}

/// Settings of a replay.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// True if inbound messages are counted.
    pub inbound: bool,
    /// True to read segments in the order of their bytes. Without it, each packet is decided on as the hook
    /// would see it, and a segment ahead of a gap is withheld.
    pub ordered: bool,
    /// True if limits trip. Without it, everything passes.
    pub enforced: bool,
}

/// Numbers of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// All packets.
    pub packets: u64,
    /// Outbound packets of sessions and of undeclared flows.
    pub outbound: u64,
    /// Inbound packets of their connections.
    pub inbound: u64,
    /// Other traffic.
    pub other: u64,
    /// Packets with contradictory headers.
    pub malformed: u64,
    /// IP fragments other than the first.
    pub fragments: u64,
    /// Packets whose headers the snaplen cuts.
    pub cut_headers: u64,
    /// Packets of a link type that is not supported.
    pub unknown_link: u64,
    /// Segments whose payload the snaplen cuts.
    pub cut: u64,
    /// Those of them in which a header of a message may be cut, so that bytes count instead of messages.
    pub cut_unread: u64,
    /// Gaps in streams: bytes that the capture does not have.
    pub gaps: u64,
    /// Bytes in those gaps.
    pub gap_bytes: u64,
    /// Segments of connections without room in the table.
    pub table_full: u64,
    /// Packets with an earlier time than one before.
    pub earlier: u64,
}

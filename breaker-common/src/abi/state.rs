//! Values that the kernel program writes: switches, windows, connections, counters, events.
//!
//! Fields that user space writes are marked.

use bytemuck::{Pod, Zeroable};

use super::policy::{Address, Limits, Rules};
use super::stream::Stream;
use super::{LIMITS_PER_SCOPE, SIDES};

/// Switch of a scope. The kernel program and user space write it with atomic operations only.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Switch {
    /// [`super::cause`] bits. The scope is tripped while any bit is set.
    pub causes: u64,
    /// Epoch. Each trip and each reset raises the epoch by one.
    pub epoch: u64,
    /// Time of the last trip or reset, CLOCK_MONOTONIC, ns. A connection at a shared endpoint compares it
    /// with its SYN.
    pub raised_ns: u64,
    /// Number of resets. Written by user space.
    pub resets: u64,
}

/// State of a limit. The words that every message reads come first.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Window {
    /// Number of issued tickets: one per message.
    pub issued: u64,
    /// Ticket number at which the limit must be checked again, on each side. No earlier ticket can exceed the
    /// limit, raise a warning or set a new peak. User space stores 0 with each new limit.
    pub recheck_at: [u64; SIDES],
    /// First ticket that may still be in the window: a hint that shortens the search.
    pub tail: u64,
    /// Maximum number of messages that any window has held.
    pub peak: u64,
    /// Warning level in force; [`crate::window::EXCEEDED`] if a disarmed scope would have tripped.
    pub level: u64,
    /// Number of inbound fills, if the limit is a ratio.
    pub fills: u64,
    /// Tickets below this number are void. `reset` sets it to `issued`. Written by user space.
    pub floor: u64,
    /// Number of void fills. `reset` sets it to `fills`. Written by user space.
    pub fill_floor: u64,
}

/// Last trip of a scope by the kernel program. For display only.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Trip {
    /// CLOCK_MONOTONIC, ns.
    pub at_ns: u64,
    /// One [`super::cause`] bit.
    pub cause: u64,
    /// Position of the exceeded limit in the scope.
    pub limit: u32,
    /// Session whose message exceeded the limit.
    pub session: u32,
    /// Messages in the window, including the withheld ones.
    pub used: u64,
}

/// Recent fenced connections of a session. They reveal a reconnect loop.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Fences {
    /// Time of the last but one fence, CLOCK_MONOTONIC, ns; 0 for never.
    pub before_ns: u64,
    /// Time of the last fence.
    pub last_ns: u64,
    /// Epoch sum of the last trip that fenced older connections. All those connections count as one fence.
    pub epoch: u64,
    /// Twice the number of resets of the scopes at that time, plus 1 if the session is isolated since.
    pub generation: u64,
}

/// A scope: the host, a group, or a session.
///
/// One map value holds the whole scope, so that a message looks it up once. Each field has one writer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Scope {
    /// Switch.
    pub switch: Switch,
    /// 1 if an exceeded limit trips the scope, 0 if it only causes an event. Written by user space.
    pub armed: u32,
    /// Number of changes of `armed`. User space raises it before each change, so `armed` cannot change alone.
    pub armed_changes: u32,
    /// Limits in use on each side. Written by user space.
    pub rules: [Rules; SIDES],
    /// In the host's scope: 1 + the heartbeat whose loss was reported. Otherwise 0.
    pub heartbeat_reported: u64,
    /// Limits on each side. Written by user space.
    pub limits: Limits,
    /// State of the limits.
    pub windows: [Window; LIMITS_PER_SCOPE],
    /// Time of the last withheld segment of the session, CLOCK_MONOTONIC, ns, some ms behind; 0 for never.
    /// Only a switch or a limit sets the time, and only in the session's own scope.
    pub withheld_ns: u64,
    /// Last trip.
    pub trip: Trip,
    /// Recent fences.
    pub fences: Fences,
}

/// Addresses and ports of a TCP connection, as the sending host sees them.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct ConnectionKey {
    /// Local address.
    pub local: Address,
    /// Remote address.
    pub remote: Address,
    /// Local port, network order.
    pub local_port: u16,
    /// Remote port, network order.
    pub remote_port: u16,
}

/// State of a connection. One packet is processed at a time, because the kernel serialises a socket's
/// transmissions.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Connection {
    /// Epoch sum of the scopes at the SYN, or one of the special values [`Connection::FENCED`],
    /// [`Connection::FENCE_PENDING`], [`Connection::NEW`] and [`Connection::JOINED`].
    pub epoch: u64,
    /// Time of the last FIN or RST sent, or of the fence, CLOCK_MONOTONIC, ns; 0 while open.
    pub closed_ns: u64,
    /// Time of the SYN at a shared endpoint, CLOCK_MONOTONIC, ns; 0 if the SYN was not seen.
    pub opened_ns: u64,
    /// Session number, or [`Connection::IGNORED`]; 0 until the first message has identified the session.
    pub session: u32,
    /// Sequence number of the SYN.
    pub isn: u32,
    /// 1 if the SYN was seen.
    pub opened: u32,
    /// At a shared endpoint: the packed [`super::Target`]. Otherwise 0.
    pub shared_endpoint: u32,
    /// Not 0 while the first message has to identify or confirm the session: 1 + the orders that unread bytes
    /// counted as. [`Connection::CANDIDATE`] until the first bytes have proved to be FIX.
    pub pending: u32,
    /// 1 if the peer has received a reset. Inline: the next segment then notifies the sender.
    pub peer_notified: u32,
    /// 1 if any segment with payload was withheld.
    pub withheld: u32,
    /// Lowest withheld sequence number: the one that the peer expects next.
    pub withheld_seq: u32,
    /// 1 if another SYN with the same addresses was sent while the connection was open. The next segment
    /// shows which of the two connections is alive.
    pub contested: u32,
    /// 1 if an event has reported that the stream is blind.
    pub blind: u32,
    /// Number of rate-limited events about the connection, sent and suppressed.
    pub event_count: u32,
    /// User id of the socket; [`Connection::NO_USER`] if unknown.
    pub uid: u32,
    /// 1 if a message was read on the connection.
    pub message_seen: u32,
    /// Inline: TTL or hop limit of the SYN. A segment with fewer hops left may not reach the peer. Otherwise
    /// 0.
    pub hops: u32,
    /// Numbers of the CompIDs and SubIDs in its messages ([`super::identity`]).
    pub comp_ids: [u32; 4],
    /// State of the outbound direction.
    pub stream: Stream,
}

impl Connection {
    /// Special epoch: the connection is fenced for good. No epoch sum reaches this value.
    pub const FENCED: u64 = u64::MAX;
    /// Special epoch: the connection is as old as the current packet.
    pub const NEW: u64 = u64::MAX - 1;
    /// Special epoch: the SYN was not seen, so the connection is as old as the declaration of its session.
    pub const JOINED: u64 = u64::MAX - 2;
    /// Special epoch: the connection is older than a trip or reset. The next segment with payload fences it.
    pub const FENCE_PENDING: u64 = u64::MAX - 3;
    /// Special session number: the connection belongs to no session and is not inspected.
    pub const IGNORED: u32 = u32::MAX;
    /// User id that no socket has: `(uid_t) -1`.
    pub const NO_USER: u32 = u32::MAX;
    /// Value of `pending`: the connection has sent the first bytes of a FIX message, but too few to be sure.
    pub const CANDIDATE: u32 = u32::MAX;
}

/// Key of the counters of packets that passed unread.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct UnseenKey {
    /// Interface index.
    pub ifindex: u32,
    /// One of [`super::unseen`].
    pub kind: u32,
}

/// Stamp of a probe frame: `Meta::generation` or [`super::probe::FAILED`], and CLOCK_MONOTONIC in ns.
pub type ProbeStamp = [u64; 2];

/// Counters of one session on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Counters {
    /// Passed messages by class.
    pub passed: [u64; 5],
    /// Passed segments with payload.
    pub packets_passed: u64,
    /// Segments with bytes that were sent before.
    pub retransmitted: u64,
    /// Desyncs of outbound streams.
    pub desyncs: u64,
    /// Withheld messages by class. Messages of a fenced connection are not read; only its segments are
    /// counted.
    pub withheld: [u64; 5],
    /// Withheld segments.
    pub packets_withheld: u64,
    /// Inbound messages: fills, rejects, others.
    pub inbound: [u64; 3],
    /// Desyncs of inbound streams.
    pub inbound_desyncs: u64,
    /// Segments with unread bytes.
    pub unread: u64,
    /// Orders that unread bytes counted as. `passed` and `withheld` include them.
    pub blind_orders: u64,
}

/// Record of the event ring.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Event {
    /// CLOCK_MONOTONIC, ns.
    pub at_ns: u64,
    /// One of [`super::kind`].
    pub kind: u32,
    /// Scope number.
    pub scope: u32,
    /// Session whose message caused the event.
    pub session: u32,
    /// Position of the limit in the scope.
    pub limit: u32,
    /// One [`super::cause`] bit, or 0.
    pub cause: u64,
    /// Messages in the window, or the number of rate-limited events of the connection.
    pub used: u64,
    /// Addresses and ports of the connection.
    pub connection: ConnectionKey,
    /// Warning level in force.
    pub level: u32,
}

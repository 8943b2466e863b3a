//! What the kernel writes: switches, windows, connections, counters, events. The few words that user space writes here say so.

use bytemuck::{Pod, Zeroable};

use super::policy::{Address, Limits, Rules};
use super::stream::Stream;
use super::{LIMITS_PER_SCOPE, SIDES};

/// The switch of a scope. Kernel and user space both write it, by atomic operations alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Switch {
    /// [`super::cause`] bits; any of them withholds.
    pub causes: u64,
    /// Raised by each trip and each reset.
    pub epoch: u64,
    /// When it last was, CLOCK_MONOTONIC, ns: for a connection that tells only later whose it is.
    pub raised_ns: u64,
    /// Resets. Written by user space.
    pub resets: u64,
}

/// The running state of a limit; first the words that each message needs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Window {
    /// Tickets issued, one a message.
    pub issued: u64,
    /// Tickets up to which nothing comes of them: neither a trip nor a warning nor a new peak. By side; the kernel stores it, and
    /// user space a 0 with each new limit.
    pub recheck_at: [u64; SIDES],
    /// First ticket that may still lie inside the window: a hint that only saves looking.
    pub tail: u64,
    /// Most messages that any window has held.
    pub peak: u64,
    /// Warning levels in force; [`crate::window::EXCEEDED`] where a disarmed scope would have tripped.
    pub level: u64,
    /// Execution reports with a fill that came in, where the limit is a ratio to them.
    pub fills: u64,
    /// Tickets below this one are void: set to `issued` by `reset`. Written by user space.
    pub floor: u64,
    /// Fills that are void, likewise.
    pub fill_floor: u64,
}

/// How a scope last came to be tripped by the kernel. Told, never decided on.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Trip {
    /// CLOCK_MONOTONIC, ns.
    pub at_ns: u64,
    /// One [`super::cause`] bit.
    pub cause: u64,
    /// Position of the limit that was passed.
    pub limit: u32,
    /// Session whose message passed it.
    pub session: u32,
    /// Messages in the window, the withheld ones included.
    pub used: u64,
}

/// Connections of a session that were fenced lately: what tells a reconnect loop.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Fences {
    /// When the last but one was, CLOCK_MONOTONIC, ns; 0 for never.
    pub before_ns: u64,
    /// When the last one was.
    pub last_ns: u64,
    /// The epoch whose raising fenced older connections, which together count once.
    pub epoch: u64,
    /// Twice the resets of its scopes at the time, and 1 more where the session is isolated since.
    pub generation: u64,
}

/// A scope: everything, a group, or a session. One value, so that a message looks it up once; each field has one writer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Scope {
    /// The switch.
    pub switch: Switch,
    /// 1: a limit that is passed trips the scope; 0: it is only told. Written by user space.
    pub armed: u32,
    /// Zero.
    pub pad: u32,
    /// Which limits are in use, by side. Written by user space.
    pub rules: [Rules; SIDES],
    /// Of the host's scope the heartbeat of whose age was told; else 0.
    pub heartbeat_reported: u64,
    /// The limits, by side. Written by user space.
    pub limits: Limits,
    /// Their running state.
    pub windows: [Window; LIMITS_PER_SCOPE],
    /// When a segment of the session whose own scope it is was last withheld because of a switch or a limit, CLOCK_MONOTONIC, ns, some ms
    /// behind; 0 for never.
    pub withheld_ns: u64,
    /// How it tripped.
    pub trip: Trip,
    /// Connections that were fenced.
    pub fences: Fences,
}

/// A TCP connection, seen from the host that sends.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct ConnectionKey {
    /// Address of this host.
    pub local: Address,
    /// Address of the peer.
    pub remote: Address,
    /// Port of this host, network order.
    pub local_port: u16,
    /// Port of the peer, network order.
    pub remote_port: u16,
}

/// The state of a connection; one packet at a time, for a socket's transmissions are serialised.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Connection {
    /// Sum of its scopes' epochs at its SYN, or [`Connection::FENCED`], [`Connection::NEW`] or [`Connection::JOINED`].
    pub epoch: u64,
    /// CLOCK_MONOTONIC of the last FIN or RST it sent, or of its fencing, ns; 0 while open.
    pub closed_ns: u64,
    /// CLOCK_MONOTONIC of its SYN, ns, where its first message must tell whose it is; 0 where its SYN was not seen.
    pub opened_ns: u64,
    /// The session it belongs to, or [`Connection::IGNORED`]; 0 until its first message has told.
    pub session: u32,
    /// Sequence number of its SYN.
    pub isn: u32,
    /// 1 where its SYN was seen.
    pub opened: u32,
    /// Where several sessions go to its endpoint: the word of the place ([`super::Place`]). Else 0.
    pub shared_endpoint: u32,
    /// Not 0 while its first message is awaited, to tell or to confirm whose it is: 1 and the orders that unread bytes counted as
    /// meanwhile. [`Connection::CANDIDATE`] where it must still show that it is FIX at all.
    pub pending: u32,
    /// 1 where the peer has been told of its end; inline, where the sender is told by the next segment.
    pub peer_notified: u32,
    /// 1 where something of it was withheld.
    pub withheld: u32,
    /// Lowest sequence number of that: what its peer waits for.
    pub withheld_seq: u32,
    /// 1 where another SYN with its addresses has come while it was open: one of the two is dead, and the next segment tells which.
    pub contested: u32,
    /// 1 where it was told that the stream is blind.
    pub blind: u32,
    /// Events about it, told or left out.
    pub event_count: u32,
    /// The account of its socket; [`Connection::NO_USER`] where that is not known.
    pub uid: u32,
    /// 1 where a message was read on it.
    pub message_seen: u32,
    /// Inline, TTL or hop limit of its SYN: what has fewer may not get as far. Else 0.
    pub hops: u32,
    /// Numbers of the CompIDs and SubIDs that it has shown ([`super::identity`]).
    pub comp_ids: [u32; 4],
    /// Where the walk over its bytes stands.
    pub stream: Stream,
}

impl Connection {
    /// An epoch that no sum reaches: withheld for good.
    pub const FENCED: u64 = u64::MAX;
    /// Another: as old as the packet that is being judged.
    pub const NEW: u64 = u64::MAX - 1;
    /// Another: its SYN was not seen, so that it is as old as the declaration of its session.
    pub const JOINED: u64 = u64::MAX - 2;
    /// An epoch that no sum reaches either: older than a trip or a reset, which is still to be told.
    pub const FENCE_PENDING: u64 = u64::MAX - 3;
    /// A session number: its Logon is of no declared session, and the policy says not to look at such; or it is no session's connection.
    pub const IGNORED: u32 = u32::MAX;
    /// An account that no socket has (`(uid_t) -1`).
    pub const NO_USER: u32 = u32::MAX;
    /// A value of `pending`: so far it has sent the first bytes of a FIX message, and too few to tell.
    pub const CANDIDATE: u32 = u32::MAX;
}

/// Which of the packets that pass unread a counter counts.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct UnseenKey {
    /// The interface.
    pub ifindex: u32,
    /// One of [`super::unseen`].
    pub kind: u32,
}

/// Messages and packets of one session on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Counters {
    /// Messages that crossed, by class.
    pub passed: [u64; 5],
    /// Segments with payload that crossed.
    pub packets_passed: u64,
    /// Segments that held bytes seen before.
    pub retransmitted: u64,
    /// Times the stream was lost.
    pub desyncs: u64,
    /// Messages withheld, by class; those of a fenced connection are not read, only their packets count.
    pub withheld: [u64; 5],
    /// Segments withheld.
    pub packets_withheld: u64,
    /// Messages that came in: fills, rejects, others.
    pub inbound: [u64; 3],
    /// Times the stream that comes in was lost.
    pub inbound_desyncs: u64,
    /// Segments of which something could not be read.
    pub unread: u64,
    /// Orders that unread bytes counted as: they are in `passed` and `withheld` too.
    pub blind_orders: u64,
}

/// A record of the event ring.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Event {
    /// CLOCK_MONOTONIC, ns.
    pub at_ns: u64,
    /// One of [`super::kind`].
    pub kind: u32,
    /// The scope it is about.
    pub scope: u32,
    /// The session whose message led to it.
    pub session: u32,
    /// Position of the limit within the scope.
    pub limit: u32,
    /// One [`super::cause`] bit, or 0.
    pub cause: u64,
    /// Messages in the window.
    pub used: u64,
    /// The connection.
    pub connection: ConnectionKey,
    /// Warning level now in force.
    pub level: u32,
}

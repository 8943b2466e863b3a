//! The layout of every value that lives in a map, and the number that names it.
//!
//! Integers and byte arrays only, padding explicit, so that each struct is plain old data. Addresses and ports are in network
//! order. Codes are never renumbered. Any change here raises [`ABI_VERSION`]; a test holds the recorded layout against it.

use bytemuck::{Pod, Zeroable};

use crate::stream::Stream;

/// The layout's number: in the object, in the pinned META map, in `status`. Checked before any other pinned map is opened.
pub const ABI_VERSION: u32 = 1;
/// First word of [`Meta`]: "breaker\0".
pub const MAGIC: u64 = u64::from_le_bytes(*b"breaker\0");

/// A message of a session is subject to the session, up to four groups, and the host.
pub const SCOPES_PER_SESSION: usize = 6;
/// A session may be in this many groups.
pub const GROUPS_PER_SESSION: usize = SCOPES_PER_SESSION - 2;
/// Limits a scope may have.
pub const LIMITS_PER_SCOPE: usize = 4;
/// Warning levels of a limit.
pub const WARNINGS_PER_LIMIT: usize = 3;
/// MsgTypes a session may classify by itself.
pub const OVERRIDES_PER_SESSION: usize = 16;
/// Why a scope is tripped: a bit each, each cleared by `reset` alone.
pub mod cause {
    /// A person threw the switch.
    pub const MANUAL: u64 = 1 << 0;
    /// A limit was passed.
    pub const RATE: u64 = 1 << 1;
    /// The agent's heartbeat is too old.
    pub const DEADMAN: u64 = 1 << 2;
    /// A stream could not be followed, and the policy says to trip then.
    pub const DESYNC: u64 = 1 << 3;
    /// An order with PossDupFlag(43)=Y after a trip.
    pub const REPLAY: u64 = 1 << 4;
    /// FIX to a place that no session declares, and the policy says to block it.
    pub const UNDECLARED: u64 = 1 << 5;
    /// Another host of the fleet tripped.
    pub const FLEET: u64 = 1 << 6;
    /// Every cause with the name it has in the CLI, the metrics and the events.
    pub const NAMES: [(u64, &str); 7] = [
        (MANUAL, "manual"),
        (RATE, "rate"),
        (DEADMAN, "deadman"),
        (DESYNC, "desync"),
        (REPLAY, "replay"),
        (UNDECLARED, "undeclared"),
        (FLEET, "fleet"),
    ];
}

/// Yes/no settings, as bits of `Meta::flags` and `Session::flags`.
pub mod flag {
    /// Withheld segments vanish; otherwise they become a reset for both ends.
    pub const DROP: u32 = 1 << 0;
    /// A stream that cannot be followed trips its session.
    pub const DESYNC_TRIPS: u32 = 1 << 1;
    /// Each payload segment counts as one order: nothing in it is read.
    pub const OPAQUE: u32 = 1 << 2;
    /// A connection that finds no room in the table passes uncounted; otherwise it is withheld.
    pub const PASS_WHEN_FULL: u32 = 1 << 3;
}

/// What may pass on a new connection of a tripped scope: values of `Session::while_tripped`.
pub mod while_tripped {
    /// Messages that add no risk: classes admin, query and cancel.
    pub const REDUCE_ONLY: u32 = 0;
    /// Class admin.
    pub const ADMIN_ONLY: u32 = 1;
    /// Nothing, the SYN included.
    pub const ISOLATE: u32 = 2;
}

/// What happens to FIX sent to a place that no session declares: values of `Meta::undeclared`.
pub mod undeclared {
    /// Nothing: it is not looked at.
    pub const IGNORE: u32 = 0;
    /// It counts, for the pseudo-session and for the host's limits.
    pub const WATCH: u32 = 1;
    /// Its connection is fenced at its first FIX byte.
    pub const BLOCK: u32 = 2;
}

/// Facts of the load as a whole. Written by user space before the hook is attached.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Meta {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`ABI_VERSION`] of the object that made these maps.
    pub abi: u32,
    /// [`flag`] bits.
    pub flags: u32,
    /// One of [`undeclared`].
    pub undeclared: u32,
    /// Scopes in use; their numbers are `0..scopes`.
    pub scopes: u32,
    /// Sessions in use; session 0 is the pseudo-session `undeclared`.
    pub sessions: u32,
    /// Size of the connection table.
    pub connections: u32,
    /// CLOCK_REALTIME of the load, in seconds since 1970. Shown, never decided on.
    pub loaded_at: u64,
    /// SHA-256 of the policy's file.
    pub policy_sha256: [u8; 32],
    /// Name of the policy, UTF-8, zero-padded.
    pub policy: [u8; 64],
    /// Version of the program that loaded it, zero-padded.
    pub version: [u8; 16],
    /// Commit of the program that loaded it, zero-padded.
    pub git: [u8; 16],
    /// Tag that the kernel gave the program that was attached.
    pub program_tag: u64,
    /// Groups in use: scope 0 is the host, `1..=groups` are the groups, the others the sessions, `undeclared` first.
    pub groups: u32,
    /// Interfaces in use.
    pub interface_count: u32,
    /// Interfaces that the hook was attached to.
    pub interfaces: [Interface; MOST_INTERFACES],
    /// Path of the audit log, UTF-8, zero-padded: the verbs write it with no agent and no configuration at hand.
    pub audit: [u8; 256],
}

/// Interfaces that one load can attach to.
pub const MOST_INTERFACES: usize = 16;

/// An interface that the hook was attached to. Written by user space.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Interface {
    /// Its name at that time, zero-padded.
    pub name: [u8; 16],
    /// Its number at that time.
    pub ifindex: u32,
    /// One of [`hook`].
    pub hook: u32,
}

/// How a program hangs on an interface: values of `Interface::hook`.
pub mod hook {
    /// tcx egress, by a pinned link (Linux 6.6 and newer).
    pub const TCX: u32 = 1;
    /// A filter of the clsact qdisc's egress.
    pub const CLSACT: u32 = 2;
}

/// A scope's name without its kind, UTF-8, zero-padded. Written by user space.
pub type Name = [u8; 64];

/// Which connections are a session's: the key of a longest-prefix match (kernel `struct bpf_lpm_trie_key`, without its length).
///
/// The length always covers port and local address whole, so that they match exactly and only `remote` by prefix.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Endpoint {
    /// Remote port, network order.
    pub port: u16,
    /// Zero.
    pub pad: u16,
    /// Local address; zero for any.
    pub local: Address,
    /// Remote address.
    pub remote: Address,
}

impl Endpoint {
    /// Bits before `remote`.
    pub const FIXED_BITS: u32 = 8 * 20;
    /// Bits in all.
    pub const BITS: u32 = 8 * 36;
}

/// An IPv6 address in network order, or an IPv4 one mapped into it (RFC 4291, 2.5.5.2). Words, because the verifier asks that
/// what lies on the stack is aligned.
pub type Address = [u32; 4];

/// The words of an IPv4 address, itself in network order.
#[inline(always)]
pub const fn mapped(v4: u32) -> Address {
    [0, 0, 0xffff_u32.to_be(), v4]
}

/// A MsgType(35) that a session classifies for itself.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Override {
    /// The MsgType as [`crate::fix::MsgType`] packs it.
    pub msg_type: u64,
    /// The class's code.
    pub class: u64,
}

/// A declared session. Written by user space.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Session {
    /// Scopes in the order they are asked: the session's own, its groups', the host's.
    pub scopes: [u32; SCOPES_PER_SESSION],
    /// How many of them there are.
    pub scope_count: u32,
    /// [`flag`] bits.
    pub flags: u32,
    /// One of [`while_tripped`].
    pub while_tripped: u32,
    /// How many of `overrides` are in use.
    pub override_count: u32,
    /// MsgTypes that this session classifies for itself.
    pub overrides: [Override; OVERRIDES_PER_SESSION],
}

/// A limit of a scope. Written by user space.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Limit {
    /// Which messages it counts: a [`crate::class::LimitClass`] code.
    pub class: u32,
    /// Messages that share one slot of its ring, as a power of two: [`crate::window::granule_bits`].
    pub granule_bits: u32,
    /// Messages that may cross in any interval of `per_ns`.
    pub max: u64,
    /// Length of the window in ns; 0 is "total, since the last reset".
    pub per_ns: u64,
    /// First slot of its ring.
    pub base: u32,
    /// Slots of its ring, as a power of two: [`crate::window::ring_bits`].
    pub ring_bits: u32,
    /// Messages in the window at which to warn, rising; 0 where there is none.
    pub warn: [u64; WARNINGS_PER_LIMIT],
    /// Tickets below this one are void: set to `Window::issued` by `reset`.
    pub floor: u64,
}

/// The switch of a scope. Kernel and user space both write it, by atomic operations alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Switch {
    /// [`cause`] bits; any of them withholds.
    pub causes: u64,
    /// Raised by each trip and each reset.
    pub epoch: u64,
}

/// The running state of a limit. Written by the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Window {
    /// Tickets issued, one a message.
    pub issued: u64,
    /// First ticket that may still lie inside the window: a hint that only saves looking.
    pub tail: u64,
    /// Most messages that any window has held.
    pub peak: u64,
    /// Warning levels in force; [`crate::window::EXCEEDED`] where a disarmed scope would have tripped.
    pub level: u64,
}

/// How a scope last came to be tripped by the kernel. Written by the kernel; told, never decided on.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Trip {
    /// CLOCK_MONOTONIC, ns.
    pub at_ns: u64,
    /// One [`cause`] bit.
    pub cause: u64,
    /// Position of the limit that was passed.
    pub limit: u32,
    /// Session whose message passed it.
    pub session: u32,
    /// Messages in the window, the withheld ones included.
    pub used: u64,
}

/// A scope: everything, a group, or a session. One value, so that a message looks it up once; each field has one writer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Scope {
    /// The switch.
    pub switch: Switch,
    /// 1: a limit that is passed trips the scope; 0: it is only told. Written by user space.
    pub armed: u32,
    /// How many of `limits` are in use. Written by user space.
    pub limit_count: u32,
    /// Bits `1 << Limit::class` of the limits in use, so that a scope that counts nothing of a segment is left at once. Written by
    /// user space.
    pub classes: u32,
    /// Zero.
    pub pad: u32,
    /// The limits. Written by user space.
    pub limits: [Limit; LIMITS_PER_SCOPE],
    /// Their running state. Written by the kernel.
    pub windows: [Window; LIMITS_PER_SCOPE],
    /// How it tripped. Written by the kernel.
    pub trip: Trip,
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

/// The state of a connection. Written by the kernel; one packet at a time, for a socket's transmissions are serialised.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Connection {
    /// Sum of its scopes' epochs at its SYN, or [`Connection::FENCED`] or [`Connection::NEW`].
    pub epoch: u64,
    /// CLOCK_MONOTONIC of the last FIN or RST it sent, or of its fencing, ns; 0 while open.
    pub closed_ns: u64,
    /// The session it belongs to.
    pub session: u32,
    /// Sequence number of its SYN.
    pub isn: u32,
    /// 1 where its SYN was seen.
    pub opened: u32,
    /// Zero.
    pub pad: u32,
    /// Where the walk over its bytes stands.
    pub stream: Stream,
}

impl Connection {
    /// An epoch that no sum reaches: withheld for good.
    pub const FENCED: u64 = u64::MAX;
    /// Another: as old as the packet that is being judged.
    pub const NEW: u64 = u64::MAX - 1;
}

/// Messages and packets of one session on one CPU. Written by the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Counters {
    /// Messages that crossed, by class.
    pub passed: [u64; 5],
    /// Messages withheld, by class; those of a fenced connection are not read, only their packets count.
    pub withheld: [u64; 5],
    /// Segments with payload that crossed.
    pub packets_passed: u64,
    /// Segments withheld.
    pub packets_withheld: u64,
    /// Segments that held bytes seen before.
    pub retransmitted: u64,
    /// Times the stream was lost.
    pub desyncs: u64,
}

/// Where a packet's way ended: positions of the per-CPU reason counters.
pub mod reason {
    /// Not IP, or not TCP, or to a port and address that no session has.
    pub const NOT_OURS: u32 = 0;
    /// Headers cut short or contradictory: passed.
    pub const MALFORMED: u32 = 1;
    /// IP fragment other than the first: passed.
    pub const FRAGMENT: u32 = 2;
    /// Segment of a session without payload: passed.
    pub const CONTROL: u32 = 3;
    /// Segment of a session with payload: passed.
    pub const PASSED: u32 = 4;
    /// Withheld: its connection is fenced.
    pub const FENCED: u32 = 5;
    /// Withheld: a limit was passed.
    pub const LIMIT: u32 = 6;
    /// Withheld: its scope is tripped and the message adds risk.
    pub const TRIPPED: u32 = 7;
    /// Withheld: SYN of an isolated session.
    pub const ISOLATED: u32 = 8;
    /// Withheld: the stream was lost and the policy says to trip.
    pub const DESYNC: u32 = 9;
    /// The connection table had no room.
    pub const TABLE_FULL: u32 = 10;
    /// A withheld segment could not be turned into a reset and was dropped.
    pub const RESET_FAILED: u32 = 11;
    /// The event ring had no room: an event was lost.
    pub const EVENT_LOST: u32 = 12;
    /// Maps that must be there were not: passed.
    pub const NOT_CONFIGURED: u32 = 13;
    /// Names in the order of the numbers.
    pub const NAMES: [&str; 14] = [
        "not_ours",
        "malformed",
        "fragment",
        "control",
        "passed",
        "fenced",
        "limit",
        "tripped",
        "isolated",
        "desync",
        "table_full",
        "reset_failed",
        "event_lost",
        "not_configured",
    ];
}

/// What the kernel tells user space of: changes of state, never single messages.
pub mod kind {
    /// A scope tripped.
    pub const TRIPPED: u32 = 1;
    /// A disarmed scope would have tripped.
    pub const WOULD_TRIP: u32 = 2;
    /// A warning level was crossed.
    pub const WARNED: u32 = 3;
    /// A connection was fenced.
    pub const FENCED: u32 = 4;
    /// A stream was lost.
    pub const DESYNCED: u32 = 5;
    /// The connection table had no room.
    pub const TABLE_FULL: u32 = 6;
    /// A FIX flow that no session declares was seen.
    pub const UNDECLARED: u32 = 7;
}

/// A record of the event ring. Written by the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Event {
    /// CLOCK_MONOTONIC, ns.
    pub at_ns: u64,
    /// One of [`kind`].
    pub kind: u32,
    /// The scope it is about.
    pub scope: u32,
    /// The session whose message led to it.
    pub session: u32,
    /// Position of the limit within the scope.
    pub limit: u32,
    /// One [`cause`] bit, or 0.
    pub cause: u64,
    /// Messages in the window.
    pub used: u64,
    /// The connection.
    pub connection: ConnectionKey,
    /// Warning level now in force.
    pub level: u32,
}

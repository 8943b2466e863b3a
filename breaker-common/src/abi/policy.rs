//! Values that user space writes: the facts of the load, and the policy.

use bytemuck::{Pod, Zeroable};

use super::{
    LIMITS_PER_SCOPE, LIMITS_PER_SESSION, MAX_INTERFACES, OVERRIDES_PER_SESSION, SCOPES_PER_SESSION, SIDES,
    WARNINGS_PER_LIMIT,
};

/// Facts of the load.
///
/// User space writes them before it attaches the hook. A reload writes only the policy on the other side, and
/// `side`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Meta {
    /// [`super::MAGIC`].
    pub magic: u64,
    /// [`super::ABI_VERSION`] of the object that made these maps.
    pub abi: u32,
    /// The side of the policy in force: an index in `policies` and in every other array of [`SIDES`].
    pub side: u32,
    /// One of [`super::mode`].
    pub mode: u32,
    /// Capacity of the connection table.
    pub connections: u32,
    /// Capacity of the maps, in scopes and in sessions.
    pub capacity: u32,
    /// Number of ring slots, used and unused.
    pub ring_slots: u32,
    /// CLOCK_REALTIME of the load, in seconds since 1970. For display only.
    pub loaded_at: u64,
    /// Version of the `breaker` that loaded the object, zero-padded.
    pub version: [u8; 16],
    /// Commit of the `breaker` that loaded the object, zero-padded.
    pub git: [u8; 16],
    /// Kernel tag of the deciding program.
    pub program_tag: u64,
    /// Not 0 if the inbound program is attached too.
    pub inbound: u32,
    /// Number of entries of `interfaces` in use.
    pub interface_count: u32,
    /// Interfaces that the hook was attached to.
    pub interfaces: [Interface; MAX_INTERFACES],
    /// Network namespace of the load: device and inode of its file in nsfs (proc_pid_ns(5)).
    pub netns: [u64; 2],
    /// 1 if the program can read from this kernel whether a packet's pages are shared.
    pub shared_pages: u32,
    /// Inline: 1 if every frame arrives over a wire (XDP in the driver), so that its checksum is complete.
    pub wired: u32,
    /// Path of the audit log, UTF-8, zero-padded. Verbs write the log without the agent and without the
    /// configuration.
    pub audit: [u8; 256],
    /// Path of the state directory, UTF-8, zero-padded. Verbs write trips there without the agent and without
    /// the configuration.
    pub state: [u8; 256],
    /// Raised by each load, reload, upgrade and re-attachment. The program stamps it for each probe frame.
    pub generation: u64,
    /// Number of the last line of the audit log; 0 for none. User space writes it.
    pub audit_seq: u64,
    /// SHA-256 of that line.
    pub audit_hash: [u8; 32],
    /// The second of CLOCK_MONOTONIC until which an upgrade copies the maps; 0 for none. Until then the
    /// program drops the segments that would change the maps, and TCP resends them. The hold ends even if the
    /// upgrade dies.
    pub hold: u32,
    /// 1 from the start of an `unload`. A load that ends in any other way was tampered with.
    pub unloading: u32,
    /// The policy on each side.
    pub policies: [Policy; SIDES],
}

/// Settings of a whole policy.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Policy {
    /// SHA-256 of the policy file.
    pub sha256: [u8; 32],
    /// Name, UTF-8, zero-padded.
    pub name: [u8; 64],
    /// [`super::flag`] bits.
    pub flags: u32,
    /// One of [`super::undeclared`].
    pub undeclared: u32,
    /// Maximum age of the agent's heartbeat in ns; 0 if unlimited.
    pub deadman_ns: u64,
    /// Scope numbers in use or formerly in use: `0..scopes`.
    pub scopes: u32,
    /// Session numbers in use or formerly in use: `0..sessions`. Session 0 is the pseudo-session
    /// `undeclared`.
    pub sessions: u32,
}

/// An interface that the hook was attached to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Interface {
    /// Name at the time of the attachment, zero-padded.
    pub name: [u8; 16],
    /// Index at the time of the attachment.
    pub ifindex: u32,
    /// One of [`super::hook`].
    pub hook: u32,
    /// Length of the link header in bytes: 14 for Ethernet, 0 if packets begin with IP.
    pub link_header: u32,
    /// Zero.
    pub pad: u32,
}

/// Name of a scope. A scope number keeps its meaning until the unload.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Label {
    /// One of [`super::label`].
    pub kind: u32,
    /// Session number, if the scope is a session.
    pub session: u32,
    /// Name without the kind, UTF-8, zero-padded.
    pub name: [u8; 64],
}

/// Endpoint of connections: the data of a longest-prefix-match key (kernel `struct bpf_lpm_trie_key`).
///
/// The prefix always covers the port and the local address, so that both match exactly. Only `remote` matches
/// by prefix.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Endpoint {
    /// Remote port, network order.
    pub port: u16,
    /// Zero.
    pub pad: u16,
    /// Local address; zero matches any.
    pub local: Address,
    /// Remote address.
    pub remote: Address,
}

impl Endpoint {
    /// Number of bits before `remote`.
    pub const FIXED_BITS: u32 = 8 * 20;
    /// Number of bits of the key data.
    pub const BITS: u32 = 8 * 36;
}

/// Packed [`Target`] of an endpoint on each side.
pub type TargetWords = [u32; SIDES];

/// Sessions at an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The policy declares no session here.
    None,
    /// One session.
    Session(u32),
    /// Several sessions. The first message of a connection identifies its session.
    Shared {
        /// Number of the shared endpoint, as in [`IdentityKey`].
        endpoint: u32,
        /// Bits `1 << position` of the identifying fields ([`super::identity`]).
        mask: u32,
    },
}

impl Target {
    const SHARED: u32 = 1 << 31;
    const MASK: u32 = 27;

    /// Packs the target into a word of [`TargetWords`].
    pub const fn pack(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Session(session) => session,
            Self::Shared { endpoint, mask } => Self::SHARED | mask << Self::MASK | endpoint,
        }
    }

    /// Unpacks a word of [`TargetWords`].
    #[inline(always)]
    pub const fn unpack(word: u32) -> Self {
        if word & Self::SHARED != 0 {
            return Self::Shared { endpoint: word & ((1 << Self::MASK) - 1), mask: word >> Self::MASK & 0xf };
        }
        match word {
            0 => Self::None,
            session => Self::Session(session),
        }
    }
}

/// An IPv6 address, or an IPv4-mapped one (RFC 4291, 2.5.5.2), in network order.
///
/// The type has words because the verifier requires aligned access to the stack.
pub type Address = [u32; 4];

/// Maps an IPv4 address in network order into IPv6.
#[inline(always)]
pub const fn mapped(v4: u32) -> Address {
    [0, 0, 0xffff_u32.to_be(), v4]
}

/// A CompID or SubID as zero-padded little-endian words: the key of its number.
pub type CompId = [u64; 4];

/// Identity of a session at a shared endpoint: the key of the session's number.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct IdentityKey {
    /// Number of the shared endpoint.
    pub endpoint: u32,
    /// Numbers of the CompIDs and SubIDs ([`super::identity`]); 0 for a field that does not identify sessions
    /// there.
    pub comp_ids: [u32; 4],
}

/// A MsgType(35) that a session classifies itself.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Override {
    /// Packed MsgType ([`crate::fix::MsgType`]).
    pub msg_type: u64,
    /// Code of a [`crate::message::Class`].
    pub class: u64,
}

/// A declared session on one side.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Session {
    /// Scope numbers in the order of the checks: the session, its groups, the host.
    pub scopes: [u32; SCOPES_PER_SESSION],
    /// Number of scopes in use; 0 if this side does not declare the session.
    pub scope_count: u32,
    /// [`super::flag`] bits.
    pub flags: u32,
    /// One of [`super::while_tripped`].
    pub while_tripped: u32,
    /// Number of entries of `overrides` in use.
    pub override_count: u32,
    /// Numbers of the required CompIDs and SubIDs of the Logon ([`super::identity`]); 0 for any.
    pub comp_ids: [u32; 4],
    /// Epoch sum of the scopes at the start of the agent's day. While the sum is equal, no scope has tripped
    /// since.
    pub day_epoch: u64,
    /// Time of the declaration by a load or reload, CLOCK_MONOTONIC, ns. A connection without a seen SYN has
    /// this age.
    pub declared_ns: u64,
    /// Maximum length of a message in bytes. A longer BodyLength(9) is implausible.
    pub longest: u32,
    /// User id of the session's sockets, with [`super::flag::MATCH_UID`].
    pub uid: u32,
    /// MsgTypes that this session classifies itself.
    pub overrides: [Override; OVERRIDES_PER_SESSION],
    /// Limits of the scopes in the order of the checks, up to [`LimitRef::END`]: see
    /// [`crate::limits::list_limits`].
    pub limit_refs: [LimitRef; LIMITS_PER_SESSION],
}

/// A limit of a scope: at most `max` messages in any window of `per_ns`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Limit {
    /// Maximum number of messages in any window. For a ratio, the number of messages allowed without any
    /// fill.
    pub max: u64,
    /// Length of the window in ns; 0 for a total since the last reset.
    pub per_ns: u64,
    /// Numbers of messages in the window that cause a warning, ascending; 0 if unused.
    pub warn: [u64; WARNINGS_PER_LIMIT],
    /// Counted messages: a [`crate::message::LimitClass`] code.
    pub class: u32,
    /// Messages allowed for each inbound fill, if the product exceeds `max`; 0 if the limit is no ratio.
    pub per_fill: u32,
    /// Ring that holds the times of the tickets.
    pub ring: RingLayout,
}

/// The ring of a limit: its part of the memory of all rings.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct RingLayout {
    /// First slot.
    pub base: u32,
    /// Messages per slot, as a power of two: [`crate::window::granule_bits`].
    pub granule_bits: u8,
    /// Number of slots, as a power of two: [`crate::window::ring_bits`].
    pub ring_bits: u8,
    /// Zero.
    pub pad: u16,
}

impl RingLayout {
    /// Ring of a limit without a window. A granule of 2^63 tickets never completes, so no time is recorded.
    pub const NONE: Self = Self { base: 0, granule_bits: 63, ring_bits: 0, pad: 0 };
}

/// Reference from a session to a limit of one of its scopes, with the values that issue a ticket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct LimitRef {
    /// Scope number.
    pub scope: u32,
    /// Position of the limit in the scope.
    pub position: u16,
    /// Counted messages: 1 + an index in [`crate::counts::SegmentCounts::messages`].
    pub counter: u16,
    /// Copy of [`Limit::ring`].
    pub ring: RingLayout,
}

impl LimitRef {
    /// Value of `counter` behind the last limit of a session.
    pub const END: u16 = 0;
}

/// Limits in use of a scope, on one side.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Rules {
    /// Bits `1 << position` of the limits in use. An unchanged limit keeps its position and its window.
    pub positions: u32,
    /// Zero.
    pub pad: u32,
}

impl Rules {
    /// Bit of `positions`: the side declares the scope.
    pub const DECLARED: u32 = 1 << 31;
    /// Bit of `positions`: the policy file arms the scope. Only user space reads this bit;
    /// [`super::Scope::armed`] is in force.
    pub const ARMED: u32 = 1 << 30;
}

/// The limits of a scope on each side.
pub type Limits = [[Limit; LIMITS_PER_SCOPE]; SIDES];

//! What user space writes: facts of the load, and the policy.

use bytemuck::{Pod, Zeroable};

use super::{
    LIMITS_PER_SCOPE, LIMITS_PER_SESSION, MAX_INTERFACES, OVERRIDES_PER_SESSION, SCOPES_PER_SESSION, SIDES,
    WARNINGS_PER_LIMIT,
};

/// Facts of the load as a whole. Written before the hook is attached; after that only `side` and the policy on the other side are.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Meta {
    /// [`super::MAGIC`].
    pub magic: u64,
    /// [`super::ABI_VERSION`] of the object that made these maps.
    pub abi: u32,
    /// The policy in force: a position in `policies`, and everywhere else where there are [`SIDES`].
    pub side: u32,
    /// One of [`super::mode`].
    pub mode: u32,
    /// Size of the connection table.
    pub connections: u32,
    /// Scopes and sessions that the maps have room for.
    pub capacity: u32,
    /// Slots of the rings, in use or not.
    pub ring_slots: u32,
    /// CLOCK_REALTIME of the load, in seconds since 1970. Shown, never decided on.
    pub loaded_at: u64,
    /// Version of the program that loaded it, zero-padded.
    pub version: [u8; 16],
    /// Commit of the program that loaded it, zero-padded.
    pub git: [u8; 16],
    /// Tag that the kernel gave the program that decides.
    pub program_tag: u64,
    /// Not 0 where a program that reads what comes in is attached too.
    pub inbound: u32,
    /// Interfaces in use.
    pub interface_count: u32,
    /// Interfaces that the hook was attached to.
    pub interfaces: [Interface; MAX_INTERFACES],
    /// The network namespace that it was loaded in: device and inode of its file in nsfs (proc_pid_ns(5)).
    pub netns: [u64; 2],
    /// 1 where the program is told by this kernel whether a packet's pages are shared.
    pub shared_pages: u32,
    /// Inline, 1 where each frame comes over a wire, by XDP in the driver: no neighbour has left its checksum to the card.
    pub wired: u32,
    /// Path of the audit log, UTF-8, zero-padded: the verbs write it with no agent and no configuration at hand.
    pub audit: [u8; 256],
    /// The policies.
    pub policies: [Policy; SIDES],
}

/// A policy as a whole.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Policy {
    /// SHA-256 of its file.
    pub sha256: [u8; 32],
    /// Its name, UTF-8, zero-padded.
    pub name: [u8; 64],
    /// [`super::flag`] bits.
    pub flags: u32,
    /// One of [`super::undeclared`].
    pub undeclared: u32,
    /// How old the agent's heartbeat may grow, ns; 0 for ever.
    pub deadman_ns: u64,
    /// Scope numbers in use or used before: `0..scopes`.
    pub scopes: u32,
    /// Session numbers in use or used before: `0..sessions`; session 0 is the pseudo-session `undeclared`.
    pub sessions: u32,
}

/// An interface that the hook was attached to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Interface {
    /// Its name at that time, zero-padded.
    pub name: [u8; 16],
    /// Its number at that time.
    pub ifindex: u32,
    /// One of [`super::hook`].
    pub hook: u32,
    /// Bytes of its packets' link header: 14 of Ethernet, 0 where packets begin with IP.
    pub link_header: u32,
    /// Zero.
    pub pad: u32,
}

/// What a scope's number stands for. Once given, a number keeps its meaning until the unload.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Label {
    /// One of [`super::label`].
    pub kind: u32,
    /// Of a session's scope the session's number.
    pub session: u32,
    /// The name without its kind, UTF-8, zero-padded.
    pub name: [u8; 64],
}

/// Where connections go: the key of a longest-prefix match (kernel `struct bpf_lpm_trie_key`, without its length).
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

/// Whose the connections to an endpoint are, on each side: 0 is nobody's; see [`Target`].
pub type TargetWords = [u32; SIDES];

/// What is at an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Nothing that this policy declares.
    None,
    /// One session.
    Session(u32),
    /// Several, which a connection's first message tells apart.
    Shared {
        /// The number of their place, as [`IdentityKey`] has it.
        endpoint: u32,
        /// Bits `1 << position` of the fields that do ([`super::identity`]).
        mask: u32,
    },
}

impl Target {
    const SHARED: u32 = 1 << 31;
    const MASK: u32 = 27;

    /// As a word of a [`Place`].
    pub const fn pack(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Session(session) => session,
            Self::Shared { endpoint, mask } => Self::SHARED | mask << Self::MASK | endpoint,
        }
    }

    /// What such a word means.
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

/// An IPv6 address in network order, or an IPv4 one mapped into it (RFC 4291, 2.5.5.2). Words, because the verifier asks that
/// what lies on the stack is aligned.
pub type Address = [u32; 4];

/// The words of an IPv4 address, itself in network order.
#[inline(always)]
pub const fn mapped(v4: u32) -> Address {
    [0, 0, 0xffff_u32.to_be(), v4]
}

/// A CompID or SubID, zero-padded, as little-endian words: the key of its number.
pub type CompId = [u64; 4];

/// A session at a place that several share: the key of its number.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct IdentityKey {
    /// The place.
    pub endpoint: u32,
    /// Numbers of its CompIDs and SubIDs ([`super::identity`]); 0 for a field that does not tell sessions apart there.
    pub comp_ids: [u32; 4],
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

/// A declared session on one side.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Session {
    /// Scopes in the order they are asked: the session's own, its groups', the host's.
    pub scopes: [u32; SCOPES_PER_SESSION],
    /// How many of them there are; 0 where this side does not declare the session.
    pub scope_count: u32,
    /// [`super::flag`] bits.
    pub flags: u32,
    /// One of [`super::while_tripped`].
    pub while_tripped: u32,
    /// How many of `overrides` are in use.
    pub override_count: u32,
    /// Numbers of the CompIDs and SubIDs that its Logon must have ([`super::identity`]); 0 for any.
    pub comp_ids: [u32; 4],
    /// Sum of its scopes' epochs when the agent's day began: while it is that, nothing has tripped since.
    pub day_epoch: u64,
    /// When it was declared, by a load or a reload, CLOCK_MONOTONIC, ns: a connection of which no SYN was seen is as old as that.
    pub declared_ns: u64,
    /// Bytes of the longest message that is believed.
    pub longest: u32,
    /// With [`super::flag::MATCH_UID`]: the account whose sockets are the session's.
    pub uid: u32,
    /// MsgTypes that this session classifies for itself.
    pub overrides: [Override; OVERRIDES_PER_SESSION],
    /// The limits of its scopes, in the order they are asked, up to [`LimitRef::END`]: see [`crate::limits::meter`].
    pub limit_refs: [LimitRef; LIMITS_PER_SESSION],
}

/// A limit of a scope.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Limit {
    /// Messages that may cross in any interval of `per_ns`; of a ratio, those that may cross before it counts.
    pub max: u64,
    /// Length of the window in ns; 0 is "total, since the last reset".
    pub per_ns: u64,
    /// Messages in the window at which to warn, rising; 0 where there is none.
    pub warn: [u64; WARNINGS_PER_LIMIT],
    /// Which messages it counts: a [`crate::class::LimitClass`] code.
    pub class: u32,
    /// Messages that may cross for each fill that came in, where that is more than `max`; 0 for no such ratio.
    pub per_fill: u32,
    /// Where the times of its tickets stand.
    pub ring: RingLayout,
}

/// A limit's ring: its part of the memory of all rings.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct RingLayout {
    /// The first one.
    pub base: u32,
    /// Messages that share one of them, as a power of two: [`crate::window::granule_bits`].
    pub granule_bits: u8,
    /// How many there are, as a power of two: [`crate::window::ring_bits`].
    pub ring_bits: u8,
    /// Zero.
    pub pad: u16,
}

impl RingLayout {
    /// Those of a limit without a window: no ticket is ever the last one of its granule, so no time is kept.
    pub const NONE: Self = Self { base: 0, granule_bits: 63, ring_bits: 0, pad: 0 };
}

/// A limit that a session's messages are subject to: where it is, and what a ticket of it needs. [`Limit`] has the rest.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct LimitRef {
    /// The number of its scope.
    pub scope: u32,
    /// Its position there.
    pub position: u16,
    /// Which of a segment's messages it counts: 1 and a position in [`crate::stream::SegmentCounts::messages`].
    pub counter: u16,
    /// [`Limit::slots`].
    pub ring: RingLayout,
}

impl LimitRef {
    /// A counter: here a session has no more limits.
    pub const END: u16 = 0;
}

/// Which limits of a scope one side has.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Rules {
    /// Bits `1 << position` of the limits in use. A limit that stays keeps its position, and so its window.
    pub positions: u32,
    /// Zero.
    pub pad: u32,
}

impl Rules {
    /// The bit of `positions` that says that the side has the scope at all.
    pub const DECLARED: u32 = 1 << 31;
    /// And the one that says that the file arms it; whether it is armed now says `Scope::armed`. For user space alone.
    pub const ARMED: u32 = 1 << 30;
}

/// The limits of a scope on each side.
pub type Limits = [[Limit; LIMITS_PER_SCOPE]; SIDES];

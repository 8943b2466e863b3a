//! The layout of every map value, and the number that names this layout.
//!
//! Every struct is plain old data: integers and byte arrays only, with explicit padding. Addresses and ports
//! are in network order. Codes are never renumbered. Each change of the layout raises [`ABI_VERSION`]. The
//! test `tests/layout.rs` compares the layout with the recorded one.
//!
//! [`frozen`] is the part that is equal in every layout, so any version can trip a scope of any other.
//!
//! User space writes the structs of `policy.rs`; the kernel program writes those of `state.rs` and
//! `stream.rs`. The maps hold a policy on two *sides*. A reload lays out the next policy on the side that is
//! not in force and then switches sides with one store.

mod codes;
pub mod frozen;
mod policy;
mod state;
mod stream;

pub use codes::{
    cause, flag, hook, identity, kind, label, mode, probe, reason, relocation, undeclared, unseen,
    while_tripped,
};
pub use policy::{
    Address, CompId, Endpoint, IdentityKey, Interface, Label, Limit, LimitRef, Meta, Override, Policy,
    RingLayout, Rules, Session, Target, TargetWords, mapped,
};
pub use state::{
    Connection, ConnectionKey, Counters, Event, Fences, ProbeStamp, Scope, Switch, Trip, UnseenKey, Window,
};
pub use stream::{Framing, Gap, Inbound, Stream, sync};

/// The number of this layout. It is in the object, in the pinned META map and in `status`.
///
/// User space compares the number before it opens any other pinned map.
pub const ABI_VERSION: u32 = 5;
/// First word of [`Meta`]: "breaker\0".
pub const MAGIC: u64 = u64::from_le_bytes(*b"breaker\0");

/// Number of sides: the policy in force, and the next or previous one.
pub const SIDES: usize = 2;
/// Scopes that a message is subject to: its session, up to four groups, and the host.
pub const SCOPES_PER_SESSION: usize = 6;
/// Maximum number of groups of a session.
pub const GROUPS_PER_SESSION: usize = SCOPES_PER_SESSION - 2;
/// Maximum number of limits of a scope.
pub const LIMITS_PER_SCOPE: usize = 4;
/// Maximum number of limits that a session is subject to.
pub const LIMITS_PER_SESSION: usize = SCOPES_PER_SESSION * LIMITS_PER_SCOPE;
/// Maximum number of warning levels of a limit.
pub const WARNINGS_PER_LIMIT: usize = 3;
/// Maximum number of MsgTypes that a session classifies itself.
pub const OVERRIDES_PER_SESSION: usize = 16;
/// Maximum number of interfaces that one load attaches to.
pub const MAX_INTERFACES: usize = 16;

//! The layout of every value that lives in a map, and the number that names it.
//!
//! Integers and byte arrays only, padding explicit, so that each struct is plain old data. Addresses and ports are in network
//! order. Codes are never renumbered. Any change here raises [`ABI_VERSION`]; a test holds the recorded layout against it.
//!
//! [`policy`] is what user space writes, [`state`] what the kernel does; a policy has two *sides*, so that a new one can be
//! laid out whole beside the one in force and take over by one store.

mod codes;
mod policy;
mod state;
mod stream;

pub use codes::{
    cause, flag, hook, identity, kind, label, mode, reason, relocation, undeclared, unseen, while_tripped,
};
pub use policy::{
    Address, CompId, Endpoint, IdentityKey, Interface, Label, Limit, LimitRef, Meta, Override, Policy,
    RingLayout, Rules, Session, Target, TargetWords, mapped,
};
pub use state::{Connection, ConnectionKey, Counters, Event, Fences, Scope, Switch, Trip, UnseenKey, Window};
pub use stream::{Framing, Gap, Inbound, Stream, sync};

/// The layout's number: in the object, in the pinned META map, in `status`. Checked before any other pinned map is opened.
pub const ABI_VERSION: u32 = 5;
/// First word of [`Meta`]: "breaker\0".
pub const MAGIC: u64 = u64::from_le_bytes(*b"breaker\0");

/// Policies that are laid out side by side: the one in force, and the next or the last.
pub const SIDES: usize = 2;
/// A message of a session is subject to the session, up to four groups, and the host.
pub const SCOPES_PER_SESSION: usize = 6;
/// A session may be in this many groups.
pub const GROUPS_PER_SESSION: usize = SCOPES_PER_SESSION - 2;
/// Limits a scope may have.
pub const LIMITS_PER_SCOPE: usize = 4;
/// So a session is subject to this many limits.
pub const LIMITS_PER_SESSION: usize = SCOPES_PER_SESSION * LIMITS_PER_SCOPE;
/// Warning levels of a limit.
pub const WARNINGS_PER_LIMIT: usize = 3;
/// MsgTypes a session may classify by itself.
pub const OVERRIDES_PER_SESSION: usize = 16;
/// Interfaces that one load can attach to.
pub const MAX_INTERFACES: usize = 16;

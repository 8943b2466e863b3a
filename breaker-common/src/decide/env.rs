//! The place where a decision is made: the kernel, or a test.

use core::ops::Deref;

use crate::abi::{Framing, Session};
use crate::counts::SegmentCounts;
use crate::limits::{Charge, LimitExceeded};

use super::segment::Segment;

/// Switches of all scopes of a session, put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switches {
    /// Sum of the epochs: it changes whenever any of them does, for they only rise.
    pub epoch: u64,
    /// All causes.
    pub causes: u64,
}

/// What the scopes of a session tell beside: rarely asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScopeHistory {
    /// When the last of their epochs was raised, CLOCK_MONOTONIC, ns; 0 for never.
    pub raised_ns: u64,
    /// Sum of their resets.
    pub resets: u64,
}

/// What the scopes of all sessions at a shared place tell together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharedEndpointState {
    /// All causes.
    pub causes: u64,
    /// When the last of their epochs was raised, CLOCK_MONOTONIC, ns; 0 for never.
    pub raised_ns: u64,
}

/// What a decision asks of the place where it is made. Scopes and sessions are named by their number.
pub trait Env: Charge {
    /// How a session is held.
    type Session: Deref<Target = Session>;
    /// A session of the policy in force, which all that is told is about from here on.
    fn session(&mut self, number: u32) -> Option<Self::Session>;
    /// The session at a shared place that shows these CompIDs; 0 where there is none.
    fn session_by_comp_ids(&mut self, place: u32, ids: [u32; 4]) -> u32;
    /// What the scopes of the sessions at a shared place tell.
    fn shared_endpoint_state(&mut self, place: u32) -> SharedEndpointState;
    /// What becomes of FIX that no session declares: one of [`undeclared`].
    fn undeclared(&mut self) -> u32;
    /// Epoch sum and causes of a session.
    fn switches(&mut self, session: &Session) -> Switches;
    /// What else its scopes tell.
    fn history(&mut self, session: &Session) -> ScopeHistory;
    /// Whether what is passed in a scope trips it.
    fn armed(&mut self, scope: u32) -> bool;
    /// CLOCK_MONOTONIC, ns.
    fn now(&mut self) -> u64;
    /// Segments that this one will leave as, at least 1.
    fn wire_segments(&mut self, segment: &Segment) -> u32;
    /// What the segment has brought so far.
    fn counts(&mut self) -> &mut SegmentCounts;
    /// Reads the bytes `from..to` of the segment into the tally; looks for `any` in every message and for `orders` in orders ([`want`]),
    /// and believes no message that is longer than `longest` bytes.
    fn walk(&mut self, framing: &mut Framing, bytes: (u32, u32), longest: u32, want: (u32, u32));
    /// Trips a scope and tells of it: [`crate::limits::trip`].
    fn trip(&mut self, scope: u32, cause: u64, exceeded: LimitExceeded);
    /// Tells of a change at a connection: one of [`kind`]. `count`: of how many of its events this is the last, where some are left out.
    fn emit(&mut self, kind: u32, scope: u32, count: u32);
    /// Whether the agent has been silent for longer than the policy allows; and then, whether that trips the host.
    fn heartbeat_lost(&mut self, session: &Session) -> Option<bool>;
    /// Tells of that once, and not at each message.
    fn emit_heartbeat_lost(&mut self);
    /// Notes in a session's own scope that a segment was withheld, and when.
    fn set_withheld_time(&mut self, scope: u32);
    /// Takes note of a fenced connection of a tripped session: [`crate::limits::record_fence`].
    fn record_fence(&mut self, scope: u32, raised: u64, resets: u64);
    /// Whether that has isolated it: [`crate::limits::is_isolated`].
    fn is_isolated(&mut self, scope: u32, resets: u64) -> bool;
    /// Counts fills for the limits of a session that are ratios to them: [`crate::limits::record_fills`].
    fn record_fills(&mut self, session: &Session, fills: u64);
}

//! The environment of a decision: the kernel program or a test.

use core::ops::Deref;

use crate::abi::{Framing, Session};
use crate::counts::SegmentCounts;
use crate::limits::{Charge, LimitExceeded};

use super::segment::Segment;
use super::switches::{ScopeHistory, SharedEndpointState, Switches};

/// The surroundings of a decision. Scopes and sessions are given by number.
pub trait Env: Charge {
    /// Handle of a session.
    type Session: Deref<Target = Session>;
    /// Returns a session of the policy in force. All later events are about this session.
    fn session(&mut self, number: u32) -> Option<Self::Session>;
    /// Returns the number of the session with these CompIDs at a shared endpoint, or 0 if there is none.
    fn session_by_comp_ids(&mut self, endpoint: u32, comp_ids: [u32; 4]) -> u32;
    /// Returns the combined state of the sessions at a shared endpoint, given by its packed
    /// [`crate::abi::Target`].
    fn shared_endpoint_state(&mut self, target: u32) -> SharedEndpointState;
    /// Returns the treatment of undeclared FIX flows: one of [`crate::abi::undeclared`].
    fn undeclared(&mut self) -> u32;
    /// Returns the combined switches of a session: [`Switches::combined`].
    fn switches(&mut self, session: &Session) -> Switches;
    /// Returns the combined history of a session's scopes: [`ScopeHistory::combined`].
    fn history(&mut self, session: &Session) -> ScopeHistory;
    /// Returns true if an exceeded limit trips a scope.
    fn armed(&mut self, scope: u32) -> bool;
    /// Returns CLOCK_MONOTONIC, ns.
    fn now(&mut self) -> u64;
    /// Returns the number of wire segments after segmentation offload, at least 1.
    fn wire_segments(&mut self, segment: &Segment) -> u32;
    /// Returns the counts of the segment so far.
    fn counts(&mut self) -> &mut SegmentCounts;
    /// Counts the messages in `bytes` of the segment.
    ///
    /// `want` has the [`crate::message::want`] bits for all messages and for orders. A message longer than
    /// `longest` bytes is implausible.
    fn walk(&mut self, framing: &mut Framing, bytes: (u32, u32), longest: u32, want: (u32, u32));
    /// Trips a scope ([`crate::limits::trip`]) and emits an event.
    fn trip(&mut self, scope: u32, cause: u64, exceeded: LimitExceeded);
    /// Emits an event about the connection, of one of [`crate::abi::kind`].
    ///
    /// `count` is the number of the connection's rate-limited events, sent and suppressed.
    fn emit(&mut self, kind: u32, scope: u32, count: u32);
    /// Returns `None` if the agent's heartbeat is recent enough. Otherwise true if its loss trips the host.
    fn heartbeat_lost(&mut self, session: &Session) -> Option<bool>;
    /// Emits one event for the lost heartbeat, not one per message.
    fn emit_heartbeat_lost(&mut self);
    /// Stores the time of a withheld segment in the session's own scope.
    fn set_withheld_time(&mut self, scope: u32);
    /// Records a fenced connection of a tripped session: [`crate::limits::record_fence`].
    fn record_fence(&mut self, scope: u32, raised: u64, resets: u64);
    /// Returns true if the session is isolated: [`crate::limits::is_isolated`].
    fn is_isolated(&mut self, scope: u32, resets: u64) -> bool;
    /// Adds inbound fills to the ratios of a session: [`crate::limits::record_fills`].
    fn record_fills(&mut self, session: &Session, fills: u64);
}

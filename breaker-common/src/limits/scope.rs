//! Access to the scopes in memory that several CPUs share.

use core::ops::Deref;

use crate::abi::{Fences, Limit, RingLayout, Switch, Trip, Window};

/// The scopes of a policy.
pub trait Scopes {
    /// Handle of a scope.
    type Scope: SharedScope;
    /// Returns the scope with this number, or `None` if the maps have no such scope.
    fn scope(&self, number: u32) -> Option<Self::Scope>;
}

/// A scope of the policy in force, in memory that several CPUs share.
///
/// Each implementation reads and writes the fields atomically in its own way. `i` is the position of a limit.
pub trait SharedScope {
    /// Handle of a limit: a reference into the map, or a copy.
    type Limit: Deref<Target = Limit>;
    /// Returns the switch.
    fn switch(&self) -> Switch;
    /// Returns true if an exceeded limit trips the scope.
    fn armed(&self) -> bool;
    /// Returns a limit.
    fn limit(&self, i: usize) -> Self::Limit;
    /// Returns the state of a limit.
    fn window(&self, i: usize) -> Window;
    /// Returns the number of issued tickets.
    fn issued(&self, i: usize) -> u64;
    /// Returns the first ticket in the window at `now`: [`crate::window::tail`] over the ring of the limit.
    fn tail(&self, i: usize, limit: &Limit, issued: u64, now: u64) -> u64;
    /// Writes the time of the tickets `first..first + count`: [`crate::window::record_times`] into the ring
    /// of the limit.
    ///
    /// Calls `now` only if a time has to be written.
    fn record_times(&self, layout: &RingLayout, first: u64, count: u64, now: impl FnOnce() -> u64);
    /// Adds `count` to the issued tickets atomically and returns the number before.
    fn issue_tickets(&self, i: usize, count: u64) -> u64;
    /// Stores the tail.
    fn set_tail(&self, i: usize, tail: u64);
    /// Stores the peak.
    fn set_peak(&self, i: usize, peak: u64);
    /// Returns [`Window::recheck_at`] of the policy in force.
    fn recheck_at(&self, i: usize) -> u64;
    /// Stores [`Window::recheck_at`] of the policy in force.
    fn set_recheck_at(&self, i: usize, recheck_at: u64);
    /// Replaces the warning level atomically and returns the level before.
    fn swap_level(&self, i: usize, level: u64) -> u64;
    /// Sets cause bits in the switch atomically and returns the causes before.
    fn or_causes(&self, causes: u64) -> u64;
    /// Stores the time, then raises the epoch by one, atomically.
    fn raise_epoch(&self, now: u64);
    /// Stores the last trip.
    fn set_trip(&self, trip: Trip);
    /// Returns the recent fences.
    fn fences(&self) -> Fences;
    /// Stores the recent fences.
    fn set_fences(&self, fences: Fences);
    /// Adds to the fills of a limit that is a ratio, atomically.
    fn add_fills(&self, i: usize, fills: u64);
}

/// Trips a scope: sets the cause and raises the epoch, which fences every older connection.
///
/// Returns true if the cause is new.
#[inline(always)]
pub fn trip(scope: &impl SharedScope, trip: Trip) -> bool {
    let before = scope.or_causes(trip.cause);
    if before & trip.cause != 0 {
        return false;
    }
    scope.raise_epoch(trip.at_ns);
    scope.set_trip(trip);
    true
}

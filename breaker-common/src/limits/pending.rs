//! The state of a charge between its steps, and the results of the steps.

use crate::abi::LIMITS_PER_SESSION;

/// State of a charge between its steps.
///
/// The state is in memory on purpose. The verifier follows every combination of known register values, but
/// knows nothing about the values in this memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PendingCharge {
    /// Time of the check, CLOCK_MONOTONIC, ns, read after `issued`; 0 if not read yet.
    pub(super) now: u64,
    /// [`crate::abi::Window::issued`] of each limit.
    pub(super) issued: [u64; LIMITS_PER_SESSION],
    /// Not 0 if any limit counts any of the messages.
    pub(super) counted: u64,
    /// Bits of the limits to commit: see [`super::take_tickets`].
    ///
    /// The field stands between others, because the compiler clears adjacent words by a loop over bytes.
    pub(super) uncommitted: u64,
    /// Bits of the limits at or above their threshold.
    pub(super) near_limit: u64,
}

/// Result of [`super::precheck`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precheck {
    /// No limit counts any of the messages.
    NotCounted,
    /// All limits stay below their threshold.
    BelowThreshold,
    /// A limit may be exceeded.
    NearLimit,
}

/// Result of [`super::try_charge`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// No limit counts any of the messages.
    NotCounted,
    /// A limit may be exceeded. No ticket is taken.
    NearLimit,
    /// All tickets are taken. The value is the result of [`super::take_tickets`]: not 0 if another CPU raced.
    Charged(u64),
}

/// An exceeded limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitExceeded {
    /// Scope number.
    pub scope: u32,
    /// Position of the limit in the scope.
    pub limit: u32,
    /// Messages that the window would have held.
    pub used: u64,
}

/// A raised warning level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WarningRaised {
    /// Position of the limit in the scope.
    pub limit: u32,
    /// Messages in the window.
    pub used: u64,
    /// Warning level in force.
    pub level: u64,
}

/// Lowest bit of the raced limits in the result of [`super::take_tickets`].
pub(super) const RACED: u32 = 32;

#[inline(always)]
pub(super) fn has_bit(bits: u64, i: usize) -> bool {
    bits >> i & 1 == 1
}

/// Calls `commit` for each limit in `uncommitted`, the result of [`super::take_tickets`].
///
/// The arguments are the position in [`crate::abi::Session::limit_refs`], and true if another CPU raced.
#[inline(always)]
pub fn for_each_uncommitted(uncommitted: u64, mut commit: impl FnMut(usize, bool)) {
    let mut i = 0;
    while i < LIMITS_PER_SESSION {
        if has_bit(uncommitted, i) {
            commit(i, has_bit(uncommitted >> RACED, i));
        }
        i += 1;
    }
}

//! The check of a segment's messages against the limits, before any ticket is taken.

use core::cmp::min;
use core::hint::cold_path;

use crate::abi::{LIMITS_PER_SESSION, Limit, LimitRef, Session, Window};
use crate::counts::SegmentCounts;
use crate::window;

use super::pending::{LimitExceeded, PendingCharge, Precheck, has_bit};
use super::scope::{Scopes, SharedScope};

/// Calls `visit` for each limit of a session that counts any of the messages.
///
/// The arguments are the scope, the position in [`Session::limit_refs`], the reference, and the number of
/// messages.
#[inline(always)]
pub(super) fn for_each_counted<S: Scopes>(
    scopes: &S,
    session: &Session,
    counts: &SegmentCounts,
    mut visit: impl FnMut(&S::Scope, usize, &LimitRef, u64),
) {
    let mut i = 0;
    while i < LIMITS_PER_SESSION {
        let limit_ref = &session.limit_refs[i];
        let Some(count) = counts.for_counter(limit_ref.counter) else { break };
        if count != 0
            && let Some(scope) = scopes.scope(limit_ref.scope)
        {
            visit(&scope, i, limit_ref, count);
        }
        i += 1;
    }
}

/// Compares each limit that counts any of the messages with its threshold, and stores its issued tickets.
#[inline(always)]
pub fn precheck(
    scopes: &impl Scopes,
    session: &Session,
    pending: &mut PendingCharge,
    counts: &SegmentCounts,
) -> Precheck {
    (pending.counted, pending.near_limit, pending.now) = (0, 0, 0);
    for_each_counted(scopes, session, counts, |scope, i, limit_ref, count| {
        let issued = scope.issued(limit_ref.position as usize);
        pending.issued[i] = issued;
        pending.counted |= count;
        let recheck_at = scope.recheck_at(limit_ref.position as usize);
        pending.near_limit |= is_above(recheck_at, issued.wrapping_add(count)) << i;
    });
    if pending.near_limit != 0 {
        cold_path();
        return Precheck::NearLimit;
    }
    if pending.counted == 0 { Precheck::NotCounted } else { Precheck::BelowThreshold }
}

/// Returns 1 if `tickets` is above `recheck_at`.
///
/// The function has no branch, because the verifier follows both ways of each branch.
#[inline(always)]
fn is_above(recheck_at: u64, tickets: u64) -> u64 {
    recheck_at.wrapping_sub(tickets) >> 63
}

/// Returns the first limit of an armed scope that the messages would exceed.
///
/// Takes no ticket. Updates the tails of all limits near their threshold.
#[inline(always)]
pub fn find_exceeded(
    scopes: &impl Scopes,
    session: &Session,
    pending: &mut PendingCharge,
    counts: &SegmentCounts,
    clock: impl FnOnce() -> u64,
) -> Option<LimitExceeded> {
    pending.now = clock();
    let mut found = None;
    for_each_counted(scopes, session, counts, |scope, i, limit_ref, count| {
        if has_bit(pending.near_limit, i) {
            let (at, issued) = (limit_ref.position as usize, pending.issued[i]);
            let limit = scope.limit(at);
            let tail = scope.tail(at, &limit, issued, pending.now);
            let window = scope.window(at);
            // An unchanged tail is not written: another CPU may be taking tickets of this limit.
            if tail != window.tail {
                scope.set_tail(at, tail);
                update_recheck_at(scope, at, &limit, &window, tail);
            }
            let used = issued.wrapping_sub(tail).wrapping_add(count);
            if found.is_none() && used > window::max_messages(&limit, &window) && scope.armed() {
                found = Some(LimitExceeded { scope: limit_ref.scope, limit: at as u32, used });
            }
        }
    });
    found
}

/// Stores the threshold of a window with this tail: the ticket of the first warning, of a new peak or of a
/// trip.
#[inline(always)]
pub(super) fn update_recheck_at(
    scope: &impl SharedScope,
    i: usize,
    limit: &Limit,
    window: &Window,
    tail: u64,
) {
    // A warning in force is checked at each message, because the level may have to fall.
    let recheck_at = if window.level == 0 {
        tail.wrapping_add(min(window.peak, window::max_without_warning(limit)))
    } else {
        0
    };
    if recheck_at != scope.recheck_at(i) {
        scope.set_recheck_at(i, recheck_at);
    }
}

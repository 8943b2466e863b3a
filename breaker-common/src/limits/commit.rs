//! The commit of a limit: the check with the tickets that were really taken.

use core::cmp::max;

use crate::abi::{LimitRef, Window};
use crate::counts::SegmentCounts;
use crate::window;

use super::check::update_recheck_at;
use super::pending::{LimitExceeded, PendingCharge, WarningRaised};
use super::scope::{Scopes, SharedScope};

/// Checks a limit with its real tickets, writes their times, and updates tail, peak, warning level and
/// threshold.
///
/// `i` is the position in [`crate::abi::Session::limit_refs`]. Calls `on_warning` if the warning level rises.
/// Returns the limit if it is exceeded and its scope is armed. An outbound limit is exceeded here only if
/// another CPU raced.
#[inline(always)]
pub fn commit(
    scopes: &impl Scopes,
    (i, limit_ref, raced): (usize, &LimitRef, bool),
    (pending, counts): (&PendingCharge, &SegmentCounts),
    clock: impl Fn() -> u64,
    on_warning: impl FnOnce(WarningRaised),
) -> Option<LimitExceeded> {
    let issued = pending.issued.get(i).copied().unwrap_or(0);
    let now = if pending.now == 0 { clock() } else { pending.now };
    let (i, scope) = (limit_ref.position as usize, scopes.scope(limit_ref.scope)?);
    let (limit, count) = (scope.limit(i), counts.for_counter(limit_ref.counter)?);
    // The tail is read before the times are written, because they overwrite the oldest slots.
    let tail = scope.tail(i, &limit, issued, now);
    // Raced tickets were taken later than `now`.
    scope.record_times(&limit_ref.ring, issued, count, || if raced { clock() } else { now });
    let used = issued.wrapping_sub(tail).wrapping_add(count);
    let window = scope.window(i);
    let max_messages = window::max_messages(&limit, &window);
    let trips = used > max_messages && scope.armed();
    if tail != window.tail {
        scope.set_tail(i, tail);
    }
    let peak = max(window.peak, used);
    if peak != window.peak {
        scope.set_peak(i, peak);
    }
    let level = window::warning_level(&limit, max_messages, used);
    update_recheck_at(&scope, i, &limit, &Window { peak, level, ..window }, tail);
    // A trip needs no warning.
    if level != window.level && scope.swap_level(i, level) < level && !trips {
        on_warning(WarningRaised { limit: i as u32, used, level });
    }
    trips.then_some(LimitExceeded { scope: limit_ref.scope, limit: i as u32, used })
}

//! The tickets of a segment's messages.

use core::hint::cold_path;

use crate::abi::Session;
use crate::counts::SegmentCounts;

use super::check::{for_each_counted, precheck};
use super::pending::{Attempt, PendingCharge, Precheck, RACED, has_bit};
use super::scope::{Scopes, SharedScope};

/// Checks all limits ([`precheck`]) and takes the tickets ([`charge_below_threshold`]) if no limit can be
/// exceeded.
#[inline(always)]
pub fn try_charge(
    scopes: &impl Scopes,
    session: &Session,
    pending: &mut PendingCharge,
    counts: &SegmentCounts,
    clock: impl FnMut() -> u64,
) -> Attempt {
    match precheck(scopes, session, pending, counts) {
        Precheck::NotCounted => Attempt::NotCounted,
        Precheck::NearLimit => Attempt::NearLimit,
        Precheck::BelowThreshold => {
            Attempt::Charged(charge_below_threshold(scopes, session, pending, counts, clock))
        }
    }
}

/// Takes the tickets ([`take_tickets`]) after a precheck that found all limits below their threshold.
///
/// `clock` returns the same time at each call for one segment, and reads the clock at the first call.
#[inline(always)]
pub fn charge_below_threshold(
    scopes: &impl Scopes,
    session: &Session,
    pending: &mut PendingCharge,
    counts: &SegmentCounts,
    clock: impl FnMut() -> u64,
) -> u64 {
    issue_counted(scopes, session, pending, counts, 0, clock)
}

/// Takes the tickets of all limits, and returns the limits to commit.
///
/// A limit below its threshold is complete. The result has a bit for each other limit, by its position, and a
/// bit 32 positions higher if another CPU raced.
#[inline(always)]
pub fn take_tickets(
    scopes: &impl Scopes,
    session: &Session,
    pending: &mut PendingCharge,
    counts: &SegmentCounts,
) -> u64 {
    let now = pending.now;
    issue_counted(scopes, session, pending, counts, pending.near_limit, || now)
}

/// Implements [`take_tickets`]. `near_limit` has the bits of the limits near their threshold.
#[inline(always)]
fn issue_counted(
    scopes: &impl Scopes,
    session: &Session,
    pending: &mut PendingCharge,
    counts: &SegmentCounts,
    near_limit: u64,
    mut clock: impl FnMut() -> u64,
) -> u64 {
    pending.uncommitted = 0;
    for_each_counted(scopes, session, counts, |scope, i, limit_ref, count| {
        let issued = scope.issue_tickets(limit_ref.position as usize, count);
        let raced = issued != pending.issued[i];
        if raced || has_bit(near_limit, i) {
            cold_path();
            pending.issued[i] = issued;
            pending.uncommitted |= (1 | (raced as u64) << RACED) << i;
        } else {
            scope.record_times(&limit_ref.ring, issued, count, &mut clock);
        }
    });
    pending.uncommitted
}

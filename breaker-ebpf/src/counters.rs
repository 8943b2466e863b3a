//! Per-CPU counters: packets by reason, segments and messages by session, unread packets by kind.

use aya_ebpf::{
    macros::map,
    maps::{PerCpuArray, PerCpuHashMap},
};
use breaker_common::abi::{Counters, UnseenKey, reason};
use breaker_common::counts::SegmentCounts;
use breaker_common::decide::Verdict;

/// Packets by reason (`abi::reason`).
#[map]
static REASONS: PerCpuArray<u64> = PerCpuArray::with_max_entries(reason::NAMES.len() as u32, 0);

/// Segments and messages by the session's number.
#[map]
static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(1, 0);

/// Packets that passed unread, by interface and kind.
#[map]
static UNSEEN: PerCpuHashMap<UnseenKey, u64> = PerCpuHashMap::with_max_entries(256, 0);

/// Counts a packet by its reason.
#[inline(always)]
pub fn count(reason: u32) {
    if let Some(counter) = REASONS.get_ptr_mut(reason) {
        // SAFETY: this CPU's own value.
        unsafe { *counter += 1 };
    }
}

/// Counts a packet that passes unread by its kind (`abi::unseen`). If the map is full, only the reason's
/// counter shows the packet.
#[inline(always)]
pub fn count_unseen(ifindex: u32, kind: u32) {
    let key = UnseenKey { ifindex, kind };
    match UNSEEN.get_ptr_mut(&key) {
        // SAFETY: this CPU's own value.
        Some(counter) => unsafe { *counter += 1 },
        None => drop(UNSEEN.insert(&key, &1, 0)),
    }
}

/// Counts an outbound segment of a session, and the messages in it.
#[inline(always)]
pub fn count_segment(session: u32, verdict: Verdict, counts: &SegmentCounts) {
    if let Some(counters) = COUNTERS.get_ptr_mut(session) {
        // SAFETY: this CPU's own value.
        unsafe { (*counters).count(verdict, counts) };
    }
}

/// Counts the messages of an inbound segment of a session.
#[inline(always)]
pub fn count_inbound(session: u32, counts: &SegmentCounts) {
    if let Some(counters) = COUNTERS.get_ptr_mut(session) {
        // SAFETY: this CPU's own value.
        unsafe { (*counters).count_inbound(counts) };
    }
}

//! The exact sliding window: at most N messages of a class pass in any interval of length W.
//!
//! Each message takes a ticket, and a ring stores the time of each ticket. The messages in the window are the
//! tickets from `tail` to the last issued one. `tail` is the first ticket taken less than W ago. The limit
//! and the reading are therefore both exact: the window has no refill rate, no buckets and no per-CPU part.
//!
//! **Concurrent CPUs.** A segment first checks every limit and then takes its tickets with one atomic
//! addition per limit ([`crate::limits::charge`]). The addition reveals tickets that another CPU took in
//! between. The segment is then checked again with its real ticket numbers. The stored time is never earlier
//! than the time of the check, so an interval measured by the ring is never longer than the real one. A slot
//! that its owner has not written yet reads as "now".
//!
//! **Large limits.** Above 2,046 messages, a slot holds the time of the last ticket of a *granule* of
//! tickets. The count is then too high by less than one granule, which is below 0.1 % of N.
//!
//! A window of at most 2 messages per 1000 ns:
//! ```
//! use breaker_common::abi::{Limit, RingLayout, Window};
//! use breaker_common::window::{self, Ring};
//!
//! struct Memory([u64; 4]);
//!
//! impl Ring for Memory {
//!     fn read(&self, slot: u64) -> u64 {
//!         self.0[slot as usize]
//!     }
//!     fn write(&mut self, slot: u64, word: u64) {
//!         self.0[slot as usize] = word;
//!     }
//! }
//!
//! let ring_bits = window::ring_bits(2) as u8;
//! assert_eq!(ring_bits, 2, "four slots");
//! let layout = RingLayout { ring_bits, ..RingLayout::default() };
//! let limit = Limit { max: 2, per_ns: 1000, ring: layout, ..Limit::default() };
//! let (mut ring, mut issued) = (Memory([0; 4]), 0);
//! for now in [5000, 5400] {
//!     window::record_times(&layout, &mut ring, issued, 1, now, u64::MAX);
//!     issued += 1;
//! }
//! let used = |now| issued - window::tail(&limit, &Window { issued, ..Window::default() }, &ring, now);
//! assert_eq!([used(5999), used(6000), used(6400)], [2, 1, 0]);
//! ```

use core::cmp::{max, min};

use crate::abi::{Limit, RingLayout, Window};

/// The memory of all rings. [`RingLayout`] gives the part of one limit.
pub trait Ring {
    /// Returns the word in a slot.
    fn read(&self, slot: u64) -> u64;
    /// Writes the word in a slot.
    fn write(&mut self, slot: u64, word: u64);
}

/// Maximum number of slots of a ring.
pub const MAX_SLOTS: u64 = 1 << 11;
/// Maximum number of steps of a search over a ring: one step next to the hint, then a binary search.
const SEARCH_STEPS: u32 = 12;
/// Low bits of a slot's word that contain the lap of the ring. The upper 60 bits are a time in ns, up to 36
/// years.
const LAP_BITS: u32 = 4;

/// Returns the number of messages per slot, as a power of two: 0 (one message) for a limit up to 2,046.
pub const fn granule_bits(max: u64) -> u32 {
    let mut bits = 0;
    while max >> bits > MAX_SLOTS - 2 {
        bits += 1;
    }
    bits
}

/// Returns the number of slots of a ring, as a power of two: a full window and a partial granule at each end.
pub const fn ring_bits(max: u64) -> u32 {
    ((max >> granule_bits(max)) + 2).next_power_of_two().ilog2()
}

/// Returns the first ticket in the window that ends at `now` (CLOCK_MONOTONIC, ns).
///
/// For a limit without a window, the first ticket is the one after the last reset. The caller reads `now`
/// after `window.issued`.
#[inline(always)]
pub fn tail(limit: &Limit, window: &Window, ring: &impl Ring, now: u64) -> u64 {
    match tail_at_hint(limit, window, ring, now) {
        (hint, true) => hint,
        (hint, false) => tail_after(limit, window.issued, ring, hint, now),
    }
}

/// Returns the tail found by the last search, and true if the tail is still there.
#[inline(always)]
fn tail_at_hint(limit: &Limit, window: &Window, ring: &impl Ring, now: u64) -> (u64, bool) {
    if limit.per_ns == 0 {
        // A concurrent reset may have set the floor above `issued`.
        return (min(window.floor, window.issued), true);
    }
    // `kept` is the number of tickets that the ring remembers.
    let granule_bits = limit.ring.granule_bits & 63;
    let kept = ((1u64 << (limit.ring.ring_bits & 63)) - 1) << granule_bits;
    let oldest = max(window.issued.saturating_sub(kept), window.floor);
    let hint = min(max(window.tail, oldest), window.issued);
    let granule = hint >> granule_bits;
    (hint, granule == window.issued >> granule_bits || !has_expired(limit, ring, granule, now))
}

/// Returns the tail behind a ticket that has left the window.
///
/// In steady traffic the next granule is the tail. After a pause, a binary search finds the tail.
#[inline(always)]
fn tail_after(limit: &Limit, issued: u64, ring: &impl Ring, ticket: u64, now: u64) -> u64 {
    let granule_bits = limit.ring.granule_bits & 63;
    // `low` has expired, `high` has not.
    let (mut low, mut high) = (ticket >> granule_bits, issued >> granule_bits);
    let mut middle = low + 1;
    let mut step = 0;
    while step < SEARCH_STEPS && low + 1 < high {
        if has_expired(limit, ring, middle, now) {
            low = middle;
        } else {
            high = middle;
        }
        middle = low + ((high - low) >> 1);
        step += 1;
    }
    (low + 1) << granule_bits
}

/// Returns true if the last ticket of a granule was taken one window or longer ago.
#[inline(always)]
fn has_expired(limit: &Limit, ring: &impl Ring, granule: u64, now: u64) -> bool {
    let word = ring.read(slot(&limit.ring, granule));
    word & LAP_MASK == lap(&limit.ring, granule)
        && now.wrapping_sub(word >> LAP_BITS) as i64 >= limit.per_ns as i64
}

/// Returns the number of granules that end in the tickets `first..first + count`.
///
/// [`record_times`] writes that number of words, up to a full ring.
#[inline(always)]
pub fn granules_completed(layout: &RingLayout, first: u64, count: u64) -> u64 {
    let granule_bits = layout.granule_bits & 63;
    (first.wrapping_add(count) >> granule_bits).wrapping_sub(first >> granule_bits)
}

/// Writes the time `now` of the granule of ticket `first`: [`record_times`] for exactly one completed
/// granule.
#[inline(always)]
pub fn record_time(layout: &RingLayout, ring: &mut impl Ring, first: u64, now: u64) {
    let granule = first >> (layout.granule_bits & 63);
    ring.write(slot(layout, granule), now << LAP_BITS | lap(layout, granule));
}

/// Writes the time `now` of the tickets `first..first + count`: one word for each granule that ends in them.
///
/// Writes at most `max_words` words and returns the number of tickets left.
#[inline(always)]
pub fn record_times(
    layout: &RingLayout,
    ring: &mut impl Ring,
    first: u64,
    count: u64,
    now: u64,
    max_words: u64,
) -> u64 {
    let granule_bits = layout.granule_bits & 63;
    let last = first.wrapping_add(count);
    let end = last >> granule_bits;
    let mut granule = first >> granule_bits;
    if granule == end {
        return 0;
    }
    // Words beyond a full ring would overwrite each other.
    if end - granule > MAX_SLOTS {
        granule = end - MAX_SLOTS;
    }
    let mut written = 0;
    while written < max_words && granule < end {
        ring.write(slot(layout, granule), now << LAP_BITS | lap(layout, granule));
        granule += 1;
        written += 1;
    }
    last - max(granule << granule_bits, first)
}

/// Returns the slot of a granule.
#[inline(always)]
fn slot(layout: &RingLayout, granule: u64) -> u64 {
    layout.base as u64 + (granule & ((1 << (layout.ring_bits & 63)) - 1))
}

/// Returns the lap of a granule around the ring. The first lap is 1, because an unwritten word has lap 0.
#[inline(always)]
fn lap(layout: &RingLayout, granule: u64) -> u64 {
    (granule >> (layout.ring_bits & 63)).wrapping_add(1) & LAP_MASK
}

const LAP_MASK: u64 = (1 << LAP_BITS) - 1;

/// Returns the maximum number of messages in the window.
///
/// The maximum of a ratio is `per_fill` for each fill, but at least `limit.max`.
#[inline(always)]
pub fn max_messages(limit: &Limit, window: &Window) -> u64 {
    if limit.per_fill == 0 {
        return limit.max;
    }
    let by_fills = window.fills.wrapping_sub(window.fill_floor).wrapping_mul(limit.per_fill as u64);
    if by_fills > limit.max { by_fills } else { limit.max }
}

/// Returns the maximum number of messages in the window without a warning and without a trip.
#[inline(always)]
pub fn max_without_warning(limit: &Limit) -> u64 {
    let [first, ..] = limit.warn;
    if first != 0 { first - 1 } else { limit.max }
}

/// Returns the warning level of `used` messages: 0 to 3, or [`EXCEEDED`] above `max`.
#[inline(always)]
pub fn warning_level(limit: &Limit, max: u64, used: u64) -> u64 {
    let [first, second, third] = limit.warn;
    let (all, mut level) = (used, 0);
    // Warning levels are shares of `limit.max`. If fills raise the maximum, `used` is scaled down instead.
    // Both factors are below 2^32.
    let used = if max > limit.max { used.wrapping_mul(limit.max) / max } else { used };
    if first != 0 && used >= first {
        level = 1;
    }
    if second != 0 && used >= second {
        level = 2;
    }
    if third != 0 && used >= third {
        level = 3;
    }
    if all > max { EXCEEDED } else { level }
}

/// Warning level of an exceeded limit.
pub const EXCEEDED: u64 = 4;

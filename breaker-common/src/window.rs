//! The exact sliding window: in any interval of length W at most N messages of a class cross.
//!
//! Each message takes a ticket, and a ring remembers when each ticket was taken. The messages in the window are the tickets from
//! `tail`, the first one taken less than W ago, up to the last one issued; so both the rule and the reading are exact. Nothing is
//! refilled, rounded to a bucket or kept per CPU.
//!
//! **Several CPUs at once.** A segment first asks every limit and then takes its tickets with one atomic addition a limit
//! (`limits::charge`). If tickets went out in between, the addition tells, and the segment is judged again by the number it really got.
//! The time that is stored is no earlier than the one that judges, so an interval measured by the ring is never longer than the real one. A slot whose holder has not written yet reads as "just now".
//!
//! **Long limits.** Above 2,046 a slot stands for a granule of tickets and holds the time of the last of them: the count is
//! high by less than one granule, under 0.1 % of N.

use core::cmp::{max, min};

use crate::abi::{Limit, RingLayout, Window};

/// The memory of all rings; a limit's own part is its [`RingLayout`].
pub trait Ring {
    /// The word in a slot.
    fn read(&self, slot: u64) -> u64;
    /// Replaces the word in a slot.
    fn write(&mut self, slot: u64, word: u64);
}

/// Most slots that a ring has.
pub const MAX_SLOTS: u64 = 1 << 11;
/// Steps that a search over any ring takes: one beside the hint, then halves.
const SEARCH_STEPS: u32 = 12;
/// Low bits of a slot's word that hold the lap of the ring; above them 60 bits of ns, 36 years.
const LAP_BITS: u32 = 4;

/// Messages that share one slot, as a power of two: none for a limit up to 2,046.
pub const fn granule_bits(max: u64) -> u32 {
    let mut bits = 0;
    while max >> bits > MAX_SLOTS - 2 {
        bits += 1;
    }
    bits
}

/// Slots in the ring of a limit, as a power of two: a full window, and a granule begun at each end of it.
pub const fn ring_bits(max: u64) -> u32 {
    ((max >> granule_bits(max)) + 2).next_power_of_two().ilog2()
}

/// The first ticket that was taken less than a window before `now` (CLOCK_MONOTONIC, ns); of a limit without a window the first
/// since the last reset. `now` was read after `window.issued`.
#[inline(always)]
pub fn tail(limit: &Limit, window: &Window, ring: &impl Ring, now: u64) -> u64 {
    match tail_at_hint(limit, window, ring, now) {
        (hint, true) => hint,
        (hint, false) => tail_behind(limit, window.issued, ring, hint, now),
    }
}

/// The tail where it was last seen, and whether it still is there.
#[inline(always)]
fn tail_at_hint(limit: &Limit, window: &Window, ring: &impl Ring, now: u64) -> (u64, bool) {
    if limit.per_ns == 0 {
        // A reset in between may have set the floor above what was issued at the mark.
        return (min(window.floor, window.issued), true);
    }
    // The ring remembers this many tickets and no more.
    let granule_bits = limit.ring.granule_bits & 63;
    let kept = ((1u64 << (limit.ring.ring_bits & 63)) - 1) << granule_bits;
    let oldest = max(window.issued.saturating_sub(kept), window.floor);
    let hint = min(max(window.tail, oldest), window.issued);
    let granule = hint >> granule_bits;
    (hint, granule == window.issued >> granule_bits || !has_expired(limit, ring, granule, now))
}

/// The tail behind a ticket that has left the window: in steady traffic the next granule settles it, after a pause a search by halves.
#[inline(always)]
fn tail_behind(limit: &Limit, issued: u64, ring: &impl Ring, ticket: u64, now: u64) -> u64 {
    let granule_bits = limit.ring.granule_bits & 63;
    // `low` has passed, `high` has not.
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

/// True where the last ticket of this granule was taken a window or more ago.
#[inline(always)]
fn has_expired(limit: &Limit, ring: &impl Ring, granule: u64, now: u64) -> bool {
    let word = ring.read(slot(&limit.ring, granule));
    word & LAP_MASK == lap(&limit.ring, granule)
        && now.wrapping_sub(word >> LAP_BITS) as i64 >= limit.per_ns as i64
}

/// How many granules end among the tickets `first..first + more`: so many words [`stamp`] writes, up to a ring full.
#[inline(always)]
pub fn granules_completed(layout: &RingLayout, first: u64, more: u64) -> u64 {
    let granule_bits = layout.granule_bits & 63;
    (first.wrapping_add(more) >> granule_bits).wrapping_sub(first >> granule_bits)
}

/// [`stamp`] where one does.
#[inline(always)]
pub fn record_time(layout: &RingLayout, ring: &mut impl Ring, first: u64, now: u64) {
    let granule = first >> (layout.granule_bits & 63);
    ring.write(slot(layout, granule), now << LAP_BITS | lap(layout, granule));
}

/// Writes the time `now` for the tickets `first..first + more`: one word for each granule that ends among them. Writes `max` words
/// at most and returns how many tickets it left out.
#[inline(always)]
pub fn record_times(
    layout: &RingLayout,
    ring: &mut impl Ring,
    first: u64,
    more: u64,
    now: u64,
    max_words: u64,
) -> u64 {
    let granule_bits = layout.granule_bits & 63;
    let last = first.wrapping_add(more);
    let end = last >> granule_bits;
    let mut granule = first >> granule_bits;
    if granule == end {
        return 0;
    }
    // More than a full ring would only be overwritten again.
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

/// Where a granule's word stands.
#[inline(always)]
fn slot(layout: &RingLayout, granule: u64) -> u64 {
    layout.base as u64 + (granule & ((1 << (layout.ring_bits & 63)) - 1))
}

/// Which round of the ring a granule belongs to. Never that of an untouched word of 0, in the first round.
#[inline(always)]
fn lap(layout: &RingLayout, granule: u64) -> u64 {
    (granule >> (layout.ring_bits & 63)).wrapping_add(1) & LAP_MASK
}

const LAP_MASK: u64 = (1 << LAP_BITS) - 1;

/// How many messages may be in the window: the limit's own figure, or where it is a ratio and that is more, so many for each fill.
#[inline(always)]
pub fn max_messages(limit: &Limit, window: &Window) -> u64 {
    if limit.per_fill == 0 {
        return limit.max;
    }
    let by_fills = window.fills.wrapping_sub(window.fill_floor).wrapping_mul(limit.per_fill as u64);
    if by_fills > limit.max { by_fills } else { limit.max }
}

/// How many messages may be in the window without a warning or a verdict.
#[inline(always)]
pub fn max_without_warning(limit: &Limit) -> u64 {
    let [first, ..] = limit.warn;
    // A ratio allows `max` and more, and warns at as large a share of it.
    if first != 0 { first - 1 } else { limit.max }
}

/// How many warning levels this many messages reach; one more than there are where `max`, the limit itself, is passed.
#[inline(always)]
pub fn warning_level(limit: &Limit, max: u64, used: u64) -> u64 {
    let [first, second, third] = limit.warn;
    let (all, mut level) = (used, 0);
    // They are shares of `max`. Where fills allow more than that, they are to be the same shares of it: so many messages, scaled
    // down. Both factors stay below 2^32.
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

/// The level of a limit that is passed.
pub const EXCEEDED: u64 = 4;

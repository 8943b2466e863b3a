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

use crate::abi::{Limit, Slots, Window};

/// The memory of all rings; a limit's own part is its [`Slots`].
pub trait Ring {
    /// The word in a slot.
    fn read(&self, slot: u64) -> u64;
    /// Replaces the word in a slot.
    fn write(&mut self, slot: u64, word: u64);
}

/// Most slots that a ring has.
pub const MOST_SLOTS: u64 = 1 << 11;
/// Steps that a search over any ring takes: one beside the hint, then halves.
const SEARCH_STEPS: u32 = 12;
/// Low bits of a slot's word that hold the lap of the ring; above them 60 bits of ns, 36 years.
const LAP_BITS: u32 = 4;

/// Messages that share one slot, as a power of two: none for a limit up to 2,046.
pub const fn granule_bits(max: u64) -> u32 {
    let mut bits = 0;
    while max >> bits > MOST_SLOTS - 2 {
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
    let granule_bits = limit.slots.granule_bits & 63;
    let kept = ((1u64 << (limit.slots.ring_bits & 63)) - 1) << granule_bits;
    let oldest = max(window.issued.saturating_sub(kept), window.floor);
    let hint = min(max(window.tail, oldest), window.issued);
    let granule = hint >> granule_bits;
    (hint, granule == window.issued >> granule_bits || !passed(limit, ring, granule, now))
}

/// The tail behind a ticket that has left the window: in steady traffic the next granule settles it, after a pause a search by halves.
#[inline(always)]
fn tail_behind(limit: &Limit, issued: u64, ring: &impl Ring, ticket: u64, now: u64) -> u64 {
    let granule_bits = limit.slots.granule_bits & 63;
    // `low` has passed, `high` has not.
    let (mut low, mut high) = (ticket >> granule_bits, issued >> granule_bits);
    let mut middle = low + 1;
    let mut step = 0;
    while step < SEARCH_STEPS && low + 1 < high {
        if passed(limit, ring, middle, now) {
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
fn passed(limit: &Limit, ring: &impl Ring, granule: u64, now: u64) -> bool {
    let word = ring.read(slot(&limit.slots, granule));
    word & LAP_MASK == lap(&limit.slots, granule) && now.wrapping_sub(word >> LAP_BITS) as i64 >= limit.per_ns as i64
}

/// How many granules end among the tickets `first..first + more`: so many words [`stamp`] writes, up to a ring full.
#[inline(always)]
pub fn ended(slots: &Slots, first: u64, more: u64) -> u64 {
    let granule_bits = slots.granule_bits & 63;
    (first.wrapping_add(more) >> granule_bits).wrapping_sub(first >> granule_bits)
}

/// [`stamp`] where one does.
#[inline(always)]
pub fn stamp_one(slots: &Slots, ring: &mut impl Ring, first: u64, now: u64) {
    let granule = first >> (slots.granule_bits & 63);
    ring.write(slot(slots, granule), now << LAP_BITS | lap(slots, granule));
}

/// Writes the time `now` for the tickets `first..first + more`: one word for each granule that ends among them. Writes `most` words
/// at most and returns how many tickets it left out.
#[inline(always)]
pub fn stamp(slots: &Slots, ring: &mut impl Ring, first: u64, more: u64, now: u64, most: u64) -> u64 {
    let granule_bits = slots.granule_bits & 63;
    let last = first.wrapping_add(more);
    let end = last >> granule_bits;
    let mut granule = first >> granule_bits;
    if granule == end {
        return 0;
    }
    // More than a full ring would only be overwritten again.
    if end - granule > MOST_SLOTS {
        granule = end - MOST_SLOTS;
    }
    let mut written = 0;
    while written < most && granule < end {
        ring.write(slot(slots, granule), now << LAP_BITS | lap(slots, granule));
        granule += 1;
        written += 1;
    }
    last - max(granule << granule_bits, first)
}

/// Where a granule's word stands.
#[inline(always)]
fn slot(slots: &Slots, granule: u64) -> u64 {
    slots.base as u64 + (granule & ((1 << (slots.ring_bits & 63)) - 1))
}

/// Which round of the ring a granule belongs to. Never that of an untouched word of 0, in the first round.
#[inline(always)]
fn lap(slots: &Slots, granule: u64) -> u64 {
    (granule >> (slots.ring_bits & 63)).wrapping_add(1) & LAP_MASK
}

const LAP_MASK: u64 = (1 << LAP_BITS) - 1;

/// How many messages may be in the window: the limit's own figure, or where it is a ratio and that is more, so many for each fill.
#[inline(always)]
pub fn most(limit: &Limit, window: &Window) -> u64 {
    if limit.per_fill == 0 {
        return limit.max;
    }
    let by_fills = window.fills.wrapping_sub(window.fill_floor).wrapping_mul(limit.per_fill as u64);
    if by_fills > limit.max { by_fills } else { limit.max }
}

/// How many messages may be in the window without a warning or a verdict.
#[inline(always)]
pub fn unwarned(limit: &Limit) -> u64 {
    let [first, ..] = limit.warn;
    // A ratio allows `max` and more, and warns at as large a share of it.
    if first != 0 { first - 1 } else { limit.max }
}

/// How many warning levels this many messages reach; one more than there are where `most`, the limit itself, is passed.
#[inline(always)]
pub fn level(limit: &Limit, most: u64, used: u64) -> u64 {
    let [first, second, third] = limit.warn;
    let (all, mut level) = (used, 0);
    // They are shares of `max`. Where fills allow more than that, they are to be the same shares of it: so many messages, scaled
    // down. Both factors stay below 2^32.
    let used = if most > limit.max { used.wrapping_mul(limit.max) / most } else { used };
    if first != 0 && used >= first {
        level = 1;
    }
    if second != 0 && used >= second {
        level = 2;
    }
    if third != 0 && used >= third {
        level = 3;
    }
    if all > most { EXCEEDED } else { level }
}

/// The level of a limit that is passed.
pub const EXCEEDED: u64 = 4;
